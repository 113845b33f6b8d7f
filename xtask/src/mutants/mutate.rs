//! Wrong modules made out of right ones: one thing is changed in each.

use super::Random;
use kmend_object::{Object, Place, Relocation, SectionId, SymbolId, elf};
use std::fmt;

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Addend,
    Target,
    Swapped,
    Position,
    Form,
    DroppedFunction,
    DroppedRelocation,
    DroppedEntry,
    OldCode,
    FlippedByte,
    Flags,
}

impl Kind {
    pub(crate) const ALL: [Kind; 11] = [
        Kind::Addend,
        Kind::Target,
        Kind::Swapped,
        Kind::Position,
        Kind::Form,
        Kind::DroppedFunction,
        Kind::DroppedRelocation,
        Kind::DroppedEntry,
        Kind::OldCode,
        Kind::FlippedByte,
        Kind::Flags,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Addend => "addend",
            Kind::Target => "target",
            Kind::Swapped => "symbols of one size swapped",
            Kind::Position => "position",
            Kind::Form => "kind of relocation",
            Kind::DroppedFunction => "function dropped",
            Kind::DroppedRelocation => "relocation dropped",
            Kind::DroppedEntry => "entry of a table dropped",
            Kind::OldCode => "old code kept",
            Kind::FlippedByte => "byte of code flipped",
            Kind::Flags => "flags of a section",
        })
    }
}

/// Where a relocation is in an object: its section, the list (0 is the ordinary one), and the number in it.
type At = (usize, usize, usize);

/// A changed module, and what was changed; `None` if the module has nothing of the kind.
pub(crate) fn mutate(
    module: &Object,
    originals: &[Object],
    kind: Kind,
    random: &mut Random,
) -> Option<(Object, String)> {
    let mut object = module.clone();
    let what = match kind {
        Kind::Addend => addend(&mut object, random),
        Kind::Target => target(&mut object, random),
        Kind::Swapped => swapped(&mut object, random),
        Kind::Position => position(&mut object, random),
        Kind::Form => relocation_kind(&mut object, random),
        Kind::DroppedFunction => dropped_function(&mut object, random),
        Kind::DroppedRelocation => dropped_relocation(&mut object, random),
        Kind::DroppedEntry => dropped_entry(&mut object, random),
        Kind::OldCode => old_code(&mut object, originals, random),
        Kind::FlippedByte => flipped_byte(&mut object, random),
        Kind::Flags => flags(&mut object, random),
    }?;
    Some((object, what))
}

fn lists(object: &Object) -> Vec<At> {
    let mut all = Vec::new();
    for (number, section) in object.sections.iter().enumerate().filter(|(_, section)| section.is_allocated())
    {
        all.extend((0..section.relocations.len()).map(|at| (number, 0, at)));
        for (list, late) in section.livepatch.iter().enumerate() {
            all.extend((0..late.relocations.len()).map(|at| (number, list + 1, at)));
        }
    }
    all
}

fn at(object: &mut Object, (section, list, number): At) -> &mut Relocation {
    let section = &mut object.sections[section];
    match list.checked_sub(1) {
        None => &mut section.relocations[number],
        Some(list) => &mut section.livepatch[list].relocations[number],
    }
}

fn shown(object: &mut Object, place: At) -> String {
    let name = object.sections[place.0].name.clone();
    let one = *at(object, place);
    let symbol = object.symbol(one.symbol);
    let of = symbol.section().filter(|_| symbol.name.is_empty()).map(|id| object.section(id).name.clone());
    format!(
        "{name}+{:#x} (kind {}, {}{:+#x})",
        one.offset,
        one.kind,
        of.unwrap_or_else(|| symbol.name.clone()),
        one.addend
    )
}

fn any(object: &Object, random: &mut Random) -> Option<At> {
    random.one_of(&lists(object)).copied()
}

fn addend(object: &mut Object, random: &mut Random) -> Option<String> {
    let place = any(object, random)?;
    let by = *random.one_of(&[1, -1, 4, -4, 8, 16, 64])?;
    let shown = shown(object, place);
    at(object, place).addend += by;
    Some(format!("{shown} by {by}"))
}

fn target(object: &mut Object, random: &mut Random) -> Option<String> {
    let place = any(object, random)?;
    let shown = shown(object, place);
    let now = at(object, place).symbol;
    let here = object.symbol(now).place;
    let alike = |id: &SymbolId| {
        let symbol = object.symbol(*id);
        *id != now
            && match (here, symbol.place) {
                (Place::Section(_), Place::Section(_)) => true,
                (one, other) => one == other && !symbol.name.is_empty(),
            }
    };
    let others: Vec<SymbolId> = object.symbol_ids().filter(alike).collect();
    let other = *random.one_of(&others)?;
    // Another name of the same place is no other target.
    let same = |a: SymbolId, b: SymbolId| {
        let (a, b) = (object.symbol(a), object.symbol(b));
        a.place == b.place && a.value == b.value && matches!(a.place, Place::Section(_))
    };
    if same(now, other) {
        return None;
    }
    let name = object.symbol(other).name.clone();
    at(object, place).symbol = other;
    Some(format!("{shown} to {name}"))
}

