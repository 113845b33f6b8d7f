//! How each undefined symbol of an extract is resolved.
//!
//! A symbol that vmlinux exports goes the normal way: the build system finds it and its CRC. All others
//! become livepatch symbols. Where the original unit referred to the symbol, the match has proved its
//! place in the image, and that is taken; a name alone decides only where it leaves no choice.

use crate::neighbours::{Candidate, KernelSymbols, Locate, Location};
use crate::{UnitInput, names};
use kmend_diff::Reference;
use kmend_refusal::Code;
use serde::Serialize;

/// The object that is always there.
pub(crate) const VMLINUX: &str = "vmlinux";
/// Before the name of a static call in that of its trampoline (include/linux/static_call_types.h,
/// `STATIC_CALL_TRAMP_PREFIX`).
const STATIC_CALL_TRAMPOLINE: &str = "__SCT__";
/// The same for its key (`STATIC_CALL_KEY_PREFIX`).
const STATIC_CALL_KEY: &str = "__SCK__";

/// How a symbol is resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// By the module loader: vmlinux exports it.
    Export,
    /// By the livepatch loader.
    Livepatch {
        /// The living symbol.
        target: Location,
        /// The object whose `.klp.rela.OBJECT.*` sections hold the relocations: `vmlinux` when the
        /// livepatch itself is loaded, else the patched module that is waited for. The kernel takes no
        /// vmlinux symbols in a module's sections since Linux 5.8 (ca376a937486).
        applied_with: String,
    },
}

impl Resolution {
    fn livepatch(target: Location, owner: &str) -> Resolution {
        let applied_with = if target.object == VMLINUX { VMLINUX } else { owner };
        Resolution::Livepatch { applied_with: applied_with.to_owned(), target }
    }

    /// The patched module that must be there before the symbol has a value.
    pub(crate) fn waits_for(&self) -> Option<&str> {
        match self {
            Resolution::Livepatch { applied_with, .. } if applied_with != VMLINUX => Some(applied_with),
            _ => None,
        }
    }
}

/// Why a symbol cannot be resolved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(crate) code: Code,
    pub(crate) why: String,
}

