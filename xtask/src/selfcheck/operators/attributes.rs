//! Attributes, which say in what kind of memory something lies, and for how long.

use super::{Change, Place, one_of};
use crate::selfcheck::random::Random;
use crate::selfcheck::source::{Function, Variable};

/// A variable's first line with its declaration exchanged.
fn redeclared(place: &Place<'_>, variable: &Variable, text: &str) -> Change {
    let at = variable.lines.start;
    let line = place.source.lines[at].replacen(&variable.text, text, 1);
    Change::new(format!("`{}` becomes `{text}`", variable.text)).replace(at, &line).lives(&variable.name)
}

fn variable<'a>(
    place: &Place<'a>,
    random: &mut Random,
    fits: impl Fn(&Variable) -> bool,
) -> Option<&'a Variable> {
    one_of(&place.source.variables, random, |variable| variable.has("static") && fits(variable))
}

pub(super) fn const_dropped(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let found = variable(place, random, |variable| variable.text.starts_with("static const "))?;
    Some(redeclared(place, found, &found.text.replacen("static const ", "static ", 1)))
}

pub(super) fn const_added(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let found = variable(place, random, |variable| {
        !variable.has("const") && variable.has_value && !variable.is_placed()
    })?;
    Some(redeclared(place, found, &found.text.replacen("static ", "static const ", 1)))
}

pub(super) fn ro_after_init(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let found = variable(place, random, |variable| !variable.has("const") && !variable.is_placed())?;
    Some(redeclared(place, found, &format!("{} __ro_after_init", found.text)))
}

pub(super) fn read_mostly(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let found = variable(place, random, |variable| !variable.has("const") && !variable.is_placed())?;
    Some(redeclared(place, found, &format!("{} __read_mostly", found.text)))
}

pub(super) fn read_mostly_dropped(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let found = variable(place, random, |variable| variable.text.ends_with(" __read_mostly"))?;
    Some(redeclared(place, found, found.text.trim_end_matches(" __read_mostly")))
}

pub(super) fn per_cpu(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let fits = |variable: &Variable| {
        !variable.has("const") && !variable.is_placed() && !variable.is_array() && !variable.has_value
    };
    let found = variable(place, random, |variable| fits(variable) && variable.text.starts_with("static "))?;
    let kind = found.text.strip_prefix("static ")?.strip_suffix(&found.name)?.trim_end();
    Some(redeclared(place, found, &format!("static DEFINE_PER_CPU({kind}, {})", found.name)))
}

/// A head's line with a word exchanged, or put in.
fn with_head(place: &Place<'_>, function: &Function, old: &str, new: &str) -> Option<Change> {
    let at = function.head.clone().find(|&at| place.source.lines[at].contains(old))?;
    let line = place.source.lines[at].replacen(old, new, 1);
    Some(
        Change::new(format!("{}: `{}` becomes `{}`", function.name, old.trim(), new.trim()))
            .replace(at, &line),
    )
}

/// Where a function's type ends and its name begins, with a word before the name.
fn marked(place: &Place<'_>, function: &Function, word: &str) -> Option<Change> {
    let name = format!("{}(", function.name);
    with_head(place, function, &name, &format!("{word} {name}"))
}

/// The old code is gone, and nobody enters it: what needs the function has its new code.
pub(super) fn init_dropped(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let function = one_of(&place.source.functions, random, |function| function.has("__init"))?;
    let mut change = with_head(place, function, "__init ", "")?;
    change.claims.gone.push(function.name.clone());
    Some(change)
}

pub(super) fn init_added(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let function = one_of(&place.source.functions, random, Function::is_plain)?;
    let mut change = marked(place, function, "__init")?;
    change.claims.exists = Some(function.name.clone());
    Some(change)
}

pub(super) fn noinstr(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let function = one_of(&place.source.functions, random, |function| {
        function.is_plain() && function.text.starts_with("static ")
    })?;
    marked(place, function, "noinstr")
}

pub(super) fn maybe_unused(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let function = one_of(&place.source.functions, random, |function| {
        function.is_plain() && !function.has("__maybe_unused")
    })?;
    marked(place, function, "__maybe_unused")
}
