//! One object of a unit: its functions and data, and what a place in it belongs to.

use crate::code::{Code, Reference, Target, reference};
use crate::elf::{Elf, Home, Malformed, R_NONE, Section, is_relative};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;

/// How far before a datum a reference may lie that means the datum: an index that begins above 0, in bytes.
const BEFORE: u64 = 4096;
/// The longest text that is shown, in characters.
const SHOWN: usize = 40;

/// An object with what is worked out of it.
pub(crate) struct Side {
    pub(crate) elf: Elf,
    code: RefCell<HashMap<usize, Option<Rc<Code>>>>,
    /// By section, the offsets that relocations lead to.
    referred: RefCell<HashMap<usize, Rc<BTreeSet<u64>>>>,
}

/// What a place belongs to: a symbol, and the distance from it.
pub(crate) type Atom = (usize, i64);

impl Side {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Side, Malformed> {
        Ok(Side::of(Elf::parse(bytes.to_vec())?))
    }

    pub(crate) fn of(elf: Elf) -> Side {
        Side { elf, code: RefCell::default(), referred: RefCell::default() }
    }

    pub(crate) fn name(&self, symbol: usize) -> &str {
        self.elf.symbols.get(symbol).map_or("", |symbol| &symbol.name)
    }

    /// The section of a symbol and the offsets that it covers: those of its size; of code without
    /// one those to the next symbol.
    pub(crate) fn extent(&self, symbol: usize) -> Option<(usize, Range<u64>)> {
        let (section, value) = self.elf.place(symbol)?;
        let size = self.elf.symbols[symbol].size;
        if size == 0 && !self.elf.sections[section].is_code() {
            return Some((section, value..value));
        }
        let whole = self.elf.sections[section].size;
        let end = if size > 0 {
            value.checked_add(size)?
        } else {
            let named = self.elf.named_in(section);
            let after = named.partition_point(|&other| self.elf.symbols[other].value <= value);
            named.get(after).map_or(whole, |&other| self.elf.symbols[other].value)
        };
        (value <= end && end <= whole).then_some((section, value..end))
    }

    /// The functions: named code.
    pub(crate) fn functions(&self) -> impl Iterator<Item = usize> {
        (0..self.elf.symbols.len()).filter(|&number| {
            let symbol = &self.elf.symbols[number];
            symbol.is_function() && !symbol.name.starts_with("__pfx_") && self.section_of(number).is_some()
        })
    }

    /// The data: named, loaded, and no code.
    pub(crate) fn data(&self) -> impl Iterator<Item = usize> {
        (0..self.elf.symbols.len()).filter(|&number| {
            let symbol = &self.elf.symbols[number];
            let section = self.section_of(number).map(|section| &self.elf.sections[section]);
            !symbol.is_nameless() && section.is_some_and(|section| section.is_loaded() && !section.is_code())
        })
    }

    pub(crate) fn section_of(&self, symbol: usize) -> Option<usize> {
        match self.elf.symbols.get(symbol)?.home {
            Home::Section(section) => Some(section),
            _ => None,
        }
    }

    pub(crate) fn is_code(&self, symbol: usize) -> bool {
        self.section_of(symbol).is_some_and(|section| self.elf.sections[section].is_code())
    }

    /// A function's instructions.
    pub(crate) fn code(&self, symbol: usize) -> Option<Rc<Code>> {
        if let Some(known) = self.code.borrow().get(&symbol) {
            return known.clone();
        }
        let read = || {
            let (section, range) = self.extent(symbol)?;
            Code::read(&self.elf, section, range).map(Rc::new)
        };
        let read = read();
        self.code.borrow_mut().insert(symbol, read.clone());
        read
    }

