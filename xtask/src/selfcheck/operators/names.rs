//! Names: what a unit defines, and which living thing each stands for.

use super::{Change, Place, at_the_start, one_of};
use crate::selfcheck::random::Random;
use crate::selfcheck::source::{Function, Source, has_word, with_word, words};

/// Static variables of a function that are declared in one line: the line's index and the name.
fn static_locals(source: &Source, function: &Function) -> Vec<(usize, String)> {
    let local = |at: usize| {
        let line = source.lines[at].trim();
        let text = line.strip_prefix("static ")?.strip_suffix(';')?;
        let declarator = text.split(['=', '[']).next()?;
        let is_plain = !declarator.contains(['(', ',', '{']) && !line.contains("const ");
        let name = words(declarator).filter(|word| !word.starts_with("__")).last()?;
        is_plain.then(|| (at, name.to_owned()))
    };
    function.body.clone().filter_map(local).collect()
}

/// A static variable before those that a function has.
pub(super) fn static_local_added(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let source = place.source;
    let has_some =
        |function: &Function| !function.is_start_code() && !static_locals(source, function).is_empty();
    let function = one_of(&source.functions, random, has_some)?;
    let (at, line) = at_the_start(function, "static int kmend_selfcheck_calls; kmend_selfcheck_calls++");
    let change = Change::new(format!("{} gets another static variable", function.name)).insert(at, &line);
    let others = static_locals(source, function);
    Some(others.iter().fold(change, |change, (_, name)| change.lives(name)))
}

/// Two lines beside each other change places.
fn swapped(source: &Source, at: usize) -> Change {
    Change::new(format!("lines {} and {} change places", at + 1, at + 2))
        .replace(at, &source.lines[at + 1])
        .replace(at + 1, &source.lines[at])
}

pub(super) fn statics_swapped(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let source = place.source;
    let fits = |pair: &&[crate::selfcheck::source::Variable]| {
        let [one, two] = pair else { return false };
        let both = [one, two].iter().all(|variable| variable.has("static") && variable.lines.len() == 1);
        both && one.lines.end == two.lines.start && !has_word(&source.lines[two.lines.start], &one.name)
    };
    let pairs: Vec<_> = source.variables.windows(2).filter(fits).collect();
    let pair = random.one_of(&pairs)?;
    let change = swapped(source, pair[0].lines.start);
    Some(pair.iter().fold(change, |change, variable| change.lives(&variable.name)))
}

pub(super) fn static_locals_swapped(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let source = place.source;
    let mut pairs = Vec::new();
    for function in source.functions.iter().filter(|function| !function.is_start_code()) {
        let locals = static_locals(source, function);
        pairs.extend(locals.windows(2).filter(|pair| pair[0].0 + 1 == pair[1].0).map(<[_]>::to_vec));
    }
    let pair = random.one_of(&pairs)?;
    let change = swapped(source, pair[0].0);
    Some(pair.iter().fold(change, |change, (_, name)| change.lives(name)))
}

/// A variable goes on under another name: its value must.
pub(super) fn static_renamed(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let source = place.source;
    let fits = |variable: &crate::selfcheck::source::Variable| {
        let is_state = variable.has("static") && !variable.has("const") && !variable.is_placed();
        is_state && (2..40).contains(&source.count(&variable.name))
    };
    let variable = one_of(&source.variables, random, fits)?;
    let new = format!("kmend_{}", variable.name);
    let mut change = Change::new(format!("{} becomes {new}", variable.name));
    change.claims.renamed = Some(variable.name.clone());
    for (at, line) in source.lines.iter().enumerate().filter(|(_, line)| has_word(line, &variable.name)) {
        change = change.replace(at, &with_word(line, &variable.name, &new));
    }
    Some(change)
}

/// Where something may be put behind the last include of the neighbour that is followed by code.
fn end_of_neighbour(place: &Place<'_>) -> Option<usize> {
    let last = place.neighbour?.functions.last()?;
    // Before the head of the last function; behind it may be lists of exports.
    Some(last.head.start)
}

/// Whether all that a text names is known to the neighbour too, as far as that can be seen.
fn is_at_home(place: &Place<'_>, text: &str) -> bool {
    let own = |name: &str| has_word(text, name);
    let functions = place.source.functions.iter().filter(|other| other.has("static"));
    let variables = place.source.variables.iter().filter(|other| other.has("static"));
    !functions.map(|other| other.name.as_str()).chain(variables.map(|other| other.name.as_str())).any(own)
}

