//! Types written by hand, read back.

use super::*;

/// Writes `.BTF` sections.
#[derive(Default)]
struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
}

impl Writer {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    /// A structure with members (name, type, offset in bits).
    fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) {
        let name = self.name(name);
        self.words(&[name, 4 << 24 | members.len() as u32, size]);
        for &(name, kind, bits) in members {
            let name = self.name(name);
            self.words(&[name, kind, bits]);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.name("");
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut section = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, strings] {
            section.extend_from_slice(&word.to_le_bytes());
        }
        section.extend_from_slice(&self.types);
        section.extend_from_slice(&self.strings);
        section
    }
}

/// Type 1 `int`; 2 an anonymous structure of `b` and `c`; 3 `const` of it; 4 `outer` with `a` and that.
fn sample() -> Writer {
    let mut writer = Writer::default();
    let int = writer.name("int");
    writer.words(&[int, 1 << 24, 4, 32]);
    writer.structure("", 8, &[("b", 1, 0), ("c", 1, 32)]);
    writer.words(&[0, 10 << 24, 2]);
    writer.structure("outer", 12, &[("a", 1, 0), ("", 3, 32)]);
    writer
}

#[test]
fn members_are_found_also_inside_anonymous_ones() {
    let btf = Btf::parse(&sample().finish()).unwrap();
    let outer = btf.structure("outer").unwrap();
    assert_eq!(btf.type_count(), 4);
    assert_eq!(outer.size, 12);
    assert_eq!(outer.member("a"), Some(0));
    assert_eq!(outer.member("c"), Some(8));
    assert_eq!(outer.member("d"), None);
    assert!(btf.structure("int").is_none());
}

#[test]
fn bit_fields_inside_a_byte_have_no_offset() {
    let mut writer = Writer::default();
    let int = writer.name("int");
    writer.words(&[int, 1 << 24, 4, 32]);
    let name = writer.name("flags");
    writer.words(&[name, 1 << 31 | 4 << 24 | 2, 4]);
    for (member, offset) in [("low", 3 << 24), ("high", 5 << 24 | 3)] {
        let member = writer.name(member);
        writer.words(&[member, 1, offset]);
    }
    let btf = Btf::parse(&writer.finish()).unwrap();
    let flags = btf.structure("flags").unwrap();
    assert_eq!(flags.member("low"), Some(0));
    assert_eq!(flags.member("high"), None);
}

#[test]
fn definitions_of_different_size_are_no_answer() {
    let mut writer = sample();
    writer.structure("outer", 12, &[]);
    assert!(Btf::parse(&writer.finish()).unwrap().structure("outer").is_some());
    let mut writer = sample();
    writer.structure("outer", 16, &[]);
    assert!(Btf::parse(&writer.finish()).unwrap().structure("outer").is_none());
}

#[test]
fn a_structure_inside_itself_ends() {
    let mut writer = Writer::default();
    writer.structure("ring", 8, &[("", 1, 0), ("", 1, 0), ("", 1, 0)]);
    let btf = Btf::parse(&writer.finish()).unwrap();
    assert_eq!(btf.structure("ring").unwrap().member("x"), None);
}

#[test]
fn truncated_and_unknown_types_are_errors() {
    let section = sample().finish();
    for length in 0..section.len() {
        assert!(Btf::parse(&section[..length]).is_err(), "{length} bytes were accepted");
    }
    let mut unknown = section;
    unknown[24 + 7] = 31;
    assert!(Btf::parse(&unknown).is_err());
}
