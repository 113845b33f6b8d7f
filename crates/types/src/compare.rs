//! All the types, variables and functions of two objects, by their names.

use crate::TypesError;
use crate::dwarf::{Contents, Entries, Entry};
use crate::enumeration::{self, ValueChange};
use crate::exports::ExportChange;
use crate::queries::keyword;
use crate::record::{self, Layout};
use crate::same::{Pair, Relation};
use gimli::constants as dw;
use kmend_object::Object;
use std::collections::{BTreeMap, BTreeSet};

/// The section that `KMEND_ACCEPT_TYPE()` writes to: strings that end in NUL, `type:struct foo`.
const ACCEPT: &str = ".kmend.accept";

/// Names that the preprocessor numbers (`__UNIQUE_ID` in include/linux/compiler.h) identify nothing: another use before them
/// moves all the numbers. Macros declare what has such a name, and no other code knows it.
const NUMBERED: &str = "__UNIQUE_ID_";

/// The text of `NL_SET_ERR_MSG()` and its kin (include/linux/netlink.h): a constant of one place, of any length.
const MESSAGE: &str = "__msg";

/// What differs between the types of two objects, or of the units of several pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Structures, unions and enumerations, by name.
    pub types: BTreeSet<TypeChange>,
    /// Variables that are there as long as the kernel or the module is.
    pub variables: BTreeSet<VariableChange>,
    /// Functions with another type.
    pub signatures: BTreeSet<SignatureChange>,
    /// Exported symbols with another CRC; the caller knows them.
    pub exports: BTreeSet<ExportChange>,
}

/// A changed type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeChange {
    /// Its name, such as `struct page`, `atomic_t`, or `enumerator A` for an enumeration without a name.
    pub name: String,
    /// What changed.
    pub kind: TypeKind,
    /// The functions of the unit with a parameter or a local variable that is of the type, an array of it, or a
    /// pointer to it; functions that the compiler put into them count. Others can reach it through a field or a
    /// call, and are not listed.
    pub functions: BTreeSet<String>,
}

/// What changed of a type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TypeKind {
    /// A structure or union.
    Record(Layout),
    /// An enumeration, with the names that stand for another number.
    Enumeration(Vec<ValueChange>),
}

/// A variable with another type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VariableChange {
    /// Its name.
    pub name: String,
    /// The function that it is local to.
    pub function: Option<String>,
    /// Whether other units can name it.
    pub is_external: bool,
    /// The types before and after, as C writes them.
    pub shown: (String, String),
    /// The sizes before and after, in bytes.
    pub sizes: (u64, u64),
    /// How the two types relate.
    pub relation: Relation,
}

/// A function with another type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignatureChange {
    /// Its name.
    pub name: String,
    /// Whether other units can name it.
    pub is_external: bool,
    /// The types before and after, as C writes them.
    pub shown: (String, String),
}

/// The types that the author of the patch says are safe to change, as the patched object holds them.
pub fn accepted(patched: &Object) -> BTreeSet<String> {
    let section = patched.section_named(ACCEPT).map(|id| patched.section(id).data.as_slice());
    let words = section.unwrap_or_default().split(|&byte| byte == 0);
    let texts = words.filter_map(|word| std::str::from_utf8(word).ok()?.strip_prefix("type:"));
    texts.map(|name| name.trim().to_owned()).collect()
}

/// Compares the types of two objects of one unit, compiled with debug information.
pub fn compare(original: &Object, patched: &Object) -> Result<Changes, TypesError> {
    let (original, patched) = (Contents::of(original)?, Contents::of(patched)?);
    let (original, patched) = (Entries::read(&original)?, Entries::read(&patched)?);
    let pair = Pair { before: &original, after: &patched };
    let (before, after) = (Names::of(&original), Names::of(&patched));
    Ok(Changes {
        types: types(&pair, &before, &after),
        variables: variables(&pair, &before, &after),
        signatures: signatures(&pair, &before, &after),
        exports: BTreeSet::new(),
    })
}

impl Changes {
    /// Whether something of this name differs.
    pub fn concerns(&self, name: &str) -> bool {
        self.types.iter().any(|change| change.name == name)
            || self.variables.iter().any(|change| change.name == name)
            || self.signatures.iter().any(|change| change.name == name)
            || self.exports.iter().any(|change| change.name == name || change.causes.contains(name))
    }

