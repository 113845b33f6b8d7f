//! The words of the running kernel's data that a livepatch exchanges.
//!
//! Each says where, how wide, what must be there and what is put there (`struct kmend_word` in the patch table's own code). What
//! must be there is the original's, what is put there the patched object's, at the same place of the same datum.

use crate::code::{Reference, Target, reference};
use crate::elf::R_64;
use crate::finding::{Fault, Finding};
use crate::lead::{Lead, Spot};
use crate::living::{Kernel, Living, Module};
use crate::side::Side;
use std::collections::BTreeSet;

/// The symbol of such a table.
const TABLE: &str = "kmend_update_table";
/// Bytes of `struct kmend_word`, and where its fields are.
const WORD: u64 = 40;
const WIDTH: u64 = 8;
const FLAGS: u64 = 12;
const OLD: u64 = 16;
const NEW: u64 = 24;
const FOUND: u64 = 32;
/// The flag of a pointer to a text: the old value is such a text, and the living pointer leads to one.
const TEXT: u8 = 2;
/// Where the kernel has a module's own description.
const THIS_MODULE: &str = ".gnu.linkonce.this_module";

/// Checks the words, and returns the bytes of the running kernel's data that they exchange.
pub(crate) fn check(lead: &mut Lead<'_>) -> BTreeSet<Living> {
    let mut exchanged = BTreeSet::new();
    let module = lead.module;
    for symbol in module.data().filter(|&symbol| module.name(symbol) == TABLE).collect::<Vec<_>>() {
        let Some((section, range)) = module.extent(symbol) else { continue };
        for at in range.step_by(WORD as usize) {
            lead.visited.extend([0, OLD, NEW].map(|field| (section, at + field)));
            match Word::read(lead, (section, at)) {
                Ok(word) => exchanged.extend(word.check(lead)),
                Err(why) => lead.findings.push(Finding::new(Fault::Reference, TABLE, at, "a word", &why)),
            }
        }
    }
    exchanged
}

/// What a word holds.
enum Value {
    Number(u64),
    Reference(Reference),
}

struct Word {
    at: u64,
    place: Living,
    width: u64,
    is_text: bool,
    old: Value,
    new: Value,
}

impl Word {
    fn read(lead: &Lead<'_>, (section, at): Spot) -> Result<Word, String> {
        let module = lead.module;
        let bytes = module.elf.bytes(section, &(at..at + WORD)).ok_or("it is cut off")?;
        let value = |field: u64| {
            if let Some(reference) = pointer(module, (section, at + field)) {
                return is_address(module, (section, at + field)).then_some(Value::Reference(reference));
            }
            let held = bytes.get(field as usize..field as usize + 8)?.try_into().ok()?;
            Some(Value::Number(u64::from_le_bytes(held)))
        };
        let Some(Value::Reference(place)) = value(0) else { return Err("its place is no reference".into()) };
        let width =
            bytes.get(WIDTH as usize).copied().map(u64::from).filter(|width| [1, 2, 4, 8].contains(width));
        if !matches!(value(FOUND), Some(Value::Number(0))) {
            return Err("there is no room for what is found".into());
        }
        Ok(Word {
            at,
            is_text: bytes.get(FLAGS as usize).is_some_and(|flags| flags & TEXT != 0),
            place: lead.place_of(&place)?,
            width: width.ok_or("its width is none")?,
            old: value(OLD).ok_or("it is cut off")?,
            new: value(NEW).ok_or("it is cut off")?,
        })
    }

