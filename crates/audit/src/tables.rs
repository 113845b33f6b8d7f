//! Tables of places in code: each entry belongs to the function in which its site is.
//!
//! An entry's first reference is its site. How many references an entry has is the table's; how long it is, the distance from one
//! site to the next says.

use crate::code::Reference;
use crate::elf::R_NONE;
use crate::side::Side;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

/// A kind of table.
pub(crate) struct Kind {
    /// Its section's name; with `*` at the end, the beginning of it.
    name: &'static str,
    /// References of an entry.
    references: usize,
    /// Whether an entry's difference is its function's. Not so for what says no more than that the code is there.
    counts: bool,
}

const fn kind(name: &'static str, references: usize, counts: bool) -> Kind {
    Kind { name, references, counts }
}

/// The tables that compilers and the kernel's headers write; behind each where.
#[rustfmt::skip]
pub(crate) const KINDS: [Kind; 10] = [
    kind("__bug_table", 2, true),                    // arch/x86/include/asm/bug.h: place, file
    kind("__ex_table", 2, true),                     // arch/x86/include/asm/asm.h: place, fixup
    kind("__jump_table", 3, true),                   // arch/x86/include/asm/jump_label.h: place, target, key
    kind(".altinstructions", 2, true),               // arch/x86/include/asm/alternative.h: place, replacement
    kind(".parainstructions", 1, true),              // arch/x86/include/asm/paravirt_types.h, until 6.8
    kind(".smp_locks", 1, true),                     // arch/x86/include/asm/alternative.h
    kind("_kprobe_blacklist", 1, true),              // include/asm-generic/kprobes.h
    kind("runtime_*", 1, true),                      // arch/x86/include/asm/runtime-const.h, since 6.11
    kind("__mcount_loc", 1, false),                  // gcc -mrecord-mcount
    kind("__patchable_function_entries", 1, false),  // gcc -fpatchable-function-entry
];

impl Kind {
    pub(crate) fn of(section: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|kind| match kind.name.strip_suffix('*') {
            Some(start) => section.starts_with(start),
            None => section == kind.name,
        })
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) table: Rc<str>,
    counts: bool,
    /// The table's section, and where in it the entry lies.
    pub(crate) section: usize,
    pub(crate) range: Range<u64>,
    /// The section of its site, and the offset there.
    pub(crate) code: usize,
    pub(crate) site: u64,
}

impl Entry {
    pub(crate) fn counts(&self) -> bool {
        self.counts
    }

    /// The entry's bytes, zero where relocations write.
    pub(crate) fn bytes(&self, side: &Side) -> Vec<u8> {
        let mut bytes = side.elf.bytes(self.section, &self.range).unwrap_or_default();
        for reference in self.references(side) {
            let at = reference.at as usize;
            if let Some(hole) = bytes.get_mut(at..at + reference.form.width() as usize) {
                hole.fill(0);
            }
        }
        bytes
    }

    pub(crate) fn references(&self, side: &Side) -> Vec<Reference> {
        let list = side.elf.sections[self.section].relocations_in(&self.range).iter();
        let list = list.filter(|one| one.kind != R_NONE);
        list.filter_map(|one| crate::code::reference(&side.elf, one, one.offset - self.range.start, 0, false))
            .collect()
    }

    /// If a reference is to code that is put in the place of the site's, how long that is: the last byte of an entry of
    /// `.altinstructions` (arch/x86/include/asm/alternative.h, `struct alt_instr`).
    pub(crate) fn replacement_length(&self, reference: usize, bytes: &[u8]) -> Option<u64> {
        (&*self.table == ".altinstructions" && reference == 1).then_some(())?;
        bytes.last().map(|&length| u64::from(length))
    }
}

/// A table that is not made of whole entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) section: usize,
    pub(crate) at: u64,
}

/// The entries of all tables, by their sites, and what is no entry.
pub(crate) fn read(side: &Side) -> (Vec<Entry>, Vec<Broken>) {
    let (mut entries, mut broken) = (Vec::new(), Vec::new());
    for (section, parsed) in side.elf.sections.iter().enumerate().filter(|(_, section)| section.is_loaded()) {
        let Some(kind) = Kind::of(&parsed.name) else { continue };
        let table: Rc<str> = parsed.name.as_str().into();
        let list: Vec<_> = parsed.relocations.iter().filter(|one| one.kind != R_NONE).collect();
        let starts: Vec<u64> = list.iter().step_by(kind.references).map(|one| one.offset).collect();
        let size = starts.get(1).map_or(parsed.size, |second| second - starts[0]);
        for (number, &start) in starts.iter().enumerate() {
            let next = starts.get(number + 1).copied();
            let end = next.unwrap_or(parsed.size).min(parsed.size);
            let own = list.iter().skip(number * kind.references).take(kind.references);
            let is_whole = own.clone().count() == kind.references
                && own.clone().all(|one| (start..end).contains(&one.offset))
                && (end - start == size || next.is_none() && end - start < size)
                && (number > 0 || start == 0);
            let site = list.get(number * kind.references).and_then(|one| {
                let (code, value) = side.elf.place(one.symbol)?;
                Some((code, value.checked_add_signed(one.addend)?))
            });
            match site.filter(|_| is_whole) {
                Some((code, site)) => entries.push(Entry {
                    table: Rc::clone(&table),
                    counts: kind.counts,
                    section,
                    range: start..end,
                    code,
                    site,
                }),
                None => broken.push(Broken { section, at: start }),
            }
        }
    }
    (entries, broken)
}

/// The entries by the section of their site, each list by rising site and then by table.
pub(crate) fn by_section(side: &Side) -> HashMap<usize, Vec<Entry>> {
    let mut all: HashMap<usize, Vec<Entry>> = HashMap::new();
    for entry in read(side).0 {
        all.entry(entry.code).or_default().push(entry);
    }
    for list in all.values_mut() {
        list.sort_by(|a, b| (a.site, &a.table, a.range.start).cmp(&(b.site, &b.table, b.range.start)));
    }
    all
}
