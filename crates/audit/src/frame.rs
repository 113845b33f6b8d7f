//! Where the comparison begins, and what must be left when it ends: nothing.

use crate::code::{Reference, Target, reference};
use crate::elf::R_NONE;
use crate::finding::Fault;
use crate::lead::{Lead, Spot};
use crate::living::{Living, VMLINUX};
use crate::patch_table::{self, Entry, Meant};
use crate::side::Side;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The module's own description.
const THIS_MODULE: &str = ".gnu.linkonce.this_module";
/// The CRCs of what it uses (scripts/mod/modpost.c): a number, and the name.
const VERSIONS: &str = "__versions";
const VERSION: usize = 64;
/// The callbacks that a patch's author names (kmend.h).
const CALLBACKS: &str = ".kmend.callbacks.";
/// Places that the livepatch clears when a module goes.
const PLACES: &str = ".rodata.kmend_places_";
/// The source file of the patch table.
const TABLE_FILE: &str = "kmend-table.c";
/// What stands between functions.
const ROOM: [u8; 3] = [0x90, 0xcc, 0x00];

/// Begins with what the patch table names, with the table itself, and with the callbacks.
pub(crate) fn roots(lead: &mut Lead<'_>, has_table: bool) {
    let table = patch_table::read(lead.module, lead.kernel.image.btf());
    lead.visited.extend(&table.visited);
    lead.replacements.extend(&table.replacements);
    lead.findings.extend(table.findings);
    let mut seen = BTreeSet::new();
    for entry in &table.entries {
        root(lead, entry, &mut seen);
    }
    callbacks(lead);
    if has_table {
        own_table(lead);
    }
}

/// One entry: what its name leads to must be where the original of a function is, and what it puts there that function.
fn root(lead: &mut Lead<'_>, entry: &Entry, seen: &mut BTreeSet<Living>) {
    let place = match &entry.meant {
        Meant::Position(position) => lead.kernel.resolve(&entry.object, &entry.name, *position),
        Meant::Reference(reference) => living(lead, entry, reference),
    };
    let place = match place {
        Ok(place) => place,
        Err(why) => return lead.found(Fault::Entry, &entry.name, 0, "a function of the kernel", &why),
    };
    if matches!(entry.meant, Meant::Reference(_)) {
        lead.living.insert(place.clone());
    }
    if lead.kernel.is_freed(&place) {
        lead.found(Fault::Freed, &entry.name, 0, "living code", "freed memory");
    }
    if !seen.insert(place.clone()) {
        return lead.found(Fault::Entry, &entry.name, 0, "each function once", "a second entry");
    }
    let units = lead.units;
    let found = units.iter().enumerate().find_map(|(number, unit)| {
        let (section, offset) = unit.ground.section_at(&unit.original.elf, &place)?;
        let named = unit.original.elf.named_in(section).iter();
        let here = named.filter(|&&symbol| {
            let parsed = &unit.original.elf.symbols[symbol];
            parsed.value == offset && parsed.is_function()
        });
        // Of several names of one function that by which the table knows it.
        let all: Vec<usize> = here.copied().collect();
        let by_name = all.iter().find(|&&symbol| unit.original.name(symbol) == entry.name);
        by_name.or(all.first()).map(|&symbol| (number, symbol))
    });
    let Some((number, original)) = found else {
        let lost: Vec<String> = units
            .iter()
            .filter_map(|unit| {
                let section = unit.original.section_of(unit.original.elf.only(&entry.name)?)?;
                let name = &unit.original.elf.sections[section].name;
                let why = unit.ground.lost(name)?;
                Some(format!("{name} of {} fits {why}", unit.source))
            })
            .collect();
        let (fault, expected, found) = match lost.into_iter().next() {
            Some(why) => (Fault::Lost, "the original in the kernel", why),
            None => (Fault::Entry, "a function of a patched unit", lead.kernel.names_at(&place)),
        };
        return lead.found(fault, &entry.name, 0, expected, &found);
    };
    let unit = &units[number];
    let name = unit.original.name(original);
    let here = unit.pairs.patched(name).map(|patched| (number, patched.to_owned()));
    // It may have moved to another unit of the patch.
    let moved = lead.moved.get(name).filter(|(_, old)| *old == place);
    let now = here.or_else(|| moved.map(|&(now, _)| (now, name.to_owned())));
    let (number, patched) = now.map_or((number, None), |(now, patched)| (now, Some(patched)));
    let unit = &units[number];
    let symbol = patched.as_deref().and_then(|name| unit.live.elf.only(name));
    let (Some(patched), Some(symbol)) = (patched, symbol) else {
        return lead.found(Fault::Entry, &entry.name, 0, "a function that the patched source has", "none");
    };
    for name in names_of(&unit.live, symbol) {
        lead.replaced.insert((number, name));
    }
    lead.replaced.insert((number, patched));
    if let Err(why) = lead.expect(number, symbol, entry.replacement) {
        lead.found(Fault::Entry, &entry.name, 0, "its new code", &why);
    }
}

