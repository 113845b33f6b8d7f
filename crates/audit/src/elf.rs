//! Relocatable ELF files as the audit sees them: sections, symbols and relocations, read by offsets alone.
//!
//! Sources: the ELF-64 Object File Format for the tables, and for livepatch relocations and symbols
//! Documentation/livepatch/module-elf-format.rst. Nothing of this is shared with the crates that made the module.

use std::collections::HashMap;
use std::ops::Range;

pub(crate) const SHF_WRITE: u64 = 1;
pub(crate) const SHF_ALLOC: u64 = 2;
pub(crate) const SHF_EXECINSTR: u64 = 4;
const SHF_MERGE: u64 = 0x10;
const SHF_STRINGS: u64 = 0x20;
/// `SHF_RELA_LIVEPATCH` (include/uapi/linux/elf.h).
const SHF_RELA_LIVEPATCH: u64 = 0x0010_0000;
const SHT_SYMTAB: u32 = 2;
const SHT_RELA: u32 = 4;
const SHT_NOBITS: u32 = 8;
/// `SHN_LIVEPATCH` (include/uapi/linux/elf.h).
const SHN_LIVEPATCH: u16 = 0xff20;
const SHN_ABS: u16 = 0xfff1;
const SHN_LORESERVE: u16 = 0xff00;
/// `e_machine` of x86-64.
const EM_X86_64: u16 = 62;
/// Most sections, symbols and relocations of one file that are read.
const MOST: usize = 4 << 20;

pub(crate) const R_NONE: u32 = 0;
pub(crate) const R_64: u32 = 1;
pub(crate) const R_PC32: u32 = 2;
pub(crate) const R_PLT32: u32 = 4;
pub(crate) const R_32: u32 = 10;
pub(crate) const R_32S: u32 = 11;
pub(crate) const R_PC64: u32 = 24;

/// Bytes that a relocation writes (x86-64 psABI, table 4.10); `None` for kinds that no kernel object has.
pub(crate) fn width(kind: u32) -> Option<u64> {
    match kind {
        R_NONE => Some(0),
        R_64 | R_PC64 => Some(8),
        R_PC32 | R_PLT32 | R_32 | R_32S => Some(4),
        12 | 13 => Some(2),
        14 | 15 => Some(1),
        _ => None,
    }
}

/// Whether what it writes counts from its own place.
pub(crate) fn is_relative(kind: u32) -> bool {
    matches!(kind, R_PC32 | R_PLT32 | R_PC64 | 13 | 15)
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) String);

fn malformed<T>(what: &str) -> Result<T, Malformed> {
    Err(Malformed(what.to_owned()))
}

/// One section.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) flags: u64,
    pub(crate) size: u64,
    pub(crate) align: u64,
    pub(crate) entry: u64,
    kind: u32,
    file: Range<usize>,
    /// By rising offset, those of the livepatch loader among them.
    pub(crate) relocations: Vec<Relocation>,
}

impl Section {
    pub(crate) fn is_loaded(&self) -> bool {
        self.flags & SHF_ALLOC != 0
    }

    pub(crate) fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR != 0
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.flags & SHF_WRITE != 0
    }

    /// Whether it holds what no code writes: constants with addresses are writable until these are written
    /// (gcc/varasm.c, `.data.rel.ro`).
    pub(crate) fn is_constant(&self) -> bool {
        !self.is_code() && (!self.is_writable() || self.name.starts_with(".data.rel.ro"))
    }

    /// Whether the linker may join equal contents: strings and constants, which have no identity.
    pub(crate) fn is_merged(&self) -> bool {
        self.flags & SHF_MERGE != 0
    }

    pub(crate) fn is_strings(&self) -> bool {
        self.flags & SHF_STRINGS != 0
    }

    pub(crate) fn is_zeros(&self) -> bool {
        self.kind == SHT_NOBITS
    }

    /// The relocations that write into a range of its offsets.
    pub(crate) fn relocations_in(&self, range: &Range<u64>) -> &[Relocation] {
        let from = self.relocations.partition_point(|one| one.offset < range.start);
        let to = self.relocations.partition_point(|one| one.offset < range.end);
        self.relocations.get(from..to.max(from)).unwrap_or_default()
    }
}

