//! Whether two atoms are the same, and if not, why.
//!
//! Bytes are compared outside of the places that relocations fill; those are compared by what they point at: a
//! paired thing, a string's text, a constant's content, another unit's symbol. A function's table entries
//! (its WARNs, its faulting instructions, its jump labels, its alternatives) are part of it.

use crate::atoms::{AtomId, AtomKind, Unit};
use crate::author::Requests;
use crate::pair::Pairing;
use crate::references::{Reference, Target};
use crate::special::Treatment;
use kmend_object::{Text, elf};
use serde::Serialize;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::mem::discriminant;

/// How many bytes of a constant a reason shows.
const SHOWN_BYTES: usize = 16;

/// Why a function differs from its original.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Reason {
    /// It is not in the original.
    New,
    /// An instruction differs.
    Code {
        /// Offset of the first differing byte from the function's entry, in bytes.
        offset: u64,
    },
    /// It comes from another unit of the patch.
    Moved {
        /// The source that had it.
        from: String,
    },
    /// It has another size.
    Size {
        /// In the original, in bytes.
        before: u64,
        /// In the patched object, in bytes.
        after: u64,
    },
    /// It refers to something else.
    Target {
        /// What the original refers to.
        before: String,
        /// What the patched function refers to.
        after: String,
    },
    /// A string differs.
    Text {
        /// The original's text.
        before: String,
        /// The patched text.
        after: String,
    },
    /// A constant or a part of its code that lies elsewhere differs.
    Content {
        /// What it is.
        name: String,
        /// The original's bytes from the first that differs, in hexadecimal; empty for code.
        before: String,
        /// The patched one's likewise.
        after: String,
    },
    /// An entry of a table differs.
    Table {
        /// The table's section.
        section: String,
        /// The original's entry in words; `None` if it has none there.
        before: Option<String>,
        /// The patched function's likewise.
        after: Option<String>,
    },
    /// It calls a changed function that ftrace cannot redirect.
    Callee {
        /// The called function.
        name: String,
    },
    /// Its own source is untouched, but a function that the compiler put into it has changed.
    Inlined {
        /// The functions whose source the patch touches.
        callees: Vec<String>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::New => f.write_str("new"),
            Reason::Moved { from } => write!(f, "moved here from {from}"),
            Reason::Code { offset } => write!(f, "code at +{offset:#x}"),
            Reason::Size { before, after } => write!(f, "code, {before} to {after} bytes"),
            Reason::Target { before, after } => write!(f, "relocation target, {before} to {after}"),
            Reason::Text { before, after } => write!(f, "string, {before:?} to {after:?}"),
            Reason::Content { name, .. } => write!(f, "constant {name}"),
            Reason::Table { section, .. } => write!(f, "entry of {section}"),
            Reason::Callee { name } => write!(f, "calls {name}, which ftrace cannot redirect"),
            Reason::Inlined { callees } => write!(f, "inlined callee {}", callees.join(", ")),
        }
    }
}

/// Two units and their pairing.
pub(crate) struct Comparison<'a> {
    pub(crate) original: &'a Unit<'a>,
    pub(crate) patched: &'a Unit<'a>,
    pub(crate) pairing: &'a Pairing,
    pub(crate) requests: &'a Requests,
    /// What was found of each pair, by its atom in the patched unit: several stages ask.
    verdicts: RefCell<HashMap<AtomId, Option<Reason>>>,
}

/// Pairs of contents that are being compared; a cycle holds if everything else does.
type Assumed = HashSet<(AtomId, AtomId)>;

impl<'a> Comparison<'a> {
    pub(crate) fn new(
        original: &'a Unit<'a>,
        patched: &'a Unit<'a>,
        pairing: &'a Pairing,
        requests: &'a Requests,
    ) -> Self {
        Self { original, patched, pairing, requests, verdicts: RefCell::default() }
    }

    /// The first reason why the two are not the same, unless the author takes them for that.
    pub(crate) fn difference(&self, original: AtomId, patched: AtomId) -> Option<Reason> {
        if self.requests.ignores(self.patched, patched) {
            return None;
        }
        let is_pair = self.pairing.original(patched) == Some(original);
        if is_pair && let Some(verdict) = self.verdicts.borrow().get(&patched) {
            return verdict.clone();
        }
        let verdict = self.differ(original, patched, &mut Assumed::new());
        if is_pair {
            self.verdicts.borrow_mut().insert(patched, verdict.clone());
        }
        verdict
    }

    /// Notes on what differs and is ignored at the author's word.
    pub(crate) fn ignored(&self) -> Vec<String> {
        let pairs = self.patched.ids().filter_map(|id| Some((self.pairing.original(id)?, id)));
        let ignored = pairs.filter(|&(_, id)| self.requests.ignores(self.patched, id));
        ignored
            .filter_map(|(original, id)| {
                let reason = self.differ(original, id, &mut Assumed::new())?;
                let name = self.patched.source_name(id);
                Some(format!("{name} changes ({reason}) and stays as it is, because the patch says so"))
            })
            .collect()
    }

