//! Which functions and data changed between two objects, and all they need to stand alone.
//!
//! Both objects come from one compiler with -ffunction-sections and -fdata-sections, and objtool has not seen
//! them (what it would have added is ignored). The differ cuts each into atoms, pairs the two sides, compares
//! the pairs, and selects what a livepatch needs:
//!
//! ```text
//! atoms ─ references ─ pair ─ compare ─ memory ─ checks ─ select ─ closing ─ extract
//! ```
//!
//! Before that, the names of all units of a patch are compared (`definitions`, `moves`): what one unit loses, another may gain.
//!
//! The bias: a change that is missed is a crash on somebody's machine. When it is not certain that two things are
//! equal they are changed; when it is not certain that a reference can be carried over, the patch is
//! refused.
//!
//! Architecture invariant: the differ does no I/O and knows nothing of the running kernel. Which address or
//! position a reference has there is the business of the match and the linker.

mod atoms;
mod author;
mod checks;
mod closing;
mod compare;
mod cut;
mod definitions;
mod ends;
mod exports;
mod extract;
mod gone;
mod labels;
mod locals;
mod marks;
mod memory;
mod moves;
mod names;
mod outlives;
mod pair;
mod references;
mod room;
mod runtime;
mod select;
mod special;
mod state;
mod surroundings;
mod type_ids;
mod update;

pub use author::{Callback, Moment};
pub use compare::Reason;
pub use definitions::{Definition, Definitions, Kind};
pub use extract::{Extract, Reference};
pub use marks::Fentry;
pub use moves::{Home, Moves, Scope, UnitNames};
pub use outlives::Escape;
pub use room::ENDBR64;
pub use state::{State, States};

use atoms::{AtomId, AtomKind, Unit};
use author::Requests;
use compare::Comparison;
use extract::Extracted;
use gone::PassedOver;
use kmend_object::{Binding, Object, SymbolId};
use kmend_refusal::{Code, Refusal};
use memory::MemoryChanges;
use serde::Serialize;
use std::collections::BTreeSet;
use update::Update;

/// The difference between two objects, ready for the linker.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    /// The functions that go into the module, changed ones first, each in the object's order. Empty if nothing
    /// changes.
    pub functions: Vec<FunctionChange>,
    /// New variables that go into the module, by name.
    pub variables: Vec<String>,
    /// Callbacks of the unit's object, in the order of the source for each moment.
    pub callbacks: Vec<Callback>,
    /// Variables of the running kernel whose values are exchanged.
    pub updates: Vec<VariableUpdate>,
    /// The symbol in the extract of the table of words to exchange; `None` if there are none. Each is 40 bytes: where it is
    /// (8), its width in bytes (4), whether the variable is read-only (1) and the old value is that of a pointer to such a text as
    /// is given (2) (4), its old (8) and new value (8), and room for the old value that is found (8).
    pub update_table: Option<SymbolId>,
    /// What of the livepatch somebody may still use when it is gone. Those that the author ends are among them.
    pub outlives: Vec<Escape>,
    /// Variables that begin in the livepatch, and those that nothing is any more.
    pub states: States,
    /// Whether the source says something else about its module's file, which a note tells.
    pub says_of_module: bool,
    /// What a reader should know.
    pub notes: Vec<String>,
    /// Changes of code that no livepatch reaches any more and that the author did not make, and of the set of exported symbols: what
    /// would be said of them if nothing else changed.
    pub passed_over: Vec<Refusal>,
    /// All that is kept.
    pub extract: Extract,
}

/// A function that goes into the module.
#[derive(Debug, Clone, Serialize)]
pub struct FunctionChange {
    /// Its symbol in the patched object.
    pub name: String,
    /// Its symbol in the original object; `None` for a new function, and for a changed one that only its changed
    /// callers call.
    pub original: Option<String>,
    /// The source of the unit whose original object that is, if it comes from another unit of the patch.
    pub home: Option<String>,
    /// Whether it has changed but is not redirected itself: its changed callers call the new one.
    pub carried: bool,
    /// Whether ftrace does not know the original, so that only a jump of the consistency engine's can redirect it.
    pub jumps: bool,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Where it stands in the two objects.
    #[serde(skip)]
    pub sides: Sides,
    /// Its symbol in the extract; the null symbol where there is none ([`changed`]).
    #[serde(skip)]
    pub symbol: SymbolId,
}

