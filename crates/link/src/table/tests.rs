use super::*;
use crate::callbacks::ObjectCallback;
use kmend_diff::Moment;
use kmend_object::Object;
use std::collections::BTreeMap;

fn linked(clearing: Option<[String; 3]>) -> Linked {
    let function = |object: &str, name: &str, position, count| PatchedFunction {
        target: Location { object: object.into(), name: name.into(), position, count },
        replacement: name.into(),
    };
    Linked {
        stem: "livepatch-x".into(),
        replace: false,
        build_id: "00ff".into(),
        mends: crate::Mends::default(),
        engine: None,
        functions: vec![
            function("mod_a", "show", 1, 1),
            function("vmlinux", "dup", 2, 3),
            function("vmlinux", "f.isra.0", 1, 1),
        ],
        callbacks: Vec::new(),
        words: Vec::new(),
        pins: Vec::new(),
        symbols: Vec::new(),
        warnings: Vec::new(),
        clearing,
        object: Object::new(),
        renamed: BTreeMap::new(),
    }
}

#[test]
fn functions_are_listed_by_object() {
    let text = source(&linked(None));
    let expected = "\
static struct klp_func kmend_functions_0[] = {
\t{ .old_name = \"show\", .new_func = kmend_new_0, .old_sympos = 0 },
\t{ }
};

static struct klp_func kmend_functions_1[] = {
\t{ .old_name = \"dup\", .new_func = kmend_new_1, .old_sympos = 2 },
\t{ .old_name = \"f.isra.0\", .new_func = kmend_new_2, .old_sympos = 0 },
\t{ }
};

static struct klp_object kmend_objects[] = {
\t{ .name = \"mod_a\", .funcs = kmend_functions_0 },
\t{ .name = NULL, .funcs = kmend_functions_1 },
\t{ }
};
";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("\t.replace = false,\n"));
    assert!(text.contains("MODULE_INFO(kmend_build_id, \"00ff\");\n"));
    assert!(!text.contains("text_poke"));
}

#[test]
fn modules_get_a_callback_where_the_kernel_does_not_clear() {
    let text = source(&linked(Some(["poke.kmend1", "sync", "mutex"].map(str::to_owned))));
    assert!(text.contains("size_t size) __asm__(\"poke.kmend1\");"), "{text}");
    assert!(
        text.contains(".funcs = kmend_functions_0, .callbacks = { .post_unpatch = kmend_post_unpatch_0 } },")
    );
    assert!(text.contains("\t{ .name = NULL, .funcs = kmend_functions_1 },"));
    assert!(!text.contains("kmend_post_unpatch_1"));
}

#[test]
fn callbacks_of_several_units_run_in_order_and_are_undone_in_reverse() {
    let callback = |moment, unit, function: &str| ObjectCallback {
        object: "mod_b".into(),
        moment,
        unit,
        name: function.into(),
        function: function.into(),
    };
    let callbacks = vec![
        callback(Moment::PrePatch, 0, "a_prepare"),
        callback(Moment::PostUnpatch, 0, "a_release"),
        callback(Moment::PrePatch, 1, "b_prepare"),
        callback(Moment::PostUnpatch, 1, "b_release"),
    ];
    let clearing = Some(["poke", "sync", "mutex"].map(str::to_owned));
    let text = source(&Linked { callbacks, ..linked(clearing) });
    let expected = "\
static int kmend_pre_patch_1(struct klp_object *object)
{
\tint error;

\terror = kmend_callback_0(object);
\tif (error) {
\t\tkmend_clear(kmend_places_1);
\t\treturn error;
\t}
\terror = kmend_callback_2(object);
\tif (error) {
\t\tkmend_callback_1(object);
\t\tkmend_clear(kmend_places_1);
\t\treturn error;
\t}
\treturn 0;
}

static void kmend_post_unpatch_1(struct klp_object *object)
{
\tkmend_callback_3(object);
\tkmend_callback_1(object);
\tkmend_clear(kmend_places_1);
}
";
    assert!(text.contains(expected), "{text}");
    // An object may have callbacks and no function.
    assert!(text.contains("static struct klp_func kmend_functions_1[] = {\n\t{ }\n};\n"), "{text}");
    assert!(text.contains(
        "\t{ .name = \"mod_b\", .funcs = kmend_functions_1, .callbacks = { .pre_patch = kmend_pre_patch_1, \
         .post_unpatch = kmend_post_unpatch_1 } },\n"
    ));
    assert!(text.contains("MODULE_INFO(kmend_callback, \"mod_b pre_patch a_prepare\");\n"));
}

fn pin(object: &str, name: &str, ends: bool) -> crate::Pin {
    let how = format!("f() gives its address to {name}_user()");
    crate::Pin { object: object.into(), name: name.into(), functions: Vec::new(), how, ends }
}

#[test]
fn what_outlives_the_livepatch_holds_its_module() {
    let pins = vec![pin("mod_b", "work", false), pin("vmlinux", "timer", true)];
    let text = source(&Linked { pins, ..linked(None) });
    let parts = [
        "static int kmend_pre_patch_1(struct klp_object *object)\n{\n\tkmend_stay();\n\treturn 0;\n}\n",
        "static int kmend_pre_patch_2(struct klp_object *object)\n{\n\tkmend_hold();\n\treturn 0;\n}\n",
        "static void kmend_post_unpatch_2(struct klp_object *object)\n{\n\tkmend_let_go();\n}\n",
        "MODULE_INFO(kmend_outlives, \"mod_b work: f() gives its address to work_user()\");\n",
        "MODULE_INFO(kmend_ends, \"vmlinux timer: f() gives its address to timer_user()\");\n",
        "MODULE_INFO(kmend_pins, \"Y\");\nstatic char *kmend_pinned_by = \"work\";\n",
    ];
    for part in parts {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(!text.contains("kmend_post_unpatch_1") && text.contains("__module_get(THIS_MODULE)"), "{text}");
    // What a callback ends does not make it stay.
    let text = source(&Linked { pins: vec![pin("vmlinux", "timer", true)], ..linked(None) });
    assert!(!text.contains("kmend_pins") && !text.contains("kmend_stay();\n\treturn"), "{text}");
    assert!(!source(&linked(None)).contains("kmend_pinned"));
}

#[test]
fn the_module_is_held_when_nothing_declines_any_more_and_let_go_at_the_end() {
    let callback = |moment, function: &str| ObjectCallback {
        object: "vmlinux".into(),
        moment,
        unit: 0,
        name: function.into(),
        function: function.into(),
    };
    let callbacks = vec![callback(Moment::PrePatch, "prepare"), callback(Moment::PostUnpatch, "end")];
    let text = source(&Linked { callbacks, pins: vec![pin("vmlinux", "timer", true)], ..linked(None) });
    assert!(text.contains("\t\treturn error;\n\t}\n\tkmend_hold();\n\treturn 0;\n}\n"), "{text}");
    assert!(text.contains("\tkmend_callback_1(object);\n\tkmend_let_go();\n}\n"), "{text}");
}

#[test]
fn literals_hold_any_bytes() {
    assert_eq!(literal("a\"b\\c\n"), "\"a\\\"b\\\\c\\012\"");
}

#[test]
fn an_alias_tells_its_number() {
    assert_eq!(alias_number(&alias(17)), Some(17));
    assert_eq!(alias_number("kmend_newer"), None);
}

#[test]
fn what_it_mends_is_told_in_the_file_and_in_sysfs() {
    let mends = crate::Mends {
        fixes: vec!["CVE-2026-1".into(), "CVE-2026-2".into()],
        subjects: vec!["say \"no\"".into()],
    };
    let text = source(&Linked { mends, ..linked(None) });
    assert!(
        text.contains(
            "MODULE_INFO(kmend_fixes, \"CVE-2026-1\");\nMODULE_INFO(kmend_fixes, \"CVE-2026-2\");\n"
        )
    );
    assert!(text.contains("static char *kmend_fixes = \"CVE-2026-1,CVE-2026-2\";\n"));
    assert!(text.contains("module_param_named(subject, kmend_subject, charp, 0444);\n"));
    assert!(text.contains("MODULE_INFO(kmend_subject, \"say \\\"no\\\"\");\n"));
    assert!(!source(&linked(None)).contains("module_param"));
}

#[test]
fn the_consistency_engine_gets_a_table_of_its_own() {
    let engine = crate::ForEngine {
        interface: "0123".into(),
        header: ("kmend_engine.h".into(), String::new()),
        model: Some("lazy".into()),
        redirect: Some("ftrace".into()),
        ..crate::ForEngine::default()
    };
    let callback = ObjectCallback {
        object: "vmlinux".into(),
        moment: Moment::PostPatch,
        unit: 0,
        name: "started".into(),
        function: "started".into(),
    };
    let text = source(&Linked { engine: Some(engine), callbacks: vec![callback], ..linked(None) });
    let parts = [
        "#include \"kmend_engine.h\"\n\nextern void kmend_living_0(void);\n",
        "static struct kmend_func kmend_functions_1[] = {\n\
         \t{ .name = \"dup\", .old_func = kmend_living_1, .new_func = kmend_new_1 },\n",
        "static void kmend_post_patch_1(struct kmend_object *from)\n{\n\
         \tstruct klp_object *object __maybe_unused =\n\
         \t\tkmend_as_livepatch(&kmend_livepatch_1, from, true);\n\
         \tkmend_callback_0(object);\n}\n",
        "static struct kmend_object kmend_objects[] = {\n\
         \t{ .name = \"mod_a\", .funcs = kmend_functions_0 },\n\
         \t{ .name = NULL, .funcs = kmend_functions_1, .post_patch = kmend_post_patch_1 },\n\t{ }\n};\n",
        "\t.replace = false,\n\t.wanted_model = \"lazy\",\n};\n",
        "return kmend_register(&kmend_patch);",
        "MODULE_INFO(kmend_engine, \"0123\");\nMODULE_INFO(kmend_model, \"lazy\");\n",
    ];
    for part in parts {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(!text.contains("klp_enable_patch") && !text.contains(".jump"), "{text}");
}
