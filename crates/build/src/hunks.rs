//! What each hunk of the patches comes to.
//!
//! A hunk ends as changed functions, exchanged data, or a reason why nothing of this kernel changes by it. Which lines it changes
//! is known from the texts (`kmend_compile::Hunk`); which functions have code of these lines, also inlined, the line tables of both
//! objects tell. What is compared here is not what the differ compares: where the code of a function differs that a hunk is in,
//! and nothing names it, the hunk is refused.

mod rest;
mod view;

use crate::error::BuildError;
use crate::report::{Effect, HunkReport};
use crate::units::Compared;
use kmend_compile::{Change, Fate, Hunk, Outcome, Prepared, Target};
use kmend_refusal::{Code, Refusal};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use view::View;

/// The hunks with their effects, and those that must be refused.
pub(crate) struct Explained {
    pub(crate) hunks: Vec<HunkReport>,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) inlined: Inlined,
}

/// The functions that the patches touch and whose code a function of the livepatch has, by its unit's source and its name.
#[derive(Debug, Default)]
pub(crate) struct Inlined(BTreeMap<(String, String), BTreeSet<String>>);

impl Inlined {
    pub(crate) fn of(&self, source: &str, function: &str) -> impl Iterator<Item = &String> {
        self.0.get(&(source.to_owned(), function.to_owned())).into_iter().flatten()
    }
}

/// How many units are preprocessed to see whether a line of a header is compiled.
const ASKED: usize = 3;

/// The lines that are left of a file in a unit when it is preprocessed, by the unit's object and the file.
type Present = BTreeMap<(String, String), Option<BTreeSet<u32>>>;

/// What is asked of all units.
struct Explainer<'a> {
    outcome: &'a Outcome,
    target: &'a Target,
    prepared: &'a Prepared,
    views: Vec<View<'a>>,
    /// The lines that a unit compiles of a file.
    present: RefCell<Present>,
    inlined: RefCell<Inlined>,
}

/// What is known of a hunk.
struct Judged {
    report: HunkReport,
    /// How that is known.
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Beyond doubt: by lines or names of functions and data, or by what is compiled.
    Certain,
    /// By what changed functions use.
    Use,
    /// Nothing was found that changes by it.
    Open,
}

/// Explains every hunk.
pub(crate) fn explain(
    outcome: &Outcome,
    results: &[Compared],
    target: &Target,
    prepared: &Prepared,
) -> Result<Explained, BuildError> {
    let views = outcome.units.par_iter().zip(results).map(|(unit, result)| View::new(unit, result));
    let views = views.collect::<Result<Vec<_>, BuildError>>()?;
    let explainer = Explainer {
        outcome,
        target,
        prepared,
        views,
        present: RefCell::default(),
        inlined: RefCell::default(),
    };
    let (mut hunks, mut refusals) = (Vec::new(), Vec::new());
    for hunk in &outcome.hunks {
        let (judged, refusal) = explainer.hunk(hunk)?;
        hunks.push(judged);
        refusals.extend(refusal);
    }
    explainer.rest(&mut hunks);
    let hunks = hunks.into_iter().map(|judged| judged.report).collect();
    Ok(Explained { hunks, refusals, inlined: explainer.inlined.into_inner() })
}

