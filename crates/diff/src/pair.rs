//! Which atom of the original is which of the patched object.
//!
//! Names that the source gave identify a thing. Names that the compiler numbered do not: among those of one
//! base name the partners are found by content (functions) or by who refers to them (variables). A
//! wrong pair of functions only makes more of them changed, because equality is then checked against the pairing.
//! A wrong pair of variables would let patched code use another variable's memory, so when it is not
//! certain which is which, both stay unpaired and are marked as uncertain; code that needs one is refused.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::author;
use crate::moves::{Home, Scope};
use crate::names;
use crate::references::Target;
use kmend_object::SymbolId;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// How deep a content's contents are followed for its fingerprint.
const FINGERPRINT_DEPTH: usize = 4;

/// The pairing of two units.
#[derive(Debug, Default)]
pub(crate) struct Pairing {
    /// From the original's atoms to the patched object's.
    forward: HashMap<AtomId, AtomId>,
    /// From the patched object's atoms to the original's.
    back: HashMap<AtomId, AtomId>,
    /// Atoms of the patched object that may be one of several of the original.
    pub(crate) uncertain: HashSet<AtomId>,
    /// Atoms of the patched object of which the author says what they were called.
    renamed: HashSet<AtomId>,
    /// Atoms of the patched object that live in another unit of the patch.
    moved: HashMap<AtomId, Home>,
    /// Undefined symbols of the patched object that are what another unit of the patch had for itself.
    living: HashMap<SymbolId, Home>,
    /// Atoms of the original that another unit of the patch defines from now on.
    left: HashSet<AtomId>,
}

impl Pairing {
    /// The patched atom that is this original one.
    pub(crate) fn patched(&self, original: AtomId) -> Option<AtomId> {
        self.forward.get(&original).copied()
    }

    /// The original atom that is this patched one.
    pub(crate) fn original(&self, patched: AtomId) -> Option<AtomId> {
        self.back.get(&patched).copied()
    }

    /// Where a patched atom lives, if that is another unit.
    pub(crate) fn home(&self, patched: AtomId) -> Option<&Home> {
        self.moved.get(&patched)
    }

    /// Where an undefined symbol of the patched object lives, if only the patch makes it global.
    pub(crate) fn living(&self, undefined: SymbolId) -> Option<&Home> {
        self.living.get(&undefined)
    }

    /// Whether it is in the running kernel.
    pub(crate) fn is_living(&self, patched: AtomId) -> bool {
        self.back.contains_key(&patched) || self.moved.contains_key(&patched)
    }

    /// Whether the author says what it was called.
    pub(crate) fn was_renamed(&self, patched: AtomId) -> bool {
        self.renamed.contains(&patched)
    }

    /// Whether another unit of the patch defines it from now on.
    pub(crate) fn has_left(&self, original: AtomId) -> bool {
        self.left.contains(&original)
    }

    fn add(&mut self, original: AtomId, patched: AtomId) {
        if !self.forward.contains_key(&original) && !self.is_living(patched) {
            self.forward.insert(original, patched);
            self.back.insert(patched, original);
        }
    }
}

/// Pairs functions and variables; what has no identity but its content is not paired.
pub(crate) fn pair(original: &Unit<'_>, patched: &Unit<'_>, scope: &Scope) -> Pairing {
    let mut pairing = Pairing::default();
    for id in patched.ids().filter(|&id| is_named(patched, id)) {
        if let Some(home) = patched.names(id).find_map(|name| scope.moved_in.get(name)) {
            pairing.moved.insert(id, home.clone());
        }
    }
    let object = patched.object;
    if !scope.living.is_empty() {
        for symbol in object.symbol_ids().filter(|&id| object.symbol(id).is_undefined()) {
            if let Some(home) = scope.living.get(&object.symbol(symbol).name) {
                pairing.living.insert(symbol, home.clone());
            }
        }
    }
    let has_left = |id: &AtomId| original.names(*id).any(|name| scope.moved_out.contains(name));
    pairing.left = original.ids().filter(|&id| is_named(original, id)).filter(has_left).collect();
    by_request(original, patched, &mut pairing);
    by_name(original, patched, &mut pairing);
    let groups = numbered_groups(original, patched, &pairing);
    for ((kind, _), (originals, patches)) in &groups {
        if *kind == AtomKind::Function {
            pair_functions(original, patched, originals, patches, &mut pairing);
        }
    }
    for ((kind, _), (originals, patches)) in &groups {
        // A static variable of a function can lie in a section that code never moves to (`.meminit.data`).
        if matches!(kind, AtomKind::Variable | AtomKind::Fixed) {
            pair_variables(original, patched, originals, patches, &mut pairing);
        }
    }
    pairing
}

