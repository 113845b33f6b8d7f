//! Which functions are replaced, and which go along with their callers.
//!
//! ftrace can redirect a function only if the compiler put a call of `__fentry__` at the running one's entry; whether the
//! new one has that is no matter. One without (the
//! body of a system call, which `SYSCALL_DEFINE` makes `inline` and so untraced) can still be patched if it is
//! static and nothing but calls leads to it: its callers are replaced as well, and call the new one. That asks nothing of the
//! consistency model, so it is done for the consistency engine too; what is left can be redirected there by a jump
//! ([`crate::room`]).

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::compare::{Comparison, Reason};
use crate::references::Target;
use crate::{room, special};
use kmend_object::{Binding, Place};
use kmend_refusal::{Code, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// How far from its entry a function's call of `__fentry__` may lie, in bytes: behind an ENDBR at most.
const FENTRY_REACH: u64 = 16;

/// What functions that can be traced call first.
pub(crate) const TRACER: &str = "__fentry__";

/// The symbol by which a module's function for its unload is found (include/linux/module.h).
const EXIT: &str = "cleanup_module";

/// How variables are called that nothing reads: they keep a function from being left out (include/linux/compiler.h,
/// `___ADDRESSABLE()`).
const ADDRESSABLE: &str = "__UNIQUE_ID___addressable_";

/// Whether a function must have an ftrace entry to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fentry {
    /// It must: the result goes into a kernel.
    Required,
    /// It must, or have room for a jump: the result is for kmend's consistency engine.
    OrRoom,
    /// It need not, because nothing is built: what cannot be redirected is told. Of an object that was compiled without such
    /// entries nothing can be said.
    IfUsed,
}

/// The functions that a patch changes.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Replaced or carried functions of the patched object, with the reasons.
    pub(crate) changed: BTreeMap<AtomId, Vec<Reason>>,
    /// Those of them that ftrace cannot redirect, and whose callers are therefore replaced too.
    pub(crate) carried: BTreeSet<AtomId>,
    /// Those of them that ftrace cannot redirect, and a jump is to.
    pub(crate) jumps: BTreeSet<AtomId>,
    /// The one of them that runs at the module's unload, if a pointer leads to it alone.
    pub(crate) exit: Option<Exit>,
}

/// A module's function for its unload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) function: AtomId,
    /// Where `struct module` has the pointer to it, in bytes.
    pub(crate) pointer: u64,
}

impl Marks {
    /// Whether it is in the module as a changed function.
    pub(crate) fn is_changed(&self, id: AtomId) -> bool {
        self.changed.contains_key(&id)
    }

    /// Marks a function that a jump has to redirect, unless ftrace knows the living one; or says why it cannot.
    fn jump(&mut self, comparison: &Comparison<'_>, id: AtomId) -> Option<Refusal> {
        if comparison.pairing.home(id).is_some() {
            let why = "the compiler put no call of __fentry__ at its entry, and it moves to another file";
            return Some(Refusal::new(Code::NoFentry, comparison.patched.source_name(id), why));
        }
        let (unit, living) = (comparison.original, comparison.pairing.original(id)?);
        if has_fentry(unit, living) {
            return None;
        }
        let Some(why) = room::obstacle(unit, living) else {
            self.jumps.insert(id);
            return None;
        };
        let why = format!("the running one has no call of __fentry__ at its entry, and {why}");
        Some(Refusal::new(Code::NoRoom, comparison.patched.source_name(id), why))
    }

    /// Marks what goes along with a function.
    fn take(&mut self, unit: &Unit<'_>, along: Along) {
        self.carried.extend(along.carried);
        self.exit = along.exit.or(self.exit);
        for (caller, callee) in along.callers {
            self.changed.entry(caller).or_insert_with(|| vec![Reason::Callee { name: unit.name(callee) }]);
        }
    }
}

