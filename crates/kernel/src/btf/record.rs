//! One type's record: `struct btf_type` and what follows it.

use crate::le;

/// What a type is good for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A structure or a union.
    Composite,
    /// Another name or qualifier of a type.
    Alias,
    /// Anything else.
    Other,
}

/// Bytes of `struct btf_type`.
const TYPE: usize = 12;
/// Bytes of `struct btf_member`.
const MEMBER: usize = 12;

/// One type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// Offset of its name in the strings; 0 for none.
    pub(super) name: u32,
    /// `size` or `type`, by its kind.
    pub(super) size_or_type: u32,
    /// How many members it has.
    pub(super) members: u32,
    /// Whether members tell bit field sizes (`kind_flag`).
    bit_fields: bool,
    /// Where the members begin.
    first: usize,
    /// Where the next type begins.
    pub(super) end: usize,
}

/// A member of a structure or union.
pub(super) struct Member {
    /// Offset of its name in the strings; 0 for none.
    pub(super) name: u32,
    /// Its type.
    pub(super) kind: u32,
    /// Its offset in bits.
    pub(super) bits: u32,
}

impl Record {
    /// The type at `at`, if it is of a known kind and within the types.
    pub(super) fn read(types: &[u8], at: usize) -> Option<Record> {
        let name = le::u32_at(types, at)?;
        let info = le::u32_at(types, at + 4)?;
        let size_or_type = le::u32_at(types, at + 8)?;
        let members = info & 0xffff;
        // BTF_KIND_* by number, with the bytes that follow: for each member, and once.
        let (kind, each, once) = match info >> 24 & 0x1f {
            // INT, VAR, DECL_TAG
            1 | 14 | 17 => (Kind::Other, 0, 4),
            // ARRAY
            3 => (Kind::Other, 0, 12),
            // STRUCT, UNION
            4 | 5 => (Kind::Composite, MEMBER, 0),
            // ENUM, FUNC_PROTO
            6 | 13 => (Kind::Other, 8, 0),
            // TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG
            8..=11 | 18 => (Kind::Alias, 0, 0),
            // PTR, FWD, FUNC, FLOAT
            2 | 7 | 12 | 16 => (Kind::Other, 0, 0),
            // DATASEC, ENUM64
            15 | 19 => (Kind::Other, 12, 0),
            _ => return None,
        };
        let first = at + TYPE;
        let end = first + once + each * members as usize;
        (end <= types.len()).then_some(Record {
            kind,
            name,
            size_or_type,
            members: if kind == Kind::Composite { members } else { 0 },
            bit_fields: info >> 31 != 0,
            first,
            end,
        })
    }

    /// A member by its number.
    pub(super) fn member(&self, types: &[u8], number: u32) -> Option<Member> {
        let at = self.first + MEMBER * number as usize;
        let offset = le::u32_at(types, at + 8)?;
        Some(Member {
            name: le::u32_at(types, at)?,
            kind: le::u32_at(types, at + 4)?,
            bits: if self.bit_fields { offset & 0x00ff_ffff } else { offset },
        })
    }
}
