//! Code that runs once, and what answers to a name.

use super::*;

#[test]
fn code_that_ran_at_the_start_is_refused() {
    let source = "int ext(int); __attribute__((section(\".init.text\"))) int start(void) { return ext(5); }";
    assert_eq!(codes(diff(source, &source.replace("ext(5)", "ext(6)"))), [Code::ChangedInit]);
}

/// Compares two units of the image, of whose functions a patch touches these.
fn diff_in_image(original: &str, patched: &str, touched: &[&str]) -> Result<Delta, Vec<Refusal>> {
    let touched: BTreeSet<String> = touched.iter().map(|&name| name.to_owned()).collect();
    let context = Context { touched: Some(&touched), built_in: true, ..Context::default() };
    kmend_diff::compare_in(&object(original), &object(patched), Fentry::Required, context)
}

const START: &str = "__attribute__((section(\".init.text\")))";

const END: &str = "__attribute__((section(\".exit.text\"), no_instrument_function))";

#[test]
fn code_of_the_start_that_nobody_touched_is_passed_over() {
    let source = format!(
        "int ext(int *);
         static inline int twice(int x) {{ return 2 * x; }}
         static int table[2] __attribute__((section(\".init.data\"))) = {{ 4, 5 }};
         {START} int start(int x) {{ return ext(table) + twice(x); }}
         int later(int x) {{ return twice(x); }}"
    );
    let patched = source.replace("2 * x", "3 * x").replace("table[2]", "table[3]");
    let delta = diff_in_image(&source, &patched, &["twice"]).unwrap();
    assert_eq!(functions(&delta), ["later"]);
    assert!(
        matches!(delta.passed_over.as_slice(), [one] if one.subject == "start"),
        "{:?}",
        delta.passed_over
    );
    let touched = BTreeSet::from(["twice".to_owned()]);
    let context = Context { touched: Some(&touched), ..Context::default() };
    let of_module =
        kmend_diff::compare_in(&object(&source), &object(&patched), Fentry::Required, context).unwrap();
    assert!(of_module.passed_over[0].why.contains("when the module is loaded"));
    assert_eq!(codes(diff_in_image(&source, &patched, &["start"])), [Code::ChangedInit; 2]);
    assert_eq!(codes(diff(&source, &patched)), [Code::ChangedInit; 2]);
    let registered = "int *entry __attribute__((section(\".initcall6.init\"))) = table;";
    let (source, patched) = (source + registered, patched + registered);
    assert_eq!(codes(diff_in_image(&source, &patched, &["twice"])), [Code::ChangedInit], "the table");
}

#[test]
fn a_modules_exit_function_is_led_to_by_its_pointer() {
    let source = format!(
        "int ext(int); {END} static __attribute__((noinline)) void leave(void) {{ ext(5); }}
         void cleanup_module(void) __attribute__((alias(\"leave\")));
         static void *__UNIQUE_ID___addressable_cleanup_module9
             __attribute__((used, section(\".exit.data\"))) = &cleanup_module;"
    );
    let in_module = |source: &str, exit_pointer| {
        let context = Context { exit_pointer, ..Context::default() };
        let patched = source.replace("ext(5)", "ext(6)");
        kmend_diff::compare_in(&object(source), &object(&patched), Fentry::Required, context)
    };
    let delta = in_module(&source, Some(0x320)).unwrap();
    assert!(delta.functions.iter().all(|function| function.carried), "{:?}", delta.functions);
    assert!(
        matches!(delta.updates.as_slice(), [update] if update.variable == "__this_module" && update.pins)
    );
    assert_eq!(codes(in_module(&source, None)), [Code::NoFentry]);
    let also_called = source + " void reset(void) { leave(); }";
    assert_eq!(codes(in_module(&also_called, Some(0x320))), [Code::NoFentry]);
}

#[test]
fn code_that_still_runs_is_never_passed_over() {
    let source =
        format!("int ext(int); int one(int x) {{ return ext(x); }} {END} int end(void) {{ return ext(1); }}");
    let moved = source.replace("int one", &format!("{START} int one")).replace("ext(x)", "ext(x + 1)");
    assert_eq!(codes(diff_in_image(&source, &moved, &[])), [Code::ChangedInit]);
    let ended = source.replace("ext(1)", "ext(2)").replace("ext(x)", "ext(x + 1)");
    let delta = diff_in_image(&source, &ended, &["end", "one"]).unwrap();
    assert_eq!((functions(&delta), delta.passed_over.len()), (vec!["one".to_owned()], 1));
    assert_eq!(codes(diff(&source, &ended)), [Code::NoFentry], "the end of a module");
}

#[test]
fn the_functions_of_a_module_answer_to_their_names_in_the_source() {
    let source = format!(
        "int ext(int); int later(int x) {{ return ext(x); }}
         static {START} int foo_init(void) {{ return ext(1); }}
         int init_module(void) __attribute__((alias(\"foo_init\")));
         static {END} void foo_exit(void) {{ ext(2); }}
         void cleanup_module(void) __attribute__((alias(\"foo_exit\")));"
    );
    let patched =
        source.replace("ext(1)", "ext(5)").replace("ext(2)", "ext(6)").replace("ext(x)", "ext(x + 1)");
    let touched = BTreeSet::from(["foo_init".to_owned()]);
    let context = Context { touched: Some(&touched), ..Context::default() };
    let refusals = kmend_diff::compare_in(&object(&source), &object(&patched), Fentry::Required, context);
    let subjects: Vec<String> = refusals.unwrap_err().into_iter().map(|refusal| refusal.subject).collect();
    assert_eq!(subjects, ["foo_init", "foo_exit"]);
    let ignored = ["foo_init", "foo_exit"].map(|name| note(".kmend.ignore.functions", name)).concat();
    assert_eq!(functions(&diff(&source, &(patched + &ignored)).unwrap()), ["later"]);
}

#[test]
fn code_of_the_start_that_runs_later_is_new() {
    let source = format!(
        "int ext(int); {START} int once(int x) {{ return ext(x); }} int later(int x) {{ return x; }}"
    );
    let patched =
        source.replace(START, "__attribute__((noinline))").replace("return x;", "return once(x) + 1;");
    assert_eq!(functions(&diff_in_image(&source, &patched, &["once", "later"]).unwrap()), ["+once", "later"]);
    let source = format!("int ext(int); {END} int once(int x) {{ return ext(x); }}");
    let patched = source.replace(END, "").replace("ext(x)", "ext(x + 1)");
    assert_eq!(codes(diff(&source, &patched)), [Code::NoFentry], "its original has no ftrace entry");
}