/// The function that an entry for the consistency engine points to: one of the object's, applied with it, and known to it by the
/// entry's name.
fn living(lead: &Lead<'_>, entry: &Entry, reference: &Reference) -> Result<Living, String> {
    let place = lead.place_of(reference)?;
    let is_applied = reference.late.as_deref() == Some(&entry.object);
    if is_applied
        && *place.object == *entry.object
        && lead.kernel.named(&entry.object, &entry.name).contains(&place)
    {
        Ok(place)
    } else {
        Err(lead.kernel.names_at(&place))
    }
}

/// All names of a symbol's place.
fn names_of(side: &Side, symbol: usize) -> Vec<String> {
    let Some((section, value)) = side.elf.place(symbol) else { return Vec::new() };
    let named = side.elf.named_in(section).iter().filter(|&&other| side.elf.symbols[other].value == value);
    named.map(|&other| side.name(other).to_owned()).collect()
}

/// The callbacks of the patch's author.
fn callbacks(lead: &mut Lead<'_>) {
    let units = lead.units;
    for (number, unit) in units.iter().enumerate() {
        let side = &unit.live;
        let asked = side.elf.sections.iter().filter(|section| section.name.starts_with(CALLBACKS));
        let wanted = asked.flat_map(|section| &section.relocations).filter_map(|relocation| {
            let one = reference(&side.elf, relocation, 0, 0, false)?;
            let (symbol, delta) = *side.atoms_of(&one).first()?;
            (delta == 0).then_some(symbol)
        });
        for symbol in wanted.collect::<Vec<_>>() {
            let name = side.name(symbol).to_owned();
            // A unit of several modules has one for each.
            let module = lead.module;
            let mut places = module.elf.named(&name).iter().filter_map(|&own| module.elf.place(own));
            let is_there = places
                .any(|spot| !lead.things.contains_key(&spot) && lead.expect(number, symbol, spot).is_ok());
            if !is_there {
                lead.found(Fault::Missing, &name, 0, "the callback", "no function of this name");
            }
        }
    }
}

/// What the patched source adds to tables that the kernel reads of each module when that is loaded, and nothing else refers to, such
/// as `___srcu_struct_ptrs`: of the same name, and held against the same.
pub(crate) fn read_of_modules(lead: &mut Lead<'_>) {
    let (module, units) = (lead.module, lead.units);
    for own in module.data() {
        let name = module.name(own);
        let Some(spot) = module.elf.place(own).filter(|spot| !lead.things.contains_key(spot)) else {
            continue;
        };
        let refers = |side: &Side, symbol: usize| {
            side.extent(symbol).is_some_and(|(section, range)| !side.references(section, &range).is_empty())
        };
        let new = units.iter().enumerate().filter(|(_, unit)| !unit.is_table).find_map(|(number, unit)| {
            let symbol = unit.live.elf.only(name).filter(|_| unit.pairs.original(name).is_none())?;
            let theirs = &unit.live.elf.sections[unit.live.section_of(symbol)?].name;
            let is_it = *theirs == module.elf.sections[spot.0].name && refers(&unit.live, symbol);
            is_it.then_some((number, symbol))
        });
        if let Some((number, symbol)) = new {
            // What does not fit stays unexplained.
            let _ = lead.expect(number, symbol, spot);
        }
    }
}

