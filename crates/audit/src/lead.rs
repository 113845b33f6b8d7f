//! The module against the patched objects: each function that the patch table names, all that it refers to, and so on.
//!
//! What the module defines is held against what the patched object defines, byte by byte outside of references; what it asks the
//! kernel for, against the place where the original's references lead in the kernel that ships. A pair of places that was
//! found is kept: one thing of a patched object is one thing of the module.

use crate::code::{Code, Reference, Target};
use crate::copies::Aligned;
use crate::elf::{Home, R_NONE};
use crate::finding::{Fault, Finding};
use crate::living::{Kernel, Living};
use crate::pair::is_part;
use crate::side::{Side, base_name};
use crate::tables::{self, Entry};
use crate::unit::Unit;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::rc::Rc;

/// A thing of a patched object: the unit's number, the section's, and the offset in it.
pub(crate) type Thing = (usize, usize, u64);
/// A place in the module.
pub(crate) type Spot = (usize, u64);

/// What the consistency engine exports to patches (engine/core.c).
const ENGINE: [&str; 2] = ["kmend_register", "kmend_unregister"];

/// Sections of things that belong to the code that uses them, so that each copy of the code may have its own: a flag of a message
/// that is printed once is missed by nobody (include/linux/once_lite.h; `.data..once` since Linux 6.13 and in stable ones).
const PER_USE: [&str; 5] = ["__dyndbg", "__verbose", ".data..Lubsan", ".data.once", ".data..once"];

/// What is compared.
pub(crate) struct Lead<'a> {
    pub(crate) units: &'a [Unit],
    pub(crate) module: &'a Side,
    pub(crate) kernel: &'a Kernel<'a>,
    /// What moved from one unit of the patch to another, by its name: the unit that defines it now, and where it lives.
    pub(crate) moved: HashMap<String, (usize, Living)>,
    /// Functions that the table replaces, by unit and symbol of the patched object.
    pub(crate) replaced: BTreeSet<(usize, String)>,
    /// Functions that are not what they were, by unit and name of the patched object.
    pub(crate) changed: BTreeSet<(usize, String)>,
    pub(crate) findings: Vec<Finding>,
    /// The module's place of each thing that is copied.
    pub(crate) copies: BTreeMap<Thing, Spot>,
    /// The thing at each place of the module.
    pub(crate) things: BTreeMap<Spot, Thing>,
    /// What of the table's own code stands for something of the module: the symbol's name and its place.
    pub(crate) aliases: BTreeMap<String, Spot>,
    /// The living functions that entries for the consistency engine point to.
    pub(crate) living: BTreeSet<Living>,
    /// What of the table's own code stands for one of these.
    living_aliases: BTreeMap<String, Living>,
    /// Places of the patch table that point to replacements, by section and offset.
    pub(crate) replacements: BTreeSet<(usize, u64)>,
    /// Relocations of the module that were looked at, by section and offset.
    pub(crate) visited: BTreeSet<(usize, u64)>,
    /// Ranges of the module that were compared.
    pub(crate) covered: BTreeMap<usize, Vec<Range<u64>>>,
    /// The code of each copied function, on the module's side.
    pub(crate) code: Vec<Rc<Code>>,
    pub(crate) references: usize,
    pub(crate) waiting: Vec<(Thing, Spot, Range<u64>, Option<usize>)>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) taken: BTreeSet<usize>,
    pub(crate) patched_entries: Vec<HashMap<usize, Vec<Entry>>>,
}

impl<'a> Lead<'a> {
    pub(crate) fn new(units: &'a [Unit], module: &'a Side, kernel: &'a Kernel<'a>) -> Self {
        let (entries, broken) = tables::read(module);
        let findings = broken.iter().map(|broken| {
            let section = &module.elf.sections[broken.section].name;
            Finding::new(Fault::Table, section, broken.at, "whole entries", "something else")
        });
        Lead {
            units,
            module,
            kernel,
            moved: moved(units, kernel),
            replaced: BTreeSet::new(),
            changed: BTreeSet::new(),
            findings: findings.collect(),
            copies: BTreeMap::new(),
            things: BTreeMap::new(),
            aliases: BTreeMap::new(),
            living: BTreeSet::new(),
            living_aliases: BTreeMap::new(),
            replacements: BTreeSet::new(),
            visited: BTreeSet::new(),
            covered: BTreeMap::new(),
            code: Vec::new(),
            references: 0,
            waiting: Vec::new(),
            entries,
            taken: BTreeSet::new(),
            patched_entries: units.iter().map(|unit| tables::by_section(&unit.live)).collect(),
        }
    }

