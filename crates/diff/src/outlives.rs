//! What of the livepatch somebody may still use when it is gone.
//!
//! The kernel unloads a livepatch when no task is in a changed function any more. A timer, a work item, an RCU callback or a
//! table of operations is on no stack: whoever was given the address of a *new* function or variable goes on using it. (A
//! pointer to a changed function leads to the original, which stays.) So every address of something that lies in the
//! livepatch is followed through its code ([`flow`]). As long as it is called, read and written through, or given to a function of
//! the kernel that is known to keep nothing ([`callees`]), it goes nowhere. When it is stored into memory that is not the
//! livepatch's, returned to the kernel, or given to any other function, it *escapes*, and the livepatch has to stay in
//! memory once it was enabled.
//!
//! The bias: what cannot be followed has escaped. To stay in memory is safe; to be freed too early is not.
//!
//! A string is given to a function to be printed or compared, as a rule, so for strings and for constants without a
//! name it is told which functions keep them. They too escape when they are stored or returned.
//!
//! Everything that an escaped variable leads to has escaped with it: a work item brings its function. An address that is
//! kept in the livepatch's own data goes nowhere by that; whoever loads it from there carries it on.

mod callees;
mod code;
mod flow;

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::author::{Moment, Requests};
use crate::marks::Marks;
use crate::names;
use crate::pair::Pairing;
use crate::references::{Reference, Target};
use crate::select::{self, Route};
use crate::special::Treatment;
use flow::Flow;
use kmend_object::{Binding, SectionId, SymbolId};
use kmend_refusal::{Code, Refusal};
use serde::Serialize;
use std::collections::BTreeSet;

/// An address that leaves the livepatch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Escape {
    /// The function or variable that it is of; of a string, its text in quotes.
    pub name: String,
    /// The functions of the livepatch that it leads to, itself included.
    pub functions: Vec<String>,
    /// Who lets it go, and where to, in words.
    pub how: String,
    /// Whether a callback of the author's ends every use of it before the livepatch is gone.
    pub ends: bool,
    /// Whether it is defined by another unit, if it is of the livepatch at all.
    #[serde(skip)]
    pub elsewhere: bool,
}

/// Something of the livepatch that has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing {
    /// A new function.
    Function(AtomId),
    /// A new variable, or a constant that leads to something.
    Data(AtomId),
    /// What another unit of the patch may define anew.
    Elsewhere(SymbolId),
    /// A constant without a name that leads to nothing.
    Constant(AtomId),
    /// A string.
    Text(SectionId, u64),
    /// The stack of the function that is looked at.
    Stack,
}

impl Thing {
    /// Whether it is only read, as a rule.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Thing::Constant(_) | Thing::Text(..))
    }
}

/// What is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) original: &'a Unit<'a>,
    pub(crate) patched: &'a Unit<'a>,
    pub(crate) pairing: &'a Pairing,
    pub(crate) marks: &'a Marks,
    /// What goes into the livepatch.
    pub(crate) kept: &'a BTreeSet<AtomId>,
    /// Symbols that other units of the patch may bring.
    pub(crate) wanted: Option<&'a BTreeSet<String>>,
}

impl Scope<'_> {
    /// Where a reference of a kept atom leads.
    pub(crate) fn route(&self, source: AtomId, reference: &Reference) -> Route {
        select::route(self.original, self.patched, self.pairing, self.marks, source, reference)
    }

    /// What of the livepatch a reference is the address of. A place in the middle of a function is none: who has it can
    /// only print it, or jump to it in that function.
    pub(crate) fn thing(&self, source: AtomId, reference: &Reference) -> Option<Thing> {
        match (self.route(source, reference), &reference.target) {
            (Route::Text, Target::Text { section, offset }) => Some(Thing::Text(*section, *offset)),
            (Route::Outside(_), Target::External { symbol, .. }) => {
                let is_wanted =
                    |wanted: &BTreeSet<String>| wanted.contains(&self.patched.object.symbol(*symbol).name);
                self.wanted.is_some_and(is_wanted).then_some(Thing::Elsewhere(*symbol))
            }
            (Route::Kept(id), Target::Atom { offset, .. }) => self.thing_at(id, *offset),
            _ => None,
        }
    }

    fn thing_at(&self, id: AtomId, offset: i64) -> Option<Thing> {
        let atom = self.patched.atom(id);
        // Of what has no size (a lock's class without lockdep) nothing can be read; descriptions of single uses are known to
        // the kernel by their section, which it forgets with the module (lib/dynamic_debug.c, `ddebug_remove_module`).
        if atom.size == 0 || self.patched.treatment_of(id) == Treatment::PerUse {
            return None;
        }
        match atom.kind {
            AtomKind::Function => (offset == 0).then_some(Thing::Function(id)),
            AtomKind::Variable => Some(Thing::Data(id)),
            AtomKind::Content if self.patched.section_of(id).is_code() => None,
            AtomKind::Content => {
                let leads = atom.references.iter().any(|reference| self.thing(id, reference).is_some());
                Some(if leads { Thing::Data(id) } else { Thing::Constant(id) })
            }
            AtomKind::Entry | AtomKind::Fixed => None,
        }
    }

    /// Whether the kernel calls it: the original is redirected to it, or other units may call it.
    pub(crate) fn is_called_from_outside(&self, function: AtomId) -> bool {
        let is_replaced = self.pairing.is_living(function) && !self.marks.carried.contains(&function);
        let is_global =
            self.patched.symbol_of(function).is_some_and(|symbol| symbol.binding != Binding::Local);
        is_replaced || is_global
    }

    /// What it is called.
    fn name(&self, thing: Thing) -> String {
        match thing {
            Thing::Function(id) => self.patched.source_name(id),
            Thing::Data(id) | Thing::Constant(id) => names::base(&self.patched.name(id)),
            Thing::Elsewhere(symbol) => self.patched.object.symbol(symbol).name.clone(),
            Thing::Text(section, offset) => {
                let text = self.patched.object.section(section).string_at(offset);
                format!("{:?}", text.map(|text| text.to_string()).unwrap_or_default())
            }
            Thing::Stack => String::new(),
        }
    }
}

/// Everything of the livepatch whose address leaves it, in the order of the names.
pub(crate) fn escapes(scope: Scope<'_>, requests: &Requests) -> Vec<Escape> {
    let mut flow = Flow::new(scope);
    flow.run();
    let mut all: Vec<Escape> = Vec::new();
    for (&thing, how) in &flow.escaped {
        let functions: BTreeSet<String> = flow
            .reached_from(thing)
            .into_iter()
            .filter(|reached| matches!(reached, Thing::Function(_)))
            .map(|reached| scope.name(reached))
            .collect();
        let name = scope.name(thing);
        let ends =
            requests.ends.contains(&name) || !functions.is_empty() && functions.is_subset(&requests.ends);
        let elsewhere = matches!(thing, Thing::Elsewhere(_));
        let functions = functions.into_iter().collect();
        all.push(Escape { name, functions, how: how.clone(), ends, elsewhere });
    }
    all.sort();
    all.dedup_by(|a, b| a.name == b.name && a.how == b.how);
    all
}

/// Requests to take something for ended that nothing ends.
pub(crate) fn refuse_endless(requests: &Requests) -> Vec<Refusal> {
    if requests.callbacks.iter().any(|(moment, _)| *moment == Moment::PostUnpatch) {
        return Vec::new();
    }
    let why = |name: &String| {
        let why = "the patch says that it ends, and this source has no post_unpatch callback that ends it";
        Refusal::new(Code::Request, name, why)
    };
    requests.ends.iter().map(why).collect()
}
