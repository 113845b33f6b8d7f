//! Debug information as a flat list of entries.
//!
//! Format: DWARF 5 (dwarfstd.org), chapters 2 and 7, as gcc writes it for C. Only `.debug_info`,
//! `.debug_abbrev` and `.debug_str` are read.

use crate::{TypesError, statics};
use gimli::{AttributeValue, DwTag, EndianSlice, LittleEndian, Reader, constants as dw};
use kmend_object::{Object, Section, elf};

/// One entry, with the attributes that types need.
#[derive(Debug, Clone)]
pub(crate) struct Entry<'a> {
    pub(crate) tag: DwTag,
    /// Offset in `.debug_info`; entries are in its order.
    offset: usize,
    pub(crate) parent: Option<usize>,
    pub(crate) name: Option<&'a str>,
    /// Offset of `DW_AT_type`.
    target: Option<usize>,
    /// Offset of `DW_AT_abstract_origin` or `DW_AT_specification`: what it is another appearance of.
    origin: Option<usize>,
    pub(crate) byte_size: Option<u64>,
    pub(crate) encoding: Option<u64>,
    /// `DW_AT_count`, or `DW_AT_upper_bound` and one.
    pub(crate) count: Option<u64>,
    pub(crate) bit_offset: u64,
    pub(crate) bit_size: Option<u64>,
    pub(crate) constant: Option<i128>,
    pub(crate) is_declaration: bool,
    pub(crate) is_external: bool,
    /// Its location is an address, so it is there as long as the kernel is.
    pub(crate) is_static: bool,
    /// That address, as [`crate::statics`] reads it.
    pub(crate) address: Option<u64>,
    /// The line of its declaration.
    pub(crate) line: Option<u64>,
}

/// The contents of the sections, with relocations between them applied.
pub(crate) struct Contents {
    info: Vec<u8>,
    abbreviations: Vec<u8>,
    strings: Vec<u8>,
}

impl Contents {
    pub(crate) fn of(object: &Object) -> Result<Self, TypesError> {
        let section = |name: &str| object.section_named(name).map(|id| object.section(id));
        let (Some(info), Some(abbreviations)) = (section(".debug_info"), section(".debug_abbrev")) else {
            return Err(TypesError::Missing);
        };
        let strings = section(".debug_str").map(|section| section.data.clone()).unwrap_or_default();
        Ok(Self { info: relocated(object, info), abbreviations: abbreviations.data.clone(), strings })
    }
}

/// A section's data with its relocations applied. Addresses of code and data tell their sections.
fn relocated(object: &Object, section: &Section) -> Vec<u8> {
    let mut data = section.data.clone();
    for relocation in &section.relocations {
        let Some(symbol) = object.symbols.get(relocation.symbol.index()) else { continue };
        let offset = symbol.value.wrapping_add_signed(relocation.addend);
        let place = symbol.section().filter(|&id| object.section(id).is_allocated());
        let value = place.map_or(offset, |id| statics::address(id, offset)).to_le_bytes();
        let width = match relocation.kind {
            elf::R_X86_64_64 => 8,
            elf::R_X86_64_32 => 4,
            _ => continue,
        };
        let Ok(start) = usize::try_from(relocation.offset) else { continue };
        if let Some(place) = start.checked_add(width).and_then(|end| data.get_mut(start..end)) {
            place.copy_from_slice(&value[..width]);
        }
    }
    data
}

/// The entries of one object.
pub(crate) struct Entries<'a> {
    pub(crate) list: Vec<Entry<'a>>,
}

impl<'a> Entries<'a> {
    pub(crate) fn read(contents: &'a Contents) -> Result<Self, TypesError> {
        let slice = |bytes: &'a [u8]| EndianSlice::new(bytes, LittleEndian);
        let abbreviations = gimli::DebugAbbrev::from(slice(&contents.abbreviations));
        let strings = gimli::DebugStr::from(slice(&contents.strings));
        let mut list = Vec::new();
        let mut headers = gimli::DebugInfo::from(slice(&contents.info)).units();
        while let Some(header) = headers.next()? {
            let abbreviations = header.abbreviations(&abbreviations)?;
            let start = header.debug_info_offset().map_or(0, |offset| offset.0);
            let mut cursor = header.entries(&abbreviations);
            // The entries that the next one may be a child of, by depth.
            let mut open: Vec<usize> = Vec::new();
            while let Some(entry) = cursor.next_dfs()? {
                let depth = usize::try_from(entry.depth()).unwrap_or(0);
                open.truncate(depth);
                let parent = open.last().copied();
                open.push(list.len());
                list.push(read_entry(entry, parent, start, &strings));
            }
        }
        Ok(Self { list })
    }

