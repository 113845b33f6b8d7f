//! A second opinion on two objects, simpler than the differ and made without it: are a function's instructions the same?
//!
//! It pairs by name, compares bytes outside of relocations and relocations by the names they lead to, and says that it
//! does not know wherever that is not enough. So a difference that it sees is one, and equality likewise.

use kmend_object::{Object, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind, elf};
use std::collections::BTreeMap;

/// What is certain about a function in both objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    Differs,
    Unknown,
}

/// Two objects of one unit.
pub(super) struct Plain {
    /// Of every function that both have by its very name.
    pub(super) functions: BTreeMap<String, Verdict>,
    /// Whether contents of a section with data differ, or one side has a section more.
    pub(super) data_differs: bool,
}

/// Compares two objects.
pub(super) fn compare(before: &Object, after: &Object) -> Plain {
    let (one, other) = (functions(before), functions(after));
    let verdict = |(name, &x): (&String, &SymbolId)| {
        let &y = other.get(name)?;
        Some((name.clone(), function(before, x, after, y)))
    };
    Plain {
        functions: one.iter().filter_map(verdict).collect(),
        data_differs: data(before, before) != data(after, before)
            || data(before, after) != data(after, after),
    }
}

/// The functions by name; those whose name is not theirs alone are left out.
fn functions(object: &Object) -> BTreeMap<String, SymbolId> {
    let mut found = BTreeMap::new();
    let mut twice = Vec::new();
    for id in object.symbol_ids().filter(|&id| object.symbol(id).is_function()) {
        if found.insert(object.symbol(id).name.clone(), id).is_some() {
            twice.push(object.symbol(id).name.clone());
        }
    }
    found.retain(|name, _| !twice.contains(name));
    found
}

/// Contents of the allocated sections without code that `names` has, by name.
fn data<'a>(object: &'a Object, names: &Object) -> BTreeMap<&'a str, Vec<&'a [u8]>> {
    let mut found: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
    for section in &object.sections {
        if section.is_allocated() && !section.is_code() && names.section_named(&section.name).is_some() {
            found.entry(&section.name).or_default().push(&section.data);
        }
    }
    found
}

fn function(before: &Object, x: SymbolId, after: &Object, y: SymbolId) -> Verdict {
    let (Some(one), Some(other)) = (Code::of(before, x), Code::of(after, y)) else { return Verdict::Unknown };
    let mut verdict = if one.masked() == other.masked() && one.relocations.len() == other.relocations.len() {
        Verdict::Same
    } else {
        Verdict::Differs
    };
    for (p, q) in one.relocations.iter().zip(&other.relocations) {
        let places = |code: &Code<'_>, place: &Relocation| (place.offset - code.symbol.value, place.kind);
        let targets =
            if places(&one, p) == places(&other, q) { target(before, p, after, q) } else { Verdict::Differs };
        verdict = match (verdict, targets) {
            (Verdict::Differs, _) | (_, Verdict::Differs) => Verdict::Differs,
            (Verdict::Unknown, _) | (_, Verdict::Unknown) => Verdict::Unknown,
            _ => Verdict::Same,
        };
    }
    // In a section of several functions a branch to another has no relocation: its distance says nothing.
    if verdict == Verdict::Differs && (one.is_shared || other.is_shared) { Verdict::Unknown } else { verdict }
}

/// The code of one function.
struct Code<'a> {
    symbol: &'a Symbol,
    section: &'a Section,
    relocations: Vec<&'a Relocation>,
    /// Whether its section holds other functions too.
    is_shared: bool,
}

impl<'a> Code<'a> {
    fn of(object: &'a Object, id: SymbolId) -> Option<Self> {
        let symbol = object.symbol(id);
        let place = symbol.section()?;
        let section = object.section(place);
        let end = symbol.value.checked_add(symbol.size)?;
        let mut relocations: Vec<&Relocation> =
            section.relocations.iter().filter(|place| (symbol.value..end).contains(&place.offset)).collect();
        relocations.sort_by_key(|place| place.offset);
        let others =
            object.symbols.iter().filter(|other| other.is_function() && other.section() == Some(place));
        Some(Code { symbol, section, relocations, is_shared: others.count() > 1 })
    }

    /// Its bytes with zeroes where relocations fill them.
    fn masked(&self) -> Option<Vec<u8>> {
        let mut bytes = self.section.bytes(self.symbol.value, self.symbol.size)?.to_vec();
        for place in &self.relocations {
            let start = (place.offset - self.symbol.value) as usize;
            let end = start + elf::width(place.kind).unwrap_or(0) as usize;
            bytes.get_mut(start..end).into_iter().for_each(|hole| hole.fill(0));
        }
        Some(bytes)
    }
}

/// Whether two relocations lead to the same.
fn target(before: &Object, p: &Relocation, after: &Object, q: &Relocation) -> Verdict {
    let (one, other) = (before.symbol(p.symbol), after.symbol(q.symbol));
    let known = |symbol: &Symbol| {
        symbol.kind != SymbolKind::Section && !symbol.name.contains('.') && !symbol.name.is_empty()
    };
    if known(one) && known(other) {
        let same = one.name == other.name && p.addend == q.addend;
        return if same { Verdict::Same } else { Verdict::Differs };
    }
    let same = || {
        let (s, t) = (before.section(one.section()?), after.section(other.section()?));
        let is_same =
            s.name == t.name && s.data == t.data && s.relocations.is_empty() && t.relocations.is_empty();
        Some(is_same && one.value == other.value && p.addend == q.addend)
    };
    if same() == Some(true) { Verdict::Same } else { Verdict::Unknown }
}

/// The section's name of a function, for messages and for what is never replaced.
pub(super) fn section_of<'a>(object: &'a Object, function: &str) -> Option<&'a str> {
    let id = object.symbols_named(function).next()?;
    let place: SectionId = object.symbol(id).section()?;
    Some(&object.section(place).name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_object::{Binding, Place};

    /// A function `f` of these bytes that calls `callee` at offset 1.
    fn object(bytes: &[u8], callee: &str) -> Object {
        let mut object = Object::new();
        let section = object.add_section(Section {
            name: ".text.f".into(),
            flags: elf::SHF_ALLOC | elf::SHF_EXECINSTR,
            data: bytes.to_vec(),
            size: bytes.len() as u64,
            ..Section::default()
        });
        let callee = object.add_symbol(Symbol::undefined(callee));
        object.add_symbol(Symbol {
            name: "f".into(),
            size: bytes.len() as u64,
            binding: Binding::Global,
            kind: SymbolKind::Function,
            place: Place::Section(section),
            ..Symbol::null()
        });
        object.sections[0].relocations =
            vec![Relocation { offset: 1, kind: elf::R_X86_64_PLT32, symbol: callee, addend: -4 }];
        object
    }

    #[test]
    fn holes_are_compared_by_where_they_lead() {
        let verdict = |after: &Object| compare(&object(&[0xe8, 0, 0, 0, 0, 0xc3], "g"), after).functions["f"];
        assert_eq!(verdict(&object(&[0xe8, 1, 1, 1, 1, 0xc3], "g")), Verdict::Same);
        assert_eq!(verdict(&object(&[0xe8, 0, 0, 0, 0, 0xc3], "h")), Verdict::Differs);
        assert_eq!(verdict(&object(&[0xe8, 0, 0, 0, 0, 0xc2], "g")), Verdict::Differs);
        assert_eq!(verdict(&object(&[0xe8, 0, 0, 0, 0, 0xc3], "g.isra.0")), Verdict::Unknown);
    }
}
