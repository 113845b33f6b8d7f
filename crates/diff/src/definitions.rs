//! The names that one object defines and refers to, as a linker sees them.

use crate::author;
use crate::names;
use crate::special::{self, Memory, Registers, Treatment};
use kmend_object::{Binding, Object, Relocation, Section, SectionId, Symbol, SymbolKind, elf};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What stands before an exported symbol's name in that of its entry (include/linux/export.h; since 6.4 the entry
/// is made from `.export_symbol`, include/linux/export-internal.h).
const EXPORTS: [&str; 2] = ["__ksymtab_", "__export_symbol_"];

/// How far from its entry a function's call of `__fentry__` may lie, in bytes.
const FENTRY_REACH: u64 = 16;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Code.
    Function,
    /// Data.
    Variable,
}

/// How others come to a function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls {
    /// Whether something other than a call refers to it in its object.
    pub(crate) address_taken: bool,
    /// Whether ftrace knows it.
    pub(crate) traced: bool,
}

/// One definition.
#[derive(Debug, Clone)]
pub struct Definition {
    /// What it is.
    pub kind: Kind,
    /// Who sees it.
    pub binding: Binding,
    /// Whether it is freed after the start.
    pub gone: bool,
    /// Whether it can be written to.
    pub writable: bool,
    pub(crate) calls: Calls,
    pub(crate) size: u64,
    pub(crate) memory: Memory,
    /// What it holds and refers to. Not known of functions.
    pub(crate) content: u64,
    place: (SectionId, u64),
}

impl Definition {
    /// Whether other units can refer to it.
    pub fn is_global(&self) -> bool {
        self.binding != Binding::Local
    }

    /// Whether it gives way to a definition of another unit.
    pub fn is_weak(&self) -> bool {
        self.binding == Binding::Weak
    }
}

/// The names of one object.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// Functions and variables by the names that the source gave. What has such a name twice is left out.
    pub defined: BTreeMap<String, Definition>,
    /// What must be defined elsewhere.
    pub needed: BTreeSet<String>,
    /// What it exports.
    pub exported: BTreeSet<String>,
    /// The variables that the author gives another name: the old one by the new one.
    pub(crate) renamed: BTreeMap<String, String>,
}

impl Definitions {
    /// Reads an object's names.
    pub fn of(object: &Object, built_in: bool) -> Self {
        let used = Uses::of(object);
        let mut found: BTreeMap<String, Option<Definition>> = BTreeMap::new();
        let renamed = author::renamed(object).into_iter().map(|(old, new)| (new, old)).collect();
        let mut names = Definitions { renamed, ..Definitions::default() };
        for id in object.symbol_ids() {
            let symbol = object.symbol(id);
            if symbol.is_undefined() && symbol.binding == Binding::Global && used.any.contains(&id.index()) {
                names.needed.insert(symbol.name.clone());
            }
            let export = EXPORTS.iter().find_map(|beginning| symbol.name.strip_prefix(beginning));
            names.exported.extend(export.filter(|_| symbol.section().is_some()).map(str::to_owned));
            let Some(definition) = definition(object, symbol, &used, built_in) else { continue };
            found.entry(symbol.name.clone()).and_modify(|entry| *entry = None).or_insert(Some(definition));
        }
        names.defined =
            found.into_iter().filter_map(|(name, definition)| Some((name, definition?))).collect();
        names
    }

    /// What other units see under this name.
    pub fn global(&self, name: &str) -> Option<&Definition> {
        self.defined.get(name).filter(|definition| definition.is_global())
    }

    /// The names that other units see.
    pub fn globals(&self) -> impl Iterator<Item = (&str, &Definition)> {
        let all = self.defined.iter().map(|(name, definition)| (name.as_str(), definition));
        all.filter(|(_, definition)| definition.is_global())
    }

    /// The global names at the place of this one, itself among them.
    pub(crate) fn aliases(&self, name: &str) -> BTreeSet<&str> {
        let Some(own) = self.global(name) else { return BTreeSet::new() };
        let is_alias = |&(_, other): &(&str, &Definition)| other.place == own.place;
        self.globals().filter(is_alias).map(|(name, _)| name).collect()
    }
}

fn definition(object: &Object, symbol: &Symbol, used: &Uses, built_in: bool) -> Option<Definition> {
    let id = symbol.section()?;
    let section = object.section(id);
    let is_function = symbol.kind == SymbolKind::Function;
    let is_name = !names::is_numbered(&symbol.name) && names::cold_parent(&symbol.name).is_none();
    if !section.is_allocated() || section.is_strings() || !is_name || names::is_content_only(&symbol.name) {
        return None;
    }
    if !is_function && (symbol.kind != SymbolKind::Object || section.is_code()) {
        return None;
    }
    let place = (id, symbol.value);
    Some(Definition {
        kind: if is_function { Kind::Function } else { Kind::Variable },
        binding: symbol.binding,
        gone: is_gone(&section.name, built_in),
        writable: section.is_writable(),
        calls: Calls {
            address_taken: used.taken.contains(&place),
            traced: is_function && is_traced(object, section, symbol),
        },
        size: symbol.size,
        memory: special::memory_of(section),
        content: if is_function { 0 } else { content(object, section, symbol) },
        place,
    })
}

