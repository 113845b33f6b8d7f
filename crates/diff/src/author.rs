//! What the patch's author asks for, in sections that the macros of `kmend.h` fill (crates/compile/headers).
//!
//! `.kmend.callbacks.KIND` holds pointers to functions; the other sections hold texts, each with a NUL behind it.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::pair::Pairing;
use crate::references::{self, Target};
use kmend_object::{Object, SymbolId, elf};
use kmend_refusal::{Code, Refusal};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// When a callback runs (Documentation/livepatch/callbacks.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Before the object is patched; it may decline.
    PrePatch,
    /// When every task runs the new code.
    PostPatch,
    /// Before the object is unpatched.
    PreUnpatch,
    /// When every task runs the old code.
    PostUnpatch,
}

impl Moment {
    /// All, in the order of `struct klp_callbacks`.
    pub const ALL: [Moment; 4] =
        [Moment::PrePatch, Moment::PostPatch, Moment::PreUnpatch, Moment::PostUnpatch];

    /// The name of the field in `struct klp_callbacks` (include/linux/livepatch.h).
    pub fn name(self) -> &'static str {
        match self {
            Moment::PrePatch => "pre_patch",
            Moment::PostPatch => "post_patch",
            Moment::PreUnpatch => "pre_unpatch",
            Moment::PostUnpatch => "post_unpatch",
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A callback of the unit's object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Callback {
    /// When it runs.
    pub moment: Moment,
    /// The function, a new one.
    pub function: String,
    /// Its symbol in the extract.
    #[serde(skip)]
    pub symbol: SymbolId,
}

/// The author's requests in one unit.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) callbacks: Vec<(Moment, AtomId)>,
    pub(crate) refusals: Vec<Refusal>,
    /// What the author's callbacks end before the livepatch is gone.
    pub(crate) ends: BTreeSet<String>,
    functions: BTreeSet<String>,
    sections: BTreeSet<String>,
    updates: BTreeSet<String>,
    anew: BTreeSet<String>,
}

impl Requests {
    /// Reads the requests out of the patched unit.
    pub(crate) fn of(unit: &Unit<'_>, pairing: &Pairing) -> Self {
        let mut requests = Requests {
            functions: texts(unit, ".kmend.ignore.functions"),
            sections: texts(unit, ".kmend.ignore.sections"),
            updates: texts(unit, ".kmend.update"),
            ends: texts(unit, ".kmend.ends"),
            anew: texts(unit, ".kmend.anew"),
            ..Requests::default()
        };
        requests.read_kpatch(unit);
        for moment in Moment::ALL {
            requests.read_callbacks(unit, pairing, moment);
        }
        for (old, new) in renamed(unit.object) {
            let is_met = |id: &AtomId| unit.base_name(*id) == new && pairing.was_renamed(*id);
            if !unit.ids().any(|id| is_met(&id)) {
                let why = format!(
                    "it cannot be {old} under another name: each must be one variable, {old} before and {new} after"
                );
                requests.refusals.push(Refusal::new(Code::Request, new, why));
            }
        }
        requests
    }

    /// What an author said by kpatch's own macros (its kmod/patch/kpatch-macros.h): pointers to functions, to names of
    /// sections, and, each beside the name of an object, to callbacks.
    fn read_kpatch(&mut self, unit: &Unit<'_>) {
        let targets = |name: &str| {
            let references = references::of_section_named(unit, name).into_iter();
            references.map(|reference| references::target(unit, &reference)).collect::<Vec<_>>()
        };
        for target in targets(".kpatch.ignore.functions") {
            if let Target::Atom { id, offset: 0 } = target {
                self.functions.extend(unit.source_names(id));
            }
        }
        for target in targets(".kpatch.ignore.sections") {
            if let Target::Text { section, offset } = target {
                let text = unit.object.section(section).string_at(offset);
                self.sections.extend(text.map(|text| text.to_string()));
            }
        }
        for moment in Moment::ALL {
            for target in targets(&format!(".kpatch.callbacks.{moment}")) {
                match target {
                    Target::Atom { id, offset: 0 } if unit.atom(id).kind == AtomKind::Function => {
                        self.callbacks.push((moment, id));
                    }
                    _ => {}
                }
            }
        }
    }

