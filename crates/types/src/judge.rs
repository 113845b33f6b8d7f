//! From changed types to what a livepatch can and cannot do.

use crate::compare::{Changes, SignatureChange, TypeChange, TypeKind, VariableChange};
use crate::enumeration::ValueChange;
use crate::record::{Layout, Placement};
use crate::same::Relation;
use kmend_refusal::{Advice, Code, Refusal, Sign};
use std::collections::BTreeSet;

/// How many fields and functions a refusal names.
const SHOWN: usize = 24;

/// What must be known of the kernel to judge a changed signature.
pub trait Surroundings {
    /// Whether the livepatch replaces the function. One whose code stays as it is serves old and new callers alike.
    fn is_replaced(&self, function: &str) -> bool;
    /// Whether modules can take the function from the kernel.
    fn is_exported(&self, function: &str) -> bool;
    /// Code that is not replaced and refers to the function: what it is in words, such as a function's name. Empty only
    /// where it is certain that there is none.
    fn callers_outside(&self, function: &str) -> Vec<String>;
}

/// What changed types come to.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// What a livepatch cannot do safely.
    pub refusals: Vec<Refusal>,
    /// What is allowed and wants a look.
    pub advice: Vec<Advice>,
}

impl Changes {
    /// Judges all changes. `accepted` are the types that the author vouches for.
    pub fn judge(&self, accepted: &BTreeSet<String>, surroundings: &dyn Surroundings) -> Verdict {
        let mut verdict = Verdict::default();
        for change in &self.types {
            match &change.kind {
                TypeKind::Record(layout) => verdict.record(change, layout, accepted),
                TypeKind::Enumeration(values) => verdict.enumeration(change, values, accepted),
            }
        }
        self.variables.iter().for_each(|change| verdict.variable(change));
        self.signatures.iter().for_each(|change| verdict.signature(change, surroundings));
        verdict.exports(self, accepted, surroundings);
        verdict
    }

    /// The refusals of structures, which need nothing of the kernel to be judged.
    pub fn refused_layouts(&self, accepted: &BTreeSet<String>) -> Vec<Refusal> {
        let mut verdict = Verdict::default();
        for change in &self.types {
            if let TypeKind::Record(layout) = &change.kind {
                verdict.record(change, layout, accepted);
            }
        }
        verdict.refusals
    }
}

impl Verdict {
    fn advise(&mut self, subject: &str, text: impl Into<String>) {
        self.advice.push(Advice { sign: Sign::Data, subject: subject.to_owned(), text: text.into() });
    }

    fn record(&mut self, change: &TypeChange, layout: &Layout, accepted: &BTreeSet<String>) {
        let (before, after) = layout.sizes;
        let (code, why) = match layout.placement {
            Placement::InPlace => return self.in_place(change, layout),
            Placement::Grown => (
                Code::GrownStructure,
                format!("it grows from {before} to {after} bytes, and what was allocated before is smaller"),
            ),
            Placement::Shifted => (
                Code::ChangedStructure,
                "its instances in the running kernel have the old layout, and new code would misread them"
                    .to_owned(),
            ),
        };
        let mut details = listed(layout.fields.iter().map(ToString::to_string));
        if before != after {
            details.push(format!("size: {before} bytes, then {after}"));
        }
        self.refuse_type(code, change, why, details, accepted);
    }

    fn in_place(&mut self, change: &TypeChange, layout: &Layout) {
        let names = |what: &dyn Fn(&crate::FieldChange) -> bool| -> Vec<&str> {
            layout.fields.iter().filter(|field| what(field)).map(|field| field.name.as_str()).collect()
        };
        let added = names(&|field| field.before.is_none());
        if !added.is_empty() {
            let text = format!(
                "{} {} where nothing was before: in instances made before the patch it holds whatever was there, not zero",
                added.join(", "),
                if added.len() == 1 { "lies" } else { "lie" },
            );
            self.advise(&change.name, text);
        }
        let removed = names(&|field| field.after.is_none());
        if !removed.is_empty() {
            let text = format!(
                "{} {} removed: code that is not replaced, and tasks that still run the old code, find in new instances \
                 what nobody set",
                removed.join(", "),
                if removed.len() == 1 { "is" } else { "are" },
            );
            self.advise(&change.name, text);
        }
        let changed: Vec<_> = layout.fields.iter().filter(|field| field.relation != Relation::Same).collect();
        for field in changed {
            self.advise(&change.name, format!("what is stored is read in another way: {field}"));
        }
    }

    fn enumeration(&mut self, change: &TypeChange, values: &[ValueChange], accepted: &BTreeSet<String>) {
        if values.iter().all(|value| value.is_end) {
            let names: Vec<&str> = values.iter().map(|value| value.name.as_str()).collect();
            let text = format!(
                "{} moved: what is sized by it in the running kernel has the old size",
                names.join(", ")
            );
            return self.advise(&change.name, text);
        }
        let why = "the running kernel has stored the old numbers".to_owned();
        let details = listed(
            values.iter().map(|value| format!("{}: {}, then {}", value.name, value.before, value.after)),
        );
        self.refuse_type(Code::ChangedEnumeration, change, why, details, accepted);
    }

    fn refuse_type(
        &mut self,
        code: Code,
        change: &TypeChange,
        why: String,
        mut details: Vec<String>,
        accepted: &BTreeSet<String>,
    ) {
        if accepted.contains(&change.name) {
            return self.advise(&change.name, format!("the author vouches for it: {}", code.title()));
        }
        if !change.functions.is_empty() {
            let functions = listed(change.functions.iter().cloned()).join(", ");
            details.push(format!("in parameters and local variables of: {functions}"));
        }
        self.refusals.push(Refusal::new(code, &change.name, why).with_details(details));
    }

    fn variable(&mut self, change: &VariableChange) {
        let (before, after) = &change.shown;
        let mut types = format!("{before}, then {after}");
        if change.sizes.0 != change.sizes.1 {
            types = format!("{types} ({} bytes, then {})", change.sizes.0, change.sizes.1);
        }
        if change.relation < Relation::Different {
            return self.advise(&change.name, format!("what it holds is read in another way: {types}"));
        }
        let code = if change.is_external { Code::ChangedGlobal } else { Code::ChangedStatic };
        let mut why = format!("it is {types}, and the running kernel has the old one");
        if let Some(function) = &change.function {
            why = format!("in {function}(), {why}");
        }
        self.refusals.push(Refusal::new(code, &change.name, why));
    }

    fn signature(&mut self, change: &SignatureChange, surroundings: &dyn Surroundings) {
        if !change.is_external || !surroundings.is_replaced(&change.name) {
            return;
        }
        let details = vec![format!("before: {}", change.shown.0), format!("after: {}", change.shown.1)];
        if surroundings.is_exported(&change.name) {
            let why = "it is exported, and modules call it as it was declared when they were built";
            let refusal = Refusal::new(Code::ChangedExportType, &change.name, why);
            self.refusals.push(refusal.with_details(details));
            return;
        }
        let callers = surroundings.callers_outside(&change.name);
        if !callers.is_empty() {
            let why = format!("code that is not replaced calls it as it was: {}", listed(callers).join(", "));
            let refusal = Refusal::new(Code::ChangedSignature, &change.name, why);
            self.refusals.push(refusal.with_details(details));
        }
    }
}

/// The first of many, and how many more there are.
pub(crate) fn listed(all: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut all = all.into_iter();
    let mut shown: Vec<String> = all.by_ref().take(SHOWN).collect();
    match all.count() {
        0 => {}
        more => shown.push(format!("and {more} more")),
    }
    shown
}