/// What the object of the patch table defines is in the module under the same names.
fn own_table(lead: &mut Lead<'_>) {
    let units = lead.units;
    let Some(number) = units.iter().position(|unit| unit.is_table) else { return };
    let side = &units[number].live;
    let of_table = of_table(lead.module);
    let symbols: BTreeSet<usize> = side.functions().chain(side.data()).collect();
    for symbol in symbols {
        let section = side.section_of(symbol).unwrap_or(0);
        if side.elf.sections[section].name == ".modinfo" {
            continue;
        }
        let name = side.name(symbol).to_owned();
        // Of several of the name that of the table's own source.
        let mut own = lead
            .module
            .elf
            .named(&name)
            .iter()
            .filter(|&&own| lead.module.elf.symbols[own].is_global() || of_table.contains(&own));
        let spot = own.next().and_then(|&own| lead.module.elf.place(own));
        let result = match spot {
            Some(spot) => lead.expect(number, symbol, spot),
            None => Err("nothing of this name".to_owned()),
        };
        if let Err(why) = result {
            lead.found(Fault::Unexplained, &name, 0, "a part of the patch table", &why);
        }
    }
}

/// What must hold in the end.
pub(crate) fn close(lead: &mut Lead<'_>, has_table: bool) {
    aliases(lead);
    places(lead);
    description(lead);
    versions(lead);
    let table_sections = if has_table { BTreeSet::new() } else { table_sections(lead) };
    let entries: Vec<(String, u64, usize)> = lead
        .leftover_entries()
        .map(|entry| (entry.table.to_string(), entry.range.start, entry.code))
        .collect();
    for (table, at, code) in entries {
        if !table_sections.contains(&code) && !crate::rewrite::is_made_anew(&table) {
            lead.found(Fault::Table, &table, at, "an entry of a function", "one of none");
        }
    }
    for (section, offset) in lead.unexplained() {
        if table_sections.contains(&section) {
            continue;
        }
        let name = lead.module.elf.sections[section].name.clone();
        lead.found(Fault::Unexplained, &name, offset, "no relocation", "one that nothing accounts for");
    }
    code(lead, &table_sections);
}

/// Sections in which nothing but the patch table's own things are.
fn table_sections(lead: &Lead<'_>) -> BTreeSet<usize> {
    let of_table = of_table(lead.module);
    let (mut own, mut others) = (BTreeSet::new(), BTreeSet::new());
    for (number, symbol) in lead.module.elf.symbols.iter().enumerate() {
        if symbol.is_nameless() || symbol.is_global() {
            continue;
        }
        if let Some(section) = lead.module.section_of(number) {
            if of_table.contains(&number) {
                own.insert(section)
            } else {
                others.insert(section)
            };
        }
    }
    &own - &others
}

/// The local symbols of the patch table's source: those that follow its name in the symbol table.
fn of_table(module: &Side) -> BTreeSet<usize> {
    let mut own = BTreeSet::new();
    let mut is_table = false;
    for (number, symbol) in module.elf.symbols.iter().enumerate() {
        if symbol.is_file() {
            is_table = symbol.name == TABLE_FILE;
        } else if is_table && !symbol.is_global() {
            own.insert(number);
        }
    }
    own
}

/// What the table's code calls and refers to without knowing it: functions that are replaced, callbacks, tables of words.
fn aliases(lead: &mut Lead<'_>) {
    let module = lead.module;
    let this_module = module.elf.section_named(THIS_MODULE).map(|section| (section, 0));
    let words: BTreeSet<Spot> = module
        .data()
        .filter(|&symbol| module.name(symbol) == "kmend_update_table")
        .filter_map(|symbol| module.elf.place(symbol))
        .collect();
    for (name, spot) in lead.aliases.clone() {
        let is_right = if name == "__this_module" {
            Some(spot) == this_module
        } else if name.starts_with("kmend_new_") {
            lead.function_at(spot).is_some_and(|function| lead.replaced.contains(&function))
        } else if name.starts_with("kmend_callback_") {
            lead.function_at(spot).is_some_and(|(number, function)| is_callback(lead, number, &function))
        } else if name.starts_with("kmend_words_") {
            words.contains(&spot)
        } else if name.starts_with("kmend_places_") {
            spot.1 == 0 && module.elf.sections[spot.0].name.starts_with(PLACES)
        } else {
            false
        };
        if !is_right {
            let found = format!("{}+{:#x}", module.elf.sections[spot.0].name, spot.1);
            lead.found(Fault::Reference, "the patch table", 0, &format!("what {name} stands for"), &found);
        }
    }
}

