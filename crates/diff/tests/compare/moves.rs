//! What moves between the units of a patch.

use super::*;
use kmend_diff::{Definitions, Moves, Scope, UnitNames};

/// Two units, before and after.
struct Two {
    objects: [(Object, Object); 2],
    moves: Moves,
}

fn two(one: (&str, &str), other: (&str, &str)) -> Two {
    let objects = [one, other].map(|(before, after)| (object(before), object(after)));
    let names = |(number, (before, after)): (usize, &(Object, Object))| UnitNames {
        source: format!("{number}.c"),
        owner: "vmlinux".into(),
        before: Definitions::of(before, true),
        after: Definitions::of(after, true),
    };
    let moves = Moves::of(&objects.iter().enumerate().map(names).collect::<Vec<_>>());
    Two { objects, moves }
}

impl Two {
    fn delta(&self, unit: usize) -> Delta {
        let scope: &Scope = &self.moves.scopes[unit];
        let (before, after) = &self.objects[unit];
        let context = Context { scope: Some(scope), ..Context::default() };
        kmend_diff::compare_in(before, after, Fentry::Required, context).unwrap()
    }

    fn refused(&self) -> Vec<(Code, String)> {
        self.moves.refusals.iter().map(|refusal| (refusal.code, refusal.subject.clone())).collect()
    }
}

fn led_to(delta: &Delta) -> Vec<(&str, &str)> {
    let home = |reference: &'_ Reference| match reference {
        Reference::Living { .. } => true,
        Reference::Original { .. } | Reference::External { .. } => false,
    };
    let living = delta.extract.references.values().filter(|reference| home(reference));
    let mut found: Vec<(&str, &str)> = living
        .map(|reference| match reference {
            Reference::Living { unit, name } => (unit.as_str(), name.as_str()),
            other => ("", other.name()),
        })
        .collect();
    found.sort_unstable();
    found
}

const USER: &str = "int f(int); extern int v; int user(int x) { return f(x + v) + 1; }";

#[test]
fn a_global_function_gets_its_code_where_it_is() {
    let f = "int ext(int); int f(int x) { return ext(x + 5) * 3; }";
    let one = format!("{f} int other(int x) {{ return f(x) + 2; }}");
    let without = "int f(int); int other(int x) { return f(x) + 2; }";
    let patched = format!("{USER} {}", f.replace("+ 5", "+ 6"));
    let both = two(
        (&one.replace("int f", "__attribute__((noipa)) int f"), without),
        (USER, &patched.replace("int f(int x)", "__attribute__((noipa)) int f(int x)")),
    );
    assert!(both.moves.refusals.is_empty(), "{:?}", both.moves.refusals);
    assert!(
        both.delta(0).is_empty(),
        "who calls it by its name goes on doing so: {:?}",
        both.delta(0).functions
    );
    let delta = both.delta(1);
    assert_eq!(functions(&delta), ["f"], "its caller does not change");
    let change = &delta.functions[0];
    assert_eq!((change.original.as_deref(), change.home.as_deref()), (Some("f"), Some("0.c")));
    assert!(both.moves.removed.is_empty() && both.moves.added.is_empty());
}

#[test]
fn a_variable_that_moves_is_the_living_one() {
    let user = "extern int v; int get(void) { return v; }";
    for (old, new) in [("int v;", "int v;"), ("int v = 7;", "int v = 7;")] {
        let user = user.replace("return v", "return v + 1");
        let patched = format!("{new} int get(void) {{ return v + 2; }}");
        let one = format!("{old} int set(int x) {{ v = x; return 1; }}");
        let both = two((&one, "extern int v; int set(int x) { v = x; return 1; }"), (&user, &patched));
        assert!(both.moves.refusals.is_empty(), "{:?}", both.moves.refusals);
        assert!(both.delta(0).is_empty());
        let delta = both.delta(1);
        assert_eq!(functions(&delta), ["get"]);
        assert_eq!(led_to(&delta), [("0.c", "v")]);
        assert!(delta.variables.is_empty(), "no second one");
    }
}

#[test]
fn a_variable_that_changes_on_its_way_is_refused() {
    let user = ("extern int v; int get(void) { return v; }", "EXTRA int get(void) { return v; }");
    for (old, new, code) in [
        ("int v;", "int v = 3;", Code::ChangedData),
        ("int v;", "long v;", Code::ChangedGlobal),
        ("int v;", "int v __attribute__((section(\".data..percpu\")));", Code::ChangedMemory),
        ("const int v = 3;", "int v = 3;", Code::ChangedMemory),
        ("char *v = \"a\";", "char *v = \"b\";", Code::ChangedData),
        ("int v;", "int v(void) { return 4; }", Code::OtherMeaning),
    ] {
        let user = (user.0, user.1.replace("EXTRA", new));
        let both = two((&format!("{old} int other;"), "int other;"), (user.0, &user.1));
        assert_eq!(both.refused(), [(code, "v".to_owned())], "{old} to {new}");
    }
}

