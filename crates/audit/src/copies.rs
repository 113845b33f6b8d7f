//! What the module has of its own against what the patched object has: code instruction by instruction, data byte by byte.

use crate::code::{Code, Insn, Reference, Target};
use crate::finding::Fault;
use crate::lead::{Lead, Spot, Thing};
use crate::rewrite;
use crate::side::Side;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;

/// Both sides of a function, instruction by instruction.
pub(crate) struct Aligned {
    pub(crate) theirs: Rc<Code>,
    pub(crate) ours: Rc<Code>,
    /// For each of the patched object's instructions, and for the end, the number of the module's.
    pub(crate) map: Vec<usize>,
    /// Those that the build rewrote.
    pub(crate) rewritten: BTreeSet<usize>,
    /// Those that load a constant which the module reads from this variable.
    pub(crate) constants: HashMap<usize, (String, Reference)>,
}

impl Aligned {
    /// Where in the module's function a place of the patched object's is: the instruction's number, and the distance from it.
    pub(crate) fn place(&self, offset: i64) -> Option<(usize, u64)> {
        let (number, inside) = self.theirs.index_within(offset)?;
        Some((*self.map.get(number)?, inside))
    }
}

/// Where two sides of a function part.
pub(crate) struct Apart {
    pub(crate) theirs: Rc<Code>,
    pub(crate) ours: Rc<Code>,
    pub(crate) one: usize,
    pub(crate) other: usize,
}

