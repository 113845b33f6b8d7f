//! The module for one kernel, from the C that travels with kmend.

use crate::EngineError;
use kmend_kernel::Image;
use kmend_link::{Paths, TargetKernel, Written, WrittenModules, make_written};
use kmend_store::Kernel;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fs, thread};

/// The engine's name as a module.
pub const fn module_name() -> &'static str {
    "kmend_engine"
}

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../engine/", $name)))),*]
    };
}

/// What modules that use the engine include.
const INTERFACE: &str = "kmend_engine.h";

/// What is known of the kernel when the engine is built; it is written for each.
const MADE_FOR: &str = "made_for.h";

/// All other files of the engine.
const SOURCES: &[(&str, &str)] = sources![
    "Kbuild",
    "blockers.c",
    "change.c",
    "core.c",
    "decode.c",
    "engine.h",
    "kmend_engine.h",
    "jump.c",
    "objects.c",
    "redirect.c",
    "room.c",
    "show.c",
    "sides.c",
    "stacks.c",
    "stop.c",
    "tasks.c",
    "untraced.c",
];

/// Makes the engine for a kernel and puts it into a folder, whole, as `kmend_engine.ko`. `scratch` is a folder of its own.
pub fn build(kernel: &Kernel, folder: &Path, scratch: &Path) -> Result<PathBuf, EngineError> {
    let engine = Workshop::open(kernel)?.engine(scratch)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| EngineError::Io { path, source }
    };
    fs::create_dir_all(folder).map_err(io(folder))?;
    let path = folder.join(format!("{}.ko", module_name()));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io(folder))?;
    for module in &engine.modules {
        file.write_all(module).map_err(io(file.path()))?;
    }
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(io(file.path()))?;
    file.as_file().sync_all().map_err(io(file.path()))?;
    file.persist(&path).map_err(|error| EngineError::Io { path: path.clone(), source: error.error })?;
    Ok(path)
}

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
        let made_for = format!("#define KMEND_BUILD_ID \"{build_id}\"\n");
        let files: Vec<_> = SOURCES.iter().copied().chain([(MADE_FOR, made_for.as_str())]).collect();
        self.make(&Written { stems: &[module_name()], files: &files, symvers: "" }, scratch)
    }

    /// Modules that use the engine: `files` are their sources and their Kbuild file, `symvers` what the engine exports.
    pub fn users(
        &self,
        stems: &[&str],
        files: &[(&str, &str)],
        symvers: &str,
        scratch: &Path,
    ) -> Result<WrittenModules, EngineError> {
        let interface = SOURCES.iter().filter(|(name, _)| *name == INTERFACE);
        let files: Vec<_> = files.iter().chain(interface).copied().collect();
        self.make(&Written { stems, files: &files, symvers }, scratch)
    }

    fn make(&self, written: &Written<'_>, scratch: &Path) -> Result<WrittenModules, EngineError> {
        let kernel = TargetKernel::new(&self.image, None, &self.symvers);
        Ok(make_written(written, &kernel, &self.paths, scratch)?)
    }
}
