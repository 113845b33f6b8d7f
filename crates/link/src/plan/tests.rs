use super::*;
use crate::double::{Kernel, Matched, Unit, location};

/// Resolves one reference for a unit of `owner`.
fn resolved(
    owner: &str,
    reference: Reference,
    matched: Matched,
    kernel: &Kernel,
) -> Result<Resolution, Code> {
    let unit = Unit::new();
    resolve(&unit.input("a.c", owner, &matched), &reference, kernel).map_err(|unresolved| unresolved.code)
}

fn external(name: &str) -> Reference {
    Reference::External { name: name.into() }
}

fn of_unit(name: &str) -> Reference {
    Reference::Original { name: name.into() }
}

/// `OBJECT.NAME,POSITION` and the object whose sections hold the relocations.
fn shown(resolution: &Resolution) -> String {
    match resolution {
        Resolution::Export => "export".into(),
        Resolution::Livepatch { target, applied_with } => {
            format!("{}.{},{} with {applied_with}", target.object, target.name, target.sympos())
        }
    }
}

fn check(owner: &str, reference: Reference, matched: Matched, kernel: &Kernel, expect: &str) {
    let name = reference.name().to_owned();
    let result = resolved(owner, reference, matched, kernel);
    let result = result.as_ref().map_or_else(|code| code.name().to_owned(), shown);
    assert_eq!(result, expect, "{name} in {owner}");
}

fn kernel() -> Kernel {
    Kernel::default()
        .export("memcpy", VMLINUX, false)
        .export("in_namespace", VMLINUX, true)
        .export("of_a", "mod_a", false)
        .export("of_b", "mod_b", false)
        .symbol(VMLINUX, "memcpy", &[true])
        .symbol(VMLINUX, "in_namespace", &[true])
        .symbol(VMLINUX, "unique", &[true])
        .symbol("mod_a", "one_global", &[false])
        .symbol(VMLINUX, "static", &[false])
        .symbol(VMLINUX, "one_global", &[false, true, false])
        .symbol(VMLINUX, "two_globals", &[true, true])
        .symbol(VMLINUX, "all_static", &[false, false])
        .symbol("mod_a", "of_a", &[true])
        .symbol("mod_a", "hidden", &[true])
        .symbol("mod_a", "__SCT__call", &[true])
        .symbol("mod_b", "of_b", &[true])
        .need("mod_a", "mod_b")
}

#[test]
fn other_units_symbols() {
    let kernel = kernel();
    let cases = [
        (VMLINUX, "memcpy", "export"),
        ("mod_a", "memcpy", "export"),
        (VMLINUX, "in_namespace", "vmlinux.in_namespace,0 with vmlinux"),
        ("mod_a", "unique", "vmlinux.unique,0 with vmlinux"),
        (VMLINUX, "one_global", "vmlinux.one_global,2 with vmlinux"),
        (VMLINUX, "two_globals", "KM0303"),
        (VMLINUX, "static", "KM0432"),
        (VMLINUX, "all_static", "KM0432"),
        ("mod_a", "all_static", "KM0432"),
        // The module's own is static, so vmlinux's is meant.
        ("mod_a", "one_global", "vmlinux.one_global,2 with vmlinux"),
        (VMLINUX, "nowhere", "KM0410"),
        ("mod_a", "hidden", "mod_a.hidden,0 with mod_a"),
        ("mod_a", "of_b", "mod_b.of_b,0 with mod_a"),
        // mod_b can be loaded without mod_a, and vmlinux without any.
        ("mod_b", "of_a", "KM0440"),
        (VMLINUX, "of_a", "KM0410"),
        ("mod_a", "__SCT__call", "mod_a.__SCT__call,0 with mod_a"),
    ];
    for (owner, name, expect) in cases {
        check(owner, external(name), Matched::default(), &kernel, expect);
    }
}

#[test]
fn the_match_decides_between_symbols_of_one_name() {
    let matched = || Matched::default().at("two_globals", location(VMLINUX, "two_globals", 2, 2));
    check(VMLINUX, external("two_globals"), matched(), &kernel(), "vmlinux.two_globals,2 with vmlinux");
    check("mod_a", external("two_globals"), matched(), &kernel(), "vmlinux.two_globals,2 with vmlinux");
}

#[test]
fn the_units_own_symbols() {
    let kernel = kernel();
    let at = |name: &str, target: Location| Matched::default().at(name, target);
    let cases = [
        (VMLINUX, "memcpy", at("memcpy", location(VMLINUX, "memcpy", 1, 1)), "export"),
        // A static function by the name of an exported one.
        (VMLINUX, "memcpy", at("memcpy", location(VMLINUX, "memcpy", 2, 2)), "vmlinux.memcpy,2 with vmlinux"),
        // The compiler numbered it differently.
        (VMLINUX, "n.1", at("n.1", location(VMLINUX, "n.7", 1, 1)), "vmlinux.n.7,0 with vmlinux"),
        ("mod_a", "x", at("x", location("mod_a", "x", 3, 4)), "mod_a.x,3 with mod_a"),
        (VMLINUX, "unique", Matched::default(), "vmlinux.unique,0 with vmlinux"),
        (VMLINUX, "one_global", Matched::default(), "KM0303"),
        (VMLINUX, "nowhere", Matched::default(), "KM0302"),
    ];
    for (owner, name, matched, expect) in cases {
        check(owner, of_unit(name), matched, &kernel, expect);
    }
}

#[test]
fn names_that_the_loader_cannot_read() {
    let long = "x".repeat(512);
    let cases = [
        location(VMLINUX, &long, 1, 1),
        location(VMLINUX, "a,b", 1, 1),
        location(&"m".repeat(56), "a", 1, 1),
        location("a.b", "a", 1, 1),
    ];
    for target in cases {
        let owner = target.object.clone();
        check(&owner, of_unit("a"), Matched::default().at("a", target), &Kernel::default(), "KM0503");
    }
}

#[test]
fn a_trampoline_has_a_key() {
    assert_eq!(static_call_key(&external("__SCT__foo")), Some(external("__SCK__foo")));
    assert_eq!(static_call_key(&of_unit("__SCT__foo")), Some(of_unit("__SCK__foo")));
    assert_eq!(static_call_key(&external("foo")), None);
}

#[test]
fn what_is_freed_after_the_start_is_refused() {
    let kernel = kernel().free("unique").free("one_global");
    check(VMLINUX, external("one_global"), Matched::default(), &kernel, "KM0402");
    let matched = || Matched::default().at("unique", location(VMLINUX, "unique", 1, 1));
    check(VMLINUX, of_unit("unique"), matched(), &kernel, "KM0402");
    check("mod_a", external("unique"), Matched::default(), &kernel, "KM0402");
}
