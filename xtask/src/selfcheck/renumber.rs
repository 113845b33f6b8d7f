//! An object as the compiler would have written it had it numbered its names otherwise.

use kmend_object::Object;
use std::collections::HashMap;

/// What is added to every number.
const SHIFT: u64 = 5;

/// The object with other numbers in the names that the compiler numbers (`f.isra.0`, `count.12`), and how many names
/// of clones it has. The order among clones of one function is turned round: which is made first depends on the
/// whole unit. Static variables keep theirs, which is the order of the source.
pub(super) fn renumbered(object: &Object) -> (Object, usize) {
    let mut numbers: HashMap<&str, Vec<u64>> = HashMap::new();
    for (base, number) in object.symbols.iter().filter_map(|symbol| split(&symbol.name)) {
        numbers.entry(base).or_default().push(number);
    }
    for known in numbers.values_mut() {
        known.sort_unstable();
        known.dedup();
    }
    let mut names = HashMap::new();
    for (base, known) in &numbers {
        let turned: Vec<u64> =
            if is_clone(base) { known.iter().rev().copied().collect() } else { known.clone() };
        for (old, new) in known.iter().zip(turned) {
            names.insert(format!("{base}.{old}"), format!("{base}.{}", new + SHIFT));
        }
    }
    let clones = names.keys().filter(|name| is_clone(name)).count();
    let mut other = object.clone();
    for symbol in &mut other.symbols {
        rename(&mut symbol.name, &names);
    }
    for section in &mut other.sections {
        // `.text.unlikely.f.isra.0` has the name of the function at its end, and `.rodata.f.isra.0.str1.1` within.
        let longest =
            names.iter().filter(|(old, _)| holds(&section.name, old)).max_by_key(|(old, _)| old.len());
        if let Some((old, new)) = longest {
            section.name = section.name.replacen(old.as_str(), new, 1);
        }
    }
    (other, clones)
}

/// Base and number of a numbered name. The cold part of `f.isra.0` is `f.isra.0.cold`.
fn split(name: &str) -> Option<(&str, u64)> {
    let name = name.strip_suffix(".cold").unwrap_or(name);
    let (base, number) = name.rsplit_once('.')?;
    let number = number.parse().ok().filter(|_| !base.is_empty() && !base.starts_with(".L"))?;
    Some((base, number))
}

fn rename(name: &mut String, names: &HashMap<String, String>) {
    if let Some(new) = names.get(name) {
        name.clone_from(new);
    } else if let Some(new) = name.strip_suffix(".cold").and_then(|hot| names.get(hot)) {
        *name = format!("{new}.cold");
    }
}

fn holds(section: &str, name: &str) -> bool {
    section
        .split_once(name)
        .is_some_and(|(before, after)| before.ends_with('.') && (after.is_empty() || after.starts_with('.')))
}

fn is_clone(name: &str) -> bool {
    [".isra", ".constprop", ".part"].iter().any(|mark| name.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_object::{Section, Symbol};

    #[test]
    fn numbers_change_and_the_order_of_clones_turns_round() {
        let mut object = Object::new();
        for name in ["f.isra.0", "f.isra.1", "f.isra.1.cold", "count.7", "count.9", "plain", ".L3.4"] {
            object.add_symbol(Symbol { name: name.into(), ..Symbol::null() });
        }
        for name in [".text.f.isra.0", ".text.unlikely.f.isra.1", ".bss.count.7", ".rodata.f.isra.0.str1.1"] {
            object.add_section(Section { name: name.into(), ..Section::default() });
        }
        let (other, clones) = renumbered(&object);
        let names: Vec<&str> = other.symbols.iter().skip(1).map(|symbol| symbol.name.as_str()).collect();
        assert_eq!(
            names,
            ["f.isra.6", "f.isra.5", "f.isra.5.cold", "count.12", "count.14", "plain", ".L3.4"]
        );
        let sections: Vec<&str> = other.sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(
            sections,
            [".text.f.isra.6", ".text.unlikely.f.isra.5", ".bss.count.12", ".rodata.f.isra.6.str1.1"]
        );
        assert_eq!(clones, 2);
    }
}
