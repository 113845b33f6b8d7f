//! From the arena to bytes.

use crate::{Binding, Object, ObjectError, Place, Relocation, Symbol, SymbolId, SymbolKind, elf};
use object::Endianness;
use object::elf as standard;
use object::write::elf::{FileHeader, Rel, SectionHeader, SinglePhase, Sym, Writer};
use std::borrow::Cow;

const ENTRY_SIZE_RELA: u64 = 24;

/// A section of the file that is waiting for its header.
struct Pending<'a> {
    name: Cow<'a, str>,
    header: SectionHeader,
    data: Cow<'a, [u8]>,
}

/// The file's numbering: contents first, then groups, then relocation sections, then `.strtab`,
/// `.symtab`, `.symtab_shndx` and `.shstrtab`. Known before the first byte is written, because
/// headers refer to one another.
struct Numbers {
    symtab: u32,
    /// From the arena's symbol ids to the file's.
    symbols: Vec<u32>,
    /// The arena's ids in the file's order.
    order: Vec<SymbolId>,
    first_global: u32,
}

pub(crate) fn write(object: &Object) -> Result<Vec<u8>, ObjectError> {
    let mut buffer = Vec::new();
    let mut head = Vec::new();
    let numbers = number(object)?;
    let pending = contents(object, &numbers)?;
    let names: Vec<Vec<u8>> = pending.iter().map(|section| section.name.as_bytes().to_vec()).collect();
    {
        let mut writer = Writer::<SinglePhase>::new_single_phase(Endianness::Little, true, &mut buffer);
        let header = FileHeader {
            e_type: standard::ET_REL,
            e_machine: standard::Machine(object.machine),
            e_flags: standard::FileFlags(object.flags),
            ..FileHeader::default()
        };
        writer.write_file_header(&header).map_err(write_error)?;
        let headers = write_contents(&mut writer, &pending);
        write_symbols(&mut writer, object, &numbers);
        let name_ids: Vec<_> = names.iter().map(|name| writer.add_section_name(name)).collect();
        writer.write_strtab().map_err(write_error)?;
        writer.write_symtab_shndx();
        writer.write_shstrtab().map_err(write_error)?;
        writer.write_null_section_header();
        for (mut header, name) in headers.into_iter().zip(name_ids) {
            header.sh_name = writer.section_name_offset(Some(name));
            writer.write_section_header(&header);
        }
        writer.write_strtab_section_header();
        writer.write_symtab_section_header(numbers.first_global);
        writer.write_symtab_shndx_section_header();
        writer.write_shstrtab_section_header();
        writer.write_file_header_to(&mut head).map_err(write_error)?;
    }
    buffer[..head.len()].copy_from_slice(&head);
    Ok(buffer)
}

fn write_error(error: object::write::Error) -> ObjectError {
    ObjectError::Write(error.to_string())
}

fn number(object: &Object) -> Result<Numbers, ObjectError> {
    let relocation_sections: usize = object
        .sections
        .iter()
        .map(|section| usize::from(!section.relocations.is_empty()) + section.livepatch.len())
        .sum();
    let total = object.sections.len() + object.groups.len() + relocation_sections;
    if total + 5 >= usize::from(standard::SHN_LORESERVE) {
        return Err(ObjectError::Write(format!("{total} sections are more than one file can hold")));
    }
    let is_local = |id: &SymbolId| object.symbol(*id).binding == Binding::Local;
    let (locals, globals): (Vec<_>, Vec<_>) = object.symbol_ids().partition(is_local);
    let first_global = locals.len() as u32 + 1;
    let order: Vec<SymbolId> = locals.into_iter().chain(globals).collect();
    let mut symbols = vec![0; object.symbols.len()];
    for (position, id) in order.iter().enumerate() {
        symbols[id.index()] = position as u32 + 1;
    }
    Ok(Numbers { symtab: total as u32 + 2, symbols, order, first_global })
}

/// Every section with contents, group and relocation section, with its bytes, in the file's order.
fn contents<'a>(object: &'a Object, numbers: &Numbers) -> Result<Vec<Pending<'a>>, ObjectError> {
    let mut list = Vec::new();
    for section in &object.sections {
        if section.kind != elf::SHT_NOBITS && section.size != section.data.len() as u64 {
            return Err(ObjectError::Write(format!("section {} and its size disagree", section.name)));
        }
        let header = SectionHeader {
            sh_type: standard::SectionType(section.kind),
            sh_flags: standard::SectionFlags(section.flags),
            sh_size: section.size,
            sh_link: section.link_order.map_or(0, |id| id.0 + 1),
            sh_addralign: section.align,
            sh_entsize: section.entsize,
            ..SectionHeader::default()
        };
        list.push(Pending { name: (&section.name).into(), header, data: section.data.as_slice().into() });
    }
    for group in &object.groups {
        let words = std::iter::once(group.flags).chain(group.members.iter().map(|member| member.0 + 1));
        let data: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        let header = SectionHeader {
            sh_type: standard::SHT_GROUP,
            sh_size: data.len() as u64,
            sh_link: numbers.symtab,
            sh_info: file_symbol(numbers, group.signature)?,
            sh_addralign: 4,
            sh_entsize: 4,
            ..SectionHeader::default()
        };
        list.push(Pending { name: ".group".into(), header, data: data.into() });
    }
    for (index, section) in object.sections.iter().enumerate() {
        let target = index as u32 + 1;
        if !section.relocations.is_empty() {
            let name = format!(".rela{}", section.name);
            list.push(relocation_section(name, elf::SHF_INFO_LINK, target, &section.relocations, numbers)?);
        }
        for livepatch in &section.livepatch {
            let name = format!(".klp.rela.{}.{}", livepatch.object, section.name);
            let flags = elf::SHF_RELA_LIVEPATCH | elf::SHF_INFO_LINK | elf::SHF_ALLOC;
            list.push(relocation_section(name, flags, target, &livepatch.relocations, numbers)?);
        }
    }
    Ok(list)
}

