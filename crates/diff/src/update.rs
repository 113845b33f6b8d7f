//! Changed initial values that the livepatch can write into the running kernel.
//!
//! A variable lives where it is, with the value it has now. What kmend can do is to exchange the words that differ,
//! if each still holds what the original put there: the livepatch checks that before it patches anything. That is
//! done for read-only data, which nothing else writes; for function pointers in writable data, because another
//! function in an operations table is a call that goes elsewhere, as a patched function is; and for whatever the
//! patch's author names (`KMEND_UPDATE_DATA()`). A pointer to a string is exchanged in read-only data: the running kernel's leads to the
//! original's text, wherever that lies. The operations of a module parameter are read each time that it is set or
//! shown (kernel/params.c, `param_attr_store`), and exchanged like those of any table; the rest of it was registered.
//!
//! Words are naturally aligned, so that a number is exchanged at once. One of read-only data is as narrow as it can be
//! to hold all differing bytes; in writable data it is as wide as the variable's alignment, so that all of a number is
//! compared, not only the bytes of it that differ.

use crate::atoms::{Atom, AtomId, AtomKind, Unit};
use crate::compare::Comparison;
use crate::extract::Reference as Outside;
use crate::marks::{Exit, Marks};
use crate::references::{Reference, Target};
use crate::select::{self, Route};
use crate::special::{self, Memory, Registers, Treatment};
use kmend_object::{SectionId, elf};
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of the widest word that is exchanged at once.
const WORD: u64 = 8;
/// Where `ops` is in `struct kernel_param`, and `set` and `get` in what it points to (include/linux/moduleparam.h), in bytes.
const OPERATIONS: u64 = 16;
const SET_AND_GET: [u64; 2] = [8, 16];
/// The module that a unit is a part of (include/linux/export.h, `THIS_MODULE`).
const THIS_MODULE: &str = "__this_module";

/// A variable whose living value is to be exchanged.
#[derive(Debug)]
pub(crate) struct Update {
    /// The variable in the patched unit; `None` for what no unit defines.
    pub(crate) variable: Option<AtomId>,
    /// What it is in the running kernel.
    pub(crate) place: Outside,
    /// Whether it is read-only: then it may also hold the new value, which a livepatch that was replaced put there.
    pub(crate) constant: bool,
    pub(crate) words: Vec<Word>,
}

/// Bytes that are exchanged at once.
#[derive(Debug)]
pub(crate) struct Word {
    /// From the variable's beginning, in bytes.
    pub(crate) offset: u64,
    /// 1, 2, 4 or 8 bytes.
    pub(crate) width: u64,
    pub(crate) old: Value,
    pub(crate) new: Value,
}

/// What a word holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Number(u64),
    /// An address in the running kernel.
    Outside(Outside, i64),
    /// An address in the livepatch.
    Kept(AtomId, i64),
    /// A string of the original, which lies somewhere in the running kernel: the text says which.
    Living(SectionId, u64),
    /// A string of the patched unit, in the livepatch.
    Text(SectionId, u64),
}

impl Update {
    /// What of the patched unit the new value leads to, and the running kernel lacks.
    pub(crate) fn needs(&self) -> impl Iterator<Item = AtomId> {
        self.words.iter().filter_map(|word| match word.new {
            Value::Kept(id, _) => Some(id),
            _ => None,
        })
    }

    /// Whether the new value leads into the livepatch.
    pub(crate) fn leads_inside(&self) -> bool {
        self.words.iter().any(|word| matches!(word.new, Value::Kept(..) | Value::Text(..)))
    }
}

