//! What the running kernel remembers, and the new code would not find again.
//!
//! A variable that goes while another of its type comes is, most likely, the same under another name. The new one would
//! begin anew, and what the old one holds would be lost while the livepatch is loaded, without a word. So the author is asked
//! to say which it is.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::compare::Comparison;
use crate::names;
use crate::special::Treatment;
use kmend_object::{Object, SectionId};
use kmend_refusal::{Code, Refusal};
use kmend_types::Static;
use std::collections::{BTreeMap, BTreeSet};

/// Types whose variables hold nothing that is missed: when something was last printed, and what a lock is called
/// (include/linux/ratelimit_types.h, include/linux/lockdep_types.h).
const MISSED_BY_NOBODY: &[&str] = &["struct ratelimit_state", "struct lock_class_key", "struct once_work"];

/// What variables are called that macros and the compiler make for one use (include/linux/compiler.h, `__UNIQUE_ID()`; gcc,
/// c-family: `__compound_literal`).
const OF_ONE_USE: &[&str] =
    &["__UNIQUE_ID_", "__compound_literal", "__tracepoint_", "event_", "trace_event_"];

/// A variable that one side of a unit has, and the other does not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// Its name in the source.
    pub name: String,
    /// Its type as C writes it; its size where the object has no debug information.
    pub type_name: String,
    /// The function that it is declared in.
    pub function: Option<String>,
}

/// The variables of a unit that the livepatch lets begin, and those of the running kernel that it does not use any more.
#[derive(Debug, Clone, Default)]
pub struct States {
    /// Those that begin in the livepatch, and of which the author does not say that they shall.
    pub began: BTreeSet<State>,
    /// Those that nothing in the patched unit is.
    pub lost: BTreeSet<State>,
    /// Of those that begin and those that are lost: where a function uses the one now that used the other before.
    pub succeeded: BTreeSet<(State, State)>,
}

impl States {
    /// Compares the variables of a unit. `kept` is what goes into the livepatch.
    pub(crate) fn of(comparison: &Comparison<'_>, kept: &BTreeSet<AtomId>) -> Self {
        let Comparison { original, patched, pairing, requests, .. } = comparison;
        let is_new = |id: &AtomId| {
            is_state(patched, *id)
                && !pairing.is_living(*id)
                && !pairing.uncertain.contains(id)
                && !requests.begins_anew(patched, *id)
        };
        let began: Vec<AtomId> = kept.iter().copied().filter(is_new).collect();
        let is_lost =
            |id: &AtomId| is_state(original, *id) && pairing.patched(*id).is_none() && !pairing.has_left(*id);
        let lost: Vec<AtomId> = original.ids().filter(is_lost).collect();
        if began.is_empty() && lost.is_empty() {
            return States::default();
        }
        let succeeded = succeeded(comparison, &began, &lost);
        States { began: states(patched, &began), lost: states(original, &lost), succeeded }
    }

    /// Refuses those that begin where one of their type is lost, here or in another unit, and those that functions use in the place of
    /// a lost one of any type.
    pub fn refusals<'a>(&self, lost: impl IntoIterator<Item = &'a State> + Clone) -> Vec<Refusal> {
        let refusal = |new: &State| {
            let fits = |old: &&State| old.type_name == new.type_name;
            let old: BTreeSet<String> = lost.clone().into_iter().filter(fits).map(State::describe).collect();
            if !old.is_empty() {
                let old = old.into_iter().collect::<Vec<_>>().join(", ");
                let why = format!(
                    "it begins anew, while {old} of the same type ({}) goes, and with it what the running kernel holds there",
                    new.type_name
                );
                return Some(Refusal::new(Code::LostState, &new.name, why));
            }
            let old: Vec<String> = self
                .succeeded
                .iter()
                .filter(|(now, _)| now == new)
                .map(|(_, old)| format!("{} ({})", old.describe(), old.type_name))
                .collect();
            let why = format!(
                "it begins anew in the place of {}, which goes, and with it what the running kernel holds there",
                old.join(", ")
            );
            (!old.is_empty()).then(|| Refusal::new(Code::LostState, &new.name, why))
        };
        self.began.iter().filter_map(refusal).collect()
    }
}

