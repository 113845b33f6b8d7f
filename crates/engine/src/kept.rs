//! The engine of a kernel of the cache, built once and kept with it.
//!
//! What a patch for the engine must know of it (the CRCs of what it exports) and what a guest loads before such a patch
//! are then of one build. It lies in the kernel's folder for derived files, under an id of its sources, and is renamed into place
//! whole: who finds it there finds all of it.

use crate::sources::engine_id;
use crate::{ENGINE, EngineError, Workshop};
use kmend_store::{Cache, Kernel};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What modules that use the engine are built with.
const SYMVERS: &str = "Module.symvers";

/// The engine of a kernel.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its module.
    pub module: PathBuf,
    /// The text of its `Module.symvers`.
    pub symvers: String,
}

/// The engine of a kernel; built if it is not there yet.
pub fn keep(cache: &Cache, kernel: &Kernel) -> Result<Kept, EngineError> {
    let folder = kernel.derived().join(format!("engine-{}", engine_id()));
    if !folder.is_dir() {
        make(cache, kernel, &folder)?;
    }
    let path = folder.join(SYMVERS);
    let symvers = fs::read_to_string(&path).map_err(EngineError::at(&path))?;
    Ok(Kept { module: folder.join(file_name()), symvers })
}

fn file_name() -> String {
    format!("{ENGINE}.ko")
}

fn make(cache: &Cache, kernel: &Kernel, folder: &Path) -> Result<(), EngineError> {
    let scratch = cache.scratch()?;
    let engine = Workshop::open(kernel)?.engine(&scratch.path().join("build"))?;
    // On the cache's file system, from where it can be renamed.
    let whole = scratch.path().join("engine");
    fs::create_dir(&whole).map_err(EngineError::at(&whole))?;
    let module = engine.modules.first().map(Vec::as_slice).unwrap_or_default();
    for (name, bytes) in [(file_name().as_str(), module), (SYMVERS, engine.symvers.as_bytes())] {
        let path = whole.join(name);
        fs::write(&path, bytes).map_err(EngineError::at(&path))?;
    }
    match fs::rename(&whole, folder) {
        // Somebody else was faster, with the same.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
        {
            Ok(())
        }
        renamed => renamed.map_err(EngineError::at(folder)),
    }
}

/// Puts the engine of a kernel into a folder, whole.
pub fn build(cache: &Cache, kernel: &Kernel, folder: &Path) -> Result<PathBuf, EngineError> {
    let kept = keep(cache, kernel)?;
    let bytes = fs::read(&kept.module).map_err(EngineError::at(&kept.module))?;
    fs::create_dir_all(folder).map_err(EngineError::at(folder))?;
    let path = folder.join(file_name());
    kmend_sign::write_whole(&path, &bytes).map_err(EngineError::at(&path))?;
    Ok(path)
}
