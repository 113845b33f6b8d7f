//! Which line of the source an instruction is from: `.debug_line` of a relocatable object (DWARF 5, section 6.2).
//!
//! In such an object every section begins at address 0, and which one is meant only the relocations tell. So each
//! section is given an address range of its own, and the relocations are applied to a copy of the table.

use gimli::{
    AttributeValue, ColumnType, DebugLine, DebugLineOffset, DebugLineStr, DebugStr, EndianSlice,
    LineProgramHeader, LittleEndian,
};
use kmend_object::{Object, SectionId, SymbolId, elf};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// How far the address ranges of two sections are apart. No section of an object file is as large.
const STRIDE: u32 = 32;

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// A row of the table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    file: u32,
    /// 0 for code without a line, and behind the end of a sequence.
    line: u32,
    column: u32,
}

/// A place in the source, as the table has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The file's path: from the folder of the compile if it is below, else whole.
    pub(crate) file: &'a str,
    /// From 1.
    pub(crate) number: u32,
    /// From 1, in bytes; `None` if it is not known.
    pub(crate) column: Option<u32>,
}

/// The lines of an object's code.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    files: Vec<String>,
    /// In order of their addresses.
    entries: Vec<Entry>,
}

impl Lines {
    /// Reads the table; empty if the object has none. Of a damaged one, what comes before the damage.
    pub(crate) fn read(object: &Object) -> Lines {
        let section =
            |name: &str| object.section_named(name).map(|id| relocated(object, id)).unwrap_or_default();
        let (table, texts, more_texts) =
            (section(".debug_line"), section(".debug_line_str"), section(".debug_str"));
        let strings = Strings {
            line: DebugLineStr::new(&texts, LittleEndian),
            other: DebugStr::new(&more_texts, LittleEndian),
        };
        let mut lines = Lines::default();
        let debug_line = DebugLine::new(&table, LittleEndian);
        let mut offset = 0;
        while offset < table.len() {
            match lines.add_program(&debug_line, offset, &strings) {
                Ok(length) if length > 0 => offset += length,
                _ => break,
            }
        }
        // Of several rows with one address the last is the one that holds, so their order must be kept.
        lines.entries.sort_by_key(|entry| entry.address);
        lines
    }

    /// Adds one unit's table, and says how long it is.
    fn add_program(
        &mut self,
        table: &DebugLine<Bytes<'_>>,
        offset: usize,
        strings: &Strings<'_>,
    ) -> gimli::Result<usize> {
        let program = table.program(DebugLineOffset(offset), 8, None, None)?;
        let header = program.header();
        let length = usize::from(header.format().initial_length_size()).saturating_add(header.unit_length());
        let first = self.files.len() as u32;
        // Before version 5 files are counted from 1; the one of number 0 is not needed.
        let count = header.file_names().len() as u64 + 1;
        self.files.extend((0..count).map(|index| strings.path(header, index)));
        let mut rows = program.rows();
        while let Some((_, row)) = rows.next_row()? {
            let known = row.file_index() < count && !row.end_sequence();
            let line = row.line().map_or(0, |line| u32::try_from(line.get()).unwrap_or(0));
            self.entries.push(Entry {
                address: row.address(),
                file: first.saturating_add(row.file_index().min(count) as u32),
                line: if known { line } else { 0 },
                column: match row.column() {
                    ColumnType::LeftEdge => 0,
                    ColumnType::Column(column) => u32::try_from(column.get()).unwrap_or(0),
                },
            });
        }
        Ok(length)
    }

    /// The line of the code at a place.
    pub(crate) fn at(&self, section: SectionId, offset: u64) -> Option<Line<'_>> {
        let address = base(section).checked_add(offset)?;
        let next = self.entries.partition_point(|entry| entry.address <= address);
        let entry = self.entries.get(next.checked_sub(1)?)?;
        if entry.line == 0 || entry.address < base(section) {
            return None;
        }
        let file = self.files.get(entry.file as usize).filter(|file| !file.is_empty())?;
        Some(Line { file, number: entry.line, column: (entry.column > 0).then_some(entry.column) })
    }
}

/// Which lines of the source the functions of an object are from, those of functions that were inlined into them as well.
#[derive(Debug, Default)]
pub struct LineTable(Lines);

impl LineTable {
    /// Reads the table; empty if the object has none.
    pub fn read(object: &Object) -> LineTable {
        LineTable(Lines::read(object))
    }

    /// The lines of a function's code: file, from the folder of the compile if it is below, and number.
    pub fn of<'a>(&'a self, object: &Object, function: SymbolId) -> BTreeSet<(&'a str, u32)> {
        let symbol = object.symbol(function);
        let Some(section) = symbol.section() else { return BTreeSet::new() };
        let start = base(section).saturating_add(symbol.value);
        let end = start.saturating_add(symbol.size.max(1));
        let entries = &self.0.entries;
        let (from, to) = (
            entries.partition_point(|entry| entry.address < start),
            entries.partition_point(|entry| entry.address < end),
        );
        let rows = entries.get(from..to).unwrap_or_default().iter().filter(|entry| entry.line > 0);
        rows.filter_map(|entry| Some((self.0.files.get(entry.file as usize)?.as_str(), entry.line))).collect()
    }
}

fn base(section: SectionId) -> u64 {
    (u64::from(section.0) + 1) << STRIDE
}

/// A section's bytes with its relocations applied.
fn relocated(object: &Object, id: SectionId) -> Vec<u8> {
    let section = object.section(id);
    let mut bytes = section.data.clone();
    for relocation in &section.relocations {
        let Some(symbol) = object.symbols.get(relocation.symbol.index()) else { continue };
        let address = match symbol.section() {
            Some(section) if object.section(section).is_code() => base(section),
            _ => 0,
        };
        let value = address.wrapping_add(symbol.value).wrapping_add_signed(relocation.addend).to_le_bytes();
        let width = elf::width(relocation.kind).unwrap_or(0).min(8) as usize;
        let start = relocation.offset as usize;
        let end = start.saturating_add(width);
        if let Some(hole) = bytes.get_mut(start..end) {
            hole.copy_from_slice(&value[..width]);
        }
    }
    bytes
}

/// Where the table's names are.
struct Strings<'a> {
    line: DebugLineStr<Bytes<'a>>,
    other: DebugStr<Bytes<'a>>,
}

impl Strings<'_> {
    fn text(&self, value: AttributeValue<Bytes<'_>>) -> String {
        let bytes = match value {
            AttributeValue::String(text) => Some(text.slice()),
            AttributeValue::DebugLineStrRef(offset) => {
                self.line.get_str(offset).ok().map(|text| text.slice())
            }
            AttributeValue::DebugStrRef(offset) => self.other.get_str(offset).ok().map(|text| text.slice()),
            _ => None,
        };
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    }

    /// A file's path, from the folder of the compile where it is below.
    fn path(&self, header: &LineProgramHeader<Bytes<'_>>, index: u64) -> String {
        let Some(file) = header.file(index) else { return String::new() };
        let compile = header.directory(0).map(|value| self.text(value)).unwrap_or_default();
        let folder = file.directory(header).map(|value| self.text(value)).unwrap_or_default();
        let whole = Path::new(&compile).join(folder).join(self.text(file.path_name()));
        let plain = plain(&whole);
        let below = plain.strip_prefix(self::plain(Path::new(&compile))).unwrap_or(&plain);
        below.to_string_lossy().into_owned()
    }
}

/// A path without `.` and `..`, as far as its text tells.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
