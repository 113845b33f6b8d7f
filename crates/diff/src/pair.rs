//! Which atom of the original is which of the patched object.
//!
//! Names that the source gave identify a thing. Names that the compiler numbered do not: among those of one
//! base name the partners are found by content (functions) or by who refers to them and what for (`locals`). A
//! wrong pair of functions only makes more of them changed, because equality is then checked against the pairing.
//! A wrong pair of variables would let patched code use another variable's memory, so when it is not
//! certain which is which, both stay unpaired and are marked as uncertain; code that needs one is refused.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::author;
use crate::locals;
use crate::moves::{Home, Scope};
use crate::names;
use crate::references::Target;
use kmend_object::SymbolId;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// How deep a content's contents are followed for its fingerprint.
pub(crate) const FINGERPRINT_DEPTH: usize = 4;

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

    pub(crate) fn add(&mut self, original: AtomId, patched: AtomId) {
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
    by_alias(original, patched, &mut pairing);
    let groups = numbered_groups(original, patched, &pairing);
    for ((kind, _), (originals, patches)) in &groups {
        if *kind == AtomKind::Function {
            pair_functions(original, patched, originals, patches, &mut pairing);
        }
    }
    // A static variable of a function can lie in a section that code never moves to (`.meminit.data`).
    let is_variable = |kind: AtomKind| matches!(kind, AtomKind::Variable | AtomKind::Fixed);
    let variables = groups
        .iter()
        .filter(|((kind, _), group)| is_variable(*kind) && !group.0.is_empty() && !group.1.is_empty());
    locals::pair(original, patched, variables.map(|(_, group)| group).collect(), &mut pairing);
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

/// What has several names, of which both sides know one: another of them may be the one that it is called by.
fn by_alias(original: &Unit<'_>, patched: &Unit<'_>, pairing: &mut Pairing) {
    let is_free = |pairing: &Pairing, id: &AtomId| is_named(original, *id) && pairing.patched(*id).is_none();
    let mut by_name: HashMap<&str, AtomId> = HashMap::new();
    for id in original.ids().filter(|id| is_free(pairing, id)) {
        by_name.extend(original.names(id).filter(|name| !names::is_numbered(name)).map(|name| (name, id)));
    }
    let left: Vec<AtomId> =
        patched.ids().filter(|&id| is_named(patched, id) && !pairing.is_living(id)).collect();
    for id in left {
        let known: HashSet<AtomId> =
            patched.names(id).filter_map(|name| by_name.get(name).copied()).collect();
        let mut known = known.into_iter();
        // Where names of two things come together it is not known which of them it is.
        if let (Some(partner), None) = (known.next(), known.next())
            && original.atom(partner).kind == patched.atom(id).kind
            && !comes_back(original, partner, patched, id)
        {
            pairing.add(partner, id);
        }
    }
}

/// Whether it was `__init` code and is not any more: what runs then is not in the kernel, where the original is gone.
fn comes_back(original: &Unit<'_>, id: AtomId, patched: &Unit<'_>, partner: AtomId) -> bool {
    original.is_gone(id) && !patched.is_gone(partner)
}

pub(crate) type Group = (Vec<AtomId>, Vec<AtomId>);

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

/// A hash of a function's code with what it refers to, names without numbers.
pub(crate) fn fingerprint(unit: &Unit<'_>, id: AtomId, depth: usize) -> u64 {
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
