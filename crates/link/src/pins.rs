//! Why a livepatch stays in memory once it was enabled, and how.
//!
//! Something of it may be in use when no task is in its functions any more: a value that was exchanged leads to it
//! ([`crate::updates`]), or its code gave away the address of a function or variable ([`kmend_diff::Escape`]). Then the
//! livepatch takes a reference to itself that it never gives back. For an exchanged value that is when it is written; for
//! an address it is before any task runs the new code, in `pre_patch`, so that a load that is turned back leaves the module,
//! too. Where the author's `post_unpatch` callback ends every use, the reference is given back behind it.

use crate::updates::Words;
use crate::{LinkInput, table};
use kmend_diff::Moment;
use kmend_object::Binding;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;

/// What the patch table needs to hold the module.
pub(crate) const CODE: &str = include_str!("../module/pin.h");

/// How much of the names a parameter shows, in bytes: sysfs has one page for it.
const SHOWN: usize = 1000;

/// Something of the livepatch that may be in use when that is disabled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pin {
    /// `vmlinux` or the module whose code gives it away.
    pub object: String,
    /// The function or variable; of a string, its text in quotes.
    pub name: String,
    /// The functions of the livepatch that it leads to, itself included.
    pub functions: Vec<String>,
    /// Who lets its address go, and where to, in words.
    pub how: String,
    /// Whether a callback of the author's ends every use of it.
    pub ends: bool,
}

/// What the units give away.
pub(crate) fn collect(input: &LinkInput<'_>) -> Vec<Pin> {
    let mut brought: BTreeSet<&str> = BTreeSet::new();
    for unit in input.units {
        let object = &unit.delta.extract.object;
        let is_new =
            |symbol: &&kmend_object::Symbol| symbol.binding != Binding::Local && symbol.section().is_some();
        brought.extend(object.symbols.iter().filter(is_new).map(|symbol| symbol.name.as_str()));
    }
    let mut pins = Vec::new();
    for unit in input.units {
        for escape in &unit.delta.outlives {
            // What no unit brings is the kernel's.
            if escape.elsewhere && !brought.contains(escape.name.as_str()) {
                continue;
            }
            pins.push(Pin {
                object: unit.owner.to_owned(),
                name: escape.name.clone(),
                functions: escape.functions.clone(),
                how: escape.how.clone(),
                ends: escape.ends,
            });
        }
    }
    pins.sort();
    pins.dedup();
    pins
}

/// Whether the module must be able to hold itself.
pub(crate) fn are_needed(pins: &[Pin], words: &[Words]) -> bool {
    !pins.is_empty() || !words.is_empty()
}

/// Tells in `.modinfo` why it stays, where `kmend inspect` and who loads it read it, and in a parameter, which sysfs shows of a
/// loaded module.
pub(crate) fn descriptions(pins: &[Pin], words: &[Words]) -> String {
    let mut text = String::new();
    for Pin { object, name, how, ends, .. } in pins {
        let what = table::literal(&format!("{object} {name}: {how}"));
        let key = if *ends { "kmend_ends" } else { "kmend_outlives" };
        let _ = writeln!(text, "MODULE_INFO({key}, {what});");
    }
    let of_words = words.iter().filter(|words| words.pins).flat_map(|words| &words.variables);
    let given = pins.iter().filter(|pin| !pin.ends).map(|pin| &pin.name);
    let names: BTreeSet<&String> = given.chain(of_words).collect();
    if names.is_empty() {
        return text;
    }
    let mut shown = String::new();
    for name in names {
        let comma = if shown.is_empty() { "" } else { ", " };
        if shown.len() + comma.len() + name.len() > SHOWN {
            shown.push_str(", …");
            break;
        }
        shown.push_str(comma);
        shown.push_str(name);
    }
    let shown = table::literal(&shown);
    let _ = write!(
        text,
        "MODULE_INFO(kmend_pins, \"Y\");\n\
         static char *kmend_pinned_by = {shown};\n\
         module_param_named(pinned_by, kmend_pinned_by, charp, 0444);\n"
    );
    text
}

/// The last statement of an object's callback of this moment; empty if it has none.
pub(crate) fn statement(pins: &[Pin], object: &str, moment: Moment) -> &'static str {
    let mut pins = pins.iter().filter(|pin| pin.object == object).peekable();
    if pins.peek().is_none() {
        return "";
    }
    match (moment, pins.all(|pin| pin.ends)) {
        (Moment::PrePatch, false) => "\tkmend_stay();\n",
        (Moment::PrePatch, true) => "\tkmend_hold();\n",
        (Moment::PostUnpatch, true) => "\tkmend_let_go();\n",
        _ => "",
    }
}
