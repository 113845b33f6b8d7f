//! The closing pass: all of both objects is accounted for.
//!
//! The differ walks from functions outward, so what it never comes to does not exist for it. This pass turns the
//! question round. It goes through both objects whole and strikes out every byte, relocation, symbol, section and group
//! that is explained:
//!
//! - something compared it and found it equal: a pair of functions or variables, and all contents and table entries
//!   that the comparison went through on the way;
//! - a change that is reported covers it: a function that is replaced, carried or new, a value that is exchanged,
//!   code of the start that is passed over with a note, what the author asked to ignore;
//! - a rule says why it has no say ([`Rule`]; the table of sections in [`crate::special`] is the rest of them).
//!
//! What is then left on both sides in equal pieces is equal. What is left after that is a difference that nobody has
//! explained, and is refused. The pass comes last and only where nothing else refuses, so it costs no
//! second reason, and it sees nothing new in what the others saw: it is there for what they do not look at.

mod attributes;
mod residue;

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::compare::Comparison;
use crate::exports;
use crate::gone::PassedOver;
use crate::marks::Marks;
use crate::memory::MemoryChanges;
use crate::names;
use crate::references::Target;
use crate::special::Treatment;
use crate::update::Update;
use kmend_refusal::{Code, Refusal};
use residue::Piece;
use std::collections::{BTreeSet, HashMap, HashSet};

/// How many pieces of a unit are told; the rest is counted.
const SHOWN: usize = 8;

/// All that has been found out about two units when nothing is refused.
pub(crate) struct Findings<'a> {
    pub(crate) comparison: &'a Comparison<'a>,
    pub(crate) marks: &'a Marks,
    pub(crate) memory: &'a MemoryChanges,
    pub(crate) passed: &'a PassedOver,
    pub(crate) updates: &'a [Update],
    pub(crate) kept: &'a BTreeSet<AtomId>,
}

/// Why an atom without a partner, that no livepatch holds, is no lost change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Code and data that the patch removes stay in the running kernel, where nothing new refers to them. What only
    /// the compiler removed (a function that is inlined everywhere now) is the same.
    Removed,
    /// New code and data to which nothing leads that is kept. What is equal cannot lead to it, because it has no
    /// partner; what another unit of the patch refers to is kept.
    NewAndUnused,
    /// What registers something is told, or refused, where it is compared.
    Told,
    /// Entries that only objtool or the linker reads (`compared: false` in the table of sections).
    ToolsOnly,
}

/// What is left of two units that nothing explains.
pub(crate) fn unexplained(findings: &Findings<'_>) -> Vec<Refusal> {
    let Comparison { original, patched, .. } = findings.comparison;
    let (before, after) = findings.struck();
    let mut left: HashMap<Piece, Vec<residue::At>> = HashMap::new();
    for (piece, at) in residue::pieces(original, &before) {
        left.entry(piece).or_default().push(at);
    }
    let ignores = |section: &str| findings.comparison.requests.ignores_section(section);
    let mut more = Vec::new();
    for (piece, at) in residue::pieces(patched, &after) {
        let is_equal = left.get_mut(&piece).and_then(Vec::pop).is_some();
        if !is_equal && !ignores(&piece.section) {
            more.push(refusal(&piece, at, "only the patched object has it"));
        }
    }
    let ignored_or_none = left.into_iter().filter(|(piece, _)| !ignores(&piece.section));
    more.extend(ignored_or_none.flat_map(|(piece, places)| {
        let refuse = |at| refusal(&piece, at, "only the original has it");
        places.into_iter().map(refuse).collect::<Vec<_>>()
    }));
    more.extend(attributes::changes(findings));
    more.extend(findings.strangers());
    more.sort();
    if let Some(rest) = more.len().checked_sub(SHOWN).filter(|&rest| rest > 0) {
        more.truncate(SHOWN);
        let why = format!("{rest} more differences of this kind");
        more.push(Refusal::new(Code::Unexplained, "the unit", why));
    }
    more
}

fn refusal(piece: &Piece, at: residue::At, what: &str) -> Refusal {
    let why = format!("{} at +{:#x}: {what}, and no change accounts for it", piece.what(), at.offset);
    Refusal::new(Code::Unexplained, at.subject, why).with_details(piece.lines())
}

