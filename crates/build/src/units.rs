//! One unit's way: is the original what runs, and what of it changes?

use crate::error::BuildError;
use crate::exports::Versions;
use crate::hunks::Inlined;
use crate::report::{FunctionReport, Note, NoteKind, Status, UnitReport};
use kmend_compile::{CompiledUnit, Owner};
use kmend_diff::{Context, Delta, Fentry, FunctionChange, Reason, Scope, VariableUpdate};
use kmend_kernel::{Image, ModuleTree};
use kmend_link::{Locate, Location, Pin};
use kmend_match::{Against, Matched, Outcome};
use kmend_object::Object;
use kmend_refusal::{Advice, Code, Refusal};
use kmend_types::Changes;
use std::collections::BTreeSet;

/// The object that is always there.
pub(crate) const VMLINUX: &str = "vmlinux";

/// A unit whose original is proven, with its difference.
pub(crate) struct ProvenUnit {
    pub(crate) source: String,
    pub(crate) owner: String,
    pub(crate) matched: Matched,
    pub(crate) delta: Delta,
}

impl ProvenUnit {
    /// Whether a function of this name in the source is replaced.
    pub(crate) fn replaces(&self, function: &str) -> bool {
        let mut replaced = self.delta.changed().filter_map(|change| change.original.as_deref());
        replaced.any(|name| kmend_diff::source_function(name) == function)
    }
}

/// A compared unit.
pub(crate) struct Compared {
    pub(crate) source: String,
    pub(crate) result: UnitResult,
    /// What differs between the types; not looked for where no code changes.
    pub(crate) types: Changes,
    /// What the code of changed functions suggests.
    pub(crate) advice: Vec<Advice>,
    /// The types that the author vouches for.
    pub(crate) accepted: BTreeSet<String>,
    /// What to tell of the CRCs of its exported symbols.
    pub(crate) notes: Vec<Note>,
}

/// A unit's result: what it adds to the module, or why it cannot.
pub(crate) type UnitResult = Result<ProvenUnit, Vec<Refusal>>;

/// The name that livepatch has for the object a unit belongs to.
pub(crate) fn owner_name(unit: &CompiledUnit) -> String {
    match &unit.unit.owner {
        Owner::Vmlinux => VMLINUX.to_owned(),
        Owner::Module { name, .. } => name.clone(),
    }
}

/// Matches a unit's plain original against what ships.
pub(crate) fn prove(
    unit: &CompiledUnit,
    image: &Image,
    modules: Option<&ModuleTree>,
) -> Result<Matched, BuildError> {
    let source = unit.unit.source.clone();
    let plain = parse(&source, &unit.plain)?;
    let module = match (&unit.unit.owner, modules) {
        (Owner::Module { name, .. }, Some(tree)) => Some(tree.module(name)?),
        (Owner::Module { name, .. }, None) => {
            return Err(BuildError::NoModules { unit: source, module: name.clone() });
        }
        (Owner::Vmlinux, _) => None,
    };
    let against = module.as_ref().map_or(Against::Image(image), |module| Against::Module { module, image });
    kmend_match::match_unit(&plain, &against)
        .map_err(|error| BuildError::Match { unit: source, source: error })
}

/// On what terms units are compared.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    /// Whether a function must have an ftrace entry to be replaced.
    pub(crate) fentry: Fentry,
    /// Where `struct module` has the pointer to the function for the unload, in bytes.
    pub(crate) exit_pointer: Option<u64>,
}

/// Compares a unit's two objects and, if code changes, their types and the CRCs of exported symbols.
pub(crate) fn compare(
    unit: &CompiledUnit,
    matched: Matched,
    names: (&BTreeSet<String>, &Scope),
    versions: &Versions<'_>,
    terms: Terms,
) -> Result<Compared, BuildError> {
    let source = unit.unit.source.clone();
    let original = parse(&source, &unit.original)?;
    let patched = parse(&source, &unit.patched)?;
    let context = Context {
        wanted: Some(names.0),
        scope: Some(names.1),
        touched: (!touches_hidden_start(unit, versions.outcome, &patched))
            .then_some(&versions.outcome.touched),
        built_in: unit.unit.owner == Owner::Vmlinux,
        exit_pointer: terms.exit_pointer.filter(|_| unit.unit.owner != Owner::Vmlinux),
    };
    let result = compare_code(unit, matched, (&original, &patched), terms.fentry, context);
    let is_same = |unit: &ProvenUnit| unit.delta.is_empty() && unit.delta.passed_over.is_empty();
    let (mut types, mut notes) = (Changes::default(), Vec::new());
    if !result.as_ref().is_ok_and(is_same) {
        let (compared, exports) = rayon::join(
            || kmend_types::compare(&original, &patched),
            || versions.compare(unit, &original, &patched),
        );
        types = compared.map_err(|error| BuildError::Types { unit: source.clone(), source: error })?;
        (types.exports, notes) = exports?;
    }
    let functions = result.as_ref().map(|unit| unit.delta.functions.as_slice()).unwrap_or_default();
    let advice = kmend_advice::advise(&original, &patched, functions);
    Ok(Compared { source, result, types, advice, accepted: kmend_types::accepted(&patched), notes })
}