/// Plans that a module's unload runs another function: `struct module` has a pointer to it (kernel/module/main.c,
/// `delete_module`).
pub(crate) fn exit(comparison: &Comparison<'_>, exit: Exit) -> Option<Update> {
    let original = comparison.pairing.original(exit.function)?;
    let old = Outside::Original { name: comparison.original.name(original) };
    let word = Word {
        offset: exit.pointer,
        width: WORD,
        old: Value::Outside(old, 0),
        new: Value::Kept(exit.function, 0),
    };
    let place = Outside::External { name: THIS_MODULE.to_owned() };
    Some(Update { variable: None, place, constant: false, words: vec![word] })
}

/// Plans the update of a variable that differs from its original and has its size.
pub(crate) fn plan(
    comparison: &Comparison<'_>,
    marks: &Marks,
    original: AtomId,
    patched: AtomId,
) -> Result<Update, Refusal> {
    let planner = Planner { comparison, marks, original, patched };
    let code =
        if is_parameter(comparison.patched, patched) { Code::ChangedExport } else { Code::ChangedData };
    planner.plan().map_err(|why| Refusal::new(code, comparison.patched.name(patched), why))
}

/// Whether it describes a module parameter.
pub(crate) fn is_parameter(unit: &Unit<'_>, id: AtomId) -> bool {
    unit.treatment_of(id) == Treatment::Registration(Registers::Parameter)
}

struct Planner<'a> {
    comparison: &'a Comparison<'a>,
    marks: &'a Marks,
    original: AtomId,
    patched: AtomId,
}

