//! One kernel image: its sections, symbols, types, exports and texts.

mod bzimage;
mod elf;
mod memory;
mod texts;

use crate::btf::Btf;
use crate::error::KernelError;
use crate::exports::{self, Export};
use crate::file::read_file;
use crate::kallsyms::{self, Reached};
use crate::symbols::Symbols;
use crate::symtab;
use crate::unpack::Packing;
pub use elf::ImageSection;
pub(crate) use elf::{ElfPlace, ElfSymbol};
pub(crate) use memory::Memory;
use std::collections::BTreeMap;
use std::path::Path;
pub use texts::build_id;

/// The largest image that is read, in bytes: a vmlinux with its debug information has a quarter of it.
const LARGEST_IMAGE: u64 = 4 << 30;

/// The facts of one kernel image. Everything is read when it is opened: a damaged part is met there and not
/// in the middle of a stage.
pub struct Image {
    memory: Memory,
    symbols: Symbols,
    banner: String,
    build_id: Option<Vec<u8>>,
    config: Option<String>,
    btf: Option<Btf>,
    exports: BTreeMap<String, Export>,
}

impl Image {
    /// Reads a bzImage (`vmlinuz`) or an ELF kernel (`vmlinux`), the latter packed or not.
    pub fn open(path: &Path) -> Result<Image, KernelError> {
        let bytes =
            read_file(path, LARGEST_IMAGE).map_err(|source| KernelError::Io { path: path.into(), source })?;
        Image::parse(bytes).map_err(|error| error.in_file(path))
    }

    /// The same from the file's contents.
    pub fn parse(bytes: Vec<u8>) -> Result<Image, KernelError> {
        let bytes = unpack(bytes)?;
        let elf::Parsed { sections, symbols: table } = elf::parse(&bytes)?;
        let memory = Memory { bytes, sections };
        let data = |name| memory.section_named(name).and_then(|section| memory.contents(section));
        let symbols = read_symbols(&memory, &table)?;
        let banner = read_banner(&memory, &symbols)?;
        let config = memory.constants().find_map(|(_, contents)| texts::config(contents));
        Ok(Image {
            symbols,
            banner,
            build_id: data(".notes").and_then(build_id).map(<[u8]>::to_vec),
            config,
            btf: data(".BTF").map(Btf::parse).transpose()?,
            exports: exports::read(&memory)?,
            memory,
        })
    }

    /// The release, as `uname -r` prints it.
    pub fn release(&self) -> &str {
        texts::release(&self.banner).unwrap_or_default()
    }

    /// The version banner, as /proc/version prints it.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// The linker's build id, as /sys/kernel/notes holds it.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// The configuration, if the kernel carries it (`CONFIG_IKCONFIG`).
    pub fn config(&self) -> Option<&str> {
        self.config.as_deref()
    }

    /// The kernel's symbols.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The kernel's types, if it was built with `CONFIG_DEBUG_INFO_BTF`.
    pub fn btf(&self) -> Option<&Btf> {
        self.btf.as_ref()
    }

    /// What the kernel exports to modules, by name.
    pub fn exports(&self) -> &BTreeMap<String, Export> {
        &self.exports
    }

    /// The loaded sections, in the file's order.
    pub fn sections(&self) -> &[ImageSection] {
        &self.memory.sections
    }

    /// The loaded section of a name.
    pub fn section_named(&self, name: &str) -> Option<&ImageSection> {
        self.memory.section_named(name)
    }

    /// The contents of a section; `None` too where it is memory that begins as zeros.
    pub fn section_data(&self, name: &str) -> Option<&[u8]> {
        self.memory.contents(self.memory.section_named(name)?)
    }

    /// `length` bytes at an address that the kernel is linked to, if one section holds them all.
    pub fn read(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.memory.read(address, length)
    }
}

/// The ELF kernel in the file.
fn unpack(bytes: Vec<u8>) -> Result<Vec<u8>, KernelError> {
    let unpacked = if bzimage::detect(&bytes) {
        bzimage::unpack(&bytes)?
    } else if let Some(packing) = Packing::detect(&bytes) {
        packing.unpack(&bytes).map_err(KernelError::Image)?
    } else {
        bytes
    };
    if unpacked.starts_with(b"\x7fELF") {
        Ok(unpacked)
    } else {
        Err(KernelError::Image("neither a bzImage nor an ELF vmlinux".into()))
    }
}

/// The symbols from kallsyms, which is what the kernel itself goes by; from `.symtab` where there is none.
fn read_symbols(memory: &Memory, table: &[ElfSymbol]) -> Result<Symbols, KernelError> {
    let text = memory
        .section_named(".text")
        .ok_or_else(|| KernelError::Image("it has no section .text".into()))?
        .range();
    let mut reached = Reached::Nothing;
    for (section, contents) in memory.constants() {
        match kallsyms::find(contents, section.address, &text) {
            Ok(symbols) => return checked(symbols, table),
            Err(further) => reached = reached.max(further),
        }
    }
    symtab::symbols(table).ok_or_else(|| KernelError::KallsymsNotFound(reached.describe().into()))
}

fn checked(symbols: Symbols, table: &[ElfSymbol]) -> Result<Symbols, KernelError> {
    match symtab::contradiction(table, &symbols) {
        None => Ok(symbols),
        Some(name) => Err(KernelError::Image(format!("kallsyms and .symtab disagree on where `{name}` is"))),
    }
}

/// The banner that the symbol `linux_banner` names. `.rodata` also holds a weak one, without the build's
/// number, which the last link step overrides (init/version.c and init/version-timestamp.c, since 6.1).
fn read_banner(memory: &Memory, symbols: &Symbols) -> Result<String, KernelError> {
    let named = symbols.named("linux_banner").find_map(|symbol| texts::banner(memory.tail(symbol.address)?));
    let found = || memory.constants().find_map(|(_, contents)| texts::banner(contents));
    let banner = named.or_else(found).ok_or_else(|| KernelError::Image("it has no version banner".into()))?;
    Ok(banner.to_owned())
}
