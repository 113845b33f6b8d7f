//! What somebody may still use when the livepatch is gone.

use super::*;

/// Each escape as `NAME: HOW`, with `(ends)` where the author ends it, of a patch that adds `new` and the body of `f`.
fn escapes(new: &str, body: &str) -> Vec<String> {
    // The kernel's code uses no vector registers.
    let head = "#pragma GCC target(\"no-sse\")
        struct node { struct node *next, *prev; void *data; }; struct timer { struct node n; void (*fn)(void *); };
        int printf(const char *, ...); int keep(const void *, ...); int _printk(const char *, ...);
        int memcmp(const void *, const void *, unsigned long); void *memcpy(void *, const void *, unsigned long);
        int class_create(const char *); int ___ratelimit(void *, const char *); extern struct node living;";
    let original = format!("{head} const void *f(struct node *n, int x) {{ return 0; }}");
    let patched = format!("{head} {new} const void *f(struct node *n, int x) {{ {body} return 0; }}");
    let delta = diff(&original, &patched).expect("it should not have been refused");
    let text = |escape: &kmend_diff::Escape| {
        let leads: Vec<&str> =
            escape.functions.iter().filter(|name| **name != escape.name).map(String::as_str).collect();
        let leads = if leads.is_empty() { String::new() } else { format!(" -> {}", leads.join(",")) };
        let ends = if escape.ends { " (ends)" } else { "" };
        format!("{}{leads}: {}{ends}", escape.name, escape.how)
    };
    delta.outlives.iter().map(text).collect()
}

const FUNCTION: &str = "static void __attribute__((noinline)) g(void *p) { _printk(\"g\"); }";

#[test]
fn what_is_called_read_and_written_goes_nowhere() {
    for (new, body) in [
        (FUNCTION, "g(n);"),
        (
            "static int count, *where; static char flag;",
            "count++; if (flag) count += x; where = &count; *where = 7;",
        ),
        ("static int count;", "int *p = x ? &count : &n->data; __sync_fetch_and_add(p, 1);"),
        (
            "static struct node state; static int rates[4];",
            "if (___ratelimit(&state, __func__)) rates[x & 3]++;",
        ),
        ("static const int table[] = { 5, 6, 7, 8 };", "keep(0, table[x & 3]);"),
        (
            "static void g(void *p) { _printk(\"g\"); } static void h(void *p) { _printk(\"h\"); }
          static void (*const table[])(void *) = { g, h };",
            "table[x & 1](n);",
        ),
        ("", "_printk(\"some %d\", x); keep(\"name\", x);"),
        ("static const char *const names[] = { \"a\", \"b\" };", "keep(names[x & 1]);"),
        ("struct empty { }; static struct empty class;", "keep(&class);"),
        ("static struct node one;", "one.next = &one; one.prev = one.next;"),
        ("static const int good[] = { 1, 2, 3 };", "if (memcmp(n, good, sizeof(good))) keep(n);"),
        (
            "static int __attribute__((noinline)) count(int *p) { return ++*p + __builtin_return_address(0); } static int n1;",
            "keep(0, count(&n1));",
        ),
    ] {
        assert_eq!(escapes(new, body), [""; 0], "{new} {body}");
    }
}

#[test]
fn what_is_given_away_escapes() {
    let given = "g: f() gives its address to keep()";
    assert_eq!(escapes(FUNCTION, "keep(g);"), [given]);
    assert_eq!(escapes(FUNCTION, "keep(n, x, 1, 2, 3, 4, g);"), ["g: f() stores its address"]);
    assert_eq!(escapes(FUNCTION, "n->data = g;"), ["g: f() stores its address"]);
    assert_eq!(escapes(FUNCTION, "living.data = x ? (void *)g : n;"), ["g: f() stores its address"]);
    assert_eq!(escapes(FUNCTION, "return g;"), ["g: f() returns its address"]);
    assert_eq!(escapes("static int v;", "return x ? &v : 0;"), ["v: f() returns its address"]);
    assert_eq!(
        escapes("static struct node v;", "v.next = n->next; n->next = &v;"),
        ["v: f() stores its address"]
    );
    assert_eq!(
        escapes("static int v;", "int (*call)(void *) = n->data; call(&v);"),
        ["v: f() gives its address to a function that a pointer leads to()".trim_end_matches("()")]
    );
    // On the stack, where another function looks.
    assert_eq!(escapes(FUNCTION, "struct timer t = { .fn = g }; keep(&t);"), ["g: f() stores its address"]);
}