impl Planner<'_> {
    fn plan(&self) -> Result<Update, String> {
        let (unit, other) = (self.comparison.patched, self.comparison.original);
        let section = other.section_of(self.original);
        let is_parameter = is_parameter(other, self.original);
        let memory = special::memory_of(section);
        let is_reached = matches!(memory, Memory::Writable | Memory::ReadOnly | Memory::ReadOnlyAfterStart);
        let is_plain = is_reached && select::holds_plain_data(&section.name);
        if !(is_parameter || is_plain) {
            return Err(format!("its initial value changes, and it lies in {}", section.name));
        }
        let place = Outside::Original { name: other.name(self.original) };
        let words = self.words()?;
        if is_parameter {
            self.require_operations(&words)?;
        }
        let constant = self.constant();
        if !constant && !self.comparison.requests.updates(unit, self.patched) {
            self.require_function_pointers(&words)?;
        }
        Ok(Update { variable: Some(self.patched), place, constant, words })
    }

    /// Whether nothing but a livepatch writes it.
    fn constant(&self) -> bool {
        let (original, patched) = (self.comparison.original, self.comparison.patched);
        !original.section_of(self.original).is_writable() && !patched.section_of(self.patched).is_writable()
    }

    fn words(&self) -> Result<Vec<Word>, String> {
        let before = Side::of(self.comparison.original, self.original)?;
        let after = Side::of(self.comparison.patched, self.patched)?;
        let size = before.bytes.len().min(after.bytes.len()) as u64;
        // No member is wider than the variable's alignment, and no word crosses it.
        let alignment = self.comparison.original.alignment(self.original).min(WORD);
        if alignment < WORD && !(before.pointers.is_empty() && after.pointers.is_empty()) {
            return Err("its initial value changes, and its pointers are not aligned".to_owned());
        }
        let mut words = Vec::new();
        for start in (0..size).step_by(WORD as usize) {
            let range = start..(start + WORD).min(size);
            let (old, new) = (before.pointer(&range), after.pointer(&range));
            if old.is_some() || new.is_some() {
                words.extend(self.pointer(start, &before, &after)?);
                continue;
            }
            for chunk in (range.start..range.end).step_by(alignment as usize) {
                numbers(chunk, alignment, self.constant(), &before.bytes, &after.bytes, &mut words);
            }
        }
        Ok(words)
    }

    /// A word that is a pointer on one side at least; `None` if it leads to the same.
    fn pointer(&self, offset: u64, before: &Side<'_>, after: &Side<'_>) -> Result<Option<Word>, String> {
        let (old, new) = (before.pointers.get(&offset), after.pointers.get(&offset));
        if let (Some(old), Some(new)) = (old, new)
            && self.comparison.leads_to_the_same(old, new)
        {
            return Ok(None);
        }
        let old = old.map_or_else(|| Ok(before.number(offset)), |reference| self.before(reference))?;
        let new = new.map_or_else(|| Ok(after.number(offset)), |reference| self.after(reference))?;
        Ok((old != new).then_some(Word { offset, width: WORD, old, new }))
    }

    fn before(&self, reference: &Reference) -> Result<Value, String> {
        let unit = self.comparison.original;
        match &reference.target {
            Target::External { symbol, offset } => {
                let name = unit.object.symbol(*symbol).name.clone();
                Ok(Value::Outside(Outside::External { name }, *offset))
            }
            Target::Atom { id, offset } if is_place(unit, *id, *offset) => {
                Ok(Value::Outside(Outside::Original { name: unit.name(*id) }, *offset))
            }
            // A string has no name, but the pointer to it that the running kernel has can be followed to its text. What
            // is read-only holds it still; in writable data a pointer may lead anywhere by now.
            Target::Text { section, offset } if is_readable(unit, *section, *offset) => {
                if self.constant() {
                    return Ok(Value::Living(*section, *offset));
                }
                let text = unit.describe(&reference.target);
                Err(format!(
                    "its pointer to {text} changes, and it is writable: where that leads by now is not known"
                ))
            }
            target => Err(unnamed(&unit.describe(target))),
        }
    }

    fn after(&self, reference: &Reference) -> Result<Value, String> {
        let Comparison { original, patched, pairing, .. } = self.comparison;
        let route = select::route(original, patched, pairing, self.marks, self.patched, reference);
        match (route, &reference.target) {
            (Route::Outside(outside), Target::Atom { offset, .. } | Target::External { offset, .. }) => {
                Ok(Value::Outside(outside, *offset))
            }
            (Route::Kept(id), Target::Atom { offset, .. }) if is_place(patched, id, *offset) => {
                Ok(Value::Kept(id, *offset))
            }
            (Route::Text, Target::Text { section, offset }) if is_readable(patched, *section, *offset) => {
                Ok(Value::Text(*section, *offset))
            }
            (_, target) => Err(unnamed(&patched.describe(target))),
        }
    }

    /// Of a parameter nothing but the operations may change. Who reads them does so twice, with a look whether there is one to
    /// set or to get: both must have both.
    fn require_operations(&self, words: &[Word]) -> Result<(), String> {
        if words.iter().any(|word| word.offset != OPERATIONS) {
            return Err("not only its operations change, and the rest of it has been registered".to_owned());
        }
        let has_both = |unit: &Unit<'_>, id: AtomId| {
            let operations = unit.atom(id).references.iter().find(|reference| reference.offset == OPERATIONS);
            match operations.map(|reference| &reference.target) {
                Some(Target::Atom { id, offset: 0 }) => {
                    let own = &unit.atom(*id).references;
                    SET_AND_GET.iter().all(|at| own.iter().any(|reference| reference.offset == *at))
                }
                // The kernel's own have both (kernel/params.c).
                Some(Target::External { offset: 0, .. }) => true,
                _ => false,
            }
        };
        let Comparison { original, patched, .. } = self.comparison;
        if !(has_both(original, self.original) && has_both(patched, self.patched)) {
            return Err("its operations change, and before or after it cannot be set or shown".to_owned());
        }
        Ok(())
    }

    /// Writable data may hold anything by now, and who reads it when is not known; a function pointer is called.
    fn require_function_pointers(&self, words: &[Word]) -> Result<(), String> {
        let (original, patched) = (self.comparison.original, self.comparison.patched);
        let is_function = |unit: &Unit<'_>, name: &str| {
            unit.ids().any(|id| unit.atom(id).kind == AtomKind::Function && unit.name(id) == name)
        };
        let calls = |value: &Value| match value {
            Value::Number(number) => *number == 0,
            Value::Outside(Outside::Original { name }, 0) => is_function(original, name),
            Value::Kept(id, 0) => patched.atom(*id).kind == AtomKind::Function,
            _ => false,
        };
        let is_pointer = |word: &Word| word.width == WORD && calls(&word.old) && calls(&word.new);
        match words.iter().find(|word| !is_pointer(word)) {
            None => Ok(()),
            Some(word) => Err(format!(
                "its initial value changes at +{:#x}; it is writable, and not only pointers to functions of its source change",
                word.offset
            )),
        }
    }
}

