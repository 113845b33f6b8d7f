//! Relocatable ELF as plain data: an arena of sections, symbols and relocations.
//!
//! An [`Object`] holds what an x86-64 relocatable file says, with ids for pointers. Whatever exists only to
//! tie a file together (the symbol table, its string tables, relocation sections, group sections) is folded
//! into the data by [`Object::parse`] and made afresh by [`Object::write`]. Reading and writing go through
//! the `object` crate's low-level reader and writer: its builder rejects section groups and the allocated
//! relocation sections that livepatch modules carry.
//!
//! The input is not trusted: a malformed file is an [`ObjectError`], never a panic, and nothing is
//! allocated beyond what the file itself holds.
//!
//! Architecture invariant: this crate gives no meaning to names or contents. What a section or a
//! relocation is for is the business of the stages above.

pub mod elf;
mod read;
mod text;
mod write;

pub use text::Text;

use kmend_refusal::{Code, Coded};
use std::fmt;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not an ELF file, or one whose tables are damaged.
    #[error("not a readable ELF object: {0}")]
    Format(String),
    /// A well-formed file of another kind.
    #[error("{0}")]
    Unsupported(String),
    /// A file for another machine or word size.
    #[error("the object is for {0}, not for x86-64")]
    Architecture(String),
    /// The arena holds something that ELF cannot express.
    #[error("cannot write the object: {0}")]
    Write(String),
}

impl Coded for ObjectError {
    fn code(&self) -> Code {
        match self {
            ObjectError::Format(_) | ObjectError::Unsupported(_) => Code::ObjectFormat,
            ObjectError::Architecture(_) => Code::Architecture,
            ObjectError::Write(_) => Code::Internal,
        }
    }
}

/// Index of a section in [`Object::sections`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(pub u32);

/// Index of a symbol in [`Object::symbols`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId(pub u32);

impl SectionId {
    /// The id as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl SymbolId {
    /// The null symbol, which stands for "no symbol" in a relocation. It is the first of every object.
    pub const NULL: SymbolId = SymbolId(0);

    /// The id as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A relocatable object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `e_machine`.
    pub machine: u16,
    /// `e_flags`.
    pub flags: u32,
    /// The sections with contents, in file order. The null section, symbol tables, string tables,
    /// relocation sections and group sections are not among them.
    pub sections: Vec<Section>,
    /// The symbols in file order; the first is the null symbol.
    pub symbols: Vec<Symbol>,
    /// The section groups (ELF gABI, "Section Groups").
    pub groups: Vec<Group>,
}

/// One section with its relocations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// `sh_addralign`, in bytes.
    pub align: u64,
    /// `sh_entsize`, in bytes; 0 where entries have no fixed size.
    pub entsize: u64,
    /// Its contents; empty for `SHT_NOBITS`.
    pub data: Vec<u8>,
    /// Its size in bytes: `data.len()` unless it is `SHT_NOBITS`.
    pub size: u64,
    /// The section that `sh_link` names with `SHF_LINK_ORDER`.
    pub link_order: Option<SectionId>,
    /// Its relocations, in file order.
    pub relocations: Vec<Relocation>,
    /// Its livepatch relocations, by the object (`vmlinux` or a module) whose presence they wait for.
    pub livepatch: Vec<LivepatchRelocations>,
}

/// A `.klp.rela.OBJECT.SECTION` section (Documentation/livepatch/module-elf-format.rst, "3.1 Livepatch
/// relocation sections").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivepatchRelocations {
    /// `vmlinux` or a module's name.
    pub object: String,
    /// The relocations.
    pub relocations: Vec<Relocation>,
}

/// One symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Its name; empty for section symbols and the null symbol.
    pub name: String,
    /// `st_value`: the offset in its section, or the value of an absolute symbol.
    pub value: u64,
    /// `st_size`, in bytes.
    pub size: u64,
    /// `ELF64_ST_BIND`.
    pub binding: Binding,
    /// `ELF64_ST_TYPE`.
    pub kind: SymbolKind,
    /// `st_other`: the visibility in its low bits.
    pub other: u8,
    /// Where it is defined.
    pub place: Place,
}

