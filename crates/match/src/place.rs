//! Where the unit's sections are.
//!
//! The linker copies each section as one block, so each is placed by one address. Code comes first: every
//! function votes for the places that the symbols of its name would give its section. What the references in
//! the code that is found lead to then places the data, what those refer to the next, and so on. Tables that
//! nothing refers to (`__jump_table`, `.altinstructions` ...) are searched for among those of all units, by
//! what their first entry refers to. Data that is left is placed by its names, as code is.

use crate::compare::misfit;
use crate::refer::{Claim, claim};
use crate::shipped::{Contents, Shipped};
use crate::unit::{Unit, is_merged};
use kmend_object::{Binding, SectionId, SymbolId};
use std::collections::{BTreeMap, VecDeque};

/// Names that more symbols have than this say little and cost much: `__func__.0` and the like.
const MOST_NAMESAKES: usize = 4096;
/// Places with equally many votes that are compared byte by byte. Real ties are among a handful.
const MOST_TRIED: usize = 64;

/// The addresses of the unit's sections.
pub(crate) struct Placement {
    bases: Vec<Option<u64>>,
    ambiguous: BTreeMap<SectionId, usize>,
    unnamed: BTreeMap<SymbolId, u64>,
}

impl Placement {
    /// Where a section is.
    pub(crate) fn base(&self, section: SectionId) -> Option<u64> {
        self.bases.get(section.index()).copied().flatten()
    }

    /// How many places a section fits into equally well, if it is not one.
    pub(crate) fn ambiguous(&self, section: SectionId) -> Option<usize> {
        self.ambiguous.get(&section).copied().filter(|_| self.base(section).is_none())
    }

    /// Where a symbol of another unit is that the shipped kernel keeps no name of.
    pub(crate) fn unnamed(&self, symbol: SymbolId) -> Option<u64> {
        self.unnamed.get(&symbol).copied()
    }

    fn set(&mut self, section: SectionId, address: u64) {
        if let Some(base) = self.bases.get_mut(section.index()) {
            *base = Some(address);
        }
    }
}

/// Places as many sections as can be placed.
pub(crate) fn place(unit: &Unit<'_>, shipped: &dyn Shipped) -> Placement {
    let none = vec![None; unit.object.sections.len()];
    let mut search = Search {
        unit,
        shipped,
        placement: Placement { bases: none, ambiguous: BTreeMap::new(), unnamed: BTreeMap::new() },
        claims: BTreeMap::new(),
        symbols: BTreeMap::new(),
        waiting: VecDeque::new(),
    };
    search.by_names(true);
    search.follow();
    search.by_tables();
    search.follow();
    // Code that fits at several places may fit at one only now that more is known of what it refers to.
    search.by_names(true);
    search.by_names(false);
    search.follow();
    search.finish()
}

struct Search<'a> {
    unit: &'a Unit<'a>,
    shipped: &'a dyn Shipped,
    placement: Placement,
    /// How many references say that a section is at an address.
    claims: BTreeMap<SectionId, BTreeMap<u64, usize>>,
    /// The same of undefined symbols.
    symbols: BTreeMap<SymbolId, BTreeMap<u64, usize>>,
    /// Sections that are placed and whose references are not yet followed.
    waiting: VecDeque<SectionId>,
}

