//! Modules for one kernel: the engine, from the C that travels with kmend, and what uses it.

use crate::EngineError;
use crate::sources::{INTERFACE, SOURCES, interface_id};
use kmend_kernel::Image;
use kmend_link::{ENGINE, Paths, TargetKernel, Written, WrittenModules, make_written};
use kmend_store::Kernel;
use std::path::Path;
use std::{fs, thread};

/// What is known of the kernel when the engine is built; it is written for each.
const MADE_FOR: &str = "made_for.h";

/// Makes modules for one kernel.
pub struct Workshop {
    image: Image,
    symvers: String,
    paths: Paths,
}

impl Workshop {
    /// Reads what is to be known of the kernel.
    pub fn open(kernel: &Kernel) -> Result<Self, EngineError> {
        let symvers = fs::read_to_string(&kernel.symvers)
            .map_err(|source| EngineError::Io { path: kernel.symvers.clone(), source })?;
        let paths = Paths {
            headers: kernel.headers.clone(),
            make_variables: vec![("CC".into(), kernel.compiler.clone())],
            jobs: thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(Self { image: Image::open(&kernel.image)?, symvers, paths })
    }

    /// The engine. `scratch` is a folder of its own.
    pub fn engine(&self, scratch: &Path) -> Result<WrittenModules, EngineError> {
        let build_id = self.image.build_id().map(hex::encode).unwrap_or_default();
        let made_for = format!(
            "#define KMEND_BUILD_ID \"{build_id}\"\n#define KMEND_INTERFACE \"{}\"\n",
            interface_id()
        );
        let files: Vec<_> = SOURCES.iter().copied().chain([(MADE_FOR, made_for.as_str())]).collect();
        self.make(&Written { stems: &[ENGINE], files: &files, symvers: "" }, scratch)
    }

    /// Modules that use the engine: `files` are their sources and their Kbuild file, `symvers` what the engine exports.
    pub fn users(
        &self,
        stems: &[&str],
        files: &[(&str, &str)],
        symvers: &str,
        scratch: &Path,
    ) -> Result<WrittenModules, EngineError> {
        let files: Vec<_> = files.iter().copied().chain([INTERFACE]).collect();
        self.make(&Written { stems, files: &files, symvers }, scratch)
    }

    fn make(&self, written: &Written<'_>, scratch: &Path) -> Result<WrittenModules, EngineError> {
        let kernel = TargetKernel::new(&self.image, None, &self.symvers);
        Ok(make_written(written, &kernel, &self.paths, scratch)?)
    }
}
