//! The livepatch's code as instructions, each with what its relocations mean.

use super::{Scope, Thing};
use crate::atoms::{AtomId, AtomKind};
use crate::references::{self, Reference, Target};
use crate::select::Route;
use iced_x86::{Decoder, DecoderOptions, Instruction};
use std::collections::BTreeMap;

/// A place in code: an atom and an offset in its section.
pub(super) type Place = (AtomId, u64);

/// An instruction.
pub(super) struct Step {
    pub(super) instruction: Instruction,
    /// What the displacement of its memory operand is the address of.
    pub(super) displacement: Option<Thing>,
    /// What its immediate operand is the address of.
    pub(super) immediate: Option<Thing>,
    /// Where it jumps to or what it calls, if the instruction says so.
    pub(super) branch: Option<Branch>,
}

/// Where a branch leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Branch {
    /// To a place in the livepatch.
    Inside(Place),
    /// Out of the livepatch.
    Outside(String),
}

/// Code of the livepatch.
pub(super) struct Code {
    pub(super) steps: BTreeMap<Place, Step>,
    /// Ways that no instruction shows: from one that faults to its fixup, from a jump label to its target, from the place
    /// of an alternative to the alternative.
    pub(super) hidden: BTreeMap<Place, Vec<Place>>,
    /// Places that data points to: a jump through a register may lead there.
    pub(super) labels: BTreeMap<AtomId, Vec<Place>>,
}

impl Code {
    pub(super) fn empty() -> Self {
        Code { steps: BTreeMap::new(), hidden: BTreeMap::new(), labels: BTreeMap::new() }
    }

    pub(super) fn of(scope: Scope<'_>) -> Self {
        let mut code = Code::empty();
        for &id in scope.kept {
            if scope.patched.section_of(id).is_code() {
                code.decode(scope, id);
            } else {
                code.read_table(scope, id);
            }
        }
        code
    }

    fn decode(&mut self, scope: Scope<'_>, id: AtomId) {
        let atom = scope.patched.atom(id);
        let mut decoder = Decoder::with_ip(64, scope.patched.bytes(id), atom.start, DecoderOptions::NONE);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.is_invalid() {
                // What refers to something by an instruction that is not known is refused by `select`.
                return;
            }
            let constants = decoder.get_constant_offsets(&instruction);
            let ip = instruction.ip();
            let at = |offset: usize| {
                let offset = ip - atom.start + offset as u64;
                atom.references.iter().find(|reference| reference.offset == offset)
            };
            let thing = |offset: usize| at(offset).and_then(|reference| scope.thing(id, reference));
            let (displacement, immediate) = (constants.displacement_offset(), constants.immediate_offset());
            let branch = references::is_near_branch(&instruction)
                .then(|| branch(scope, id, &instruction, at(immediate)))
                .flatten();
            let step = Step {
                instruction,
                displacement: constants.has_displacement().then(|| thing(displacement)).flatten(),
                immediate: (constants.has_immediate() && branch.is_none())
                    .then(|| thing(immediate))
                    .flatten(),
                branch,
            };
            self.steps.insert((id, ip), step);
        }
    }

    /// Reads an entry of a table, or other data, for the ways in code that it shows.
    fn read_table(&mut self, scope: Scope<'_>, id: AtomId) {
        let atom = scope.patched.atom(id);
        let mut places = atom.references.iter().filter_map(|reference| inside(scope, id, reference));
        if atom.kind == AtomKind::Entry {
            if let Some(from) = places.next() {
                self.hidden.entry(from).or_default().extend(places);
            }
            return;
        }
        for place in places {
            let is_label = scope.patched.atom(place.0).origin != place.1;
            if is_label {
                self.labels.entry(place.0).or_default().push(place);
            }
        }
    }
}

/// The place in the livepatch's code that a reference leads to.
fn inside(scope: Scope<'_>, source: AtomId, reference: &Reference) -> Option<Place> {
    match (scope.route(source, reference), &reference.target) {
        (Route::Kept(id), Target::Atom { offset, .. }) if scope.patched.section_of(id).is_code() => {
            Some((id, scope.patched.atom(id).origin.wrapping_add_signed(*offset)))
        }
        _ => None,
    }
}

fn branch(
    scope: Scope<'_>,
    id: AtomId,
    instruction: &Instruction,
    reference: Option<&Reference>,
) -> Option<Branch> {
    let Some(reference) = reference else {
        return Some(Branch::Inside((id, instruction.near_branch_target())));
    };
    match (scope.route(id, reference), inside(scope, id, reference)) {
        (_, Some(place)) => Some(Branch::Inside(place)),
        (Route::Outside(outside), None) => Some(Branch::Outside(outside.name().to_owned())),
        _ => None,
    }
}