/// A variable of the running kernel whose value is exchanged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct VariableUpdate {
    /// Its symbol in the original object.
    pub variable: String,
    /// How many words of at most eight bytes are exchanged.
    pub words: usize,
    /// Whether the new value leads into the livepatch, which then has to stay in memory: nobody knows who is still there.
    pub pins: bool,
    /// Its type as C writes it, if the object has debug information.
    #[serde(skip)]
    pub type_name: Option<String>,
}

/// A function's symbols in the two objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// In the original; `None` for a new function.
    pub original: Option<SymbolId>,
    /// In the patched object.
    pub patched: SymbolId,
}

/// What the two objects of a unit do not tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// Symbols that other units of the same patch refer to: new global functions and variables among them go along.
    pub wanted: Option<&'a BTreeSet<String>>,
    /// What of its names other units of the patch had, or have from now on.
    pub scope: Option<&'a Scope>,
    /// The functions whose source the patch touches, if that is known. A changed `__init` function is refused if it may
    /// be one of them, and else passed over.
    pub touched: Option<&'a BTreeSet<String>>,
    /// Whether the unit is a part of the image: then its `__exit` code never runs.
    pub built_in: bool,
    /// Where a module keeps the pointer to its function for the unload: the offset of `exit` in `struct module`, in bytes.
    /// `None` if that is not known, and for units of the image.
    pub exit_pointer: Option<u64>,
}

impl Delta {
    /// Whether the two objects do the same.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.callbacks.is_empty() && self.updates.is_empty()
    }

    /// Functions of the original that are replaced.
    pub fn changed(&self) -> impl Iterator<Item = &FunctionChange> {
        self.functions.iter().filter(|function| function.original.is_some())
    }
}

/// The source function of a symbol: its name without the suffixes of clones and numbers.
pub fn source_function(symbol: &str) -> String {
    names::root(symbol)
}

/// A symbol without the numbers that the compiler gave it.
pub fn base_name(symbol: &str) -> String {
    names::base(symbol)
}

/// The functions that differ, whether or not a livepatch can hold the change: to explain a refusal.
pub fn changed(original: &Object, patched: &Object) -> Vec<FunctionChange> {
    let (original, patched) = (Unit::of(original, false).0, Unit::of(patched, false).0);
    let pairing = pair::pair(&original, &patched, &Scope::default());
    let requests = Requests::of(&patched, &pairing);
    let comparison = Comparison::new(&original, &patched, &pairing, &requests);
    let (marks, _) = marks::mark(&comparison, Fentry::IfUsed, None);
    let change = |(&id, reasons): (&AtomId, &Vec<Reason>)| comparison.change(id, &marks, reasons.clone());
    marks.changed.iter().map(change).collect()
}

/// Compares two objects. All the reasons against a livepatch are returned, not the first.
pub fn compare(original: &Object, patched: &Object, fentry: Fentry) -> Result<Delta, Vec<Refusal>> {
    compare_in(original, patched, fentry, Context::default())
}

