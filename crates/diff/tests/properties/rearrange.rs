//! Objects that another assembler, or the same compiler on a text with more in it, might have written for the same unit.

use kmend_object::{Object, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind, elf};
use std::collections::BTreeMap;

/// The object with its sections in another order: the one that was at `order[i]` comes at `i`.
pub(crate) fn sections(object: &Object, order: &[usize]) -> Object {
    let mut to = vec![SectionId(0); order.len()];
    for (new, &old) in order.iter().enumerate() {
        to[old] = SectionId(new as u32);
    }
    let mut other = object.clone();
    other.sections = order.iter().map(|&old| object.sections[old].clone()).collect();
    for section in &mut other.sections {
        section.link_order = section.link_order.map(|id| to[id.index()]);
    }
    for symbol in &mut other.symbols {
        if let kmend_object::Place::Section(id) = &mut symbol.place {
            *id = to[id.index()];
        }
    }
    for member in other.groups.iter_mut().flat_map(|group| &mut group.members) {
        *member = to[member.index()];
    }
    other
}

/// The object with its symbols in another order; the null symbol stays the first. `order` is of the others, from 0.
pub(crate) fn symbols(object: &Object, order: &[usize]) -> Object {
    let mut to = vec![SymbolId::NULL; object.symbols.len()];
    let mut other = object.clone();
    for (new, &old) in order.iter().enumerate() {
        to[old + 1] = SymbolId(new as u32 + 1);
        other.symbols[new + 1] = object.symbols[old + 1].clone();
    }
    for relocation in other.sections.iter_mut().flat_map(|section| &mut section.relocations) {
        relocation.symbol = to[relocation.symbol.index()];
    }
    for group in &mut other.groups {
        group.signature = to[group.signature.index()];
    }
    other
}

/// The object with other numbers in the names that the compiler numbers. The order of those of one base stays for
/// variables, where it is that of the source, and is turned round for clones, where it is that of the compiler's work.
pub(crate) fn numbers(object: &Object, more: u64) -> Object {
    let split = |name: &str| {
        let (base, number) = name.strip_suffix(".cold").unwrap_or(name).rsplit_once('.')?;
        Some((base.to_owned(), number.parse::<u64>().ok().filter(|_| !base.starts_with(".L"))?))
    };
    let mut known: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (base, number) in object.symbols.iter().filter_map(|symbol| split(&symbol.name)) {
        known.entry(base).or_default().push(number);
    }
    let mut names = BTreeMap::new();
    for (base, mut numbers) in known {
        numbers.sort_unstable();
        numbers.dedup();
        let mut new: Vec<u64> = numbers.iter().map(|number| number * 2 + more).collect();
        if base.contains(".constprop") || base.contains(".isra") {
            new.reverse();
        }
        for (old, new) in numbers.iter().zip(new) {
            names.insert(format!("{base}.{old}"), format!("{base}.{new}"));
            names.insert(format!("{base}.{old}.cold"), format!("{base}.{new}.cold"));
        }
    }
    let mut other = object.clone();
    for symbol in &mut other.symbols {
        if let Some(new) = names.get(&symbol.name) {
            symbol.name.clone_from(new);
        }
    }
    for section in &mut other.sections {
        let end = names.iter().find(|(old, _)| section.name.ends_with(&format!(".{old}")));
        if let Some((old, new)) = end {
            section.name = section.name.replace(old, new);
        }
    }
    other
}

/// One string with where it lay.
struct Text {
    section: usize,
    offset: u64,
    bytes: Vec<u8>,
}