/// Exchanges two symbols of one kind and size in all that refers to them.
fn swapped(object: &mut Object, random: &mut Random) -> Option<String> {
    let used: Vec<SymbolId> = lists(object).into_iter().map(|place| at(object, place).symbol).collect();
    let one = *random.one_of(&used)?;
    let alike = |id: &SymbolId| {
        let (a, b) = (object.symbol(one), object.symbol(*id));
        let place = match (a.place, b.place) {
            (Place::Section(x), Place::Section(y)) => (x, a.value) != (y, b.value) && a.size > 0,
            (x, y) => x == y,
        };
        *id != one
            && place
            && a.size == b.size
            && a.kind == b.kind
            && !b.name.is_empty()
            && !a.name.is_empty()
    };
    let others: Vec<SymbolId> = used.iter().copied().filter(alike).collect();
    let other = *random.one_of(&others)?;
    let names = (object.symbol(one).name.clone(), object.symbol(other).name.clone());
    for place in lists(object) {
        let relocation = at(object, place);
        if relocation.symbol == one {
            relocation.symbol = other;
        } else if relocation.symbol == other {
            relocation.symbol = one;
        }
    }
    Some(format!("{} and {}", names.0, names.1))
}

/// Another position in the name of a livepatch symbol. That a name is the only one may be said as 0 and as 1.
fn position(object: &mut Object, random: &mut Random) -> Option<String> {
    let late: Vec<SymbolId> =
        object.symbol_ids().filter(|&id| object.symbol(id).place == Place::Livepatch).collect();
    let id = *random.one_of(&late)?;
    let name = object.symbol(id).name.clone();
    let (start, position) = name.rsplit_once(',')?;
    let position: u64 = position.parse().ok()?;
    let new = position + 1 + random.below(2) as u64 + u64::from(position == 0);
    object.symbols[id.index()].name = format!("{start},{new}");
    Some(format!("{name} to {new}"))
}

fn relocation_kind(object: &mut Object, random: &mut Random) -> Option<String> {
    let place = any(object, random)?;
    let shown = shown(object, place);
    let relocation = at(object, place);
    let kinds = [
        elf::R_X86_64_64,
        elf::R_X86_64_PC32,
        elf::R_X86_64_32,
        elf::R_X86_64_32S,
        elf::R_X86_64_PC64,
        elf::R_X86_64_NONE,
    ];
    let kind = *random.one_of(&kinds)?;
    let is_same = |a, b| {
        let four = [elf::R_X86_64_PC32, elf::R_X86_64_PLT32];
        a == b || four.contains(&a) && four.contains(&b)
    };
    if is_same(relocation.kind, kind) {
        return None;
    }
    relocation.kind = kind;
    Some(format!("{shown} to {kind}"))
}

/// The relocations of the functions' array: each function has one for its name and one for its replacement.
fn function_entries(object: &mut Object) -> Vec<(At, SymbolId)> {
    let all = lists(object);
    let data = all.into_iter().filter(|place| object.sections[place.0].name == ".data" && place.1 == 0);
    let mut found = Vec::new();
    for place in data.collect::<Vec<_>>() {
        let symbol = at(object, place).symbol;
        if object.symbol(symbol).is_function() {
            found.push((place, symbol));
        }
    }
    found
}

/// Takes an entry out of the patch table, by moving those behind it, and its function's code out of the module.
fn dropped_function(object: &mut Object, random: &mut Random) -> Option<String> {
    let entries = function_entries(object);
    let (place, symbol) = *random.one_of(&entries)?;
    drop_entry(object, place)?;
    let section = object.symbol(symbol).section()?;
    let name = object.symbol(symbol).name.clone();
    let section = &mut object.sections[section.index()];
    section.relocations.clear();
    section.livepatch.clear();
    section.data.fill(0xcc);
    Some(name)
}

/// An entry's relocations are at its begin and 8 bytes behind; the one behind it takes its place.
fn drop_entry(object: &mut Object, (section, _, number): At) -> Option<()> {
    let offset = object.sections[section].relocations[number].offset.checked_sub(8)?;
    let list = &mut object.sections[section].relocations;
    let before = list.len();
    list.retain(|one| one.offset != offset && one.offset != offset + 8);
    (list.len() + 2 == before).then_some(())
}

fn dropped_relocation(object: &mut Object, random: &mut Random) -> Option<String> {
    let place = any(object, random)?;
    let shown = shown(object, place);
    let section = &mut object.sections[place.0];
    match place.1.checked_sub(1) {
        None => section.relocations.remove(place.2),
        Some(list) => section.livepatch[list].relocations.remove(place.2),
    };
    Some(shown)
}

