//! The names of all units of a patch, held against those of the kernel.
//!
//! The units say what each name was and becomes ([`Moves`]). The kernel says what its other units have: no kernel would
//! link a second definition of one of its names, a reference to what is static elsewhere, or one to what is gone.

use crate::callers;
use crate::error::BuildError;
use crate::facts::Facts;
use crate::units::{self, ProvenUnit, VMLINUX};
use kmend_compile::CompiledUnit;
use kmend_diff::{Definitions, Kind, Moves, Scope, State, UnitNames};
use kmend_link::{Candidate, KernelSymbols, TargetKernel};
use kmend_match::{Matched, Outcome};
use kmend_refusal::{Code, Refusal};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// How many users of a name a refusal shows.
const SHOWN: usize = 3;

/// What is known of the names of a patch's units before they are compared.
pub(crate) struct Names {
    /// What patched units refer to and their originals do not: some may be new in another unit.
    pub(crate) wanted: BTreeSet<String>,
    /// For each unit.
    pub(crate) scopes: Vec<Scope>,
    /// What no kernel would link, and what no livepatch can express.
    pub(crate) refusals: Vec<Refusal>,
}

impl Names {
    /// Reads the names of all units and asks the kernel.
    pub(crate) fn of(
        compiled: &[CompiledUnit],
        matches: &[Matched],
        facts: &Facts,
    ) -> Result<Names, BuildError> {
        let units = compiled.par_iter().map(names).collect::<Result<Vec<_>, BuildError>>()?;
        let mut moves = Moves::of(&units);
        let kernel = TargetKernel::new(&facts.image, facts.modules.as_ref(), &facts.symvers);
        let judge = Judge { units: &units, matches, moves: &moves, facts, kernel: &kernel };
        let mut refusals = judge.added();
        refusals.extend(judge.removed());
        refusals.extend(judge.needed());
        refusals.extend(judge.moved());
        refusals.append(&mut moves.refusals);
        let new = |unit: &UnitNames| &unit.after.needed - &unit.before.needed;
        Ok(Names { wanted: units.iter().flat_map(new).collect(), scopes: moves.scopes, refusals })
    }
}

/// Variables that begin in one unit while one of their type goes in another of the same object.
pub(crate) fn lost_state(units: &[ProvenUnit]) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (number, unit) in units.iter().enumerate() {
        let others = units.iter().enumerate().filter(|(other, _)| *other != number);
        let others = others.filter(|(_, other)| other.owner == unit.owner);
        let lost: Vec<&State> = others.flat_map(|(_, other)| &other.delta.states.lost).collect();
        let found = unit.delta.states.refusals(lost);
        refusals.extend(found.into_iter().map(|refusal| refusal.at(&unit.source, None)));
    }
    refusals
}

/// The names of one unit.
fn names(unit: &CompiledUnit) -> Result<UnitNames, BuildError> {
    let source = unit.unit.source.clone();
    let owner = units::owner_name(unit);
    let of = |bytes: &[u8]| -> Result<Definitions, BuildError> {
        Ok(Definitions::of(&units::parse(&source, bytes)?, owner == VMLINUX))
    };
    let before = of(&unit.original)?;
    let after = if unit.differs() { of(&unit.patched)? } else { before.clone() };
    Ok(UnitNames { source, owner, before, after })
}

struct Judge<'a> {
    units: &'a [UnitNames],
    matches: &'a [Matched],
    moves: &'a Moves,
    facts: &'a Facts,
    kernel: &'a TargetKernel<'a>,
}

