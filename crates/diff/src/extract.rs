//! The kept atoms as an object of their own.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::ends;
use crate::marks::Marks;
use crate::pair::Pairing;
use crate::references::{self, Target};
use crate::runtime;
use crate::select::{self, Route, Selection};
use crate::update::{Update, Value};
use kmend_object::{
    Binding, Object, Place, Relocation, Section, SectionId, Symbol, SymbolId, SymbolKind, elf,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The section that the copied strings are put in. It is not marked as mergeable: the references into it are
/// to the section and an offset, which a merging linker would misread for relative operands.
const STRING_SECTION: &str = ".rodata.kmend_strings";

/// The largest alignment of a copied string, in bytes: a page, far more than compilers give (gcc/varasm.cc,
/// `mergeable_string_section`).
const LARGEST_ALIGNMENT: u64 = 4096;

/// The table of words to exchange, and the section that holds it.
const UPDATE_TABLE: &str = "kmend_update_table";
const UPDATE_SECTION: &str = ".data.kmend_updates";

/// The section of per-CPU data.
const PER_CPU: &str = ".data..percpu";

/// What one unit adds to the module.
#[derive(Debug, Clone, Default)]
pub struct Extract {
    /// Only kept sections. Every kept function is a section with its symbol in it; entries of tables and copied
    /// strings stand in sections of their tables' names, in the original order.
    pub object: Object,
    /// What each undefined symbol of `object` means.
    pub references: BTreeMap<SymbolId, Reference>,
    /// Those of them that are only called where the call does not come back.
    pub ends: BTreeSet<SymbolId>,
}

/// What a reference out of the module means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// Defined by the original unit, static or global, and to be found in the running kernel.
    Original {
        /// The symbol's name in the original object.
        name: String,
    },
    /// Defined by the original of another unit of the patch, static or global.
    Living {
        /// The unit's source.
        unit: String,
        /// The symbol's name in that unit's original object.
        name: String,
    },
    /// Defined by another unit, of the kernel or of a module.
    External {
        /// The symbol's name.
        name: String,
    },
}

impl Reference {
    /// The symbol's name.
    pub fn name(&self) -> &str {
        match self {
            Reference::Original { name } | Reference::Living { name, .. } | Reference::External { name } => {
                name
            }
        }
    }
}

/// Where an atom stands in the new object.
#[derive(Clone, Copy)]
struct Placed {
    section: SectionId,
    symbol: SymbolId,
    /// Offset of the atom's first byte in its new section.
    start: u64,
}

pub(crate) struct Extraction<'a> {
    original: &'a Unit<'a>,
    patched: &'a Unit<'a>,
    pairing: &'a Pairing,
    marks: &'a Marks,
    object: Object,
    references: BTreeMap<SymbolId, Reference>,
    placed: HashMap<AtomId, Placed>,
    /// By what is meant, and whether it is called and does not come back.
    outside: HashMap<(Reference, bool), SymbolId>,
    ends: BTreeSet<SymbolId>,
    absolutes: HashMap<SymbolId, SymbolId>,
    /// By text and alignment: where the copy begins.
    texts: HashMap<(Vec<u8>, u64), u64>,
    text_section: Option<(SectionId, SymbolId)>,
}

/// What the extraction comes to.
pub(crate) struct Extracted {
    pub(crate) extract: Extract,
    /// The symbol of each kept atom.
    pub(crate) symbols: HashMap<AtomId, SymbolId>,
    /// The symbol of the table of words to exchange.
    pub(crate) update_table: Option<SymbolId>,
}

/// Builds the object.
pub(crate) fn extract<'a>(
    original: &'a Unit<'a>,
    patched: &'a Unit<'a>,
    pairing: &'a Pairing,
    marks: &'a Marks,
    selection: &Selection,
    updates: &[Update],
) -> Extracted {
    let mut extraction = Extraction {
        original,
        patched,
        pairing,
        marks,
        object: Object { flags: patched.object.flags, ..Object::new() },
        references: BTreeMap::new(),
        placed: HashMap::new(),
        outside: HashMap::new(),
        ends: BTreeSet::new(),
        absolutes: HashMap::new(),
        texts: HashMap::new(),
        text_section: None,
    };
    extraction.place(&selection.kept);
    for &id in &selection.kept {
        extraction.relocate(id);
    }
    let update_table = (!updates.is_empty()).then(|| extraction.update_table(updates));
    let symbols = extraction.placed.iter().map(|(&id, placed)| (id, placed.symbol)).collect();
    let extract =
        Extract { object: extraction.object, references: extraction.references, ends: extraction.ends };
    Extracted { extract, symbols, update_table }
}