    pub(crate) fn get(&self, index: usize) -> Option<&Entry<'a>> {
        self.list.get(index)
    }

    fn at(&self, offset: usize) -> Option<usize> {
        self.list.binary_search_by_key(&offset, |entry| entry.offset).ok()
    }

    /// The entry that this one is another appearance of; itself if none. Such chains are two long at most.
    pub(crate) fn origin(&self, index: usize) -> usize {
        (0..4).fold(index, |at, _| {
            self.get(at).and_then(|entry| entry.origin).and_then(|offset| self.at(offset)).unwrap_or(at)
        })
    }

    /// The name, its own or its origin's.
    pub(crate) fn name(&self, index: usize) -> Option<&'a str> {
        self.get(index)?.name.or_else(|| self.get(self.origin(index))?.name)
    }

    /// The type, its own or its origin's; `None` for `void`.
    pub(crate) fn target(&self, index: usize) -> Option<usize> {
        let own = |at: usize| self.get(at).and_then(|entry| entry.target).and_then(|offset| self.at(offset));
        own(index).or_else(|| own(self.origin(index)))
    }

    /// The children of an entry, in order. Entries follow their parents, and children are not far.
    pub(crate) fn children(&self, index: usize) -> impl Iterator<Item = (usize, &Entry<'a>)> {
        let after = self.list.iter().enumerate().skip(index.saturating_add(1));
        after
            .take_while(move |(_, entry)| entry.parent.is_some_and(|parent| parent >= index))
            .filter(move |(_, entry)| entry.parent == Some(index))
    }
}

fn read_entry<'a>(
    entry: &gimli::DebuggingInformationEntry<EndianSlice<'a, LittleEndian>>,
    parent: Option<usize>,
    unit: usize,
    strings: &gimli::DebugStr<EndianSlice<'a, LittleEndian>>,
) -> Entry<'a> {
    let mut read = Entry {
        tag: entry.tag(),
        offset: unit.saturating_add(entry.offset().0),
        parent,
        name: None,
        target: None,
        origin: None,
        byte_size: None,
        encoding: None,
        count: None,
        bit_offset: 0,
        bit_size: None,
        constant: None,
        is_declaration: false,
        is_external: false,
        is_static: false,
        address: None,
        line: None,
    };
    for attribute in entry.attrs() {
        let value = attribute.value();
        match attribute.name() {
            dw::DW_AT_name => {
                let text = value.string_value(strings).map(|text| text.slice());
                read.name = text.and_then(|text| std::str::from_utf8(text).ok());
            }
            dw::DW_AT_type => read.target = reference(&value, unit),
            dw::DW_AT_abstract_origin | dw::DW_AT_specification => read.origin = reference(&value, unit),
            dw::DW_AT_byte_size => read.byte_size = value.udata_value(),
            dw::DW_AT_encoding => {
                if let AttributeValue::Encoding(encoding) = value {
                    read.encoding = Some(u64::from(encoding.0));
                }
            }
            dw::DW_AT_count => read.count = value.udata_value(),
            // The bound of `[0]` is written as -1.
            dw::DW_AT_upper_bound => {
                read.count = value.udata_value().map_or(Some(0), |bound| bound.checked_add(1));
            }
            dw::DW_AT_data_member_location => {
                read.bit_offset = value.udata_value().unwrap_or(0).saturating_mul(8);
            }
            dw::DW_AT_data_bit_offset => read.bit_offset = value.udata_value().unwrap_or(0),
            dw::DW_AT_bit_size => read.bit_size = value.udata_value(),
            dw::DW_AT_const_value => read.constant = constant(&value),
            dw::DW_AT_decl_line => read.line = value.udata_value(),
            dw::DW_AT_declaration => read.is_declaration = true,
            dw::DW_AT_external => read.is_external = true,
            dw::DW_AT_location => {
                if let AttributeValue::Exprloc(expression) = value {
                    let bytes = expression.0.slice();
                    read.is_static = bytes.first() == Some(&dw::DW_OP_addr.0);
                    let address = bytes.get(1..).and_then(|operand| <[u8; 8]>::try_from(operand).ok());
                    read.address = address.filter(|_| read.is_static).map(u64::from_le_bytes);
                }
            }
            _ => {}
        }
    }
    read
}

fn reference(value: &AttributeValue<EndianSlice<'_, LittleEndian>>, unit: usize) -> Option<usize> {
    match value {
        AttributeValue::UnitRef(offset) => unit.checked_add(offset.0),
        AttributeValue::DebugInfoRef(offset) => Some(offset.0),
        _ => None,
    }
}

/// A constant as a number. gcc writes one that fits in a byte without a sign as `DW_FORM_data1`.
fn constant<R: Reader>(value: &AttributeValue<R>) -> Option<i128> {
    match value {
        AttributeValue::Sdata(number) => Some(i128::from(*number)),
        AttributeValue::Data1(number) => Some(i128::from(*number)),
        AttributeValue::Data2(number) => Some(i128::from(*number)),
        AttributeValue::Data4(number) => Some(i128::from(*number)),
        AttributeValue::Data8(number) | AttributeValue::Udata(number) => Some(i128::from(*number)),
        _ => None,
    }
}