/// What begins and is used by a function that used something before that is lost.
fn succeeded(comparison: &Comparison<'_>, began: &[AtomId], lost: &[AtomId]) -> BTreeSet<(State, State)> {
    let Comparison { original, patched, pairing, .. } = comparison;
    if began.is_empty() || lost.is_empty() {
        return BTreeSet::new();
    }
    let used = |unit: &Unit<'_>, user: AtomId, of: &[AtomId]| -> Vec<AtomId> {
        let references = &unit.atom(user).references;
        of.iter().copied().filter(|&id| references.iter().any(|reference| reference.leads_to(id))).collect()
    };
    let mut pairs = BTreeSet::new();
    for user in patched.ids().filter(|&id| patched.atom(id).kind == AtomKind::Function) {
        let Some(before) = pairing.original(user) else { continue };
        let (now, old) = (used(patched, user, began), used(original, before, lost));
        pairs.extend(now.into_iter().flat_map(|now| old.iter().map(move |&old| (now, old))));
    }
    let state = |unit: &Unit<'_>, id: AtomId| states(unit, &[id]).pop_first();
    let pairs =
        pairs.into_iter().filter_map(|(now, old)| Some((state(patched, now)?, state(original, old)?)));
    pairs.collect()
}

/// Variables that the author takes for the same, and whose types differ.
pub(crate) fn wrongly_renamed(comparison: &Comparison<'_>) -> Vec<Refusal> {
    let Comparison { original, patched, pairing, .. } = comparison;
    let pairs: Vec<(AtomId, AtomId)> = patched
        .ids()
        .filter(|&id| pairing.was_renamed(id))
        .filter_map(|id| Some((pairing.original(id)?, id)))
        .collect();
    if pairs.is_empty() {
        return Vec::new();
    }
    let (before, after) = (declarations(original.object), declarations(patched.object));
    let differs = |(old, new): (AtomId, AtomId)| {
        let (old, now) = (before.get(&original.place(old))?, after.get(&patched.place(new))?);
        let why = format!("its type is {}, and {} was {}", now.type_name, old.name, old.type_name);
        (old.type_name != now.type_name).then(|| Refusal::new(Code::Request, &now.name, why))
    };
    pairs.into_iter().filter_map(differs).collect()
}

impl State {
    fn describe(&self) -> String {
        match &self.function {
            Some(function) => format!("{} of {function}()", self.name),
            None => self.name.clone(),
        }
    }
}

/// Whether it is a variable that code writes, and that is missed if it is lost.
fn is_state(unit: &Unit<'_>, id: AtomId) -> bool {
    let section = unit.section_of(id);
    unit.atom(id).kind == AtomKind::Variable
        && unit.treatment_of(id) == Treatment::Plain
        && section.is_writable()
        // A flag that begins anew lets a message be printed again.
        && !names::is_once_section(&section.name)
        && !OF_ONE_USE.iter().any(|beginning| unit.name(id).starts_with(beginning))
}

/// Whether what variables of this type hold may be lost.
pub(crate) fn is_missed_by_nobody(type_name: &str) -> bool {
    MISSED_BY_NOBODY.contains(&type_name)
}

fn states(unit: &Unit<'_>, ids: &[AtomId]) -> BTreeSet<State> {
    if ids.is_empty() {
        return BTreeSet::new();
    }
    let declared = declarations(unit.object);
    let state = |&id: &AtomId| {
        let found = declared.get(&unit.place(id));
        let state = State {
            name: names::base(&unit.name(id)),
            type_name: match found {
                Some(found) => found.type_name.clone(),
                None => format!("{} bytes", unit.atom(id).size),
            },
            function: found.and_then(|found| found.function.clone()),
        };
        (!is_missed_by_nobody(&state.type_name)).then_some(state)
    };
    ids.iter().filter_map(state).collect()
}

/// What the debug information says of variables; nothing where there is none.
pub(crate) fn declarations(object: &Object) -> BTreeMap<(SectionId, u64), Static> {
    kmend_types::statics(object).unwrap_or_default()
}

impl Unit<'_> {
    /// Where its symbol stands.
    pub(crate) fn place(&self, id: AtomId) -> (SectionId, u64) {
        (self.atom(id).section, self.atom(id).origin)
    }
}
