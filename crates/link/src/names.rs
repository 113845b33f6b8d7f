//! The limits of names, and names that are unique in the merged object.

use kmend_refusal::{Code, Refusal};
use std::collections::BTreeSet;

/// `MODULE_NAME_LEN` is `64 - sizeof(unsigned long)` with the terminating NUL (include/linux/moduleparam.h);
/// the livepatch loader reads object names with `%55[^.]` (kernel/livepatch/core.c, `klp_resolve_symbols`).
pub(crate) const LONGEST_OBJECT: usize = 55;
/// `KSYM_NAME_LEN` is 512 with the terminating NUL since Linux 6.1 (b8a94bfb3395); older kernels hold no
/// symbol of more than 127 characters, so that none is ever asked for.
pub(crate) const LONGEST_SYMBOL: usize = 511;
/// Before a patch's name in that of its module.
const PREFIX: &str = "livepatch-";

/// The longest name of a patch, in bytes.
pub const LONGEST_NAME: usize = LONGEST_OBJECT - PREFIX.len();

/// Checks that a module can be called so.
pub fn check_patch_name(name: &str) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if name.len() > LONGEST_NAME {
        let why = format!("the kernel allows at most {LONGEST_NAME} characters for a livepatch's name");
        refusals.push(Refusal::new(Code::NameTooLong, name, why));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        let why = "a livepatch's name consists of letters, digits, `-` and `_`";
        refusals.push(Refusal::new(Code::Usage, name, why));
    }
    refusals
}

/// Hands out names that are not taken yet.
#[derive(Debug, Default)]
pub(crate) struct UniqueNames(BTreeSet<String>);

impl UniqueNames {
    /// Takes `name`, or the first of `name.kmend1`, `name.kmend2` … that is free.
    pub(crate) fn take(&mut self, name: &str) -> String {
        if self.0.insert(name.to_owned()) { name.to_owned() } else { self.take_other(name) }
    }

    /// Takes a name that begins with `name` but is not it.
    pub(crate) fn take_other(&mut self, name: &str) -> String {
        let mut number = 1_u32;
        loop {
            let candidate = format!("{name}.kmend{number}");
            if self.0.insert(candidate.clone()) {
                return candidate;
            }
            number += 1;
        }
    }
}

/// A function's name without the part that the compiler appends for a split-off cold part: objtool finds
/// the function a cold part belongs to by this name (tools/objtool/elf.c, `read_symbols`).
pub(crate) fn split_cold(name: &str) -> (&str, &str) {
    name.find(".cold").map_or((name, ""), |at| name.split_at(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_name_must_fit_the_kernel() {
        let codes = |name: &str| check_patch_name(name).iter().map(|r| r.code).collect::<Vec<_>>();
        assert_eq!(codes("meminfo-2"), []);
        assert_eq!(codes(&"x".repeat(45)), []);
        assert_eq!(codes(&"x".repeat(46)), [Code::NameTooLong]);
        assert_eq!(codes("a.b"), [Code::Usage]);
        assert_eq!(codes(""), [Code::Usage]);
    }

    #[test]
    fn taken_names_get_a_number() {
        let mut names = UniqueNames::default();
        assert_eq!(names.take("foo"), "foo");
        assert_eq!(names.take("foo"), "foo.kmend1");
        assert_eq!(names.take_other("foo"), "foo.kmend2");
        assert_eq!(names.take("bar"), "bar");
    }

    #[test]
    fn a_cold_part_is_split_off() {
        assert_eq!(split_cold("foo.isra.0.cold"), ("foo.isra.0", ".cold"));
        assert_eq!(split_cold("foo.part.1"), ("foo.part.1", ""));
    }
}
