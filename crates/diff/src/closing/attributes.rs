//! What symbols, sections and groups say beside the bytes.

use super::Findings;
use crate::atoms::{AtomId, AtomKind, Unit};
use crate::names;
use crate::special;
use crate::special::Treatment;
use kmend_object::{Binding, Group, Object, Place, Section, SectionId, Symbol, SymbolKind, elf};
use kmend_refusal::{Code, Refusal};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Flags of a section that say how it is loaded. The rest is for the linker, which has its say when the module is made.
const LOADED_AS: u64 =
    !(elf::SHF_MERGE | elf::SHF_STRINGS | elf::SHF_GROUP | elf::SHF_LINK_ORDER | elf::SHF_INFO_LINK);

/// The address is what a function at it returns (System V psABI, GNU extension).
const STT_GNU_IFUNC: u8 = 10;

/// Sections of code whose names say how warm it is, or that modpost shall look away (include/linux/init.h, `__ref`).
const ORDINARY_CODE: [&str; 2] = [".text*", ".ref.text*"];

/// What differs and no change accounts for.
pub(super) fn changes(findings: &Findings<'_>) -> Vec<Refusal> {
    let comparison = findings.comparison;
    let (original, patched) = (comparison.original, comparison.patched);
    let mut refusals = Vec::new();
    for after in patched.ids() {
        let Some(before) = comparison.pairing.original(after) else { continue };
        let is_ignored = comparison.requests.ignores(patched, after) || findings.passed.has(after);
        if !is_ignored {
            let is_changed = findings.marks.is_changed(after);
            // The author says what it was called.
            let is_renamed = comparison.pairing.was_renamed(after);
            let of_symbols = || of_symbols(original, before, patched, after, is_changed);
            let why = of_section(original, before, patched, after)
                .or_else(|| if is_renamed { None } else { of_symbols() });
            refusals.extend(why.map(|why| Refusal::new(Code::Unexplained, patched.name(after), why)));
        }
    }
    refusals.extend(of_contents(original, patched));
    refusals.extend(of_tables(original, patched));
    refusals.extend(of_unplaced(original.object, patched.object));
    refusals.extend(of_unknown_kinds(patched.object));
    refusals.extend(of_groups(original.object, patched.object));
    refusals
}

/// How it is loaded. (What memory data lie in is compared elsewhere, [`crate::memory`].)
fn of_section(original: &Unit<'_>, before: AtomId, patched: &Unit<'_>, after: AtomId) -> Option<String> {
    let (was, is) = (original.section_of(before), patched.section_of(after));
    if was.is_code() != is.is_code() {
        return Some(format!("it moves from {} to {}: one is code", was.name, is.name));
    }
    if special::is_start_code(&is.name) && !special::is_start_code(&was.name) {
        return Some("it becomes code of the start, and the running kernel keeps it".to_owned());
    }
    let flags_differ = was.flags & LOADED_AS != is.flags & LOADED_AS;
    if !is.is_code() {
        let is_borne = special::memory_of(was) != special::memory_of(is);
        return (flags_differ && !is_borne).then(|| flags(was, is));
    }
    let family = |name: &str| special::family(name).unwrap_or(name).to_owned();
    let (of_was, of_is) = (family(&was.name), family(&is.name));
    let is_ordinary = |family: &String| ORDINARY_CODE.contains(&family.as_str());
    if of_was != of_is && !(is_ordinary(&of_was) && is_ordinary(&of_is)) {
        return Some(format!(
            "it moves from {} to {}, and the kernel asks in which of its sections code lies",
            was.name, is.name
        ));
    }
    flags_differ.then(|| flags(was, is))
}

fn flags(was: &Section, is: &Section) -> String {
    format!("the flags of its section change from {:#x} to {:#x}", was.flags, is.flags)
}

