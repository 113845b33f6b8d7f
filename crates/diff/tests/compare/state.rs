//! Variables that go while others of their type come.

use super::*;

fn with_debug(source: &str) -> Object {
    object_with(source, &["-g2", "-gdwarf-5"])
}

pub fn both(original: &str, patched: &str) -> Result<Delta, Vec<Refusal>> {
    compare(&with_debug(original), &with_debug(patched))
}

const TABLE: &str = "struct device { struct device *next; int major; }; static struct device *table[255];
    int add(struct device *d) { d->next = table[d->major]; table[d->major] = d; return 1; }
    struct device *find(int n) { return table[n]; }";

#[test]
fn a_static_variable_that_gets_another_name_is_refused() {
    let renamed = TABLE.replace("table", "devices");
    for (original, patched) in [
        (TABLE.to_owned(), renamed.clone()),
        (TABLE.replace("static ", ""), renamed.replace("static ", "")),
        (TABLE.to_owned(), renamed.replace("static ", "")),
    ] {
        let refusals = both(&original, &patched).unwrap_err();
        let found: Vec<_> = refusals.iter().map(|refusal| (refusal.code, refusal.subject.as_str())).collect();
        assert_eq!(found, [(Code::LostState, "devices")]);
        assert!(
            refusals[0].why.contains("table of the same type (struct device *[255])"),
            "{}",
            refusals[0].why
        );
    }
    let local = "int ext(int *); int next(void) { static int count; return ext(&count) + ++count; }";
    let refusals = both(local, &local.replace("count", "number")).unwrap_err();
    assert!(refusals[0].why.contains("count of next()"), "{}", refusals[0].why);
    let codes = codes(diff(TABLE, &renamed));
    assert_eq!(codes, [Code::LostState], "without debug information their sizes say enough");
}

#[test]
fn what_holds_no_state_may_be_exchanged_for_another() {
    let used = |declared: &str, name: &str| {
        format!("int ext(const void *); {declared} int use(int x) {{ return ext(&{name}) + x; }}")
    };
    for (before, after) in [
        ("static const int limit = 5;", "static const int bound = 6;"),
        (
            "struct ratelimit_state { int n; }; static struct ratelimit_state limit;",
            "struct ratelimit_state { int n; }; static struct ratelimit_state bound;",
        ),
        (
            "static _Bool limit __attribute__((section(\".data.once\")));",
            "static _Bool bound __attribute__((section(\".data.once\")));",
        ),
    ] {
        let delta = both(&used(before, "limit"), &used(after, "bound")).unwrap();
        assert_eq!(functions(&delta), ["use"], "{before}");
    }
}

#[test]
fn one_more_or_one_less_loses_nothing() {
    let one = "int ext(int *); static int a; int f(void) { return ext(&a); }";
    let two = "int ext(int *); static int a, b; int f(void) { return ext(&a) + ext(&b); }";
    assert_eq!(both(one, two).unwrap().variables, ["b"]);
    assert!(both(two, one).unwrap().variables.is_empty());
    let states = both(two, one).unwrap().states;
    assert_eq!(states.lost.iter().map(|state| state.name.as_str()).collect::<Vec<_>>(), ["b"]);
    // Something new that nothing of the livepatch uses does not begin.
    let unused =
        "int ext(int *); static int b; int f(void) { return ext(0); } int g(void) { return ext(&b); }";
    assert!(both(one, unused).is_ok());
}

#[test]
fn a_variable_of_another_type_in_the_place_of_one_is_lost_state() {
    let plain = "struct map; int use(struct map *); static struct map *map;\n\
                 void set(struct map *m) { map = m; } int get(void) { return use(map); }";
    for other in [
        "struct map; int use(struct map *); static struct { struct map *map; } s;\n\
         void set(struct map *m) { s.map = m; } int get(void) { return use(s.map); }",
        "struct map; int use(struct map *); static struct map *maps[1];\n\
         void set(struct map *m) { maps[0] = m; } int get(void) { return use(maps[0]); }",
    ] {
        assert_eq!(codes(both(plain, other)), [Code::LostState], "{other}");
        let name = if other.contains("maps") { "maps" } else { "s" };
        assert!(both(plain, &format!("{other} {}", note(".kmend.anew", name))).is_ok());
    }
}

#[test]
fn the_author_says_what_became_of_a_variable() {
    let renamed = TABLE.replace("table", "devices").replace("= d;", "= d + 1;");
    let delta = both(TABLE, &format!("{renamed} {}", note(".kmend.renamed", "table devices"))).unwrap();
    assert_eq!(functions(&delta), ["add"], "find() does what it did");
    assert_eq!(originals(&delta), ["table"]);
    assert!(delta.variables.is_empty());
    let delta = both(TABLE, &format!("{renamed} {}", note(".kmend.anew", "devices"))).unwrap();
    assert_eq!(functions(&delta), ["add", "find"]);
    assert_eq!(delta.variables, ["devices"]);
    for wrong in ["tables devices", "table device", "find devices"] {
        let patched = format!("{renamed} {}", note(".kmend.renamed", wrong));
        assert!(codes(both(TABLE, &patched)).contains(&Code::Request), "{wrong}");
    }
    let retyped = renamed.replace("static struct device *devices[255]", "static long devices[255]");
    let refusals = both(
        TABLE,
        &format!("{} {}", retyped.replace("= d", "= (long)d"), note(".kmend.renamed", "table devices")),
    );
    assert!(codes(refusals).contains(&Code::Request), "another type is another variable");
    let local = "int ext(int *); int next(void) { static int count; return ext(&count) + ++count; }";
    let patched = format!("{} {}", local.replace("count", "number"), note(".kmend.renamed", "count number"));
    assert!(both(local, &patched).unwrap().is_empty());
}
