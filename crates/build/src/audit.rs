//! The audit of a finished module, and what is kept so that it can be repeated.
//!
//! A build audits what it made with the objects that it has at hand. It keeps the patches and the object of the patch table
//! beside the kernel, under the hash that the module's manifest has, so that the module can be audited later, by a kmend that did
//! not build it: only the units are compiled again.

use crate::error::{BuildError, io_error};
use crate::facts::Facts;
use crate::pipeline::target;
use kmend_audit::{Audit, Input, UnitObjects};
use kmend_compile::{CompiledUnit, Failure, Outcome, PatchFile};
use kmend_refusal::{Code, Refusal};
use kmend_store::{Cache, Kernel};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The folder below what is derived from a kernel.
const FOLDER: &str = "built";
/// The object of the patch table.
const TABLE: &str = "table.o";
/// The patches, one a line in the order they were applied: how deep their names are (`-` if nobody said so), how much fuzz they
/// were allowed, and their name. Their bytes are `0.patch` and so on.
const NAMES: &str = "patches";
/// Of how many modules what they were made from is kept; the oldest go.
const MOST: usize = 200;
/// How many bytes the patches of one module may have to be kept.
const LARGEST: usize = 16 << 20;

/// What a module is made from, and is held against.
pub struct Materials {
    facts: Facts,
    outcome: Outcome,
    table: Option<Vec<u8>>,
}

/// Why there are none.
pub enum NoMaterials {
    /// Something failed.
    Failed(Box<BuildError>),
    /// The patches do not apply, or do not compile.
    Refused(Vec<Refusal>),
}

impl<E: Into<BuildError>> From<E> for NoMaterials {
    fn from(error: E) -> Self {
        NoMaterials::Failed(Box::new(error.into()))
    }
}

impl Materials {
    /// Compiles what the patches reach. `module` names what was kept of its build, if there is any.
    pub fn make(
        cache: &Cache,
        kernel: &Kernel,
        patches: &[PatchFile],
        module: &[u8],
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<Materials, NoMaterials> {
        let target = target(kernel);
        let scratch = cache.scratch()?;
        let prepared = kmend_compile::prepare(&target, say)?;
        let facts = Facts::read(&kernel.image, &kernel.modules, &kernel.symvers)?;
        let outcome =
            kmend_compile::patch_and_compile(&target, &prepared, patches, scratch.path(), say, &|_| {
                Vec::new()
            });
        let outcome = outcome.map_err(|failure| match failure {
            Failure::Refused { refusals } => NoMaterials::Refused(refusals),
            Failure::Failed(error) => error.into(),
        })?;
        let table = fs::read(place(kernel, module)?.join(TABLE)).ok();
        Ok(Materials { facts, outcome, table })
    }

    /// Audits a module that was made from them.
    pub fn audit(&self, module: &[u8]) -> Result<Audit, BuildError> {
        audit(&self.facts, &self.outcome.units, module, self.table.as_deref())
    }

    /// The units, for who makes wrong modules of right ones.
    pub fn units(&self) -> &[CompiledUnit] {
        &self.outcome.units
    }
}

/// Audits a module.
pub(crate) fn audit(
    facts: &Facts,
    units: &[CompiledUnit],
    module: &[u8],
    table: Option<&[u8]>,
) -> Result<Audit, BuildError> {
    let owners: Vec<String> = units.iter().map(crate::units::owner_name).collect();
    let objects = units.iter().zip(&owners).filter_map(|(unit, owner)| {
        let patched = unit.plain_patched.as_ref()?;
        Some(UnitObjects {
            source: &unit.unit.source,
            owner,
            plain: &unit.plain,
            patched: &patched.object,
            tested: patched.tested.as_deref(),
        })
    });
    let objects: Vec<UnitObjects<'_>> = objects.collect();
    let module = kmend_sign::unsigned(module)?;
    let input =
        Input { module, image: &facts.image, modules: facts.modules.as_ref(), units: &objects, table };
    Ok(kmend_audit::audit(&input)?)
}

fn place(kernel: &Kernel, module: &[u8]) -> Result<PathBuf, BuildError> {
    let hash = kmend_sign::sha256(kmend_sign::unsigned(module)?);
    Ok(kernel.derived().join(FOLDER).join(hash))
}

/// Keeps what a module was made from. What cannot be kept is no reason not to build.
pub(crate) fn keep(
    kernel: &Kernel,
    module: &[u8],
    patches: &[PatchFile],
    table: Option<&[u8]>,
) -> Result<(), BuildError> {
    let place = place(kernel, module)?;
    let total: usize = patches.iter().map(|patch| patch.bytes.len()).sum();
    if total > LARGEST || place.exists() {
        return Ok(());
    }
    let folder = place.parent().unwrap_or(&place);
    fs::create_dir_all(folder).map_err(io_error("create", folder))?;
    let new = tempfile::Builder::new()
        .prefix(".new-")
        .tempdir_in(folder)
        .map_err(io_error("write into", folder))?;
    let write = |name: &str, bytes: &[u8]| {
        let path = new.path().join(name);
        fs::write(&path, bytes).map_err(io_error("write", &path))
    };
    let mut names = String::new();
    for (number, patch) in patches.iter().enumerate() {
        let depth = patch.depth.map_or_else(|| "-".to_owned(), |depth| depth.to_string());
        // Writing to a String cannot fail.
        let _ = writeln!(names, "{depth} {} {}", patch.fuzz, patch.name.replace('\n', " "));
        write(&format!("{number}.patch"), &patch.bytes)?;
    }
    write(NAMES, names.as_bytes())?;
    if let Some(table) = table {
        write(TABLE, table)?;
    }
    match fs::rename(new.path(), &place) {
        // Another build of the same module was faster.
        Err(error) if !place.exists() => return Err(io_error("rename", &place)(error)),
        _ => {}
    }
    sweep(folder).map_err(io_error("read", folder))
}

/// Removes what is too much: the oldest, and what a build left that was ended.
fn sweep(folder: &Path) -> io::Result<()> {
    let mut all: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let time = entry.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        all.push((time, entry.path()));
    }
    all.sort();
    let too_many = all.len().saturating_sub(MOST);
    for (_, path) in all.into_iter().take(too_many) {
        // Two builds may remove the same.
        let _ = fs::remove_dir_all(path);
    }
    Ok(())
}

/// The patches that a module was built from, if its build kept them.
pub fn kept(kernel: &Kernel, module: &[u8]) -> Result<Option<Vec<PatchFile>>, BuildError> {
    let place = place(kernel, module)?;
    let names = place.join(NAMES);
    let Ok(text) = fs::read_to_string(&names) else { return Ok(None) };
    let read = |(number, line): (usize, &str)| {
        let path = place.join(format!("{number}.patch"));
        let bytes = kmend_kernel::read_file(&path, LARGEST as u64).map_err(io_error("read", &path))?;
        let mut words = line.splitn(3, ' ');
        let depth = words.next().and_then(|word| word.parse().ok());
        let fuzz = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        Ok(PatchFile { depth, fuzz, ..PatchFile::new(words.next().unwrap_or_default(), bytes) })
    };
    text.lines().enumerate().map(read).collect::<Result<Vec<_>, BuildError>>().map(Some)
}

/// What to say where neither patches are given nor any were kept.
pub fn nothing_kept(module: &Path) -> Refusal {
    let why = "no build of this cache kept its patches: give them with --patch";
    Refusal::new(Code::AuditLost, module.display().to_string(), why)
}
