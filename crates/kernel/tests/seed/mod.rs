//! Small kernel images and modules, written field by field: the parsers' counterpart.
//!
//! They hold what the real ones hold, in each of the layouts that kernels have had, and a few symbols
//! instead of a hundred thousand.

#![allow(dead_code, reason = "each test binary uses its part of it")]

pub mod elf;
pub mod kallsyms;

use elf::{Builder, Part};
use kallsyms::{Encoding, Order};
use kmend_object::elf as constants;
use kmend_object::{Binding, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind};
use std::io::Write;

/// Where the kernel's code is linked.
pub const TEXT: u64 = 0xffff_ffff_8100_0000;
/// Where its constants are.
pub const RODATA: u64 = 0xffff_ffff_8200_0000;
pub const BANNER: &str = "Linux version 6.1.0-9-test (builder@host) (gcc-12) #1 SMP Test 6.1.9-1";

/// Which kallsyms tables a seed kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    None,
    /// All but `kallsyms_seqs_of_names`.
    NoSeqs,
    All,
}

/// What a seed kernel is like.
#[derive(Clone, Copy)]
pub struct Kernel {
    pub order: Order,
    pub encoding: Encoding,
    pub tables: Tables,
    pub symtab: bool,
    pub relative_crcs: bool,
}

impl Default for Kernel {
    fn default() -> Self {
        Kernel {
            order: Order::AddressesFirst,
            encoding: Encoding::PercpuRelative,
            tables: Tables::All,
            symtab: false,
            relative_crcs: false,
        }
    }
}

/// Type, name and address of the seed kernel's symbols.
pub fn symbols() -> Vec<(u8, String, u64)> {
    let mut symbols = vec![
        (b'A', "fixed_percpu_data".to_owned(), 0),
        (b'A', "cpu_number".to_owned(), 0x40),
        (b'T', "_text".to_owned(), TEXT),
        (b'T', "_stext".to_owned(), TEXT),
    ];
    for number in 0..300 {
        // Every third is a `show` of its own file.
        let name = if number % 3 == 0 { "show".to_owned() } else { format!("function_{number}") };
        symbols.push((b't', name, TEXT + 0x100 + number * 8));
    }
    symbols.push((b't', format!("long_{}", "x".repeat(300)), TEXT + 0xf00));
    symbols.push((b'W', "weak".to_owned(), TEXT + 0xf80));
    symbols.push((b'D', "linux_banner".to_owned(), RODATA + 64));
    symbols
}

impl Kernel {
    /// The ELF vmlinux.
    pub fn vmlinux(self) -> Vec<u8> {
        let mut rodata = vec![0x55; 64];
        rodata.extend_from_slice(BANNER.as_bytes());
        rodata.extend_from_slice(b"\n\0");
        rodata.resize(rodata.len().next_multiple_of(64), 0);
        if self.tables != Tables::None {
            let at = RODATA + rodata.len() as u64;
            rodata.extend(kallsyms::write(
                &symbols(),
                self.order,
                self.encoding,
                self.tables == Tables::All,
                at,
            ));
        }
        rodata.extend_from_slice(&[0x55; 64]);
        let mut builder = Builder::default();
        builder.part(Part::new(".text", TEXT, vec![0xc3; 0x1000]).code());
        builder.part(Part::new(".rodata", RODATA, rodata));
        self.exports(&mut builder, RODATA + 0x10_0000);
        builder.part(Part::new(".notes", RODATA + 0x20_0000, notes()));
        builder.part(Part::new(".BTF", RODATA + 0x30_0000, btf()));
        if self.symtab {
            for (kind, name, address) in symbols() {
                builder.symbol(&name, address, kind.is_ascii_uppercase());
            }
        }
        builder.finish()
    }

    /// Ten exports, and one for GPL-compatible modules in a namespace.
    fn exports(self, builder: &mut Builder, at: u64) {
        let strings = at + 0x1000;
        let mut texts = b"\0inner\0".to_vec();
        let mut tables = [Vec::new(), Vec::new()];
        let mut crcs = [Vec::new(), Vec::new()];
        let places = [at, at + 0x400];
        for number in 0..11u64 {
            let gpl = usize::from(number == 10);
            let table = &mut tables[gpl];
            let entry = places[gpl] + table.len() as u64;
            let targets = [TEXT + 0x100 + number * 8, strings + texts.len() as u64, strings + gpl as u64];
            for (field, target) in targets.into_iter().enumerate() {
                let offset = target.wrapping_sub(entry + field as u64 * 4) as u32;
                table.extend_from_slice(&offset.to_le_bytes());
            }
            texts.extend_from_slice(format!("export_{number}\0").as_bytes());
            crcs[gpl].extend_from_slice(&(0x1234_5678 + number as u32).to_le_bytes());
        }
        let [open, gpl] = tables;
        let [mut open_crcs, gpl_crcs] = crcs;
        if self.relative_crcs {
            // The table's place: 0x800; the values' place: 0x900; each offset is the same.
            builder.part(Part::new(".crcs", at + 0x900, open_crcs.clone()));
            open_crcs = 0x100u32.to_le_bytes().repeat(10);
        }
        builder.part(Part::new("__ksymtab", places[0], open));
        builder.part(Part::new("__ksymtab_gpl", places[1], gpl));
        builder.part(Part::new("__kcrctab", at + 0x800, open_crcs));
        builder.part(Part::new("__kcrctab_gpl", at + 0xa00, gpl_crcs));
        builder.part(Part::new("__ksymtab_strings", strings, texts));
    }
}

