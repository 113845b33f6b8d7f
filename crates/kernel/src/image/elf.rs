//! The linked kernel as ELF: its sections, and its symbol table where it has one.

use crate::error::KernelError;
use kmend_object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE};
use object::read::elf::{FileHeader, SectionHeader, Sym};
use object::{Endianness, elf, read};
use std::ops::Range;

/// No name in a kernel is longer, in bytes: `KSYM_NAME_LEN` is 512 (include/linux/kallsyms.h).
const LONGEST_NAME: usize = 4096;

/// One section of the kernel that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSection {
    /// Its name.
    pub name: String,
    /// Where the kernel is linked to hold it; KASLR moves it. `.data..percpu` is linked at 0.
    pub address: u64,
    /// Its size in memory, in bytes.
    pub size: u64,
    /// `sh_flags`.
    pub flags: u64,
    /// Where its contents are in the file; `None` for memory that begins as zeros.
    pub(super) file: Option<Range<usize>>,
}

impl ImageSection {
    /// The addresses that it covers.
    pub fn range(&self) -> Range<u64> {
        self.address..self.address.saturating_add(self.size)
    }

    /// Whether it holds code.
    pub fn is_code(&self) -> bool {
        self.flags & SHF_EXECINSTR != 0
    }
}

/// A symbol of `.symtab`.
pub(crate) struct ElfSymbol {
    pub(crate) name: String,
    pub(crate) value: u64,
    /// `STT_*`.
    pub(crate) kind: u8,
    /// `STB_*`.
    pub(crate) binding: u8,
    pub(crate) place: ElfPlace,
}

/// Where a symbol of `.symtab` is defined.
pub(crate) enum ElfPlace {
    /// Nowhere.
    Undefined,
    /// It is a number.
    Absolute,
    /// A section that is loaded, by what it holds.
    Loaded { code: bool, writable: bool, zeros: bool },
    /// A section that is not: debug information.
    NotLoaded,
}

/// What is read from an ELF kernel.
pub(super) struct Parsed {
    pub(super) sections: Vec<ImageSection>,
    pub(super) symbols: Vec<ElfSymbol>,
}

type Header = elf::FileHeader64<Endianness>;

/// Reads the tables of an ELF kernel.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, KernelError> {
    check_machine(bytes)?;
    let damaged = |error: read::Error| KernelError::Image(format!("damaged ELF: {error}"));
    let header = Header::parse(bytes).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    let table = header.sections(endian, bytes).map_err(damaged)?;
    let sections = table
        .iter()
        .filter(|section| is_loaded(section, endian))
        .map(|section| {
            Ok(ImageSection {
                name: name(table.section_name(endian, section)).map_err(damaged)?,
                address: section.sh_addr(endian),
                size: section.sh_size(endian),
                flags: section.sh_flags(endian).0,
                file: contents(section, endian, bytes.len())?,
            })
        })
        .collect::<Result<Vec<_>, KernelError>>()?;
    let held: usize = sections.iter().filter_map(|section| section.file.as_ref()).map(Range::len).sum();
    if held > bytes.len() {
        // Each section is searched: a crafted table could show one piece of the file many times.
        return Err(KernelError::Image("its sections overlap in the file".into()));
    }
    if sections.is_empty() {
        return Err(KernelError::Image("the ELF file has no section that is loaded".into()));
    }
    let symbols = symbols(bytes, endian, &table).map_err(damaged)?;
    Ok(Parsed { sections, symbols })
}

/// Refuses other machines by `EI_CLASS`, `EI_DATA` and `e_machine`, which stand at the same place in every
/// ELF file.
fn check_machine(bytes: &[u8]) -> Result<(), KernelError> {
    let machine =
        crate::le::u16_at(bytes, 18).ok_or_else(|| KernelError::Image("truncated ELF header".into()))?;
    let class = (bytes.get(4).copied(), bytes.get(5).copied());
    if class == (Some(elf::ELFCLASS64.0), Some(elf::ELFDATA2LSB.0)) && machine == elf::EM_X86_64.0 {
        return Ok(());
    }
    Err(KernelError::Architecture(format!("ELF machine {machine}")))
}

/// A name of bounded length: the tables may refer to one long text from everywhere.
fn name(bytes: read::Result<&[u8]>) -> read::Result<String> {
    let bytes = bytes?;
    let bytes = bytes.get(..LONGEST_NAME).unwrap_or(bytes);
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn is_loaded(section: &elf::SectionHeader64<Endianness>, endian: Endianness) -> bool {
    let flags = section.sh_flags(endian).0;
    flags & SHF_ALLOC != 0
}

fn contents(
    section: &elf::SectionHeader64<Endianness>,
    endian: Endianness,
    file_size: usize,
) -> Result<Option<Range<usize>>, KernelError> {
    let Some((offset, size)) = section.file_range(endian) else { return Ok(None) };
    match offset.checked_add(size) {
        Some(end) if end <= file_size as u64 => Ok(Some(offset as usize..end as usize)),
        _ => Err(KernelError::Image("a section reaches beyond the end of the file".into())),
    }
}

fn symbols(
    bytes: &[u8],
    endian: Endianness,
    sections: &read::elf::SectionTable<'_, Header>,
) -> read::Result<Vec<ElfSymbol>> {
    let table = sections.symbols(endian, bytes, elf::SHT_SYMTAB)?;
    table
        .enumerate()
        .skip(1)
        .map(|(index, symbol)| {
            let place = if symbol.is_undefined(endian) {
                ElfPlace::Undefined
            } else {
                match table.symbol_section(endian, symbol, index)? {
                    None => ElfPlace::Absolute,
                    Some(section) => place(sections.section(section)?, endian),
                }
            };
            Ok(ElfSymbol {
                name: name(table.symbol_name(endian, symbol))?,
                value: symbol.st_value(endian),
                kind: symbol.st_type().0,
                binding: symbol.st_bind().0,
                place,
            })
        })
        .collect()
}

fn place(section: &elf::SectionHeader64<Endianness>, endian: Endianness) -> ElfPlace {
    if !is_loaded(section, endian) {
        return ElfPlace::NotLoaded;
    }
    let flags = section.sh_flags(endian).0;
    ElfPlace::Loaded {
        code: flags & SHF_EXECINSTR != 0,
        writable: flags & SHF_WRITE != 0,
        zeros: section.sh_type(endian) == elf::SHT_NOBITS,
    }
}