    /// What a place may belong to, the likeliest first: what covers it, with all its names. Of data also what ends there, and what
    /// begins behind it, because an index may begin above 0.
    pub(crate) fn atoms_at(&self, section: usize, offset: i64) -> Vec<Atom> {
        let named = self.elf.named_in(section);
        let value = |number: &usize| self.elf.symbols[*number].value as i64;
        let size = |number: &usize| self.elf.symbols[*number].size as i64;
        let after = named.partition_point(|number| value(number) <= offset);
        let (mut covers, mut ends) = (Vec::new(), Vec::new());
        // Symbols do not overlap but for their names; a handful before the place is enough to see.
        for number in named[..after].iter().rev().take(64) {
            let delta = offset - value(number);
            if delta < size(number) || delta == 0 {
                covers.push((*number, delta));
            } else if delta == size(number) {
                ends.push((*number, delta));
            }
        }
        covers.sort_by_key(|&(number, delta)| (delta, std::cmp::Reverse(self.elf.symbols[number].size)));
        if self.elf.sections.get(section).is_none_or(Section::is_code) {
            return covers;
        }
        covers.extend(ends);
        if let Some(next) = named.get(after) {
            let all = named[after..].iter().take_while(|number| value(number) == value(next));
            let near = all.map(|number| (*number, offset - value(number)));
            covers.extend(near.filter(|(_, delta)| delta.unsigned_abs() <= BEFORE));
        }
        covers
    }

    /// The texts of a section of such, as the macros of kmend.h write them.
    pub(crate) fn texts(&self, section: &str) -> BTreeSet<String> {
        let Some(section) = self.elf.section_named(section) else { return BTreeSet::new() };
        let all = self.elf.contents(section).split(|&byte| byte == 0).filter(|text| !text.is_empty());
        all.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    /// What a reference may mean.
    pub(crate) fn atoms_of(&self, reference: &Reference) -> Vec<Atom> {
        let Target::Inside(section, offset) = reference.target else { return Vec::new() };
        // A relocation that names its symbol leaves no choice.
        if let Some(symbol) = reference.symbol
            && !self.elf.symbols[symbol].is_nameless()
            && let Some((_, value)) = self.elf.place(symbol)
        {
            return vec![(symbol, offset - value as i64)];
        }
        let mut atoms = self.atoms_at(section, offset);
        let covers =
            atoms.iter().any(|&(symbol, delta)| (0..self.elf.symbols[symbol].size as i64).contains(&delta));
        if reference.is_bound || !covers {
            atoms.extend(self.bounds_at(section, offset));
        }
        atoms
    }

    /// The arrays that a place may be the end of, with what a part of an element is behind it.
    fn bounds_at(&self, section: usize, offset: i64) -> Vec<Atom> {
        if self.elf.sections.get(section).is_none_or(Section::is_code) {
            return Vec::new();
        }
        let all = self.elf.named_in(section).iter().map(|&number| (number, &self.elf.symbols[number]));
        let behind = all.map(|(number, symbol)| (number, offset - symbol.value as i64, symbol.size as i64));
        let near = behind.filter(|&(_, delta, size)| delta > size && delta <= size.saturating_mul(2));
        near.map(|(number, delta, _)| (number, delta)).collect()
    }

    /// The references in a range of data.
    pub(crate) fn references(&self, section: usize, range: &Range<u64>) -> Vec<Reference> {
        let list = self.elf.sections[section].relocations_in(range).iter();
        let list = list.filter(|one| one.kind != R_NONE);
        list.filter_map(|one| {
            let at = one.offset - range.start;
            let plain = reference(&self.elf, one, at, 0, false)?;
            // A table of jumps has numbers that count from its own begin; others count from their own place.
            match plain.target {
                Target::Inside(section, offset)
                    if is_relative(one.kind) && self.is_inner_code(section, offset) =>
                {
                    reference(&self.elf, one, at, -(at as i64), false)
                }
                _ => Some(plain),
            }
        })
        .collect()
    }

    /// Whether a place is code, and no function's begin.
    fn is_inner_code(&self, section: usize, offset: i64) -> bool {
        let named = self.elf.named_in(section).iter();
        let mut begins = named.map(|&number| self.elf.symbols[number].value as i64);
        self.elf.sections.get(section).is_some_and(Section::is_code) && !begins.any(|at| at == offset)
    }

    /// The offsets of a section that anything refers to.
    pub(crate) fn referred(&self, section: usize) -> Rc<BTreeSet<u64>> {
        if let Some(known) = self.referred.borrow().get(&section) {
            return Rc::clone(known);
        }
        let mut all = BTreeSet::new();
        for relocation in self.elf.sections.iter().flat_map(|one| &one.relocations) {
            if let Some((other, value)) = self.elf.place(relocation.symbol)
                && other == section
            {
                let behind = if is_relative(relocation.kind) { 4 } else { 0 };
                all.extend(value.checked_add_signed(relocation.addend.wrapping_add(behind)));
            }
        }
        let all = Rc::new(all);
        self.referred.borrow_mut().insert(section, Rc::clone(&all));
        all
    }

    /// How far data without a name reaches that begins at an offset: to whatever else is named or referred to.
    pub(crate) fn nameless_end(&self, section: usize, offset: u64) -> u64 {
        let whole = self.elf.sections[section].size;
        let named = self.elf.named_in(section);
        let after = named.partition_point(|&other| self.elf.symbols[other].value <= offset);
        let named = named.get(after).map_or(whole, |&other| self.elf.symbols[other].value);
        let referred = self.referred(section);
        let next = referred.range(offset.saturating_add(1)..).next().copied();
        next.unwrap_or(whole).min(named).min(whole)
    }

    /// Whether a section's contents count and nothing else of it: strings and constants.
    pub(crate) fn is_merged(&self, section: usize) -> bool {
        self.elf.sections.get(section).is_some_and(Section::is_merged)
    }

    /// The text at a place, elements of the section's size up to a zero; or of constants one element.
    pub(crate) fn merged_at(&self, section: usize, offset: i64) -> Option<Vec<u8>> {
        let parsed = self.elf.sections.get(section)?;
        let tail = self.elf.contents(section).get(usize::try_from(offset).ok()?..)?;
        let entry = usize::try_from(parsed.entry.max(1)).ok()?;
        if !parsed.is_strings() {
            let whole = entry - offset as usize % entry;
            return tail.get(..whole).map(<[u8]>::to_vec);
        }
        let end = tail.chunks(entry).position(|element| element.iter().all(|&byte| byte == 0))?;
        tail.get(..(end + 1) * entry).map(<[u8]>::to_vec)
    }

    /// What a reference leads to, in words.
    pub(crate) fn shown(&self, reference: &Reference) -> String {
        match reference.target {
            Target::Outside(symbol, addend) => with_offset(self.name(symbol), addend),
            Target::Inside(section, offset) => {
                if self.is_merged(section)
                    && let Some(text) = self.merged_at(section, offset)
                {
                    return quoted(&text);
                }
                match self.atoms_of(reference).first() {
                    Some(&(symbol, delta)) => with_offset(self.name(symbol), delta),
                    None => with_offset(&self.elf.sections[section].name, offset),
                }
            }
        }
    }
}

pub(crate) fn with_offset(name: &str, offset: i64) -> String {
    match offset {
        0 => name.to_owned(),
        1.. => format!("{name}+{offset:#x}"),
        _ => format!("{name}-{:#x}", offset.unsigned_abs()),
    }
}

fn quoted(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes));
    let short: String = text.chars().take(SHOWN).collect();
    format!("{short:?}")
}