/// Where a symbol is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// In another object.
    Undefined,
    /// Nowhere: its value is absolute.
    Absolute,
    /// As a common symbol; its value is its alignment.
    Common,
    /// In a section of this object.
    Section(SectionId),
    /// Resolved by the kernel's livepatch loader (`SHN_LIVEPATCH`).
    Livepatch,
}

/// A symbol's binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// Seen in this object only.
    Local,
    /// Seen by all.
    Global,
    /// Seen by all, and gives way to a global one.
    Weak,
    /// Any other value of `ELF64_ST_BIND`.
    Other(u8),
}

/// A symbol's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SymbolKind {
    /// Not said: labels of assembly, and undefined symbols.
    None,
    /// Data.
    Object,
    /// Code.
    Function,
    /// The section itself.
    Section,
    /// The source file's name.
    File,
    /// Any other value of `ELF64_ST_TYPE`.
    Other(u8),
}

/// One relocation with addend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Byte offset in the section that it changes.
    pub offset: u64,
    /// `R_X86_64_*`, see [`elf`].
    pub kind: u32,
    /// What it refers to.
    pub symbol: SymbolId,
    /// `r_addend`.
    pub addend: i64,
}

/// A section group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The symbol whose name identifies it.
    pub signature: SymbolId,
    /// `GRP_COMDAT` or 0.
    pub flags: u32,
    /// Its members, relocation sections left out.
    pub members: Vec<SectionId>,
}

impl Object {
    /// An empty x86-64 object: only the null symbol.
    pub fn new() -> Self {
        Object {
            machine: object::elf::EM_X86_64.0,
            flags: 0,
            sections: Vec::new(),
            symbols: vec![Symbol::null()],
            groups: Vec::new(),
        }
    }

    /// Reads a relocatable object or a kernel module.
    ///
    /// Data after the ELF file, such as a module's signature, is ignored.
    pub fn parse(bytes: &[u8]) -> Result<Object, ObjectError> {
        read::parse(bytes)
    }

    /// Writes it as a relocatable file. Local symbols are moved before the others, as ELF demands; apart
    /// from that everything keeps its order, so that equal objects give equal bytes.
    pub fn write(&self) -> Result<Vec<u8>, ObjectError> {
        write::write(self)
    }

    /// The section with this id.
    ///
    /// # Panics
    /// If the id is of another object; ids made by [`Object::parse`] are always in range.
    pub fn section(&self, id: SectionId) -> &Section {
        &self.sections[id.index()]
    }

    /// The symbol with this id.
    ///
    /// # Panics
    /// If the id is of another object; ids made by [`Object::parse`] are always in range.
    pub fn symbol(&self, id: SymbolId) -> &Symbol {
        &self.symbols[id.index()]
    }

    /// The ids of all sections, in order.
    pub fn section_ids(&self) -> impl Iterator<Item = SectionId> + use<> {
        (0..self.sections.len() as u32).map(SectionId)
    }

    /// The ids of all symbols but the null symbol, in order.
    pub fn symbol_ids(&self) -> impl Iterator<Item = SymbolId> + use<> {
        (1..self.symbols.len().max(1) as u32).map(SymbolId)
    }

    /// The first section of this name.
    pub fn section_named(&self, name: &str) -> Option<SectionId> {
        self.section_ids().find(|&id| self.section(id).name == name)
    }

