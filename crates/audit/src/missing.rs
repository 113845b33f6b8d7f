//! Whether all that differs between original and patched object is in the module.

use crate::code::Target;
use crate::finding::{Fault, Finding};
use crate::lead::Lead;
use crate::living::{Living, VMLINUX, is_start};
use crate::pair::is_part;
use crate::same::{Change, Comparison};
use crate::side::{Side, base_name};
use crate::tables::Kind;
use crate::unit::Unit;
use std::collections::BTreeSet;

/// How deep data without a name is followed.
const DEEPEST: u32 = 8;
/// Beginnings of names of sections whose differences are looked at elsewhere, or say nothing of running code.
#[rustfmt::skip]
const ELSEWHERE: [(&str, &str); 10] = [
    (".discard", "notes for objtool; nothing of them is linked"),
    (".modinfo", "text about a module's file"),
    (".kmend.", "what the patch's author says to kmend"),
    (".note", "text about the object"),
    (".comment", "text about the compiler"),
    (".init", "has run, and is freed"),
    ("__dyndbg", "each copy of the code has its own"),
    (".printk_index", "an index of formats for user space"),
    (".BTF_ids", "filled in by resolve_btfids"),
    (".altinstr", "belongs to code, and is compared with that"),
];

/// The author's wishes in one unit, by the sections of `kmend.h`.
pub(crate) struct Wishes {
    functions: BTreeSet<String>,
    sections: BTreeSet<String>,
}

impl Wishes {
    pub(crate) fn of(side: &Side) -> Wishes {
        Wishes {
            functions: side.texts(".kmend.ignore.functions"),
            sections: side.texts(".kmend.ignore.sections"),
        }
    }

    fn function(&self, name: &str) -> bool {
        self.functions.contains(source_name(name))
    }

    fn section(&self, name: &str) -> bool {
        self.sections.contains(name)
    }
}

/// A function's name in the source: without what the compiler adds.
fn source_name(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// The functions of a unit that differ.
pub(crate) fn changes(lead: &Lead<'_>, number: usize) -> Vec<Change> {
    comparison(lead, number).changed_functions()
}

/// The two objects of a unit, with what moved between it and others.
fn comparison<'a>(lead: &Lead<'a>, number: usize) -> Comparison<'a> {
    let units = lead.units;
    let unit = &units[number];
    let is_known_here = |name: &str, place: &Living| {
        unit.living_original(name, lead.kernel).or_else(|| unit.outside(name, lead.kernel)).as_ref()
            == Some(place)
    };
    let moved = lead.moved.iter().filter(|(name, (_, place))| is_known_here(name, place));
    let moved = moved.map(|(name, _)| name.clone()).collect();
    Comparison::new(&unit.original, &unit.patched, &unit.pairs, moved)
}

/// Looks for each change of a unit in the module. The result are notes of what is left on purpose.
pub(crate) fn check(
    lead: &mut Lead<'_>,
    number: usize,
    changes: &[Change],
    exchanged: &BTreeSet<Living>,
) -> Vec<String> {
    let units = lead.units;
    let unit = &units[number];
    let wishes = Wishes::of(&unit.patched);
    let mut notes = Vec::new();
    for change in changes {
        let name = unit.patched.name(change.patched);
        if lead.replaced.contains(&(number, name.to_owned())) {
            continue;
        }
        let section =
            &unit.original.elf.sections[unit.original.section_of(change.original).unwrap_or(0)].name;
        if let Some(why) = left(unit, section, name, &wishes) {
            notes.push(format!("{name} of {} differs and is left as it is: {why}", unit.source));
            continue;
        }
        let fault = |found: &str| Finding::new(Fault::Missing, name, change.at, "its new code", found);
        if !is_copied(lead, number, name) {
            lead.findings.push(fault("the old code"));
            continue;
        }
        for user in users(unit, change.patched, exchanged, lead) {
            lead.findings.push(fault(&format!("the old code, by way of {user}")));
        }
    }
    check_data(lead, number, &wishes, exchanged);
    notes
}

/// Why a changed function may be left as it is.
fn left(unit: &Unit, section: &str, name: &str, wishes: &Wishes) -> Option<&'static str> {
    if wishes.function(name) || wishes.section(section) {
        return Some("the patch says so");
    }
    if is_start(section) {
        return Some("it has run and is gone");
    }
    (unit.owner == VMLINUX && section.starts_with(".exit")).then_some("what is built in is never unloaded")
}

