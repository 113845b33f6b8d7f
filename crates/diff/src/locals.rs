//! Which variable is which, among those that only the compiler's numbers tell apart.
//!
//! A function may have several static variables of one name, each in a block of its own, and every `pr_warn_once()` makes one.
//! The number says nothing: an edit anywhere renumbers them. What says something, from strong to weak:
//!
//! 1. Code that did not change refers to the same things at the same places.
//! 2. A flag belongs to what it lets happen once: who prints another text has another flag. One that begins anew lets its text
//!    be printed once more, which harms nobody; one that is taken for another may keep a text from being printed.
//! 3. A variable belongs to the function that it is declared in.
//! 4. Within a function, the line of the declaration (lines that a patch leaves alone keep their numbers: `#line` directives of
//!    the compile stage) and what is done with the variable each give a vote. Where the debug information has no lines,
//!    the initial values do.
//!
//! Where the votes are not one, or there is none and several of one name, it is not certain which is which.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::names;
use crate::pair::{FINGERPRINT_DEPTH, Group, Pairing, fingerprint};
use crate::references::Target;
use crate::state;
use crate::surroundings::{self, Guarded};
use kmend_object::SectionId;
use kmend_types::Static;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Pairs the variables of each base name.
pub(crate) fn pair(original: &Unit<'_>, patched: &Unit<'_>, groups: Vec<&Group>, pairing: &mut Pairing) {
    if groups.is_empty() {
        return;
    }
    unchanged_code(original, patched, pairing).settle(pairing);
    let locals = Locals { original: &Side::of(original), patched: &Side::of(patched) };
    for (olds, news) in groups {
        let group = left(olds, news, pairing);
        let group = locals.by_guards(group, pairing);
        locals.by_owners(group, pairing);
    }
}

/// Pairs of atoms that something speaks for.
#[derive(Default)]
struct Votes(BTreeSet<(AtomId, AtomId)>);

impl Votes {
    /// Pairs what nothing speaks against.
    fn settle(&self, pairing: &mut Pairing) {
        let (mut of_old, mut of_new) = (HashMap::new(), HashMap::new());
        for (old, new) in &self.0 {
            *of_old.entry(old).or_insert(0) += 1;
            *of_new.entry(new).or_insert(0) += 1;
        }
        for (old, new) in &self.0 {
            if of_old[old] == 1 && of_new[new] == 1 {
                pairing.add(*old, *new);
            }
        }
    }

    /// Votes for what has a key that nothing else on its side has.
    fn for_equal<K: Ord>(
        &mut self,
        (olds, news): (&[AtomId], &[AtomId]),
        of_old: impl Fn(AtomId) -> Vec<K>,
        of_new: impl Fn(AtomId) -> Vec<K>,
    ) {
        let mut keys: BTreeMap<K, Group> = BTreeMap::new();
        for &id in olds {
            for key in of_old(id) {
                keys.entry(key).or_default().0.push(id);
            }
        }
        for &id in news {
            for key in of_new(id) {
                keys.entry(key).or_default().1.push(id);
            }
        }
        for group in keys.into_values() {
            if let ([old], [new]) = (group.0.as_slice(), group.1.as_slice()) {
                self.0.insert((*old, *new));
            }
        }
    }
}

/// What functions that did not change refer to at one place.
fn unchanged_code(original: &Unit<'_>, patched: &Unit<'_>, pairing: &Pairing) -> Votes {
    let mut votes = Votes::default();
    for user in patched.ids().filter(|&id| patched.atom(id).kind == AtomKind::Function) {
        let Some(partner) = pairing.original(user) else { continue };
        if fingerprint(original, partner, FINGERPRINT_DEPTH) == fingerprint(patched, user, FINGERPRINT_DEPTH)
        {
            same_places((original, partner), (patched, user), FINGERPRINT_DEPTH, &mut votes);
        }
    }
    votes
}