    /// The symbols of this name, in order.
    pub fn symbols_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = SymbolId> + 'a {
        self.symbol_ids().filter(move |&id| self.symbol(id).name == name)
    }

    /// Adds a section.
    pub fn add_section(&mut self, section: Section) -> SectionId {
        self.sections.push(section);
        SectionId(self.sections.len() as u32 - 1)
    }

    /// Adds a symbol.
    pub fn add_symbol(&mut self, symbol: Symbol) -> SymbolId {
        self.symbols.push(symbol);
        SymbolId(self.symbols.len() as u32 - 1)
    }
}

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl Section {
    /// A section of the program (`SHT_PROGBITS`) that is in memory, with these further flags.
    pub fn allocated(name: impl Into<String>, flags: u64, align: u64, data: Vec<u8>) -> Section {
        Section {
            name: name.into(),
            kind: elf::SHT_PROGBITS,
            flags: elf::SHF_ALLOC | flags,
            align,
            size: data.len() as u64,
            data,
            ..Section::default()
        }
    }

    /// Whether it occupies memory in the loaded kernel or module.
    pub fn is_allocated(&self) -> bool {
        self.flags & elf::SHF_ALLOC != 0
    }

    /// Whether it holds code.
    pub fn is_code(&self) -> bool {
        self.flags & elf::SHF_EXECINSTR != 0
    }

    /// Whether a relocation is the operand of a direct call or jump, by the opcode before it: `E8`, `E9` and `0F 80` to `0F 8F` have
    /// one of four bytes that counts from its end (Intel SDM, volume 2). An operand in memory that counts so has a ModRM byte there,
    /// which is none of these.
    pub fn is_branch_operand(&self, relocation: &Relocation) -> bool {
        let before = |back: u64| {
            let at = relocation.offset.checked_sub(back).and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| self.data.get(at)).copied().unwrap_or(0)
        };
        let is_branch =
            matches!(before(1), 0xe8 | 0xe9) || (before(2) == 0x0f && matches!(before(1), 0x80..=0x8f));
        let is_operand = elf::is_relative(relocation.kind) && elf::width(relocation.kind) == Some(4);
        self.is_code() && is_operand && is_branch
    }

    /// Whether it can be written to at run time.
    pub fn is_writable(&self) -> bool {
        self.flags & elf::SHF_WRITE != 0
    }

    /// Whether it holds NUL-terminated strings that may be merged.
    pub fn is_strings(&self) -> bool {
        self.flags & elf::SHF_STRINGS != 0
    }

    /// The bytes from `offset`, or `None` where the section holds fewer.
    pub fn bytes(&self, offset: u64, length: u64) -> Option<&[u8]> {
        let end = offset.checked_add(length)?;
        self.data.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
    }
}

impl Symbol {
    /// The null symbol.
    pub fn null() -> Self {
        Symbol {
            name: String::new(),
            value: 0,
            size: 0,
            binding: Binding::Local,
            kind: SymbolKind::None,
            other: 0,
            place: Place::Undefined,
        }
    }

    /// A global symbol that another object defines.
    pub fn undefined(name: impl Into<String>) -> Self {
        Symbol { name: name.into(), binding: Binding::Global, ..Symbol::null() }
    }

    /// The section that defines it.
    pub fn section(&self) -> Option<SectionId> {
        match self.place {
            Place::Section(id) => Some(id),
            Place::Undefined | Place::Absolute | Place::Common | Place::Livepatch => None,
        }
    }

    /// Whether another object must define it.
    pub fn is_undefined(&self) -> bool {
        self.place == Place::Undefined
    }

    /// Whether it is code with a body in this object.
    pub fn is_function(&self) -> bool {
        self.kind == SymbolKind::Function && self.section().is_some()
    }
}

impl fmt::Display for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "section #{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_of_branches_are_told_by_their_opcodes() {
        for (bytes, kind, flags, is_branch) in [
            ([0x90, 0x90, 0xe8], elf::R_X86_64_PC32, elf::SHF_EXECINSTR, true),
            ([0x90, 0x90, 0xe9], elf::R_X86_64_PLT32, elf::SHF_EXECINSTR, true),
            ([0x90, 0x0f, 0x84], elf::R_X86_64_PC32, elf::SHF_EXECINSTR, true),
            // `lea 0(%rip),%rdi`, `sub $0,%rax` and data.
            ([0x48, 0x8d, 0x3d], elf::R_X86_64_PC32, elf::SHF_EXECINSTR, false),
            ([0x48, 0x81, 0xe8], elf::R_X86_64_32S, elf::SHF_EXECINSTR, false),
            ([0x90, 0x90, 0xe8], elf::R_X86_64_PC32, 0, false),
        ] {
            let section = Section::allocated(".text", flags, 1, [&bytes[..], &[0; 4]].concat());
            let relocation = Relocation { offset: 3, kind, symbol: SymbolId(1), addend: -4 };
            assert_eq!(section.is_branch_operand(&relocation), is_branch, "{bytes:x?}");
        }
        let short = Section::allocated(".text", elf::SHF_EXECINSTR, 1, vec![]);
        let relocation = Relocation { offset: 0, kind: elf::R_X86_64_PC32, symbol: SymbolId(1), addend: 0 };
        assert!(!short.is_branch_operand(&relocation));
    }
}