/// Finds the changed functions, and what stands against replacing them. What ran at the start is refused elsewhere.
pub(crate) fn mark(
    comparison: &Comparison<'_>,
    fentry: Fentry,
    exit_pointer: Option<u64>,
) -> (Marks, Vec<Refusal>) {
    let patched = comparison.patched;
    let mut marks = Marks::default();
    for id in patched.ids().filter(|&id| patched.atom(id).kind == AtomKind::Function) {
        if patched.is_gone(id) {
            continue;
        }
        let pairing = comparison.pairing;
        // One that another unit of the patch overrides from now on is nobody's.
        let original = pairing.original(id).filter(|&original| !pairing.has_left(original));
        let moved = pairing.home(id).map(|home| Reason::Moved { from: home.unit.clone() });
        let reason = moved.or_else(|| comparison.difference(original?, id));
        if let Some(reason) = reason {
            marks.changed.insert(id, vec![reason]);
        }
    }
    if fentry == Fentry::IfUsed && !patched.ids().any(|id| has_fentry(patched, id)) {
        return (marks, Vec::new());
    }
    let mut refusals = Vec::new();
    let changed: Vec<AtomId> = marks.changed.keys().copied().collect();
    for id in changed {
        let along = Along::with(comparison, id, exit_pointer);
        if along.obstacles.is_empty() {
            marks.take(patched, along);
        } else if fentry == Fentry::OrRoom {
            refusals.extend(marks.jump(comparison, id));
        } else {
            refusals.extend(along.obstacles.into_iter().map(|(id, obstacle)| cannot(patched, id, &obstacle)));
        }
    }
    (marks, refusals)
}

/// What goes along with a changed function that ftrace cannot redirect, as far up as it takes.
#[derive(Default)]
struct Along {
    /// It, and its callers that cannot be redirected either.
    carried: BTreeSet<AtomId>,
    /// Who calls one of these, and which.
    callers: BTreeMap<AtomId, AtomId>,
    exit: Option<Exit>,
    /// Where it does not come to an end, and why.
    obstacles: Vec<(AtomId, String)>,
}

impl Along {
    fn with(comparison: &Comparison<'_>, start: AtomId, exit_pointer: Option<u64>) -> Along {
        let unit = comparison.patched;
        // ftrace redirects the running function; the new one needs no entry of it.
        let original_has = |id| {
            let original = comparison.pairing.original(id);
            original.is_none_or(|original| has_fentry(comparison.original, original))
                && comparison.pairing.home(id).is_none_or(|home| home.traced)
        };
        let mut along = Along::default();
        let mut waiting = vec![start];
        while let Some(id) = waiting.pop() {
            if original_has(id) || !along.carried.insert(id) {
                continue;
            }
            if let Some(pointer) = exit_pointer.filter(|_| is_exit(comparison, id)) {
                along.exit = Some(Exit { function: id, pointer });
                continue;
            }
            match callers(unit, id) {
                Ok(callers) => {
                    for caller in callers {
                        along.callers.entry(caller).or_insert(id);
                        waiting.push(caller);
                    }
                }
                Err(obstacle) => along.obstacles.push((id, obstacle)),
            }
        }
        along
    }
}

fn cannot(unit: &Unit<'_>, id: AtomId, obstacle: &str) -> Refusal {
    let why = if unit.section_of(id).name.starts_with(special::EXIT_CODE) {
        "it is __exit code, which is notrace, and it is not the module's exit function alone: the old one runs when \
         the module is unloaded"
            .to_owned()
    } else {
        format!(
            "the running one has no call of __fentry__ at its entry, so ftrace cannot redirect it, and {obstacle}"
        )
    };
    Refusal::new(Code::NoFentry, unit.source_name(id), why)
}