/// The names that lead to it, aliases among them, and what the symbols say. Of a changed function neither its size counts
/// nor whether it is weak: it is replaced, whatever the kernel's linker would have done.
fn of_symbols(
    original: &Unit<'_>,
    before: AtomId,
    patched: &Unit<'_>,
    after: AtomId,
    is_changed: bool,
) -> Option<String> {
    let (was, is) = (symbols(original, before, is_changed), symbols(patched, after, is_changed));
    let shown =
        |one: &Symbols<'_>, other: &Symbols<'_>, (unit, id): (&Unit<'_>, AtomId), there: &Unit<'_>| {
            let left = one.iter().filter(|(words, _)| !other.contains_key(*words));
            let left = left.filter(|(_, symbol)| !is_another_name(unit, id, symbol, there));
            left.map(|(words, _)| words.clone()).collect::<Vec<_>>().join(", ")
        };
    let gone = shown(&was, &is, (original, before), patched);
    let new = shown(&is, &was, (patched, after), original);
    match (gone, new) {
        (gone, new) if gone.is_empty() && new.is_empty() => None,
        (gone, new) if gone.is_empty() => Some(format!("it gets a symbol: {new}")),
        (gone, new) if new.is_empty() => Some(format!("it loses a symbol: {gone}")),
        (gone, new) => Some(format!("its symbol changes: {gone} before, {new} after")),
    }
}

/// Symbols by what they say, in words.
type Symbols<'a> = BTreeMap<String, &'a Symbol>;

/// The symbols of functions and variables that stand in an atom, in words. Whether one is static is left out: that is for
/// the linker of the kernel, and who refers to it is looked at where it does.
fn symbols<'a>(unit: &'a Unit<'_>, id: AtomId, is_changed: bool) -> Symbols<'a> {
    let atom = unit.atom(id);
    if !matches!(atom.kind, AtomKind::Function | AtomKind::Variable) {
        return BTreeMap::new();
    }
    let range = atom.start..atom.end().max(atom.start.saturating_add(1));
    let symbols = unit.symbols_in(atom.section).iter().map(|&id| unit.object.symbol(id));
    symbols
        .filter(|symbol| range.contains(&symbol.value))
        .map(|symbol| {
            let mut words = in_words(symbol);
            if symbol.value != atom.origin {
                let _ = write!(words, " at +{:#x}", symbol.value - atom.start);
            }
            if !is_changed {
                let _ = write!(words, " of {} bytes", symbol.size);
                words.push_str(if symbol.binding == Binding::Weak { ", weak" } else { "" });
            }
            (words, symbol)
        })
        .collect()
}

/// Whether it is one more name of a function's beginning, and means nothing else in the other object: nobody knows it there, or it
/// is static on both sides, so that this unit alone uses it, whose references are all compared. (The compiler folds functions of
/// equal code into one, gcc/ipa-icf.cc, and splits them where they differ.)
fn is_another_name(unit: &Unit<'_>, id: AtomId, symbol: &Symbol, other: &Unit<'_>) -> bool {
    let atom = unit.atom(id);
    let is_entry = symbol.kind == SymbolKind::Function && symbol.value == atom.origin;
    let is_only = unit.names(id).nth(1).is_none();
    let mut there = other.object.symbols_named(&symbol.name).map(|id| other.object.symbol(id));
    let is_local = symbol.binding == Binding::Local;
    is_entry
        && !is_only
        && there.all(|there| there.is_undefined() || is_local && there.binding == Binding::Local)
}

/// A symbol's name without the compiler's number, and its type.
fn in_words(symbol: &Symbol) -> String {
    let kind = match symbol.kind {
        SymbolKind::Function => "function",
        SymbolKind::Object => "variable",
        _ => "label",
    };
    format!("{kind} {}", names::base(&symbol.name))
}

/// The symbols of what has no identity but its content, where both units have some of that name.
fn of_contents(original: &Unit<'_>, patched: &Unit<'_>) -> Vec<Refusal> {
    let list = |unit: &Unit<'_>| {
        let mut found: BTreeMap<String, BTreeSet<(String, bool)>> = BTreeMap::new();
        for id in unit.ids().filter(|&id| unit.atom(id).kind == AtomKind::Content) {
            if let Some(symbol) = unit.symbol_of(id) {
                let says = (in_words(symbol), symbol.binding == Binding::Weak);
                found.entry(names::base(&symbol.name)).or_default().insert(says);
            }
        }
        found
    };
    let (before, after) = (list(original), list(patched));
    let differ = |(name, is): (&String, &BTreeSet<_>)| {
        before.get(name).is_some_and(|was| was != is).then(|| name.clone())
    };
    let refuse = |name| Refusal::new(Code::Unexplained, name, "its symbol is of another kind");
    after.iter().filter_map(differ).map(refuse).collect()
}