impl Findings<'_> {
    /// The atoms of both units that are explained.
    fn struck(&self) -> (HashSet<AtomId>, HashSet<AtomId>) {
        let Comparison { original, patched, pairing, .. } = self.comparison;
        let (mut before, mut after) = (HashSet::new(), HashSet::new());
        for id in patched.ids() {
            match pairing.original(id) {
                Some(partner) if self.explains_pair(partner, id) => {
                    before.insert(partner);
                    after.insert(id);
                }
                None if self.kept.contains(&id) || self.passed.has(id) => drop(after.insert(id)),
                None if new(patched, id).is_some() => drop(after.insert(id)),
                Some(_) | None => {}
            }
        }
        for id in original.ids().filter(|&id| pairing.patched(id).is_none()) {
            if self.memory.copies(id) || removed(original, id).is_some() {
                before.insert(id);
            }
        }
        (follow(original, before), follow(patched, after))
    }

    /// What both units name alike, and is not one thing all the same: code on one side and data on the other, or an alias
    /// that leads to something else. What the start needed alone may come back as something new.
    fn strangers(&self) -> Vec<Refusal> {
        let Comparison { original, patched, pairing, .. } = self.comparison;
        let names = |unit: &Unit<'_>, id: AtomId| -> Vec<String> {
            if !matches!(unit.atom(id).kind, AtomKind::Function | AtomKind::Variable) {
                return Vec::new();
            }
            unit.names(id).filter(|name| !names::is_numbered(name)).map(str::to_owned).collect()
        };
        let mut left: HashMap<String, Vec<AtomId>> = HashMap::new();
        for id in original.ids().filter(|&id| pairing.patched(id).is_none()) {
            for name in names(original, id) {
                left.entry(name).or_default().push(id);
            }
        }
        let is_other = |before: AtomId, after: AtomId| {
            !original.is_freed(before) || original.atom(before).kind != patched.atom(after).kind
        };
        let mut shared = BTreeSet::new();
        for id in patched.ids().filter(|&id| !pairing.is_living(id) && !self.passed.has(id)) {
            let is_shared = |name: &String| {
                left.get(name).is_some_and(|all| all.iter().any(|&other| is_other(other, id)))
            };
            shared.extend(names(patched, id).into_iter().filter(is_shared));
        }
        let why = "both objects define it, and it is not the same thing in both";
        shared.into_iter().map(|name| Refusal::new(Code::Unexplained, name, why)).collect()
    }

    /// Whether a pair is equal, or what changes of it is reported.
    fn explains_pair(&self, original: AtomId, patched: AtomId) -> bool {
        let is_exchanged = || self.updates.iter().any(|update| update.variable == Some(patched));
        let is_gone_too = || {
            self.passed.alone_use_original(self.comparison.original, original)
                && self.passed.alone_use_patched(self.comparison.patched, patched)
        };
        let is_other_export = || {
            exports::is_namespace(self.comparison.patched, patched)
                || exports::other_terms(self.comparison, original, patched).is_some()
        };
        // A definition that another unit of the patch overrides from now on has no say any more.
        self.comparison.pairing.has_left(original)
            || self.marks.is_changed(patched)
            || self.comparison.difference(original, patched).is_none()
            || self.passed.has(patched)
            || is_exchanged()
            || is_other_export()
            || is_gone_too()
    }
}

/// The rule for an atom that only the patched unit has, and that nothing kept needs.
fn new(unit: &Unit<'_>, id: AtomId) -> Option<Rule> {
    match unit.atom(id).kind {
        AtomKind::Function | AtomKind::Variable => Some(Rule::NewAndUnused),
        _ => fixed(unit, id),
    }
}

/// The rule for an atom that only the original has.
fn removed(unit: &Unit<'_>, id: AtomId) -> Option<Rule> {
    match unit.atom(id).kind {
        AtomKind::Function | AtomKind::Variable => Some(Rule::Removed),
        _ => fixed(unit, id),
    }
}

fn fixed(unit: &Unit<'_>, id: AtomId) -> Option<Rule> {
    match (unit.atom(id).kind, unit.treatment_of(id)) {
        (AtomKind::Fixed, _) => Some(Rule::Told),
        (AtomKind::Entry, Treatment::Entries { compared: false, .. }) => Some(Rule::ToolsOnly),
        _ => None,
    }
}

/// These atoms, and the contents and table entries that a comparison or a selection of them went through.
fn follow(unit: &Unit<'_>, mut struck: HashSet<AtomId>) -> HashSet<AtomId> {
    let mut waiting: Vec<AtomId> = struck.iter().copied().collect();
    while let Some(id) = waiting.pop() {
        let atom = unit.atom(id);
        if atom.kind == AtomKind::Entry && fixed(unit, id) == Some(Rule::ToolsOnly) {
            continue;
        }
        let contents = atom.references.iter().filter_map(|reference| match reference.target {
            Target::Atom { id, .. } if unit.atom(id).kind == AtomKind::Content => Some(id),
            _ => None,
        });
        for next in contents.chain(atom.entries.iter().copied()) {
            if struck.insert(next) {
                waiting.push(next);
            }
        }
    }
    struck
}
