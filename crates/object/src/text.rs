//! Texts: the strings of sections that hold nothing else.
//!
//! ELF gives such a section the size of its characters (`sh_entsize` with `SHF_STRINGS`, ELF specification, "Sections"):
//! 1, or 2 and 4 for the `L""` of a source. A text ends with a character that is zero, not with a byte.

use crate::Section;
use std::fmt;

/// A text in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<'a> {
    /// Its bytes, the character that ends it included.
    pub whole: &'a [u8],
    /// The size of a character in bytes.
    pub width: u64,
}

impl<'a> Text<'a> {
    /// Its bytes without the character that ends it.
    pub fn bytes(&self) -> &'a [u8] {
        &self.whole[..self.whole.len().saturating_sub(self.width as usize)]
    }
}

impl fmt::Display for Text<'_> {
    /// The characters; what is none is replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes();
        let text = match self.width {
            2 => {
                let units: Vec<u16> =
                    bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
                String::from_utf16_lossy(&units)
            }
            4 => {
                let units = bytes.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit));
                units.map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
            _ => String::from_utf8_lossy(bytes).into_owned(),
        };
        f.write_str(&text)
    }
}

impl Section {
    /// The size of a character of its texts, in bytes.
    fn character(&self) -> u64 {
        if self.is_strings() { self.entsize.max(1) } else { 1 }
    }

    /// The text at `offset`. `None` where no character begins there, or where the text has no end.
    pub fn string_at(&self, offset: u64) -> Option<Text<'_>> {
        let width = self.character();
        if !offset.is_multiple_of(width) {
            return None;
        }
        let rest = self.data.get(usize::try_from(offset).ok()?..)?;
        let characters = rest.chunks_exact(usize::try_from(width).ok()?);
        let length =
            characters.take_while(|character| character.iter().any(|&byte| byte != 0)).count() as u64;
        let end = length.checked_add(1)?.checked_mul(width)?;
        Some(Text { whole: rest.get(..usize::try_from(end).ok()?)?, width })
    }

    /// What the place of something in the section says of its alignment, in bytes: no more than the section has.
    pub fn alignment_at(&self, offset: u64) -> u64 {
        let section = self.align.max(1);
        if offset == 0 { section } else { section.min(1 << offset.trailing_zeros().min(12)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf;

    fn texts(width: u64, data: &[u8]) -> Section {
        let flags = elf::SHF_MERGE | elf::SHF_STRINGS;
        Section { entsize: width, ..Section::allocated(".rodata.str", flags, 8, data.to_vec()) }
    }

    fn shown(section: &Section, offset: u64) -> Option<(String, usize)> {
        section.string_at(offset).map(|text| (text.to_string(), text.whole.len()))
    }

    #[test]
    fn a_text_ends_at_a_character_of_its_section() {
        let wide = b"B\0D\0\0\0\0\0x\0";
        assert_eq!(shown(&texts(2, wide), 0), Some(("BD".into(), 6)));
        assert_eq!(shown(&texts(2, wide), 2), Some(("D".into(), 4)));
        assert_eq!(shown(&texts(2, wide), 6), Some((String::new(), 2)));
        assert_eq!(shown(&texts(1, wide), 0), Some(("B".into(), 2)));
        let wider = b"B\0\0\0\x00\xdc\0\0\0\0\0\0";
        assert_eq!(shown(&texts(4, wider), 0), Some(("B\u{fffd}".into(), 12)));
        assert_eq!(shown(&texts(0, b"ab\0"), 1), Some(("b".into(), 2)));
    }

    #[test]
    fn what_has_no_beginning_or_end_is_no_text() {
        assert_eq!(shown(&texts(2, b"B\0\0\0"), 1), None);
        assert_eq!(shown(&texts(2, b"B\0D\0"), 0), None);
        assert_eq!(shown(&texts(2, b"B\0\0"), 0), None);
        assert_eq!(shown(&texts(1, b"B"), 0), None);
        assert_eq!(shown(&texts(1, b"B\0"), 2), None);
        assert_eq!(shown(&texts(1, b"B\0"), u64::MAX), None);
        assert_eq!(shown(&texts(u64::MAX, b"B\0"), 0), None);
    }

    #[test]
    fn texts_of_other_characters_differ() {
        let (narrow, wide) = (texts(1, b"\0"), texts(2, b"\0\0"));
        assert_ne!(narrow.string_at(0), wide.string_at(0));
    }

    #[test]
    fn a_place_says_what_alignment_it_can_have() {
        let section = texts(1, b"");
        assert_eq!([0, 8, 16, 4, 3].map(|offset| section.alignment_at(offset)), [8, 8, 8, 4, 1]);
    }
}
