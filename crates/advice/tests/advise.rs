//! What is advised for small C sources, compiled here with the machine's gcc.

use kmend_object::Object;
use kmend_process::Command;
use std::fs;

fn object(source: &str) -> Object {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unit.c"), source).unwrap();
    let options =
        ["-O2", "-c", "-w", "-ffunction-sections", "-fdata-sections", "-fno-pic", "-mcmodel=kernel"];
    let plain = [
        "-fcf-protection=none",
        "-mno-red-zone",
        "-fno-asynchronous-unwind-tables",
        "unit.c",
        "-o",
        "unit.o",
    ];
    Command::new("gcc").args(options).args(plain).folder(folder.path()).run().unwrap();
    Object::parse(&fs::read(folder.path().join("unit.o")).unwrap()).unwrap()
}

/// Checks what is advised, as `subject: beginning of the text`.
fn check(original: &str, patched: &str, expect: &[&str]) {
    let (original, patched) = (object(original), object(patched));
    let functions = kmend_diff::changed(&original, &patched);
    assert!(!functions.is_empty());
    let advice = kmend_advice::advise(&original, &patched, &functions);
    let given: Vec<String> =
        advice.iter().map(|advice| format!("{}: {}", advice.subject, advice.text)).collect();
    assert_eq!(given.len(), expect.len(), "{given:#?}");
    for (given, expect) in given.iter().zip(expect) {
        assert!(given.starts_with(expect), "{given}");
    }
}

const LOCKS: &str = "struct mutex { long x; }; struct mutex a, b; void mutex_lock(struct mutex *); \
                     void mutex_unlock(struct mutex *); void work(int);\n";

#[test]
fn locks_taken_anew_or_in_another_order_are_told() {
    let source = |body: &str| format!("{LOCKS}void f(void) {{ {body} }}");
    let one = source("mutex_lock(&a); work(1); mutex_unlock(&a);");
    let both = source("mutex_lock(&a); mutex_lock(&b); work(1); mutex_unlock(&b); mutex_unlock(&a);");
    let other = source("mutex_lock(&b); mutex_lock(&a); work(1); mutex_unlock(&b); mutex_unlock(&a);");
    check(&one, &both, &["f: it now takes mutex_lock(b)"]);
    check(&both, &one, &["f: it no longer takes mutex_lock(b)"]);
    check(&both, &other, &["f: it takes locks in another order: mutex_lock(b), mutex_lock(a), before"]);
    check(&one, &source("mutex_lock(&a); work(2); mutex_unlock(&a);"), &[]);
}

#[test]
fn the_number_of_a_static_lock_says_nothing() {
    let source = |before: &str, number: u32| {
        format!(
            "{LOCKS}{before}void f(void) {{ static struct mutex own; mutex_lock(&own); work({number}); }}"
        )
    };
    let other = "void g(void) { static struct mutex own; mutex_lock(&own); }";
    check(&source("", 1), &source(other, 2), &[]);
    let two = source("", 1).replace("work(1);", "{ static struct mutex second; mutex_lock(&second); }");
    check(&source("", 1), &two, &["f: it now takes mutex_lock(second)"]);
}

#[test]
fn locks_of_a_part_that_the_compiler_splits_off_are_the_functions() {
    let source = |number: u32, call: &str, part: &str| {
        format!(
            "{LOCKS}{part} __attribute__((cold)) void slow(int); void f(int x) {{ if (x) {{ {call} work({number}); }} }}"
        )
    };
    let whole = source(1, "mutex_lock(&a);", "");
    let part =
        "void part(int) asm(\"f.part.0\"); __attribute__((noipa)) void part(int x) { mutex_lock(&a); }";
    check(&whole, &source(2, "part(x);", part), &[]);
    check(&source(2, "part(x);", part), &whole, &[]);
    check(
        &whole,
        &source(2, "part(x);", &part.replace("&a", "&b")),
        &["f: it now takes mutex_lock(b) and no"],
    );
    let cold = source(1, "slow(x); mutex_lock(&a); slow(2);", "");
    assert!(object(&cold).symbols.iter().any(|symbol| symbol.name == "f.cold"));
    check(&cold, &cold.replace("&a", "&b"), &["f: it now takes mutex_lock(b) and no longer mutex_lock(a)"]);
}

#[test]
fn functions_that_write_one_variable_in_another_way_are_told_together() {
    let source = |up: &str, down: &str| {
        format!("int count;\nvoid get(void) {{ count {up}; }}\nvoid put(void) {{ count {down}; }}\n")
    };
    check(&source("+= 1", "-= 1"), &source("+= 2", "-= 2"), &["count: get, put write it in another way"]);
    check(&source("+= 1", "-= 1"), &source("+= 2", "-= 1"), &[]);
    let field = |up: &str, down: &str| {
        format!(
            "struct s {{ long a; int n; }};\nvoid get(struct s *s) {{ s->n {up}; }}\n\
             void put(struct s *s) {{ s->n {down}; }}\n"
        )
    };
    check(
        &field("+= 1", "-= 1"),
        &field("+= 2", "-= 2"),
        &["field at 0x8: get, put write it in another way"],
    );
}

#[test]
fn functions_in_which_tasks_stay_are_told() {
    let source = |number: u32| {
        format!(
            "int kthread_should_stop(void); void schedule(void); void do_exit(long); int ready(void); void work(int);\n\
             void *kthread_create_on_node(int (*)(void *), void *, int, const char *);\n\
             static int thread(void *data) {{ work({number}); return 0; }}\n\
             void start(void) {{ kthread_create_on_node(thread, 0, 0, \"t\"); }}\n\
             int worker(void *data) {{ while (!kthread_should_stop()) work({number}); return 0; }}\n\
             void waits(void) {{ while (!ready()) schedule(); work({number}); }}\n\
             void once(void) {{ schedule(); work({number}); }}\n\
             void ends(void) {{ work({number}); do_exit(0); }}\n"
        )
    };
    check(
        &source(1),
        &source(2),
        &[
            "ends: it calls do_exit()",
            "thread: it is the function of a kernel thread",
            "waits: it calls schedule() in a loop",
            "worker: it calls kthread_should_stop()",
        ],
    );
}

#[test]
fn damaged_code_never_panics() {
    let whole =
        object(&format!("{LOCKS}int n; void f(void) {{ mutex_lock(&a); n++; work(1); mutex_unlock(&a); }}"));
    let patched =
        object(&format!("{LOCKS}int n; void f(void) {{ mutex_lock(&b); n--; work(2); mutex_unlock(&a); }}"));
    let functions = kmend_diff::changed(&whole, &patched);
    let section = whole.section_named(".text.f").unwrap().index();
    for at in 0..whole.sections[section].data.len() {
        let mut damaged = whole.clone();
        damaged.sections[section].data[at] ^= 0xff;
        let _ = kmend_advice::advise(&damaged, &patched, &functions);
        damaged.sections[section].data.truncate(at);
        let _ = kmend_advice::advise(&damaged, &patched, &functions);
    }
}
