//! What the audit holds against a module.

use crate::code::{Code, Insn};
use crate::elf::Elf;
use kmend_refusal::{Code as Number, Refusal};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// An entry of the patch table.
    Entry,
    /// The code of a function.
    Code,
    /// The contents of a datum.
    Data,
    /// What a relocation leads to.
    Reference,
    /// A change that is not in the module.
    Missing,
    /// A reference to memory that is freed.
    Freed,
    /// A write to memory that is read-only.
    ReadOnly,
    /// The kind of memory that something is put in.
    Memory,
    /// A table of places in code.
    Table,
    /// Something that no patched object accounts for.
    Unexplained,
    /// The original is not found in the kernel.
    Lost,
    /// The memory of a running machine.
    Running,
}

impl Fault {
    fn number(self) -> Number {
        match self {
            Fault::Entry => Number::AuditEntry,
            Fault::Code | Fault::Data => Number::AuditCode,
            Fault::Reference => Number::AuditReference,
            Fault::Missing => Number::AuditMissing,
            Fault::Freed | Fault::ReadOnly | Fault::Memory => Number::AuditMemory,
            Fault::Table => Number::AuditTable,
            Fault::Unexplained => Number::AuditUnexplained,
            Fault::Lost => Number::AuditLost,
            Fault::Running => Number::AuditRunning,
        }
    }
}

/// One of them, with its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) fault: Fault,
    pub(crate) symbol: String,
    /// From the symbol's begin, in bytes.
    pub(crate) at: u64,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Finding {
    pub(crate) fn new(fault: Fault, symbol: &str, at: u64, expected: &str, found: &str) -> Self {
        Finding {
            fault,
            symbol: symbol.to_owned(),
            at,
            expected: expected.to_owned(),
            found: found.to_owned(),
        }
    }

    pub(crate) fn refusal(&self) -> Refusal {
        let (at, expected, found) = (self.at, &self.expected, &self.found);
        let why = format!("at offset {at:#x}: expected {expected}, found {found}");
        Refusal::new(self.fault.number(), &self.symbol, why)
    }
}

/// An instruction's bytes.
pub(crate) fn hex(elf: &Elf, code: &Code, insn: &Insn) -> String {
    let start = code.range.start + insn.at;
    let bytes = elf.bytes(code.section, &(start..start + insn.length)).unwrap_or_default();
    let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.join(" ")
}
