//! The differ's reasons in words, with the place that shows them.

use crate::explanation::{Cause, Place};
use crate::side::Side;
use crate::visible::visible;
use kmend_diff::{FunctionChange, Reason};
use kmend_object::{SymbolId, elf};

/// Why a function is in the livepatch. `all` are the functions of its unit that are.
pub(crate) fn causes(patched: &Side<'_>, change: &FunctionChange, all: &[FunctionChange]) -> Vec<Cause> {
    let mut causes: Vec<Cause> =
        change.reasons.iter().map(|reason| cause(patched, change, reason, all)).collect();
    if change.carried {
        let text = "ftrace cannot redirect it, so its callers are replaced and call this one";
        causes.push(Cause { text: text.into(), details: Vec::new() });
    }
    causes
}

fn cause(patched: &Side<'_>, change: &FunctionChange, reason: &Reason, all: &[FunctionChange]) -> Cause {
    let change_of = |before: &str, after: &str| vec![format!("was {before}"), format!("is  {after}")];
    let details = match reason {
        Reason::New => users(patched, change.sides.patched, all),
        Reason::Callee { name } => {
            let callee = all.iter().find(|other| other.name == *name);
            let user = callee.and_then(|callee| user(patched, callee.sides.patched, change));
            user.into_iter().collect()
        }
        Reason::Table { before, after, .. } => {
            let word = |side: &Option<String>| side.clone().unwrap_or_else(|| "not there".into());
            change_of(&word(before), &word(after))
        }
        Reason::Content { before, after, .. } if before != after => change_of(before, after),
        _ => Vec::new(),
    };
    Cause { text: visible(&reason.to_string()), details: details.iter().map(|line| visible(line)).collect() }
}

/// The functions that refer to a new one.
fn users(patched: &Side<'_>, symbol: SymbolId, all: &[FunctionChange]) -> Vec<String> {
    let others = all.iter().filter(|other| other.sides.patched != symbol);
    others.filter_map(|other| user(patched, symbol, other)).collect()
}

/// Where a function refers to another first.
fn user(patched: &Side<'_>, symbol: SymbolId, by: &FunctionChange) -> Option<String> {
    let target = patched.object.symbols.get(symbol.index())?;
    for (_, range) in patched.pieces(by.sides.patched) {
        for relocation in patched.relocations(range.section, range.start, range.end) {
            let Some(found) = patched.object.symbols.get(relocation.symbol.index()) else { continue };
            let addend = if elf::is_relative(relocation.kind) { 4 } else { 0 };
            let place = found.value.wrapping_add_signed(relocation.addend.wrapping_add(addend));
            let by_section =
                found.section().is_some() && found.section() == target.section() && place == target.value;
            if relocation.symbol == symbol || by_section {
                let name = &patched.object.symbol(range.symbol).name;
                let at = format!("used by {name}+{:#x}", relocation.offset - range.start);
                return Some(match patched.place(range.section, relocation.offset) {
                    Some(place) => format!("{at}, {}", in_words(&place)),
                    None => at,
                });
            }
        }
    }
    None
}

fn in_words(place: &Place) -> String {
    match place.text.first() {
        Some(text) => format!("{}:{}: {}", place.file, place.line, text.trim()),
        None => format!("{}:{}", place.file, place.line),
    }
}