    /// Says that something of a patched object is at a place of the module; what that leads to is compared by [`Lead::run`].
    pub(crate) fn expect(&mut self, unit: usize, symbol: usize, spot: Spot) -> Result<(), String> {
        let side = &self.units[unit].live;
        let Some((section, range)) = side.extent(symbol) else {
            return Err(format!("{} has no extent", side.name(symbol)));
        };
        self.add((unit, section, range.start), spot, range, Some(symbol))
    }

    pub(crate) fn add(
        &mut self,
        thing: Thing,
        spot: Spot,
        range: Range<u64>,
        symbol: Option<usize>,
    ) -> Result<(), String> {
        let side = &self.units[thing.0].live;
        let parsed = &side.elf.sections[thing.1];
        let name = symbol.map_or(&*parsed.name, |symbol| side.name(symbol)).to_owned();
        match self.copies.get(&thing) {
            Some(known) if *known == spot => return Ok(()),
            // Constants may be there twice, state and code may not.
            Some(_) if parsed.is_code() || parsed.is_writable() => {
                return Err(format!("a second copy of {name}"));
            }
            _ => {}
        }
        let other = self.things.get(&spot).filter(|&&other| other != thing);
        if other.is_some() && (parsed.is_code() || parsed.is_writable()) {
            return Err(format!("the place of another than {name}"));
        }
        self.copies.insert(thing, spot);
        self.things.insert(spot, thing);
        self.waiting.push((thing, spot, range, symbol));
        Ok(())
    }

