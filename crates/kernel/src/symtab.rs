//! Symbols from `.symtab`, for an ELF kernel that was not stripped.

use crate::image::{ElfPlace, ElfSymbol};
use crate::symbols::{KernelSymbol, Symbols};
use object::elf;

/// Beginnings of names that never become symbols of the kernel (scripts/mksysmap; before 6.4
/// `is_ignored_symbol` of scripts/kallsyms.c).
const IGNORED: [&str; 6] = ["$", ".L", "__crc_", "__efistub_", "__kstrtab_", "__kstrtabns_"];

/// The symbols of `.symtab` as kallsyms would list them, if there are any.
///
/// Symbols of one name at different addresses get the positions that kallsyms would give them, for both
/// sort by address.
pub(crate) fn symbols(table: &[ElfSymbol]) -> Option<Symbols> {
    let mut all: Vec<_> = table
        .iter()
        .filter(|symbol| {
            !symbol.name.is_empty() && !IGNORED.iter().any(|start| symbol.name.starts_with(start))
        })
        .filter_map(|symbol| {
            let kind = kind(symbol)?;
            Some(KernelSymbol { name: symbol.name.as_str().into(), address: symbol.value, kind })
        })
        .collect();
    all.sort_by_key(|symbol| symbol.address);
    (!all.is_empty()).then(|| Symbols::with_name_order(all, None))
}

/// The first global function whose address in `.symtab` kallsyms contradicts: the two are of different
/// builds, or one is damaged.
pub(crate) fn contradiction<'a>(table: &'a [ElfSymbol], symbols: &Symbols) -> Option<&'a str> {
    let global = |symbol: &&ElfSymbol| symbol.binding == elf::STB_GLOBAL.0 && symbol.kind == elf::STT_FUNC.0;
    let defined = |symbol: &&ElfSymbol| matches!(symbol.place, ElfPlace::Loaded { code: true, .. });
    table.iter().filter(global).filter(defined).map(|symbol| (symbol, symbols.named(&symbol.name))).find_map(
        |(symbol, mut named)| {
            let known = named.len() > 0;
            let agrees = named.any(|candidate| candidate.address == symbol.value);
            (known && !agrees).then_some(symbol.name.as_str())
        },
    )
}

/// The letter that nm(1) prints; `None` for what is no symbol of the kernel.
fn kind(symbol: &ElfSymbol) -> Option<u8> {
    if symbol.kind == elf::STT_SECTION.0 || symbol.kind == elf::STT_FILE.0 {
        return None;
    }
    let ElfPlace::Loaded { code, writable, zeros } = symbol.place else { return None };
    if symbol.binding == elf::STB_WEAK.0 {
        return Some(if symbol.kind == elf::STT_OBJECT.0 { b'V' } else { b'W' });
    }
    let letter = match (code, zeros, writable) {
        (true, ..) => b't',
        (false, true, _) => b'b',
        (false, false, true) => b'd',
        (false, false, false) => b'r',
    };
    Some(if symbol.binding == elf::STB_LOCAL.0 { letter } else { letter.to_ascii_uppercase() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str, value: u64, kind: u8, binding: u8) -> ElfSymbol {
        let place = ElfPlace::Loaded { code: true, writable: false, zeros: false };
        ElfSymbol { name: name.into(), value, kind, binding, place }
    }

    fn function(name: &str, value: u64) -> ElfSymbol {
        symbol(name, value, elf::STT_FUNC.0, elf::STB_GLOBAL.0)
    }

    #[test]
    fn files_sections_and_local_labels_are_left_out() {
        let table = [
            symbol("main.c", 0, elf::STT_FILE.0, elf::STB_LOCAL.0),
            symbol(".Lend", 8, elf::STT_NOTYPE.0, elf::STB_LOCAL.0),
            symbol("second", 8, elf::STT_FUNC.0, elf::STB_WEAK.0),
            function("first", 4),
        ];
        let symbols = symbols(&table).unwrap();
        let listed: Vec<_> = symbols.all().iter().map(|symbol| (&*symbol.name, symbol.kind)).collect();
        assert_eq!(listed, [("first", b'T'), ("second", b'W')]);
    }

    #[test]
    fn an_address_that_kallsyms_does_not_have_is_a_contradiction() {
        let kallsyms = symbols(&[function("first", 4), function("second", 8)]).unwrap();
        assert_eq!(contradiction(&[function("first", 4), function("unknown", 9)], &kallsyms), None);
        assert_eq!(contradiction(&[function("second", 4)], &kallsyms), Some("second"));
    }
}
