//! Which static variable of a function is which.

use super::*;
use kmend_object::{Symbol, SymbolId};
use std::collections::BTreeMap;

fn with_debug(body: &str) -> Object {
    let source = format!(
        "int one(int *, int); int two(int *, int); int three(int *, int); int _printk(const char *);
         int __do_once_start(_Bool *); void __do_once_done(_Bool *, int *); int get(void *);
         struct ratelimit_state {{ int n; }}; int limits(struct ratelimit_state *, int); int first, second;
         #define TEXT(line) \"\" #line
         #define IN_ONCE(line) __attribute__((section(\".data.once.\" TEXT(line))))
         #define DATA_ONCE IN_ONCE(__LINE__)
         #define say(text) ({{ static _Bool said DATA_ONCE; if (!said) {{ said = 1; _printk(text); }} }})
         #define get_once(where) ({{ static _Bool done DATA_ONCE; static int key; \\
             if (__do_once_start(&done)) {{ get(where); __do_once_done(&done, &key); }} }})
         {body}"
    );
    object_with(&source, &["-g2", "-gdwarf-5"])
}

/// What f() calls, with the texts of the call, and the static variable that comes last before that.
fn uses(object: &Object, name: impl Fn(SymbolId) -> String) -> BTreeMap<String, String> {
    let mut uses = BTreeMap::new();
    for section in object.sections.iter().filter(|section| section.name.starts_with(".text.f")) {
        let (mut words, mut variable) = (Vec::new(), None);
        for relocation in &section.relocations {
            let symbol = object.symbol(relocation.symbol);
            let text = symbol.section().filter(|&id| object.section(id).is_strings());
            let text =
                text.or_else(|| symbol.section().filter(|&id| object.section(id).name.contains("strings")));
            if let Some(text) = text {
                words.push(object.section(text).string_at(relocation.addend as u64).unwrap().to_string());
            } else if relocation.kind == elf::R_X86_64_PLT32 {
                words.push(symbol.name.clone());
                if let Some(variable) = variable.take() {
                    uses.insert(words.join(" "), variable);
                }
                words.clear();
            } else {
                let name = name(relocation.symbol);
                if name.contains('.') || name == "new" {
                    variable = Some(name);
                } else {
                    words.push(name);
                }
            }
        }
    }
    uses
}

/// The flags of the work that f() does once, in the order of its code.
fn work(object: &Object, name: impl Fn(SymbolId) -> String) -> Vec<String> {
    let code = object.sections.iter().find(|section| section.name == ".text.f").unwrap();
    let names: Vec<String> = code.relocations.iter().map(|relocation| name(relocation.symbol)).collect();
    let starts = names.windows(2).filter(|pair| pair[1] == "__do_once_start");
    // The compiler may have made two copies of the second.
    let mut flags: Vec<String> = starts.map(|pair| pair[0].clone()).collect();
    flags.dedup();
    flags
}

/// The variables of the original, by what f() does with them. Each lies in a section of its own.
fn before(object: &Object) -> BTreeMap<String, String> {
    uses(object, |id| name_in(object, id))
}

fn name_in(object: &Object, id: SymbolId) -> String {
    let symbol = object.symbol(id);
    let in_section = |other: &&Symbol| {
        other.section().is_some() && other.section() == symbol.section() && other.kind == SymbolKind::Object
    };
    object.symbols.iter().find(in_section).unwrap_or(symbol).name.clone()
}

/// What becomes of the variables: what f() does with each, and what it did with the same one before; `new` if it is new.
fn fates(original: &str, patched: &str) -> Result<Vec<String>, Vec<Code>> {
    let (original, patched) = (with_debug(original), with_debug(patched));
    let delta = match compare(&original, &patched) {
        Ok(delta) => delta,
        Err(refusals) => return Err(refusals.iter().map(|refusal| refusal.code).collect()),
    };
    assert_eq!(functions(&delta), ["f"]);
    let extract = &delta.extract;
    let after = uses(&extract.object, |id| match extract.references.get(&id) {
        Some(reference) => reference.name().to_owned(),
        None => "new".to_owned(),
    });
    let before = before(&original);
    let fate = |(use_now, variable): (&String, &String)| {
        let use_before = before.iter().find(|(_, other)| *other == variable).map(|(key, _)| key.as_str());
        format!("{use_now} <- {}", use_before.unwrap_or(variable))
    };
    Ok(after.iter().map(fate).collect())
}

/// A block with a static variable, whose declaration stands on this line.
fn block(line: u32, text: &str) -> String {
    format!("\n#line {line}\n{{ static int state; {text} }}\n")
}

fn f(parts: &[String]) -> String {
    format!("int f(int x) {{ {} return x + 1; }}", parts.concat())
}

const ONE: &str = "one(&state, 1);";
const TWO_: &str = "two(&state, 2);";

#[test]
fn statics_whose_blocks_change_places_stay_what_they_are() {
    let original = f(&[block(10, ONE), block(20, TWO_)]);
    // A comparison of texts says that one block stays and the other goes and comes.
    for (first, second) in [(20, 21), (9, 10)] {
        let swapped = f(&[block(first, TWO_), block(second, ONE)]);
        assert_eq!(fates(&original, &swapped).unwrap(), ["one <- one", "two <- two"]);
    }
}

#[test]
fn a_static_before_others_renumbers_them_and_is_new() {
    let original = f(&[block(10, ONE), block(20, TWO_)]);
    let more = f(&[block(9, "three(&state, 3);"), block(10, ONE), block(20, "two(&state, 4);")]);
    assert_eq!(fates(&original, &more).unwrap(), ["one <- one", "three <- new", "two <- two"]);
    let alone = f(&[block(20, TWO_)]);
    let more = f(&[block(19, ONE), block(20, TWO_)]);
    assert_eq!(fates(&alone, &more).unwrap(), ["one <- new", "two <- two"]);
}

