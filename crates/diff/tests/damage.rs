//! Damaged objects are compared or refused, but nothing panics.

use kmend_diff::Fentry;
use kmend_object::Object;
use kmend_process::Command;
use std::fs;

const SOURCE: &str = "int ext(const char *, int); static int total; static const int table[4] = { 5, 6, 7, 8 };
    __attribute__((cold)) void slow(int);
    __attribute__((section(\".sched.text\"), noinline)) static int inner(int x) { return ext(\"inner\", x) * 3; }
    __attribute__((section(\".sched.text\"))) int outer(int x) { return inner(x) + 1; }
    int f(int x) { static int calls; if (__builtin_expect(x < 0, 0)) { slow(1); slow(2); }
        total += x; calls++; return ext(\"text\", table[x & 3] + total + calls); }
    int g(int x) { asm volatile(\"1: ud2\\n.pushsection __bug_table,\\\"aw\\\"\\n.long 1b-.\\n.long total-.\\n\"
        \".word 7\\n.word 0\\n.popsection\"); return f(x) + ext(\"g\", (int)(long)g); }";

fn compiled(source: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("unit.c"), source).unwrap();
    let options =
        ["-O2", "-c", "-ffunction-sections", "-fdata-sections", "-fno-pic", "-mcmodel=kernel", "-w"];
    Command::new("gcc").args(options).args(["unit.c", "-o", "unit.o"]).folder(folder.path()).run().unwrap();
    fs::read(folder.path().join("unit.o")).unwrap()
}

#[test]
fn no_damage_panics() {
    let original = compiled(SOURCE);
    let patched =
        compiled(&SOURCE.replace("total += x", "total += x + 70000").replace("\"inner\"", "\"INNER\""));
    let good = Object::parse(&original).unwrap();
    let rounds = std::env::var("KMEND_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    let mut compared = 0;
    for _ in 0..rounds {
        let mut bytes = patched.clone();
        for _ in 0..=next(6) {
            let at = next(bytes.len());
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, next(256) as u8][next(6)];
        }
        let Ok(damaged) = Object::parse(&bytes) else { continue };
        compared += 1;
        let fentry = [Fentry::IfUsed, Fentry::OrRoom][next(2)];
        for (one, other) in [(&good, &damaged), (&damaged, &good)] {
            if let Ok(delta) = kmend_diff::compare(one, other, fentry) {
                let _ = delta.extract.object.write();
            }
        }
    }
    assert!(compared > rounds / 10, "most damage must leave a readable object: {compared} of {rounds}");
}