#[test]
fn what_an_escaped_variable_leads_to_goes_along() {
    let timer = format!("{FUNCTION} static struct timer t = {{ .fn = g }};");
    assert_eq!(escapes(&timer, "keep(&t);"), ["t -> g: f() gives its address to keep()"]);
    assert_eq!(escapes(&timer, "t.fn(n);"), [""; 0]);
    // Its content is copied or loaded, and goes on.
    assert_eq!(escapes(&timer, "memcpy(n, &t, sizeof(t));"), ["g: f() stores its address"]);
    assert_eq!(escapes(&timer, "memcpy(n, &t, x);"), ["g: f() gives its address to memcpy()"]);
    assert_eq!(escapes(&timer, "n->data = t.fn;"), ["g: f() stores its address"]);
    let later = format!("{FUNCTION} static struct timer t;");
    assert_eq!(escapes(&later, "t.fn = g; if (x) keep(t.fn);"), ["g: f() gives its address to keep()"]);
}

#[test]
fn addresses_are_followed_through_functions_of_the_livepatch() {
    let through = "static int v;
        static void __attribute__((noinline)) inner(struct node *n, void *p) { n->data = p; }
        static void *__attribute__((noinline)) pick(struct node *n) { _printk(\"x\"); return &v; }";
    assert_eq!(escapes(through, "inner(n, &v);"), ["v: inner() stores its address"]);
    assert_eq!(escapes(through, "keep(pick(n));"), ["v: f() gives its address to keep()"]);
    assert_eq!(escapes(through, "*(int *)pick(n) = 3;"), [""; 0]);
}

#[test]
fn strings_escape_when_they_are_kept() {
    assert_eq!(escapes("", "n->data = \"why\";"), ["\"why\": f() stores its address"]);
    assert_eq!(escapes("", "class_create(\"mine\");"), ["\"mine\": f() gives its address to class_create()"]);
    assert_eq!(escapes("", "return \"why\";"), ["\"why\": f() returns its address"]);
    assert_eq!(escapes("", "_printk(\"%d %d %d %d %d %d %s\", x, 1, 2, 3, 4, 5, \"seventh\");"), [""; 0]);
}

#[test]
fn the_author_ends_what_a_callback_ends() {
    let callback = "static void __attribute__((used)) undo(void *o) { keep(o); }
        static void (*const end)(void *) __attribute__((used, section(\".kmend.callbacks.post_unpatch\"))) = undo;";
    let ends = note(".kmend.ends", "g");
    let timer = "static struct timer t = { .fn = g };";
    let all = format!("{FUNCTION} {timer} {callback} {ends}");
    assert_eq!(escapes(&all, "keep(&t);"), ["t -> g: f() gives its address to keep() (ends)"]);
    assert_eq!(escapes(&all, "keep(g);"), ["g: f() gives its address to keep() (ends)"]);
    let head = "int keep(const void *, ...); int _printk(const char *, ...);";
    let alone = format!("{head} {FUNCTION} {ends} int f(void) {{ return keep(g); }}");
    assert_eq!(codes(diff(&format!("{head} int f(void) {{ return 0; }}"), &alone)), [Code::Request]);
}

#[test]
fn what_another_unit_may_bring_is_told() {
    let original = object("int keep(const void *); int f(void) { return 0; }");
    let patched = object("int keep(const void *); void late(void); int f(void) { return keep(late); }");
    let wanted = BTreeSet::from(["late".to_owned()]);
    let context = Context { wanted: Some(&wanted), ..Context::default() };
    let delta = kmend_diff::compare_in(&original, &patched, Fentry::Required, context).unwrap();
    let [escape] = delta.outlives.as_slice() else { panic!("{:?}", delta.outlives) };
    assert!(escape.elsewhere && escape.name == "late", "{escape:?}");
}

#[test]
fn what_a_function_without_a_result_leaves_behind_is_returned_to_nobody() {
    let of = |result: &str, end: &str| {
        let unit = |number: u32| {
            format!(
                "{result} f(int x) {{ const char *text = x ? \"why\" : \"how\";\n\
                 asm volatile(\"nopl {number}(%%rax)\" : \"+a\"(text)); {end} }}"
            )
        };
        let delta = crate::state::both(&unit(1), &unit(2)).unwrap();
        delta.outlives.iter().map(|escape| escape.how.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("void", ""), [""; 0]);
    assert_eq!(of("const char *", "return text;")[0], "f() returns its address");
}
