//! A second opinion on a finished livepatch module.
//!
//! The module is held against the kernel's own files and against original and patched object of each unit, as the kernel's
//! build would make them. What is asked, and where:
//!
//! ```text
//! elf, code, side   relocatable objects: sections, symbols, instructions, and what a place belongs to
//! living            what names and positions lead to in the kernel
//! ground            where the original stands in the kernel, and what its references lead to there
//! pair, same        which symbols of the two objects are one thing, and which differ
//! patch_table       a. each entry of the patch table leads to the function that is meant
//! lead, copies, entries, rewrite   b. the module's code is the patched object's, c. every reference leads to the right thing
//! words, missing    d. nothing that differs is left out            e. nothing leads to freed memory
//! tables, derived, unwind   the tables of places in code, entry by entry
//! running           what a machine has in its memory of a loaded livepatch
//! ```
//!
//! Last, every relocation of the module must have been looked at by one of these, and every byte of its code be a function's
//! or room between functions: what nothing accounts for is a finding.
//!
//! Architecture invariant: nothing here is shared with the crates that compare, match or link, or with their view of an object:
//! another reader, another disassembler, another way to pair. Shared are the reader of images and modules' files
//! (`kmend-kernel`: the image's bytes, its symbols and their order, its exports and types, /proc/kallsyms), because these are the kernel's own
//! statements, and two readers of one format would agree about what it says.

mod code;
mod copies;
mod derived;
mod elf;
mod entries;
mod finding;
mod frame;
mod ground;
mod lead;
mod living;
mod missing;
mod pair;
mod patch_table;
mod rewrite;
mod running;
mod same;
mod side;
mod tables;
#[cfg(test)]
mod tests;
mod unit;
mod unwind;
mod words;

pub use elf::Malformed;
pub use running::{Machine, MachineError, Memory, Running, running};

use finding::{Fault, Finding};
use kmend_kernel::{Image, ModuleTree};
use kmend_refusal::Refusal;
use lead::Lead;
use living::Kernel;
use serde::Serialize;
use side::Side;
use std::collections::BTreeSet;
use unit::{Objects, Unit};

/// The objects of one unit, as the kernel's build would make them: functions share sections, and there is no debug information.
#[derive(Debug, Clone, Copy)]
pub struct UnitObjects<'a> {
    /// The source, from the kernel tree's root.
    pub source: &'a str,
    /// `vmlinux`, or the name of the module that the unit is part of.
    pub owner: &'a str,
    /// The original.
    pub plain: &'a [u8],
    /// The patched source's.
    pub patched: &'a [u8],
    /// The patched source's with tests in the place of jump labels of modules' keys, if it has such.
    pub tested: Option<&'a [u8]>,
}

/// What is audited, and what it is held against.
pub struct Input<'a> {
    /// The module's file.
    pub module: &'a [u8],
    /// The kernel's image.
    pub image: &'a Image,
    /// Its modules.
    pub modules: Option<&'a ModuleTree>,
    /// Every unit that the patch changes.
    pub units: &'a [UnitObjects<'a>],
    /// The object of the patch table, as the module's build made it. Without it the table's own code is not looked at.
    pub table: Option<&'a [u8]>,
}

/// What the audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Functions whose code was compared.
    pub functions: usize,
    /// References that were followed to what they lead to.
    pub references: usize,
    /// Words of the running kernel's data that are exchanged, in bytes.
    pub exchanged: usize,
    /// What is left as it is on purpose, and what was not looked at.
    pub notes: Vec<String>,
    /// What is wrong; nothing, if the module is right.
    #[serde(skip)]
    pub refusals: Vec<Refusal>,
}

/// Audits a module.
pub fn audit(input: &Input<'_>) -> Result<Audit, Malformed> {
    let kernel = Kernel::new(input.image, input.modules);
    let module = Side::parse(input.module)?;
    let mut units = Vec::new();
    for unit in input.units {
        let objects = Objects {
            source: unit.source,
            owner: unit.owner,
            plain: unit.plain,
            patched: unit.patched,
            tested: unit.tested,
        };
        units.push(Unit::read(&objects, &kernel)?);
    }
    units.extend(input.table.map(|table| Unit::table(table, &kernel)).transpose()?);
    let mut lead = Lead::new(&units, &module, &kernel);
    let mut notes = Vec::new();
    let changes: Vec<_> = (0..units.len())
        .map(|number| if units[number].is_table { Vec::new() } else { missing::changes(&lead, number) })
        .collect();
    for (number, changes) in changes.iter().enumerate() {
        let names = changes.iter().map(|change| units[number].patched.name(change.patched).to_owned());
        lead.changed.extend(names.map(|name| (number, name)));
    }
    frame::roots(&mut lead, input.table.is_some());
    lead.run();
    let exchanged = words::check(&mut lead);
    lead.run();
    frame::read_of_modules(&mut lead);
    lead.run();
    for (number, changes) in changes.iter().enumerate().filter(|(number, _)| !units[*number].is_table) {
        notes.extend(missing::check(&mut lead, number, changes, &exchanged));
    }
    derived::check(&mut lead);
    frame::close(&mut lead, input.table.is_some());
    if input.table.is_none() {
        notes.push("the patch table's own code was not looked at: its object was not kept".to_owned());
    }
    let findings: BTreeSet<Finding> = lead.findings.drain(..).collect();
    Ok(Audit {
        functions: lead.code.len(),
        references: lead.references,
        exchanged: exchanged.len(),
        notes,
        refusals: findings.iter().map(Finding::refusal).collect(),
    })
}

impl Lead<'_> {
    /// Notes that something is wrong.
    pub(crate) fn found(&mut self, fault: Fault, symbol: &str, at: u64, expected: &str, found: &str) {
        self.findings.push(Finding::new(fault, symbol, at, expected, found));
    }
}
