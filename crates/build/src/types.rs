//! Changed types: judged for all units at once, so that each type is told of once.

use crate::callers;
use crate::report::{Note, NoteKind};
use crate::units::{Compared, ProvenUnit};
use kmend_compile::CompiledUnit;
use kmend_kernel::{Image, ModuleTree};
use kmend_object::Object;
use kmend_refusal::{Advice, Code, Refusal, SourceLine};
use kmend_types::{Changes, Surroundings};
use std::collections::BTreeSet;

/// The unit's owner that is no module.
const VMLINUX: &str = "vmlinux";

/// What the changed types of all units come to.
pub(crate) struct Judged {
    pub(crate) refusals: Vec<Refusal>,
    /// Advice, that of the units' code among it.
    pub(crate) notes: Vec<Note>,
    /// The advice itself.
    pub(crate) advice: BTreeSet<Advice>,
}

/// Judges the changed types of all units.
pub(crate) fn judge(
    units: &[Compared],
    image: &Image,
    modules: Option<&ModuleTree>,
    symvers: &str,
) -> Judged {
    let mut changes = Changes::default();
    let mut accepted = BTreeSet::new();
    for unit in units {
        changes.merge(unit.types.clone());
        accepted.extend(unit.accepted.iter().cloned());
    }
    let proven: Vec<&ProvenUnit> = units.iter().filter_map(|unit| unit.result.as_ref().ok()).collect();
    let all_are_proven = proven.len() == units.len();
    let kernel = Kernel { proven, all_are_proven, image, modules, symvers };
    let mut verdict = changes.judge(&accepted, &kernel);
    for refusal in &mut verdict.refusals {
        let unit = units.iter().find(|unit| unit.types.concerns(&refusal.subject));
        refusal.place = unit.map(|unit| SourceLine { file: unit.source.clone(), line: None });
    }
    let note = |advice: &Advice| Note {
        kind: NoteKind::Advice,
        subject: advice.subject.clone(),
        text: advice.text.clone(),
    };
    let advice = verdict.advice.iter().chain(units.iter().flat_map(|unit| &unit.advice));
    let advice: BTreeSet<Advice> = advice.cloned().collect();
    let of_units = units.iter().flat_map(|unit| unit.notes.clone());
    let notes: BTreeSet<Note> = advice.iter().map(note).chain(of_units).collect();
    Judged { refusals: verdict.refusals, notes: notes.into_iter().collect(), advice }
}

/// The structures that change already in some of the units: no other unit can make their layout a safe one. What cannot be
/// read is told of when all are compared.
pub(crate) fn first_look(units: &[CompiledUnit]) -> Vec<Refusal> {
    let (mut changes, mut accepted) = (Changes::default(), BTreeSet::new());
    for unit in units {
        let (Ok(original), Ok(patched)) = (Object::parse(&unit.original), Object::parse(&unit.patched))
        else {
            continue;
        };
        accepted.extend(kmend_types::accepted(&patched));
        changes.merge(kmend_types::compare(&original, &patched).unwrap_or_default());
    }
    changes.refused_layouts(&accepted)
}

/// Drops what the differ found of a variable whose types say more.
pub(crate) fn drop_doubled(found: &mut Vec<Refusal>, of_types: &[Refusal]) {
    let is_doubled = |refusal: &Refusal| {
        let is_variable = matches!(refusal.code, Code::ChangedStatic | Code::ChangedGlobal);
        let name = kmend_diff::source_function(&refusal.subject);
        is_variable && of_types.iter().any(|other| other.code == refusal.code && other.subject == name)
    };
    found.retain(|refusal| !is_doubled(refusal));
}

/// The kernel as changed signatures ask it.
struct Kernel<'a> {
    proven: Vec<&'a ProvenUnit>,
    /// Whether what is replaced is known.
    all_are_proven: bool,
    image: &'a Image,
    modules: Option<&'a ModuleTree>,
    symvers: &'a str,
}

impl Surroundings for Kernel<'_> {
    fn is_replaced(&self, function: &str) -> bool {
        !self.all_are_proven || self.proven.iter().any(|unit| unit.replaces(function))
    }

    /// Format of Module.symvers: `CRC NAME OWNER KIND` (Documentation/kbuild/modules.rst).
    fn is_exported(&self, function: &str) -> bool {
        self.symvers.lines().any(|line| line.split('\t').nth(1) == Some(function))
    }

    fn callers_outside(&self, function: &str) -> Vec<String> {
        // Where a unit is refused it is not known what is replaced, and nothing will be.
        if !self.all_are_proven {
            return Vec::new();
        }
        let Some(unit) = self.proven.iter().find(|unit| unit.replaces(function)) else { return Vec::new() };
        let found = match (unit.owner.as_str(), unit.matched.locate(function)) {
            (VMLINUX, Some(located)) => Some(callers_in_image(self.image, located.address)),
            (VMLINUX, None) => None,
            (module, _) => self.modules.and_then(|tree| callers::in_module(tree, module, function).ok()),
        };
        let Some(callers) = found else { return vec!["it is not known which code does".to_owned()] };
        callers.into_iter().filter(|caller| !self.is_replaced_in(&unit.owner, caller)).collect()
    }
}

impl Kernel<'_> {
    /// Whether a function, or the one that it is a part of, is replaced in the same object.
    fn is_replaced_in(&self, owner: &str, name: &str) -> bool {
        let root = kmend_diff::source_function(name);
        self.proven.iter().any(|unit| unit.owner == owner && unit.replaces(&root))
    }
}

/// The functions of the live image that refer to an address.
fn callers_in_image(image: &Image, address: u64) -> BTreeSet<String> {
    callers::in_code(image, address, &[0]).into_iter().map(|found| found.user).collect()
}
