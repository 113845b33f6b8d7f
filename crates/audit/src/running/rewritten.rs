//! Places of a module's code that the kernel rewrites when it loads it, and later.

use crate::code::Target;
use crate::side::Side;
use std::collections::BTreeMap;
use std::ops::Range;

/// Tables of such places, and how many bytes of code each place has (arch/x86/kernel/alternative.c, jump_label.c, static_call.c,
/// callthunks.c, ftrace.c). Those of `.altinstructions` say it themselves.
const TABLES: [(&str, u64); 10] = [
    (".altinstructions", 0),
    (".parainstructions", 7),
    ("__jump_table", 5),
    (".static_call_sites", 6),
    (".retpoline_sites", 6),
    (".return_sites", 5),
    (".call_sites", 5),
    ("__mcount_loc", 5),
    (".smp_locks", 1),
    (".ibt_endbr_seal", 4),
];
/// Room before a function that depth tracking and control-flow checks fill in.
const ROOM: (&str, u64) = ("__patchable_function_entries", 16);
/// Where an entry of `.altinstructions` has the length of its site, from its end (arch/x86/include/asm/alternative.h).
const LENGTH_FROM_END: u64 = 2;
/// What one site of `.altinstructions` can have at most.
const LONGEST: u64 = 255;

/// The ranges by section.
pub(super) fn places(side: &Side) -> BTreeMap<usize, Vec<Range<u64>>> {
    let mut places: BTreeMap<usize, Vec<Range<u64>>> = BTreeMap::new();
    for (number, section) in side.elf.sections.iter().enumerate().filter(|(_, section)| section.is_loaded()) {
        let known = TABLES.iter().chain([&ROOM]).find(|(name, _)| *name == section.name);
        let Some(&(name, length)) = known else { continue };
        let list = &section.relocations;
        for (at, relocation) in list.iter().enumerate() {
            let one = crate::code::reference(&side.elf, relocation, 0, 0, false);
            let Some(Target::Inside(code, offset)) = one.map(|one| one.target) else { continue };
            let Ok(start) = u64::try_from(offset) else { continue };
            let length = match name {
                ".altinstructions" => {
                    // Each entry has two references: the place, and what is put there.
                    let end = list.get(at + 2).map_or(section.size, |next| next.offset);
                    let bytes = side.elf.bytes(number, &(end.saturating_sub(LENGTH_FROM_END)..end));
                    bytes.and_then(|bytes| bytes.first().copied()).map_or(LONGEST, u64::from)
                }
                _ => length,
            };
            let range =
                if name == ROOM.0 { start..start + ROOM.1 } else { start..start.saturating_add(length) };
            places.entry(code).or_default().push(range);
        }
    }
    places
}