/// Whether a function, before and after, is what the module runs at its unload (include/linux/module.h, `module_exit()`), and
/// nothing else in its unit leads to it.
fn is_exit(comparison: &Comparison<'_>, id: AtomId) -> bool {
    let is_exit = |unit: &Unit<'_>, id: AtomId| {
        let atom = unit.atom(id);
        let entry = (Place::Section(atom.section), atom.origin);
        let alias = unit
            .object
            .symbols
            .iter()
            .any(|symbol| symbol.name == EXIT && (symbol.place, symbol.value) == entry);
        let leads_here = |source: AtomId| {
            unit.atom(source).references.iter().any(|reference| reference.leads_to(id))
                && owners(unit, source).is_none_or(|owners| !owners.contains(&id))
        };
        let is_followed = |source: AtomId| !unit.name(source).starts_with(ADDRESSABLE);
        alias && !unit.ids().any(|source| is_followed(source) && leads_here(source))
    };
    let original = comparison.pairing.original(id);
    is_exit(comparison.patched, id) && original.is_some_and(|original| is_exit(comparison.original, original))
}

/// The functions that call a static one, or what else leads to it.
fn callers(unit: &Unit<'_>, id: AtomId) -> Result<BTreeSet<AtomId>, String> {
    let is_static = unit.symbol_of(id).is_some_and(|symbol| symbol.binding == Binding::Local);
    if !is_static {
        return Err("it is not static: other units may call it".into());
    }
    let mut callers = BTreeSet::new();
    for source in unit.ids() {
        for reference in unit.atom(source).references.iter().filter(|reference| reference.leads_to(id)) {
            match owners(unit, source) {
                Some(owners) if owners.contains(&id) => {}
                Some(owners) if reference.branch => callers.extend(owners),
                _ => return Err(format!("its address is taken by {}", unit.name(source))),
            }
        }
    }
    // What has run for the last time calls nothing any more.
    callers.retain(|&caller| !unit.is_gone(caller));
    if callers.is_empty() { Err("nothing in its unit calls it".into()) } else { Ok(callers) }
}

/// The functions that a piece of code belongs to; `None` for what is no code of a function.
fn owners(unit: &Unit<'_>, source: AtomId) -> Option<BTreeSet<AtomId>> {
    let atom = unit.atom(source);
    match atom.kind {
        AtomKind::Function => Some(BTreeSet::from([source])),
        AtomKind::Entry => match atom.references.first()?.target {
            Target::Atom { id, .. } if unit.section_of(id).is_code() && id != source => owners(unit, id),
            _ => None,
        },
        AtomKind::Content if unit.section_of(source).is_code() => {
            let leads_here = |id: &AtomId| {
                let leads =
                    |id: AtomId| unit.atom(id).references.iter().any(|reference| reference.leads_to(source));
                let atom = unit.atom(*id);
                atom.kind == AtomKind::Function
                    && (leads(*id) || atom.entries.iter().any(|entry| leads(*entry)))
            };
            Some(unit.ids().filter(leads_here).collect())
        }
        AtomKind::Variable | AtomKind::Content | AtomKind::Fixed => None,
    }
}

/// Whether ftrace can redirect it: it calls `__fentry__`, or did so until the call was made a nop (scripts/recordmcount.c,
/// and tools/objtool/check.c with --mnop: the relocation stays, as one that does nothing).
fn has_fentry(unit: &Unit<'_>, id: AtomId) -> bool {
    let atom = unit.atom(id);
    let entry = atom.origin - atom.start;
    let is_nop = || {
        unit.traced_nops[atom.section.index()]
            .range(atom.origin..atom.origin.saturating_add(FENTRY_REACH))
            .next()
            .is_some()
    };
    let calls = || {
        atom.references.iter().take_while(|reference| reference.offset < entry + FENTRY_REACH).any(
            |reference| {
                matches!(reference.target, Target::External { symbol, .. }
                if unit.object.symbol(symbol).name == TRACER)
            },
        )
    };
    atom.kind == AtomKind::Function && (calls() || is_nop())
}