impl Extraction<'_> {
    /// Gives every kept atom its place: entries of one table share a section, everything else has its own.
    fn place(&mut self, kept: &BTreeSet<AtomId>) {
        let mut tables: BTreeMap<(SectionId, Option<SectionId>), SectionId> = BTreeMap::new();
        let (entries, others): (Vec<AtomId>, Vec<AtomId>) =
            kept.iter().partition(|&&id| self.patched.atom(id).kind == AtomKind::Entry);
        for id in others {
            self.place_alone(id);
        }
        for id in entries {
            let source = self.patched.section_of(id);
            // A table that is bound to its function's section (SHF_LINK_ORDER) stays bound to it.
            let bound_to = source.link_order.and_then(|_| self.owner_section(id));
            let key = (self.patched.atom(id).section, bound_to);
            let section = *tables.entry(key).or_insert_with(|| {
                self.object.add_section(Section {
                    link_order: bound_to,
                    data: Vec::new(),
                    size: 0,
                    relocations: Vec::new(),
                    livepatch: Vec::new(),
                    ..header(source)
                })
            });
            // An entry may be shorter than what it is aligned to (`cut_entries`).
            let end = self.object.section(section).size;
            let start = end.next_multiple_of(source.align.clamp(1, LARGEST_ALIGNMENT));
            let padding = vec![0; (start - end) as usize];
            self.append(section, padding.into_iter().chain(self.patched.bytes(id).iter().copied()).collect());
            self.placed.insert(id, Placed { section, symbol: SymbolId::NULL, start });
        }
    }

    fn owner_section(&self, entry: AtomId) -> Option<SectionId> {
        match self.patched.atom(entry).references.first()?.target {
            Target::Atom { id, .. } => self.placed.get(&id).map(|placed| placed.section),
            _ => None,
        }
    }

    fn append(&mut self, section: SectionId, bytes: Vec<u8>) {
        let section = &mut self.object.sections[section.index()];
        section.size += bytes.len() as u64;
        section.data.extend(bytes);
    }

    fn place_alone(&mut self, id: AtomId) {
        let atom = self.patched.atom(id);
        let source = self.patched.section_of(id);
        let mut section = header(source);
        section.name = self.section_name(id);
        section.align = self.patched.alignment(id);
        section.size = atom.size;
        section.flags &= !(elf::SHF_MERGE | elf::SHF_GROUP | elf::SHF_LINK_ORDER);
        section.entsize = 0;
        if source.kind != elf::SHT_NOBITS {
            section.data = self.patched.bytes(id).to_vec();
        }
        let section = self.object.add_section(section);
        let prefix = atom.origin - atom.start;
        let symbol = self.object.add_symbol(self.symbol_for(id, section, prefix));
        self.placed.insert(id, Placed { section, symbol, start: 0 });
    }

    /// A function of a shared section gets a section named after itself, as -ffunction-sections would have given. Of per-CPU
    /// data a module has one section (kernel/module/main.c, `find_pcpusec`): by other names (include/linux/percpu-defs.h:
    /// `..read_mostly`, `..shared_aligned`) it would be plain memory there.
    fn section_name(&self, id: AtomId) -> String {
        let source = &self.patched.section_of(id).name;
        let shared = self.patched.atoms_in(self.patched.atom(id).section).len() > 1;
        match self.patched.symbol_of(id) {
            Some(symbol)
                if self.patched.section_of(id).is_code() && (shared || !source.starts_with(".text")) =>
            {
                format!(".text.{}", symbol.name)
            }
            _ if source.starts_with(PER_CPU) => PER_CPU.to_owned(),
            _ => source.clone(),
        }
    }

    fn symbol_for(&self, id: AtomId, section: SectionId, value: u64) -> Symbol {
        let place = Place::Section(section);
        // objtool takes a table for one of jumps if what refers to it names its section (tools/objtool/arch/x86/special.c,
        // `arch_find_switch_table`), as an assembler does for what is static.
        let named = self.patched.symbol_of(id).filter(|_| !self.patched.is_label_table(id));
        let Some(symbol) = named else {
            return Symbol { kind: SymbolKind::Section, place, ..Symbol::null() };
        };
        // Only what is new and global may be meant by another unit of the same patch.
        let is_new = !self.pairing.is_living(id);
        let binding = if is_new { symbol.binding } else { Binding::Local };
        Symbol { value, place, binding, ..symbol.clone() }
    }

    fn relocate(&mut self, id: AtomId) {
        let placed = self.placed[&id];
        for reference in &self.patched.atom(id).references {
            let offset = placed.start + reference.offset;
            if reference.in_place {
                self.clear(placed.section, offset, reference.kind);
            }
            let (symbol, addend) = self.resolve(id, reference);
            let relocation = Relocation { offset, kind: reference.kind, symbol, addend };
            self.object.sections[placed.section.index()].relocations.push(relocation);
        }
        self.read_variables(id);
    }

    /// Turns the loads of runtime constants into loads of their variables.
    fn read_variables(&mut self, id: AtomId) {
        let placed = self.placed[&id];
        for &entry in
            self.patched.atom(id).entries.iter().filter(|&&entry| runtime::is_load(self.patched, entry))
        {
            let Some(load) = runtime::load(self.patched, entry) else { continue };
            let symbol = self.outside_symbol(Reference::External { name: load.variable });
            let offset = placed.start + load.at;
            let section = &mut self.object.sections[placed.section.index()];
            let start = offset as usize;
            if let Some(old) = section.data.get_mut(start..start + load.code.len()) {
                old.copy_from_slice(&load.code);
                let offset = offset + runtime::HOLE;
                section.relocations.push(Relocation { offset, kind: elf::R_X86_64_PC32, symbol, addend: -4 });
            }
        }
    }

    fn clear(&mut self, section: SectionId, offset: u64, kind: u32) {
        let start = offset as usize;
        let end = start + elf::width(kind).unwrap_or(0) as usize;
        if let Some(hole) = self.object.sections[section.index()].data.get_mut(start..end) {
            hole.fill(0);
        }
    }

    /// The symbol and addend that express a reference in the new object.
    fn resolve(&mut self, source: AtomId, reference: &references::Reference) -> (SymbolId, i64) {
        let route = select::route(self.original, self.patched, self.pairing, self.marks, source, reference);
        match (route, &reference.target) {
            (Route::Kept(id), Target::Atom { offset, .. }) => {
                let target = self.placed[&id];
                (target.symbol, offset.wrapping_sub(reference.tail))
            }
            (Route::Text, Target::Text { section, offset }) => {
                let (symbol, at) = self.text(self.patched.object.section(*section), *offset);
                (symbol, at as i64 - reference.tail)
            }
            (Route::Outside(outside), Target::Atom { offset, .. } | Target::External { offset, .. }) => {
                let ends = ends::does(self.original, self.patched, self.pairing, source, reference);
                (self.outside_or_end(outside, ends), offset.wrapping_sub(reference.tail))
            }
            (_, Target::Other { symbol, offset } | Target::External { symbol, offset }) => {
                (self.absolute_symbol(*symbol), offset.wrapping_sub(reference.tail))
            }
            (_, Target::Atom { offset, .. }) => (SymbolId::NULL, *offset),
            (_, Target::Text { .. }) => (SymbolId::NULL, 0),
        }
    }

    /// The table of words to exchange, see [`crate::Delta::update_table`].
    fn update_table(&mut self, updates: &[Update]) -> SymbolId {
        let (mut data, mut relocations) = (Vec::new(), Vec::new());
        for update in updates {
            for word in &update.words {
                let offset = word.offset as i64;
                self.value(&Value::Outside(update.place.clone(), offset), &mut data, &mut relocations);
                data.extend((word.width as u32).to_le_bytes());
                let is_text = matches!(word.old, Value::Living(..));
                data.extend((u32::from(update.constant) | u32::from(is_text) << 1).to_le_bytes());
                self.value(&word.old, &mut data, &mut relocations);
                self.value(&word.new, &mut data, &mut relocations);
                data.extend([0; 8]);
            }
        }
        let table = Section { relocations, ..Section::allocated(UPDATE_SECTION, elf::SHF_WRITE, 8, data) };
        let section = self.object.add_section(table);
        self.object.add_symbol(Symbol {
            name: UPDATE_TABLE.into(),
            kind: SymbolKind::Object,
            size: self.object.section(section).size,
            place: Place::Section(section),
            ..Symbol::null()
        })
    }

    /// Adds a word of eight bytes to the table.
    fn value(&mut self, value: &Value, data: &mut Vec<u8>, relocations: &mut Vec<Relocation>) {
        let (symbol, addend) = match value {
            Value::Number(number) => return data.extend(number.to_le_bytes()),
            Value::Outside(outside, addend) => (self.outside_symbol(outside.clone()), *addend),
            Value::Kept(id, addend) => (self.placed[id].symbol, *addend),
            Value::Living(section, offset) => {
                let (symbol, at) = self.text(self.original.object.section(*section), *offset);
                (symbol, at as i64)
            }
            Value::Text(section, offset) => {
                let (symbol, at) = self.text(self.patched.object.section(*section), *offset);
                (symbol, at as i64)
            }
        };
        relocations.push(Relocation { offset: data.len() as u64, kind: elf::R_X86_64_64, symbol, addend });
        data.extend([0; 8]);
    }

    /// A copy of a string, aligned as it is there, made once.
    fn text(&mut self, source: &Section, offset: u64) -> (SymbolId, u64) {
        // The selection refuses what cannot be read.
        let text = source.string_at(offset).map_or(&[][..], |text| text.whole);
        let align = source.alignment_at(offset).min(LARGEST_ALIGNMENT);
        let (section, symbol) = *self.text_section.get_or_insert_with(|| {
            let section = self.object.add_section(Section::allocated(STRING_SECTION, 0, 1, Vec::new()));
            let symbol =
                Symbol { kind: SymbolKind::Section, place: Place::Section(section), ..Symbol::null() };
            (section, self.object.add_symbol(symbol))
        });
        let key = (text.to_vec(), align);
        if let Some(&at) = self.texts.get(&key) {
            return (symbol, at);
        }
        let target = &mut self.object.sections[section.index()];
        target.align = target.align.max(align);
        let at = target.size.next_multiple_of(align);
        target.data.resize(at as usize, 0);
        target.data.extend(text);
        target.size = target.data.len() as u64;
        self.texts.insert(key, at);
        (symbol, at)
    }

    fn outside_symbol(&mut self, outside: Reference) -> SymbolId {
        self.outside_or_end(outside, false)
    }

    fn outside_or_end(&mut self, outside: Reference, ends: bool) -> SymbolId {
        let key = (outside, ends);
        if let Some(&symbol) = self.outside.get(&key) {
            return symbol;
        }
        let symbol = self.object.add_symbol(Symbol::undefined(key.0.name()));
        self.references.insert(symbol, key.0.clone());
        if ends {
            self.ends.insert(symbol);
        }
        self.outside.insert(key, symbol);
        symbol
    }

    fn absolute_symbol(&mut self, source: SymbolId) -> SymbolId {
        let symbol = self.patched.object.symbol(source);
        if symbol.place != Place::Absolute {
            return SymbolId::NULL;
        }
        *self.absolutes.entry(source).or_insert_with(|| self.object.add_symbol(symbol.clone()))
    }
}

/// A section without contents, with what it is called and how it is loaded.
fn header(source: &Section) -> Section {
    Section {
        name: source.name.clone(),
        kind: source.kind,
        flags: source.flags,
        align: source.align,
        entsize: source.entsize,
        ..Section::default()
    }
}