    /// Compares all that is expected, and all that this leads to.
    pub(crate) fn run(&mut self) {
        while let Some((thing, spot, range, symbol)) = self.waiting.pop() {
            let side = &self.units[thing.0].live;
            if side.elf.sections[thing.1].is_code() {
                self.compare_code(thing, spot, range, symbol);
            } else {
                self.compare_data(thing, spot, &range, symbol);
            }
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault, symbol: &str, at: u64, expected: &str, found: &str) {
        self.findings.push(Finding::new(fault, symbol, at, expected, found));
    }

    /// Where in the running kernel a reference of the module leads.
    pub(crate) fn place_of(&self, reference: &Reference) -> Result<Living, String> {
        let Target::Outside(symbol, added) = reference.target else {
            return Err("a place of the module".into());
        };
        let parsed = &self.module.elf.symbols[symbol];
        let base = match (parsed.home, &reference.late) {
            (Home::Livepatch, Some(_)) => self.kernel.livepatch_symbol(&parsed.name)?,
            (Home::Livepatch, None) => return Err(format!("{}, which nobody resolves", parsed.name)),
            (Home::Undefined, None) => {
                let export = self.kernel.export(&parsed.name);
                export.ok_or_else(|| format!("{}, which the kernel does not export", parsed.name))?
            }
            _ => return Err(format!("{}, which is no place", parsed.name)),
        };
        Ok(base.moved(added))
    }

    /// Where in the running kernel a name leads that a unit's patched object does not define.
    pub(crate) fn expected_outside(&self, unit: usize, name: &str) -> Option<Living> {
        let here = self.units[unit].outside(name, self.kernel);
        here.or_else(|| self.moved.get(name).map(|(_, place)| place.clone()))
            .or_else(|| self.made_global(unit, name))
    }

    /// Where a thing lives that only its own unit knew, and that the patch makes global.
    fn made_global(&self, unit: usize, name: &str) -> Option<Living> {
        let others = self.units.iter().enumerate().filter(|(number, _)| *number != unit);
        let mut places = others.filter_map(|(_, other)| {
            let symbol = other.live.elf.only(name)?;
            other.live.elf.symbols[symbol].is_global().then(|| other.living(name, self.kernel))?
        });
        places.next().filter(|_| places.next().is_none())
    }

    /// One reference of the patched object against the module's.
    pub(crate) fn reference(
        &mut self,
        unit: usize,
        name: &str,
        aligned: &Aligned,
        (its, mine): (&Reference, &Reference),
        at: u64,
        writes: bool,
    ) {
        self.references += 1;
        if let (Target::Inside(section, offset), Target::Inside(own, place)) = (its.target, mine.target) {
            let inside = (aligned.theirs.holds(section, offset), aligned.ours.holds(own, place));
            if inside != (false, false) {
                if inside != (true, true) || aligned.place(offset) != aligned.ours.index_within(place) {
                    let (expected, found) = (self.units[unit].live.shown(its), self.module.shown(mine));
                    self.fault(Fault::Reference, name, at, &expected, &found);
                }
                return;
            }
        }
        self.lead(unit, name, (its, mine), at, writes);
    }

    /// What two references lead to.
    pub(crate) fn lead(
        &mut self,
        unit: usize,
        name: &str,
        (its, mine): (&Reference, &Reference),
        at: u64,
        writes: bool,
    ) {
        let wanted = self.units[unit].live.shown(its);
        match self.leads(unit, its, mine, writes) {
            Ok(()) => {}
            Err((fault, found)) => self.fault(fault, name, at, &wanted, &found),
        }
    }

    pub(crate) fn leads(
        &mut self,
        unit: usize,
        its: &Reference,
        mine: &Reference,
        writes: bool,
    ) -> Result<(), (Fault, String)> {
        let wrong = |found: String| (Fault::Reference, found);
        if let Target::Inside(section, offset) = mine.target {
            let memory = &self.module.elf.sections[section];
            // The loader makes both read-only when the module has started (kernel/module/main.c, `do_init_module`).
            let is_sealed = memory.name.starts_with(".data..ro_after_init") || !memory.is_writable();
            if writes && is_sealed && !memory.is_code() && !self.units[unit].writes_to(its) {
                let found = format!("{}, which is read-only", self.module.shown(mine));
                return Err((Fault::ReadOnly, found));
            }
            return self.leads_inside(unit, its, mine, (section, offset)).map_err(wrong);
        }
        if self.units[unit].is_table && self.is_of_engine(its, mine) {
            return Ok(());
        }
        let found = self.place_of(mine).map_err(wrong)?;
        // Those of the table's entries for the engine have been looked at with the entries.
        if !(self.units[unit].is_table && self.living.contains(&found)) {
            self.check_list(unit, mine, &found).map_err(wrong)?;
        }
        let shown = |lead: &Self, place: &Living| lead.kernel.names_at(place);
        let expected = match its.target {
            Target::Outside(symbol, added) => {
                let name = self.units[unit].live.name(symbol);
                let place =
                    self.expected_outside(unit, name).or_else(|| self.expected_living(unit, name, &found));
                place.map(|place| place.moved(added)).into_iter().collect()
            }
            Target::Inside(section, _) if self.units[unit].live.is_merged(section) => Vec::new(),
            Target::Inside(..) => self.expected_inside(unit, its),
        };
        if !expected.contains(&found) {
            return Err(wrong(shown(self, &found)));
        }
        if self.living.contains(&found)
            && let (true, Target::Outside(symbol, 0)) = (self.units[unit].is_table, its.target)
        {
            let name = self.units[unit].live.name(symbol).to_owned();
            self.living_aliases.insert(name, found.clone());
        }
        if self.kernel.is_freed(&found) {
            return Err((Fault::Freed, format!("{}, which is freed", shown(self, &found))));
        }
        if writes && self.kernel.is_read_only(&found) && !self.units[unit].writes_to(its) {
            return Err((Fault::ReadOnly, format!("{}, which is read-only", shown(self, &found))));
        }
        Ok(())
    }

    /// Whether the patch table refers to what the consistency engine's module exports.
    fn is_of_engine(&self, its: &Reference, mine: &Reference) -> bool {
        let (Target::Outside(symbol, added), Target::Outside(own, also)) = (its.target, mine.target) else {
            return false;
        };
        let parsed = &self.module.elf.symbols[own];
        let name = self.units.iter().find(|unit| unit.is_table).map_or("", |unit| unit.live.name(symbol));
        added == also
            && ENGINE.contains(&name)
            && parsed.name == name
            && matches!(parsed.home, Home::Undefined)
            && mine.late.is_none()
    }

    /// The living function that a name of the patch table stands for: one of those that entries point to, and always the same.
    fn expected_living(&self, unit: usize, name: &str, found: &Living) -> Option<Living> {
        let is_known = self.units[unit].is_table && self.living.contains(found);
        let known = self.living_aliases.get(name).unwrap_or(found);
        is_known.then(|| known.clone())
    }

    /// The list in which the livepatch loader finds a relocation: that of the kernel proper, or of the patched module.
    fn check_list(&self, unit: usize, mine: &Reference, found: &Living) -> Result<(), String> {
        let Some(list) = &mine.late else { return Ok(()) };
        let owner = &self.units[unit].owner;
        let is_right = list == owner || list == crate::living::VMLINUX && &*found.object == list;
        let is_early = list != crate::living::VMLINUX || &*found.object == crate::living::VMLINUX;
        if is_right && is_early { Ok(()) } else { Err(format!("it, applied with {list}")) }
    }

    /// Where a thing of the patched object lives that the original has, too.
    fn expected_inside(&self, unit: usize, its: &Reference) -> Vec<Living> {
        let one = &self.units[unit];
        let mut places = Vec::new();
        for (symbol, delta) in one.live.atoms_of(its) {
            let name = one.live.name(symbol);
            let key = (unit, name.to_owned());
            let moved = self.moved.get(name).filter(|(now, _)| *now == unit).map(|(_, place)| place.clone());
            let is_other = self.changed.contains(&key) || moved.is_some() && one.live.is_code(symbol);
            // The old code of what the table does not replace would stay in force.
            if is_part(name) || is_other && !self.replaced.contains(&key) {
                continue;
            }
            let living = one.living(name, self.kernel).or(moved);
            places.extend(living.map(|place| place.moved(delta)));
        }
        places
    }

    fn leads_inside(
        &mut self,
        unit: usize,
        its: &Reference,
        mine: &Reference,
        (section, offset): (usize, i64),
    ) -> Result<(), String> {
        let shown = self.module.shown(mine);
        match its.target {
            Target::Outside(symbol, added) => {
                let name = self.units[unit].live.name(symbol).to_owned();
                let spot = spot(section, offset.wrapping_sub(added)).ok_or_else(|| shown.clone())?;
                if self.units[unit].is_table {
                    return match self.aliases.insert(name, spot) {
                        Some(known) if known != spot => Err(shown),
                        _ => Ok(()),
                    };
                }
                self.defined_elsewhere(unit, &name, spot).map_err(|why| format!("{shown}: {why}"))
            }
            Target::Inside(theirs, at) => {
                let side = &self.units[unit].live;
                if side.is_merged(theirs) {
                    let text = side.merged_at(theirs, at);
                    let length = text.as_ref().map_or(0, |text| text.len() as u64);
                    let start = u64::try_from(offset).map_err(|_| shown.clone())?;
                    let own = start
                        .checked_add(length)
                        .and_then(|end| self.module.elf.bytes(section, &(start..end)));
                    let is_constant = !self.module.elf.sections[section].is_writable();
                    let is_loaded = self.module.elf.sections[section].is_loaded();
                    return if text.is_some() && text == own && is_constant && is_loaded {
                        Ok(())
                    } else {
                        Err(shown)
                    };
                }
                if self.leads_into_known_code(unit, its, mine) {
                    return Ok(());
                }
                let mut last = shown.clone();
                for (symbol, delta) in side.atoms_of(its) {
                    let Some(spot) = spot(section, offset - delta) else { continue };
                    match self.copy(unit, symbol, spot, its.form.is_branch()) {
                        Ok(()) => return Ok(()),
                        Err(why) => last = format!("{shown}: {why}"),
                    }
                }
                self.nameless(unit, (theirs, at), (section, offset)).map_err(|()| last)
            }
        }
    }

    /// A name that another unit of the patch defines.
    fn defined_elsewhere(&mut self, unit: usize, name: &str, spot: Spot) -> Result<(), String> {
        let units = self.units;
        let defines = |(_, other): &(usize, &Unit)| {
            let symbol = other.live.elf.only(name);
            symbol.is_some_and(|symbol| other.live.elf.symbols[symbol].is_global())
        };
        let mut found = units.iter().enumerate().filter(|(number, _)| *number != unit).filter(defines);
        let (number, other) = found.next().ok_or("no unit of the patch defines it")?;
        if found.next().is_some() {
            return Err("several units of the patch define it".into());
        }
        let symbol = other.live.elf.only(name).ok_or("it is gone")?;
        self.copy(number, symbol, spot, true)
    }

    /// Whether the module may have its own of something, at this place.
    fn copy(&mut self, unit: usize, symbol: usize, spot: Spot, is_branch: bool) -> Result<(), String> {
        let one = &self.units[unit];
        let side = &one.live;
        let name = side.name(symbol).to_owned();
        let section = side.section_of(symbol).ok_or("it is not defined")?;
        let parsed = &side.elf.sections[section];
        let is_known = self.things.contains_key(&spot);
        let begins = is_known
            || spot.1 == 0
            || self
                .module
                .elf
                .named_in(spot.0)
                .iter()
                .any(|&other| self.module.elf.symbols[other].value == spot.1);
        if !begins {
            return Err(format!("not where {name} could begin"));
        }
        let has_moved = self.moved.get(&name).is_some_and(|(now, _)| *now == unit);
        let has_original = (one.pairs.original(&name).is_some() || has_moved) && !one.is_table;
        // A second one of what others know by this name.
        if !has_original && !one.is_table && side.elf.symbols[symbol].is_global() {
            let known = [one.owner.as_str(), crate::living::VMLINUX]
                .into_iter()
                .find_map(|object| self.kernel.global(object, &name));
            if known.is_some() {
                return Err(format!("a copy of {name}, which the kernel has"));
            }
        }
        if parsed.is_code() {
            let is_own = is_branch || is_part(&name) || !has_original;
            if !is_own {
                return Err(format!("the address of a copy of {name}"));
            }
        } else if !parsed.is_constant() && has_original {
            let is_per_use = PER_USE.iter().any(|start| parsed.name.starts_with(start));
            if !is_per_use {
                return Err(format!("a copy of {name}, which the kernel has"));
            }
        }
        self.expect(unit, symbol, spot)
    }

    /// Constants without a name, such as tables of jumps.
    fn nameless(
        &mut self,
        unit: usize,
        (theirs, at): (usize, i64),
        (section, offset): (usize, i64),
    ) -> Result<(), ()> {
        let side = &self.units[unit].live;
        let start = u64::try_from(at).map_err(|_| ())?;
        let parsed = side.elf.sections.get(theirs).ok_or(())?;
        if start >= parsed.size {
            return Err(());
        }
        let is_named = side
            .atoms_at(theirs, at)
            .iter()
            .any(|&(symbol, delta)| (0..side.elf.symbols[symbol].size as i64).contains(&delta));
        if is_named || !parsed.is_constant() && !parsed.is_code() && !self.units[unit].is_table {
            return Err(());
        }
        let range = start..side.nameless_end(theirs, start);
        let spot = spot(section, offset).ok_or(())?;
        self.add((unit, theirs, start), spot, range, None).map_err(|_| ())
    }

    /// Entries whose site is in no function that was compared.
    pub(crate) fn leftover_entries(&self) -> impl Iterator<Item = &Entry> {
        let left = self.entries.iter().enumerate().filter(|(number, _)| !self.taken.contains(number));
        left.map(|(_, entry)| entry)
    }

    /// Whether a relocation of the module was looked at.
    pub(crate) fn is_visited(&self, section: usize, offset: u64) -> bool {
        self.visited.contains(&(section, offset))
    }

    /// The unit and the symbol of a copied function that begins at a place.
    pub(crate) fn function_at(&self, spot: Spot) -> Option<(usize, String)> {
        let &(unit, section, offset) = self.things.get(&spot)?;
        let side = &self.units[unit].live;
        let named = side.elf.named_in(section).iter();
        let mut here = named.filter(|&&symbol| side.elf.symbols[symbol].value == offset);
        here.next().map(|&symbol| (unit, side.name(symbol).to_owned()))
    }

    /// The relocations of the module that nothing accounts for.
    pub(crate) fn unexplained(&self) -> Vec<(usize, u64)> {
        let sections = self.module.elf.sections.iter().enumerate();
        sections
            .filter(|(_, section)| section.is_loaded())
            .flat_map(|(number, section)| {
                let list = section.relocations.iter().filter(|one| one.kind != R_NONE);
                list.map(move |one| (number, one.offset))
            })
            .filter(|&(section, offset)| !self.is_visited(section, offset))
            .collect()
    }
}

/// What one unit's original defines and its patched object does not, and another unit's patched object does and its original does
/// not.
fn moved(units: &[Unit], kernel: &Kernel<'_>) -> HashMap<String, (usize, Living)> {
    let mut moved = HashMap::new();
    for (number, unit) in units.iter().enumerate().filter(|(_, unit)| !unit.is_table) {
        let names: BTreeSet<usize> = unit.live.functions().chain(unit.live.data()).collect();
        for symbol in names {
            let name = unit.live.name(symbol);
            if unit.pairs.original(name).is_some() || name != base_name(name) || is_part(name) {
                continue;
            }
            let before =
                units.iter().filter(|other| other.owner == unit.owner && other.pairs.patched(name).is_none());
            let mut places = before.filter_map(|other| {
                let old = other.original.elf.only(name)?;
                let is_alike = other.original.is_code(old) == unit.live.is_code(symbol);
                is_alike.then(|| other.living_original(name, kernel)).flatten()
            });
            if let (Some(place), None) = (places.next(), places.next()) {
                moved.insert(name.to_owned(), (number, place));
            }
        }
    }
    moved
}

/// A place of the module, if the offset is one.
pub(crate) fn spot(section: usize, offset: i64) -> Option<Spot> {
    Some((section, u64::try_from(offset).ok()?))
}