/// Whether the patch touches an `__init` function of the unit that the compiler put into another one: that other one changes
/// then by the author's hand.
fn touches_hidden_start(unit: &CompiledUnit, outcome: &kmend_compile::Outcome, patched: &Object) -> bool {
    let is_there = |name: &String| {
        let mut functions = patched.symbols.iter().filter(|symbol| symbol.is_function());
        functions.any(|symbol| kmend_diff::source_function(&symbol.name) == *name)
    };
    let touched = outcome.touched_start.get(&unit.unit.source);
    touched.is_some_and(|names| !names.iter().all(is_there))
}

/// Compares code and data, and holds the result against the match.
fn compare_code(
    unit: &CompiledUnit,
    matched: Matched,
    (original, patched): (&Object, &Object),
    fentry: Fentry,
    context: Context<'_>,
) -> UnitResult {
    let source = unit.unit.source.clone();
    let mut refusals = matched.refusals(&source);
    match kmend_diff::compare_in(original, patched, fentry, context) {
        Err(more) => refusals.extend(more.into_iter().map(|refusal| placed(refusal, &source))),
        Ok(delta) => {
            refusals.extend(unproven(&delta, &matched, &source));
            if refusals.is_empty() {
                return Ok(ProvenUnit { owner: owner_name(unit), source, matched, delta });
            }
        }
    }
    Err(refusals)
}

pub(crate) fn parse(source: &str, bytes: &[u8]) -> Result<Object, BuildError> {
    Object::parse(bytes).map_err(|error| BuildError::Object { unit: source.to_owned(), source: error })
}

fn placed(refusal: Refusal, source: &str) -> Refusal {
    if refusal.place.is_some() { refusal } else { refusal.at(source, None) }
}

/// Changed functions whose original is in the unit but not in force in the kernel. Those that are not what was
/// compiled are among the match's own refusals.
fn unproven(delta: &Delta, matched: &Matched, source: &str) -> Vec<Refusal> {
    let refuse = |name: &str| {
        let why = match matched.function(name).map(|function| &function.outcome) {
            Some(Outcome::Equal | Outcome::Differs(_) | Outcome::Absent) => return None,
            Some(Outcome::Overridden) => "it is a weak definition, and another unit's is in force",
            Some(Outcome::Dropped) => "the kernel's linker script discards its section",
            Some(Outcome::Ambiguous { .. }) => "the image holds the same code at several places",
            None => "the image does not hold it",
        };
        Some(Refusal::new(Code::NotInImage, name, why).at(source, None))
    };
    // What comes from another unit was looked for there.
    let own = delta.changed().filter(|function| function.home.is_none());
    own.filter_map(|function| refuse(function.original.as_deref()?)).collect()
}

/// The functions of a unit that only a jump of the consistency engine's can redirect.
pub(crate) fn untraced(unit: &ProvenUnit) -> impl Iterator<Item = String> {
    unit.delta.changed().filter(|change| change.jumps).filter_map(|change| change.original.clone())
}

/// The match as the linker asks it.
pub(crate) struct Proof<'a> {
    unit: &'a ProvenUnit,
    /// All units of the patch.
    all: &'a [ProvenUnit],
}

impl<'a> Proof<'a> {
    pub(crate) fn of(unit: &'a ProvenUnit, all: &'a [ProvenUnit]) -> Self {
        Proof { unit, all }
    }
}

impl Locate for Proof<'_> {
    fn locate(&self, name: &str) -> Option<Location> {
        locate(&self.unit.matched, name)
    }

    fn locate_in(&self, unit: &str, name: &str) -> Option<Location> {
        let is_it = |other: &&ProvenUnit| other.owner == self.unit.owner && other.source == unit;
        locate(&self.all.iter().find(is_it)?.matched, name)
    }
}

fn locate(matched: &Matched, name: &str) -> Option<Location> {
    let located = matched.locate(name)?;
    let kernel = located.kernel.as_ref()?;
    Some(Location {
        object: located.object.clone()?,
        name: kernel.name.clone(),
        position: kernel.position.position,
        count: kernel.position.count,
    })
}

/// Why a function of the unit of `source` changed. If the patch does not touch it in the source, the compiler put one into it
/// that it does, as its lines tell.
pub(crate) fn reasons(
    source: &str,
    function: &FunctionChange,
    touched: &BTreeSet<String>,
    inlined: &Inlined,
) -> Vec<Reason> {
    let mut reasons = function.reasons.clone();
    let is_called = reasons.iter().any(|reason| matches!(reason, Reason::Callee { .. }));
    let own = touched.contains(&kmend_diff::source_function(&function.name)) || function.home.is_some();
    let callees: Vec<String> = inlined.of(source, &function.name).cloned().collect();
    if function.original.is_some() && !own && !is_called && !callees.is_empty() {
        reasons.push(Reason::Inlined { callees });
    }
    reasons
}

