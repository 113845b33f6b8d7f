//! The parsers on damaged input: seeds, truncated and changed at random, must give an error or a value, and
//! never a panic or memory without bound.
//!
//! The changes come from a fixed start, so that a failure can be repeated: it names the seed and the round.
//! `KMEND_FUZZ_ROUNDS` sets the number of rounds for each seed.

mod seed;

use kmend_kernel::{Btf, Image, Module};
use seed::Kernel;
use seed::kallsyms::{Encoding, Order};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Rounds for each of the 15 seeds, where the environment does not say.
const ROUNDS: u64 = 400;
/// What the whole test may hold at its highest, in KiB. The seeds are below 50 KiB each; unpacking may make
/// 16 MiB and 64 times of it, and a window of some formats.
const MOST_MEMORY: u64 = 512 << 10;

/// A small generator of numbers (Marsaglia, "Xorshift RNGs", 2003): good enough to place damage.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Changes the bytes in one to four places.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    const WORDS: [u32; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (random.next() & 7)),
            2 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next() as u8),
            3 => {
                let word = WORDS[random.below(WORDS.len())].to_le_bytes();
                let target = bytes.iter_mut().skip(at & !3).zip(word);
                target.for_each(|(byte, new)| *byte = new);
            }
            4 => {
                // A piece of it once more: tables overlap, counts no longer fit.
                let from = random.below(bytes.len());
                let piece: Vec<u8> = bytes.iter().skip(from).take(random.below(64)).copied().collect();
                bytes.splice(at..at, piece);
            }
            _ => {
                let end = (at + random.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
        }
    }
}

fn rounds() -> u64 {
    std::env::var("KMEND_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// The highest memory that this process has held, in KiB.
fn highest_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Runs a parser on a seed, on the seed cut at 64 places, and on damaged copies of it.
fn run(name: &str, seed: &[u8], parse: impl Fn(Vec<u8>) -> bool) {
    assert!(seed.len() < 50 << 10, "the seed {name} is too large");
    assert!(parse(seed.to_vec()), "the seed {name} itself is not accepted");
    let cuts = (0..64).map(|part| seed[..seed.len() * part / 64].to_vec());
    let damaged = (0..rounds()).map(|round| {
        let mut bytes = seed.to_vec();
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ round.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        damage(&mut bytes, &mut random);
        bytes
    });
    for (round, bytes) in cuts.chain(damaged).enumerate() {
        let outcome = catch_unwind(AssertUnwindSafe(|| parse(bytes)));
        assert!(outcome.is_ok(), "{name}: round {round} panics");
    }
    let highest = highest_memory();
    assert!(highest < MOST_MEMORY, "{name}: {highest} KiB were held");
}

fn image(bytes: Vec<u8>) -> bool {
    let Ok(image) = Image::parse(bytes) else { return false };
    // What is read later must hold too.
    for symbol in image.symbols().all().iter().take(100) {
        let _ = image.symbols().position(symbol);
        let _ = image.read(symbol.address, 64);
    }
    let _ = image.btf().and_then(|btf| btf.structure("pair")?.member("nothing"));
    true
}

#[test]
fn kernels_in_each_layout() {
    for order in [Order::AddressesFirst, Order::AddressesLast] {
        for encoding in [Encoding::Absolute, Encoding::PercpuRelative] {
            let kernel = Kernel { order, encoding, symtab: true, ..Kernel::default() };
            run(&format!("vmlinux {order:?} {encoding:?}"), &kernel.vmlinux(), image);
        }
    }
}

#[test]
fn boot_images_in_each_packing() {
    let vmlinux = Kernel::default().vmlinux();
    for (name, pack) in seed::PACKS {
        run(&format!("bzImage {name}"), &seed::bzimage(&vmlinux, pack), image);
    }
}

#[test]
fn types() {
    run("BTF", &seed::btf(), |bytes| {
        let Ok(btf) = Btf::parse(&bytes) else { return false };
        let _ = btf.structure("pair").and_then(|pair| pair.member("b"));
        true
    });
}

#[test]
fn modules_packed_or_not() {
    let plain = seed::module();
    let packed = [("gzip", seed::gzip(&plain)), ("xz", seed::xz(&plain)), ("zstd", seed::zstd(&plain))];
    for (name, bytes) in [("plain", plain)].into_iter().chain(packed) {
        run(&format!("module {name}"), &bytes, |bytes| {
            let Ok(module) = Module::parse(&bytes) else { return false };
            for id in module.object().symbol_ids() {
                let _ = module.position(id);
            }
            let _ = (module.depends().count(), module.soft_depends().count());
            true
        });
    }
}