fn notes() -> Vec<u8> {
    let words = [4u32, 8, 3].iter().flat_map(|word| word.to_le_bytes());
    words.chain(*b"GNU\0").chain([1, 2, 3, 4, 5, 6, 7, 8]).collect()
}

/// Two types: `int`, and `struct pair` of `a` and `b`.
pub fn btf() -> Vec<u8> {
    let strings = b"\0int\0pair\0a\0b\0";
    let types: [u32; 13] = [1, 1 << 24, 4, 32, 5, 4 << 24 | 2, 8, 10, 1, 0, 12, 1, 32];
    let header = [24, 0, 52, 52, strings.len() as u32];
    let mut section = vec![0x9f, 0xeb, 1, 0];
    section.extend(header.iter().chain(&types).flat_map(|word| word.to_le_bytes()));
    section.extend_from_slice(strings);
    section
}

/// A way to pack.
pub type Pack = fn(&[u8]) -> Vec<u8>;

/// Every way in which a kernel may be packed.
pub const PACKS: [(&str, Pack); 6] =
    [("gzip", gzip), ("xz", xz), ("zstd", zstd), ("lz4", lz4), ("bzip2", bzip2), ("lzma", lzma)];

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

pub fn xz(plain: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(6);
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

pub fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).unwrap()
}

fn lz4(plain: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
    for block in plain.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        packed.extend_from_slice(&(block.len() as u32).to_le_bytes());
        packed.extend_from_slice(&block);
    }
    packed
}

fn bzip2(plain: &[u8]) -> Vec<u8> {
    let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

fn lzma(plain: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::LzmaOptions::with_preset(6);
    let mut writer = lzma_rust2::LzmaWriter::new_use_header(Vec::new(), &options, None).unwrap();
    writer.write_all(plain).unwrap();
    writer.finish().unwrap()
}

/// A boot image of one real-mode sector around a packed kernel.
pub fn bzimage(vmlinux: &[u8], pack: Pack) -> Vec<u8> {
    let mut payload = pack(vmlinux);
    payload.extend_from_slice(&(vmlinux.len() as u32).to_le_bytes());
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    image[0x236] = 1;
    image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend_from_slice(&[0x90; 16]);
    image.extend(payload);
    image
}

fn section(name: &str, data: Vec<u8>) -> Section {
    Section {
        name: name.into(),
        kind: constants::SHT_PROGBITS,
        flags: constants::SHF_ALLOC,
        align: 4,
        size: data.len() as u64,
        data,
        ..Section::default()
    }
}

fn symbol(name: &str, value: u64, section: SectionId) -> Symbol {
    Symbol {
        name: name.into(),
        value,
        size: 0,
        binding: Binding::Local,
        kind: SymbolKind::None,
        other: 0,
        place: Place::Section(section),
    }
}

/// A module that exports `frob` and `knob` (the latter in the namespace `inner`, both with CRCs) and has
/// three symbols `show`, the second of them in an init section.
pub fn module() -> Vec<u8> {
    let mut object = Object::new();
    let modinfo = b"name=seed\0depends=base\0vermagic=6.1.0-9-test SMP\0license=GPL\0";
    object.add_section(section(".modinfo", modinfo.to_vec()));
    let text = object.add_section(section(".text", vec![0xc3; 64]));
    let init = object.add_section(section(".init.text", vec![0xc3; 64]));
    let strings = object.add_section(section("__ksymtab_strings", b"frob\0\0knob\0inner\0".to_vec()));
    let mut table = section("__ksymtab_gpl", vec![0; 24]);
    for (number, (text_at, name_at, namespace_at)) in [(8, 0, 5), (16, 6, 11)].into_iter().enumerate() {
        for (field, (place, at)) in
            [(text, text_at), (strings, name_at), (strings, namespace_at)].into_iter().enumerate()
        {
            let symbol = object.add_symbol(symbol(&format!("target_{number}_{field}"), at, place));
            let offset = (number * 12 + field * 4) as u64;
            let kind = constants::R_X86_64_PC32;
            table.relocations.push(Relocation { offset, kind, symbol, addend: 0 });
        }
    }
    object.add_section(table);
    let crcs = [1u32, 2].iter().flat_map(|crc| crc.to_le_bytes()).collect();
    object.add_section(section("__kcrctab_gpl", crcs));
    for (number, place) in [text, init, text].into_iter().enumerate() {
        let _: SymbolId = object.add_symbol(symbol("show", number as u64 * 8, place));
    }
    object.write().unwrap()
}