/// One relocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relocation {
    pub(crate) offset: u64,
    pub(crate) kind: u32,
    pub(crate) symbol: usize,
    pub(crate) addend: i64,
    /// The object with which the livepatch loader applies it; `None` for an ordinary one.
    pub(crate) late: Option<String>,
}

/// Where a symbol is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Undefined,
    Section(usize),
    Absolute,
    Livepatch,
    /// `COMMON` and what else kernel objects do not have.
    Other,
}

/// One symbol.
#[derive(Debug)]
pub(crate) struct Symbol {
    pub(crate) name: String,
    pub(crate) value: u64,
    pub(crate) size: u64,
    /// `STT_*`.
    kind: u8,
    /// `STB_*`.
    binding: u8,
    pub(crate) home: Home,
}

impl Symbol {
    pub(crate) fn is_function(&self) -> bool {
        self.kind == 2
    }

    /// Whether it stands for its section (`STT_SECTION`) or for the source file (`STT_FILE`), or is a number of the assembler's, of
    /// which some reach the symbol table.
    pub(crate) fn is_nameless(&self) -> bool {
        self.kind == 3 || self.kind == 4 || self.name.is_empty() || self.name.starts_with(".L")
    }

    /// Whether what follows it in the table is of this source file.
    pub(crate) fn is_file(&self) -> bool {
        self.kind == 4
    }

    pub(crate) fn is_global(&self) -> bool {
        self.binding != 0
    }

    pub(crate) fn is_weak(&self) -> bool {
        self.binding == 2
    }
}

/// One object or module.
#[derive(Debug)]
pub(crate) struct Elf {
    bytes: Vec<u8>,
    pub(crate) sections: Vec<Section>,
    pub(crate) symbols: Vec<Symbol>,
    /// Defined and named symbols by name.
    by_name: HashMap<String, Vec<usize>>,
    /// For each section its symbols that name something, by rising value.
    named_in: Vec<Vec<usize>>,
}

impl Elf {
    /// An object with nothing in it.
    pub(crate) fn empty() -> Elf {
        Elf {
            bytes: Vec::new(),
            sections: Vec::new(),
            symbols: Vec::new(),
            by_name: HashMap::new(),
            named_in: Vec::new(),
        }
    }

    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Elf, Malformed> {
        let mut elf = Elf { bytes, ..Elf::empty() };
        let table = elf.read_sections()?;
        elf.read_symbols(&table)?;
        elf.read_relocations(&table)?;
        elf.index();
        Ok(elf)
    }