fn is_named(unit: &Unit<'_>, id: AtomId) -> bool {
    matches!(unit.atom(id).kind, AtomKind::Function | AtomKind::Variable | AtomKind::Fixed)
        && unit.atom(id).symbol.is_some()
}

/// Variables that the author gives another name.
fn by_request(original: &Unit<'_>, patched: &Unit<'_>, pairing: &mut Pairing) {
    for (old, new) in author::renamed(patched.object) {
        let named = |unit: &Unit<'_>, name: &str| -> Option<AtomId> {
            let is_it = |&id: &AtomId| {
                matches!(unit.atom(id).kind, AtomKind::Variable | AtomKind::Fixed)
                    && unit.base_name(id) == name
            };
            let mut found = unit.ids().filter(is_it);
            found.next().filter(|_| found.next().is_none())
        };
        if let Some(id) = named(patched, &new).filter(|id| pairing.moved.contains_key(id)) {
            pairing.renamed.insert(id);
        } else if let (Some(id), Some(partner)) = (named(original, &old), named(patched, &new)) {
            pairing.add(id, partner);
            pairing.renamed.insert(partner);
        }
    }
}

/// Names that the source gave, and are unique in both.
fn by_name(original: &Unit<'_>, patched: &Unit<'_>, pairing: &mut Pairing) {
    let index = |unit: &Unit<'_>| {
        let mut names: HashMap<String, Option<AtomId>> = HashMap::new();
        for id in unit.ids().filter(|&id| is_named(unit, id)) {
            let name = unit.name(id);
            if !names::is_numbered(&name) {
                names.entry(name).and_modify(|entry| *entry = None).or_insert(Some(id));
            }
        }
        names
    };
    let (originals, patches) = (index(original), index(patched));
    for (name, id) in originals {
        if let (Some(id), Some(Some(partner))) = (id, patches.get(&name))
            && original.atom(id).kind == patched.atom(*partner).kind
            && !comes_back(original, id, patched, *partner)
        {
            pairing.add(id, *partner);
        }
    }
}

/// Whether it was `__init` code and is not any more: what runs then is not in the kernel, where the original is gone.
fn comes_back(original: &Unit<'_>, id: AtomId, patched: &Unit<'_>, partner: AtomId) -> bool {
    original.is_gone(id) && !patched.is_gone(partner)
}

type Group = (Vec<AtomId>, Vec<AtomId>);

/// What is unpaired, by kind and base name.
fn numbered_groups(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    pairing: &Pairing,
) -> BTreeMap<(AtomKind, String), Group> {
    let mut groups: BTreeMap<(AtomKind, String), Group> = BTreeMap::new();
    for id in original.ids().filter(|&id| is_named(original, id) && pairing.patched(id).is_none()) {
        groups.entry((original.atom(id).kind, original.base_name(id))).or_default().0.push(id);
    }
    for id in patched.ids().filter(|&id| is_named(patched, id) && !pairing.is_living(id)) {
        groups.entry((patched.atom(id).kind, patched.base_name(id))).or_default().1.push(id);
    }
    groups
}

/// Pairs clones of one base name: equal content first, then what is left if there is one of each.
fn pair_functions(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    originals: &[AtomId],
    patches: &[AtomId],
    pairing: &mut Pairing,
) {
    let prints: Vec<u64> = originals.iter().map(|&id| fingerprint(original, id, FINGERPRINT_DEPTH)).collect();
    let mut left: Vec<usize> = (0..originals.len()).collect();
    let mut unmatched = Vec::new();
    for &id in patches {
        let print = fingerprint(patched, id, FINGERPRINT_DEPTH);
        let is_it =
            |index: usize| prints[index] == print && !comes_back(original, originals[index], patched, id);
        match left.iter().position(|&index| is_it(index)) {
            Some(at) => pairing.add(originals[left.remove(at)], id),
            None => unmatched.push(id),
        }
    }
    if let ([index], [id]) = (left.as_slice(), unmatched.as_slice())
        && !comes_back(original, originals[*index], patched, *id)
    {
        pairing.add(originals[*index], *id);
    }
}

