//! Which symbol of the patched object is which of the original.
//!
//! A name that the compiler did not number is itself. Numbered names (static locals, clones) are told apart by who uses them:
//! both sides' code of one function is aligned as two texts are, and what stands at the same place of the same
//! instruction is the same thing. Where that says nothing, only a name that is alone on both sides is taken. The flag of a message
//! that is printed once belongs to its text, wherever that stands.

use crate::code::{Code, Insn, Reference, Target};
use crate::side::{Side, base_name, cold_part_of};
use similar::{Algorithm, DiffOp, capture_diff_slices};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

/// Where the author's names are, each the old one and the new one.
const RENAMED: &str = ".kmend.renamed";
/// Sections of flags of messages that are printed once (include/linux/once_lite.h; the second since dbefa1f31a91).
const ONCE: [&str; 2] = [".data.once", ".data..once"];
/// What these flags are called (include/linux/once_lite.h, `DO_ONCE_LITE_IF`; include/linux/printk.h, `printk_deferred_once`).
const FLAGS: [&str; 2] = ["__already_done", "__print_once"];
/// The longest code whose two sides are aligned, in instructions of both.
const LONGEST: usize = 400_000;

/// The pairs by name: a name is one symbol of an object, because an object is assembled from one text.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    original: HashMap<String, String>,
    patched: HashMap<String, String>,
}

impl Pairs {
    /// The original's name of a symbol of the patched object.
    pub(crate) fn original(&self, patched: &str) -> Option<&str> {
        self.original.get(patched).map(String::as_str)
    }

    /// The other way round.
    pub(crate) fn patched(&self, original: &str) -> Option<&str> {
        self.patched.get(original).map(String::as_str)
    }

    pub(crate) fn is_pair(&self, original: &str, patched: &str) -> bool {
        self.original(patched) == Some(original)
    }

    fn add(&mut self, original: &str, patched: &str) {
        self.original.insert(patched.to_owned(), original.to_owned());
        self.patched.insert(original.to_owned(), patched.to_owned());
    }
}

/// Pairs up two objects.
pub(crate) fn pair(original: &Side, patched: &Side) -> Pairs {
    let mut pairs = Pairs::default();
    let mut groups: BTreeMap<(bool, String), (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for side in [original, patched] {
        for symbol in side.functions().chain(side.data()).collect::<BTreeSet<_>>() {
            let key = (side.is_code(symbol), base_name(side.name(symbol)));
            let group = groups.entry(key).or_default();
            if std::ptr::eq(side, original) { group.0.push(symbol) } else { group.1.push(symbol) }
        }
    }
    let mut open = Vec::new();
    for ((is_code, base), (ours, theirs)) in &groups {
        let exact = |side: &Side, list: &[usize]| list.iter().copied().find(|&one| side.name(one) == base);
        let is_exact = exact(original, ours).is_some() && exact(patched, theirs).is_some();
        if is_exact {
            pairs.add(base, base);
        }
        // What moves out of its function or into one gets or loses a number.
        let rest = |side: &Side, list: &[usize]| -> Vec<usize> {
            list.iter().copied().filter(|&one| !is_exact || side.name(one) != base).collect()
        };
        let (ours, theirs) = (rest(original, ours), rest(patched, theirs));
        if !ours.is_empty() && !theirs.is_empty() {
            open.push((*is_code, ours, theirs));
        }
    }
    open.sort_by_key(|(is_code, ..)| !is_code);
    let texts = Texts { original, patched };
    let (code, data): (Vec<_>, Vec<_>) = open.into_iter().partition(|(is_code, ..)| *is_code);
    for (_, ours, theirs) in code {
        texts.pair_functions(&mut pairs, ours, theirs);
    }
    let mut votes = texts.votes(&pairs);
    texts.vote_by_data(&mut votes, &pairs);
    for (_, ours, theirs) in data {
        let (ours, theirs) = texts.pair_flags(&mut pairs, ours, theirs);
        texts.pair_data(&mut pairs, &votes, ours, theirs);
    }
    renamed(&mut pairs, original, patched);
    pairs
}

/// What the patch's author says is one variable under two names (kmend.h, `KMEND_RENAMED`): neither has another pair, and each is
/// the only one of its name in the source.
fn renamed(pairs: &mut Pairs, original: &Side, patched: &Side) {
    let only = |side: &Side, base: &str| {
        let mut named = side.data().filter(|&symbol| base_name(side.name(symbol)) == base);
        named.next().filter(|_| named.next().is_none()).map(|symbol| side.name(symbol).to_owned())
    };
    for text in patched.texts(RENAMED) {
        let Some((old, new)) = text.split_once(' ') else { continue };
        if let (Some(old), Some(new)) = (only(original, old), only(patched, new))
            && pairs.patched(&old).is_none()
            && pairs.original(&new).is_none()
        {
            pairs.add(&old, &new);
        }
    }
}

/// How often what stands at one place is one name on the original's side and another on the patched one's.
type Votes = HashMap<(String, String), usize>;

struct Texts<'a> {
    original: &'a Side,
    patched: &'a Side,
}

