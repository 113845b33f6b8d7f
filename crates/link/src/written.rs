//! Modules written by hand: the consistency engine, and the patches that its tests make.
//!
//! They may refer to any symbol of the kernel, exported or not, and by [`LIVING`] to functions of modules. The
//! kernel's build system makes the module, and what is undefined then becomes a livepatch symbol. A name must
//! leave no choice: there is no match here that could tell two symbols apart.

use crate::kbuild::{self, Paths};
use crate::neighbours::{KernelSymbols, Location};
use crate::plan::{Resolution, VMLINUX};
use crate::{LinkError, PlannedSymbol, finish};
use kmend_object::{Binding, Object};
use kmend_refusal::{Code, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Before the object and the name of a living function, with a dot between (engine/kmend_engine.h,
/// `KMEND_LIVING`).
const LIVING: &str = "kmend_klp.";

/// Sources of modules.
pub struct Written<'a> {
    /// The modules' file names without `.ko`.
    pub stems: &'a [&'a str],
    /// The files of the build, `Kbuild` among them, by their names.
    pub files: &'a [(&'a str, &'a str)],
    /// The `Module.symvers` of other modules whose exports they use; empty for none.
    pub symvers: &'a str,
}

/// What was made of them.
#[derive(Debug, Clone)]
pub struct WrittenModules {
    /// The `.ko` files' contents, in the order of their names.
    pub modules: Vec<Vec<u8>>,
    /// Their own `Module.symvers`, for modules that use them.
    pub symvers: String,
}

/// Makes the modules. `scratch` is a folder of its own; its path is not seen in the result.
pub fn make_written(
    written: &Written<'_>,
    kernel: &dyn KernelSymbols,
    paths: &Paths,
    scratch: &Path,
) -> Result<WrittenModules, LinkError> {
    fs::create_dir_all(scratch).map_err(|source| kbuild::scratch_error(scratch, source))?;
    let scratch = fs::canonicalize(scratch).map_err(|source| kbuild::scratch_error(scratch, source))?;
    for (name, text) in written.files {
        kbuild::write(&scratch.join(name), text.as_bytes())?;
    }
    build(written, paths, &scratch)?;
    let read = |name: &str| {
        let path = scratch.join(name);
        fs::read(&path).map_err(|source| kbuild::scratch_error(&path, source))
    };
    let provided = exports(written.symvers);
    let modules = written.stems.iter().map(|stem| finished(&read(&format!("{stem}.ko"))?, kernel, &provided));
    let modules = modules.collect::<Result<Vec<_>, LinkError>>()?;
    let symvers = String::from_utf8_lossy(&read("Module.symvers")?).into_owned();
    Ok(WrittenModules { modules, symvers })
}

fn build(written: &Written<'_>, paths: &Paths, scratch: &Path) -> Result<(), LinkError> {
    let command = kbuild::with_symvers(kbuild::make(paths, scratch), written.symvers, scratch)?;
    let output = command.output().map_err(LinkError::Build)?;
    let faults = kbuild::objtool_faults(&output, &BTreeMap::new());
    if !faults.is_empty() {
        return Err(LinkError::Objtool(faults));
    }
    if output.success { Ok(()) } else { Err(LinkError::Build(command.failure(&output))) }
}

fn finished(
    bytes: &[u8],
    kernel: &dyn KernelSymbols,
    provided: &BTreeSet<&str>,
) -> Result<Vec<u8>, LinkError> {
    let module = Object::parse(bytes)
        .map_err(|source| LinkError::Object { what: "cannot read the linked module", source })?;
    let symbols = plan(&module, kernel, provided).map_err(LinkError::Symbols)?;
    finish::finish_written(module, &symbols)?
        .write()
        .map_err(|source| LinkError::Object { what: "cannot write the module", source })
}

/// The symbols in the text of a `Module.symvers`.
fn exports(symvers: &str) -> BTreeSet<&str> {
    symvers.lines().filter_map(|line| line.split('\t').nth(1)).collect()
}

