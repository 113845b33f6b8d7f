//! What taints the kernel.

use serde::Serialize;

/// The flags: bit, letter and meaning (Linux 6.15, kernel/panic.c, `taint_flags`, and
/// Documentation/admin-guide/tainted-kernels.rst).
const FLAGS: [(u8, char, &str); 20] = [
    (0, 'P', "a proprietary module was loaded"),
    (1, 'F', "a module was loaded by force"),
    (2, 'S', "the kernel runs on a processor or system out of its specification"),
    (3, 'R', "a module was unloaded by force"),
    (4, 'M', "a processor reported a machine check"),
    (5, 'B', "a bad page was met"),
    (6, 'U', "a user asked for it"),
    (7, 'D', "the kernel died recently: an oops or a BUG"),
    (8, 'A', "an ACPI table was overridden"),
    (9, 'W', "the kernel warned"),
    (10, 'C', "a staging driver was loaded"),
    (11, 'I', "a firmware bug is worked around"),
    (12, 'O', "an out-of-tree module was loaded"),
    (13, 'E', "an unsigned module was loaded"),
    (14, 'L', "a soft lockup occurred"),
    (15, 'K', "a livepatch was loaded"),
    (16, 'X', "the distribution's own flag"),
    (17, 'T', "the layout of structures was randomised"),
    (18, 'N', "a test of the kernel was run"),
    (19, 'J', "firmware was changed by fwctl"),
];

/// What taints the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Taint {
    /// /proc/sys/kernel/tainted.
    pub value: u64,
    /// The flags in it, in the order of their bits.
    pub flags: Vec<TaintFlag>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaintFlag {
    /// Its bit.
    pub bit: u8,
    /// Its letter in an oops; `?` for a bit that is newer than this table.
    pub letter: char,
    /// What it says.
    pub meaning: &'static str,
}

impl Taint {
    /// The flags of a value.
    pub(crate) fn of(value: u64) -> Taint {
        let set = (0..64).filter(|bit| value >> bit & 1 == 1);
        let flag = |bit: u8| {
            let known = FLAGS.iter().find(|flag| flag.0 == bit);
            let (bit, letter, meaning) = known.copied().unwrap_or((bit, '?', "unknown"));
            TaintFlag { bit, letter, meaning }
        };
        Taint { value, flags: set.map(flag).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::Taint;

    #[test]
    fn every_bit_has_a_meaning() {
        let letters = |value| Taint::of(value).flags.iter().map(|flag| flag.letter).collect::<String>();
        assert_eq!(letters(0), "");
        assert_eq!(letters(32768 + 4096 + 8192), "OEK");
        assert_eq!(letters(1 << 63 | 1), "P?");
        assert_eq!(Taint::of(u64::MAX).flags.len(), 64);
    }
}
