use super::*;
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
        functions: vec![
            function("mod_a", "show", 1, 1),
            function("vmlinux", "dup", 2, 3),
            function("vmlinux", "f.isra.0", 1, 1),
        ],
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
    assert!(text.contains(".funcs = kmend_functions_0, .callbacks = { .post_unpatch = kmend_clear_0 } },"));
    assert!(text.contains("\t{ .name = NULL, .funcs = kmend_functions_1 },"));
    assert!(!text.contains("kmend_clear_1"));
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
