//! One thing that differs, wherever it is in what gets into memory: it is a change or refused, and never equal.

use crate::fixture::ORIGINAL;
use crate::{compare, config, order, rearrange};
use iced_x86::{Decoder, Mnemonic};
use kmend_diff::Delta;
use kmend_object::{Binding, Object, Section, SymbolKind, elf};
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::LazyLock;

/// Something that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// A bit of a byte that no relocation fills.
    Bit { section: usize, offset: usize, bit: u32 },
    /// The addend of the relocation of this index.
    Addend { section: usize, index: usize, more: i64 },
    /// That relocation is not there.
    Gone { section: usize, index: usize },
    /// That relocation leads to another symbol.
    Symbol { section: usize, index: usize },
    /// That relocation is of another type.
    Kind { section: usize, index: usize },
    /// The section gets or loses this flag.
    Flag { section: usize, flag: u64 },
    /// The symbol of this index says something else.
    Says { symbol: usize, what: Says },
}

/// What a symbol says beside its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    /// It gives way to another definition, or does no longer.
    Weak,
    /// It is code or data.
    Kind,
    /// It is a byte shorter.
    Size,
    /// There is another name for it.
    Alias,
}

impl Damage {
    fn done_to(self, object: &Object) -> Object {
        let mut damaged = object.clone();
        match self {
            Damage::Bit { section, offset, bit } => damaged.sections[section].data[offset] ^= 1 << bit,
            Damage::Addend { section, index, more } => {
                damaged.sections[section].relocations[index].addend += more;
            }
            Damage::Gone { section, index } => {
                damaged.sections[section].relocations.remove(index);
            }
            Damage::Symbol { section, index } => {
                let other = damaged.add_symbol(kmend_object::Symbol::undefined("another"));
                damaged.sections[section].relocations[index].symbol = other;
            }
            Damage::Kind { section, index } => {
                let kind = &mut damaged.sections[section].relocations[index].kind;
                *kind = match *kind {
                    elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 => elf::R_X86_64_GOTPCREL,
                    elf::R_X86_64_32S => elf::R_X86_64_32,
                    elf::R_X86_64_64 => elf::R_X86_64_PC64,
                    _ => elf::R_X86_64_32S,
                };
            }
            Damage::Flag { section, flag } => damaged.sections[section].flags ^= flag,
            Damage::Says { symbol, what } => what.said_by(&mut damaged, symbol),
        }
        damaged
    }

    /// Where it is, in words.
    fn place(self) -> String {
        let (section, offset) = match self {
            Damage::Bit { section, offset, .. } => (section, offset as u64),
            Damage::Addend { section, index, .. }
            | Damage::Gone { section, index }
            | Damage::Kind { section, index }
            | Damage::Symbol { section, index } => {
                (section, ORIGINAL.sections[section].relocations[index].offset)
            }
            Damage::Flag { section, .. } => (section, 0),
            Damage::Says { symbol, .. } => return ORIGINAL.symbols[symbol].name.clone(),
        };
        format!("{}+{offset:#x}", ORIGINAL.sections[section].name)
    }

    /// Only which instructions that do nothing stand between two functions.
    fn is_padding(self) -> bool {
        let Damage::Bit { section, offset, .. } = self else { return false };
        let symbols = ORIGINAL.symbols.iter();
        let symbols: Vec<_> =
            symbols.filter(|symbol| symbol.section().is_some_and(|id| id.index() == section)).collect();
        let ends =
            symbols.iter().map(|symbol| (symbol.value + symbol.size) as usize).filter(|&end| end <= offset);
        let starts = symbols.iter().map(|symbol| symbol.value as usize).filter(|&start| start > offset);
        let is_inside = |symbol: &&kmend_object::Symbol| {
            (symbol.value..symbol.value + symbol.size).contains(&(offset as u64))
        };
        let code = &self.done_to(&ORIGINAL).sections[section];
        if !code.is_code() || symbols.iter().copied().any(|symbol| is_inside(&symbol)) {
            return false;
        }
        let gap = &code.data[ends.max().unwrap_or(0)..starts.min().unwrap_or(code.data.len())];
        Decoder::new(64, gap, 0).iter().all(|instruction| instruction.mnemonic() == Mnemonic::Nop)
    }
}

impl Says {
    fn said_by(self, object: &mut Object, index: usize) {
        let symbol = &mut object.symbols[index];
        match self {
            Says::Weak if symbol.binding == Binding::Weak => symbol.binding = Binding::Global,
            Says::Weak => symbol.binding = Binding::Weak,
            Says::Kind if symbol.kind == SymbolKind::Object => symbol.kind = SymbolKind::Function,
            Says::Kind => symbol.kind = SymbolKind::Object,
            Says::Size => symbol.size -= 1,
            Says::Alias => {
                let alias = kmend_object::Symbol { name: "another_name".into(), ..symbol.clone() };
                object.add_symbol(kmend_object::Symbol { binding: Binding::Global, ..alias });
            }
        }
    }
}

