//! What becomes of the names of all units that a patch reaches.
//!
//! The units of one object (vmlinux, or a module) are linked together, so the names that they define are one set, with a
//! before and an after. What moves from one file to another is still the living thing: the function there gets the new
//! code, and new code uses the variable there. So it is with what becomes global: other units of the patch mean the
//! living one. Where a name comes to mean what no livepatch can express, it is refused.
//!
//! This is told by the units alone. Whether the kernel has a name elsewhere is asked by the caller.

use crate::definitions::{Definition, Definitions, Kind};
use crate::extract::Reference;
use crate::memory;
use kmend_refusal::{Code, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// The names of one unit.
#[derive(Debug, Clone, Default)]
pub struct UnitNames {
    /// The unit's source.
    pub source: String,
    /// The object that it is linked into: `vmlinux` or a module.
    pub owner: String,
    /// Those of the original.
    pub before: Definitions,
    /// Those of the patched object.
    pub after: Definitions,
}

/// Where something lives that a unit of the patch does not define, or did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The source of the unit whose original has it.
    pub unit: String,
    /// Its name there.
    pub name: String,
    /// Whether ftrace knows it.
    pub(crate) traced: bool,
}

impl Home {
    /// The living thing, for code of another unit.
    pub(crate) fn reference(&self) -> Reference {
        Reference::Living { unit: self.unit.clone(), name: self.name.clone() }
    }
}

/// What one unit must know of the names of the others.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// What its patched object defines and lives in another unit, by its name in the patched object.
    pub moved_in: BTreeMap<String, Home>,
    /// What its original defines, and another unit of the patch from now on.
    pub moved_out: BTreeSet<String>,
    /// What its patched object refers to and has no global name in the kernel yet, but in the patch.
    pub living: BTreeMap<String, Home>,
}

/// The names of a patch.
#[derive(Debug, Clone, Default)]
pub struct Moves {
    /// For each unit, in the order of the units.
    pub scopes: Vec<Scope>,
    /// Global names that no unit of the patch defines any more: the unit that did, by its number, and the name.
    pub removed: Vec<(usize, String)>,
    /// Global names that no unit of the patch defined before: the unit that does, by its number, and the name.
    pub added: Vec<(usize, String)>,
    /// What cannot be expressed.
    pub refusals: Vec<Refusal>,
}

impl Moves {
    /// Compares the names of all units of a patch.
    pub fn of(units: &[UnitNames]) -> Self {
        let scopes = vec![Scope::default(); units.len()];
        let mut moves = Moves { scopes, ..Moves::default() };
        let owners: BTreeSet<&str> = units.iter().map(|unit| unit.owner.as_str()).collect();
        for owner in owners {
            let numbers = (0..units.len()).filter(|&number| units[number].owner == owner).collect();
            Settling { units, numbers, moves: &mut moves }.settle();
        }
        for (number, unit) in units.iter().enumerate() {
            moves.refuse_aliases(number, unit);
        }
        moves.refusals.sort();
        moves.refusals.dedup();
        moves
    }

    /// Two names of one thing that become two things, or the other way round: who refers to one by the name that is not
    /// looked at goes on with what it was.
    fn refuse_aliases(&mut self, number: usize, unit: &UnitNames) {
        let globals = unit.before.globals().map(|(name, _)| name);
        for name in globals.filter(|name| unit.after.global(name).is_some()) {
            let both = |names: BTreeSet<&'_ str>, other: &Definitions| -> BTreeSet<String> {
                let is_there = |alias: &&str| other.global(alias).is_some();
                names.into_iter().filter(is_there).map(str::to_owned).collect()
            };
            let before = both(unit.before.aliases(name), &unit.after);
            let after = both(unit.after.aliases(name), &unit.before);
            let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
            let (gone, new) = (&before - &after, &after - &before);
            let why = match (gone.is_empty(), new.is_empty()) {
                (true, true) => continue,
                (false, _) => format!("it was the same as {} and is not any more", list(gone)),
                (true, false) => format!("it becomes the same as {}, and was not", list(new)),
            };
            self.refuse(Code::OtherMeaning, name, &unit.source, why);
            self.scopes[number].moved_in.remove(name);
        }
    }

    fn refuse(&mut self, code: Code, name: &str, source: &str, why: impl Into<String>) {
        self.refusals.push(Refusal::new(code, name, why).at(source, None));
    }
}