impl Explainer<'_> {
    fn hunk(&self, hunk: &Hunk) -> Result<(Judged, Option<Refusal>), BuildError> {
        let judged = |report, how| (Judged { report, how }, None);
        let mut report = HunkReport {
            patch: hunk.patch.clone(),
            line: hunk.patch_line,
            file: hunk.file.clone(),
            hunk: hunk.number,
            header: hunk.header.clone(),
            effect: Effect::None,
            functions: Vec::new(),
            variables: Vec::new(),
            why: None,
        };
        let change = match &hunk.fate {
            Fate::Unseen(why) => {
                report.why = Some(why.clone());
                return Ok(judged(report, How::Certain));
            }
            Fate::Changes(change) => change,
        };
        if change.is_space {
            report.why = Some("only comments and white space change".to_owned());
            return Ok(judged(report, How::Open));
        }
        let has_lines = self.find(hunk, change, &mut report);
        let is_found = !report.functions.is_empty() || !report.variables.is_empty();
        let views = self.views_of(hunk);
        if !has_lines && self.is_left_out(hunk, change, &views)? {
            report.functions.clear();
            report.variables.clear();
            report.why = Some("this configuration does not compile these lines".to_owned());
            return Ok(judged(report, How::Certain));
        }
        if is_found {
            report.effect = if report.functions.is_empty() { Effect::Data } else { Effect::Changed };
            return Ok(judged(report, How::Certain));
        }
        let refusal = reason(hunk, change, &views, &mut report);
        let how = if report.effect == Effect::Refused { How::Certain } else { How::Open };
        Ok((Judged { report, how }, refusal))
    }

    /// The functions and variables of the livepatch that a hunk changes; says whether a function has code of its lines, and not
    /// only its name.
    fn find(&self, hunk: &Hunk, change: &Change, report: &mut HunkReport) -> bool {
        let (mut functions, mut variables) = (BTreeSet::new(), BTreeSet::new());
        let mut has_lines = false;
        for view in &self.views {
            let is_own = view.source() == hunk.file;
            for function in view.changes() {
                let name = kmend_diff::source_function(&function.name);
                let is_named = is_own && (change.functions.contains(&name) || change.words.contains(&name));
                // An inlined function can leave no line of the statement itself: that of a call is the one of what was inlined
                // there.
                let bodies = (&change.bodies.0, &change.bodies.1);
                let covers = view.covers(&hunk.file, (&change.original, &change.patched), function)
                    || (!is_named && view.covers(&hunk.file, bodies, function));
                if covers {
                    let key = (view.source().to_owned(), function.name.clone());
                    let callees = change.functions.iter().filter(|callee| **callee != name).cloned();
                    self.inlined.borrow_mut().0.entry(key).or_default().extend(callees);
                }
                has_lines |= covers;
                if covers || is_named {
                    functions.insert(function.name.clone());
                }
            }
            let plain = |variable: &str| variable.split('.').next().unwrap_or(variable).to_owned();
            variables.extend(view.variables().filter(|name| change.words.contains(&plain(name))).cloned());
            let callbacks = view.proven().into_iter().flat_map(|proven| &proven.delta.callbacks);
            let callbacks = callbacks.filter(|callback| change.words.contains(&callback.function));
            functions.extend(callbacks.map(|callback| callback.function.clone()));
        }
        report.functions = functions.into_iter().collect();
        report.variables = variables.into_iter().collect();
        has_lines
    }

    /// The units that a hunk is looked for in: that of its file, or all of a header's.
    fn views_of(&self, hunk: &Hunk) -> Vec<&View<'_>> {
        let own: Vec<&View<'_>> = self.views.iter().filter(|view| view.source() == hunk.file).collect();
        if own.is_empty() { self.views.iter().collect() } else { own }
    }

    /// Whether all that a hunk changes is in groups that this configuration leaves out of every unit.
    fn is_left_out(&self, hunk: &Hunk, change: &Change, views: &[&View<'_>]) -> Result<bool, BuildError> {
        let has_group = |branches: &Vec<BTreeSet<u32>>| branches.iter().any(|branch| !branch.is_empty());
        if change.branches.is_empty() || !change.branches.iter().all(has_group) {
            return Ok(false);
        }
        if views.is_empty() || views.len() > ASKED {
            return Ok(false);
        }
        let mut is_included = false;
        for view in views {
            let unit = &view.unit.unit;
            let key = (unit.object.clone(), hunk.file.clone());
            if !self.present.borrow().contains_key(&key) {
                let lines = self.outcome.lines_present(self.target, self.prepared, unit, &hunk.file)?;
                self.present.borrow_mut().insert(key.clone(), lines);
            }
            let present = self.present.borrow();
            let Some(Some(lines)) = present.get(&key) else { return Ok(false) };
            let is_out = |branch: &BTreeSet<u32>| !branch.is_empty() && branch.is_disjoint(lines);
            is_included |= !lines.is_empty();
            if !change.branches.iter().all(|branches| branches.iter().any(is_out)) {
                return Ok(false);
            }
        }
        Ok(is_included)
    }
}

