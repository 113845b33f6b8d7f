//! BTF, the kernel's compact type information: sizes of structures and offsets of their members.
//!
//! Source: Documentation/bpf/btf.rst and include/uapi/linux/btf.h. Only what names structures and unions and
//! leads through them is kept; the encoding of all other kinds is known for their length alone.

mod record;

use crate::error::KernelError;
use crate::le;
use record::{Kind, Record};
use std::collections::HashMap;

/// `btf_header.magic`.
const MAGIC: u16 = 0xeb9f;
/// Bytes of the header that every version has.
const HEADER: usize = 24;
/// How deep anonymous members are searched, and how many types a chain of typedefs has at most.
const DEPTH: u32 = 16;
/// How many members one search looks at; the largest structures have some hundreds.
const LOOKS: u32 = 100_000;

/// The types of one kernel.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where each type begins; the first is type 1.
    starts: Vec<u32>,
    /// Structures and unions by name.
    by_name: HashMap<String, Vec<u32>>,
}

impl Btf {
    /// Reads a `.BTF` section.
    pub fn parse(section: &[u8]) -> Result<Btf, KernelError> {
        let damaged = |what: &str| KernelError::Btf(what.into());
        if le::u16_at(section, 0) != Some(MAGIC) {
            return Err(damaged("it does not begin with the magic"));
        }
        let part = |offset: usize| -> Option<&[u8]> {
            let header = le::u32_at(section, 4)? as usize;
            let start = header.checked_add(le::u32_at(section, offset)? as usize)?;
            let length = le::u32_at(section, offset + 4)? as usize;
            section.get(start..start.checked_add(length)?).filter(|_| header >= HEADER)
        };
        let types = part(8).ok_or_else(|| damaged("the types reach beyond the end"))?;
        let strings = part(16).ok_or_else(|| damaged("the strings reach beyond the end"))?;
        let mut btf = Btf {
            types: types.to_vec(),
            strings: strings.to_vec(),
            starts: Vec::new(),
            by_name: HashMap::new(),
        };
        btf.index().ok_or_else(|| damaged("a type reaches beyond the end, or is of an unknown kind"))?;
        Ok(btf)
    }

    /// The layout of the structure or union of a name.
    ///
    /// `None` if there is none, and where several definitions of the name differ in size: no use of them
    /// would be sure.
    pub fn structure(&self, name: &str) -> Option<Layout<'_>> {
        let mut layouts = self.by_name.get(name)?.iter().filter_map(|&id| self.layout(id));
        let first = layouts.next()?;
        layouts.all(|other| other.size == first.size).then_some(first)
    }

    /// How many types there are.
    pub fn type_count(&self) -> usize {
        self.starts.len()
    }

    fn index(&mut self) -> Option<()> {
        let mut at = 0;
        while at < self.types.len() {
            let record = Record::read(&self.types, at)?;
            self.starts.push(at as u32);
            if matches!(record.kind, Kind::Composite) && record.name != 0 {
                let name = le::str_at(&self.strings, record.name as usize)?;
                // A name costs its own length again; real ones are short.
                if name.len() <= 512 {
                    let id = self.starts.len() as u32;
                    self.by_name.entry(name.to_owned()).or_default().push(id);
                }
            }
            at = record.end;
        }
        Some(())
    }

    fn record(&self, id: u32) -> Option<Record> {
        let start = *self.starts.get(usize::try_from(id.checked_sub(1)?).ok()?)?;
        Record::read(&self.types, start as usize)
    }

    fn layout(&self, id: u32) -> Option<Layout<'_>> {
        let record = self.record(id).filter(|record| matches!(record.kind, Kind::Composite))?;
        Some(Layout { btf: self, size: record.size_or_type, record })
    }

    /// The structure or union that an anonymous member is, behind qualifiers.
    fn composite(&self, mut id: u32) -> Option<Record> {
        for _ in 0..DEPTH {
            let record = self.record(id)?;
            match record.kind {
                Kind::Composite => return Some(record),
                Kind::Alias => id = record.size_or_type,
                Kind::Other => return None,
            }
        }
        None
    }
}

/// The layout of one structure or union.
pub struct Layout<'a> {
    btf: &'a Btf,
    /// Its size in bytes.
    pub size: u32,
    record: Record,
}

impl Layout<'_> {
    /// The offset of a member in bytes, also of one inside anonymous members. `None` for bit fields that do
    /// not begin at a byte.
    pub fn member(&self, name: &str) -> Option<u32> {
        let mut looks = LOOKS;
        let bits = self.btf.find_member(&self.record, name, DEPTH, &mut looks)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl Btf {
    /// The offset of a member in bits.
    fn find_member(&self, record: &Record, name: &str, depth: u32, looks: &mut u32) -> Option<u32> {
        let depth = depth.checked_sub(1)?;
        for number in 0..record.members {
            *looks = looks.checked_sub(1)?;
            let member = record.member(&self.types, number)?;
            if member.name != 0 {
                if self.is_named(member.name, name) {
                    return Some(member.bits);
                }
                continue;
            }
            let Some(inner) = self.composite(member.kind) else { continue };
            if let Some(bits) = self.find_member(&inner, name, depth, looks) {
                return bits.checked_add(member.bits);
            }
        }
        None
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let end = offset as usize + name.len();
        self.strings.get(offset as usize..end) == Some(name.as_bytes()) && self.strings.get(end) == Some(&0)
    }
}

#[cfg(test)]
mod tests;
