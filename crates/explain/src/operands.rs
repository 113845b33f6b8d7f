//! Names for what relocations fill in.

use crate::side::{Range, Side};
use kmend_object::{Relocation, SectionId, SymbolId, elf};

/// How much of a string is shown, in characters.
const LONGEST_TEXT: usize = 60;

/// What an operand refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operand {
    /// In words.
    pub(crate) text: String,
    /// The same without what another edit of the unit would change: the compiler's numbers, places in the function.
    pub(crate) key: String,
    /// If it is a place in the function itself: the piece, and the offset in it.
    pub(crate) inside: Option<(usize, u64)>,
}

impl Operand {
    fn named(name: &str, offset: i64) -> Self {
        let key = with_offset(&kmend_diff::base_name(name), offset);
        Operand { text: with_offset(name, offset), key, inside: None }
    }
}

impl Side<'_> {
    /// What a relocation of code refers to. `tail` is the way from its place to the end of its instruction if it is
    /// relative, else 0.
    pub(crate) fn operand(&self, pieces: &[(String, Range)], relocation: &Relocation, tail: i64) -> Operand {
        let beyond = relocation.addend.wrapping_add(tail);
        let Some(symbol) = self.object.symbols.get(relocation.symbol.index()) else {
            return Operand::named("", beyond);
        };
        let Some(section) = symbol.section() else {
            let base = if symbol.is_undefined() { 0 } else { symbol.value as i64 };
            return Operand::named(&symbol.name, base.wrapping_add(beyond));
        };
        let place = (symbol.value as i64).wrapping_add(beyond);
        if let Ok(place) = u64::try_from(place)
            && let Some(operand) =
                self.content(section, place).or_else(|| self.inside(pieces, section, place))
        {
            return operand;
        }
        // A named symbol says what is meant, whatever the offset; a section symbol does not.
        if !symbol.name.is_empty() && !symbol.name.starts_with(".L") {
            return Operand::named(&symbol.name, beyond);
        }
        self.beside(section, place)
    }

    /// What stands at a place of a code section: another function, with the offset in it.
    pub(crate) fn code_at(&self, pieces: &[(String, Range)], section: SectionId, place: u64) -> Operand {
        self.inside(pieces, section, place).unwrap_or_else(|| self.beside(section, place as i64))
    }

    fn beside(&self, section: SectionId, place: i64) -> Operand {
        let named = u64::try_from(place).ok().and_then(|offset| self.symbol_at(section, offset));
        match named.map(|id: SymbolId| self.object.symbol(id)) {
            Some(symbol) => Operand::named(&symbol.name, place.wrapping_sub(symbol.value as i64)),
            None => Operand::named(&self.object.section(section).name, place),
        }
    }

    /// A string's text, or the bytes of a constant that the linker may merge with others.
    fn content(&self, section: SectionId, place: u64) -> Option<Operand> {
        let section = self.object.section(section);
        if section.is_strings() {
            let text = section.string_at(place)?.to_string();
            let shown: String = text.chars().take(LONGEST_TEXT).collect();
            let dots = if shown.len() < text.len() { "…" } else { "" };
            return Some(Operand {
                text: format!("{shown:?}{dots}"),
                key: format!("{text:?}"),
                inside: None,
            });
        }
        if section.flags & elf::SHF_MERGE == 0 || section.entsize == 0 {
            return None;
        }
        let bytes = section.bytes(place, section.entsize)?;
        let text = bytes.iter().rev().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        Some(Operand { text: text.clone(), key: text, inside: None })
    }

    /// A place in the function itself.
    fn inside(&self, pieces: &[(String, Range)], section: SectionId, place: u64) -> Option<Operand> {
        let holds = |range: &Range| range.section == section && (range.start..range.end).contains(&place);
        let index = pieces.iter().position(|(_, range)| holds(range))?;
        let (suffix, range) = pieces.get(index)?;
        let offset = place - range.start;
        let name = &self.object.symbol(range.symbol).name;
        let text = if offset == 0 { name.clone() } else { format!("{name}+{offset:#x}") };
        Some(Operand { text, key: format!("(inside{suffix})"), inside: Some((index, offset)) })
    }
}

fn with_offset(name: &str, offset: i64) -> String {
    match offset {
        0 => name.to_owned(),
        _ if name.is_empty() => format!("{offset:#x}"),
        offset if offset > 0 => format!("{name}+{offset:#x}"),
        offset => format!("{name}-{:#x}", offset.unsigned_abs()),
    }
}
