//! What code leads to, and where it lies.

use super::{Change, Place, at_the_start, one_of};
use crate::selfcheck::random::Random;
use crate::selfcheck::source::{Function, Variable, has_word};

/// A function looks at the end of an array that shares its section with others, beside a new variable of that section.
pub(super) fn end_of_array(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    const PLACES: [&str; 2] = ["__read_mostly", "__ro_after_init"];
    let source = place.source;
    let fits = |variable: &Variable| {
        variable.has("static") && variable.is_array() && PLACES.iter().any(|word| variable.has(word))
    };
    let array = one_of(&source.variables, random, fits)?;
    let mark = PLACES.iter().find(|word| array.has(word))?;
    let user = one_of(&source.functions, random, |function: &Function| {
        function.is_plain() && function.head.start > array.lines.end && !has_word(&function.text, &array.name)
    })?;
    let name = &array.name;
    let statement =
        format!("asm volatile(\"\" : : \"r\" ((char *){name} + sizeof({name}) + kmend_selfcheck_new))");
    let (at, line) = at_the_start(user, &statement);
    let new = format!("static volatile int kmend_selfcheck_new {mark} = 5;\n");
    let change = Change::new(format!("{} looks at the end of {name}", user.name));
    let mut change = change.insert(array.lines.end, &new).insert(at, &line).lives(name);
    change.claims.ends = Some(name.clone());
    Some(change)
}

/// A function may end in a call that does not return.
pub(super) fn noreturn_call(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let function = one_of(&place.source.functions, random, Function::is_plain)?;
    let statement = "extern void panic(const char *fmt, ...) __attribute__((noreturn, cold)); \
                     unsigned long flags; asm volatile(\"\" : \"=r\" (flags)); \
                     if (__builtin_expect(flags == 5, 0)) panic(\"kmend_selfcheck_panic\")";
    let (at, line) = at_the_start(function, statement);
    let mut change = Change::new(format!("{} may panic", function.name)).insert(at, &line);
    change.claims.ships = Some(b"kmend_selfcheck_panic".to_vec());
    Some(change)
}

/// An inline function becomes one of its own, and its callers call it.
pub(super) fn inline_dropped(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let fits =
        |function: &Function| function.has("inline") && function.has("static") && !function.is_start_code();
    let function = one_of(&place.source.functions, random, fits)?;
    let at = function.head.clone().find(|&at| place.source.lines[at].contains("inline "))?;
    let line = place.source.lines[at].replacen("inline ", "noinline ", 1);
    Some(Change::new(format!("{} is no longer inline", function.name)).replace(at, &line))
}