fn relocation_section<'a>(
    name: String,
    flags: u64,
    target: u32,
    relocations: &[Relocation],
    numbers: &Numbers,
) -> Result<Pending<'a>, ObjectError> {
    let encoder = object::write::elf::Encoder::new(Endianness::Little, true, standard::EM_X86_64);
    let mut data = Vec::with_capacity(relocations.len() * ENTRY_SIZE_RELA as usize);
    for relocation in relocations {
        let raw = Rel {
            r_offset: relocation.offset,
            r_sym: file_symbol(numbers, relocation.symbol)?,
            r_type: standard::RelocationType(relocation.kind),
            r_addend: relocation.addend,
        };
        encoder.relocation(&mut data, true, &raw);
    }
    let header = SectionHeader {
        sh_type: standard::SHT_RELA,
        sh_flags: standard::SectionFlags(flags),
        sh_size: data.len() as u64,
        sh_link: numbers.symtab,
        sh_info: target,
        sh_addralign: 8,
        sh_entsize: ENTRY_SIZE_RELA,
        ..SectionHeader::default()
    };
    Ok(Pending { name: name.into(), header, data: data.into() })
}

fn file_symbol(numbers: &Numbers, id: SymbolId) -> Result<u32, ObjectError> {
    let number = numbers.symbols.get(id.index()).copied();
    number.ok_or_else(|| ObjectError::Write("a reference to a symbol that is not there".into()))
}

fn write_contents(writer: &mut Writer<'_, SinglePhase>, pending: &[Pending<'_>]) -> Vec<SectionHeader> {
    let mut headers = Vec::with_capacity(pending.len());
    for section in pending {
        let mut header = section.header.clone();
        header.sh_offset = writer.write_align(header.sh_addralign.clamp(1, 4096));
        writer.write(&section.data);
        headers.push(header);
    }
    headers
}

fn write_symbols<'a>(writer: &mut Writer<'a, SinglePhase>, object: &'a Object, numbers: &Numbers) {
    writer.write_null_symbol();
    for &id in &numbers.order {
        let symbol = object.symbol(id);
        let name =
            if symbol.name.is_empty() { None } else { Some(writer.add_string(symbol.name.as_bytes())) };
        let st_name = writer.string_offset(name);
        let (section, st_shndx) = raw_place(symbol);
        writer.write_symbol(&Sym {
            section,
            st_name,
            st_info: standard::SymbolInfo(raw_binding(symbol.binding) << 4 | raw_kind(symbol.kind) & 0xf),
            st_other: standard::SymbolOther(symbol.other),
            st_shndx,
            st_value: symbol.value,
            st_size: symbol.size,
        });
    }
}

fn raw_place(symbol: &Symbol) -> (Option<u32>, standard::SymbolSection) {
    match symbol.place {
        Place::Undefined => (None, standard::SHN_UNDEF),
        Place::Absolute => (None, standard::SHN_ABS),
        Place::Common => (None, standard::SHN_COMMON),
        Place::Livepatch => (None, standard::SymbolSection(elf::SHN_LIVEPATCH)),
        Place::Section(id) => (Some(id.0 + 1), standard::SHN_UNDEF),
    }
}

fn raw_binding(binding: Binding) -> u8 {
    match binding {
        Binding::Local => standard::STB_LOCAL.0,
        Binding::Global => standard::STB_GLOBAL.0,
        Binding::Weak => standard::STB_WEAK.0,
        Binding::Other(raw) => raw,
    }
}

fn raw_kind(kind: SymbolKind) -> u8 {
    match kind {
        SymbolKind::None => standard::STT_NOTYPE.0,
        SymbolKind::Object => standard::STT_OBJECT.0,
        SymbolKind::Function => standard::STT_FUNC.0,
        SymbolKind::Section => standard::STT_SECTION.0,
        SymbolKind::File => standard::STT_FILE.0,
        SymbolKind::Other(raw) => raw,
    }
}