impl Unresolved {
    fn new(code: Code, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

/// Decides for one symbol.
pub(crate) fn resolve(
    unit: &UnitInput<'_>,
    reference: &Reference,
    kernel: &dyn KernelSymbols,
) -> Result<Resolution, Unresolved> {
    let resolution = match reference {
        Reference::Original { name } => original(name, unit.owner, || unit.matched.locate(name), kernel)?,
        Reference::Living { unit: home, name } => {
            original(name, unit.owner, || unit.matched.locate_in(home, name), kernel)?
        }
        Reference::External { name } => external(name, unit.owner, unit.matched, kernel)?,
    };
    check_limits(&resolution)?;
    let Resolution::Livepatch { target, .. } = &resolution else { return Ok(resolution) };
    if kernel.is_freed(target) {
        let why = "it lies in memory that is freed when the kernel has started (between __init_begin and __init_end)";
        return Err(Unresolved::new(Code::ChangedInit, why));
    }
    if unit.owner == VMLINUX && target.object != VMLINUX {
        let why = format!("vmlinux cannot refer to a symbol of the module {}", target.object);
        return Err(Unresolved::new(Code::UnsupportedReference, why));
    }
    Ok(resolution)
}

/// A name for a module's static call that objtool does not take for one. It makes an entry of `.static_call_sites` for
/// each call of what is named like a trampoline (tools/objtool/check.c, `classify_symbols`), and the kernel would
/// read it before the module's addresses are known. Without an entry the call goes through the trampoline, which
/// the kernel keeps up to date as well (arch/x86/kernel/static_call.c, `arch_static_call_transform`).
pub(crate) fn plain_call(name: &str, resolution: &Resolution) -> Option<String> {
    let call = name.strip_prefix(STATIC_CALL_TRAMPOLINE)?;
    resolution.waits_for().map(|_| format!("kmend_call_{call}"))
}

/// The key that belongs to a static call's trampoline: objtool needs its symbol to write
/// `.static_call_sites` (tools/objtool/check.c, `create_static_call_sections`).
pub(crate) fn static_call_key(reference: &Reference) -> Option<Reference> {
    let key = |name: &str| Some(format!("{STATIC_CALL_KEY}{}", name.strip_prefix(STATIC_CALL_TRAMPOLINE)?));
    Some(match reference {
        Reference::Original { name } => Reference::Original { name: key(name)? },
        Reference::Living { unit, name } => Reference::Living { unit: unit.clone(), name: key(name)? },
        Reference::External { name } => Reference::External { name: key(name)? },
    })
}

/// A symbol that the original unit defines. The match knows where it lives; a static function may bear the
/// name of one that another unit exports, so that an export is only believed where the name is unique.
fn original(
    name: &str,
    owner: &str,
    locate: impl Fn() -> Option<Location>,
    kernel: &dyn KernelSymbols,
) -> Result<Resolution, Unresolved> {
    let Some(target) = locate() else {
        return match kernel.candidates(owner, name).as_slice() {
            [] => Err(Unresolved::new(Code::NotInImage, format!("{owner} holds no symbol of this name"))),
            [only] => Ok(Resolution::livepatch(only.location.clone(), owner)),
            several => Err(ambiguous(owner, several)),
        };
    };
    let is_export = target.object == VMLINUX
        && target.count == 1
        && kernel.exported(&target.name).is_some_and(|export| export.by == VMLINUX && !export.namespaced);
    Ok(if is_export { Resolution::Export } else { Resolution::livepatch(target, owner) })
}

/// A symbol of another unit.
fn external(
    name: &str,
    owner: &str,
    matched: &dyn Locate,
    kernel: &dyn KernelSymbols,
) -> Result<Resolution, Unresolved> {
    let export = kernel.exported(name);
    if export.as_ref().is_some_and(|export| export.by == VMLINUX && !export.namespaced) {
        return Ok(Resolution::Export);
    }
    if let Some(target) = matched.locate(name) {
        return Ok(Resolution::livepatch(target, owner));
    }
    let mut objects = vec![owner];
    if let Some(export) = &export
        && kernel.needs(owner, &export.by)
    {
        objects.push(&export.by);
    }
    objects.push(VMLINUX);
    let mut is_static = None;
    for object in objects {
        match kernel.candidates(object, name).as_slice() {
            [] => {}
            candidates if candidates.iter().all(|candidate| !candidate.global) => is_static = Some(object),
            candidates => {
                let target = choose(candidates).ok_or_else(|| ambiguous(object, candidates))?;
                return Ok(Resolution::livepatch(target.clone(), owner));
            }
        }
    }
    if let Some(object) = is_static {
        let why = format!("in {object} it is static");
        return Err(Unresolved::new(Code::Unlinkable, why));
    }
    let why = match export {
        Some(export) if owner != VMLINUX => {
            let why = format!(
                "{} exports it, which {owner} can be loaded without: nothing makes sure that it is there",
                export.by
            );
            return Err(Unresolved::new(Code::NewDependency, why));
        }
        Some(export) => format!("the module {} exports it, and vmlinux runs without", export.by),
        None if owner == VMLINUX => "vmlinux holds no symbol of this name".to_owned(),
        None => format!("neither {owner} nor vmlinux holds a symbol of this name"),
    };
    Err(Unresolved::new(Code::UnsupportedReference, why))
}

/// The only global candidate: another unit can refer to no other.
fn choose(candidates: &[Candidate]) -> Option<&Location> {
    let mut globals = candidates.iter().filter(|candidate| candidate.global);
    let first = globals.next()?;
    globals.next().is_none().then_some(&first.location)
}

fn ambiguous(object: &str, candidates: &[Candidate]) -> Unresolved {
    let why = format!("{object} holds {} symbols of this name", candidates.len());
    Unresolved::new(Code::AmbiguousSymbol, why)
}

/// `.klp.sym.%55[^.].%511[^,],%lu` (kernel/livepatch/core.c, `klp_resolve_symbols`).
fn check_limits(resolution: &Resolution) -> Result<(), Unresolved> {
    let Resolution::Livepatch { target, applied_with } = resolution else { return Ok(()) };
    for object in [&target.object, applied_with] {
        if object.len() > names::LONGEST_OBJECT || object.contains('.') {
            let why = format!("the livepatch loader cannot read the object's name `{object}`");
            return Err(Unresolved::new(Code::NameTooLong, why));
        }
    }
    if target.name.len() > names::LONGEST_SYMBOL || target.name.contains(',') {
        let why = format!("the livepatch loader cannot read the symbol's name `{}`", target.name);
        return Err(Unresolved::new(Code::NameTooLong, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