impl Judge<'_> {
    fn refuse(&self, code: Code, name: &str, unit: usize, why: impl Into<String>) -> Refusal {
        Refusal::new(code, name, why).at(&self.units[unit].source, None)
    }

    /// The kernel's own global definition of a name in an object.
    fn in_kernel(&self, owner: &str, name: &str) -> Option<Candidate> {
        let candidates = self.kernel.candidates(owner, name);
        let strong = candidates.iter().find(|candidate| candidate.global && !candidate.weak);
        strong.or_else(|| candidates.iter().find(|candidate| candidate.global)).cloned()
    }

    /// New global names, and weak ones that become strong: the kernel must not have them already.
    fn added(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (unit, name) in &self.moves.added {
            let names = &self.units[*unit];
            let Some(definition) = names.after.global(name).filter(|definition| !definition.gone) else {
                continue;
            };
            let exported =
                self.kernel.exported(name).filter(|export| self.sees_export(&names.owner, &export.by));
            let found = self.in_kernel(&names.owner, name);
            refusals.extend(match (found, exported) {
                (Some(found), _) if found.weak => {
                    let why = "the kernel has a weak definition of it in a file that the patch does not touch, which goes on being \
                               called";
                    Some(self.refuse(Code::OtherMeaning, name, *unit, why))
                }
                (Some(_), _) if definition.is_weak() => {
                    let why = "it is weak, and the kernel has a definition that overrides it";
                    Some(self.refuse(Code::OtherMeaning, name, *unit, why))
                }
                (Some(_), _) => {
                    let why = format!("another file of {} defines it already", names.owner);
                    Some(self.refuse(Code::Unlinkable, name, *unit, why))
                }
                (None, Some(export)) => {
                    let why = format!("{} exports it, and other files of {} may use that", export.by, names.owner);
                    Some(self.refuse(Code::OtherMeaning, name, *unit, why))
                }
                (None, None) => None,
            });
        }
        for (number, unit) in self.units.iter().enumerate() {
            for (name, before) in unit.before.globals().filter(|(_, before)| before.is_weak()) {
                let becomes_strong = unit.after.global(name).is_some_and(|after| !after.is_weak());
                let is_overridden = self.outcome(number, name) == Some(&Outcome::Overridden);
                if before.kind == Kind::Function && becomes_strong && is_overridden {
                    let why = format!("another file of {} defines it already", unit.owner);
                    refusals.push(self.refuse(Code::Unlinkable, name, number, why));
                }
            }
        }
        refusals
    }

    fn outcome(&self, unit: usize, function: &str) -> Option<&Outcome> {
        self.matches[unit].function(function).map(|function| &function.outcome)
    }

    /// Global names that the patch takes away: nobody else may use them.
    fn removed(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (unit, name) in &self.moves.removed {
            let names = &self.units[*unit];
            let Some(definition) = names.before.global(name).filter(|definition| !definition.gone) else {
                continue;
            };
            if self.outcome(*unit, name) == Some(&Outcome::Overridden) {
                continue;
            }
            let users = self.users_outside(*unit, name, definition.kind);
            if !users.is_empty() {
                let shown = users.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
                let why = format!("the patch takes it away from {}, and {shown} still use it", names.owner);
                refusals.push(self.refuse(Code::Unlinkable, name, *unit, why));
            }
        }
        refusals
    }

    /// What of the same object refers to a name, outside of the units that the patch reaches.
    fn users_outside(&self, unit: usize, name: &str, kind: Kind) -> BTreeSet<String> {
        let owner = &self.units[unit].owner;
        let reached: Vec<usize> =
            (0..self.units.len()).filter(|&other| self.units[other].owner == *owner).collect();
        if owner != VMLINUX {
            let users =
                self.facts.modules.as_ref().and_then(|tree| callers::in_module(tree, owner, name).ok());
            let is_reached = |user: &String| {
                let root = kmend_diff::source_function(user);
                reached.iter().any(|&other| {
                    let functions = &self.matches[other].functions;
                    functions.iter().any(|function| kmend_diff::source_function(&function.name) == root)
                })
            };
            return users.unwrap_or_default().into_iter().filter(|user| !is_reached(user)).collect();
        }
        let Some(address) = self.matches[unit].locate(name).map(|located| located.address) else {
            return BTreeSet::new();
        };
        let tails = if kind == Kind::Function { &[0][..] } else { &callers::TAILS };
        let mut uses = callers::in_code(&self.facts.image, address, tails);
        uses.extend(callers::in_data(&self.facts.image, address));
        let is_reached = |found: &callers::Use| {
            reached.iter().any(|&other| {
                let matched = &self.matches[other];
                let holds = |function: &kmend_match::FunctionMatch| {
                    let end = function.address.saturating_add(function.size);
                    function.address != 0 && (function.address..end).contains(&found.place)
                };
                matched.functions.iter().any(holds)
                    || matched.symbols.values().any(|located| located.address == found.start)
            })
        };
        uses.into_iter().filter(|found| !is_reached(found)).map(|found| found.user).collect()
    }

    /// What patched units refer to: it must be global, in the kernel or by the patch.
    fn needed(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (number, unit) in self.units.iter().enumerate() {
            let is_removed = |name: &&String| {
                let is_it = |(home, removed): &(usize, String)| {
                    *removed == **name && self.units[*home].owner == unit.owner
                };
                self.moves.removed.iter().any(is_it)
            };
            let is_new = |name: &&String| !unit.before.needed.contains(*name);
            for name in unit.after.needed.iter().filter(|name| is_new(name) || is_removed(name)) {
                if let Some(why) = self.missing(&unit.owner, name, is_removed(&name)) {
                    refusals.push(self.refuse(Code::Unlinkable, name, number, why));
                }
            }
        }
        refusals
    }

    /// Why nothing that the name could mean can be referred to.
    fn missing(&self, owner: &str, name: &str, is_removed: bool) -> Option<String> {
        let defines = |unit: &UnitNames| unit.owner == owner && unit.after.global(name).is_some();
        if self.units.iter().any(defines) {
            return None;
        }
        let exports = |unit: &UnitNames| unit.owner != owner && unit.after.exported.contains(name);
        if owner != VMLINUX && (self.kernel.exported(name).is_some() || self.units.iter().any(exports)) {
            return None;
        }
        if is_removed {
            return Some("the patch takes it away".to_owned());
        }
        let candidates = self.kernel.candidates(owner, name);
        if candidates.iter().any(|candidate| candidate.global) {
            return None;
        }
        let elsewhere = if owner == VMLINUX { Vec::new() } else { self.kernel.candidates(VMLINUX, name) };
        if !candidates.is_empty() {
            return Some(format!("it refers to what is static in another file of {owner}"));
        }
        let is_global = elsewhere.iter().any(|candidate| candidate.global);
        // What nobody has may be made by the linker; the link stage looks for it.
        (!elsewhere.is_empty()).then(|| {
            if is_global {
                format!("vmlinux does not export it to {owner}")
            } else {
                "in vmlinux it is static".to_owned()
            }
        })
    }

    fn sees_export(&self, owner: &str, by: &str) -> bool {
        owner != VMLINUX && owner != by && self.kernel.needs(owner, by) || (owner != VMLINUX && by == VMLINUX)
    }

    /// What moves must be what runs.
    fn moved(&self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (number, scope) in self.moves.scopes.iter().enumerate() {
            for (name, home) in &scope.moved_in {
                let owner = &self.units[number].owner;
                let is_home = |unit: &UnitNames| unit.owner == *owner && unit.source == home.unit;
                let Some(from) = self.units.iter().position(is_home) else { continue };
                let matched = &self.matches[from];
                let why = match matched.function(&home.name).map(|function| &function.outcome) {
                    Some(Outcome::Overridden) => "it is a weak definition, and another unit's is in force",
                    Some(Outcome::Dropped) => "the kernel's linker script discards its section",
                    Some(Outcome::Ambiguous { .. }) => "the image holds the same code at several places",
                    _ if matched.locate(&home.name).is_none() => "the image does not hold it",
                    _ => continue,
                };
                let why = format!("it comes from {}, and there {why}", home.unit);
                refusals.push(self.refuse(Code::NotInImage, name, number, why));
            }
        }
        refusals
    }
}