    fn read_callbacks(&mut self, unit: &Unit<'_>, pairing: &Pairing, moment: Moment) {
        let name = format!(".kmend.callbacks.{moment}");
        for reference in references::of_section_named(unit, &name) {
            let target = references::target(unit, &reference);
            let function = match target {
                Target::Atom { id, offset: 0 }
                    if reference.kind == elf::R_X86_64_64 && unit.atom(id).kind == AtomKind::Function =>
                {
                    Some(id)
                }
                _ => None,
            };
            match function {
                Some(id) if !pairing.is_living(id) => self.callbacks.push((moment, id)),
                Some(_) => self.refuse(moment, &unit.describe(&target), "is no new function"),
                None => self.refuse(moment, &unit.describe(&target), "is no function of this source"),
            }
        }
    }

    fn refuse(&mut self, moment: Moment, callback: &str, what: &str) {
        let why = format!("the {moment} callback {callback} {what}");
        self.refusals.push(Refusal::new(Code::Request, callback, why));
    }

    /// Whether the author takes an atom for unchanged.
    pub(crate) fn ignores(&self, unit: &Unit<'_>, id: AtomId) -> bool {
        let is_function = !self.functions.is_empty() && unit.atom(id).kind == AtomKind::Function;
        is_function && unit.source_names(id).iter().any(|name| self.functions.contains(name))
            || self.sections.contains(&unit.section_of(id).name)
    }

    /// Whether the author takes all of a section for unchanged.
    pub(crate) fn ignores_section(&self, name: &str) -> bool {
        self.sections.contains(name)
    }

    /// Whether the author wants the living value of a variable exchanged, whatever it is.
    pub(crate) fn updates(&self, unit: &Unit<'_>, id: AtomId) -> bool {
        self.updates.contains(&unit.base_name(id))
    }

    /// Whether the author knows that it begins anew.
    pub(crate) fn begins_anew(&self, unit: &Unit<'_>, id: AtomId) -> bool {
        self.anew.contains(&unit.base_name(id))
    }

    /// Texts of requests that name nothing in either unit, for a note.
    pub(crate) fn idle<'a>(&'a self, units: [&'a Unit<'a>; 2]) -> impl Iterator<Item = String> + 'a {
        let function = move |name: &&String| {
            let is_it = |unit: &Unit<'_>, id| {
                unit.atom(id).kind == AtomKind::Function && unit.source_names(id).contains(name)
            };
            !units.iter().any(|unit| unit.ids().any(|id| is_it(unit, id)))
        };
        let section =
            move |name: &&String| !units.iter().any(|unit| unit.object.section_named(name).is_some());
        let functions = self.functions.iter().filter(function);
        let sections = self.sections.iter().filter(section);
        functions
            .map(|name| {
                format!("the patch asks to ignore the function {name}, which is inlined or not there")
            })
            .chain(sections.map(|name| {
                format!("the patch asks to ignore the section {name}, which the object does not have")
            }))
    }
}

/// The variables that the author renames: the old name, the new name.
pub(crate) fn renamed(object: &Object) -> Vec<(String, String)> {
    let pair = |text: String| text.split_once(' ').map(|(old, new)| (old.to_owned(), new.to_owned()));
    texts_of(object, ".kmend.renamed").into_iter().filter_map(pair).collect()
}

fn texts(unit: &Unit<'_>, name: &str) -> BTreeSet<String> {
    texts_of(unit.object, name)
}

/// The texts in a section.
pub(crate) fn texts_of(object: &Object, name: &str) -> BTreeSet<String> {
    let data = object.section_named(name).map_or(&[][..], |id| object.section(id).data.as_slice());
    let texts = data.split(|&byte| byte == 0).filter(|text| !text.is_empty());
    texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}