#[test]
fn statics_that_move_with_their_users_keep_their_state() {
    let part = "int ext(void *); static int count; static int helper(int x) { return count += x; }
        int use(int x) { return ext(helper) + helper(x); }";
    let rest = "int rest(int x) { return x; }";
    let noinline = |text: &str| text.replace("static int helper", "static __attribute__((noipa)) int helper");
    let both = two(
        (&noinline(&format!("{part} {rest}")), rest),
        ("int other;", &noinline(&format!("int other; {part}"))),
    );
    assert!(both.moves.refusals.is_empty(), "{:?}", both.moves.refusals);
    let delta = both.delta(1);
    assert_eq!(functions(&delta), ["helper", "use"], "a pointer to it may be anywhere");
    assert_eq!(led_to(&delta), [("0.c", "count"), ("0.c", "helper")]);
    let called = noinline(&format!("{part} {rest}")).replace("ext(helper)", "ext(0)");
    let both = two(
        (&called, rest),
        ("int other;", &noinline(&format!("int other; {part}")).replace("ext(helper)", "ext(0)")),
    );
    assert_eq!(functions(&both.delta(1)), ["+helper", "use"], "who called it is gone");
}

#[test]
fn what_becomes_global_is_the_living_one() {
    let show = "int ext(int); static __attribute__((noipa)) int show(int x) { return ext(x); } int a(int x) { return show(x) + 1; }";
    let user = "int show(int); int b(int x) { return CALL; }";
    let both = two(
        (show, &show.replace("static ", "")),
        (&user.replace("CALL", "x"), &user.replace("CALL", "show(x) + (show == 0)")),
    );
    assert!(both.moves.refusals.is_empty() && both.moves.added.is_empty());
    assert!(both.delta(0).is_empty());
    assert_eq!(led_to(&both.delta(1)), [("0.c", "show")]);
}

#[test]
fn what_is_static_in_two_units_stays_apart() {
    let unit = |text: &str| {
        format!("int ext(int *, int); static int state; int {text}(int x) {{ return ext(&state, x); }}")
    };
    let both = two((&unit("a"), &unit("a")), (&unit("b"), &unit("b").replace("&state, x", "&state, x + 1")));
    assert!(both.moves.refusals.is_empty());
    let delta = both.delta(1);
    assert_eq!(originals(&delta), ["state"]);
    assert!(led_to(&delta).is_empty());
}

#[test]
fn names_of_one_thing_stay_so() {
    let alias = "int f(int x) { return x + 1; } int g(int x) __attribute__((alias(\"f\")));";
    let apart = "int f(int x) { return x + 1; } int g(int x) { return x + 2; }";
    for (before, after) in [(alias, apart), (apart, alias)] {
        let both = two((before, after), ("int x;", "int x;"));
        let name = |name: &str| (Code::OtherMeaning, name.to_owned());
        assert_eq!(both.refused(), [name("f"), name("g")]);
    }
    let both = two((alias, &alias.replace("+ 1", "+ 2")), ("int x;", "int x;"));
    assert!(both.moves.refusals.is_empty());
}

#[test]
fn a_strong_definition_takes_the_place_of_a_weak_one() {
    let weak =
        "int ext(int); __attribute__((weak)) int f(int x) { return ext(x); } int a(int x) { return f(x); }";
    let both = two((weak, weak), ("int y;", "int ext(int); int y; int f(int x) { return ext(x + 1); }"));
    assert!(both.moves.refusals.is_empty());
    assert!(both.delta(0).is_empty());
    let delta = both.delta(1);
    assert_eq!(functions(&delta), ["f"]);
    assert_eq!(delta.functions[0].home.as_deref(), Some("0.c"));
    // And the other way round: the weak one comes in force.
    let both = two((weak, weak), ("int y; int f(int x) { return x; }", "int y;"));
    assert_eq!(both.delta(0).functions[0].home.as_deref(), Some("1.c"));
    let both =
        two(("int y;", "int y; int f(void) { return 1; }"), ("int z;", "int z; int f(void) { return 2; }"));
    assert_eq!(both.refused(), [(Code::Unlinkable, "f".to_owned())]);
}

#[test]
fn names_that_come_and_go_are_told() {
    let both =
        two(("int f(void) { return 1; } int v;", "int v;"), ("int z;", "int z; int g(void) { return z; }"));
    assert_eq!(both.moves.removed, [(0, "f".to_owned())]);
    assert_eq!(both.moves.added, [(1, "g".to_owned())]);
    let both = two(
        ("int f(void) { return 1; }", "static int f(void) { return 1; } int (*p)(void) = f;"),
        ("int z;", "int z;"),
    );
    assert_eq!(both.moves.removed, [(0, "f".to_owned())], "nobody else sees it any more");
}