pub(super) fn function_moved(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let source = place.source;
    let whole = |function: &Function| source.lines[function.head.start..=function.body.end].concat();
    let fits = |function: &Function| {
        function.is_plain()
            && !function.has("static")
            && function.body.len() < 12
            && is_at_home(place, &source.lines[function.body.clone()].concat())
            // What exports it stays where it is, and does not compile without a declaration.
            && !source.lines.iter().any(|line| line.starts_with("EXPORT") && has_word(line, &function.name))
    };
    let function = one_of(&source.functions, random, fits)?;
    let to = end_of_neighbour(place)?;
    let mut change = Change::new(format!("{} moves to {}", function.name, place.neighbour?.path));
    change = change.insert_beside(to, &format!("{}\n", whole(function)));
    for at in function.head.start..=function.body.end {
        change = change.replace(at, "");
    }
    change.claims.lives.push(function.name.clone());
    Some(change)
}

pub(super) fn variable_moved(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let source = place.source;
    let fits = |variable: &crate::selfcheck::source::Variable| {
        let text = source.lines[variable.lines.clone()].concat();
        !variable.has("static")
            && !variable.is_placed()
            && is_at_home(place, &text)
            && !source.lines.iter().any(|line| line.starts_with("EXPORT") && has_word(line, &variable.name))
    };
    let variable = one_of(&source.variables, random, fits)?;
    let to = end_of_neighbour(place)?;
    let text = source.lines[variable.lines.clone()].concat();
    let mut change = Change::new(format!("{} moves to {}", variable.name, place.neighbour?.path))
        .insert_beside(to, &format!("{text}\n"))
        .lives(&variable.name);
    for at in variable.lines.clone() {
        change = change.replace(at, "");
    }
    Some(change)
}

pub(super) fn alias_added(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let function = one_of(&place.source.functions, random, Function::is_plain)?;
    let name = &function.name;
    let text = format!("extern typeof({name}) kmend_selfcheck_alias __attribute__((alias(\"{name}\")));\n");
    Some(Change::new(format!("{name} gets an alias")).insert(function.body.end + 1, &text))
}

fn is_global(function: &Function) -> bool {
    function.is_plain() && !function.has("static")
}

pub(super) fn weak_added(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let function = one_of(&place.source.functions, random, is_global)?;
    let at =
        function.head.clone().find(|&at| place.source.lines[at].contains(&format!("{}(", function.name)))?;
    let line = place.source.lines[at].replacen(
        &format!("{}(", function.name),
        &format!("__weak {}(", function.name),
        1,
    );
    Some(Change::new(format!("{} becomes weak", function.name)).replace(at, &line))
}

fn is_weak(function: &Function) -> bool {
    function.has("__weak") && !function.is_start_code()
}

pub(super) fn weak_dropped(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let function = one_of(&place.source.functions, random, is_weak)?;
    let at = function.head.clone().find(|&at| place.source.lines[at].contains("__weak "))?;
    let line = place.source.lines[at].replacen("__weak ", "", 1);
    Some(Change::new(format!("{} is no longer weak", function.name)).replace(at, &line))
}

/// The strong one does what the weak one does, and returns nothing else: but it is another function.
pub(super) fn weak_overridden(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let source = place.source;
    let function = one_of(&source.functions, random, |function| {
        is_weak(function) && is_at_home(place, &source.lines[function.body.clone()].concat())
    })?;
    let head = source.lines[function.head.clone()].concat().replacen("__weak ", "", 1);
    let (_, more) = at_the_start(function, "asm volatile(\"nop; nop; nop\")");
    let body = source.lines[function.body.start..=function.body.end].concat();
    let text = format!("{head}{{\n{more}{body}\n");
    let what = format!("{} overrides the weak {}", place.neighbour?.path, function.name);
    Some(Change::new(what).insert_beside(end_of_neighbour(place)?, &text))
}

/// A function of the neighbour leads to what only this source knows. No kernel would link it.
pub(super) fn extern_to_static(place: &Place<'_>, random: &mut Random) -> Option<Change> {
    let is_hidden = |function: &Function| function.is_plain() && function.text.starts_with("static ");
    let hidden = one_of(&place.source.functions, random, |function| {
        is_hidden(function) && place.neighbour.is_some_and(|other| other.count(&function.name) == 0)
    })?;
    let user = one_of(&place.neighbour?.functions, random, Function::is_plain)?;
    let call = format!("extern void {0}(void); {0}()", hidden.name);
    let (at, line) = at_the_start(user, &call);
    let what = format!("{} of {} calls the static {}", user.name, place.neighbour?.path, hidden.name);
    // A kernel's own source has to change as well: the neighbour alone would be the patch, and the unit that is looked at another.
    Some(Change::new(what).insert(0, "/* kmend selfcheck */\n").insert_beside(at, &line))
}