    /// Adds what was found in another unit. A type that changed in both in the same way is one change.
    pub fn merge(&mut self, other: Changes) {
        for mut change in other.types {
            let known =
                self.types.iter().find(|known| known.name == change.name && known.kind == change.kind);
            if let Some(known) = known.cloned() {
                self.types.remove(&known);
                change.functions.extend(known.functions);
            }
            self.types.insert(change);
        }
        self.variables.extend(other.variables);
        self.signatures.extend(other.signatures);
        self.exports.extend(other.exports);
    }
}

/// The function that an entry is in, and the thing's name.
type Name<'a> = (Option<&'a str>, String);

/// What an object defines, by name. Several things of one name are in the order of the debug information.
#[derive(Default)]
struct Names<'a> {
    types: BTreeMap<Name<'a>, Vec<usize>>,
    /// Enumerations without a name, by that of each of their values.
    values: BTreeMap<&'a str, usize>,
    variables: BTreeMap<Name<'a>, Vec<usize>>,
    functions: BTreeMap<&'a str, usize>,
}

impl<'a> Names<'a> {
    fn of(side: &Entries<'a>) -> Self {
        let mut names = Names::default();
        for (index, entry) in side.list.iter().enumerate() {
            match entry.tag {
                _ if entry.is_declaration => {}
                dw::DW_TAG_structure_type | dw::DW_TAG_union_type | dw::DW_TAG_enumeration_type => {
                    let Some(name) = entry.name else { continue };
                    names.add_type(side, index, format!("{}{name}", keyword(entry.tag)), index);
                }
                dw::DW_TAG_typedef => {
                    let target = side.target(index);
                    let unnamed = target.filter(|&to| side.get(to).is_some_and(|to| to.name.is_none()));
                    if let (Some(name), Some(target)) = (entry.name, unnamed.filter(|&to| is_type(side, to)))
                    {
                        names.add_type(side, index, name.to_owned(), target);
                    }
                }
                dw::DW_TAG_enumerator => {
                    let unnamed = entry.parent.filter(|&to| side.get(to).is_some_and(|to| to.name.is_none()));
                    if let (Some(name), Some(parent)) = (entry.name, unnamed) {
                        names.values.insert(name, parent);
                    }
                }
                dw::DW_TAG_variable => names.add_variable(side, index, entry),
                dw::DW_TAG_subprogram => {
                    if let Some(name) = side.name(index) {
                        names.functions.entry(name).or_insert(side.origin(index));
                    }
                }
                _ => {}
            }
        }
        names
    }

    fn add_type(&mut self, side: &Entries<'a>, at: usize, name: String, index: usize) {
        self.types.entry((function_of(side, at), name)).or_default().push(index);
    }

    fn add_variable(&mut self, side: &Entries<'a>, index: usize, entry: &Entry<'a>) {
        let function = function_of(side, index);
        if function.is_some() && !entry.is_static {
            return;
        }
        let is_text = |name: &str| function.is_some() && name == MESSAGE;
        let is_own = |name: &&str| !name.starts_with(NUMBERED) && !is_text(name);
        if let Some(name) = side.name(index).filter(is_own) {
            self.variables.entry((function, name.to_owned())).or_default().push(index);
        }
    }
}

fn is_type(side: &Entries<'_>, index: usize) -> bool {
    side.is_record(index) || side.get(index).is_some_and(|entry| entry.tag == dw::DW_TAG_enumeration_type)
}

/// The function that an entry is in.
fn function_of<'a>(side: &Entries<'a>, index: usize) -> Option<&'a str> {
    let mut at = side.get(index)?.parent;
    while let Some(parent) = at {
        let entry = side.get(parent)?;
        if entry.tag == dw::DW_TAG_subprogram {
            return side.name(parent);
        }
        at = entry.parent;
    }
    None
}

/// The entries of one name on both sides.
fn both<'n, K: Ord>(
    before: &'n BTreeMap<K, Vec<usize>>,
    after: &'n BTreeMap<K, Vec<usize>>,
) -> impl Iterator<Item = (&'n K, usize, usize)> {
    before.iter().flat_map(move |(name, old)| {
        let new = after.get(name).map(Vec::as_slice).unwrap_or_default();
        old.iter().zip(new).map(move |(&old, &new)| (name, old, new))
    })
}

