//! Mutated patches and dry runs: whatever is read, nothing panics. The rounds are the same in every run;
//! `KMEND_FUZZ_ROUNDS` asks for more.

use kmend_compile::foreign;

const PATCH: &[u8] = b"diff --git a/fs/a.c b/fs/a.c\nindex 1..2 100644\n--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,4 +1,5 @@ int f\n \
    /* one\n-two */\n+two\n+three */\n int a;\n \n@@ -7,2 +8,1 @@\n #endif\n-int d;\n\\ No newline at end of file\n\
    diff --git \"a/x\\303.c\" b/y.c\nrename from x\nnew file mode 1\nGIT binary patch\n--- /dev/null\n+++ b/n.c\n@@ -0,0 +1 @@\n+x\n";
const FILE: &[u8] = b"/* one\ntwo */\nint a;\n\n#if B\nint c = '(' + (1);\n#endif\nint d;";
const DRY_RUN: &[u8] = b"' PIPE; printf '%s\\n'   b/c.o | awk 'x' > a/m.mod; scripts/basic/fixdep a/.c.d a/c.o 'gcc -D__KERNEL__ \
    -DMODULE -c -o a/c.o a/c.c ; ./tools/objtool/objtool --orc a/c.o' > a/.c.cmd\n";

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
}

/// A few changes: bytes, pieces cut out or doubled, numbers made huge.
fn mutated(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(5) {
        let at = random.below(bytes.len());
        let end = (at + random.below(20)).min(bytes.len());
        match random.below(5) {
            0 => bytes.splice(at..end, []).for_each(drop),
            1 => bytes.extend_from_within(at..end),
            2 => bytes.splice(at..at, b"4294967295".iter().copied()).for_each(drop),
            3 => bytes.insert(at, b"\n\\\"'@-+ \r\t/(#\0\xff"[random.below(15)]),
            _ => bytes.truncate(end),
        }
    }
    bytes
}

fn rounds() -> u64 {
    std::env::var("KMEND_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3000)
}

#[test]
fn mutated_patches_do_no_harm() {
    for round in 0..rounds() {
        let mut random = Random(round);
        let (patch, file) = (mutated(PATCH, &mut random), mutated(FILE, &mut random));
        foreign::patch_round(&patch, &file);
    }
}

#[test]
fn mutated_dry_runs_do_no_harm() {
    for round in 0..rounds() {
        foreign::dry_run(&mutated(DRY_RUN, &mut Random(round)));
    }
}
