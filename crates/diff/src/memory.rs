//! Whether a living variable's memory is what the patched source takes it for.
//!
//! A name says which variable is meant, but not how it may be used. Patched code that writes what is read-only oopses;
//! code that goes to a processor's own copy of a plain variable reads somewhere else; what lay in memory of the start is
//! gone; and memory that the patch wants to protect stays as open as it was. So the kind of memory belongs to a variable's
//! identity. A kind that changes is refused, unless the living variable is as good: `__read_mostly` only says where
//! among its kind it lies, and one that is aligned more than it has to be is aligned enough.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::compare::Comparison;
use crate::special::{self, Memory, Registers, Treatment};
use kmend_refusal::{Code, Refusal};
use std::collections::{HashMap, HashSet};

/// What became of the memory of the variables of two units.
#[derive(Default)]
pub(crate) struct MemoryChanges {
    pub(crate) refusals: Vec<Refusal>,
    /// The variables of the patched unit that are refused.
    refused: HashSet<AtomId>,
    /// The original's constants of the start that the livepatch has copies of.
    copied: HashSet<AtomId>,
}

impl MemoryChanges {
    /// Looks at all variables, those too that the change itself keeps from being paired.
    pub(crate) fn of(comparison: &Comparison<'_>) -> Self {
        let Comparison { original, patched, pairing, .. } = comparison;
        let mut changes = MemoryChanges::default();
        for after in patched.ids().filter(|&id| is_data(patched, id)) {
            if let Some(before) = pairing.original(after) {
                changes.compare(comparison, before, after);
            }
        }
        let mut left = HashMap::new();
        for before in original.ids().filter(|&id| is_data(original, id)) {
            if pairing.patched(before).is_none() {
                left.entry(original.base_name(before)).or_insert_with(Vec::new).push(before);
            }
        }
        for after in patched.ids().filter(|&id| is_data(patched, id)) {
            let namesakes = left.get(&patched.base_name(after)).map(Vec::as_slice).unwrap_or_default();
            let (None, &[before]) = (pairing.original(after), namesakes) else { continue };
            if comes_along(original, before, patched, after) {
                changes.copied.insert(before);
            } else if memory(original, before) != memory(patched, after) {
                changes.compare(comparison, before, after);
            }
        }
        changes
    }

    /// Whether a variable of the patched unit is refused for it.
    pub(crate) fn refuses(&self, patched: AtomId) -> bool {
        self.refused.contains(&patched)
    }

    /// Whether a constant of the original was freed, and the livepatch has a copy of it if it needs one.
    pub(crate) fn copies(&self, original: AtomId) -> bool {
        self.copied.contains(&original)
    }

    fn compare(&mut self, comparison: &Comparison<'_>, before: AtomId, after: AtomId) {
        let (original, patched) = (comparison.original, comparison.patched);
        let name = patched.name(after);
        let (was, is) = (memory(original, before), memory(patched, after));
        let sections = [&original.section_of(before).name, &patched.section_of(after).name];
        let lists_differ = was == Memory::Listed && is == Memory::Listed && sections[0] != sections[1];
        let why = match obstacle(was, is) {
            Some(why) => why.to_owned(),
            None if lists_differ => "it becomes part of another list".to_owned(),
            // A variable that grows is refused for that; its alignment may follow from its size.
            None if is_alone(original, before)
                && is_alone(patched, after)
                && original.atom(before).size == patched.atom(after).size =>
            {
                let (align, wanted) = (original.alignment(before), patched.alignment(after));
                if wanted <= align {
                    return;
                }
                format!(
                    "the living variable is aligned to {align} bytes, and patched code may rely on {wanted}"
                )
            }
            None => return,
        };
        let why = format!("{why} ({} to {})", sections[0], sections[1]);
        self.refused.insert(after);
        self.refusals.push(Refusal::new(Code::ChangedMemory, name, why));
    }
}

/// What patched code may do that the living variable's memory does not bear.
pub(crate) fn obstacle(was: Memory, is: Memory) -> Option<&'static str> {
    match (was, is) {
        // Only the start writes it, and that has run.
        (Memory::ReadOnlyAfterStart, Memory::ReadOnly)
        | (Memory::ReadOnly, Memory::ReadOnlyAfterStart)
        // The living variable stays; what still refers to it as patched is refused where it does.
        | (_, Memory::Start | Memory::Exit) => None,
        (was, is) if was == is => None,
        (Memory::Start | Memory::Exit, _) => {
            Some("the living variable was freed after the start, with the value that the start gave it")
        }
        (Memory::ReadOnly | Memory::ReadOnlyAfterStart, Memory::Writable) => {
            Some("the living variable lies in read-only memory, and patched code may write it")
        }
        (Memory::Writable, Memory::ReadOnly | Memory::ReadOnlyAfterStart) => {
            Some("the living variable lies in memory that may be written, and stays there")
        }
        (Memory::PerCpu, _) => Some("each processor has a living variable of its own, and patched code takes it for one"),
        (_, Memory::PerCpu) => Some("there is one living variable, and patched code takes it for one of each processor"),
        (Memory::Listed, _) | (_, Memory::Listed) => {
            Some("what lies in that section is found by the section's bounds")
        }
        (Memory::Decrypted, _) | (_, Memory::Decrypted) => {
            Some("the memory of an encrypted guest's living variable stays encrypted or not, as it is")
        }
        (Memory::Unsaved, _) | (_, Memory::Unsaved) => {
            Some("whether hibernation saves the living variable stays as it is")
        }
        _ => Some("the living variable's memory is of another kind"),
    }
}

/// Whether it was freed, and nothing can have written it: then the livepatch has a copy that is as good.
fn comes_along(original: &Unit<'_>, before: AtomId, patched: &Unit<'_>, after: AtomId) -> bool {
    original.is_freed(before)
        && !original.section_of(before).is_writable()
        && memory(patched, after) == Memory::ReadOnly
}

fn memory(unit: &Unit<'_>, id: AtomId) -> Memory {
    special::memory_of(unit.section_of(id))
}

/// Whether it is a variable with a name, wherever it lies. Of exports, parameters and descriptions others take care.
fn is_data(unit: &Unit<'_>, id: AtomId) -> bool {
    let is_told = matches!(
        unit.treatment_of(id),
        Treatment::Registration(Registers::Export | Registers::Parameter | Registers::Description)
    );
    matches!(unit.atom(id).kind, AtomKind::Variable | AtomKind::Fixed)
        && unit.atom(id).symbol.is_some()
        && !unit.section_of(id).is_code()
        && !is_told
}

/// Whether its section holds nothing else, so that the section's alignment is its own.
fn is_alone(unit: &Unit<'_>, id: AtomId) -> bool {
    unit.atoms_in(unit.atom(id).section).len() == 1
}
