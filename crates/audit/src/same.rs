//! Original against patched object, symbol by symbol: which functions and data differ.

use crate::code::{Code, Reference, Target};
use crate::elf::Section;
use crate::pair::{Pairs, is_part};
use crate::side::{Atom, Side, base_name};
use crate::tables::{self, Entry};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// How deep data without a name is followed.
const DEEPEST: u32 = 8;
/// Of an entry of `__bug_table` where the line of the source stands (arch/x86/include/asm/bug.h): it moves with every line that is
/// added above.
const BUG_LINE: Range<usize> = 8..10;
/// Descriptors of dynamic debugging, which hold lines of the source; each copy of the code has its own.
const DESCRIPTORS: &str = "__dyndbg";

/// Two objects and what is paired in them.
pub(crate) struct Comparison<'a> {
    pub(crate) original: &'a Side,
    pub(crate) patched: &'a Side,
    pub(crate) pairs: &'a Pairs,
    /// Names of what moved between this unit and another: they mean the same living thing, whoever defines it.
    moved: BTreeSet<String>,
    known: RefCell<HashMap<(usize, usize), bool>>,
    entries: [HashMap<usize, Vec<Entry>>; 2],
}

/// A function that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) original: usize,
    pub(crate) patched: usize,
    /// From the patched function's begin, where the first difference is.
    pub(crate) at: u64,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(
        original: &'a Side,
        patched: &'a Side,
        pairs: &'a Pairs,
        moved: BTreeSet<String>,
    ) -> Self {
        let entries = [tables::by_section(original), tables::by_section(patched)];
        Comparison { original, patched, pairs, moved, known: RefCell::default(), entries }
    }

    /// The original's symbol that belongs to one of the patched object.
    pub(crate) fn original_of(&self, patched: usize) -> Option<usize> {
        self.original.elf.only(self.pairs.original(self.patched.name(patched))?)
    }

    /// The functions that are there on both sides and differ. A part belongs to its function.
    pub(crate) fn changed_functions(&self) -> Vec<Change> {
        let mut seen = BTreeSet::new();
        let functions = self.patched.functions().filter(|&other| !is_part(self.patched.name(other)));
        let pairs = functions.filter_map(|other| Some((self.original_of(other)?, other)));
        pairs
            // Names of one place are one function.
            .filter(|&(one, other)| {
                seen.insert((self.original.elf.place(one), self.patched.elf.place(other)))
            })
            .filter_map(|(original, patched)| {
                let at = self.difference(original, patched, DEEPEST)?;
                Some(Change { original, patched, at })
            })
            .collect()
    }

    /// Where two functions differ first.
    pub(crate) fn difference(&self, one: usize, other: usize, depth: u32) -> Option<u64> {
        let (Some(mine), Some(theirs)) = (self.original.code(one), self.patched.code(other)) else {
            return Some(0);
        };
        for (a, b) in mine.insns.iter().zip(&theirs.insns) {
            let alike = a.is_alike(b) && a.references.len() == b.references.len();
            let mut pairs = a.references.iter().zip(&b.references);
            if !alike || !pairs.all(|pair| self.is_same(pair, Some((&mine, &theirs)), depth)) {
                return Some(b.at);
            }
        }
        if mine.insns.len() != theirs.insns.len() {
            return Some(theirs.range.end - theirs.range.start);
        }
        self.differing_entry(&mine, &theirs, depth)
    }

    /// Where the first entry of a table differs that belongs to a function.
    fn differing_entry(&self, mine: &Code, theirs: &Code, depth: u32) -> Option<u64> {
        let of = |side: usize, code: &Code| -> Vec<Entry> {
            let all = self.entries[side].get(&code.section).map_or(&[][..], Vec::as_slice);
            let from = all.partition_point(|entry| entry.site < code.range.start);
            let own = all[from..].iter().take_while(|entry| entry.site < code.range.end);
            own.filter(|entry| entry.counts()).cloned().collect()
        };
        let (before, after) = (of(0, mine), of(1, theirs));
        let start = |entry: &Entry| entry.site - theirs.range.start;
        for (a, b) in before.iter().zip(&after) {
            if a.table != b.table || !self.same_entry(a, b, (mine, theirs), depth) {
                return Some(start(b));
            }
        }
        (before.len() != after.len()).then(|| after.get(before.len()).map_or(0, start))
    }

    fn same_entry(&self, a: &Entry, b: &Entry, codes: (&Code, &Code), depth: u32) -> bool {
        let (mut one, mut other) = (a.bytes(self.original), b.bytes(self.patched));
        if &*a.table == "__bug_table" {
            for bytes in [&mut one, &mut other] {
                if let Some(line) = bytes.get_mut(BUG_LINE) {
                    line.fill(0);
                }
            }
        }
        let lists = (a.references(self.original), b.references(self.patched));
        let places = |list: &[Reference]| list.iter().map(|one| (one.at, one.form)).collect::<Vec<_>>();
        one == other
            && places(&lists.0) == places(&lists.1)
            && lists.0.iter().zip(&lists.1).enumerate().all(|(number, pair)| {
                match a.replacement_length(number, &one) {
                    Some(0) => true,
                    Some(length) => self.same_replacement(pair, length, depth),
                    None => self.is_same(pair, Some(codes), depth),
                }
            })
    }

    /// Code without a name that an entry of `.altinstructions` puts in the place of its site's.
    fn same_replacement(&self, (one, other): (&Reference, &Reference), length: u64, depth: u32) -> bool {
        let range = |reference: &Reference| {
            let Target::Inside(section, offset) = reference.target else { return None };
            let start = u64::try_from(offset).ok()?;
            Some((section, start..start.checked_add(length)?))
        };
        match (range(one), range(other)) {
            (Some(mine), Some(theirs)) => self.same_code(&mine, &theirs, depth),
            _ => false,
        }
    }

    /// Whether two ranges of code without a name are the same.
    fn same_code(&self, mine: &(usize, Range<u64>), theirs: &(usize, Range<u64>), depth: u32) -> bool {
        let mine = Code::read(&self.original.elf, mine.0, mine.1.clone());
        let theirs = Code::read(&self.patched.elf, theirs.0, theirs.1.clone());
        let (Some(mine), Some(theirs)) = (mine, theirs) else { return false };
        mine.insns.len() == theirs.insns.len()
            && mine.insns.iter().zip(&theirs.insns).all(|(a, b)| {
                a.is_alike(b)
                    && a.references.len() == b.references.len()
                    && a.references
                        .iter()
                        .zip(&b.references)
                        .all(|pair| self.is_same(pair, Some((&mine, &theirs)), depth))
            })
    }

    /// Whether two references lead to the same thing.
    fn is_same(
        &self,
        (one, other): (&Reference, &Reference),
        own: Option<(&Code, &Code)>,
        depth: u32,
    ) -> bool {
        match (one.target, other.target) {
            (Target::Outside(a, added), Target::Outside(b, also)) => {
                added == also && self.original.name(a) == self.patched.name(b)
            }
            (Target::Inside(section, offset), Target::Inside(theirs, at)) => {
                if let Some((mine, its)) = own {
                    let inside = (mine.holds(section, offset), its.holds(theirs, at));
                    if inside != (false, false) {
                        let places = (mine.index_within(offset), its.index_within(at));
                        return inside == (true, true) && places.0 == places.1;
                    }
                }
                self.same_place((section, offset), (theirs, at), (one, other), depth)
            }
            (Target::Inside(..), Target::Outside(b, added)) => {
                self.has_moved((self.original, one), (self.patched.name(b), added))
            }
            (Target::Outside(a, added), Target::Inside(..)) => {
                self.has_moved((self.patched, other), (self.original.name(a), added))
            }
        }
    }

    /// Whether what one object defines is what the other knows by a name.
    fn has_moved(&self, (side, reference): (&Side, &Reference), (name, added): (&str, i64)) -> bool {
        let is_it = |&(symbol, delta): &Atom| delta == added && side.name(symbol) == name;
        self.moved.contains(name) && side.atoms_of(reference).iter().any(is_it)
    }

    fn same_place(
        &self,
        (section, offset): (usize, i64),
        (theirs, at): (usize, i64),
        (one, other): (&Reference, &Reference),
        depth: u32,
    ) -> bool {
        if self.original.is_merged(section) || self.patched.is_merged(theirs) {
            let text = self.original.merged_at(section, offset);
            return text.is_some() && text == self.patched.merged_at(theirs, at);
        }
        let (mine, its) = (self.original.atoms_of(one), self.patched.atoms_of(other));
        let same = |a: &Atom, b: &Atom| a.1 == b.1 && self.same_symbol(a.0, b.0, depth);
        if mine.iter().any(|a| its.iter().any(|b| same(a, b))) {
            return true;
        }
        // What has no size holds nothing, whatever the compiler counts: a lock's class without lockdep.
        let empty = |atoms: &[Atom], side: &Side| -> BTreeSet<String> {
            let is_empty = |&&(symbol, delta): &&Atom| delta == 0 && side.elf.symbols[symbol].size == 0;
            atoms.iter().filter(is_empty).map(|&(symbol, _)| base_name(side.name(symbol))).collect()
        };
        let is_code = self.original.elf.sections[section].is_code();
        if !is_code && !empty(&mine, self.original).is_disjoint(&empty(&its, self.patched)) {
            return true;
        }
        let is_named = |atoms: &[Atom], side: &Side| {
            atoms.first().is_some_and(|&(symbol, delta)| {
                let size = side.elf.symbols[symbol].size as i64;
                (0..size.max(1)).contains(&delta)
            })
        };
        !is_named(&mine, self.original)
            && !is_named(&its, self.patched)
            && self.same_nameless((section, offset), (theirs, at), depth)
    }

    fn same_symbol(&self, one: usize, other: usize, depth: u32) -> bool {
        let (mine, theirs) = (self.original.name(one), self.patched.name(other));
        if is_part(mine) && is_part(theirs) {
            // A part is what its function makes of it.
            return base_name(mine) == base_name(theirs) && self.same_part(one, other, depth);
        }
        if self.pairs.is_pair(mine, theirs) {
            let is_constant = |side: &Side, symbol: usize| {
                let section = side.section_of(symbol).map(|section| &side.elf.sections[section]);
                section.is_some_and(Section::is_constant)
            };
            // A constant that the compiler numbers is what it holds.
            let is_numbered = theirs != base_name(theirs)
                && is_constant(self.original, one)
                && is_constant(self.patched, other);
            return !is_numbered || depth == 0 || self.same_data(one, other, depth - 1);
        }
        // Without a pair only what has no identity can be the same: constants of equal contents, and descriptors.
        let (Some(section), Some(its)) = (self.original.section_of(one), self.patched.section_of(other))
        else {
            return false;
        };
        let (ours, its) = (&self.original.elf.sections[section], &self.patched.elf.sections[its]);
        if base_name(mine) != base_name(theirs) || ours.name != its.name {
            return false;
        }
        ours.name == DESCRIPTORS || ours.is_constant() && self.same_data(one, other, depth)
    }

    fn same_part(&self, one: usize, other: usize, depth: u32) -> bool {
        if let Some(&known) = self.known.borrow().get(&(one, other)) {
            return known;
        }
        let Some(depth) = depth.checked_sub(1) else { return false };
        // A part leads back to its function; until it is known to differ it does not.
        self.known.borrow_mut().insert((one, other), true);
        let same = self.difference(one, other, depth).is_none();
        self.known.borrow_mut().insert((one, other), same);
        same
    }

    /// Whether two data hold the same.
    pub(crate) fn same_data(&self, one: usize, other: usize, depth: u32) -> bool {
        let (Some(mine), Some(theirs)) = (self.original.extent(one), self.patched.extent(other)) else {
            return false;
        };
        mine.1.end - mine.1.start == theirs.1.end - theirs.1.start
            && self.differing_bytes(&mine, &theirs, depth).is_empty()
    }

    fn same_nameless(&self, (section, offset): (usize, i64), (theirs, at): (usize, i64), depth: u32) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return false };
        let range = |side: &Side, section: usize, offset: i64| {
            let start = u64::try_from(offset).ok()?;
            (start < side.elf.sections.get(section)?.size).then_some(())?;
            Some((section, start..side.nameless_end(section, start)))
        };
        let (Some(mut mine), Some(mut its)) =
            (range(self.original, section, offset), range(self.patched, theirs, at))
        else {
            return false;
        };
        if self.original.elf.sections[section].is_code() || self.patched.elf.sections[theirs].is_code() {
            return self.same_code(&mine, &its, depth);
        }
        let (long, short) = (mine.1.end - mine.1.start, its.1.end - its.1.start);
        let length = long.min(short);
        // What one of them has more can only be room to the next.
        let is_room = |side: &Side, (section, range): &(usize, Range<u64>)| {
            let rest = range.start + length..range.end;
            side.elf.sections[*section].relocations_in(&rest).is_empty()
                && side.elf.bytes(*section, &rest).is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0))
        };
        if !is_room(self.original, &mine) || !is_room(self.patched, &its) {
            return false;
        }
        mine.1.end = mine.1.start + length;
        its.1.end = its.1.start + length;
        self.differing_bytes(&mine, &its, depth).is_empty()
    }

    /// The offsets, from the begin, at which two ranges of data of one length differ.
    pub(crate) fn differing_bytes(
        &self,
        (section, mine): &(usize, Range<u64>),
        (other, theirs): &(usize, Range<u64>),
        depth: u32,
    ) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let (Some(mut one), Some(mut two)) =
            (self.original.elf.bytes(*section, mine), self.patched.elf.bytes(*other, theirs))
        else {
            found.insert(0);
            return found;
        };
        let lists = (self.original.references(*section, mine), self.patched.references(*other, theirs));
        let mut right: HashMap<u64, &Reference> = lists.1.iter().map(|one| (one.at, one)).collect();
        for reference in &lists.0 {
            let width = reference.form.width();
            let same = right
                .remove(&reference.at)
                .is_some_and(|its| its.form == reference.form && self.same_datum(reference, its, depth));
            if same {
                for bytes in [&mut one, &mut two] {
                    let at = reference.at as usize;
                    if let Some(hole) = bytes.get_mut(at..at + width as usize) {
                        hole.fill(0);
                    }
                }
            } else {
                found.extend(reference.at..reference.at + width);
            }
        }
        for reference in right.into_values() {
            found.extend(reference.at..reference.at + reference.form.width());
        }
        let differing = one.iter().zip(&two).enumerate().filter(|(_, (a, b))| a != b);
        found.extend(differing.map(|(at, _)| at as u64));
        if one.len() != two.len() {
            found.insert(one.len().min(two.len()) as u64);
        }
        found
    }

    /// References in data: the place within a function may be any of it, of a function that differs by its number's place.
    fn same_datum(&self, one: &Reference, other: &Reference, depth: u32) -> bool {
        if self.is_same((one, other), None, depth) {
            return true;
        }
        // A table of jumps leads into code by offsets, which say nothing where the code differs; in code that does not, they
        // are those of the same instruction.
        let into = |side: &Side, reference: &Reference| {
            let atom = *side.atoms_of(reference).first()?;
            Some((atom, side.code(atom.0)?)).filter(|_| side.is_code(atom.0))
        };
        let (Some((mine, code)), Some((its, theirs))) = (into(self.original, one), into(self.patched, other))
        else {
            return false;
        };
        let place = |code: &Code, delta: i64| code.index_at(code.range.start as i64 + delta);
        self.pairs.is_pair(self.original.name(mine.0), self.patched.name(its.0))
            && place(&code, mine.1).is_some()
            && place(&code, mine.1) == place(&theirs, its.1)
    }
}