#[test]
fn a_static_that_goes_takes_none_of_the_others_with_it() {
    let original = f(&[block(10, ONE), block(20, TWO_), block(30, "three(&state, 3);")]);
    for (left, expect) in [
        (f(&[block(20, TWO_), block(30, "three(&state, 4);")]), ["three <- three", "two <- two"]),
        (f(&[block(10, ONE), block(30, "three(&state, 4);")]), ["one <- one", "three <- three"]),
        (f(&[block(10, "one(&state, 5);"), block(20, TWO_)]), ["one <- one", "two <- two"]),
    ] {
        assert_eq!(fates(&original, &left).unwrap(), expect);
    }
}

#[test]
fn statics_that_may_be_either_are_refused() {
    let original = f(&[block(10, ONE), block(20, TWO_)]);
    for patched in [
        // The declaration of one, with what is done with the other.
        f(&[block(10, TWO_)]),
        f(&[block(10, TWO_), block(20, ONE)]),
        // One goes and another comes elsewhere.
        f(&[block(20, TWO_), block(25, "three(&state, 3);")]),
        // Two new ones where the old ones were.
        f(&[block(12, "three(&state, 3);"), block(12, "three(&state, 3);")]),
    ] {
        let codes = fates(&original, &patched).unwrap_err();
        assert!(
            !codes.is_empty() && codes.iter().all(|&code| code == Code::UnsupportedReference),
            "{patched}"
        );
    }
}

#[test]
fn what_is_missed_by_nobody_begins_anew_rather_than_be_refused() {
    let limit = |line: u32, count: u32| {
        format!("\n#line {line}\n{{ static struct ratelimit_state rs; x += limits(&rs, x + {count}); }}\n")
    };
    let original = f(&[limit(10, 1), limit(20, 2)]);
    assert!(fates(&original, &f(&[limit(14, 3), limit(15, 4)])).is_ok());
}

#[test]
fn a_flag_belongs_to_the_text_that_it_guards() {
    let says = |texts: &[&str]| {
        let say =
            |(at, text): (usize, &&str)| format!("\n#line {}\nif (x == {at}) say(\"{text}\");\n", 10 + at);
        let parts: Vec<String> = texts.iter().enumerate().map(say).collect();
        f(&parts)
    };
    for (before, after, expect) in [
        (
            ["a", "b"].as_slice(),
            ["b", "c"].as_slice(),
            ["b _printk <- b _printk", "c _printk <- new"].as_slice(),
        ),
        (&["a", "b"], &["b", "a"], &["a _printk <- a _printk", "b _printk <- b _printk"]),
        (&["a", "b"], &["c", "b"], &["b _printk <- b _printk", "c _printk <- new"]),
        (&["a", "b"], &["b"], &["b _printk <- b _printk"]),
        (&["a"], &["b"], &["b _printk <- new"]),
        (&["a"], &["z", "a"], &["a _printk <- a _printk", "z _printk <- new"]),
    ] {
        assert_eq!(fates(&says(before), &says(after)).unwrap(), expect, "{before:?} {after:?}");
    }
}

#[test]
fn a_flag_of_work_belongs_to_the_work() {
    let original = f(&["get_once(&first);".to_owned()]);
    let same = f(&["x += 3; get_once(&first);".to_owned()]);
    let delta = compare(&with_debug(&original), &with_debug(&same)).unwrap();
    assert_eq!(functions(&delta), ["f"]);
    assert!(delta.variables.is_empty());
    let other = f(&["get_once(&second);".to_owned()]);
    assert!(fates(&original, &other).unwrap_err().contains(&Code::UnsupportedReference));
    let both = f(&["get_once(&second); get_once(&first);".to_owned()]);
    let delta = compare(&with_debug(&original), &with_debug(&both)).unwrap();
    assert_eq!(delta.variables.len(), 2, "the flag and the key of what is new: {:?}", delta.variables);
}

#[test]
fn work_on_static_variables_is_told_apart_by_their_names() {
    let get =
        |line: u32, name: &str| format!("\n#line {line}\n{{ static int {name}; get_once(&{name}); }}\n");
    let (original, patched) = (
        with_debug(&f(&[get(10, "one_secret"), get(20, "other_secret")])),
        with_debug(&f(&[get(19, "other_secret"), get(20, "one_secret")])),
    );
    let delta = compare(&original, &patched).unwrap();
    let extract = &delta.extract;
    let after = work(&extract.object, |id| match extract.references.get(&id) {
        Some(reference) => reference.name().to_owned(),
        None => extract.object.symbol(id).name.clone(),
    });
    let mut before = work(&original, |id| name_in(&original, id));
    before.reverse();
    assert_eq!((after.len(), after), (2, before));
}

#[test]
fn an_unchanged_function_keeps_its_variables_when_others_of_their_names_come_and_go() {
    let user = |name: &str, count: u32| {
        format!(" int {name}(int x) {{ static int state; return one(&state, x + {count}); }}")
    };
    let original = [user("f", 1), user("g", 2), user("h", 3)].concat();
    let patched = [user("e", 9), user("g", 2), user("f", 7)].concat();
    let delta = compare(&with_debug(&original), &with_debug(&patched)).unwrap();
    assert_eq!(functions(&delta), ["f"]);
    assert_eq!(fates(&original, &patched).unwrap(), ["one <- one"]);
}