/// Whether the module has a function of the patched object.
fn is_copied(lead: &Lead<'_>, number: usize, name: &str) -> bool {
    let side = &lead.units[number].live;
    let place = side.elf.only(name).and_then(|symbol| side.elf.place(symbol));
    place.is_some_and(|(section, value)| lead.copies.contains_key(&(number, section, value)))
}

/// Who refers to a function that the table does not replace, and is not in the module itself.
fn users(unit: &Unit, function: usize, exchanged: &BTreeSet<Living>, lead: &Lead<'_>) -> Vec<String> {
    let side = &unit.patched;
    let Some((section, value)) = side.elf.place(function) else { return Vec::new() };
    let number = lead.units.iter().position(|other| std::ptr::eq(other, unit)).unwrap_or(0);
    let leads_there = |target: Target| target == Target::Inside(section, value as i64);
    let mut users = Vec::new();
    for user in side.functions().filter(|&user| user != function) {
        let Some(code) = side.code(user) else { continue };
        let refers = code.insns.iter().flat_map(|insn| &insn.references).any(|one| leads_there(one.target));
        let name = side.name(user);
        let own = base_name(name) == format!("{}.cold", base_name(side.name(function)));
        let place = side.elf.place(user).map(|(section, _)| side.elf.sections[section].name.as_str());
        let is_gone = place.is_some_and(is_start);
        if refers && !own && !is_gone && !is_copied(lead, number, name) {
            users.push(name.to_owned());
        }
    }
    for datum in side.data() {
        let Some((place, range)) = side.extent(datum) else { continue };
        let name = side.name(datum);
        let parsed = &side.elf.sections[place];
        // Keeps its function in the object, and is read by nobody (include/linux/compiler.h, `___ADDRESSABLE`).
        if name.starts_with("__UNIQUE_ID___addressable_") {
            continue;
        }
        if Kind::of(&parsed.name).is_some() || is_elsewhere(&parsed.name) || !parsed.is_loaded() {
            continue;
        }
        for reference in side.references(place, &range).iter().filter(|one| leads_there(one.target)) {
            let living = unit.living(name, lead.kernel).map(|place| place.moved(reference.at as i64));
            // What the kernel does not have is the module's.
            if living.is_some_and(|living| !exchanged.contains(&living)) {
                users.push(name.to_owned());
            }
        }
    }
    users
}

fn is_elsewhere(section: &str) -> bool {
    ELSEWHERE.iter().any(|(start, _)| section.starts_with(start))
}

/// Data that differs must be exchanged where it lives.
fn check_data(lead: &mut Lead<'_>, number: usize, wishes: &Wishes, exchanged: &BTreeSet<Living>) {
    let units = lead.units;
    let unit = &units[number];
    let comparison = comparison(lead, number);
    let mut found = Vec::new();
    for datum in unit.patched.data() {
        let name = unit.patched.name(datum);
        let Some(original) = comparison.original_of(datum) else { continue };
        let (Some(mine), Some(theirs)) = (unit.original.extent(original), unit.patched.extent(datum)) else {
            continue;
        };
        let (before, after) = (&unit.original.elf.sections[mine.0], &unit.patched.elf.sections[theirs.0]);
        let is_left = is_elsewhere(&after.name) && is_elsewhere(&before.name)
            || wishes.section(&after.name)
            || Kind::of(&after.name).is_some();
        // Constants that the compiler numbers have no identity: who uses them is compared by their contents.
        let is_anonymous = name != base_name(name) && after.is_constant() && before.is_constant();
        if is_left || is_anonymous || is_part(name) {
            continue;
        }
        if before.is_writable() != after.is_writable() || before.is_loaded() != after.is_loaded() {
            found.push((name, 0, format!("memory as {}", after.name), format!("memory as {}", before.name)));
            continue;
        }
        if mine.1.end - mine.1.start != theirs.1.end - theirs.1.start {
            found.push((name, 0, "its new size".to_owned(), "its old size".to_owned()));
            continue;
        }
        let living = unit.living(name, lead.kernel);
        let is_exchanged =
            |at: u64| living.as_ref().is_some_and(|living| exchanged.contains(&living.moved(at as i64)));
        let differing = comparison.differing_bytes(&mine, &theirs, DEEPEST);
        if let Some(at) = differing.into_iter().find(|&at| !is_exchanged(at)) {
            found.push((name, at, "its new value".to_owned(), "the old one".to_owned()));
        }
    }
    let findings = found
        .into_iter()
        .map(|(name, at, expected, found)| Finding::new(Fault::Missing, name, at, &expected, &found));
    lead.findings.extend(findings.collect::<Vec<_>>());
}
