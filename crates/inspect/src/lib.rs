//! What a livepatch module says of itself, read from its file alone.
//!
//! [`inspect`] reads the patch table, the livepatch relocations and `.modinfo`. It needs no kernel: the
//! fields that a livepatch sets have had the same offsets since Linux 5.5, and the sizes of the structures,
//! which differ from kernel to kernel, are not needed to find the entries (see `table`).
//!
//! Architecture invariant: it reads one module that any tool may have made, judges nothing, and trusts
//! nothing in it: a damaged file is an [`InspectError`] or a table with less in it, never a panic.

mod table;

use kmend_kernel::{KernelError, Module};
use kmend_object::Object;
use kmend_refusal::{Code, Coded};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
pub use table::{Callback, PatchedFunction, PatchedObject};

/// The object that is always there.
const VMLINUX: &str = "vmlinux";
/// The module of the consistency engine: a livepatch that depends on it is a patch for that.
pub const ENGINE: &str = "kmend_engine";
/// Before the object in the name of a livepatch symbol (Documentation/livepatch/module-elf-format.rst, "4.
/// Livepatch symbols").
const SYMBOL_PREFIX: &str = ".klp.sym.";

/// Why a module cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It cannot be read, or is no module.
    #[error(transparent)]
    Module(#[from] KernelError),
    /// It is a module of another kind.
    #[error("{}: the module {name} is no livepatch: its .modinfo does not say livepatch=Y", path.display())]
    NotALivepatch {
        /// The file.
        path: PathBuf,
        /// The module's name.
        name: String,
    },
}

impl Coded for InspectError {
    fn code(&self) -> Code {
        match self {
            InspectError::Module(error) => error.code(),
            InspectError::NotALivepatch { .. } => Code::NotALivepatch,
        }
    }
}

/// A livepatch module.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Its name, as /sys/kernel/livepatch shows it.
    pub name: String,
    /// The release of the kernel that it is for.
    pub kernel: String,
    /// What the kernel compares when it is loaded: the release and a few options.
    pub vermagic: String,
    /// The build id of the kernel image that it was matched with, in hexadecimal; `None` if the module was
    /// not made by kmend or the image had none.
    pub build_id: Option<String>,
    /// The version of the kmend that made it; `None` if another tool did.
    pub kmend: Option<String>,
    /// What it says to kmend's consistency engine; `None` if it is for the kernel's own livepatch.
    pub engine: Option<EngineUse>,
    /// If it is the consistency engine itself: the id of what it and its patches must agree on.
    pub interface: Option<String>,
    /// What it fixes, such as `CVE-2026-1234`, as whoever built it said.
    pub fixes: Vec<String>,
    /// The subjects of the patches that it was built from.
    pub subjects: Vec<String>,
    /// Whether it replaces all livepatches that are loaded before it; `None` if its patch table is made at
    /// run time and cannot be read.
    pub replace: Option<bool>,
    /// Whether a signature is appended. It is not checked.
    pub signed: bool,
    /// The modules that must be loaded before it.
    pub depends: Vec<String>,
    /// What it patches, `vmlinux` first; empty if its patch table is made at run time.
    pub objects: Vec<PatchedObject>,
    /// The variables of the running kernel whose values it exchanges, as `OBJECT VARIABLE`.
    pub updates: Vec<String>,
    /// Whether it stays in memory once it was enabled, because something of it may be in use when it is disabled.
    pub stays: bool,
    /// What of it that is, beside the values that lead to it, as `OBJECT NAME: HOW`.
    pub outlives: Vec<String>,
    /// The same of what its callbacks end.
    pub ends: Vec<String>,
    /// What the livepatch loader resolves, by the object whose presence it waits for.
    pub relocations: Vec<ObjectRelocations>,
    /// The exported symbols that the module loader resolves, as for any module, in the order of their names.
    pub exports: Vec<String>,
}

/// What a patch for the consistency engine says to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineUse {
    /// The id of what the patch and the engine must agree on; `None` if it does not say.
    pub interface: Option<String>,
    /// The consistency model to begin with; `None` for the engine's default.
    pub model: Option<String>,
    /// How callers are redirected to begin with; `None` for the engine's default.
    pub redirect: Option<String>,
    /// Functions that ftrace does not know, by name: nothing but that redirect can lead to them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub untraced: Vec<String>,
    /// The only models that can switch these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stops: Vec<String>,
}

/// The livepatch relocations that are applied with one object.
#[derive(Debug, Clone, Serialize)]
pub struct ObjectRelocations {
    /// `vmlinux` or a module's name.
    pub object: String,
    /// How many there are.
    pub count: usize,
    /// What they refer to.
    pub symbols: Vec<LivepatchSymbol>,
}

/// A symbol that the livepatch loader resolves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LivepatchSymbol {
    /// The object that has it.
    pub object: String,
    /// Its name.
    pub name: String,
    /// Its position among the symbols of its name, counted from 1; 0 where it is unique.
    pub position: u64,
}

impl Inspection {
    /// What a patch and the consistency engine must agree on, of either; empty if it does not say, `None` if the kernel's own
    /// livepatch loads it.
    pub fn agreement(&self) -> Option<String> {
        let said = match &self.engine {
            Some(engine) => &engine.interface,
            None if self.is_engine() => &self.interface,
            None => return None,
        };
        Some(said.clone().unwrap_or_default())
    }

