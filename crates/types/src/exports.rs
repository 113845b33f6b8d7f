//! What a changed CRC of an exported symbol means: which of the types behind it the comparison of types bears.

use crate::compare::{Changes, TypeKind};
use crate::judge::{Surroundings, Verdict, listed};
use crate::record::Placement;
use kmend_refusal::{Advice, Code, Refusal, Sign};
use std::collections::{BTreeMap, BTreeSet};

/// What genksyms says behind a structure that was declared only: an added `#include` is enough for it.
const BECAME_DEFINED: &str = " (became defined)";

/// An exported symbol whose CRC changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExportChange {
    /// The symbol.
    pub name: String,
    /// The CRCs before and after; `None` where genksyms finds no declaration.
    pub crcs: (Option<u32>, Option<u32>),
    /// What changes, in genksyms' words: `struct foo`, `typedef foo_t`, the symbol's own name. Empty if it does not say it.
    pub causes: BTreeSet<String>,
}

impl ExportChange {
    fn line(&self) -> String {
        let shown = |crc: Option<u32>| crc.map_or("none".to_owned(), |crc| format!("{crc:#010x}"));
        format!("{}: CRC {}, then {}", self.name, shown(self.crcs.0), shown(self.crcs.1))
    }
}

impl Verdict {
    /// Judges the changed CRCs, those with the same cause together.
    pub(crate) fn exports(
        &mut self,
        changes: &Changes,
        accepted: &BTreeSet<String>,
        surroundings: &dyn Surroundings,
    ) {
        let (mut unfit, mut fit) = (Causes::new(), Causes::new());
        for change in &changes.exports {
            let is_own = |cause: &String| *cause == change.name && !surroundings.is_replaced(cause);
            let unborne =
                change.causes.iter().find(|cause| !is_own(cause) && !changes.bears(cause, accepted));
            match (unborne, change.causes.first()) {
                (None, Some(cause)) => fit.entry(cause).or_default().push(change),
                (cause, _) => unfit.entry(cause.unwrap_or(&change.name)).or_default().push(change),
            }
        }
        for (cause, symbols) in unfit {
            self.refuse_exports(cause, &symbols);
        }
        for (cause, symbols) in fit {
            let subject = cause.strip_suffix(BECAME_DEFINED).unwrap_or(cause);
            let lines = listed(symbols.iter().map(|change| change.line())).join("; ");
            let text = format!(
                "exported symbols get another CRC by it, so that the running kernel does not load modules that are built \
                 from the patched source: {lines}"
            );
            let subject = subject.to_owned();
            self.advice.push(Advice { sign: Sign::Interface, subject, text });
        }
    }

    fn refuse_exports(&mut self, cause: &str, symbols: &[&ExportChange]) {
        let details = listed(symbols.iter().map(|change| change.line()));
        let known =
            |refusal: &&mut Refusal| refusal.code == Code::ChangedExportType && refusal.subject == cause;
        if let Some(refusal) = self.refusals.iter_mut().find(known) {
            return refusal.details.extend(details);
        }
        let why = match symbols {
            [change] if change.name == cause => {
                "it is exported, and modules know it as it was declared when they were built".to_owned()
            }
            _ => "exported symbols lead to it, and modules know it as it was when they were built".to_owned(),
        };
        self.refusals.push(Refusal::new(Code::ChangedExportType, cause, why).with_details(details));
    }
}

type Causes<'a> = BTreeMap<&'a String, Vec<&'a ExportChange>>;

impl Changes {
    /// Whether code that knows the old form of a type can live with the new one: it only became known, the author vouches for
    /// it, or its change was found to fit what exists. A change that the debug information does not show is one of names, and
    /// those may stand for another meaning.
    fn bears(&self, cause: &str, accepted: &BTreeSet<String>) -> bool {
        let name = cause.strip_prefix("typedef ").unwrap_or(cause);
        if cause.ends_with(BECAME_DEFINED) || accepted.contains(name) {
            return true;
        }
        let mut found = self.types.iter().filter(|change| change.name == name).peekable();
        if found.peek().is_none() {
            // New names behind the others are not among the changes.
            return name.starts_with("enum ") && !name.starts_with("enum constant ");
        }
        found.all(|change| match &change.kind {
            TypeKind::Record(layout) => layout.placement == Placement::InPlace,
            TypeKind::Enumeration(values) => values.iter().all(|value| value.is_end),
        })
    }
}
