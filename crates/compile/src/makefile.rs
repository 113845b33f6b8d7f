//! What a patch to a Makefile adds to the kernel: objects of new files.
//!
//! Format: Documentation/kbuild/makefiles.rst, "The kbuild files": `obj-y += NAME.o` makes an object a part of the kernel,
//! `NAME-y` and `NAME-objs` list the objects of a composite one; the ending may be an option of the
//! configuration. All else in a Makefile says how the kernel is built, and is not changed in a kernel that runs.

use std::collections::BTreeMap;

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The list's name up to its last hyphen: `obj`, `lib`, or a composite object's.
    pub list: String,
    /// What follows: `y`, `m`, `objs` or an option of the configuration.
    pub condition: String,
    /// The object's name without `.o`.
    pub object: String,
}

/// What differs between two versions of a Makefile.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Objects that are listed now and were not.
    pub added: Vec<Entry>,
    /// Objects that were listed and are not any more.
    pub removed: Vec<Entry>,
    /// The first line that is no list of objects and differs.
    pub other: Option<String>,
}

/// Compares two versions.
pub fn difference(original: &str, patched: &str) -> Difference {
    let (original, patched) = (Counted::of(original), Counted::of(patched));
    let (added, more) = patched.beyond(&original);
    let (removed, less) = original.beyond(&patched);
    Difference { added, removed, other: more.or(less) }
}

/// All objects that a Makefile lists.
pub fn listed(text: &str) -> Vec<Entry> {
    Counted::of(text).entries.into_keys().collect()
}

/// Objects and other lines, each with how often it stands there.
#[derive(Default)]
struct Counted {
    entries: BTreeMap<Entry, usize>,
    others: BTreeMap<String, usize>,
}

impl Counted {
    fn of(text: &str) -> Self {
        let mut counted = Self::default();
        for line in text.replace("\\\n", " ").lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            match entries(line) {
                Some(entries) => {
                    for entry in entries {
                        *counted.entries.entry(entry).or_default() += 1;
                    }
                }
                None => *counted.others.entry(line.to_owned()).or_default() += 1,
            }
        }
        counted
    }

    /// What stands here more often than there.
    fn beyond(&self, other: &Self) -> (Vec<Entry>, Option<String>) {
        let more = |(entry, count): (&Entry, &usize)| {
            (*count > other.entries.get(entry).copied().unwrap_or(0)).then(|| entry.clone())
        };
        let line =
            self.others.iter().find(|(line, count)| **count > other.others.get(*line).copied().unwrap_or(0));
        (self.entries.iter().filter_map(more).collect(), line.map(|(line, _)| line.clone()))
    }
}

/// The objects of a line that is a list of objects.
fn entries(line: &str) -> Option<Vec<Entry>> {
    let (name, objects) = line.split_once('=')?;
    let name = name.trim_end_matches([':', '+']).trim();
    let (list, condition) = name.rsplit_once('-')?;
    let option = condition.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')'));
    let condition = option.unwrap_or(condition);
    if !matches!(condition, "y" | "m" | "objs") && !option.is_some_and(|option| option.starts_with("CONFIG_"))
    {
        return None;
    }
    let is_name =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
    let entry = |word: &str| {
        let object = word.strip_suffix(".o").filter(|object| is_name(object))?;
        Some(Entry { list: list.to_owned(), condition: condition.to_owned(), object: object.to_owned() })
    };
    if !is_name(list) {
        return None;
    }
    objects.split_whitespace().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKEFILE: &str =
        "# comment\nobj-$(CONFIG_A) += a.o\na-y := b.o \\\n\tc.o\nccflags-y := -DX\nobj-y += sub/\n";

    fn entry(list: &str, condition: &str, object: &str) -> Entry {
        Entry { list: list.to_owned(), condition: condition.to_owned(), object: object.to_owned() }
    }

    #[test]
    fn objects_are_told_from_the_rest() {
        let patched = MAKEFILE.replace("c.o", "c.o d.o").replace("+= a.o", "+= a.o e.o # why");
        let found = difference(MAKEFILE, &patched);
        assert_eq!(found.added, [entry("a", "y", "d"), entry("obj", "CONFIG_A", "e")]);
        assert!(found.removed.is_empty() && found.other.is_none());
        assert_eq!(difference(&patched, MAKEFILE).removed.len(), 2);
    }

    #[test]
    fn lines_and_order_do_not_count() {
        let patched = MAKEFILE.replace("a-y := b.o \\\n\tc.o", "a-y := c.o\na-y += b.o\n\n# more");
        assert_eq!(difference(MAKEFILE, &patched), Difference::default());
    }

    #[test]
    fn anything_else_is_named() {
        let other = |from: &str, to: &str| difference(MAKEFILE, &MAKEFILE.replace(from, to)).other;
        assert_eq!(other("-DX", "-DY").as_deref(), Some("ccflags-y := -DY"));
        assert_eq!(other("sub/", "").as_deref(), Some("obj-y += sub/"));
        assert_eq!(other("# comment", "CFLAGS_a.o = -O1").as_deref(), Some("CFLAGS_a.o = -O1"));
        assert_eq!(other("# comment", "ifdef X").as_deref(), Some("ifdef X"));
    }
}