    /// Whether it is the consistency engine itself.
    pub fn is_engine(&self) -> bool {
        self.name == ENGINE
    }

    /// The modules that it patches or takes symbols from, in the order of their names.
    pub fn modules(&self) -> Vec<String> {
        let patched = self.objects.iter().map(|object| &object.name);
        let waited = self.relocations.iter().map(|relocations| &relocations.object);
        let names: BTreeSet<&String> = patched.chain(waited).filter(|name| *name != VMLINUX).collect();
        names.into_iter().cloned().collect()
    }
}

/// Reads a livepatch module from a file, packed or not.
pub fn inspect(path: &Path) -> Result<Inspection, InspectError> {
    read(path, &Module::open(path)?)
}

/// Reads a livepatch module that is open already; `path` is for the error.
pub fn read(path: &Path, module: &Module) -> Result<Inspection, InspectError> {
    if module.modinfo("livepatch").next() != Some("Y") {
        return Err(InspectError::NotALivepatch { path: path.into(), name: module.name().to_owned() });
    }
    let text = |key| module.modinfo(key).next().filter(|text| !text.is_empty()).map(str::to_owned);
    // The compiler chooses their order.
    let several = |key| {
        let values: BTreeSet<&str> = module.modinfo(key).collect();
        values.into_iter().map(str::to_owned).collect()
    };
    let engine = module.depends().any(|name| name == ENGINE).then(|| EngineUse {
        interface: text("kmend_engine"),
        model: text("kmend_model"),
        redirect: text("kmend_redirect"),
        untraced: several("kmend_untraced"),
        stops: several("kmend_stops"),
    });
    let reader = if engine.is_some() { table::Reader::Engine } else { table::Reader::Kernel };
    let mut patch = table::read(module.object(), reader);
    if let Some(patch) = &mut patch {
        table::name_callbacks(patch, module.modinfo("kmend_callback"));
    }
    Ok(Inspection {
        name: module.name().to_owned(),
        kernel: module.release().unwrap_or_default().to_owned(),
        vermagic: text("vermagic").unwrap_or_default().trim_end().to_owned(),
        build_id: text("kmend_build_id"),
        kmend: text("kmend_version"),
        engine,
        interface: if module.name() == ENGINE { text("version") } else { None },
        fixes: module.modinfo("kmend_fixes").map(str::to_owned).collect(),
        subjects: module.modinfo("kmend_subject").map(str::to_owned).collect(),
        replace: patch.as_ref().map(|patch| patch.replace),
        signed: module.is_signed(),
        depends: module.depends().collect(),
        objects: patch.map(|patch| patch.objects).unwrap_or_default(),
        updates: module.modinfo("kmend_update").map(str::to_owned).collect(),
        stays: module.stays(),
        outlives: several("kmend_outlives"),
        ends: several("kmend_ends"),
        relocations: relocations(module.object()),
        exports: exports(module.object()),
    })
}

/// The livepatch relocations by object, `vmlinux` first.
fn relocations(object: &Object) -> Vec<ObjectRelocations> {
    let mut by_object: BTreeMap<&str, (usize, BTreeSet<LivepatchSymbol>)> = BTreeMap::new();
    for list in object.sections.iter().flat_map(|section| &section.livepatch) {
        let (count, symbols) = by_object.entry(&list.object).or_default();
        *count += list.relocations.len();
        let named =
            list.relocations.iter().filter_map(|relocation| object.symbols.get(relocation.symbol.index()));
        symbols.extend(named.filter_map(|symbol| livepatch_symbol(&symbol.name)));
    }
    let mut all: Vec<ObjectRelocations> = by_object
        .into_iter()
        .map(|(object, (count, symbols))| ObjectRelocations {
            object: object.to_owned(),
            count,
            symbols: symbols.into_iter().collect(),
        })
        .collect();
    all.sort_by_key(|relocations| relocations.object != VMLINUX);
    all
}

/// The undefined symbols.
fn exports(object: &Object) -> Vec<String> {
    let undefined = object.symbols.iter().filter(|symbol| symbol.is_undefined() && !symbol.name.is_empty());
    let names: BTreeSet<String> = undefined.map(|symbol| symbol.name.clone()).collect();
    names.into_iter().collect()
}

/// Takes `.klp.sym.OBJECT.NAME,POSITION` apart. Module names hold no dot, symbols do.
fn livepatch_symbol(symbol: &str) -> Option<LivepatchSymbol> {
    let (object, rest) = symbol.strip_prefix(SYMBOL_PREFIX)?.split_once('.')?;
    let (name, position) = rest.rsplit_once(',')?;
    Some(LivepatchSymbol {
        object: object.to_owned(),
        name: name.to_owned(),
        position: position.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_livepatch_symbol_is_taken_apart() {
        let symbol = livepatch_symbol(".klp.sym.vmlinux.foo.isra.0,2").unwrap();
        assert_eq!(
            (symbol.object.as_str(), symbol.name.as_str(), symbol.position),
            ("vmlinux", "foo.isra.0", 2)
        );
        for bad in ["", "foo", ".klp.sym.vmlinux", ".klp.sym.vmlinux.foo", ".klp.sym.vmlinux.foo,x"] {
            assert_eq!(livepatch_symbol(bad), None, "{bad}");
        }
    }
}