/// Takes an entry out of the patch table, or a whole one out of a table of places.
fn dropped_entry(object: &mut Object, random: &mut Random) -> Option<String> {
    const TABLES: [(&str, u64); 7] = [
        ("__jump_table", 16),
        ("__bug_table", 12),
        ("__ex_table", 12),
        (".smp_locks", 4),
        (".return_sites", 4),
        ("__mcount_loc", 8),
        (".static_call_sites", 8),
    ];
    let tables: Vec<(usize, u64)> = object
        .sections
        .iter()
        .enumerate()
        .filter(|(_, section)| !section.data.is_empty())
        .filter_map(|(number, section)| {
            TABLES.iter().find(|(name, _)| *name == section.name).map(|(_, size)| (number, *size))
        })
        .collect();
    if tables.is_empty() || random.below(3) == 0 {
        let entries = function_entries(object);
        let (place, symbol) = *random.one_of(&entries)?;
        drop_entry(object, place)?;
        return Some(format!("of the patch table, {}", object.symbol(symbol).name));
    }
    let (number, size) = *random.one_of(&tables)?;
    let section = &mut object.sections[number];
    let count = section.data.len() as u64 / size;
    let from = random.below(count as usize) as u64 * size;
    section.data.drain(from as usize..(from + size) as usize);
    section.size -= size;
    let shift = |list: &mut Vec<Relocation>| {
        list.retain(|one| !(from..from + size).contains(&one.offset));
        for one in list.iter_mut().filter(|one| one.offset >= from + size) {
            one.offset -= size;
        }
    };
    shift(&mut section.relocations);
    section.livepatch.iter_mut().for_each(|late| shift(&mut late.relocations));
    Some(format!("of {} at {from:#x}", section.name))
}

/// Puts the original's bytes in the place of a function's, where both are of one size.
fn old_code(object: &mut Object, originals: &[Object], random: &mut Random) -> Option<String> {
    let functions: Vec<SymbolId> =
        object.symbol_ids().filter(|&id| object.symbol(id).is_function()).collect();
    let id = *random.one_of(&functions)?;
    let symbol = object.symbol(id).clone();
    let section = symbol.section()?;
    let old = originals.iter().find_map(|original| {
        let old = original.symbols_named(&symbol.name).find(|&id| original.symbol(id).is_function())?;
        let old = original.symbol(old);
        (old.size == symbol.size)
            .then(|| original.section(old.section()?).bytes(old.value, old.size))
            .flatten()
    })?;
    let mut holes = vec![false; old.len()];
    let parsed = object.section(section);
    let all = parsed.relocations.iter().chain(parsed.livepatch.iter().flat_map(|list| &list.relocations));
    for one in all {
        let width = elf::width(one.kind).unwrap_or(0);
        for by in 0..width {
            if let Some(hole) =
                one.offset.checked_sub(symbol.value).and_then(|at| holes.get_mut((at + by) as usize))
            {
                *hole = true;
            }
        }
    }
    let mut changed = false;
    let data = &mut object.sections[section.index()].data;
    for (number, (&byte, is_hole)) in old.iter().zip(&holes).enumerate() {
        let at = symbol.value as usize + number;
        if !is_hole && data.get(at) != Some(&byte) {
            data[at] = byte;
            changed = true;
        }
    }
    changed.then(|| symbol.name.clone())
}

fn flipped_byte(object: &mut Object, random: &mut Random) -> Option<String> {
    let functions: Vec<SymbolId> = object
        .symbol_ids()
        .filter(|&id| object.symbol(id).is_function() && object.symbol(id).size > 0)
        .filter(|&id| object.symbol(id).section().is_some_and(|section| object.section(section).is_code()))
        .collect();
    let id = *random.one_of(&functions)?;
    let symbol = object.symbol(id).clone();
    let section = symbol.section()?;
    let at = symbol.value + random.below(symbol.size as usize) as u64;
    let parsed = &object.sections[section.index()];
    let mut all = parsed.relocations.iter().chain(parsed.livepatch.iter().flat_map(|list| &list.relocations));
    if all.any(|one| (one.offset..one.offset + elf::width(one.kind).unwrap_or(0)).contains(&at)) {
        return None;
    }
    let bit = random.below(8);
    object.sections[section.index()].data[at as usize] ^= 1 << bit;
    Some(format!("{}+{:#x}, bit {bit}", symbol.name, at - symbol.value))
}

fn flags(object: &mut Object, random: &mut Random) -> Option<String> {
    let sections: Vec<SectionId> = object
        .section_ids()
        .filter(|&id| {
            let section = object.section(id);
            let is_text = section.name.starts_with(".note") || section.name == ".modinfo";
            section.is_allocated() && section.size > 0 && !is_text
        })
        .collect();
    let id = *random.one_of(&sections)?;
    let flag = *random.one_of(&[elf::SHF_WRITE, elf::SHF_ALLOC, elf::SHF_EXECINSTR])?;
    let section = &mut object.sections[id.index()];
    section.flags ^= flag;
    let name = section.name.clone();
    // What is not loaded has no relocations of the livepatch loader.
    section.livepatch.retain(|_| flag != elf::SHF_ALLOC);
    Some(format!(
        "{name}: {}",
        match flag {
            elf::SHF_WRITE => "writable",
            elf::SHF_ALLOC => "loaded",
            _ => "executable",
        }
    ))
}