/// The names of the units of one object, while they are compared.
struct Settling<'a> {
    units: &'a [UnitNames],
    /// The object's units.
    numbers: Vec<usize>,
    moves: &'a mut Moves,
}

impl Settling<'_> {
    fn settle(&mut self) {
        let units = self.units;
        let mut globals: BTreeSet<&str> = BTreeSet::new();
        for &number in &self.numbers {
            for side in [&units[number].before, &units[number].after] {
                globals.extend(side.globals().map(|(name, _)| name));
            }
        }
        let mut locals = BTreeSet::new();
        for &number in &self.numbers {
            let appears = |name: &&String| !units[number].before.defined.contains_key(*name);
            let new = units[number].after.defined.keys().filter(appears);
            locals.extend(new.map(String::as_str).filter(|name| !globals.contains(name)));
        }
        for name in globals {
            self.settle_global(name);
        }
        for name in locals {
            self.settle_local(name);
        }
        for number in self.numbers.clone() {
            for (new, old) in &units[number].after.renamed {
                self.settle_renamed(old, new, number);
            }
        }
    }

    /// The units that have the name on one side, those whose definition is not weak first.
    fn homes(&self, side: impl Fn(&UnitNames) -> Option<&Definition>) -> Vec<usize> {
        let has = |&&number: &&usize| side(&self.units[number]).is_some();
        let mut homes: Vec<usize> = self.numbers.iter().filter(has).copied().collect();
        homes.sort_by_key(|&number| side(&self.units[number]).is_some_and(Definition::is_weak));
        homes
    }

    fn settle_global(&mut self, name: &str) {
        let units = self.units;
        let before = self.homes(|unit| unit.before.global(name));
        let after = self.homes(|unit| unit.after.global(name));
        let strong = |&&number: &&usize| units[number].after.global(name).is_some_and(|it| !it.is_weak());
        if let [_, second, ..] = after.iter().filter(strong).copied().collect::<Vec<_>>()[..] {
            let why = "two units of the patch define it";
            self.moves.refuse(Code::Unlinkable, name, &units[second].source, why);
            return;
        }
        match (before.first().copied(), after.first().copied()) {
            (Some(from), Some(to)) if from != to => self.moves((name, name), from, to),
            (Some(from), Some(_)) => self.refuse_other_kind(name, from),
            (Some(from), None) => {
                self.moves.removed.push((from, name.to_owned()));
                self.becomes_local(name, from);
            }
            (None, Some(to)) if units[to].before.defined.contains_key(name) => {
                self.refuse_other_kind(name, to);
                self.becomes_global((name, name), to, to);
            }
            (None, Some(to)) => {
                self.moves.added.push((to, name.to_owned()));
                self.settle_local(name);
            }
            (None, None) => {}
        }
    }

    /// A name that was one unit's own, and is another's, as its own or for all.
    fn settle_local(&mut self, name: &str) {
        let units = self.units;
        let left = |unit: &UnitNames| !unit.after.defined.contains_key(name);
        let from = self.homes(|unit| unit.before.defined.get(name).filter(|_| left(unit)));
        let new = |unit: &UnitNames| !unit.before.defined.contains_key(name);
        let to = self.homes(|unit| unit.after.defined.get(name).filter(|_| new(unit)));
        let (Some(&first), Some(&last)) = (from.first(), to.first()) else { return };
        let (old, now) = (&units[first].before.defined[name], &units[last].after.defined[name]);
        if old.is_global() || old.kind != now.kind || old.gone || now.gone {
            return;
        }
        // A static function that is only called has nobody left who calls it: those who did are changed or gone.
        if old.kind == Kind::Function && !old.calls.address_taken {
            return;
        }
        if from.len() > 1 || to.len() > 1 {
            if old.kind == Kind::Variable && old.writable {
                let why = "several units lose or gain a static variable of this name, and it is not certain which is which";
                self.moves.refuse(Code::OtherMeaning, name, &units[last].source, why);
            }
            return;
        }
        self.moves((name, name), first, last);
        if now.is_global() {
            self.becomes_global((name, name), first, last);
        }
    }

    /// What was for all is one unit's own from now on.
    fn becomes_local(&mut self, name: &str, from: usize) {
        let units = self.units;
        if units[from].after.defined.contains_key(name) {
            return self.refuse_other_kind(name, from);
        }
        let new = |unit: &UnitNames| !unit.before.defined.contains_key(name);
        match self.homes(|unit| unit.after.defined.get(name).filter(|_| new(unit)))[..] {
            [] => {}
            [to] => self.moves((name, name), from, to),
            [to, ..] => {
                let why = "several units of the patch define it as their own, and it was for all";
                self.moves.refuse(Code::OtherMeaning, name, &units[to].source, why);
            }
        }
    }

    /// What the author gives another name, in one unit or from one to another.
    fn settle_renamed(&mut self, old: &str, new: &str, to: usize) {
        let units = self.units;
        let Some(now) = units[to].after.defined.get(new) else { return };
        let mut from = to;
        if !units[to].before.defined.contains_key(old) {
            let left = |unit: &UnitNames| !unit.after.defined.contains_key(old);
            let homes = self.homes(|unit| unit.before.defined.get(old).filter(|_| left(unit)));
            // Where there is none, or several, the unit refuses the request.
            let [home] = homes[..] else { return };
            from = home;
            self.moves((old, new), from, to);
        }
        if now.is_global() {
            self.becomes_global((old, new), from, to);
        }
    }

    /// The thing of this name in one unit's original is another unit's from now on.
    fn moves(&mut self, (old_name, name): (&str, &str), from: usize, to: usize) {
        let units = self.units;
        let (Some(old), Some(new)) =
            (units[from].before.defined.get(old_name), units[to].after.defined.get(name))
        else {
            return;
        };
        let (source, target) = (&units[from].source, &units[to].source);
        let mut refuse = |code, why: String| self.moves.refuse(code, name, target, why);
        if old.kind != new.kind {
            return refuse(Code::OtherMeaning, format!("in {source} it is another kind of thing"));
        }
        if old.gone != new.gone {
            return refuse(Code::OtherMeaning, format!("in {source} it is freed at another time"));
        }
        if old.kind == Kind::Variable && !old.gone {
            if old.size != new.size {
                let code = if new.is_global() { Code::ChangedGlobal } else { Code::ChangedStatic };
                let why =
                    format!("it comes from {source}, where it has {} bytes and not {}", old.size, new.size);
                return refuse(code, why);
            }
            if let Some(why) = memory::obstacle(old.memory, new.memory) {
                return refuse(Code::ChangedMemory, format!("it comes from {source}, and {why}"));
            }
            if old.content != new.content {
                let why = format!("it comes from {source}, and its initial value changes on the way");
                return refuse(Code::ChangedData, why);
            }
        }
        if old.gone {
            return;
        }
        let home = Home { unit: source.clone(), name: old_name.to_owned(), traced: old.calls.traced };
        self.moves.scopes[to].moved_in.insert(name.to_owned(), home);
        self.moves.scopes[from].moved_out.insert(old_name.to_owned());
    }

    /// What was one unit's own can be meant by all.
    fn becomes_global(&mut self, (old_name, name): (&str, &str), from: usize, to: usize) {
        let old = &self.units[from].before.defined[old_name];
        if old.gone {
            return;
        }
        let unit = self.units[from].source.clone();
        let home = Home { unit, name: old_name.to_owned(), traced: old.calls.traced };
        for &number in self.numbers.iter().filter(|&&number| number != to) {
            if self.units[number].after.needed.contains(name) {
                self.moves.scopes[number].living.insert(name.to_owned(), home.clone());
            }
        }
    }

    fn refuse_other_kind(&mut self, name: &str, unit: usize) {
        let names = &self.units[unit];
        let kind = |side: &Definitions| side.defined.get(name).map(|definition| definition.kind);
        if kind(&names.before) != kind(&names.after) {
            let why = "it becomes another kind of thing";
            self.moves.refuse(Code::OtherMeaning, name, &names.source, why);
        }
    }
}
