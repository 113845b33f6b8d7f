//! Code that no livepatch can change any more, and the data that only such code uses.
//!
//! `__init` code runs when the kernel starts or its module is loaded, and then its memory is freed. `__exit` code of what
//! is built in never runs, and is freed as well (arch/x86/kernel/vmlinux.lds.S has EXIT_TEXT between `__init_begin` and
//! `__init_end`). If the patch's author changed `__init` code, that is refused: it would not happen. If it changes because
//! of a header or of what the compiler put into it, it is passed over, and the patch is as good without it.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::compare::Comparison;
use crate::special::{self, Treatment};
use kmend_refusal::{Code, Refusal};
use std::collections::{BTreeSet, HashSet};

/// How far uses of data by data are followed.
const DEPTH: usize = 4;

/// What changes, and is left as it is.
#[derive(Default)]
pub(crate) struct PassedOver {
    /// What would be said if nothing else changed: of these functions, and of exports.
    pub(crate) refusals: Vec<Refusal>,
    original: HashSet<AtomId>,
    patched: HashSet<AtomId>,
}

impl PassedOver {
    /// Finds the functions. `touched` are those that the author changed, if that is known; else all may be.
    pub(crate) fn of(comparison: &Comparison<'_>, touched: Option<&BTreeSet<String>>) -> Self {
        let Comparison { original, patched, pairing, requests, .. } = comparison;
        let mut passed = PassedOver::default();
        for id in patched.ids().filter(|&id| patched.atom(id).kind == AtomKind::Function) {
            let Some(partner) = pairing.original(id).filter(|&partner| original.is_gone(partner)) else {
                continue;
            };
            let is_own = touched
                .is_none_or(|touched| patched.source_names(id).iter().any(|name| touched.contains(name)));
            let never_runs = patched.is_gone(id) && !special::is_start_code(&patched.section_of(id).name);
            let is_ignored = requests.ignores(patched, id);
            if !patched.is_gone(id) || (is_own && !never_runs && !is_ignored) {
                continue;
            }
            if let Some(reason) = comparison.difference(partner, id) {
                passed.refusals.push(refusal(patched, id, &reason.to_string()));
            } else if !is_ignored {
                continue;
            }
            passed.original.insert(partner);
            passed.patched.insert(id);
        }
        passed
    }

    /// Whether it is one of these functions, in the patched unit.
    pub(crate) fn has(&self, patched: AtomId) -> bool {
        self.patched.contains(&patched)
    }

    /// Whether only these functions use it, and it is gone with them: in the original unit.
    pub(crate) fn alone_use_original(&self, unit: &Unit<'_>, id: AtomId) -> bool {
        alone_use(unit, &self.original, id, DEPTH)
    }

    /// The same in the patched unit.
    pub(crate) fn alone_use_patched(&self, unit: &Unit<'_>, id: AtomId) -> bool {
        alone_use(unit, &self.patched, id, DEPTH)
    }
}

/// New variables that code sets which has run, and which is left as it is: nobody sets them. `kept` is what goes into the livepatch.
pub(crate) fn never_set(
    comparison: &Comparison<'_>,
    passed: &PassedOver,
    kept: &BTreeSet<AtomId>,
) -> Vec<Refusal> {
    let Comparison { patched, pairing, requests, .. } = comparison;
    let is_new = |id: &AtomId| {
        patched.atom(*id).kind == AtomKind::Variable
            && patched.section_of(*id).is_writable()
            && patched.treatment_of(*id) == Treatment::Plain
            && !pairing.is_living(*id)
            && !requests.begins_anew(patched, *id)
    };
    let sets = |user: AtomId, id: AtomId| {
        !requests.ignores(patched, user)
            && patched.atom(user).references.iter().any(|reference| reference.leads_to(id))
    };
    let refuse = |id: AtomId| {
        let user = passed.patched.iter().copied().filter(|&user| sets(user, id)).min()?;
        let why = format!(
            "{} uses {}, which is new: it has run and is gone, so that the variable stays as it begins",
            patched.source_name(user),
            patched.source_name(id)
        );
        Some(Refusal::new(Code::ChangedInit, patched.source_name(user), why))
    };
    kept.iter().copied().filter(is_new).filter_map(refuse).collect()
}

/// Why a changed function that is gone cannot be patched.
pub(crate) fn refusal(unit: &Unit<'_>, id: AtomId, reason: &str) -> Refusal {
    let section = &unit.section_of(id).name;
    let why = match (special::is_start_code(section), unit.built_in) {
        (false, _) => "it is __exit code of what is built in, and never runs",
        (true, true) => "it is __init code, which has run and is gone",
        (true, false) => "it is __init code of a module: it runs as it was when the module is loaded",
    };
    Refusal::new(Code::ChangedInit, unit.source_name(id), format!("{why} ({reason})"))
}

fn alone_use(unit: &Unit<'_>, functions: &HashSet<AtomId>, id: AtomId, depth: usize) -> bool {
    if functions.is_empty() || depth == 0 || !unit.is_gone_data(id) {
        return false;
    }
    let uses = |source: &AtomId| {
        *source != id && unit.atom(*source).references.iter().any(|reference| reference.leads_to(id))
    };
    let mut users = unit.ids().filter(uses).peekable();
    users.peek().is_some()
        && users.all(|user| functions.contains(&user) || alone_use(unit, functions, user, depth - 1))
}

/// Why code or data that is kept cannot refer to what is freed.
pub(crate) fn reference_refusal(unit: &Unit<'_>, id: AtomId, user: &str) -> Refusal {
    let section = &unit.section_of(id).name;
    let when = if section.starts_with(".exit") { "is never there" } else { "is freed after the start" };
    let why = format!("{user} refers to it, and it lies in {section}, which {when}");
    Refusal::new(Code::ChangedInit, unit.source_name(id), why)
}

impl Unit<'_> {
    /// Whether what lies there is gone once the kernel or the module has started.
    pub(crate) fn is_freed(&self, id: AtomId) -> bool {
        let section = &self.section_of(id).name;
        section.starts_with(".init.") || (self.built_in && section.starts_with(".exit."))
    }

    /// Whether it is code that is freed after the start, or never runs.
    pub(crate) fn is_gone(&self, id: AtomId) -> bool {
        let section = &self.section_of(id).name;
        special::is_start_code(section) || (self.built_in && section.starts_with(special::EXIT_CODE))
    }

    /// Whether it is data that is freed with such code.
    fn is_gone_data(&self, id: AtomId) -> bool {
        let section = &self.section_of(id).name;
        [".init.data", ".init.rodata"].iter().any(|data| section.starts_with(data))
            || (self.built_in && section.starts_with(".exit.data"))
    }
}