fn is_callback(lead: &Lead<'_>, number: usize, function: &str) -> bool {
    let side = &lead.units[number].live;
    let asked = side.elf.sections.iter().filter(|section| section.name.starts_with(CALLBACKS));
    asked.flat_map(|section| &section.relocations).any(|relocation| {
        let one = reference(&side.elf, relocation, 0, 0, false);
        let atom = one.and_then(|one| side.atoms_of(&one).first().copied());
        atom.is_some_and(|(symbol, delta)| delta == 0 && side.name(symbol) == function)
    })
}

/// The places that the livepatch clears are those that the livepatch loader writes with a module, all and no others.
fn places(lead: &mut Lead<'_>) {
    let module = lead.module;
    let sections = module.elf.sections.iter().enumerate();
    let tables: Vec<usize> =
        sections.filter(|(_, one)| one.name.starts_with(PLACES)).map(|(number, _)| number).collect();
    if tables.is_empty() {
        return;
    }
    let mut listed: BTreeMap<Spot, u64> = BTreeMap::new();
    for &table in &tables {
        let parsed = &module.elf.sections[table];
        for relocation in parsed.relocations.iter().filter(|one| one.kind != R_NONE) {
            lead.visited.insert((table, relocation.offset));
            let place = reference(&module.elf, relocation, 0, 0, false).and_then(|one| match one.target {
                Target::Inside(section, offset) => Some((section, u64::try_from(offset).ok()?)),
                Target::Outside(..) => None,
            });
            let at = relocation.offset;
            let size = module.elf.bytes(table, &(at + 8..at + 16)).and_then(|bytes| bytes.try_into().ok());
            if let (Some(place), Some(size)) = (place, size) {
                listed.insert(place, u64::from_le_bytes(size));
            }
        }
        let ends = module.elf.bytes(table, &(parsed.size.saturating_sub(16)..parsed.size));
        if ends.is_none_or(|bytes| bytes.iter().any(|&byte| byte != 0))
            || parsed.relocations.len() as u64 * 16 + 16 != parsed.size
        {
            lead.found(Fault::Table, &parsed.name.clone(), parsed.size, "an end", "none");
        }
    }
    let mut late: BTreeMap<Spot, u64> = BTreeMap::new();
    for (number, section) in module.elf.sections.iter().enumerate() {
        for relocation in &section.relocations {
            if relocation.late.as_deref().is_some_and(|object| object != VMLINUX) {
                late.insert((number, relocation.offset), crate::elf::width(relocation.kind).unwrap_or(0));
            }
        }
    }
    if late != listed {
        let text = "the places that are written when a module comes";
        lead.found(Fault::Table, PLACES, 0, text, "others");
    }
}

/// `struct module`: where the module starts and ends.
fn description(lead: &mut Lead<'_>) {
    let module = lead.module;
    let Some(section) = module.elf.section_named(THIS_MODULE) else {
        return lead.found(Fault::Unexplained, THIS_MODULE, 0, "the module's description", "none");
    };
    let layout = lead.kernel.image.btf().and_then(|types| types.structure("module"));
    let expected = [("init", "init_module"), ("exit", "cleanup_module")];
    let mut left: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
    for (field, function) in expected {
        let at = layout.as_ref().and_then(|layout| layout.member(field));
        // The patched module may have a function of this name that is copied.
        let mut named =
            module.elf.named(function).iter().filter(|&&symbol| module.elf.symbols[symbol].is_global());
        let place = named.next().and_then(|&symbol| module.elf.place(symbol));
        if let (Some(at), Some(place)) = (at, place) {
            left.insert(at.into(), place);
        }
    }
    for relocation in module.elf.sections[section].relocations.iter().filter(|one| one.kind != R_NONE) {
        lead.visited.insert((section, relocation.offset));
        let target = reference(&module.elf, relocation, 0, 0, false).map(|one| one.target);
        let wanted =
            left.remove(&relocation.offset).map(|(section, value)| Target::Inside(section, value as i64));
        if target != wanted || relocation.kind != crate::elf::R_64 || relocation.late.is_some() {
            lead.found(
                Fault::Reference,
                THIS_MODULE,
                relocation.offset,
                "the start or the end",
                "another place",
            );
        }
    }
    for at in left.into_keys() {
        lead.found(Fault::Reference, THIS_MODULE, at, "the start or the end", "nothing");
    }
}

