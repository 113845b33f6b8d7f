//! What stands in the code around the places that refer to a variable.
//!
//! Functions that a patch changes still say which variable is which by what they do with it: what is called with it, and which
//! text is printed then.

use crate::atoms::{AtomId, Unit};
use crate::names;
use crate::references::{Reference, Target};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What `DO_ONCE()` calls when the work is done, with its two variables (include/linux/once.h).
const ONCE_DONE: &[&str] = &["__do_once_done", "__do_once_sleepable_done"];

/// The function of the source, and what its code there refers to and calls. Never empty.
pub(crate) type Surrounding = (String, Vec<String>);

/// What a flag guards that lets something happen once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Guarded {
    /// A message: the code before it sets the flag itself (include/linux/once_lite.h).
    Message(Surrounding),
    /// Some other work: the flag is handed to [`ONCE_DONE`] behind it.
    Work(Surrounding),
}

/// By variable: the surroundings of all places that refer to it.
pub(crate) fn of(unit: &Unit<'_>, variables: &[AtomId]) -> BTreeMap<AtomId, BTreeSet<Surrounding>> {
    let mut found: BTreeMap<AtomId, BTreeSet<Surrounding>> = BTreeMap::new();
    each_site(unit, variables, |id, site| {
        found.entry(id).or_default().extend(site.around(0));
    });
    found
}

/// Those that are flags, by what they guard, in the order of the code.
pub(crate) fn guards(unit: &Unit<'_>, variables: &[AtomId]) -> BTreeMap<Guarded, Vec<AtomId>> {
    let mut guards: BTreeMap<AtomId, BTreeSet<Guarded>> = BTreeMap::new();
    let mut order = Vec::new();
    each_site(unit, variables, |id, site| {
        let guarded = if names::is_once_section(&unit.section_of(id).name) && site.is_written() {
            site.around(0).map(Guarded::Message)
        } else if site.callee().is_some_and(|callee| ONCE_DONE.contains(&callee.as_str())) {
            // The work is the call before that.
            site.around(1).map(Guarded::Work)
        } else {
            None
        };
        if let Some(guarded) = guarded {
            guards.entry(id).or_default().insert(guarded);
            order.push(id);
        }
    });
    let mut by_guarded: BTreeMap<Guarded, Vec<AtomId>> = BTreeMap::new();
    for id in order {
        // A flag of an inline function is set in each of its users: the first says what it is.
        let Some(first) = guards.remove(&id).and_then(|all| all.into_iter().next()) else { continue };
        by_guarded.entry(first).or_default().push(id);
    }
    by_guarded
}

/// A reference to a variable in code.
struct Site<'a> {
    unit: &'a Unit<'a>,
    /// The variable's name without its number.
    variable: String,
    source: AtomId,
    /// All references of this code, and which of them it is.
    references: &'a [Reference],
    at: usize,
}

fn each_site<'a>(unit: &'a Unit<'a>, variables: &[AtomId], mut visit: impl FnMut(AtomId, &Site<'a>)) {
    let variables: HashSet<AtomId> = variables.iter().copied().collect();
    for source in unit.ids().filter(|&id| unit.section_of(id).is_code()) {
        let references = &unit.atom(source).references;
        for (at, reference) in references.iter().enumerate() {
            if let Target::Atom { id, .. } = reference.target
                && variables.contains(&id)
            {
                visit(id, &Site { unit, variable: unit.base_name(id), source, references, at });
            }
        }
    }
}

impl Site<'_> {
    /// What is referred to between the call before the place (or that of so many calls earlier) and the next, and what that calls.
    fn around(&self, calls: usize) -> Option<Surrounding> {
        let before = self.references[..self.at].iter().enumerate();
        let mut ends = before.rev().filter(|(_, reference)| reference.branch);
        let start = ends.nth(calls).map_or(0, |(call, _)| call + 1);
        let end = self.next_call().map_or(self.references.len(), |call| call + 1);
        let told: Vec<String> =
            self.references[start..end].iter().filter_map(|reference| self.told(reference)).collect();
        (!told.is_empty()).then(|| (names::root(&self.unit.name(self.source)), told))
    }

    fn next_call(&self) -> Option<usize> {
        let behind = self.references[self.at..].iter().position(|reference| reference.branch)?;
        Some(self.at + behind)
    }

    /// What is called next.
    fn callee(&self) -> Option<String> {
        self.told(&self.references[self.next_call()?])
    }

    /// What a reference leads to, without the compiler's numbers; `None` for the variables that are to be told apart, and for
    /// what has no name.
    fn told(&self, reference: &Reference) -> Option<String> {
        let Target::Atom { id, offset } = reference.target else {
            return Some(self.unit.describe(&reference.target));
        };
        let name = self.unit.symbol_of(id).map(|symbol| symbol.name.as_str())?;
        if reference.branch {
            return Some(names::root(name));
        }
        let base = names::base(name);
        (base != self.variable).then(|| format!("{base}{offset:+}"))
    }

    /// Whether the instruction stores a byte there: a number, `mov $imm8, disp32(%rip)`, or a register, `mov %r8, disp32(%rip)`,
    /// either with an absolute address as well (Intel SDM, volume 2, MOV and table 2-2).
    fn is_written(&self) -> bool {
        let bytes = self.unit.bytes(self.source);
        let offset = usize::try_from(self.references[self.at].offset);
        let before = offset.ok().and_then(|at| bytes.get(..at)).unwrap_or_default();
        match before {
            [.., 0xc6, 0x05] | [.., 0xc6, 0x04, 0x25] => true,
            [.., 0x88, form] => form & 0xc7 == 0x05,
            [.., 0x88, form, 0x25] => form & 0xc7 == 0x04,
            _ => false,
        }
    }
}