/// A name without the numbers that the compiler gave it: `count.12`, `f.isra.0.cold`, `__UNIQUE_ID_ddebug17.4`. Static locals of one
/// function, clones, and what a macro makes have one.
pub(crate) fn base_name(name: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = name.split('.');
    let first = parts.next().unwrap_or_default();
    let first = match first.strip_prefix("__UNIQUE_ID_") {
        Some(_) => first.trim_end_matches(|c: char| c.is_ascii_digit()),
        None => first,
    };
    let mut base = first.to_owned();
    for part in parts.filter(|part| !is_number(part)) {
        base.push('.');
        base.push_str(part);
    }
    base
}

/// The function whose seldom executed part this is.
pub(crate) fn cold_part_of(name: &str) -> Option<&str> {
    name.find(".cold").map(|at| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_compiler_are_no_part_of_a_name() {
        for (name, base) in [
            ("count.12", "count"),
            ("f.isra.0.cold", "f.isra.cold"),
            ("__UNIQUE_ID_ddebug17.4", "__UNIQUE_ID_ddebug"),
            ("sha256", "sha256"),
        ] {
            assert_eq!(base_name(name), base);
        }
        assert_eq!(cold_part_of("f.isra.0.cold"), Some("f.isra.0"));
        assert_eq!(cold_part_of("f"), None);
    }
}
