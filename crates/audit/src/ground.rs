//! Where a unit's original stands in the kernel that ships, and what that holds where the original refers to something.
//!
//! The code of a section is one block in the kernel. It stands where the kernel has the names of its functions and the same bytes
//! outside of what the linker wrote. What the linker wrote there is an address: it tells where each symbol is that the
//! unit refers to, and where its data begins, whatever their names. All references to one symbol must agree.

use crate::elf::{Elf, Home, Relocation, is_relative, width};
use crate::living::{Kernel, Living, Module, VMLINUX};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// Of a name that more symbols have than this no place is tried.
const MOST_NAMESAKES: usize = 4096;
/// How often what was found is followed to what it refers to.
const ROUNDS: usize = 8;
/// What the build may put in the place of a jump whose label says so (tools/objtool/check.c, `handle_jump_alt`): the jump's first
/// byte, and the nop of its length.
const JUMPS: [(u8, &[u8]); 2] = [(0xeb, &[0x66, 0x90]), (0xe9, &[0x0f, 0x1f, 0x44, 0x00, 0x00])];
/// Sections that a tool fills in after the compiler (`resolve_btfids`), or sorts (scripts/sorttable.c).
const REWRITTEN: [&str; 3] = [".BTF_ids", "__ex_table", "__jump_table"];

/// What is known of one unit.
#[derive(Debug)]
pub(crate) struct Ground {
    bases: Vec<Option<Living>>,
    /// What references to symbols lead to, by the symbols' names.
    referred: HashMap<String, Living>,
    /// Names whose references lead to several places.
    conflicting: BTreeSet<String>,
    /// Names of sections with code whose bytes fit at several places, or at none.
    lost: BTreeMap<String, &'static str>,
}

impl Ground {
    /// Where a defined symbol of the original is.
    pub(crate) fn place(&self, elf: &Elf, symbol: usize) -> Option<Living> {
        let (section, value) = elf.place(symbol)?;
        self.at(section, value as i64)
    }

    /// Where a place of the original is.
    pub(crate) fn at(&self, section: usize, offset: i64) -> Option<Living> {
        Some(self.bases.get(section)?.as_ref()?.moved(offset))
    }

    /// What a reference to a name leads to.
    pub(crate) fn referred(&self, name: &str) -> Option<&Living> {
        self.referred.get(name)
    }

    pub(crate) fn is_conflicting(&self, name: &str) -> bool {
        self.conflicting.contains(name)
    }

    /// Why a section of code was not found.
    pub(crate) fn lost(&self, section: &str) -> Option<&'static str> {
        self.lost.get(section).copied()
    }

    /// The section of the original, and the offset in it, that a place belongs to.
    pub(crate) fn section_at(&self, elf: &Elf, place: &Living) -> Option<(usize, u64)> {
        self.bases.iter().enumerate().find_map(|(number, base)| {
            let base = base.as_ref().filter(|base| base.object == place.object)?;
            let offset = place.address.checked_sub(base.address)?;
            (offset < elf.sections[number].size).then_some((number, offset))
        })
    }
}

/// Finds the unit in what ships.
pub(crate) fn find(elf: &Elf, owner: &str, kernel: &Kernel<'_>) -> Result<Ground, crate::elf::Malformed> {
    let module = if owner == VMLINUX { None } else { Some(kernel.module(owner)?) };
    let mut search = Search {
        elf,
        kernel,
        owner,
        module,
        sites: sites(elf),
        ground: Ground {
            bases: vec![None; elf.sections.len()],
            referred: HashMap::new(),
            conflicting: BTreeSet::new(),
            lost: BTreeMap::new(),
        },
        votes: BTreeMap::new(),
        followed: BTreeSet::new(),
    };
    search.by_names(true);
    for _ in 0..ROUNDS {
        if !search.follow() {
            break;
        }
    }
    // Places that were equally good may be told apart by what is known now.
    search.by_names(true);
    search.by_names(false);
    for _ in 0..ROUNDS {
        if !search.follow() {
            break;
        }
    }
    Ok(search.ground)
}

/// Where the build may have made jumps nops, by section.
fn sites(elf: &Elf) -> HashMap<usize, BTreeSet<u64>> {
    let mut sites: HashMap<usize, BTreeSet<u64>> = HashMap::new();
    let tables = elf.sections.iter().filter(|section| section.name == "__jump_table");
    for relocation in tables.flat_map(|table| &table.relocations).filter(|one| one.offset % 16 == 0) {
        if let Some((section, value)) = elf.place(relocation.symbol)
            && let Some(offset) = value.checked_add_signed(relocation.addend)
        {
            sites.entry(section).or_default().insert(offset);
        }
    }
    sites
}