/// Compares two objects of a unit whose place in the kernel and in the patch is known.
pub fn compare_in(
    original: &Object,
    patched: &Object,
    fentry: Fentry,
    context: Context<'_>,
) -> Result<Delta, Vec<Refusal>> {
    require_function_sections(original).and_then(|()| require_function_sections(patched))?;
    let (original, _) = Unit::of(original, context.built_in);
    let (patched, irregular) = Unit::of(patched, context.built_in);
    let alone = Scope::default();
    let pairing = pair::pair(&original, &patched, context.scope.unwrap_or(&alone));
    let requests = Requests::of(&patched, &pairing);
    let comparison = Comparison::new(&original, &patched, &pairing, &requests);
    let (marks, obstacles) = marks::mark(&comparison, fentry, context.exit_pointer);
    // Where nothing is built it is worth a remark, and no more.
    let (mut refusals, remarks) =
        if fentry == Fentry::IfUsed { (Vec::new(), obstacles) } else { (obstacles, Vec::new()) };
    let mut passed = PassedOver::of(&comparison, context.touched);
    let memory = MemoryChanges::of(&comparison);
    let (updates, more) = checks::changes(&comparison, &marks, &memory, &mut passed);
    refusals.extend(more);
    refusals.extend(memory.refusals.iter().cloned());
    refusals.extend(requests.refusals.iter().cloned());
    let called_back = requests.callbacks.iter().map(|&(_, id)| id);
    let is_wanted = |id: &AtomId| {
        let symbol = patched.symbol_of(*id);
        !pairing.is_living(*id)
            && symbol.is_some_and(|symbol| {
                let is_wanted = context.wanted.is_some_and(|wanted| wanted.contains(&symbol.name));
                symbol.binding != Binding::Local && is_wanted
            })
    };
    let needed =
        called_back.chain(updates.iter().flat_map(Update::needs).filter(|&id| !marks.is_changed(id)));
    let new = needed.chain(patched.ids().filter(is_wanted));
    let selection = select::select(&original, &patched, &pairing, &marks, new);
    refusals.extend(selection.refusals.iter().cloned());
    refusals.extend(type_ids::refuse_changes(&comparison));
    refusals.extend(checks::refuse_unused_entries(&comparison, &selection.kept));
    refusals.extend(outlives::refuse_endless(&requests));
    refusals.extend(checks::refuse_unknown_sections(&patched, &irregular, &requests, &selection.kept));
    if refusals.is_empty() {
        let (comparison, marks, memory) = (&comparison, &marks, &memory);
        let (passed, updates, kept) = (&passed, &updates, &selection.kept);
        refusals.extend(closing::unexplained(&closing::Findings {
            comparison,
            marks,
            memory,
            passed,
            updates,
            kept,
        }));
    }
    refusals.extend(state::wrongly_renamed(&comparison));
    let states = States::of(&comparison, &selection.kept);
    refusals.extend(states.refusals(&states.lost));
    refusals.extend(gone::never_set(&comparison, &passed, &selection.kept));
    if !refusals.is_empty() {
        refusals.sort();
        refusals.dedup();
        return Err(refusals);
    }
    let scope = outlives::Scope {
        original: &original,
        patched: &patched,
        pairing: &pairing,
        marks: &marks,
        kept: &selection.kept,
        wanted: context.wanted,
    };
    let outlives = outlives::escapes(scope, &requests);
    let Extracted { extract, symbols, update_table } =
        extract::extract(&original, &patched, &pairing, &marks, &selection, &updates);
    let change = |id: AtomId, reasons: Vec<Reason>| {
        let change = comparison.change(id, &marks, reasons);
        FunctionChange { symbol: symbols[&id], ..change }
    };
    let changed = marks.changed.iter().map(|(&id, reasons)| change(id, reasons.clone()));
    let new = selection.new.iter().map(|&id| change(id, vec![Reason::New]));
    let functions = changed.chain(new).collect();
    let is_variable = |id: &&AtomId| patched.atom(**id).kind == AtomKind::Variable;
    let variables = selection.kept.iter().filter(is_variable).map(|&id| patched.name(id)).collect();
    let callback = |&(moment, id)| Callback { moment, function: patched.name(id), symbol: symbols[&id] };
    let callbacks = requests.callbacks.iter().map(callback).collect();
    let remark = |refusal: &Refusal| format!("{} could not be redirected: {}", refusal.subject, refusal.why);
    let notes = comparison.ignored().into_iter().chain(requests.idle([&original, &patched]));
    let of_module = module_texts(original.object, patched.object);
    let says_of_module = of_module.is_some();
    let notes = notes.chain(of_module);
    let notes = notes.chain(remarks.iter().map(remark)).collect();
    let updates = shown(&updates, &patched);
    let passed_over = passed.refusals;
    Ok(Delta {
        functions,
        variables,
        callbacks,
        updates,
        update_table,
        outlives,
        states,
        says_of_module,
        notes,
        passed_over,
        extract,
    })
}