/// What to know of changed code that is left as it is.
pub(crate) fn left(unit: &ProvenUnit) -> impl Iterator<Item = Note> {
    unit.delta.passed_over.iter().map(|refusal| Note {
        kind: NoteKind::Fact,
        subject: unit.source.clone(),
        text: format!("{} changes as well, and is left as it is: {}", refusal.subject, refusal.why),
    })
}

/// Structures whose contents the kernel copies when it starts, by a member that says so, so that nothing reads them later: hooks of
/// security modules became static calls (security/security.c, `lsm_static_call_init`, since Linux 6.12).
const COPIED_AT_START: &[(&str, &str)] = &[("security_hook_list", "scalls")];

/// Refuses exchanged values that nobody would read.
pub(crate) fn copied_at_start(unit: &ProvenUnit, image: &Image) -> Vec<Refusal> {
    let is_copied = |update: &&VariableUpdate| {
        let name = update.type_name.as_deref().unwrap_or_default();
        COPIED_AT_START.iter().any(|(structure, member)| {
            let rest = name.strip_prefix("struct ").and_then(|name| name.strip_prefix(structure));
            let is_it = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('['));
            let layout = image.btf().and_then(|types| types.structure(structure));
            is_it && layout.is_some_and(|layout| layout.member(member).is_some())
        })
    };
    let refuse = |update: &VariableUpdate| {
        let why = "its value was copied when the kernel started, and nothing reads it any more";
        Refusal::new(Code::ChangedData, &update.variable, why).at(&unit.source, None)
    };
    unit.delta.updates.iter().filter(is_copied).map(refuse).collect()
}

/// What to know of an updated variable.
pub(crate) fn advice(update: &VariableUpdate) -> Vec<Note> {
    let note = |kind, text: &str| Note { kind, subject: update.variable.clone(), text: text.to_owned() };
    let copies =
        "its value is exchanged where it is: what was copied or concluded from it before stays as it is";
    let stays = "its new value leads into the livepatch, which therefore stays in memory when it is unloaded, \
                 disabled, and cannot be loaded again under its name";
    let pinned = update.pins.then(|| note(NoteKind::Fact, stays));
    [note(NoteKind::Advice, copies)].into_iter().chain(pinned).collect()
}

/// What to know of something that may be in use when the livepatch is disabled.
pub(crate) fn outlives(pin: &Pin) -> Note {
    let leads: Vec<&str> =
        pin.functions.iter().filter(|name| **name != pin.name).map(String::as_str).collect();
    let leads =
        if leads.is_empty() { String::new() } else { format!(", and it leads to {}", leads.join(", ")) };
    let then = if pin.ends {
        "; the patch says that its post_unpatch callback ends every use of it"
    } else {
        ". Who has it may use it when no task runs the new code any more: the livepatch therefore stays in memory when \
         it is unloaded, disabled, and cannot be loaded again under its name"
    };
    // A string's end is nothing that an author could name.
    let lift = if pin.ends || pin.name.starts_with('"') {
        ""
    } else {
        ". KMEND_ENDS(), with a post_unpatch callback that ends every use of it, lifts that (docs/authoring.md)"
    };
    Note { kind: NoteKind::Fact, subject: pin.name.clone(), text: format!("{}{leads}{then}{lift}", pin.how) }
}

/// A unit's part of the report. `touched` are the functions whose source the patches touch.
pub(crate) fn report(
    unit: &ProvenUnit,
    all: &[ProvenUnit],
    touched: &BTreeSet<String>,
    inlined: &Inlined,
) -> UnitReport {
    let proof = Proof::of(unit, all);
    let equal = unit.matched.functions.iter().filter(|function| function.is_equal()).count();
    let functions = unit.delta.functions.iter().map(|function| {
        let location = function.original.as_deref().and_then(|name| match &function.home {
            Some(home) => proof.locate_in(home, name),
            None => proof.locate(name),
        });
        FunctionReport {
            name: function.name.clone(),
            status: if function.original.is_some() || function.carried {
                Status::Changed
            } else {
                Status::New
            },
            reasons: reasons(&unit.source, function, touched, inlined),
            position: location.filter(|place| place.count > 1).map(|place| place.position as usize),
        }
    });
    UnitReport {
        source: unit.source.clone(),
        object: unit.owner.clone(),
        functions_matched: equal,
        functions_elsewhere: unit.matched.functions.len() - equal,
        functions: functions.collect(),
        variables: unit.delta.variables.clone(),
        callbacks: unit.delta.callbacks.clone(),
        updates: unit.delta.updates.clone(),
    }
}