fn types(pair: &Pair<'_>, before: &Names<'_>, after: &Names<'_>) -> BTreeSet<TypeChange> {
    let mut found: Vec<(String, usize, usize, TypeKind)> = Vec::new();
    for ((function, name), old, new) in both(&before.types, &after.types) {
        let Some(kind) = changed(pair, old, new) else { continue };
        if function.is_none() || !(is_on_stack(pair.before, old) && is_on_stack(pair.after, new)) {
            found.push((name.clone(), old, new, kind));
        }
    }
    let mut compared = BTreeSet::new();
    for (name, &old) in &before.values {
        let Some(&new) = after.values.get(name).filter(|_| compared.insert(old)) else { continue };
        if let Some(TypeKind::Enumeration(values)) = changed(pair, old, new) {
            // Without a name of its own it is known by the first that changed.
            let name = values.first().map_or(*name, |value| value.name.as_str());
            found.push((format!("enumerator {name}"), old, new, TypeKind::Enumeration(values)));
        }
    }
    if found.is_empty() {
        return BTreeSet::new();
    }
    let (users, others) = (users(pair.before), users(pair.after));
    let change = |(name, old, new, kind)| {
        let functions = users.get(&old).into_iter().chain(others.get(&new)).flatten();
        TypeChange { name, kind, functions: functions.map(|&function| function.to_owned()).collect() }
    };
    found.into_iter().map(change).collect()
}

fn changed(pair: &Pair<'_>, old: usize, new: usize) -> Option<TypeKind> {
    if pair.before.is_record(old) && pair.after.is_record(new) {
        return record::compare(pair, old, new).map(TypeKind::Record);
    }
    let values =
        enumeration::compare(&enumeration::values(pair.before, old), &enumeration::values(pair.after, new));
    (!values.is_empty()).then_some(TypeKind::Enumeration(values))
}

/// Whether all instances of a type that a function defines lie in its own frames: it has local variables of the type and
/// there is nothing else that could hold or lead to one. Such an instance is used by the code that made it and by no
/// other, as a task leaves a function before it enters the function's replacement.
fn is_on_stack(side: &Entries<'_>, index: usize) -> bool {
    side.list.iter().enumerate().all(|(at, entry)| {
        let is_local =
            entry.tag == dw::DW_TAG_variable && !entry.is_static && function_of(side, at).is_some();
        let is_qualifier =
            matches!(entry.tag, dw::DW_TAG_const_type | dw::DW_TAG_volatile_type | dw::DW_TAG_typedef);
        is_local || is_qualifier || side.target(at).is_none() || side.bare(side.target(at)) != Some(index)
    })
}

/// The functions with a parameter or local variable of a type, by the type.
fn users<'a>(side: &Entries<'a>) -> BTreeMap<usize, BTreeSet<&'a str>> {
    let mut users: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
    for (index, entry) in side.list.iter().enumerate() {
        if !matches!(entry.tag, dw::DW_TAG_variable | dw::DW_TAG_formal_parameter) {
            continue;
        }
        if let (Some(function), Some(named)) =
            (function_of(side, index), side.named_inside(side.target(index)))
        {
            users.entry(named).or_default().insert(function);
        }
    }
    users
}

fn variables(pair: &Pair<'_>, before: &Names<'_>, after: &Names<'_>) -> BTreeSet<VariableChange> {
    let mut changes = BTreeSet::new();
    for ((function, name), old, new) in both(&before.variables, &after.variables) {
        let (first, second) = (pair.before.target(old), pair.after.target(new));
        let relation = pair.relate(first, second);
        if relation == Relation::Same {
            continue;
        }
        let is_external = |at: usize| pair.before.get(at).is_some_and(|entry| entry.is_external);
        changes.insert(VariableChange {
            name: name.clone(),
            function: function.map(str::to_owned),
            is_external: is_external(old) || is_external(pair.before.origin(old)),
            shown: (pair.before.show(first), pair.after.show(second)),
            sizes: (pair.before.size(first), pair.after.size(second)),
            relation,
        });
    }
    changes
}

fn signatures(pair: &Pair<'_>, before: &Names<'_>, after: &Names<'_>) -> BTreeSet<SignatureChange> {
    let mut changes = BTreeSet::new();
    for (name, &old) in &before.functions {
        let Some(&new) = after.functions.get(name) else { continue };
        if pair.relate_functions(old, new) > Relation::Reread {
            changes.insert(SignatureChange {
                name: (*name).to_owned(),
                is_external: pair.before.get(old).is_some_and(|entry| entry.is_external),
                shown: (pair.before.show(Some(old)), pair.after.show(Some(new))),
            });
        }
    }
    changes
}