struct Search<'a> {
    elf: &'a Elf,
    kernel: &'a Kernel<'a>,
    owner: &'a str,
    module: Option<Rc<Module>>,
    sites: HashMap<usize, BTreeSet<u64>>,
    ground: Ground,
    /// What references say of sections that are not placed.
    votes: BTreeMap<usize, BTreeMap<Living, usize>>,
    followed: BTreeSet<usize>,
}

impl Search<'_> {
    fn bytes(&self, place: &Living, length: u64) -> Option<&[u8]> {
        let length = usize::try_from(length).ok()?;
        match &self.module {
            None => self.kernel.image.read(place.address, length),
            Some(module) => {
                let (section, offset) = Module::split(place.address);
                let start = usize::try_from(offset).ok()?;
                module.elf.contents(section).get(start..start.checked_add(length)?)
            }
        }
    }

    /// Where the symbol of a relocation is, by what is written at its place.
    fn symbol_at(&self, place: &Living, relocation: &Relocation) -> Option<Living> {
        let Some(module) = &self.module else {
            let held = self.bytes(place, width(relocation.kind)?)?;
            return Some(self.kernel.at(symbol_of(held, place.address, relocation)));
        };
        let (section, offset) = Module::split(place.address);
        let list = module.elf.sections.get(section)?.relocations_in(&(offset..offset + 1));
        let [shipped] = list else { return None };
        if width(shipped.kind) != width(relocation.kind)
            || is_relative(shipped.kind) != is_relative(relocation.kind)
        {
            return None;
        }
        let symbol = module.elf.symbols.get(shipped.symbol)?;
        let base = match symbol.home {
            Home::Section(section) => module.at(section, symbol.value),
            Home::Undefined => self.kernel.export_to(self.owner, &symbol.name)?,
            _ => return None,
        };
        Some(base.moved(shipped.addend.wrapping_sub(relocation.addend)))
    }

    fn by_names(&mut self, code: bool) {
        for section in 0..self.elf.sections.len() {
            let parsed = &self.elf.sections[section];
            if self.ground.bases[section].is_some()
                || parsed.is_code() != code
                || !parsed.is_loaded()
                || parsed.is_merged()
                || parsed.size == 0
            {
                continue;
            }
            let mut fits: Vec<Living> =
                self.candidates(section).into_iter().filter(|base| self.fits(section, base)).collect();
            if fits.len() > 1 {
                fits.retain(|base| self.agrees(section, base));
            }
            match fits.as_slice() {
                [only] => {
                    self.ground.bases[section] = Some(only.clone());
                    self.ground.lost.remove(&parsed.name);
                }
                several if code && !self.elf.named_in(section).is_empty() => {
                    let why = if several.is_empty() { "nowhere" } else { "at several places" };
                    self.ground.lost.insert(parsed.name.clone(), why);
                }
                _ => {}
            }
        }
    }

    /// The places that the names of its symbols would give a section.
    fn candidates(&self, section: usize) -> BTreeSet<Living> {
        let mut places = BTreeSet::new();
        let mut least = usize::MAX;
        for &number in self.elf.named_in(section) {
            let symbol = &self.elf.symbols[number];
            if symbol.is_weak() {
                continue;
            }
            let named = self.kernel.named(self.owner, &symbol.name);
            // The rarest name says most, and every name of the section must be at its place.
            if !named.is_empty() && named.len() < least.min(MOST_NAMESAKES) {
                least = named.len();
                places = named.iter().map(|place| place.moved(-(symbol.value as i64))).collect();
            }
        }
        places
    }

    /// Whether what ships holds the section's bytes at a place, outside of what the linker or the build wrote.
    fn fits(&self, section: usize, base: &Living) -> bool {
        let parsed = &self.elf.sections[section];
        if parsed.is_zeros() || REWRITTEN.contains(&parsed.name.as_str()) {
            return true;
        }
        let compiled = self.elf.contents(section);
        let Some(held) = self.bytes(base, parsed.size) else { return false };
        let mut from = 0_usize;
        let empty = BTreeSet::new();
        let sites = self.sites.get(&section).unwrap_or(&empty);
        let mut holes: Vec<(usize, usize)> = Vec::with_capacity(parsed.relocations.len());
        for relocation in &parsed.relocations {
            let Some(width) = width(relocation.kind) else { return false };
            holes.push((relocation.offset as usize, width as usize));
        }
        for &site in sites {
            let at = site as usize;
            let nop = compiled.get(at).and_then(|first| JUMPS.iter().find(|(jump, _)| jump == first));
            if let Some((_, nop)) = nop.filter(|(_, nop)| held.get(at..at + nop.len()) == Some(nop)) {
                holes.push((at, nop.len()));
            }
        }
        holes.sort_unstable();
        holes.push((compiled.len(), 0));
        for (at, width) in holes {
            if at > from && compiled.get(from..at) != held.get(from..at) {
                return false;
            }
            from = from.max(at + width);
        }
        true
    }

    /// Whether what ships refers from there to symbols where these are.
    fn agrees(&self, section: usize, base: &Living) -> bool {
        self.elf.sections[section].relocations.iter().all(|relocation| {
            let symbol = &self.elf.symbols[relocation.symbol];
            let Some(place) = self.symbol_at(&base.moved(relocation.offset as i64), relocation) else {
                return self.is_nop_now(section, base, relocation);
            };
            match symbol.home {
                Home::Section(other) => {
                    let known =
                        if other == section { Some(base.clone()) } else { self.ground.bases[other].clone() };
                    known.is_none_or(|known| known.moved(symbol.value as i64) == place)
                        || self.elf.sections[other].is_merged()
                        || self.is_nop_now(section, base, relocation)
                }
                _ => self.ground.referred.get(&symbol.name).map_or_else(
                    || {
                        let named = self.kernel.named(VMLINUX, &symbol.name);
                        self.module.is_some() || named.is_empty() || named.contains(&place)
                    },
                    |known| *known == place,
                ),
            }
        })
    }

    /// Whether a relocation lies in a jump that is a nop in what ships.
    fn is_nop_now(&self, section: usize, base: &Living, relocation: &Relocation) -> bool {
        let Some(sites) = self.sites.get(&section) else { return false };
        let near = relocation.offset.saturating_sub(2)..relocation.offset;
        sites.range(near).any(|&site| {
            JUMPS.iter().any(|(_, nop)| {
                self.bytes(&base.moved(site as i64), nop.len() as u64).is_some_and(|held| held == *nop)
            })
        })
    }

    /// Follows the references of sections that are placed; whether that placed another one.
    fn follow(&mut self) -> bool {
        for section in 0..self.elf.sections.len() {
            let Some(base) = self.ground.bases[section].clone() else { continue };
            let parsed = &self.elf.sections[section];
            if REWRITTEN.contains(&parsed.name.as_str()) || !self.followed.insert(section) {
                continue;
            }
            for relocation in &parsed.relocations {
                if self.is_nop_now(section, &base, relocation) {
                    continue;
                }
                if let Some(place) = self.symbol_at(&base.moved(relocation.offset as i64), relocation) {
                    self.vote(relocation, place);
                }
            }
        }
        let mut placed = false;
        for (section, votes) in std::mem::take(&mut self.votes) {
            if self.ground.bases[section].is_some() {
                continue;
            }
            let only = match votes.len() {
                1 => votes.into_keys().next(),
                _ => None,
            };
            if let Some(base) = only.filter(|base| self.fits(section, base)) {
                self.ground.bases[section] = Some(base);
                placed = true;
            }
        }
        placed
    }

    fn vote(&mut self, relocation: &Relocation, place: Living) {
        let symbol = &self.elf.symbols[relocation.symbol];
        if let Home::Section(section) = symbol.home {
            // Equal strings are one in the kernel, so that a reference says nothing of its neighbours. A weak symbol may be another's.
            if !self.elf.sections[section].is_merged() && !symbol.is_weak() {
                let base = place.moved(-(symbol.value as i64));
                *self.votes.entry(section).or_default().entry(base).or_default() += 1;
            }
        }
        if symbol.is_nameless() {
            return;
        }
        match self.ground.referred.get(&symbol.name) {
            Some(known) if *known != place => {
                self.ground.conflicting.insert(symbol.name.clone());
            }
            Some(_) => {}
            None => {
                self.ground.referred.insert(symbol.name.clone(), place);
            }
        }
    }
}

/// `S` from what was written for `S + A` or `S + A - P` (x86-64 psABI, table 4.10).
fn symbol_of(held: &[u8], place: u64, relocation: &Relocation) -> u64 {
    let mut wide = [0_u8; 8];
    for (to, from) in wide.iter_mut().zip(held) {
        *to = *from;
    }
    let mut value = u64::from_le_bytes(wide);
    if held.len() == 4 && relocation.kind != crate::elf::R_32 {
        value = i64::from(value as u32 as i32) as u64;
    }
    let symbol = value.wrapping_sub(relocation.addend as u64);
    if is_relative(relocation.kind) { symbol.wrapping_add(place) } else { symbol }
}
