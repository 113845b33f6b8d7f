use super::*;

/// A dry run as kbuild prints it, of one unit of the image, one of a module, a host program and assembly.
const LOG: &str = concat!(
    "gcc-12 -o scripts/genksyms/genksyms scripts/genksyms/genksyms.o scripts/genksyms/parse.tab.o\n",
    "set -e;  echo '  gcc-12 -c -o mm/slub.o mm/slub.c';    trap 'rm -f mm/slub.o; kill -s PIPE $$' PIPE; ",
    "gcc-12 -Wp,-MMD,mm/.slub.o.d -D__KERNEL__ -O2 -DKBUILD_MODNAME='\"slub\"' -c -o mm/slub.o mm/slub.c   ; ",
    "./tools/objtool/objtool --orc --uaccess   mm/slub.o; if nm mm/slub.o 2>/dev/null | grep -q __ksymtab; then ",
    "gcc-12 -E -D__GENKSYMS__ mm/slub.c | ./scripts/genksyms/genksyms   -r /dev/null >> mm/.slub.o.cmd; fi; ",
    "scripts/basic/fixdep mm/.slub.o.d mm/slub.o ",
    "'gcc-12 -Wp,-MMD,mm/.slub.o.d -D__KERNEL__ -O2 -DKBUILD_MODNAME='\\''\"slub\"'\\'' -c -o mm/slub.o mm/slub.c   ; ",
    "./tools/objtool/objtool --orc --uaccess   mm/slub.o' > mm/.slub.o.cmd\n",
    "scripts/basic/fixdep a/b/.c.o.d a/b/c.o 'gcc-12 -Wp,-MMD,a/b/.c.o.d -D__KERNEL__ -DMODULE ",
    "-DKBUILD_MODNAME='\\''\"x\"'\\'' -c -o a/z/../b/c.o a/z/../b/c.c' > a/b/.c.o.cmd\n",
    "set -e; trap 'x' PIPE; printf '%s\\n'   z/../b/c.o d.o | awk '!x[$0]++ { print(\"a/\"$0) }' > a/my-mod.mod; printf\n",
    "set -e; trap 'x' PIPE; printf '%s\\n'   d.o b/c.o | awk '!x[$0]++ { print(\"a/\"$0) }' > a/other.mod; printf\n",
    "ld -r -o a/my-mod.o; ./tools/objtool/objtool --orc --link --module a/my-mod.o\n",
    "ld -r -o vmlinux.o; ./tools/objtool/objtool --orc --link vmlinux.o;\n",
    "scripts/basic/fixdep scripts/.x.d scripts/x 'gcc-12 -O2 -o scripts/x scripts/x.c' > y\n",
    "scripts/basic/fixdep l/.m.d l/m.o 'gcc-12 -D__KERNEL__ -D__ASSEMBLY__ -c -o l/m.o l/m.S' > y\n",
);

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_dry_run_gives_units_owners_and_objtool() {
    let database = Database::from_dry_run(LOG.as_bytes()).unwrap();
    assert_eq!(database.units().len(), 2);
    let [slub] = database.units_of("mm/slub.c") else { panic!("{database:?}") };
    assert_eq!(slub.arguments, ["-D__KERNEL__", "-O2", "-DKBUILD_MODNAME=\"slub\""]);
    assert_eq!((slub.object.as_str(), &slub.owner), ("mm/slub.o", &Owner::Vmlinux));
    assert_eq!(slub.objtool, Some(words("--orc --uaccess")));
    let [unit] = database.units_of("a/b/c.c") else { panic!("{database:?}") };
    assert_eq!(unit.owner, Owner::Module { name: "my_mod".to_owned(), file: "a/my-mod".to_owned() });
    assert_eq!(unit.shared_by, [Owner::Module { name: "other".to_owned(), file: "a/other".to_owned() }]);
    assert_eq!(unit.objtool, None);
    assert_eq!((unit.named.as_str(), unit.object.as_str()), ("a/z/../b/c.c", "a/b/c.o"));
    assert_eq!(database.objtool.module, Some(words("--orc --link --module")));
    assert_eq!(database.objtool.vmlinux, Some(words("--orc --link")));
    assert_eq!(database.genksyms, Some(words("-r /dev/null")));
    assert_eq!(database.units_of("mm/none.c"), []);
}

#[test]
fn it_reads_back_what_it_wrote_and_only_for_its_fingerprint() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("database.json");
    let database = Database::from_dry_run(LOG.as_bytes()).unwrap();
    let database = Database { recipes: Some(Recipes::of(LOG.as_bytes(), scratch.path())), ..database };
    database.write(&path, "one").unwrap();
    assert_eq!(Database::read(&path, "one"), Some(database));
    assert_eq!(Database::read(&path, "two"), None);
    fs::write(&path, "{").unwrap();
    assert_eq!(Database::read(&path, "one"), None);
}

#[test]
fn an_empty_dry_run_is_an_error() {
    assert!(Database::from_dry_run(b"make: nothing to be done\n").is_err());
}

#[test]
fn debug_flags_go_and_code_flags_stay() {
    assert!(asks_for_debug_information("-g") && asks_for_debug_information("-gdwarf-5"));
    assert!(!asks_for_debug_information("-falign-functions=16"));
}