/// The kernel takes a module only if the CRCs of what it uses are the kernel's.
fn versions(lead: &mut Lead<'_>) {
    let module = lead.module;
    let Some(section) = module.elf.section_named(VERSIONS) else { return };
    for entry in module.elf.contents(section).chunks(VERSION) {
        let crc = entry.get(..8).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
        let name = entry.get(8..).unwrap_or_default().split(|&byte| byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let known = lead.kernel.image.exports().get(&name);
        // `module_layout` stands for the layout of what modules share, and is an export as others are.
        if let Some(expected) = known.and_then(|export| export.crc)
            && crc != Some(u64::from(expected))
        {
            let found = crc.map_or_else(String::new, |crc| format!("{crc:#x}"));
            lead.found(Fault::Reference, &name, 0, &format!("the CRC {expected:#x}"), &found);
        }
    }
}

/// All code must be that of a function that was compared, or room.
fn code(lead: &mut Lead<'_>, except: &BTreeSet<usize>) {
    let module = lead.module;
    let traps = traps(module);
    for (number, section) in module.elf.sections.iter().enumerate() {
        let is_known = except.contains(&number) || traps.contains(&number);
        if !section.is_code() || is_known || section.size == 0 {
            continue;
        }
        let mut ranges: Vec<Range<u64>> = lead.covered.get(&number).cloned().unwrap_or_default();
        ranges.sort_by_key(|range| range.start);
        ranges.push(section.size..section.size);
        let mut from = 0;
        for range in ranges {
            let gap = module.elf.bytes(number, &(from..range.start.max(from))).unwrap_or_default();
            if let Some(at) = gap
                .iter()
                .position(|byte| !ROOM.contains(byte))
                .filter(|_| !is_nops(module, number, from..range.start))
            {
                let at = from + at as u64;
                lead.found(
                    Fault::Unexplained,
                    &section.name,
                    at,
                    "room between functions",
                    "code of no function",
                );
            }
            from = from.max(range.end);
        }
        if section.is_writable() || !section.is_loaded() {
            lead.found(Fault::Memory, &section.name, 0, "memory for code", "another kind");
        }
    }
}

/// Sections of code that nothing leads into and that hold nothing but traps (`ud2`, `int3`): what the linker defines while the module
/// is built, so that its build knows of a function outside of it that it does not return.
pub(crate) fn traps(module: &Side) -> BTreeSet<usize> {
    let is_trap = |bytes: &[u8]| matches!(bytes, [0x0f, 0x0b] | [0xcc, 0xcc]);
    let code = module.elf.sections.iter().enumerate().filter(|(_, section)| section.is_code());
    let holding = code.filter(|(number, section)| {
        section.relocations.is_empty() && module.elf.contents(*number).chunks(2).all(is_trap)
    });
    let mut traps: BTreeSet<usize> = holding.map(|(number, _)| number).collect();
    for section in module.elf.sections.iter().filter(|section| section.is_loaded()) {
        if section.name == crate::unwind::PLACES {
            continue;
        }
        for relocation in &section.relocations {
            let one = reference(&module.elf, relocation, 0, 0, false);
            if let Some(Target::Inside(target, _)) = one.map(|one| one.target) {
                traps.remove(&target);
            }
        }
    }
    traps
}

/// Whether a range is nothing but nops of any length, as the assembler puts between functions.
fn is_nops(side: &Side, section: usize, range: Range<u64>) -> bool {
    let code = crate::code::Code::read(&side.elf, section, range);
    code.is_some_and(|code| {
        code.insns.iter().all(|insn| {
            insn.references.is_empty() && (insn.is_nop || insn.shape.iter().all(|byte| ROOM.contains(byte)))
        })
    })
}
