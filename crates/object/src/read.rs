//! From bytes to the arena.

use crate::{
    Binding, Group, LivepatchRelocations, Object, ObjectError, Place, Relocation, Section, SectionId, Symbol,
    SymbolId, SymbolKind, elf,
};
use object::elf as standard;
use object::read::elf::{FileHeader, Rela, SectionHeader, SectionTable, Sym, SymbolTable};
use object::{Endianness, SectionIndex, SymbolIndex};

type Header = standard::FileHeader64<Endianness>;

/// What the passes share: the file and the map from its section numbers to the arena's.
struct Reader<'a> {
    endian: Endianness,
    bytes: &'a [u8],
    table: SectionTable<'a, Header>,
    symbols: SymbolTable<'a, Header>,
    /// By ELF section number; `None` for sections that are folded away.
    ids: Vec<Option<SectionId>>,
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Object, ObjectError> {
    let header = file_header(bytes)?;
    let endian = header.endian().map_err(format_error)?;
    let table = header.sections(endian, bytes).map_err(format_error)?;
    let symbols = table.symbols(endian, bytes, standard::SHT_SYMTAB).map_err(format_error)?;
    refuse_overlaps(&table, endian, bytes)?;
    let ids = number_sections(&table, endian);
    let reader = Reader { endian, bytes, table, symbols, ids };
    let mut object = Object {
        machine: header.e_machine(endian).0,
        flags: header.e_flags(endian).0,
        sections: reader.sections()?,
        symbols: reader.symbols()?,
        groups: Vec::new(),
    };
    object.groups = reader.groups(&object)?;
    reader.relocations(&mut object)?;
    Ok(object)
}

/// Sections of a file do not overlap, so together they hold no more than the file. Headers that say otherwise
/// would have the same bytes copied once for each.
fn refuse_overlaps(
    table: &SectionTable<'_, Header>,
    endian: Endianness,
    bytes: &[u8],
) -> Result<(), ObjectError> {
    let sizes = table.iter().filter_map(|section| section.file_range(endian)).map(|(_, size)| size);
    let total = sizes.fold(0u64, u64::saturating_add);
    if total > bytes.len() as u64 {
        return Err(ObjectError::Format("its sections overlap".into()));
    }
    Ok(())
}

fn file_header(bytes: &[u8]) -> Result<&Header, ObjectError> {
    if bytes.len() < 20 || !bytes.starts_with(b"\x7fELF") {
        return Err(ObjectError::Format("no ELF header".into()));
    }
    if bytes[4] != standard::ELFCLASS64.0 || bytes[5] != standard::ELFDATA2LSB.0 {
        return Err(ObjectError::Architecture("another word size or byte order".into()));
    }
    let header = Header::parse(bytes).map_err(format_error)?;
    let endian = header.endian().map_err(format_error)?;
    let machine = header.e_machine(endian);
    if machine != standard::EM_X86_64 {
        return Err(ObjectError::Architecture(format!("ELF machine {}", machine.0)));
    }
    if header.e_type(endian) != standard::ET_REL {
        return Err(ObjectError::Unsupported("not a relocatable object (ELF type REL)".into()));
    }
    Ok(header)
}

fn format_error(error: object::read::Error) -> ObjectError {
    ObjectError::Format(error.to_string())
}

/// Whether a section only ties the file together.
fn is_folded(kind: standard::SectionType) -> bool {
    [
        standard::SHT_NULL,
        standard::SHT_SYMTAB,
        standard::SHT_STRTAB,
        standard::SHT_RELA,
        standard::SHT_REL,
        standard::SHT_SYMTAB_SHNDX,
        standard::SHT_GROUP,
    ]
    .contains(&kind)
}

fn number_sections(table: &SectionTable<'_, Header>, endian: Endianness) -> Vec<Option<SectionId>> {
    let mut next = 0;
    table
        .iter()
        .map(|section| {
            if is_folded(section.sh_type(endian)) {
                return None;
            }
            next += 1;
            Some(SectionId(next - 1))
        })
        .collect()
}