fn same_places(old: (&Unit<'_>, AtomId), new: (&Unit<'_>, AtomId), depth: usize, votes: &mut Votes) {
    let (before, after) = (&old.0.atom(old.1).references, &new.0.atom(new.1).references);
    for (x, y) in before.iter().zip(after) {
        let (Target::Atom { id: a, .. }, Target::Atom { id: b, .. }) = (&x.target, &y.target) else {
            continue;
        };
        let (kind, other) = (old.0.atom(*a).kind, new.0.atom(*b).kind);
        if kind != other {
            continue;
        }
        match kind {
            AtomKind::Variable | AtomKind::Fixed if old.0.base_name(*a) == new.0.base_name(*b) => {
                votes.0.insert((*a, *b));
            }
            AtomKind::Content if depth > 0 => same_places((old.0, *a), (new.0, *b), depth - 1, votes),
            _ => {}
        }
    }
}

/// One unit, with what the debug information says of its variables. That is read when it is first asked.
struct Side<'a> {
    unit: &'a Unit<'a>,
    declared: OnceCell<BTreeMap<(SectionId, u64), Static>>,
}

impl<'a> Side<'a> {
    fn of(unit: &'a Unit<'a>) -> Self {
        Side { unit, declared: OnceCell::new() }
    }

    fn declaration(&self, id: AtomId) -> Option<&Static> {
        let declared = self.declared.get_or_init(|| state::declarations(self.unit.object));
        declared.get(&self.unit.place(id))
    }

    fn line(&self, id: AtomId) -> Option<(u64, String)> {
        let declaration = self.declaration(id)?;
        Some((declaration.line?, declaration.type_name.clone()))
    }

    fn value(&self, id: AtomId) -> (u64, Vec<u8>) {
        (self.unit.atom(id).size, self.unit.masked_bytes(id))
    }

    /// Whether it holds nothing that is missed when it is lost.
    fn is_missed_by_nobody(&self, id: AtomId) -> bool {
        self.declaration(id).is_some_and(|declaration| state::is_missed_by_nobody(&declaration.type_name))
    }
}

/// To whom a variable belongs.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    /// To the function that declares it.
    Function(String),
    /// That is not known, but who refers to it.
    Users(BTreeSet<String>),
}

/// The variables of one base name.
struct Locals<'a> {
    original: &'a Side<'a>,
    patched: &'a Side<'a>,
}