/// The initial value of one side.
struct Side<'a> {
    /// Zero where a relocation fills them.
    bytes: Vec<u8>,
    /// By offset, those of eight bytes.
    pointers: BTreeMap<u64, &'a Reference>,
}

impl<'a> Side<'a> {
    fn of(unit: &'a Unit<'_>, id: AtomId) -> Result<Self, String> {
        let atom: &Atom = unit.atom(id);
        let mut bytes = unit.masked_bytes(id);
        // What lies in `.bss` is zero.
        bytes.resize(atom.size as usize, 0);
        let mut pointers = BTreeMap::new();
        for reference in &atom.references {
            let is_pointer = reference.kind == elf::R_X86_64_64 && reference.offset.is_multiple_of(WORD);
            if !is_pointer || atom.origin != atom.start {
                let target = unit.describe(&reference.target);
                return Err(format!(
                    "its initial value changes, and it refers to {target} by less than a pointer"
                ));
            }
            pointers.insert(reference.offset, reference);
        }
        Ok(Self { bytes, pointers })
    }

    fn pointer(&self, range: &Range<u64>) -> Option<&&'a Reference> {
        self.pointers.get(&range.start)
    }

    fn number(&self, offset: u64) -> Value {
        Value::Number(little_endian(&self.bytes, &(offset..offset + WORD)))
    }
}

/// The naturally aligned word that holds all differing bytes of a chunk. One that would reach beyond the variable is
/// halved.
fn numbers(start: u64, length: u64, narrow: bool, before: &[u8], after: &[u8], words: &mut Vec<Word>) {
    let differs = |offset: &u64| before.get(*offset as usize) != after.get(*offset as usize);
    let mut differing = (start..start + length).filter(differs);
    let Some(first) = differing.next() else { return };
    let last = differing.next_back().unwrap_or(first);
    let mut width = if narrow { 1 } else { length };
    while last >= first / width * width + width {
        width *= 2;
    }
    let offset = first / width * width;
    if offset + width > before.len() as u64 {
        let half = width / 2;
        numbers(offset, half, narrow, before, after, words);
        numbers(offset + half, half, narrow, before, after, words);
        return;
    }
    let value = |bytes| Value::Number(little_endian(bytes, &(offset..offset + width)));
    words.push(Word { offset, width, old: value(before), new: value(after) });
}

fn little_endian(bytes: &[u8], range: &Range<u64>) -> u64 {
    let bytes = range.clone().rev().map(|offset| bytes.get(offset as usize).copied().unwrap_or(0));
    bytes.fold(0, |number, byte| number << 8 | u64::from(byte))
}

/// Whether it is a string of bytes: the running kernel compares it as one.
fn is_readable(unit: &Unit<'_>, section: SectionId, offset: u64) -> bool {
    unit.object.section(section).string_at(offset).is_some_and(|text| text.width == 1)
}

/// Whether it is a place that means something to others: a label within a function does not.
fn is_place(unit: &Unit<'_>, id: AtomId, offset: i64) -> bool {
    match unit.atom(id).kind {
        AtomKind::Function => offset == 0,
        AtomKind::Variable => true,
        _ => false,
    }
}

fn unnamed(target: &str) -> String {
    format!(
        "its initial value changes, and {target}, which it points to, cannot be named in the running kernel"
    )
}