impl Reader<'_> {
    fn id(&self, index: SectionIndex) -> Option<SectionId> {
        self.ids.get(index.0).copied().flatten()
    }

    fn section_name(&self, section: &standard::SectionHeader64<Endianness>) -> Result<String, ObjectError> {
        let name = self.table.section_name(self.endian, section).map_err(format_error)?;
        text(name, "section")
    }

    fn sections(&self) -> Result<Vec<Section>, ObjectError> {
        let mut sections = Vec::new();
        for section in self.table.iter() {
            let kind = section.sh_type(self.endian);
            if is_folded(kind) {
                continue;
            }
            let data = section.data(self.endian, self.bytes).map_err(format_error)?;
            let flags = section.sh_flags(self.endian).0;
            let link_order = (flags & elf::SHF_LINK_ORDER != 0).then(|| self.id(section.link(self.endian)));
            sections.push(Section {
                name: self.section_name(section)?,
                kind: kind.0,
                flags,
                align: section.sh_addralign(self.endian),
                entsize: section.sh_entsize(self.endian),
                data: data.to_vec(),
                size: section.sh_size(self.endian),
                link_order: link_order.flatten(),
                relocations: Vec::new(),
                livepatch: Vec::new(),
            });
        }
        Ok(sections)
    }

    fn symbols(&self) -> Result<Vec<Symbol>, ObjectError> {
        let mut symbols = Vec::with_capacity(self.symbols.len().max(1));
        for (index, symbol) in self.symbols.iter().enumerate() {
            let name = symbol.name(self.endian, self.symbols.strings()).map_err(format_error)?;
            symbols.push(Symbol {
                name: text(name, "symbol")?,
                value: symbol.st_value(self.endian),
                size: symbol.st_size(self.endian),
                binding: binding(symbol.st_bind()),
                kind: symbol_kind(symbol.st_type()),
                other: symbol.st_other().0,
                place: self.place(symbol, SymbolIndex(index))?,
            });
        }
        if symbols.is_empty() {
            symbols.push(Symbol::null());
        }
        Ok(symbols)
    }

    fn place(&self, symbol: &standard::Sym64<Endianness>, index: SymbolIndex) -> Result<Place, ObjectError> {
        let raw = symbol.st_shndx(self.endian);
        Ok(match raw {
            standard::SHN_UNDEF => Place::Undefined,
            standard::SHN_ABS => Place::Absolute,
            standard::SHN_COMMON => Place::Common,
            other if other.0 == elf::SHN_LIVEPATCH => Place::Livepatch,
            _ => {
                let section =
                    self.symbols.symbol_section(self.endian, symbol, index).map_err(format_error)?;
                match section.map(|section| self.id(section)) {
                    Some(Some(id)) => Place::Section(id),
                    // Section symbols of folded sections refer to nothing that is kept.
                    Some(None) if symbol.st_type() == standard::STT_SECTION => Place::Undefined,
                    _ => return Err(ObjectError::Format(format!("symbol {} is in no section", index.0))),
                }
            }
        })
    }

    fn groups(&self, object: &Object) -> Result<Vec<Group>, ObjectError> {
        let mut groups = Vec::new();
        for section in self.table.iter() {
            let Some((flags, members)) = section.group(self.endian, self.bytes).map_err(format_error)? else {
                continue;
            };
            let signature = SymbolId(section.sh_info(self.endian));
            if signature.index() >= object.symbols.len() {
                return Err(ObjectError::Format("a section group names no symbol".into()));
            }
            let members =
                members.iter().filter_map(|member| self.id(SectionIndex(member.get(self.endian) as usize)));
            groups.push(Group { signature, flags: flags.0, members: members.collect() });
        }
        Ok(groups)
    }

    fn relocations(&self, object: &mut Object) -> Result<(), ObjectError> {
        for section in self.table.iter() {
            if section.sh_type(self.endian) == standard::SHT_REL {
                return Err(ObjectError::Unsupported("relocations without addends".into()));
            }
            let Some((relocations, _)) = section.rela(self.endian, self.bytes).map_err(format_error)? else {
                continue;
            };
            let Some(target) = self.id(section.info_link(self.endian)) else {
                return Err(ObjectError::Format("relocations of a section that is not there".into()));
            };
            let parsed = self.relocation_list(relocations, object, target)?;
            let target = &mut object.sections[target.index()];
            if section.sh_flags(self.endian).0 & elf::SHF_RELA_LIVEPATCH == 0 {
                target.relocations.extend(parsed);
            } else {
                let name = self.section_name(section)?;
                let object_name = livepatch_object(&name, &target.name)?;
                target.livepatch.push(LivepatchRelocations { object: object_name, relocations: parsed });
            }
        }
        Ok(())
    }

    fn relocation_list(
        &self,
        relocations: &[standard::Rela64<Endianness>],
        object: &Object,
        target: SectionId,
    ) -> Result<Vec<Relocation>, ObjectError> {
        let size = object.section(target).size;
        let mut list = Vec::with_capacity(relocations.len());
        for relocation in relocations {
            let parsed = Relocation {
                offset: relocation.r_offset(self.endian),
                kind: relocation.r_type(self.endian, false).0,
                symbol: SymbolId(relocation.r_sym(self.endian, false)),
                addend: relocation.r_addend(self.endian),
            };
            if parsed.symbol.index() >= object.symbols.len() {
                return Err(ObjectError::Format("a relocation names no symbol".into()));
            }
            let end = parsed.offset.checked_add(elf::width(parsed.kind).unwrap_or(0));
            if end.is_none_or(|end| end > size) {
                return Err(ObjectError::Format(format!(
                    "a relocation lies outside of section {}",
                    object.section(target).name
                )));
            }
            list.push(parsed);
        }
        Ok(list)
    }
}

fn text(bytes: &[u8], what: &str) -> Result<String, ObjectError> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| ObjectError::Format(format!("a {what}'s name is not UTF-8")))
}

/// The object's name in `.klp.rela.OBJECT.SECTION`. The object's name holds no dot, the section's may.
fn livepatch_object(name: &str, target: &str) -> Result<String, ObjectError> {
    name.strip_prefix(".klp.rela.")
        .and_then(|rest| rest.strip_suffix(target))
        .and_then(|rest| rest.strip_suffix('.'))
        .filter(|object| !object.is_empty() && !object.contains('.'))
        .map(str::to_owned)
        .ok_or_else(|| ObjectError::Format(format!("malformed livepatch relocation section {name}")))
}

fn binding(binding: standard::SymbolBind) -> Binding {
    match binding {
        standard::STB_LOCAL => Binding::Local,
        standard::STB_GLOBAL => Binding::Global,
        standard::STB_WEAK => Binding::Weak,
        other => Binding::Other(other.0),
    }
}

fn symbol_kind(kind: standard::SymbolType) -> SymbolKind {
    match kind {
        standard::STT_NOTYPE => SymbolKind::None,
        standard::STT_OBJECT => SymbolKind::Object,
        standard::STT_FUNC => SymbolKind::Function,
        standard::STT_SECTION => SymbolKind::Section,
        standard::STT_FILE => SymbolKind::File,
        other => SymbolKind::Other(other.0),
    }
}
