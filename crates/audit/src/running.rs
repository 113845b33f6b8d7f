//! A livepatch in the memory of the machine that runs it: every word that a relocation wrote, every byte of its code and constants,
//! and the entry of every function that it replaces.
//!
//! What must stand there follows from the module's file and from where its sections and the kernel's symbols are. Not compared are
//! the places that the kernel rewrites when it loads a module (alternatives, jump labels, static calls, thunks), tables that it
//! sorts, and memory that is written or freed.

mod machine;
mod rewritten;

pub use machine::{Machine, MachineError, Memory};

use crate::Malformed;
use crate::elf::{Elf, Home, Relocation, is_relative, width};
use crate::finding::{Fault, Finding};
use crate::living::VMLINUX;
use crate::patch_table::{self, Entry, Meant};
use crate::side::Side;
use kmend_refusal::Refusal;
use machine::Resolved;
use serde::Serialize;
use std::ops::Range;

/// `endbr64`, which may stand before the call of the tracer.
const LANDING: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const CALL: u8 = 0xe8;
const JUMP: u8 = 0xe9;
/// Bytes of both with their displacement.
const BRANCH: usize = 5;
/// Sections that the kernel sorts when it loads a module (kernel/module/main.c, `post_relocation`; kernel/jump_label.c;
/// kernel/static_call_inline.c; arch/x86/kernel/unwind_orc.c; kernel/trace/ftrace.c), or that it writes to.
const SORTED: [&str; 6] =
    ["__ex_table", "__jump_table", ".static_call_sites", ".orc_unwind_ip", ".orc_unwind", "__mcount_loc"];
/// Beginnings of names of sections that are freed when the module has started, or are not in its memory.
const GONE: [&str; 4] = [".init", ".exit", ".data..percpu", ".modinfo"];

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Words that relocations wrote.
    pub words: usize,
    /// Bytes of code and constants.
    pub bytes: usize,
    /// Entries of replaced functions.
    pub entries: usize,
    /// Words at places that the kernel rewrites, and functions of modules that are not loaded.
    pub left: usize,
    /// What is not as it must be.
    #[serde(skip)]
    pub refusals: Vec<Refusal>,
}

/// Compares a loaded livepatch with its module's file.
///
/// # Errors
///
/// [`Malformed`] if the file cannot be read as a module.
pub fn running(module: &[u8], machine: &Machine) -> Result<Running, Malformed> {
    let side = Side::parse(module)?;
    let mut check = Check {
        side: &side,
        machine,
        found: Vec::new(),
        running: Running { words: 0, bytes: 0, entries: 0, left: 0, refusals: Vec::new() },
    };
    let rewritten = rewritten::places(&side);
    for number in 0..side.elf.sections.len() {
        check.section(number, rewritten.get(&number).map_or(&[], Vec::as_slice));
    }
    for entry in patch_table::read(&side, machine.types()).entries {
        check.entry(&entry);
    }
    let mut running = check.running;
    check.found.sort();
    running.refusals = check.found.iter().map(Finding::refusal).collect();
    Ok(running)
}

struct Check<'a> {
    side: &'a Side,
    machine: &'a Machine,
    found: Vec<Finding>,
    running: Running,
}