/// Where each undefined symbol that nobody exports lives.
fn plan(
    module: &Object,
    kernel: &dyn KernelSymbols,
    provided: &BTreeSet<&str>,
) -> Result<Vec<PlannedSymbol>, Vec<Refusal>> {
    let (mut planned, mut refusals) = (Vec::new(), Vec::new());
    for symbol in module.symbols.iter().filter(|symbol| symbol.is_undefined() && !symbol.name.is_empty()) {
        let name = symbol.name.as_str();
        let exported = kernel.exported(name).is_some_and(|export| export.by == VMLINUX);
        if exported || provided.contains(name) || symbol.binding == Binding::Weak {
            continue;
        }
        match living(name, kernel) {
            Ok(target) => planned.push(PlannedSymbol {
                placeholder: name.to_owned(),
                name: target.name.clone(),
                resolution: Resolution::Livepatch { applied_with: target.object.clone(), target },
                ends: false,
            }),
            Err(why) => refusals.push(Refusal::new(Code::EngineSymbol, name, why)),
        }
    }
    if refusals.is_empty() { Ok(planned) } else { Err(refusals) }
}

fn living(name: &str, kernel: &dyn KernelSymbols) -> Result<Location, String> {
    let (object, name) = match name.strip_prefix(LIVING).map(|rest| rest.split_once('.')) {
        Some(Some(named)) => named,
        Some(None) => return Err("it names no object".into()),
        None => (VMLINUX, name),
    };
    if object != VMLINUX {
        // The module need not be one of the kernel's. What it has more than once the livepatch loader refuses.
        return Ok(Location { object: object.to_owned(), name: name.to_owned(), position: 1, count: 1 });
    }
    match kernel.candidates(VMLINUX, name).as_slice() {
        [only] => Ok(only.location.clone()),
        [] => Err(format!("{VMLINUX} holds no symbol of this name")),
        several => Err(format!("{VMLINUX} holds {} symbols of this name", several.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::{Kernel, location};
    use kmend_object::Symbol;

    fn planned(undefined: &[&str], kernel: &Kernel) -> Result<Vec<(String, Location)>, Vec<Refusal>> {
        let mut module = Object::new();
        for name in undefined {
            module.add_symbol(Symbol::undefined(*name));
        }
        let symbols =
            plan(&module, kernel, &exports("0x1\tkmend_register\t/s/kmend_engine\tEXPORT_SYMBOL_GPL\t\n"))?;
        let place = |symbol: PlannedSymbol| match symbol.resolution {
            Resolution::Livepatch { target, .. } => (symbol.placeholder, target),
            Resolution::Export => panic!("an export needs no plan"),
        };
        Ok(symbols.into_iter().map(place).collect())
    }

    #[test]
    fn what_nobody_exports_is_looked_up_in_the_kernel() {
        let kernel =
            Kernel::default().export("kfree", "vmlinux", false).symbol("vmlinux", "find_module", &[true]);
        let found = planned(&["kfree", "kmend_register", "find_module"], &kernel).unwrap();
        assert_eq!(found, [("find_module".into(), location("vmlinux", "find_module", 1, 1))]);
    }

    #[test]
    fn a_living_function_is_named_with_its_object() {
        let kernel = Kernel::default().symbol("vmlinux", "show", &[false]);
        let found = planned(&["kmend_klp.vmlinux.show", "kmend_klp.ext4.ext4_show"], &kernel).unwrap();
        assert_eq!(found[0].1, location("vmlinux", "show", 1, 1));
        assert_eq!(found[1].1, location("ext4", "ext4_show", 1, 1));
    }

    #[test]
    fn a_name_that_leaves_a_choice_is_refused() {
        let kernel = Kernel::default().symbol("vmlinux", "twice", &[false, false]);
        let refusals = planned(&["twice", "never", "kmend_klp.alone"], &kernel).unwrap_err();
        let subjects: Vec<_> = refusals.iter().map(|refusal| refusal.subject.as_str()).collect();
        assert_eq!(subjects, ["twice", "never", "kmend_klp.alone"]);
        assert!(refusals.iter().all(|refusal| refusal.code == Code::EngineSymbol));
    }
}