    fn differ(&self, a: AtomId, b: AtomId, assumed: &mut Assumed) -> Option<Reason> {
        if !assumed.insert((a, b)) {
            return None;
        }
        self.differ_in_bytes(a, b).or_else(|| self.differ_in_references(a, b, assumed)).or_else(|| {
            let is_code = self.original.section_of(a).is_code();
            if is_code { self.differ_in_entries(a, b, assumed) } else { None }
        })
    }

    fn differ_in_bytes(&self, a: AtomId, b: AtomId) -> Option<Reason> {
        let (before, after) = (self.original.atom(a), self.patched.atom(b));
        if before.size != after.size || before.origin - before.start != after.origin - after.start {
            return Some(Reason::Size { before: before.size, after: after.size });
        }
        let (mut x, mut y) = (self.original.masked_bytes(a), self.patched.masked_bytes(b));
        // What lies in `.bss` is zero. Of the two sizes, which are equal, one is that of real bytes, if any is.
        let length = x.len().max(y.len());
        x.resize(length, 0);
        y.resize(length, 0);
        let prefix = before.origin - before.start;
        x.iter().zip(&y).position(|(one, other)| one != other).map(|at| {
            if self.original.section_of(a).is_code() {
                Reason::Code { offset: (at as u64).saturating_sub(prefix) }
            } else {
                self.content_reason(a, b)
            }
        })
    }

    fn content_reason(&self, a: AtomId, b: AtomId) -> Reason {
        let (x, y) = (self.original.masked_bytes(a), self.patched.masked_bytes(b));
        let same = x.iter().zip(&y).take_while(|(one, other)| one == other).count();
        let shown = if self.patched.section_of(b).is_code() { 0 } else { SHOWN_BYTES };
        let words =
            |bytes: &[u8]| hex::encode(bytes.iter().skip(same).take(shown).copied().collect::<Vec<_>>());
        Reason::Content { name: self.patched.name(b), before: words(&x), after: words(&y) }
    }

    fn differ_in_references(&self, a: AtomId, b: AtomId, assumed: &mut Assumed) -> Option<Reason> {
        let (before, after) = (&self.original.atom(a).references, &self.patched.atom(b).references);
        for (x, y) in before.iter().zip(after) {
            if x.offset != y.offset || !elf::means_the_same(x.kind, y.kind) {
                return Some(self.target_reason(x, y));
            }
            if let Some(reason) = self.differ_in_target(x, y, assumed) {
                return Some(reason);
            }
        }
        match (before.get(after.len()), after.get(before.len())) {
            (None, None) => None,
            (Some(x), _) => {
                Some(Reason::Target { before: self.original.describe(&x.target), after: "nothing".into() })
            }
            (_, Some(y)) => {
                Some(Reason::Target { before: "nothing".into(), after: self.patched.describe(&y.target) })
            }
        }
    }

    fn target_reason(&self, x: &Reference, y: &Reference) -> Reason {
        Reason::Target { before: self.original.describe(&x.target), after: self.patched.describe(&y.target) }
    }

    fn differ_in_target(&self, x: &Reference, y: &Reference, assumed: &mut Assumed) -> Option<Reason> {
        match (&x.target, &y.target) {
            (Target::Text { section: s, offset: o }, Target::Text { section: t, offset: p }) => {
                let before = self.original.object.section(*s).string_at(*o);
                let after = self.patched.object.section(*t).string_at(*p);
                let text = |text: Option<Text<'_>>| text.map(|text| text.to_string()).unwrap_or_default();
                (before.is_none() || before != after)
                    .then(|| Reason::Text { before: text(before), after: text(after) })
            }
            (Target::External { symbol: s, offset: o }, Target::External { symbol: t, offset: p }) => {
                let (before, after) = (self.original.object.symbol(*s), self.patched.object.symbol(*t));
                (before.name != after.name || o != p).then(|| self.target_reason(x, y))
            }
            (Target::Other { symbol: s, offset: o }, Target::Other { symbol: t, offset: p }) => {
                let (before, after) = (self.original.object.symbol(*s), self.patched.object.symbol(*t));
                let same =
                    before.name == after.name && discriminant(&before.place) == discriminant(&after.place);
                (!same || before.value != after.value || o != p).then(|| self.target_reason(x, y))
            }
            (Target::Atom { id: s, offset: o }, Target::Atom { id: t, offset: p }) => {
                if o != p {
                    return Some(self.target_reason(x, y));
                }
                self.differ_in_atom(*s, *t, assumed).then(|| match self.patched.atom(*t).kind {
                    AtomKind::Content => self.content_reason(*s, *t),
                    _ => self.target_reason(x, y),
                })
            }
            (Target::Atom { id, offset: o }, Target::External { symbol, offset: p }) => {
                let name = &self.patched.object.symbol(*symbol).name;
                let is_it = || self.original.names(*id).any(|other| other == name);
                let is_same = o == p && self.pairing.has_left(*id) && is_it();
                (!is_same).then(|| self.target_reason(x, y))
            }
            (Target::External { symbol, offset: o }, Target::Atom { id, offset: p }) => {
                let name = &self.original.object.symbol(*symbol).name;
                let is_same = o == p && self.pairing.home(*id).is_some_and(|home| home.name == *name);
                (!is_same).then(|| self.target_reason(x, y))
            }
            _ => Some(self.target_reason(x, y)),
        }
    }

