//! What code and data hold: strings, constants, initial values.

use super::{Change, Place, at_the_start, one_of};
use crate::selfcheck::constants;
use crate::selfcheck::random::Random;
use crate::selfcheck::source::{Function, Variable};

/// What no source of a kernel holds.
const MARKER: &str = " kmend_selfcheck_marker";

/// A string in a function becomes longer.
pub(super) fn string(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let lines = &place.source.lines;
    let bodies = place.source.functions.iter().flat_map(|function| function.body.clone());
    let fits = |&at: &usize| {
        let line = lines[at].trim_end();
        let is_code = line.starts_with('\t') && !line.trim_start().starts_with(['#', '*', '/']);
        is_code && line.matches('"').count() == 2 && !line.contains(['\\', '\'']) && !line.contains("asm")
    };
    let candidates: Vec<usize> = bodies.filter(fits).collect();
    let &at = random.one_of(&candidates)?;
    let end = lines[at].rfind('"')?;
    let mut new = lines[at].clone();
    new.insert_str(end, MARKER);
    let mut change = Change::new(format!("line {}: a string gets longer", at + 1)).replace(at, &new);
    change.claims.ships = Some(MARKER.trim().as_bytes().to_vec());
    Some(change)
}

/// A function looks at a string of 16-bit characters (the kernel is compiled with -fshort-wchar).
pub(super) fn wide_string(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let text = "kmend wide";
    let function = one_of(&place.source.functions, random, Function::is_plain)?;
    let (at, line) = at_the_start(function, &format!("asm volatile(\"\" : : \"r\" (L\"{text}\"))"));
    let mut change = Change::new(format!("{} uses a wide string", function.name)).insert(at, &line);
    change.claims.ships = Some(format!("{text}\0").encode_utf16().flat_map(u16::to_le_bytes).collect());
    Some(change)
}

/// A number in the initial value of constant data.
pub(super) fn constant_data(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    number(place, random, |variable| variable.has("const"))
}

/// A number in the initial value of a variable.
pub(super) fn writable_data(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    number(place, random, |variable| !variable.has("const"))
}

fn number(place: &Place<'_>, random: &mut Random, fits: impl Fn(&Variable) -> bool) -> Option<Change> {
    let variable = one_of(&place.source.variables, random, |variable| variable.has_value && fits(variable))?;
    let mut found = Vec::new();
    for at in variable.lines.clone() {
        let line = &place.source.lines[at];
        // What stands before the value may be the size of an array.
        let start = line.find('=').filter(|_| at == variable.lines.start).unwrap_or(0);
        let here = constants::in_line(line.as_bytes());
        found.extend(here.into_iter().filter(|constant| constant.0 >= start).map(|found| (at, found)));
    }
    // Designators (`[3] = x`) move values, and what is equal to zero may stay so.
    let (at, (column, old)) = random.one_of(&found)?;
    let new = constants::another(old, 1)?;
    let mut line = place.source.lines[*at].clone();
    line.replace_range(*column..*column + old.len(), &new);
    let what = format!("line {}: {old} becomes {new} in the value of {}", at + 1, variable.name);
    Some(Change::new(what).replace(*at, &line).lives(&variable.name))
}