/// Why nothing changes by a hunk.
fn reason(hunk: &Hunk, change: &Change, views: &[&View<'_>], report: &mut HunkReport) -> Option<Refusal> {
    if views.is_empty() {
        report.why = Some("no unit of this kernel uses what changes in it".to_owned());
        return None;
    }
    let codes: BTreeSet<Code> =
        views.iter().flat_map(|view| view.refusals()).map(|refusal| refusal.code).collect();
    if !codes.is_empty() {
        report.effect = Effect::Refused;
        let codes: Vec<&str> = codes.into_iter().map(Code::name).collect();
        report.why = Some(format!("its unit is refused: {}", codes.join(", ")));
        return None;
    }
    let names: BTreeSet<&String> = change.functions.iter().chain(&change.words).collect();
    let mut passed =
        views.iter().filter_map(|view| view.proven()).flat_map(|proven| &proven.delta.passed_over);
    let is_named =
        |refusal: &&Refusal| names.iter().any(|name| kmend_diff::source_function(&refusal.subject) == **name);
    if let Some(passed) = passed.find(is_named) {
        report.why = Some(format!("{} is left as it is: {}", passed.subject, passed.why));
        return None;
    }
    if let Some(refusal) = missed(hunk, change, views) {
        report.effect = Effect::Refused;
        report.why = Some(refusal.why.clone());
        return Some(refusal);
    }
    let left = |name: &&String| {
        let is_left =
            |view: &&View<'_>| view.named(name).any(|symbol| view.differs(symbol) && view.tells(symbol));
        views.iter().any(is_left)
    };
    if let Some(name) = change.functions.iter().find(left) {
        report.why = Some(format!("{name} is left as it is, as a note says"));
        return None;
    }
    let differs = views.iter().any(|view| view.unit.differs());
    let defines = |functions| views.iter().any(|view| view.defined(change, functions).next().is_some());
    let has = |name: &str| views.iter().any(|view| view.named(name).next().is_some());
    let mut deltas = views.iter().filter_map(|view| view.proven()).map(|proven| &proven.delta);
    let says_of_module = deltas.any(|delta| delta.says_of_module);
    let same: Vec<&str> = change.functions.iter().map(String::as_str).filter(|name| has(name)).collect();
    report.why = Some(match (differs, change.functions.first()) {
        (false, _) => "it compiles to the same code and data".to_owned(),
        (true, _) if !same.is_empty() => format!("the same code is compiled for {}", same.join(", ")),
        (true, Some(name)) => {
            match views.iter().find_map(|view| view.hosts(&hunk.file, change).first().copied()) {
                Some(host) => {
                    format!("{name} is a part of {host} there, and the same code is compiled for that")
                }
                None => format!("no code of {name} is left in the objects: nothing calls it"),
            }
        }
        (true, None) if change.is_directive => {
            "a macro or an include has no code of its own, and no function that changes has its name"
                .to_owned()
        }
        (true, None) if says_of_module && change.words.iter().any(|word| word.starts_with("MODULE_")) => {
            "what it says about its module's file stays as it is".to_owned()
        }
        (true, None)
            if views.iter().any(|view| view.defined(change, false).any(|name| view.is_new(name))) =>
        {
            "what is new of it is used by nothing of the livepatch".to_owned()
        }
        (true, None) if defines(false) => "its data is the same".to_owned(),
        (true, None) if is_declaration(change) || defines(true) => {
            "a declaration has no code of its own, and no function that changes has its name".to_owned()
        }
        (true, None) => {
            report.effect = Effect::Unexplained;
            "nothing is found that changes by it, and it does not look like a declaration".to_owned()
        }
    });
    None
}

/// A refusal where the code of a function differs that the hunk is in, or that has code of it, or data that it names, and nothing
/// says so.
fn missed(hunk: &Hunk, change: &Change, views: &[&View<'_>]) -> Option<Refusal> {
    for view in views.iter().filter(|view| view.unit.differs()) {
        let functions = change.functions.iter().flat_map(|name| view.named(name));
        let data = view.defined(change, false).filter(|name| !name.contains('.'));
        let mut all = functions.chain(view.hosts(&hunk.file, change)).chain(data);
        if let Some(symbol) = all.find(|name| view.differs(name) && !view.tells(name)) {
            let why = format!("{symbol} differs, and the comparison of the objects does not name it");
            let subject = format!("hunk {} of {}", hunk.number, hunk.file);
            return Some(Refusal::new(Code::UnexplainedHunk, subject, why).at(&hunk.file, None));
        }
    }
    None
}

/// Words of C that begin declarations (C11, 6.7), and what the kernel's sources have in their place.
const DECLARING: &[&str] = &[
    "struct", "union", "enum", "typedef", "extern", "static", "inline", "const", "volatile", "void", "char",
    "short", "int", "long", "unsigned", "signed", "bool", "u8", "u16", "u32", "u64", "s8", "s16", "s32",
    "s64", "size_t",
];

fn is_declaration(change: &Change) -> bool {
    DECLARING.iter().any(|word| change.words.contains(*word))
}