impl Comparison<'_> {
    /// A function of the patched object that is in the livepatch for these reasons, not yet in an extract.
    fn change(&self, id: AtomId, marks: &marks::Marks, reasons: Vec<Reason>) -> FunctionChange {
        let (partner, home) = (self.pairing.original(id), self.pairing.home(id));
        let carried = marks.carried.contains(&id);
        let symbol = |atom: &atoms::Atom| atom.symbol.unwrap_or(SymbolId::NULL);
        // Of several names that which the kernel knows.
        let known = partner.map(|partner| self.original.name(partner));
        let known = known.filter(|known| self.patched.names(id).any(|name| name == known));
        FunctionChange {
            name: known.unwrap_or_else(|| self.patched.name(id)),
            original: match home {
                Some(home) => Some(home.name.clone()).filter(|_| !carried),
                None => partner.filter(|_| !carried).map(|partner| self.original.name(partner)),
            },
            home: home.map(|home| home.unit.clone()).filter(|_| !carried),
            carried,
            jumps: marks.jumps.contains(&id),
            reasons,
            sides: Sides {
                original: partner.map(|partner| symbol(self.original.atom(partner))),
                patched: symbol(self.patched.atom(id)),
            },
            symbol: SymbolId::NULL,
        }
    }
}

/// Refuses an object whose functions share `.text`: a change of one would move the others.
/// What the linker and the report need to know of exchanged values.
fn shown(updates: &[Update], patched: &Unit<'_>) -> Vec<VariableUpdate> {
    if updates.is_empty() {
        return Vec::new();
    }
    let types = state::declarations(patched.object);
    let type_of = |id: AtomId| types.get(&patched.place(id)).map(|found| found.type_name.clone());
    let shown = |update: &Update| VariableUpdate {
        variable: update.place.name().to_owned(),
        words: update.words.len(),
        pins: update.leads_inside(),
        type_name: update.variable.and_then(type_of),
    };
    updates.iter().map(shown).collect()
}

/// What the source says about its module's file and that changes: its licence, aliases, dependencies. Nothing reads it after the
/// load (kernel/module/main.c, `setup_modinfo`), and depmod reads it in the file.
fn module_texts(original: &Object, patched: &Object) -> Option<String> {
    let (before, after) = (author::texts_of(original, ".modinfo"), author::texts_of(patched, ".modinfo"));
    let gone = before.difference(&after).map(|text| format!("-`{text}`"));
    let new = after.difference(&before).map(|text| format!("+`{text}`"));
    let changes: Vec<String> = gone.chain(new).collect();
    let why = "changes what it says about its module's file, which stays as it is";
    (!changes.is_empty()).then(|| format!("the patch {why}: {}", changes.join(", ")))
}

fn require_function_sections(object: &Object) -> Result<(), Vec<Refusal>> {
    let functions = || object.symbols.iter().filter(|symbol| symbol.is_function());
    let section_name = |symbol: &kmend_object::Symbol| {
        symbol.section().map(|id| object.section(id).name.clone()).unwrap_or_default()
    };
    let in_text = functions().filter(|symbol| section_name(symbol) == ".text").count();
    let in_own = functions().filter(|symbol| section_name(symbol).starts_with(".text.")).count();
    if in_text > 1 && in_own == 0 {
        let why = format!("{in_text} functions share the section .text");
        return Err(vec![Refusal::new(Code::NoFunctionSections, ".text", why)]);
    }
    Ok(())
}