/// The flags of tables.
fn of_tables(original: &Unit<'_>, patched: &Unit<'_>) -> Vec<Refusal> {
    let list = |unit: &Unit<'_>| -> BTreeMap<String, (u32, u64)> {
        let is_table = |&id: &SectionId| {
            matches!(unit.treatments[id.index()], Treatment::Entries { .. } | Treatment::RuntimePointer)
        };
        let sections = unit.object.section_ids().filter(is_table).map(|id| unit.object.section(id));
        sections.map(|section| (section.name.clone(), (section.kind, section.flags & LOADED_AS))).collect()
    };
    let (before, after) = (list(original), list(patched));
    let differ = |(name, is): (&String, &(u32, u64))| {
        before.get(name).is_some_and(|was| was != is).then(|| name.clone())
    };
    let refuse = |name| Refusal::new(Code::Unexplained, name, "its type or flags change");
    after.iter().filter_map(differ).map(refuse).collect()
}

/// Symbols of a kind that no object of a kernel has, such as STT_GNU_IFUNC and STT_TLS: a loader of modules does not know what these
/// mean (arch/x86/kernel/module.c takes every symbol for an address).
fn of_unknown_kinds(patched: &Object) -> Vec<Refusal> {
    let unknown = |symbol: &Symbol| match symbol.kind {
        SymbolKind::Other(kind) if symbol.place != Place::Undefined || kind == STT_GNU_IFUNC => Some(kind),
        _ => None,
    };
    let refuse = |symbol: &Symbol| {
        let kind = unknown(symbol)?;
        let name = if kind == STT_GNU_IFUNC { " (STT_GNU_IFUNC)" } else { "" };
        let why =
            format!("it is a symbol of type {kind}{name}, which the kernel's module loader does not know");
        Some(Refusal::new(Code::Unexplained, &symbol.name, why))
    };
    patched.symbols.iter().filter_map(refuse).collect()
}

/// Absolute and common symbols, which stand in no section.
fn of_unplaced(original: &Object, patched: &Object) -> Vec<Refusal> {
    let list = |object: &Object| -> BTreeSet<(String, u64, u64)> {
        let is_unplaced = |symbol: &&Symbol| {
            matches!(symbol.place, Place::Absolute | Place::Common) && symbol.kind != SymbolKind::File
        };
        let symbols = object.symbols.iter().filter(is_unplaced);
        symbols.map(|symbol| (symbol.name.clone(), symbol.value, symbol.size)).collect()
    };
    let (before, after) = (list(original), list(patched));
    let refuse = |(name, value, _): &(String, u64, u64)| {
        let why = format!("a symbol outside of all sections changes: its value is {value:#x} on one side");
        Refusal::new(Code::Unexplained, name, why)
    };
    before.symmetric_difference(&after).map(refuse).collect()
}

fn of_groups(original: &Object, patched: &Object) -> Vec<Refusal> {
    let list = |object: &Object| -> Vec<(String, u32, Vec<String>)> {
        let key = |group: &Group| {
            let members = group.members.iter().map(|&id| object.section(id).name.clone());
            (object.symbol(group.signature).name.clone(), group.flags, members.collect())
        };
        object.groups.iter().map(key).collect()
    };
    let (before, after) = (list(original), list(patched));
    let left = |one: &[(String, u32, Vec<String>)], other: &[(String, u32, Vec<String>)]| {
        one.iter()
            .filter(|group| !other.contains(group))
            .map(|group| group.0.clone())
            .collect::<BTreeSet<_>>()
    };
    let refuse = |name: String| Refusal::new(Code::Unexplained, name, "its section group changes");
    (&left(&before, &after) | &left(&after, &before)).into_iter().map(refuse).collect()
}