/// All single damages, a byte's and an addend's of the smallest size.
static DAMAGES: LazyLock<Vec<Damage>> = LazyLock::new(|| {
    let mut damages = Vec::new();
    for (section, content) in memory() {
        let mut stays = vec![true; content.data.len()];
        for (index, relocation) in content.relocations.iter().enumerate() {
            let start = relocation.offset as usize;
            stays[start..start + elf::width(relocation.kind).unwrap_or(0) as usize].fill(false);
            damages.push(Damage::Addend { section, index, more: 1 });
            damages.push(Damage::Gone { section, index });
            damages.push(Damage::Symbol { section, index });
            damages.push(Damage::Kind { section, index });
        }
        let flag = if content.is_code() { elf::SHF_EXECINSTR } else { elf::SHF_WRITE };
        if content.size > 0 && !content.is_strings() && content.flags & elf::SHF_MERGE == 0 {
            damages.push(Damage::Flag { section, flag });
        }
        let bytes = (0..stays.len()).filter(|&at| stays[at]);
        damages.extend(bytes.map(|offset| Damage::Bit { section, offset, bit: 0 }));
    }
    let sections: Vec<usize> = memory().map(|(section, _)| section).collect();
    for (index, symbol) in ORIGINAL.symbols.iter().enumerate() {
        let is_there = symbol.section().is_some_and(|id| sections.contains(&id.index()));
        if is_there && matches!(symbol.kind, SymbolKind::Function | SymbolKind::Object) && symbol.size > 0 {
            let all = [Says::Weak, Says::Kind, Says::Size, Says::Alias];
            // A cold part has no identity but its code; what its symbol says is for traces.
            // Another name for a function's beginning, which nobody knows, is no difference.
            let all = match symbol.kind {
                SymbolKind::Function if symbol.name.contains(".cold") => &all[..1],
                SymbolKind::Function => &all[..3],
                _ => &all[..],
            };
            damages.extend(all.iter().map(|&what| Damage::Says { symbol: index, what }));
        }
    }
    damages.retain(|damage| !damage.is_padding());
    damages
});

/// The sections that get into memory and are not made afresh: the compiler writes the table of calls of `__fentry__` anew for every
/// object, and notes tell of the object itself.
fn memory() -> impl Iterator<Item = (usize, &'static Section)> {
    let counts = |section: &Section| {
        section.is_allocated() && section.name != "__mcount_loc" && section.kind != elf::SHT_NOTE
    };
    ORIGINAL.sections.iter().enumerate().filter(move |(_, section)| counts(section))
}

/// Whether a livepatch would be built as if nothing had changed, in one direction at least.
fn is_missed(damaged: &Object) -> bool {
    let is_equal = |one, two| compare(one, two).as_ref().is_ok_and(Delta::is_empty);
    is_equal(&ORIGINAL, damaged) || is_equal(damaged, &ORIGINAL)
}

#[test]
fn no_place_is_left_out() {
    let kinds = |name: &str| memory().any(|(_, section)| section.name.starts_with(name));
    for name in [".text", ".rodata", ".data", ".sched.text", "__bug_table", ".rodata.cst", ".data..percpu"] {
        assert!(kinds(name), "{name}");
    }
    let missed = DAMAGES.iter().filter(|damage| is_missed(&damage.done_to(&ORIGINAL)));
    let missed: Vec<String> = missed.map(|damage| format!("{damage:?} at {}", damage.place())).collect();
    assert!(missed.is_empty(), "MISSED:\n{}", missed.join("\n"));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_order_hides_a_difference(
        at in any::<Index>(),
        bit in 0..8_u32,
        more in prop_oneof![-64..0_i64, 1..64_i64],
        sections in order(ORIGINAL.sections.len()),
    ) {
        let damage = match DAMAGES[at.index(DAMAGES.len())] {
            Damage::Bit { section, offset, .. } => Damage::Bit { section, offset, bit },
            Damage::Addend { section, index, .. } => Damage::Addend { section, index, more },
            other => other,
        };
        prop_assume!(!damage.is_padding());
        let damaged = rearrange::sections(&damage.done_to(&ORIGINAL), &sections);
        prop_assert!(!is_missed(&damaged), "MISSED: {damage:?} at {}", damage.place());
    }
}
