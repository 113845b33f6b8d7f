//! What goes into the module: the changed functions, the new ones they need, and what belongs to both.
//!
//! Starting from the changed functions, every reference is followed. What the running kernel has (a paired
//! function or variable) stays there and is referred to; what it lacks is taken along; what has no identity but
//! its content (strings, constants, cold parts) is copied. A pointer to a changed function refers to the original:
//! ftrace leads every call of it to the replacement, and a pointer that outlives the livepatch stays
//! valid. A direct call between changed functions goes to the replacement itself.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::extract::Reference as Outside;
use crate::gone;
use crate::labels;
use crate::marks::Marks;
use crate::names;
use crate::pair::Pairing;
use crate::references::{Reference, Target};
use crate::runtime;
use crate::special::{self, Memory, Registers, Treatment};
use kmend_object::{Place, elf};
use kmend_refusal::{Code, Refusal};
use std::collections::{BTreeSet, HashSet};

/// The atoms that are kept, in the object's order.
pub(crate) struct Selection {
    pub(crate) kept: BTreeSet<AtomId>,
    /// Functions among them that the original does not have.
    pub(crate) new: BTreeSet<AtomId>,
    pub(crate) refusals: Vec<Refusal>,
}

/// Where a kept atom's reference leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To a kept atom.
    Kept(AtomId),
    /// To a copy of a string.
    Text,
    /// Out of the module.
    Outside(Outside),
    /// To an absolute value.
    Absolute,
}

struct Selector<'a> {
    patched: &'a Unit<'a>,
    original: &'a Unit<'a>,
    pairing: &'a Pairing,
    marks: &'a Marks,
    selection: Selection,
    queue: Vec<AtomId>,
    reported: HashSet<(AtomId, String)>,
}

/// Follows the references of the changed functions and of `new` functions and variables.
pub(crate) fn select<'a>(
    original: &'a Unit<'a>,
    patched: &'a Unit<'a>,
    pairing: &'a Pairing,
    marks: &'a Marks,
    new: impl Iterator<Item = AtomId>,
) -> Selection {
    let selection = Selection { kept: BTreeSet::new(), new: BTreeSet::new(), refusals: Vec::new() };
    let reported = HashSet::new();
    let mut selector = Selector { patched, original, pairing, marks, selection, queue: Vec::new(), reported };
    for &id in marks.changed.keys() {
        selector.keep(id);
    }
    for id in new {
        if patched.atom(id).kind == AtomKind::Function {
            selector.selection.new.insert(id);
        }
        selector.keep(id);
    }
    loop {
        while let Some(id) = selector.queue.pop() {
            selector.follow(id);
        }
        selector.keep_entries();
        if selector.queue.is_empty() {
            return selector.selection;
        }
    }
}

/// Where a reference of a kept atom leads. The caller has made sure that it leads somewhere.
pub(crate) fn route(
    original: &Unit<'_>,
    patched: &Unit<'_>,
    pairing: &Pairing,
    marks: &Marks,
    source: AtomId,
    reference: &Reference,
) -> Route {
    match &reference.target {
        Target::Text { .. } => Route::Text,
        Target::External { symbol, .. } => Route::Outside(match pairing.living(*symbol) {
            Some(home) => home.reference(),
            None => Outside::External { name: patched.object.symbol(*symbol).name.clone() },
        }),
        Target::Other { .. } => Route::Absolute,
        Target::Atom { id, offset } => match patched.atom(*id).kind {
            AtomKind::Content | AtomKind::Entry => Route::Kept(*id),
            AtomKind::Function
                if marks.is_changed(*id) && stays_inside(patched, source, *id, *offset, reference) =>
            {
                Route::Kept(*id)
            }
            AtomKind::Function | AtomKind::Variable | AtomKind::Fixed => {
                match (pairing.original(*id), pairing.home(*id)) {
                    (Some(partner), _) => Route::Outside(Outside::Original { name: original.name(partner) }),
                    (None, Some(home)) => Route::Outside(home.reference()),
                    (None, None) => Route::Kept(*id),
                }
            }
        },
    }
}