impl Texts<'_> {
    /// Clones: those of equal text first, then the only ones, then those of one name.
    fn pair_functions(&self, pairs: &mut Pairs, mut ours: Vec<usize>, mut theirs: Vec<usize>) {
        let text = |side: &Side, symbol| side.code(symbol).map(|code| keys(side, &code));
        let mut found = Vec::new();
        for &one in &ours {
            let mine = text(self.original, one);
            let mut equal = theirs.iter().copied().filter(|&other| text(self.patched, other) == mine);
            if let (Some(other), None) = (equal.next(), equal.next())
                && mine.is_some()
                && !found.iter().any(|&(_, taken)| taken == other)
            {
                found.push((one, other));
            }
        }
        // Equal texts on the original's side say nothing.
        found.retain(|&(one, _)| {
            ours.iter().filter(|&&other| text(self.original, other) == text(self.original, one)).count() == 1
        });
        for &(one, other) in &found {
            pairs.add(self.original.name(one), self.patched.name(other));
        }
        ours.retain(|one| !found.iter().any(|(taken, _)| taken == one));
        theirs.retain(|one| !found.iter().any(|(_, taken)| taken == one));
        if let ([one], [other]) = (&ours[..], &theirs[..]) {
            pairs.add(self.original.name(*one), self.patched.name(*other));
            return;
        }
        for one in ours {
            let name = self.original.name(one);
            if theirs.iter().any(|&other| self.patched.name(other) == name) {
                pairs.add(name, name);
            }
        }
    }

    /// Flags of messages: those of one text. What another text has is another flag. Returns what that does not tell.
    fn pair_flags(
        &self,
        pairs: &mut Pairs,
        ours: Vec<usize>,
        theirs: Vec<usize>,
    ) -> (Vec<usize>, Vec<usize>) {
        let (before, after) = (messages(self.original, &ours), messages(self.patched, &theirs));
        let shared = |one: &BTreeSet<Message>, all: &HashMap<usize, BTreeSet<Message>>| -> Vec<usize> {
            all.iter().filter(|(_, texts)| !texts.is_disjoint(one)).map(|(&symbol, _)| symbol).collect()
        };
        for (&one, texts) in &before {
            if let [other] = shared(texts, &after)[..]
                && shared(&after[&other], &before) == [one]
            {
                pairs.add(self.original.name(one), self.patched.name(other));
            }
        }
        // Of several of one text the places decide.
        let several = |one: usize, own, other| {
            let texts: Option<&BTreeSet<Message>> = HashMap::get(own, &one);
            texts.is_none_or(|texts| shared(texts, own).len() > 1 && !shared(texts, other).is_empty())
        };
        let left = ours
            .into_iter()
            .filter(|&one| pairs.patched(self.original.name(one)).is_none() && several(one, &before, &after));
        let left: Vec<usize> = left.collect();
        let right = theirs
            .into_iter()
            .filter(|&one| pairs.original(self.patched.name(one)).is_none() && several(one, &after, &before));
        let right: Vec<usize> = right.collect();
        (left, right)
    }

    fn pair_data(&self, pairs: &mut Pairs, votes: &Votes, ours: Vec<usize>, theirs: Vec<usize>) {
        let voted =
            |one: &str, other: &str| votes.get(&(one.to_owned(), other.to_owned())).copied().unwrap_or(0);
        let (mut left, mut right) = (ours.clone(), theirs.clone());
        for &other in &theirs {
            let name = self.patched.name(other);
            let mut best: Vec<_> =
                ours.iter().map(|&one| (voted(self.original.name(one), name), one)).collect();
            best.sort_unstable_by_key(|&(count, _)| std::cmp::Reverse(count));
            let Some(&(count, one)) = best.first().filter(|(count, _)| *count > 0) else { continue };
            let is_tied = best.get(1).is_some_and(|&(second, _)| second == count);
            let mine = self.original.name(one);
            let rivals = theirs.iter().filter(|&&rival| rival != other);
            let is_wanted = rivals.map(|&rival| voted(mine, self.patched.name(rival))).max() >= Some(count);
            if !is_tied && !is_wanted {
                pairs.add(mine, name);
                left.retain(|&known| known != one);
                right.retain(|&known| known != other);
            }
        }
        if let ([one], [other]) = (&left[..], &right[..])
            && ours.len() == theirs.len()
        {
            pairs.add(self.original.name(*one), self.patched.name(*other));
        }
    }

    /// Aligns the code of every pair of functions.
    fn votes(&self, pairs: &Pairs) -> Votes {
        let mut votes = Votes::new();
        for other in self.patched.functions() {
            let Some(one) =
                pairs.original(self.patched.name(other)).and_then(|name| self.original.elf.only(name))
            else {
                continue;
            };
            let (Some(mine), Some(theirs)) = (self.original.code(one), self.patched.code(other)) else {
                continue;
            };
            if mine.insns.len() + theirs.insns.len() > LONGEST {
                continue;
            }
            let (before, after) = (keys(self.original, &mine), keys(self.patched, &theirs));
            let same: Vec<(usize, usize)> = if before == after {
                (0..before.len()).map(|number| (number, number)).collect()
            } else {
                let operations = capture_diff_slices(Algorithm::Myers, &before, &after);
                let equal = |operation: &DiffOp| match *operation {
                    DiffOp::Equal { old_index, new_index, len } => {
                        (0..len).map(|by| (old_index + by, new_index + by)).collect::<Vec<_>>()
                    }
                    _ => Vec::new(),
                };
                operations.iter().flat_map(equal).collect()
            };
            for (mine, theirs) in same.iter().map(|&(a, b)| (&mine.insns[a], &theirs.insns[b])) {
                self.vote(&mut votes, mine, theirs);
            }
        }
        votes
    }

    /// What stands at the same place of one datum: tables have pointers to what the compiler numbers.
    fn vote_by_data(&self, votes: &mut Votes, pairs: &Pairs) {
        for other in self.patched.data() {
            let original = pairs.original(self.patched.name(other));
            let one = original.and_then(|name| self.original.elf.only(name));
            let extents = one.and_then(|one| self.original.extent(one)).zip(self.patched.extent(other));
            let Some(((section, mine), (its, theirs))) = extents else { continue };
            let after: HashMap<u64, Reference> =
                self.patched.references(its, &theirs).into_iter().map(|one| (one.at, one)).collect();
            for reference in self.original.references(section, &mine) {
                if let Some(other) = after.get(&reference.at) {
                    self.vote_for(votes, &reference, other);
                }
            }
        }
    }

    fn vote(&self, votes: &mut Votes, mine: &Insn, theirs: &Insn) {
        for (one, other) in mine.references.iter().zip(&theirs.references) {
            self.vote_for(votes, one, other);
        }
    }

    fn vote_for(&self, votes: &mut Votes, one: &Reference, other: &Reference) {
        let name = |side: &Side, reference: &Reference| {
            side.atoms_of(reference).first().map(|&(symbol, _)| side.name(symbol).to_owned())
        };
        if let (Some(one), Some(other)) = (name(self.original, one), name(self.patched, other))
            && base_name(&one) == base_name(&other)
        {
            *votes.entry((one, other)).or_default() += 1;
        }
    }
}