    fn take<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.take(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.take(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.take(at).map(u64::from_le_bytes)
    }

    fn text(&self, range: &Range<usize>, at: u32) -> Option<String> {
        let tail = self.bytes.get(range.clone())?.get(at as usize..)?;
        let end = tail.iter().position(|&byte| byte == 0)?;
        Some(String::from_utf8_lossy(&tail[..end]).into_owned())
    }

    fn read_sections(&mut self) -> Result<Vec<Header>, Malformed> {
        if !self.bytes.starts_with(b"\x7fELF\x02\x01") || self.u16(18) != Some(EM_X86_64) {
            return malformed("it is no x86-64 ELF file");
        }
        let read = || {
            let start = usize::try_from(self.u64(40)?).ok()?;
            let (mut count, names) = (usize::from(self.u16(60)?), usize::from(self.u16(62)?));
            if count == 0 {
                count = usize::try_from(self.u64(start.checked_add(32)?)?).ok()?;
            }
            let is_sound = self.u16(58)? == 64 && count <= MOST && names < count;
            is_sound.then_some(())?;
            let header = |number: usize| self.header(start.checked_add(number.checked_mul(64)?)?);
            let table = (0..count).map(header).collect::<Option<Vec<Header>>>()?;
            Some((table, names))
        };
        let Some((table, names)) = read() else { return malformed("its section table is damaged") };
        let names = table[names].file.clone();
        for header in &table {
            let Some(name) = self.text(&names, header.name) else {
                return malformed("a section's name is damaged");
            };
            self.sections.push(Section {
                name,
                flags: header.flags,
                size: header.size,
                align: header.align.max(1),
                entry: header.entry,
                kind: header.kind,
                file: header.file.clone(),
                relocations: Vec::new(),
            });
        }
        Ok(table)
    }

    fn header(&self, at: usize) -> Option<Header> {
        let kind = self.u32(at + 4)?;
        let (offset, size) = (usize::try_from(self.u64(at + 24)?).ok()?, self.u64(at + 32)?);
        let length = if kind == SHT_NOBITS || kind == 0 { 0 } else { usize::try_from(size).ok()? };
        let file = offset..offset.checked_add(length)?;
        (length == 0 || file.end <= self.bytes.len()).then_some(())?;
        Some(Header {
            name: self.u32(at)?,
            kind,
            flags: self.u64(at + 8)?,
            file: if length == 0 { 0..0 } else { file },
            size,
            link: self.u32(at + 40)? as usize,
            info: self.u32(at + 44)? as usize,
            align: self.u64(at + 48)?,
            entry: self.u64(at + 56)?,
        })
    }

    fn read_symbols(&mut self, table: &[Header]) -> Result<(), Malformed> {
        let Some(header) = table.iter().find(|header| header.kind == SHT_SYMTAB) else { return Ok(()) };
        let Some(strings) = table.get(header.link).map(|header| header.file.clone()) else {
            return malformed("its symbol table has no names");
        };
        let count = header.file.len() / 24;
        for number in 0..count.min(MOST) {
            let read = || {
                let at = header.file.start + number * 24;
                let info = self.take::<1>(at + 4)?[0];
                let place = self.u16(at + 6)?;
                let home = match place {
                    0 => Home::Undefined,
                    SHN_LIVEPATCH => Home::Livepatch,
                    SHN_ABS => Home::Absolute,
                    SHN_LORESERVE.. => Home::Other,
                    _ if usize::from(place) < table.len() => Home::Section(usize::from(place)),
                    _ => return None,
                };
                Some(Symbol {
                    name: self.text(&strings, self.u32(at)?)?,
                    value: self.u64(at + 8)?,
                    size: self.u64(at + 16)?,
                    kind: info & 15,
                    binding: info >> 4,
                    home,
                })
            };
            let Some(symbol) = read() else { return malformed("its symbol table is damaged") };
            self.symbols.push(symbol);
        }
        Ok(())
    }

    fn read_relocations(&mut self, table: &[Header]) -> Result<(), Malformed> {
        for (number, header) in table.iter().enumerate().filter(|(_, header)| header.kind == SHT_RELA) {
            let Some(target) = self.sections.get(header.info).map(|section| section.name.clone()) else {
                return malformed("relocations of a section that is not there");
            };
            let late = match self.sections[number].flags & SHF_RELA_LIVEPATCH {
                0 => None,
                _ => match late_object(&self.sections[number].name, &target) {
                    Some(object) => Some(object.to_owned()),
                    None => return malformed("a name of livepatch relocations that the kernel cannot read"),
                },
            };
            let mut list = Vec::new();
            for at in header.file.clone().step_by(24).take(MOST) {
                let read = || {
                    let info = self.u64(at + 8)?;
                    let symbol = usize::try_from(info >> 32).ok()?;
                    (symbol < self.symbols.len()).then_some(Relocation {
                        offset: self.u64(at)?,
                        kind: info as u32,
                        symbol,
                        addend: self.u64(at + 16)? as i64,
                        late: late.clone(),
                    })
                };
                let Some(relocation) = read() else { return malformed("its relocations are damaged") };
                list.push(relocation);
            }
            self.sections[header.info].relocations.extend(list);
        }
        for section in &mut self.sections {
            section.relocations.sort_by_key(|relocation| relocation.offset);
        }
        Ok(())
    }

    fn index(&mut self) {
        self.named_in = vec![Vec::new(); self.sections.len()];
        for (number, symbol) in self.symbols.iter().enumerate() {
            let Home::Section(section) = symbol.home else { continue };
            // objtool's names for the room before functions, which are no functions (`elf_create_prefix_symbol`).
            if symbol.is_nameless() || symbol.name.starts_with("__pfx_") {
                continue;
            }
            self.by_name.entry(symbol.name.clone()).or_default().push(number);
            self.named_in[section].push(number);
        }
        for list in &mut self.named_in {
            list.sort_by_key(|&number| self.symbols[number].value);
        }
    }

    /// A section's contents; empty for memory that begins as zeros.
    pub(crate) fn contents(&self, section: usize) -> &[u8] {
        let Some(section) = self.sections.get(section) else { return &[] };
        self.bytes.get(section.file.clone()).unwrap_or_default()
    }

    /// Bytes of a section; zeros of memory that begins so.
    pub(crate) fn bytes(&self, section: usize, range: &Range<u64>) -> Option<Vec<u8>> {
        let parsed = self.sections.get(section)?;
        (range.start <= range.end && range.end <= parsed.size).then_some(())?;
        if parsed.is_zeros() {
            return Some(vec![
                0;
                usize::try_from(range.end - range.start).ok().filter(|&size| size <= MOST)?
            ]);
        }
        self.contents(section).get(range.start as usize..range.end as usize).map(<[u8]>::to_vec)
    }

    /// The defined symbols of a name.
    pub(crate) fn named(&self, name: &str) -> &[usize] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The only defined symbol of a name.
    pub(crate) fn only(&self, name: &str) -> Option<usize> {
        match self.named(name) {
            [only] => Some(*only),
            _ => None,
        }
    }

    pub(crate) fn section_named(&self, name: &str) -> Option<usize> {
        self.sections.iter().position(|section| section.name == name)
    }

    /// The symbols that name something in a section, by rising value.
    pub(crate) fn named_in(&self, section: usize) -> &[usize] {
        self.named_in.get(section).map_or(&[], Vec::as_slice)
    }

    /// The section and the offset that a symbol names.
    pub(crate) fn place(&self, symbol: usize) -> Option<(usize, u64)> {
        let symbol = self.symbols.get(symbol)?;
        match symbol.home {
            Home::Section(section) => Some((section, symbol.value)),
            _ => None,
        }
    }

    /// The text that begins at a place, without its terminator.
    pub(crate) fn string_at(&self, section: usize, offset: u64) -> Option<&str> {
        let tail = self.contents(section).get(usize::try_from(offset).ok()?..)?;
        let end = tail.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&tail[..end]).ok()
    }

    /// The values of a key of `.modinfo`.
    pub(crate) fn modinfo<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let contents = self.section_named(".modinfo").map_or(&[][..], |section| self.contents(section));
        contents
            .split(|&byte| byte == 0)
            .filter_map(move |entry| std::str::from_utf8(entry).ok()?.strip_prefix(key)?.strip_prefix('='))
    }
}

struct Header {
    name: u32,
    kind: u32,
    flags: u64,
    file: Range<usize>,
    size: u64,
    link: usize,
    info: usize,
    align: u64,
    entry: u64,
}

/// The object in the name `.klp.rela.OBJECT.SECTION`.
fn late_object<'a>(name: &'a str, section: &str) -> Option<&'a str> {
    let (object, rest) = name.strip_prefix(".klp.rela.")?.split_once('.')?;
    (rest == section && !object.is_empty()).then_some(object)
}