impl Search<'_> {
    fn set(&mut self, section: SectionId, address: u64) {
        self.placement.set(section, address);
        self.waiting.push_back(section);
    }

    /// Places sections of code, or of data, by the names of their symbols.
    fn by_names(&mut self, code: bool) {
        for (id, section) in self.unit.kept() {
            if section.is_code() != code || self.placement.base(id).is_some() || is_merged(section) {
                continue;
            }
            match self.best_by_names(id) {
                Best::One(address) => self.set(id, address),
                Best::Several(places) => {
                    self.placement.ambiguous.insert(id, places);
                }
                Best::Nowhere => {}
            }
        }
    }

    fn best_by_names(&self, section: SectionId) -> Best {
        let align = self.unit.object.section(section).align.max(1);
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        for &symbol in self.unit.symbols(section) {
            let named = self.unit.named(symbol);
            let offset = self.unit.object.symbol(symbol).value;
            // A weak symbol's name may be at another unit's definition: it votes, but for a place in vain.
            for named in named.iter().take(MOST_NAMESAKES) {
                let base = named.address.wrapping_sub(offset);
                if base.is_multiple_of(align) {
                    *votes.entry(base).or_default() += 1;
                }
            }
        }
        let Some(&most) = votes.values().max() else { return Best::Nowhere };
        let best: Vec<u64> =
            votes.iter().filter(|&(_, &count)| count == most).map(|(&base, _)| base).collect();
        match best[..] {
            [only] => Best::One(only),
            _ => self.best_by_contents(section, &best),
        }
    }

    /// Of places with equally many votes, the one whose contents fit best.
    fn best_by_contents(&self, section: SectionId, places: &[u64]) -> Best {
        let mut fits: Vec<(u64, u64)> = places
            .iter()
            .take(MOST_TRIED)
            .map(|&base| (misfit(self.unit, self.shipped, &self.placement, section, base), base))
            .collect();
        fits.sort_unstable();
        let Some(&(least, base)) = fits.first() else { return Best::Nowhere };
        match fits.iter().filter(|&&(fit, _)| fit == least).count() {
            several @ 2.. if least == 0 => Best::Several(several),
            // It differs everywhere; one place is as good as the other to show how.
            _ => Best::One(base),
        }
    }

    /// Follows the references of placed sections until they lead to nothing new.
    fn follow(&mut self) {
        loop {
            while let Some(section) = self.waiting.pop_front() {
                self.collect(section);
            }
            let found: Vec<(SectionId, u64)> = self
                .claims
                .iter()
                .filter(|&(&section, _)| self.placement.base(section).is_none())
                .filter_map(|(&section, claims)| Some((section, self.best_claim(section, claims)?)))
                .collect();
            if found.is_empty() {
                return;
            }
            for (section, address) in found {
                self.set(section, address);
            }
        }
    }

    /// The claimed address at which most of the section's symbols are; without symbols, the one with most
    /// claims. A single reference to another member of a structure must not move the whole section: the names
    /// have a say even where all claims agree.
    fn best_claim(&self, section: SectionId, claims: &BTreeMap<u64, usize>) -> Option<u64> {
        let most = most_claimed(claims)?;
        let symbols = self.unit.symbols(section).iter();
        let nameable = symbols.filter(|&&id| !self.unit.named(id).is_empty()).count();
        if self.unit.hits(section, most) == nameable {
            return Some(most);
        }
        let named = match self.best_by_names(section) {
            Best::One(address) => Some(address),
            Best::Several(_) | Best::Nowhere => None,
        };
        let candidates = claims.keys().copied().chain(named);
        let rated = |address: u64| {
            let claimed = claims.get(&address).copied().unwrap_or_default();
            ((self.unit.hits(section, address), claimed, std::cmp::Reverse(address)), address)
        };
        candidates.map(rated).max().map(|(_, address)| address)
    }

    fn collect(&mut self, section: SectionId) {
        let Some(base) = self.placement.base(section) else { return };
        for relocation in self.unit.relocations(section) {
            let place = base.wrapping_add(relocation.offset);
            match claim(self.unit, self.shipped, place, relocation) {
                Claim::Base(target, address) => {
                    *self.claims.entry(target).or_default().entry(address).or_default() += 1;
                }
                Claim::Symbol(symbol, address) => {
                    *self.symbols.entry(symbol).or_default().entry(address).or_default() += 1;
                }
                Claim::Nothing => {}
            }
        }
    }

    /// Places tables to which nothing refers.
    fn by_tables(&mut self) {
        let unit = self.unit;
        for (id, section) in unit.kept() {
            if self.placement.base(id).is_some() || is_merged(section) {
                continue;
            }
            if let Some(address) = self.table(id) {
                self.set(id, address);
            }
        }
    }

    /// The only place among all units' tables where every reference to what is placed leads there.
    fn table(&self, section: SectionId) -> Option<u64> {
        let known: Vec<(&kmend_object::Relocation, u64)> = self
            .unit
            .relocations(section)
            .iter()
            .filter_map(|relocation| Some((relocation, self.known(relocation.symbol)?)))
            .collect();
        let table = self.unit.object.section(section);
        let gathered = self.shipped.gathered(&table.name)?;
        let last = gathered.end.checked_sub(table.size)?;
        // The search is as long as what the file holds, whatever the symbols around it say.
        let length = gathered.end.checked_sub(gathered.start)?;
        if !matches!(self.shipped.contents(gathered.start, length), Contents::Held(_)) {
            return None;
        }
        let step = usize::try_from(table.align.max(1)).ok()?;
        let &(first, address) = known.first()?;
        let leads = |base: u64, relocation: &kmend_object::Relocation, address: u64| {
            self.shipped.target(base.wrapping_add(relocation.offset), relocation) == Some(address)
        };
        let mut places = (gathered.start..=last).step_by(step).filter(|&base| {
            leads(base, first, address) && known.iter().all(|&(relocation, to)| leads(base, relocation, to))
        });
        let only = places.next()?;
        places.next().is_none().then_some(only)
    }

    /// The address of a symbol that is defined in a section that is placed.
    fn known(&self, symbol: SymbolId) -> Option<u64> {
        let (section, offset) = self.unit.definition(symbol)?;
        let weak = self.unit.object.symbol(symbol).binding == Binding::Weak;
        let base = self.placement.base(section).filter(|_| !weak)?;
        Some(base.wrapping_add(offset))
    }

    fn finish(self) -> Placement {
        let Search { unit, mut placement, symbols, .. } = self;
        placement.unnamed = symbols
            .into_iter()
            .filter(|&(symbol, _)| unit.named(symbol).is_empty())
            .filter_map(|(symbol, claims)| Some((symbol, most_claimed(&claims)?)))
            .collect();
        placement
    }
}

enum Best {
    One(u64),
    Several(usize),
    Nowhere,
}

/// The address with the most claims; of several the lowest, so that equal inputs give equal results. The
/// claims that it leaves in the minority show as differences.
fn most_claimed(claims: &BTreeMap<u64, usize>) -> Option<u64> {
    let most = claims.values().max()?;
    claims.iter().find(|&(_, count)| count == most).map(|(&address, _)| address)
}