    /// Whether two references lead to the same thing.
    pub(crate) fn leads_to_the_same(&self, x: &Reference, y: &Reference) -> bool {
        self.differ_in_target(x, y, &mut Assumed::new()).is_none()
    }

    /// Whether two atoms that are referred to are not the same thing.
    fn differ_in_atom(&self, s: AtomId, t: AtomId, assumed: &mut Assumed) -> bool {
        let (kind, other) = (self.original.atom(s).kind, self.patched.atom(t).kind);
        if kind == AtomKind::Content && other == AtomKind::Content {
            let same_flags = self.original.section_of(s).flags == self.patched.section_of(t).flags;
            return !same_flags || self.differ(s, t, assumed).is_some();
        }
        self.pairing.patched(s) != Some(t)
    }

    /// The entries of the tables that are part of the code, table by table.
    fn differ_in_entries(&self, a: AtomId, b: AtomId, assumed: &mut Assumed) -> Option<Reason> {
        let (before, after) = (compared_entries(self.original, a), compared_entries(self.patched, b));
        for (&x, &y) in before.iter().zip(&after) {
            let same_table = self.original.section_of(x).name == self.patched.section_of(y).name;
            if !same_table || self.differ(x, y, assumed).is_some() {
                return Some(self.table_reason(Some(x), Some(y)));
            }
        }
        let (more, less) = (before.get(after.len()), after.get(before.len()));
        (more.is_some() || less.is_some()).then(|| self.table_reason(more.copied(), less.copied()))
    }

    fn table_reason(&self, before: Option<AtomId>, after: Option<AtomId>) -> Reason {
        let name = |unit: &Unit<'_>, id: AtomId| unit.section_of(id).name.clone();
        let patched = after.map(|id| name(self.patched, id));
        Reason::Table {
            section: patched.or_else(|| before.map(|id| name(self.original, id))).unwrap_or_default(),
            before: before.map(|id| self.original.entry_in_words(id)),
            after: after.map(|id| self.patched.entry_in_words(id)),
        }
    }
}

fn compared_entries(unit: &Unit<'_>, id: AtomId) -> Vec<AtomId> {
    let is_compared = |&&entry: &&AtomId| {
        let treatment = unit.treatment_of(entry);
        matches!(treatment, Treatment::Entries { compared: true, .. } | Treatment::RuntimePointer)
    };
    let mut entries: Vec<AtomId> = unit.atom(id).entries.iter().filter(is_compared).copied().collect();
    entries.sort_by(|&x, &y| {
        let key = |entry| (&unit.section_of(entry).name, unit.atom(entry).start);
        key(x).cmp(&key(y))
    });
    entries
}

impl Unit<'_> {
    /// The atom's bytes with zeroes where relocations (or branches that leave it) fill them.
    pub(crate) fn masked_bytes(&self, id: AtomId) -> Vec<u8> {
        let mut bytes = self.bytes(id).to_vec();
        for reference in &self.atom(id).references {
            let start = reference.offset as usize;
            let end = start.saturating_add(elf::width(reference.kind).unwrap_or(0) as usize);
            if let Some(hole) = bytes.get_mut(start..end) {
                hole.fill(0);
            }
        }
        bytes
    }

    /// A table's entry in words: what it refers to, and its other bytes.
    fn entry_in_words(&self, id: AtomId) -> String {
        let atom = self.atom(id);
        let mut words: Vec<String> =
            atom.references.iter().map(|reference| self.describe(&reference.target)).collect();
        let holes = |at: u64| {
            let covers = |reference: &Reference| {
                let end = reference.offset.saturating_add(elf::width(reference.kind).unwrap_or(0));
                (reference.offset..end).contains(&at)
            };
            atom.references.iter().any(covers)
        };
        let rest = self.bytes(id).iter().zip(0..).filter(|&(_, at)| !holes(at));
        let rest = hex::encode(rest.map(|(&byte, _)| byte).collect::<Vec<_>>());
        if !rest.is_empty() {
            words.push(rest);
        }
        words.join(", ")
    }

    /// A target in words.
    pub(crate) fn describe(&self, target: &Target) -> String {
        let with_offset = |name: &str, offset: i64| match offset {
            0 => name.to_owned(),
            offset if offset > 0 => format!("{name}+{offset:#x}"),
            offset => format!("{name}-{:#x}", offset.unsigned_abs()),
        };
        match target {
            Target::Atom { id, offset } => with_offset(&self.name(*id), *offset),
            Target::Text { section, offset } => {
                let section = self.object.section(*section);
                match section.string_at(*offset) {
                    Some(text) => format!("{:?}", text.to_string()),
                    None => with_offset(&section.name, *offset as i64),
                }
            }
            Target::External { symbol, offset } | Target::Other { symbol, offset } => {
                with_offset(&self.object.symbol(*symbol).name, *offset)
            }
        }
    }
}
