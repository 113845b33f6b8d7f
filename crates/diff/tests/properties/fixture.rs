//! A unit with one of everything that the kernel's units have, compiled here with the machine's gcc.

use kmend_object::Object;
use kmend_process::Command;
use std::fs;
use std::sync::LazyLock;

/// The options that shape the kernel's code, as far as they matter here.
const OPTIONS: &[&str] = &[
    "-O2",
    "-c",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-pic",
    "-fno-pie",
    "-mcmodel=kernel",
    "-mno-red-zone",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-fno-stack-protector",
    "-pg",
    "-mfentry",
    "-mrecord-mcount",
    "-fno-jump-tables",
    "-fno-common",
    "-fno-strict-aliasing",
    "-fshort-wchar",
    "-w",
    "-g0",
];

/// Static locals of one name, clones, a cold part, strings of both widths, constants that merge, functions that share a
/// section, read-mostly and per-CPU variables, a table of functions, aliases, `__init` code and a list of warnings.
const SOURCE: &str = r#"
#define __section(name) __attribute__((section(name)))
#define noinline __attribute__((noinline))
int ext(const void *, long);
__attribute__((cold)) void slow(int);
struct pair { long a, b; };
void take(struct pair *);

static int total;
static int limits[4] = { 1, 2, 3, 4 };
static const int table[4] = { 5, 6, 7, 8 };
static int mostly __section(".data..read_mostly") = 3;
static int mostly_more[2] __section(".data..read_mostly") = { 4, 5 };
static int frozen __section(".data..ro_after_init") = 9;
static int per_cpu __section(".data..percpu");
const char *names[] = { "first name", "second name" };

static noinline int clone3(int x, int unused) { return ext("three", x * 3 + 7) + ext(0, x); }
static noinline int clone4(int x, int unused) { return ext("four", x * 4 + 7) + ext(0, x); }
noinline int user3(int x) { return clone3(x, 5) + clone3(x + 1, 5); }
int user4(int x) { return clone4(x, 5) + clone4(x + 1, 5); }

int count_a(void) { static int count; return ext(&count, ++count); }
int count_b(void) { static int count = 7; static long size; return ext(&count, ++count) + ++size; }
int count_c(int x)
{
	if (x) { static int state = 1; return ext(&state, ++state); }
	{ static int state = 2; return ext(&state, ++state); }
}
noinline int cold(int x) { if (__builtin_expect(x < 0, 0)) { slow(1); slow(2); slow(77); } return ext("cold", x); }
int vector(int x) { struct pair p = { 5, 7 }; take(&p); return x; }
int vectors(int x) { struct pair p = { 11, 13 }; take(&p); return x + 1; }
int texts(int x) { return ext("a text", x) + ext("another text", x) + ext(L"wide", x) + ext(__func__, x); }
int long_text(void) { return ext("a text that is longer than thirty-two characters, so gcc aligns it to 8", 1); }
int data(int x) { total += x; limits[x & 3]++; return table[x & 3] + mostly + mostly_more[x & 1] + frozen + per_cpu; }
static noinline __section(".sched.text") int inner(int x) { return ext("inner", x) * 3; }
__section(".sched.text") int outer(int x) { return inner(x) + 1; }
__section(".sched.text") int other(int x) { return ext("other", x + 3) * 7 + inner(x); }
__section(".init.text") int start(int x) { return ext("start", x); }
__attribute__((weak)) int weak(int x) { return ext(names[x & 1], x + 40); }
int same(int x) __attribute__((alias("weak")));
struct operations { int (*one)(int); int (*two)(int); const char *name; };
const struct operations operations = { user3, cold, "operations" };
int warns(int x)
{
	if (ext("warns", x))
		asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n.long 1b-.\n.long file-.\n.word 12\n.word 0\n.popsection");
	return x + 1;
}
char file[] = "unit.c";
int calls(int x) { return user3(x) + operations.two(x) + ext(cold, x); }
"#;

fn compiled(source: &str) -> Object {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unit.c"), source).unwrap();
    Command::new("gcc").args(OPTIONS).args(["unit.c", "-o", "unit.o"]).folder(folder.path()).run().unwrap();
    Object::parse(&fs::read(folder.path().join("unit.o")).unwrap()).unwrap()
}

/// The unit.
pub(crate) static ORIGINAL: LazyLock<Object> = LazyLock::new(|| compiled(SOURCE));

/// The unit after a patch to six functions, and these functions.
pub(crate) static PATCHED: LazyLock<Object> = LazyLock::new(|| {
    let edits = [
        ("x * 4 + 7", "x * 4 + 70000"),
        ("ext(&count, ++count) + ++size", "ext(&count, count += 2) + ++size"),
        ("slow(77)", "slow(78)"),
        ("11, 13", "11, 17"),
        ("\"a text\"", "\"one text\""),
        ("\"other\"", "\"OTHER\""),
    ];
    let patched = edits.iter().fold(SOURCE.to_owned(), |text, (old, new)| {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        text.replace(old, new)
    });
    compiled(&patched)
});
/// The functions that [`PATCHED`] changes, without the compiler's suffixes.
pub(crate) const CHANGED: [&str; 6] = ["clone4", "cold", "count_b", "other", "texts", "vectors"];
