//! CRCs of exported symbols, with a genksyms that knows one line.

mod support;

use kmend_compile::{ExportChange, Exports, patch_and_compile, prepare};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use support::{Kernel, patch, write};

/// What stands for genksyms: the CRC of `count` is that of the line that declares it.
const GENKSYMS: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
	case $1 in -T) types=$2;; -r) reference=$2;; esac
	shift
done
line=$(grep ' count(')
[ -n "$types" ] && echo "$line" > "$types"
[ -s "$reference" ] && [ "$line" != "$(cat "$reference")" ] &&
	echo "fs/main.c:9: warning: count: modversion changed because of changes in count, struct s" >&2
printf '#SYMVER count 0x%08x\n' "$(echo "$line" | cksum | cut -d' ' -f1)"
"#;

/// The declaration of `count()` becomes another one.
const DECLARATION: &str = "@@ -11,1 +11,1 @@\n-int count(void)\n+long count(void)\n";

fn kernel() -> Kernel {
    let mut kernel = Kernel::new();
    let headers = kernel.folder.path().join("headers");
    write(&headers, "scripts/genksyms/genksyms", GENKSYMS);
    let program = headers.join("scripts/genksyms/genksyms");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    kernel.target.headers = Some(headers);
    kernel
}

/// Compares the CRC of `count` before and after a patch of fs/main.c.
fn compare(kernel: &Kernel, hunk: &str, shipped: Option<u32>) -> Exports {
    let prepared = prepare(&kernel.target, &|_| ()).unwrap();
    let patches = [patch("fs/main.c", hunk)];
    let outcome =
        patch_and_compile(&kernel.target, &prepared, &patches, &kernel.scratch(), &|_| (), &|_| Vec::new())
            .unwrap();
    let shipped = BTreeMap::from([("count".to_owned(), shipped)]);
    outcome.compare_exports(&kernel.target, &prepared, &outcome.units[0].unit, &shipped).unwrap()
}

fn the_change(exports: &Exports) -> &ExportChange {
    let [change] = exports.changed.as_slice() else { panic!("{exports:?}") };
    change
}

#[test]
fn a_changed_declaration_is_found_with_both_crcs_and_what_is_behind_it() {
    let kernel = kernel();
    let found = compare(&kernel, DECLARATION, None);
    let change = the_change(&found);
    assert_eq!(change.causes, BTreeSet::from(["count".to_owned(), "struct s".to_owned()]));
    assert!(change.before.is_some() && change.after.is_some() && change.before != change.after);
    let again = compare(&kernel, DECLARATION, change.before);
    assert_eq!(the_change(&again), change);
    assert!(again.notes.is_empty(), "{again:?}");
    let as_shipped = compare(&kernel, DECLARATION, change.after);
    assert!(as_shipped.changed.is_empty() && as_shipped.notes.is_empty(), "{as_shipped:?}");
}

#[test]
fn a_source_that_does_not_give_the_shipped_crc_is_told_of() {
    let found = compare(&kernel(), DECLARATION, Some(7));
    let [note] = found.notes.as_slice() else { panic!("{found:?}") };
    assert!(note.text.ends_with("and 0x00000007 in Module.symvers"), "{note:?}");
    let new_line = "@@ -3,0 +4,1 @@\n+extern int more;\n";
    let same = compare(&kernel(), new_line, Some(7));
    assert!(same.changed.is_empty() && same.notes.len() == 1, "{same:?}");
}

#[test]
fn a_change_of_a_body_needs_no_genksyms() {
    let body = "@@ -13,1 +13,1 @@\n-\tcounter += STEP;\n+\tcounter += STEP + 1;\n";
    let found = compare(&kernel(), body, Some(7));
    assert!(found.changed.is_empty() && found.notes.is_empty(), "{found:?}");
}

#[test]
fn a_missing_genksyms_is_told_of() {
    let found = compare(&Kernel::new(), DECLARATION, Some(7));
    assert!(found.changed.is_empty(), "{found:?}");
    assert!(found.notes[0].text.contains("scripts/genksyms/genksyms"), "{found:?}");
}

#[test]
fn where_the_build_runs_no_genksyms_nothing_is_compared() {
    let kernel = kernel();
    let makefile = fs::read_to_string(kernel.target.source.join("Makefile")).unwrap();
    write(&kernel.target.source, "Makefile", &makefile.replace("-D__GENKSYMS__", ""));
    let found = compare(&kernel, DECLARATION, Some(7));
    assert!(found.changed.is_empty() && found.notes.is_empty(), "{found:?}");
}