/// Pairs variables of one base name by the functions that refer to them.
fn pair_variables(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    originals: &[AtomId],
    patches: &[AtomId],
    pairing: &mut Pairing,
) {
    let mut by_users: BTreeMap<BTreeSet<String>, Group> = BTreeMap::new();
    let (original_users, patched_users) = (users(original, originals), users(patched, patches));
    for &id in originals {
        by_users.entry(original_users[&id].clone()).or_default().0.push(id);
    }
    for &id in patches {
        by_users.entry(patched_users[&id].clone()).or_default().1.push(id);
    }
    let mut left: Group = (Vec::new(), Vec::new());
    for (mut before, mut after) in by_users.into_values() {
        let same_shape = before.len() == after.len();
        if same_shape && before.len() > 1 {
            // Several of one name in one function: the compiler numbers them in the order of the source.
            before.sort_by_key(|&id| order(original, id));
            after.sort_by_key(|&id| order(patched, id));
        }
        let pairs = before.iter().zip(&after);
        if same_shape && pairs.clone().all(|(&a, &b)| same_layout(original, a, patched, b)) {
            pairs.for_each(|(&a, &b)| pairing.add(a, b));
        } else {
            left.0.append(&mut before);
            left.1.append(&mut after);
        }
    }
    match (left.0.as_slice(), left.1.as_slice()) {
        ([], _) | (_, []) => {}
        ([before], [after]) if shares_user(&original_users[before], &patched_users[after]) => {
            pairing.add(*before, *after);
        }
        (_, several) => pairing.uncertain.extend(several),
    }
}

fn shares_user(before: &BTreeSet<String>, after: &BTreeSet<String>) -> bool {
    before.intersection(after).next().is_some()
}

fn same_layout(original: &Unit<'_>, a: AtomId, patched: &Unit<'_>, b: AtomId) -> bool {
    let is_zeroed = |unit: &Unit<'_>, id| unit.bytes(id).is_empty();
    original.atom(a).size == patched.atom(b).size && is_zeroed(original, a) == is_zeroed(patched, b)
}

/// The order of the source: the number that the compiler gave, or the place, where the number is two in one.
fn order(unit: &Unit<'_>, id: AtomId) -> u64 {
    let name = unit.name(id);
    if names::is_btf_entry(&name) {
        return unit.atom(id).start;
    }
    let digits: String = name.chars().rev().take_while(char::is_ascii_digit).collect();
    digits.chars().rev().collect::<String>().parse().unwrap_or(u64::MAX)
}

/// By variable: the source functions and variables that refer to it, code beside a function as that function.
fn users(unit: &Unit<'_>, variables: &[AtomId]) -> HashMap<AtomId, BTreeSet<String>> {
    let mut users: HashMap<AtomId, BTreeSet<String>> =
        variables.iter().map(|&id| (id, BTreeSet::new())).collect();
    for source in unit.ids() {
        for reference in &unit.atom(source).references {
            let Target::Atom { id, .. } = reference.target else { continue };
            let Some(set) = users.get_mut(&id) else { continue };
            set.insert(user_name(unit, source));
        }
    }
    users
}

fn user_name(unit: &Unit<'_>, source: AtomId) -> String {
    let atom = unit.atom(source);
    match (atom.kind, atom.references.first().map(|first| &first.target)) {
        (AtomKind::Entry, Some(Target::Atom { id, .. })) => names::root(&unit.name(*id)),
        (AtomKind::Content, _) if atom.symbol.is_none() => String::new(),
        _ => names::root(&unit.name(source)),
    }
}

/// A hash of a function's code with what it refers to, names without numbers.
fn fingerprint(unit: &Unit<'_>, id: AtomId, depth: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    let atom = unit.atom(id);
    atom.size.hash(&mut hasher);
    unit.masked_bytes(id).hash(&mut hasher);
    for reference in &atom.references {
        (reference.offset, reference.kind).hash(&mut hasher);
        match &reference.target {
            Target::Text { section, offset } => {
                unit.object.section(*section).string_at(*offset).hash(&mut hasher);
            }
            Target::External { symbol, offset } | Target::Other { symbol, offset } => {
                (&unit.object.symbol(*symbol).name, offset).hash(&mut hasher);
            }
            Target::Atom { id: target, offset } => {
                offset.hash(&mut hasher);
                if unit.atom(*target).kind == AtomKind::Content && depth > 0 {
                    fingerprint(unit, *target, depth - 1).hash(&mut hasher);
                } else {
                    names::root(&unit.base_name(*target)).hash(&mut hasher);
                }
            }
        }
    }
    hasher.finish()
}