    /// Holds the word against the objects; the bytes that it exchanges.
    fn check(&self, lead: &mut Lead<'_>) -> Vec<Living> {
        let shown = lead.kernel.names_at(&self.place);
        let fault = |lead: &mut Lead<'_>, fault, expected: &str, found: &str| {
            lead.findings.push(Finding::new(fault, &shown, self.at, expected, found));
        };
        if lead.kernel.is_freed(&self.place) {
            fault(lead, Fault::Freed, "living data", "freed memory");
        }
        let bytes = (0..self.width).map(|by| self.place.moved(by as i64)).collect();
        if let Some(exit) = exit_pointer(lead.kernel, &self.place) {
            self.check_exit(lead, &exit);
            return bytes;
        }
        let found = lead.units.iter().enumerate().find_map(|(number, unit)| {
            let (section, offset) = unit.ground.section_at(&unit.original.elf, &self.place)?;
            Some((number, section, offset))
        });
        let Some((number, section, offset)) = found else {
            fault(lead, Fault::Reference, "data of a patched unit", "other data");
            return Vec::new();
        };
        let unit = &lead.units[number];
        let pair = unit.original.atoms_at(section, offset as i64).into_iter().find_map(|(symbol, delta)| {
            let patched = unit.pairs.patched(unit.original.name(symbol))?;
            let (section, value) = unit.live.elf.place(unit.live.elf.only(patched)?)?;
            Some((section, value.checked_add_signed(delta)?))
        });
        let Some((theirs, at)) = pair else {
            fault(lead, Fault::Reference, "data that the patched source has, too", "other data");
            return Vec::new();
        };
        let old = held(&unit.original, section, offset, self.width);
        let right = match (&self.old, &old) {
            (Value::Number(number), Some(Value::Number(held))) => number == held,
            (Value::Reference(mine), Some(Value::Reference(its))) if self.is_text => {
                is_same_text((&unit.original, its), (lead.module, mine))
            }
            (Value::Reference(mine), Some(Value::Reference(its))) => {
                let expected = match its.target {
                    Target::Outside(symbol, added) => {
                        let place = unit.outside(unit.original.name(symbol), lead.kernel);
                        place.map(|place| place.moved(added))
                    }
                    Target::Inside(section, offset) => unit.ground.at(section, offset),
                };
                expected.is_some() && lead.place_of(mine).ok() == expected
            }
            _ => false,
        };
        if !right {
            fault(lead, Fault::Reference, "the original's value as the one to exchange", "another one");
        }
        match (&self.new, held(&unit.live, theirs, at, self.width)) {
            (Value::Number(number), Some(Value::Number(held))) if *number == held => {}
            (Value::Reference(mine), Some(Value::Reference(its))) => {
                lead.lead(number, &shown, (&its, mine), self.at, false);
            }
            _ => fault(lead, Fault::Reference, "the patched source's value as the new one", "another one"),
        }
        bytes
    }

    /// The pointer to a module's function for the unload leads from the original to the module's copy of it.
    fn check_exit(&self, lead: &mut Lead<'_>, owner: &str) {
        let right = match (&self.old, &self.new) {
            (Value::Reference(old), Value::Reference(new)) => {
                let old = lead.place_of(old).ok();
                let target = match new.target {
                    Target::Inside(section, offset) => {
                        u64::try_from(offset).ok().map(|offset| (section, offset))
                    }
                    Target::Outside(..) => None,
                };
                let units = lead.units;
                let exit = units.iter().enumerate().filter(|(_, unit)| unit.owner == owner).find_map(
                    |(number, unit)| {
                        let symbol = unit.live.elf.only("cleanup_module")?;
                        let living = unit.living("cleanup_module", lead.kernel)?;
                        (Some(living) == old).then_some((number, symbol))
                    },
                );
                match (exit, target) {
                    (Some((number, symbol)), Some(spot)) => lead.expect(number, symbol, spot).is_ok(),
                    _ => false,
                }
            }
            _ => false,
        };
        if !right {
            let shown = lead.kernel.names_at(&self.place);
            let text = "the module's function for the unload, before and after";
            lead.findings.push(Finding::new(Fault::Reference, &shown, self.at, text, "something else"));
        }
    }
}

/// Whether the module has a copy of the text that a reference of an object leads to.
fn is_same_text((side, its): (&Side, &Reference), (module, mine): (&Side, &Reference)) -> bool {
    let (Target::Inside(section, offset), Target::Inside(own, place)) = (its.target, mine.target) else {
        return false;
    };
    let text = side.merged_at(section, offset).filter(|_| side.elf.sections[section].is_strings());
    let (Some(text), Ok(start)) = (text, u64::try_from(place)) else { return false };
    let end = start.checked_add(text.len() as u64);
    end.and_then(|end| module.elf.bytes(own, &(start..end))) == Some(text)
}

/// What an object's data holds at a place.
fn held(side: &Side, section: usize, offset: u64, width: u64) -> Option<Value> {
    if let Some(reference) = pointer(side, (section, offset)) {
        return (reference.form.width() == width).then_some(Value::Reference(reference));
    }
    let range = offset..offset.checked_add(width)?;
    side.elf.sections.get(section)?.relocations_in(&range).is_empty().then_some(())?;
    let mut wide = [0_u8; 8];
    for (to, from) in wide.iter_mut().zip(side.elf.bytes(section, &range)?) {
        *to = from;
    }
    Some(Value::Number(u64::from_le_bytes(wide)))
}

fn pointer(side: &Side, (section, at): Spot) -> Option<Reference> {
    match side.elf.sections.get(section)?.relocations_in(&(at..at + 1)) {
        [relocation] => reference(&side.elf, relocation, 0, 0, false),
        _ => None,
    }
}

/// Whether what is written at a place is an address.
fn is_address(side: &Side, (section, at): Spot) -> bool {
    let list = side.elf.sections.get(section).map(|section| section.relocations_in(&(at..at + 1)));
    list.is_some_and(|list| list.iter().all(|one| one.kind == R_64))
}

/// The module, if a place is the pointer to its function for the unload.
fn exit_pointer(kernel: &Kernel<'_>, place: &Living) -> Option<String> {
    let module = kernel.module(&place.object).ok()?;
    let (section, offset) = Module::split(place.address);
    let exit = kernel.image.btf()?.structure("module")?.member("exit")?;
    let is_it = module.elf.sections.get(section)?.name == THIS_MODULE && offset == u64::from(exit);
    is_it.then(|| place.object.to_string())
}