impl Check<'_> {
    fn fault(&mut self, symbol: &str, at: u64, expected: &str, found: &str) {
        self.found.push(Finding::new(Fault::Running, symbol, at, expected, found));
    }

    fn elf(&self) -> &Elf {
        &self.side.elf
    }

    fn section(&mut self, number: usize, rewritten: &[Range<u64>]) {
        let section = &self.side.elf.sections[number];
        let is_left = !section.is_loaded()
            || section.size == 0
            || section.is_zeros()
            || SORTED.contains(&section.name.as_str())
            || GONE.iter().any(|start| section.name.starts_with(start))
            || !(section.is_code() || section.is_constant());
        let Some(address) = self.machine.section(&section.name).filter(|_| !is_left) else { return };
        let file = self.elf().contents(number).to_vec();
        let name = section.name.clone();
        let Some(memory) = self.machine.read(address, file.len()) else {
            return self.fault(&name, 0, "memory of the module", "none");
        };
        // Bytes of the file that count, and those that something else than the file says.
        let mut is_plain = vec![true; file.len()];
        let mut hide = |range: Range<u64>| {
            let end = (range.end as usize).min(is_plain.len());
            if let Some(part) = is_plain.get_mut(range.start as usize..end) {
                part.fill(false);
            }
        };
        rewritten.iter().cloned().for_each(&mut hide);
        let is_rewritten = |offset: u64| rewritten.iter().any(|range| range.contains(&offset));
        let relocations: Vec<Relocation> = section.relocations.clone();
        for relocation in &relocations {
            let width = width(relocation.kind).unwrap_or(0);
            hide(relocation.offset..relocation.offset + width);
            if width == 0 {
                continue;
            }
            if is_rewritten(relocation.offset) {
                self.running.left += 1;
                continue;
            }
            self.word(relocation, address, &memory, width);
        }
        let bytes = file.iter().zip(&memory).zip(&is_plain).enumerate();
        let differing =
            bytes.filter(|(_, (_, is_plain))| **is_plain).find(|(_, ((one, other), _))| one != other);
        self.running.bytes += is_plain.iter().filter(|&&is_plain| is_plain).count();
        if let Some((at, ((file, memory), _))) = differing {
            let (file, memory) = (format!("{file:#04x}"), format!("{memory:#04x}"));
            self.fault(&name, at as u64, &file, &memory);
        }
    }

    /// A word that a relocation wrote.
    fn word(&mut self, relocation: &Relocation, address: u64, memory: &[u8], width: u64) {
        let at = relocation.offset as usize;
        let Some(bytes) = memory.get(at..at + width as usize) else { return };
        let symbol = &self.side.elf.symbols[relocation.symbol];
        let name = symbol.name.clone();
        let base = match symbol.home {
            Home::Section(section) => {
                let name = &self.side.elf.sections[section].name;
                self.machine.section(name).map(|base| base.wrapping_add(symbol.value))
            }
            Home::Livepatch => match self.machine.livepatch_symbol(&symbol.name) {
                Resolved::Place(found) => Some(found),
                Resolved::NotLoaded => None,
                Resolved::Nothing => {
                    return self.fault(&name, relocation.offset, "a symbol of the kernel", "none");
                }
            },
            Home::Undefined => self.machine.export(&symbol.name),
            Home::Absolute | Home::Other => None,
        };
        let Some(base) = base else {
            self.running.left += 1;
            return;
        };
        let mut value = base.wrapping_add_signed(relocation.addend);
        if is_relative(relocation.kind) {
            value = value.wrapping_sub(address + relocation.offset);
        }
        self.running.words += 1;
        let expected = &value.to_le_bytes()[..width as usize];
        if expected != bytes {
            let (expected, found) = (hex(expected), hex(bytes));
            let name = if name.is_empty() { "a place of the module".to_owned() } else { name };
            self.fault(&name, relocation.offset, &expected, &found);
        }
    }

    /// The entry of a replaced function: it leads to the tracer, or to the livepatch itself.
    fn entry(&mut self, entry: &Entry) {
        let place = match &entry.meant {
            Meant::Position(position) => self.machine.resolve(&entry.object, &entry.name, *position),
            Meant::Reference(reference) => match reference.target {
                crate::code::Target::Outside(symbol, 0) => {
                    match self.machine.livepatch_symbol(&self.side.elf.symbols[symbol].name) {
                        Resolved::Place(found) => Some(found),
                        Resolved::NotLoaded | Resolved::Nothing => None,
                    }
                }
                _ => None,
            },
        };
        let Some(address) = place else {
            if entry.object == VMLINUX || self.machine.has_module(&entry.object) {
                self.fault(&entry.name, 0, "a function of the kernel", "none");
            } else {
                self.running.left += 1;
            }
            return;
        };
        self.running.entries += 1;
        let Some(bytes) = self.machine.read(address, LANDING.len() + BRANCH) else {
            return self.fault(&entry.name, 0, "memory of the kernel", "none");
        };
        let skip = if bytes.starts_with(&LANDING) { LANDING.len() } else { 0 };
        let target = match bytes[skip..] {
            [CALL | JUMP, a, b, c, d, ..] => {
                let by = i64::from(i32::from_le_bytes([a, b, c, d]));
                Some(address.wrapping_add((skip + BRANCH) as u64).wrapping_add_signed(by))
            }
            _ => None,
        };
        let new = self.section_address(entry.replacement.0).map(|base| base + entry.replacement.1);
        let leads_on = target.is_some_and(|target| {
            self.machine.is_tracer(target) || new.is_some_and(|new| (new..new + 16).contains(&target))
        });
        if !leads_on {
            let found = hex(&bytes[skip..skip + BRANCH]);
            self.fault(&entry.name, 0, "a call of the tracer", &found);
        }
    }

    fn section_address(&self, number: usize) -> Option<u64> {
        self.machine.section(&self.side.elf.sections.get(number)?.name)
    }
}

fn hex(bytes: &[u8]) -> String {
    let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.join(" ")
}

#[cfg(test)]
mod tests;
