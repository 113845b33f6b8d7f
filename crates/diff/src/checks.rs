//! What must not change, and what cannot be patched.

use crate::atoms::{AtomId, AtomKind, IrregularSection, Unit};
use crate::author::Requests;
use crate::compare::{Comparison, Reason};
use crate::exports;
use crate::gone::{self, PassedOver};
use crate::marks::Marks;
use crate::memory::MemoryChanges;
use crate::references::Target;
use crate::select;
use crate::special::{Registers, Treatment};
use crate::update::{self, Update};
use kmend_object::{Binding, SectionId};
use kmend_refusal::{Code, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// The variables to update, and everything about two units that a livepatch cannot do, whichever functions changed. What it
/// can do without is added to what is passed over.
pub(crate) fn changes(
    comparison: &Comparison<'_>,
    marks: &Marks,
    memory: &MemoryChanges,
    passed: &mut PassedOver,
) -> (Vec<Update>, Vec<Refusal>) {
    let (mut updates, mut refusals) = (Vec::new(), Vec::new());
    for patched in comparison.patched.ids().filter(|&id| !is_type_id(comparison.patched, id)) {
        let Some(original) = comparison.pairing.original(patched) else { continue };
        if exports::is_namespace(comparison.patched, patched) {
            continue;
        }
        if let Some(terms) = exports::other_terms(comparison, original, patched) {
            passed.refusals.push(terms);
            continue;
        }
        let Some(reason) = comparison.difference(original, patched) else { continue };
        let is_gone_too = passed.alone_use_original(comparison.original, original)
            && passed.alone_use_patched(comparison.patched, patched);
        if passed.has(patched) || is_gone_too || memory.refuses(patched) {
            continue;
        }
        let is_variable = comparison.patched.atom(patched).kind == AtomKind::Variable
            || update::is_parameter(comparison.patched, patched);
        if is_variable && !matches!(reason, Reason::Size { .. }) {
            match update::plan(comparison, marks, original, patched) {
                Ok(update) => updates.push(update),
                Err(refusal) => refusals.push(refusal),
            }
        } else {
            refusals.extend(refuse_pair(comparison.patched, patched, &reason));
        }
    }
    updates.extend(marks.exit.and_then(|exit| update::exit(comparison, exit)));
    refusals.extend(refuse_registrations(comparison, memory, passed));
    (updates, refusals)
}

fn refuse_pair(unit: &Unit<'_>, id: AtomId, reason: &Reason) -> Option<Refusal> {
    let atom = unit.atom(id);
    let name = unit.name(id);
    match atom.kind {
        AtomKind::Function if unit.is_gone(id) => Some(gone::refusal(unit, id, &reason.to_string())),
        AtomKind::Variable => {
            let Reason::Size { before, after } = reason else { return None };
            let is_global = unit.symbol_of(id).is_some_and(|symbol| symbol.binding != Binding::Local);
            let code = if is_global { Code::ChangedGlobal } else { Code::ChangedStatic };
            Some(Refusal::new(code, name, format!("its size changes from {before} to {after} bytes")))
        }
        AtomKind::Fixed => Some(refuse_fixed(unit, id, &format!("it changes ({reason})"))),
        AtomKind::Function | AtomKind::Content | AtomKind::Entry => None,
    }
}

fn refuse_fixed(unit: &Unit<'_>, id: AtomId, why: &str) -> Refusal {
    let section = unit.section_of(id).name.clone();
    match unit.treatment_of(id) {
        Treatment::Registration(Registers::Export | Registers::Parameter) => {
            Refusal::new(Code::ChangedExport, unit.name(id), format!("in {section}: {why}"))
        }
        Treatment::Registration(Registers::Start) => Refusal::new(
            Code::ChangedInit,
            unit.name(id),
            format!("it is registered through {section} at the start: {why}"),
        ),
        Treatment::Registration(Registers::Description | Registers::TypeIds | Registers::OfModule) => {
            let why = format!("the running kernel keeps the entries of {section} that it has: {why}");
            Refusal::new(Code::ChangedRegistration, unit.name(id), why)
        }
        _ => Refusal::new(Code::UnknownSection, section, format!("{}: {why}", unit.name(id))),
    }
}

/// Compares what no name pairs in registering sections: the compiler numbers many of them.
fn refuse_registrations(
    comparison: &Comparison<'_>,
    memory: &MemoryChanges,
    passed: &mut PassedOver,
) -> Vec<Refusal> {
    let (mut refusals, mut exports) = (Vec::new(), BTreeSet::new());
    let mut left: BTreeMap<String, Vec<AtomId>> = BTreeMap::new();
    let requests = comparison.requests;
    for id in comparison.original.ids().filter(|&id| is_unpaired(comparison.original, id)) {
        if comparison.pairing.patched(id).is_none() && !requests.ignores(comparison.original, id) {
            left.entry(comparison.original.section_of(id).name.clone()).or_default().push(id);
        }
    }
    for id in comparison.patched.ids().filter(|&id| is_unpaired(comparison.patched, id)) {
        // What a new entry registers may go along ([`refuse_unused_entries`]).
        let may_go_along = select::is_of_module(comparison.patched, id);
        if may_go_along
            || comparison.pairing.original(id).is_some()
            || requests.ignores(comparison.patched, id)
        {
            continue;
        }
        let section = &comparison.patched.section_of(id).name;
        let candidates = left.entry(section.clone()).or_default();
        match candidates.iter().position(|&other| comparison.difference(other, id).is_none()) {
            Some(at) => {
                candidates.remove(at);
            }
            None if passed.alone_use_patched(comparison.patched, id) => {}
            None if is_export(comparison.patched, id) => {
                let why = "a livepatch exports nothing, so that other modules cannot use it";
                exports.insert(export(comparison.patched, id, why));
            }
            None => refusals.push(refuse_fixed(comparison.patched, id, "it is new")),
        }
    }
    let is_missed = |id: &AtomId| !memory.copies(*id) && !passed.alone_use_original(comparison.original, *id);
    for id in left.into_values().flatten().filter(is_missed) {
        if is_export(comparison.original, id) {
            exports.insert(export(comparison.original, id, "the running kernel goes on exporting it"));
        } else {
            refusals.push(refuse_fixed(comparison.original, id, "it is gone"));
        }
    }
    passed.refusals.extend(exports);
    refusals
}

fn is_export(unit: &Unit<'_>, id: AtomId) -> bool {
    unit.treatment_of(id) == Treatment::Registration(Registers::Export)
}

/// A symbol that is exported on one side only. Each has several entries.
fn export(unit: &Unit<'_>, id: AtomId, why: &str) -> Refusal {
    let entry = unit.name(id);
    let beginnings = ["__ksymtab_", "__kstrtabns_", "__kstrtab_", "__export_symbol_"];
    let symbol = beginnings.iter().find_map(|beginning| entry.strip_prefix(beginning));
    Refusal::new(Code::ChangedExport, symbol.unwrap_or(&entry), why)
}

/// Whether it registers something or lies in an unknown section.
fn is_unpaired(unit: &Unit<'_>, id: AtomId) -> bool {
    unit.atom(id).kind == AtomKind::Fixed && !is_type_id(unit, id)
}

/// Whether it is compared by what it stands for ([`crate::type_ids`]).
fn is_type_id(unit: &Unit<'_>, id: AtomId) -> bool {
    unit.treatment_of(id) == Treatment::Registration(Registers::TypeIds)
}

/// New entries of tables that are read of each module, which no new variable of the livepatch goes with.
pub(crate) fn refuse_unused_entries(comparison: &Comparison<'_>, kept: &BTreeSet<AtomId>) -> Vec<Refusal> {
    let Comparison { patched, pairing, requests, .. } = comparison;
    let is_unused = |&id: &AtomId| {
        select::is_of_module(patched, id)
            && pairing.original(id).is_none()
            && !kept.contains(&id)
            && !requests.ignores(patched, id)
    };
    let why = "it is new, and nothing of the livepatch uses what it registers";
    patched.ids().filter(is_unused).map(|id| refuse_fixed(patched, id, why)).collect()
}

/// Whether a reference means a place in code, and not a function's entry.
fn is_inside(unit: &Unit<'_>, id: AtomId, offset: i64) -> bool {
    unit.section_of(id).is_code() && (offset != 0 || unit.atom(id).kind != AtomKind::Function)
}

/// Unknown sections that lead into a changed function, and tables without a rhythm.
///
/// A table that changes is refused already ([`changes`]). One that does not may lead to a changed function's entry, whatever
/// registers it there: the living pointer leads to the original, which is redirected (`sched_class` in
/// kernel/sched/sched.h, quirks in include/linux/pci.h). A place further inside is one of the old code's, and only a row of the
/// table of sections says what that means to the kernel.
pub(crate) fn refuse_unknown_sections(
    unit: &Unit<'_>,
    irregular: &[IrregularSection],
    requests: &Requests,
    kept: &BTreeSet<AtomId>,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut named: BTreeSet<SectionId> = BTreeSet::new();
    for id in unit.ids() {
        let atom = unit.atom(id);
        let is_unknown = unit.treatment_of(id) == Treatment::Unknown;
        if atom.kind != AtomKind::Fixed || !is_unknown || requests.ignores(unit, id) {
            continue;
        }
        let hit = atom.references.iter().find_map(|reference| match reference.target {
            Target::Atom { id, offset } if kept.contains(&id) && is_inside(unit, id, offset) => Some(id),
            _ => None,
        });
        if let Some(function) = hit.filter(|_| named.insert(atom.section)) {
            let why = format!("it refers to a place in {}, which is patched", unit.name(function));
            refusals.push(Refusal::new(Code::UnknownSection, unit.section_of(id).name.clone(), why));
        }
    }
    for section in irregular {
        let compared =
            matches!(unit.treatments[section.section.index()], Treatment::Entries { compared: true, .. });
        if compared && !kept.is_empty() {
            let name = unit.object.section(section.section).name.clone();
            let why = "its entries do not have the shape that this table has in the kernel";
            refusals.push(Refusal::new(Code::UnknownSection, name, why));
        }
    }
    refusals
}