/// What is freed after the start, or never runs.
fn is_gone(section: &str, built_in: bool) -> bool {
    let starts = [".init.", ".meminit."].iter().any(|beginning| section.starts_with(beginning));
    starts || (built_in && section.starts_with(".exit."))
}

fn is_traced(object: &Object, section: &Section, symbol: &Symbol) -> bool {
    let entry = symbol.value..symbol.value.saturating_add(FENTRY_REACH);
    section.relocations.iter().any(|relocation| {
        let target = object.symbols.get(relocation.symbol.index());
        entry.contains(&relocation.offset) && target.is_some_and(|target| target.name == "__fentry__")
    })
}

/// A hash of what a variable holds, and of the names of what it refers to.
fn content(object: &Object, section: &Section, symbol: &Symbol) -> u64 {
    let mut hasher = DefaultHasher::new();
    let range = symbol.value..symbol.value.saturating_add(symbol.size);
    let mut bytes = section.bytes(symbol.value, symbol.size).unwrap_or_default().to_vec();
    let inside = |relocation: &&Relocation| range.contains(&relocation.offset);
    let mut relocations: Vec<&Relocation> = section.relocations.iter().filter(inside).collect();
    relocations.sort_by_key(|relocation| relocation.offset);
    for relocation in relocations {
        let start = (relocation.offset - symbol.value) as usize;
        let width = elf::width(relocation.kind).unwrap_or(0) as usize;
        if let Some(hole) = bytes.get_mut(start..start.saturating_add(width)) {
            hole.fill(0);
        }
        (start, relocation.kind, target(object, relocation)).hash(&mut hasher);
    }
    bytes.iter().all(|&byte| byte == 0).hash(&mut hasher);
    if bytes.iter().any(|&byte| byte != 0) {
        bytes.hash(&mut hasher);
    }
    hasher.finish()
}

/// What a relocation of data leads to: a text, or a name and a distance.
fn target(object: &Object, relocation: &Relocation) -> (Vec<u8>, i64) {
    let Some(symbol) = object.symbols.get(relocation.symbol.index()) else { return (Vec::new(), 0) };
    let section = symbol.section().map(|id| object.section(id));
    if let Some(section) = section.filter(|section| section.is_strings()) {
        let at = symbol.value.checked_add_signed(relocation.addend);
        return match at.and_then(|at| section.string_at(at)) {
            Some(text) => (text.whole.to_vec(), 0),
            None => (section.name.clone().into_bytes(), relocation.addend),
        };
    }
    if symbol.kind != SymbolKind::Section {
        return (names::base(&symbol.name).into_bytes(), relocation.addend);
    }
    let at = symbol.value.wrapping_add_signed(relocation.addend);
    let is_there = |other: &&Symbol| {
        other.place == symbol.place && other.kind != SymbolKind::Section && !other.name.is_empty()
    };
    let nearest = object.symbols.iter().filter(is_there).filter(|other| other.value <= at);
    match nearest.max_by_key(|other| other.value) {
        Some(other) => (names::base(&other.name).into_bytes(), at.wrapping_sub(other.value) as i64),
        None => (section.map(|section| section.name.clone()).unwrap_or_default().into_bytes(), at as i64),
    }
}

/// Which symbols are referred to, and which places by something other than a call.
struct Uses {
    any: BTreeSet<usize>,
    taken: BTreeSet<(SectionId, u64)>,
}

impl Uses {
    fn of(object: &Object) -> Self {
        let mut uses = Uses { any: BTreeSet::new(), taken: BTreeSet::new() };
        for section in object.sections.iter().filter(|section| section.is_allocated()) {
            let treatment = special::treatment(&section.name);
            if tells(treatment) {
                continue;
            }
            for relocation in &section.relocations {
                uses.any.insert(relocation.symbol.index());
                let Some(symbol) = object.symbols.get(relocation.symbol.index()) else { continue };
                if let Some(home) = symbol.section().filter(|_| !section.is_branch_operand(relocation)) {
                    let tail = if section.is_code() && elf::is_relative(relocation.kind) { 4 } else { 0 };
                    let at = symbol.value.wrapping_add_signed(relocation.addend).wrapping_add(tail);
                    uses.taken.insert((home, at));
                }
            }
        }
        uses
    }
}

/// Whether a section only tells of code and data, which is no use of them.
fn tells(treatment: Treatment) -> bool {
    matches!(
        treatment,
        Treatment::Ignored
            | Treatment::Derived
            | Treatment::Entries { .. }
            | Treatment::Registration(Registers::Export | Registers::Description)
    )
}