/// A function of the source, and the texts of one call.
type Message = (String, Vec<u8>);

/// The flags among these that code sets before it prints a text.
fn messages(side: &Side, flags: &[usize]) -> HashMap<usize, BTreeSet<Message>> {
    let is_flag = |symbol: usize| {
        let section = side.extent(symbol).map(|(section, _)| &side.elf.sections[section].name);
        let is_once = section.is_some_and(|name| ONCE.iter().any(|once| name.starts_with(once)));
        // Those of DO_ONCE() lie there as well, and guard work.
        is_once && FLAGS.contains(&base_name(side.name(symbol)).as_str())
    };
    let flags: BTreeSet<usize> = flags.iter().copied().filter(|&symbol| is_flag(symbol)).collect();
    let mut found: HashMap<usize, BTreeSet<Message>> = HashMap::new();
    if flags.is_empty() {
        return found;
    }
    let is_call = |insn: &Insn| insn.branch.is_some() && !insn.references.is_empty();
    for function in side.functions() {
        let Some(code) = side.code(function) else { continue };
        // Without what the compiler adds to the name of a clone or a part.
        let source = side.name(function).split('.').next().unwrap_or_default();
        for (at, insn) in code.insns.iter().enumerate() {
            let set = insn.references.iter().filter(|one| one.is_written).flat_map(|one| side.atoms_of(one));
            let Some((flag, _)) = set.into_iter().find(|(symbol, _)| flags.contains(symbol)) else {
                continue;
            };
            let start = code.insns[..at].iter().rposition(is_call).map_or(0, |call| call + 1);
            let end = code.insns[at..].iter().position(is_call).map_or(code.insns.len(), |call| at + call);
            let references = code.insns[start..end].iter().flat_map(|insn| &insn.references);
            let texts = references.filter_map(|one| match one.target {
                Target::Inside(section, offset) if side.is_merged(section) => side.merged_at(section, offset),
                _ => None,
            });
            let text: Vec<u8> = texts.flatten().collect();
            if !text.is_empty() {
                found.entry(flag).or_default().insert((source.to_owned(), text));
            }
        }
    }
    found
}

/// For each instruction a number that says what it is and, without the compiler's numbers, what it refers to.
fn keys(side: &Side, code: &Code) -> Vec<u64> {
    let key = |insn: &Insn| {
        let mut hasher = DefaultHasher::new();
        insn.shape.hash(&mut hasher);
        insn.branch.map(|branch| format!("{branch:?}")).hash(&mut hasher);
        for reference in &insn.references {
            match reference.target {
                Target::Inside(section, offset) if code.holds(section, offset) => "own".hash(&mut hasher),
                Target::Inside(section, offset) if side.is_merged(section) => {
                    side.merged_at(section, offset).hash(&mut hasher);
                }
                Target::Inside(section, _) => match side.atoms_of(reference).first() {
                    Some(&(symbol, delta)) => (base_name(side.name(symbol)), delta).hash(&mut hasher),
                    None => side.elf.sections[section].is_code().hash(&mut hasher),
                },
                Target::Outside(symbol, added) => (side.name(symbol), added).hash(&mut hasher),
            }
        }
        hasher.finish()
    };
    code.insns.iter().map(key).collect()
}

/// Whether a name of code is a part of another function and not one of its own.
pub(crate) fn is_part(name: &str) -> bool {
    cold_part_of(name).is_some()
}