impl Locals<'_> {
    /// Pairs flags by what they guard. Returns those that are no flags.
    fn by_guards(&self, (olds, news): Group, pairing: &mut Pairing) -> Group {
        let before = surroundings::guards(self.original.unit, &olds);
        let after = surroundings::guards(self.patched.unit, &news);
        for (guarded, olds) in &before {
            let news = after.get(guarded).map(Vec::as_slice).unwrap_or_default();
            if olds.len() == news.len() {
                olds.iter().zip(news).for_each(|(&old, &new)| pairing.add(old, new));
            }
        }
        let work = |guards: &BTreeMap<Guarded, Vec<AtomId>>| -> Vec<AtomId> {
            let is_work = |(guarded, _): &(&Guarded, _)| matches!(guarded, Guarded::Work(_));
            guards.iter().filter(is_work).flat_map(|(_, ids)| ids.iter().copied()).collect()
        };
        let others = |ids: &[AtomId], guards: &BTreeMap<Guarded, Vec<AtomId>>| -> Vec<AtomId> {
            ids.iter().copied().filter(|id| !guards.values().flatten().any(|flag| flag == id)).collect()
        };
        let others = (others(&olds, &before), others(&news, &after));
        // Work that is done twice may be worse than a text that is printed twice.
        let (lost, new) = left(&work(&before), &work(&after), pairing);
        if !lost.is_empty() {
            pairing.uncertain.extend(new.iter().chain(&others.1));
        }
        others
    }

    /// Pairs variables by the functions that they belong to, and what is left by who refers to them.
    fn by_owners(&self, (olds, news): Group, pairing: &mut Pairing) {
        let users = (users(self.original.unit, &olds), users(self.patched.unit, &news));
        let owner = |side: &Side<'_>, users: &HashMap<AtomId, BTreeSet<String>>, id: AtomId| {
            let function = side.declaration(id).and_then(|declaration| declaration.function.clone());
            function.map_or_else(|| Owner::Users(users[&id].clone()), Owner::Function)
        };
        let mut by_owner: BTreeMap<Owner, Group> = BTreeMap::new();
        for &id in &olds {
            by_owner.entry(owner(self.original, &users.0, id)).or_default().0.push(id);
        }
        for &id in &news {
            by_owner.entry(owner(self.patched, &users.1, id)).or_default().1.push(id);
        }
        let (mut old_rest, mut new_rest) = (Vec::new(), Vec::new());
        for (olds, news) in by_owner.into_values() {
            let (olds, news) = self.of_one_owner(olds, news, pairing);
            old_rest.extend(olds);
            new_rest.extend(news);
        }
        match (old_rest.as_slice(), new_rest.as_slice()) {
            ([old], [new]) if !users.0[old].is_disjoint(&users.1[new]) => pairing.add(*old, *new),
            ([], _) => {}
            (_, several) => self.not_certain(several, pairing),
        }
    }

    /// Pairs variables of one function. Returns those that may belong to another.
    fn of_one_owner(&self, olds: Vec<AtomId>, news: Vec<AtomId>, pairing: &mut Pairing) -> Group {
        let (original, patched) = (self.original, self.patched);
        let are_entries =
            |side: &Side<'_>, ids: &[AtomId]| ids.iter().all(|&id| names::is_btf_entry(&side.unit.name(id)));
        match (olds.as_slice(), news.as_slice()) {
            ([], _) | (_, []) => return (olds, news),
            ([old], [new]) => {
                pairing.add(*old, *new);
                return (Vec::new(), Vec::new());
            }
            // Entries of a list of types keep the order of the list.
            _ if olds.len() == news.len() && are_entries(original, &olds) && are_entries(patched, &news) => {
                let in_order = |side: &Side<'_>, mut ids: Vec<AtomId>| {
                    ids.sort_by_key(|&id| side.unit.place(id));
                    ids
                };
                let pairs = in_order(original, olds).into_iter().zip(in_order(patched, news));
                pairs.for_each(|(old, new)| pairing.add(old, new));
                return (Vec::new(), Vec::new());
            }
            _ => {}
        }
        self.votes(&olds, &news).settle(pairing);
        let (olds, news) = left(&olds, &news, pairing);
        if !olds.is_empty() {
            self.not_certain(&news, pairing);
            return (olds, Vec::new());
        }
        (olds, news)
    }

    fn votes(&self, olds: &[AtomId], news: &[AtomId]) -> Votes {
        let (original, patched) = (self.original, self.patched);
        let mut votes = Votes::default();
        let line = |side: &Side<'_>, id| side.line(id).into_iter().collect::<Vec<_>>();
        votes.for_equal((olds, news), |id| line(original, id), |id| line(patched, id));
        let before = surroundings::of(original.unit, olds);
        let after = surroundings::of(patched.unit, news);
        let done = |all: &BTreeMap<AtomId, BTreeSet<_>>, id| {
            all.get(&id).into_iter().flatten().cloned().collect::<Vec<surroundings::Surrounding>>()
        };
        votes.for_equal((olds, news), |id| done(&before, id), |id| done(&after, id));
        let has_lines = |side: &Side<'_>, ids: &[AtomId]| ids.iter().any(|&id| side.line(id).is_some());
        if !has_lines(original, olds) && !has_lines(patched, news) {
            let value = |side: &Side<'_>, id| vec![side.value(id)];
            votes.for_equal((olds, news), |id| value(original, id), |id| value(patched, id));
        }
        votes
    }

    /// Code that needs one of these is refused, unless it is all the same whether it begins anew.
    fn not_certain(&self, news: &[AtomId], pairing: &mut Pairing) {
        let is_missed = |id: &AtomId| !self.patched.is_missed_by_nobody(*id);
        pairing.uncertain.extend(news.iter().copied().filter(is_missed));
    }
}

/// Those that have no partner yet.
fn left(olds: &[AtomId], news: &[AtomId], pairing: &Pairing) -> Group {
    let olds = olds.iter().copied().filter(|&id| pairing.patched(id).is_none()).collect();
    let news = news.iter().copied().filter(|&id| !pairing.is_living(id)).collect();
    (olds, news)
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