/// The object with its strings in other sections: each goes into the one of `places` that has its number, of as many as
/// there are different numbers for each width and alignment, in the order of `order`.
pub(crate) fn strings(object: &Object, places: &[usize], order: &[usize]) -> Object {
    let mut texts = texts_of(object);
    let mut order: Vec<usize> = order.iter().copied().filter(|&index| index < texts.len()).collect();
    order.extend((0..texts.len()).filter(|index| !order.contains(index)).collect::<Vec<_>>());
    let mut other = object.clone();
    let mut made: BTreeMap<(u64, u64, usize), SymbolId> = BTreeMap::new();
    // By the old section and offset: the new section's symbol, and the offset there.
    let mut moved: BTreeMap<(usize, u64), (SymbolId, u64)> = BTreeMap::new();
    for index in order {
        let text = &mut texts[index];
        let old = &object.sections[text.section];
        let place = places.get(index % places.len().max(1)).copied().unwrap_or_default();
        let key = (old.entsize, old.align, place);
        let symbol = *made.entry(key).or_insert_with(|| string_section(&mut other, old, place));
        let section = &mut other.sections[other.symbols[symbol.index()].section().unwrap().index()];
        while !(section.data.len() as u64).is_multiple_of(old.align.max(1)) {
            section.data.push(0);
        }
        moved.insert((text.section, text.offset), (symbol, section.data.len() as u64));
        section.data.append(&mut text.bytes);
        section.size = section.data.len() as u64;
    }
    redirect(object, &mut other, &moved);
    other
}

/// Every string that is referred to begins one.
fn texts_of(object: &Object) -> Vec<Text> {
    let mut texts = Vec::new();
    for (index, section) in object.sections.iter().enumerate().filter(|(_, section)| section.is_strings()) {
        let unit = section.entsize.max(1) as usize;
        let (mut start, mut is_inside) = (0, false);
        for (at, bytes) in section.data.chunks(unit).enumerate() {
            let is_end = bytes.iter().all(|&byte| byte == 0);
            if !is_inside && is_end && section.align > unit as u64 {
                continue;
            }
            if !is_inside {
                (start, is_inside) = (at * unit, true);
            }
            if is_end {
                let bytes = section.data[start..(at + 1) * unit].to_vec();
                texts.push(Text { section: index, offset: start as u64, bytes });
                is_inside = false;
            }
        }
    }
    texts
}

fn string_section(object: &mut Object, like: &Section, number: usize) -> SymbolId {
    let name = format!(".rodata.place{number}.str{}.{}", like.entsize, like.align);
    let section = Section { name, data: Vec::new(), relocations: Vec::new(), size: 0, ..like.clone() };
    let id = object.add_section(section);
    object.add_symbol(Symbol {
        kind: SymbolKind::Section,
        place: kmend_object::Place::Section(id),
        ..Symbol::null()
    })
}

/// Lets all that led to a string lead to where it is now. What is left of the old sections is empty.
fn redirect(object: &Object, other: &mut Object, moved: &BTreeMap<(usize, u64), (SymbolId, u64)>) {
    let find = |section: usize, offset: u64| {
        let (&(_, start), &(symbol, at)) = moved.range((section, 0)..=(section, offset)).next_back()?;
        Some((symbol, at + offset - start))
    };
    let is_moved = |symbol: &Symbol| {
        symbol.section().filter(|id| object.section(*id).is_strings()).map(SectionId::index)
    };
    for symbol in other.symbols.iter_mut().take(object.symbols.len()) {
        if let Some(section) = is_moved(symbol).filter(|_| symbol.kind != SymbolKind::Section)
            && let Some((new, at)) = find(section, symbol.value)
        {
            symbol.value = at;
            // All new symbols are of sections that were added in the same order.
            let added = new.index() - object.symbols.len();
            symbol.place = kmend_object::Place::Section(SectionId((object.sections.len() + added) as u32));
        }
    }
    for relocation in other.sections.iter_mut().flat_map(|section| &mut section.relocations) {
        let symbol = object.symbol(relocation.symbol);
        let Some(section) = is_moved(symbol).filter(|_| symbol.kind == SymbolKind::Section) else { continue };
        let before = if elf::is_relative(relocation.kind) { 4 } else { 0 };
        let offset = u64::try_from(relocation.addend + before).unwrap();
        let (new, at) = find(section, offset).unwrap();
        *relocation = Relocation { symbol: new, addend: at as i64 - before, ..*relocation };
    }
    for section in
        other.sections.iter_mut().take(object.sections.len()).filter(|section| section.is_strings())
    {
        section.data.clear();
        section.size = 0;
    }
}