impl Lead<'_> {
    /// Whether a section of the module is memory of the kind that the patched object's is. `size` is that of what has a name: a type's
    /// size is a multiple of its alignment (C11, 6.2.8), so that more is by chance.
    pub(crate) fn check_memory(&mut self, thing: Thing, spot: Spot, name: &str, size: Option<u64>) {
        let (theirs, ours) =
            (&self.units[thing.0].live.elf.sections[thing.1], &self.module.elf.sections[spot.0]);
        let kind = |section: &crate::elf::Section| {
            let words = [
                (section.is_loaded(), "loaded"),
                (section.is_code(), "executable"),
                (section.is_writable(), "writable"),
            ];
            words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
        };
        if kind(theirs) != kind(ours) {
            let (expected, found) = (kind(theirs), format!("{} in {}", kind(ours), ours.name));
            self.fault(Fault::Memory, name, 0, &expected, &found);
        }
        let has = alignment(ours, spot.1);
        let of_size = size.filter(|&size| size > 0).map_or(1, |size| 1 << size.trailing_zeros());
        let needed = alignment(theirs, thing.2).min(of_size).min(8);
        if needed > has {
            let (expected, found) = (format!("alignment {needed}"), has.to_string());
            self.fault(Fault::Memory, name, 0, &expected, &found);
        }
        if crate::living::is_start(&ours.name) && !crate::living::is_start(&theirs.name) {
            let found = format!("{}, which goes when the module has started", ours.name);
            self.fault(Fault::Freed, name, 0, &theirs.name.clone(), &found);
        }
    }

    pub(crate) fn compare_code(
        &mut self,
        thing: Thing,
        spot: Spot,
        range: Range<u64>,
        symbol: Option<usize>,
    ) {
        let unit = &self.units[thing.0];
        let name =
            symbol.map_or(unit.live.elf.sections[thing.1].name.as_str(), |symbol| unit.live.name(symbol));
        let size = symbol.map(|_| range.end - range.start);
        self.check_memory(thing, spot, name, size);
        let theirs = match symbol {
            Some(symbol) => unit.live.code(symbol),
            None => Code::read(&unit.live.elf, thing.1, range.clone()).map(Rc::new),
        };
        let own = |module: &Side| {
            // What the module says of the function's size; branches within it may be longer there.
            let symbols = module.elf.named_in(spot.0);
            let is_it = |&&number: &&usize| module.elf.symbols[number].value == spot.1;
            let symbol = symbols.iter().find(is_it).filter(|_| symbol.is_some());
            if let Some(&symbol) = symbol {
                return module.code(symbol);
            }
            let end = spot.1.checked_add(range.end - range.start)?;
            Code::read(&module.elf, spot.0, spot.1..end).map(Rc::new)
        };
        let (Some(theirs), Some(ours)) = (theirs, own(self.module)) else {
            self.fault(Fault::Code, name, 0, "its code", "no code");
            return;
        };
        self.covered.entry(spot.0).or_default().push(ours.range.clone());
        self.code.push(Rc::clone(&ours));
        let aligned = match self.align(thing.0, theirs, ours) {
            Ok(aligned) => aligned,
            Err(Apart { theirs, ours, one, other }) => {
                let shown = |code: &Code, side: &Side, number: usize| match code.insns.get(number) {
                    Some(insn) => crate::finding::hex(&side.elf, code, insn),
                    None => "the end".to_owned(),
                };
                let at = ours.insns.get(other).map_or(ours.range.end - ours.range.start, |insn| insn.at);
                let (expected, found) = (shown(&theirs, &unit.live, one), shown(&ours, self.module, other));
                self.fault(Fault::Code, name, at, &expected, &found);
                self.visit(spot.0, &ours.range);
                return;
            }
        };
        let (theirs, ours) = (&aligned.theirs, &aligned.ours);
        for (number, their) in theirs.insns.iter().enumerate() {
            let Some(our) = ours.insns.get(aligned.map[number]) else { continue };
            match &aligned.constants.get(&number) {
                Some((variable, reference)) => {
                    self.check_constant(thing.0, name, variable, reference, our, (spot.0, ours.range.start));
                }
                None if aligned.rewritten.contains(&number) => {}
                None => {
                    for (its, mine) in their.references.iter().zip(&our.references) {
                        self.reference(thing.0, name, &aligned, (its, mine), our.at, its.is_written);
                    }
                }
            }
        }
        self.visit_code(spot.0, ours);
        if symbol.is_some() {
            self.compare_entries(thing.0, name, &aligned);
            self.check_room(thing, spot, name);
        }
    }

    /// Goes through both sides' instructions, of which each must be like the other's or rightly another.
    pub(crate) fn align(&self, unit: usize, theirs: Rc<Code>, ours: Rc<Code>) -> Result<Aligned, Apart> {
        let jumps = rewrite::jump_sites(&self.patched_entries[unit], &theirs);
        let sites = rewrite::constant_sites(&self.patched_entries[unit], &theirs);
        let (mut map, mut rewritten, mut constants) = (Vec::new(), BTreeSet::new(), HashMap::new());
        let mut other = 0;
        for (one, their) in theirs.insns.iter().enumerate() {
            map.push(other);
            let Some(our) = ours.insns.get(other) else {
                return Err(Apart { theirs: Rc::clone(&theirs), ours, one, other });
            };
            if let Some(variable) = sites.get(&their.at)
                && let Some(read) = rewrite::constant(their, &ours.insns[other..])
            {
                constants.insert(one, (variable.clone(), read.reference));
                other += read.insns;
                continue;
            }
            let is_nop = jumps.contains(&their.at) && rewrite::is_nop_of_jump(their, our);
            if is_nop || rewrite::is_fentry_nop(&self.units[unit].live, their, our) {
                rewritten.insert(one);
            } else if !their.is_alike(our) || their.references.len() != our.references.len() {
                return Err(Apart { theirs: Rc::clone(&theirs), ours, one, other });
            }
            other += 1;
        }
        map.push(other);
        if other != ours.insns.len() {
            let one = theirs.insns.len();
            return Err(Apart { theirs, ours, one, other });
        }
        Ok(Aligned { theirs, ours, map, rewritten, constants })
    }

    /// The bytes before a function that the compiler left for the tracer (`-fpatchable-function-entry=16,16`).
    pub(crate) fn check_room(&mut self, thing: Thing, spot: Spot, name: &str) {
        let room = |contents: &[u8], at: u64| {
            let before = contents.get(..at as usize).unwrap_or_default();
            before.iter().rev().take(16).take_while(|&&byte| byte == 0x90).count()
        };
        let (theirs, ours) = (
            room(self.units[thing.0].live.elf.contents(thing.1), thing.2),
            room(self.module.elf.contents(spot.0), spot.1),
        );
        // Shorter room is what stands between functions for their alignment.
        if theirs == 16 && ours < 16 {
            self.fault(Fault::Code, name, 0, "16 bytes of room before it", &format!("{ours}"));
        }
        if ours == 16 {
            self.covered.entry(spot.0).or_default().push(spot.1 - 16..spot.1);
        }
    }

    pub(crate) fn visit(&mut self, section: usize, range: &Range<u64>) {
        let list = self.module.elf.sections[section].relocations_in(range);
        self.visited.extend(list.iter().map(|one| (section, one.offset)));
    }

    pub(crate) fn visit_code(&mut self, section: usize, code: &Code) {
        let begins = code.insns.iter().flat_map(|insn| {
            let places = insn.references.iter().map(|one| one.at);
            let from = code.range.start + insn.at;
            // A branch's place is its displacement, wherever that stands.
            match insn.branch {
                Some(_) => (from..from + insn.length).collect::<Vec<_>>(),
                None => places.map(|at| from + at).collect(),
            }
        });
        self.visited.extend(begins.map(|at| (section, at)));
    }

    pub(crate) fn check_constant(
        &mut self,
        unit: usize,
        name: &str,
        variable: &str,
        reference: &Reference,
        insn: &Insn,
        (section, start): Spot,
    ) {
        let at = start + insn.at + reference.at;
        self.visited.insert((section, at));
        let expected = self.expected_outside(unit, variable);
        match (self.place_of(reference), expected) {
            (Ok(found), Some(expected)) if found == expected => {}
            (Ok(found), expected) => {
                let expected = expected.map_or_else(|| variable.to_owned(), |one| self.kernel.names_at(&one));
                let found = self.kernel.names_at(&found);
                self.fault(Fault::Reference, name, insn.at, &expected, &found);
            }
            (Err(why), _) => self.fault(Fault::Reference, name, insn.at, variable, &why),
        }
    }

    pub(crate) fn compare_data(
        &mut self,
        thing: Thing,
        spot: Spot,
        range: &Range<u64>,
        symbol: Option<usize>,
    ) {
        let side = &self.units[thing.0].live;
        let name = symbol.map_or(side.elf.sections[thing.1].name.as_str(), |symbol| side.name(symbol));
        let size = symbol.map(|_| range.end - range.start);
        self.check_memory(thing, spot, name, size);
        let whole = self.module.elf.sections[spot.0].size;
        let mut length = range.end - range.start;
        if symbol.is_none() {
            // How far it reaches is a guess on this side; what is beyond the module's section must be room.
            length = length.min(whole.saturating_sub(spot.1));
        }
        let own = spot.1..spot.1.saturating_add(length);
        let (Some(mut mine), Some(mut its)) = (
            self.module.elf.bytes(spot.0, &own),
            side.elf.bytes(thing.1, &(range.start..range.start + length)),
        ) else {
            self.fault(Fault::Data, name, 0, &format!("{length} bytes"), "fewer");
            return;
        };
        self.covered.entry(spot.0).or_default().push(own.clone());
        let lists = (side.references(thing.1, range), self.module.references(spot.0, &own));
        self.visit(spot.0, &own);
        let mut right: BTreeMap<u64, &Reference> = lists.1.iter().map(|one| (one.at, one)).collect();
        for reference in &lists.0 {
            self.references += 1;
            let found = right.remove(&reference.at).filter(|found| found.form == reference.form);
            let Some(found) = found else {
                let expected = side.shown(reference);
                self.fault(Fault::Reference, name, reference.at, &expected, "no reference of its kind");
                continue;
            };
            self.lead(thing.0, name, (reference, found), reference.at, false);
            for bytes in [&mut mine, &mut its] {
                let at = reference.at as usize;
                if let Some(hole) = bytes.get_mut(at..at + reference.form.width() as usize) {
                    hole.fill(0);
                }
            }
        }
        if let Some((at, reference)) = right.pop_first() {
            let found = self.module.shown(reference);
            self.fault(Fault::Reference, name, at, "no reference", &found);
        }
        if let Some(at) = mine.iter().zip(&its).position(|(one, other)| one != other) {
            let byte = |bytes: &[u8]| format!("{:#04x}", bytes.get(at).copied().unwrap_or_default());
            self.fault(Fault::Data, name, at as u64, &byte(&its), &byte(&mine));
        }
    }

    /// A place within a function that is compared: that of the same instruction.
    pub(crate) fn leads_into_known_code(&mut self, unit: usize, its: &Reference, mine: &Reference) -> bool {
        let (Target::Inside(theirs, at), Target::Inside(section, offset)) = (its.target, mine.target) else {
            return false;
        };
        let side = &self.units[unit].live;
        if !side.elf.sections[theirs].is_code() {
            return false;
        }
        let covering = |side: &Side, section: usize, offset: i64| {
            let covers = |&(symbol, delta): &(usize, i64)| {
                side.extent(symbol)
                    .is_some_and(|(_, range)| delta >= 0 && (delta as u64) < range.end - range.start)
            };
            side.atoms_at(section, offset).into_iter().find(covers)
        };
        let (Some((one, delta)), Some((other, moved))) =
            (covering(side, theirs, at), covering(self.module, section, offset))
        else {
            return false;
        };
        if delta == 0 || moved == 0 {
            return false;
        }
        let (Some(code), Some(own)) = (side.code(one), self.module.code(other)) else { return false };
        let start = own.range.start;
        let same = self.align(unit, code, own).is_ok_and(|aligned| {
            aligned.place(at).is_some() && aligned.place(at) == aligned.ours.index_within(offset)
        });
        same && self.expect(unit, one, (section, start)).is_ok()
    }
}

/// The alignment of a place in a section.
fn alignment(section: &crate::elf::Section, offset: u64) -> u64 {
    let of_place = if offset == 0 { u64::MAX } else { 1 << offset.trailing_zeros() };
    of_place.min(section.align.max(1))
}