/// Whether a reference to a changed function means the replacement: a call, a place inside the function,
/// or anything that the function or its own table entries say of it.
fn stays_inside(
    patched: &Unit<'_>,
    source: AtomId,
    target: AtomId,
    offset: i64,
    reference: &Reference,
) -> bool {
    let is_entry = patched.atom(source).kind == AtomKind::Entry;
    let is_fragment = patched.atom(source).kind == AtomKind::Content && patched.section_of(source).is_code();
    reference.branch || offset != 0 || is_entry || (is_fragment && source == target)
}

impl Selector<'_> {
    fn keep(&mut self, id: AtomId) {
        if self.selection.kept.insert(id) {
            self.queue.push(id);
        }
    }

    /// Keeps the new entries of tables that are read of each module, where what they register is in this one.
    fn keep_entries(&mut self) {
        let is_new = |id: &AtomId| self.selection.kept.contains(id) && self.pairing.original(*id).is_none();
        let goes_along = |id: &AtomId| {
            let mut references = self.patched.atom(*id).references.iter().peekable();
            is_of_module(self.patched, *id)
                && self.pairing.original(*id).is_none()
                && references.peek().is_some()
                && references.all(|reference| match &reference.target {
                    Target::Atom { id, .. } => is_new(id),
                    // A format that only a branch which is left out prints stands in the table all the same.
                    Target::Text { .. } => !self.selection.kept.is_empty(),
                    _ => false,
                })
        };
        let entries: Vec<AtomId> = self.patched.ids().filter(goes_along).collect();
        for id in entries {
            self.keep(id);
        }
    }

    fn refuse(&mut self, source: AtomId, code: Code, what: &str, why: String) {
        if self.reported.insert((source, format!("{code}{what}"))) {
            self.selection.refusals.push(Refusal::new(code, what, why));
        }
    }

    fn follow(&mut self, id: AtomId) {
        let atom = self.patched.atom(id);
        let name = self.patched.name(id);
        if atom.undecoded {
            let why = "its code holds bytes that cannot be decoded next to a relocation".to_owned();
            self.refuse(id, Code::UnsupportedReference, &name, why);
        }
        for reference in &atom.references {
            self.check_form(id, reference);
            self.follow_reference(id, reference);
        }
        for &entry in &atom.entries {
            self.follow_entry(id, entry);
        }
    }

    fn follow_entry(&mut self, owner: AtomId, entry: AtomId) {
        if !runtime::is_load(self.patched, entry) {
            self.keep(entry);
        } else if runtime::load(self.patched, entry).is_none() {
            let section = self.patched.section_of(entry).name.clone();
            let why = format!("{} loads its constant in a way that is not known", self.patched.name(owner));
            self.refuse(owner, Code::UnknownSection, &section, why);
        }
    }

    fn follow_reference(&mut self, source: AtomId, reference: &Reference) {
        let route = route(self.original, self.patched, self.pairing, self.marks, source, reference);
        match (route, &reference.target) {
            (Route::Kept(id), _) => self.keep_target(source, id),
            (Route::Absolute, Target::Other { symbol, .. }) => {
                let symbol = self.patched.object.symbol(*symbol);
                let is_number = symbol.place == Place::Absolute || symbol.is_undefined();
                if !is_number {
                    let why = format!(
                        "it refers to {}, outside of any object",
                        self.patched.describe(&reference.target)
                    );
                    self.refuse(source, Code::UnsupportedReference, &self.patched.name(source), why);
                }
            }
            (Route::Text, Target::Text { section, offset })
                if self.patched.object.section(*section).string_at(*offset).is_none() =>
            {
                let text = self.patched.describe(&reference.target);
                let why = format!("it refers to a text at {text}, which has no end or is not aligned");
                self.refuse(source, Code::UnsupportedReference, &self.patched.name(source), why);
            }
            (Route::Outside(_), Target::Atom { id, .. }) => self.refuse_freed(source, *id),
            (Route::Outside(_) | Route::Text | Route::Absolute, _) => {}
        }
    }

    /// What the running kernel has freed cannot be referred to, whoever refers to it. (Of other units' symbols the linker
    /// knows where they are.)
    fn refuse_freed(&mut self, source: AtomId, target: AtomId) {
        let is_freed = |unit: &Unit<'_>, id: AtomId| unit.is_freed(id);
        let living = self.pairing.original(target);
        if is_freed(self.patched, target) || living.is_some_and(|id| is_freed(self.original, id)) {
            let user = self.patched.name(source);
            let refusal = gone::reference_refusal(self.patched, target, &user);
            if self.reported.insert((target, refusal.code.to_string())) {
                self.selection.refusals.push(refusal);
            }
        }
    }

    /// Takes along what a kept atom refers to and the running kernel lacks.
    fn keep_target(&mut self, source: AtomId, id: AtomId) {
        if self.selection.kept.contains(&id) {
            return;
        }
        let target = self.patched.atom(id);
        let section = self.patched.object.section(target.section);
        let treatment = self.patched.treatment_of(id);
        let (name, user) = (self.patched.name(id), self.patched.name(source));
        match target.kind {
            AtomKind::Function if self.patched.is_gone(id) => {
                let why = format!(
                    "{user} needs it, and it lies in {}, which is freed after the start",
                    section.name
                );
                self.refuse(id, Code::ChangedInit, &name, why);
            }
            AtomKind::Function if section.name == special::TRAMPOLINES => {
                let why = format!("{user} makes it, and a livepatch cannot define static calls of its own");
                self.refuse(id, Code::ModuleStaticCall, &name, why);
            }
            AtomKind::Function => {
                self.selection.new.insert(id);
            }
            AtomKind::Variable if self.pairing.uncertain.contains(&id) => {
                let base = names::base(&name);
                let why = format!(
                    "the original has several variables {base}, and it is not certain which one {user} means"
                );
                self.refuse(id, Code::UnsupportedReference, &name, why);
            }
            AtomKind::Variable
                if !holds_plain_data(&section.name)
                    || matches!(special::memory_of(section), Memory::Decrypted | Memory::Unsaved) =>
            {
                let why = format!("{user} needs it, and it lies in {}", section.name);
                self.refuse(id, Code::UnknownSection, &name, why);
            }
            AtomKind::Fixed if !is_of_module(self.patched, id) => {
                let why = format!("{user} refers to {name} in it, which the running kernel does not have");
                self.refuse(id, Code::UnknownSection, &section.name, why);
            }
            AtomKind::Content if !labels::is_constant(section) && treatment == Treatment::Plain => {
                let why = format!("{user} refers to data without a name in {}", section.name);
                self.refuse(id, Code::UnsupportedReference, &name, why);
            }
            AtomKind::Variable | AtomKind::Content | AtomKind::Entry | AtomKind::Fixed => {}
        }
        self.keep(id);
    }

    /// Whether the reference can be expressed as a relocation of the module.
    fn check_form(&mut self, id: AtomId, reference: &Reference) {
        let is_known = elf::width(reference.kind).is_some();
        if is_known && !(reference.in_place && reference.kind == elf::R_X86_64_PC8) {
            return;
        }
        let target = self.patched.describe(&reference.target);
        let why = if is_known {
            format!("it jumps to {target} by a short jump, which holds no relocation")
        } else {
            format!("it refers to {target} by relocation type {}, which modules do not know", reference.kind)
        };
        self.refuse(id, Code::UnsupportedReference, &self.patched.name(id), why);
    }
}

/// Whether it is an entry of a table that the kernel reads of each module when that is loaded.
pub(crate) fn is_of_module(unit: &Unit<'_>, id: AtomId) -> bool {
    unit.treatment_of(id) == Treatment::Registration(Registers::OfModule)
}

/// Whether a new variable can simply live in the module's own section of this name.
pub(crate) fn holds_plain_data(section: &str) -> bool {
    [".data", ".bss", ".rodata", ".ro_after_init"].iter().any(|prefix| section.starts_with(prefix))
}
