//! What a build knows of the kernel that ships.

use kmend_kernel::{Image, KernelError, ModuleTree};
use std::fs;
use std::path::Path;

/// What is read of the kernel that ships.
pub(crate) struct Facts {
    pub(crate) image: Image,
    pub(crate) modules: Option<ModuleTree>,
    pub(crate) symvers: String,
}

impl Facts {
    pub(crate) fn read(image: &Path, modules: &Path, symvers: &Path) -> Result<Self, KernelError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| KernelError::Io { path, source }
        };
        Ok(Facts {
            image: Image::open(image)?,
            modules: if modules.is_dir() { Some(ModuleTree::open(modules)?) } else { None },
            symvers: fs::read_to_string(symvers).map_err(io(symvers))?,
        })
    }
}
