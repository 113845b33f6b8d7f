//! Lists and sets of numbers of types (include/linux/btf_ids.h).
//!
//! The compiler's object has names where the kernel has numbers: a symbol for each entry says what is meant, and the bytes are
//! zero until resolve_btfids writes the numbers at the final link (tools/bpf/resolve_btfids/main.c), where it sorts the sets. A
//! livepatch could do neither, and programs that the kernel has checked by the old sets run on. So a change of what a list or set
//! holds is refused. What counts is the names without the numbers that the compiler gives them, in their order; of a set,
//! which is sorted, without it. Behind an entry stand its flags, if it has any (`BTF_ID_FLAGS()`).

use crate::atoms::Unit;
use crate::compare::Comparison;
use crate::names;
use crate::special::{Registers, Treatment};
use kmend_object::{Section, SectionId, Symbol, SymbolKind};
use kmend_refusal::{Code, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// How the symbols of sets begin; the others of this beginning are entries.
const SETS: [&str; 2] = ["__BTF_ID__set8__", "__BTF_ID__set__"];

/// How the symbols of entries for functions begin.
const FUNCTION: &str = "__BTF_ID__func__";

/// One entry, or what stands at the head of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// Its symbol without numbers; empty at the head.
    name: String,
    bytes: Vec<u8>,
    /// What relocations fill in, if there are any: where, how, and with what.
    filled: Vec<(u64, u32, String, i64)>,
}

/// The lists and sets of a unit by their symbols.
type Lists = BTreeMap<String, Vec<Entry>>;

/// Refuses each list and set that changes.
pub(crate) fn refuse_changes(comparison: &Comparison<'_>) -> Vec<Refusal> {
    let Comparison { original, patched, requests, .. } = comparison;
    let is_ignored = |unit: &Unit<'_>| {
        unit.ids().any(|id| is_type_ids(unit, unit.atom(id).section) && requests.ignores(unit, id))
    };
    if is_ignored(original) || is_ignored(patched) {
        return Vec::new();
    }
    let (before, after) = (lists(original), lists(patched));
    let mut refusals = prototypes(comparison, &before);
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    refusals.extend(names.filter_map(|name| {
        let what = change(before.get(name), after.get(name))?;
        let why = format!("{what}; the numbers in .BTF_ids were put in when the kernel was linked");
        Some(Refusal::new(Code::ChangedRegistration, set_name(name).unwrap_or(name), why))
    }));
    refusals
}

/// Refuses another declaration of a function that is listed: programs are checked by the types that the kernel was linked with, and by
/// the names of parameters (`__sz`, `__opt`, `__nullable` and others, Documentation/bpf/kfuncs.rst).
fn prototypes(comparison: &Comparison<'_>, lists: &Lists) -> Vec<Refusal> {
    let Comparison { original, patched, .. } = comparison;
    let entries = lists.values().flatten().filter(|entry| entry.name.starts_with(FUNCTION));
    let listed: BTreeSet<String> = entries.map(|entry| in_words(&entry.name)).collect();
    let is_own = |name: &String| original.object.symbols_named(name).next().is_some();
    let listed: BTreeSet<String> = listed.into_iter().filter(is_own).collect();
    if listed.is_empty() {
        return Vec::new();
    }
    let read = |object| kmend_types::prototypes(object, &listed).unwrap_or_default();
    let (before, after) = (read(original.object), read(patched.object));
    let refuse = |(name, was): (&String, &String)| {
        let is = after.get(name).filter(|is| *is != was)?;
        let why =
            format!("`{was}` becomes `{is}`, and BPF programs are checked by the types that the kernel has");
        Some(Refusal::new(Code::ChangedRegistration, name, why))
    };
    before.iter().filter_map(refuse).collect()
}

fn is_type_ids(unit: &Unit<'_>, section: SectionId) -> bool {
    unit.treatments[section.index()] == Treatment::Registration(Registers::TypeIds)
}

fn set_name(symbol: &str) -> Option<&str> {
    SETS.iter().find_map(|beginning| symbol.strip_prefix(beginning))
}

fn lists(unit: &Unit<'_>) -> Lists {
    let mut lists = Lists::new();
    for id in unit.object.section_ids().filter(|&id| is_type_ids(unit, id)) {
        let section = unit.object.section(id);
        // A set has the symbol of a list as well, at the same place; entries stand behind both.
        let rank =
            |name: &str| if set_name(name).is_some() { 1 } else { 2 * u8::from(names::is_btf_entry(name)) };
        let mut symbols: Vec<&Symbol> = unit
            .object
            .symbols
            .iter()
            .filter(|symbol| symbol.section() == Some(id) && symbol.kind != SymbolKind::Section)
            .collect();
        symbols.sort_by_key(|symbol| (symbol.value, rank(&symbol.name), &symbol.name));
        let mut head = String::new();
        let mut start = 0;
        let mut push = |head: &str, name: String, range: (u64, u64)| {
            let list = lists.entry(head.to_owned()).or_default();
            if !name.is_empty() || range.0 < range.1 {
                list.push(entry(unit, section, name, range));
            }
        };
        let mut name = String::new();
        for symbol in symbols {
            push(&head, std::mem::take(&mut name), (start, symbol.value.min(section.size)));
            if rank(&symbol.name) < 2 {
                head.clone_from(&symbol.name);
            } else {
                name = names::base(&symbol.name);
            }
            start = symbol.value;
        }
        push(&head, name, (start, section.size));
    }
    for (head, entries) in &mut lists {
        if set_name(head).is_some() {
            entries.sort();
        }
    }
    lists
}

fn entry(unit: &Unit<'_>, section: &Section, name: String, (start, end): (u64, u64)) -> Entry {
    let bytes = section.bytes(start, end.saturating_sub(start)).unwrap_or_default().to_vec();
    let inside = section.relocations.iter().filter(|relocation| (start..end).contains(&relocation.offset));
    let filled = inside.map(|relocation| {
        let target = unit.object.symbols.get(relocation.symbol.index()).map(|symbol| symbol.name.clone());
        (relocation.offset - start, relocation.kind, target.unwrap_or_default(), relocation.addend)
    });
    Entry { name, bytes, filled: filled.collect() }
}

/// What is different, in words.
fn change(before: Option<&Vec<Entry>>, after: Option<&Vec<Entry>>) -> Option<String> {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) if before == after => return None,
        (Some(before), Some(after)) => (before, after),
        (None, _) => return Some("it is new".to_owned()),
        (_, None) => return Some("it is gone".to_owned()),
    };
    let count = |list: &[Entry], name: &str| list.iter().filter(|entry| entry.name == name).count();
    let more = |list: &[Entry], than: &[Entry]| {
        let entry = list.iter().find(|entry| count(list, &entry.name) > count(than, &entry.name))?;
        Some(in_words(&entry.name))
    };
    if let Some(gone) = more(before, after) {
        return Some(format!("{gone} leaves it"));
    }
    if let Some(new) = more(after, before) {
        return Some(format!("{new} joins it"));
    }
    let other = after.iter().find(|entry| !before.contains(entry));
    Some(other.map_or_else(
        || "its order changes".to_owned(),
        |entry| format!("the flags of {} change", in_words(&entry.name)),
    ))
}

/// `__BTF_ID__func__f__` as `f`.
fn in_words(name: &str) -> String {
    let rest = name.strip_prefix("__BTF_ID__").unwrap_or(name);
    let name = rest.split_once("__").map_or(rest, |(_, name)| name);
    let name = name.trim_end_matches('_');
    if name.is_empty() { "the whole".to_owned() } else { name.to_owned() }
}
