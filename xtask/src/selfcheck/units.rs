//! Which units are looked at: evenly over the tree, so that no list has to be kept.

use super::Subject;
use kmend_compile::{Owner, Unit, runs_elsewhere};
use std::collections::BTreeSet;
use std::path::Path;

/// Which units an area has: modules, or what is below a folder and built into the image.
const AREAS: [(&str, &str); 10] = [
    ("kernel", "kernel/"),
    ("mm", "mm/"),
    ("fs", "fs/"),
    ("net", "net/"),
    ("drivers", "drivers/"),
    ("arch", "arch/x86/"),
    ("lib", "lib/"),
    ("block", "block/"),
    ("security", "security/"),
    (MODULES, ""),
];
const MODULES: &str = "modules";

/// The sources of `count` units: of each area the same number, as far as it has so many, and evenly within it.
pub(crate) fn pick(subject: &Subject, count: usize) -> Vec<String> {
    let areas: Vec<Vec<&str>> =
        AREAS.iter().map(|(area, folder)| sources(subject, *area == MODULES, folder)).collect();
    let shares = shares(&areas.iter().map(Vec::len).collect::<Vec<_>>(), count);
    areas.iter().zip(shares).flat_map(|(sources, share)| evenly(sources, share)).map(str::to_owned).collect()
}

fn sources<'a>(subject: &'a Subject, modules: bool, folder: &str) -> Vec<&'a str> {
    let belongs = |unit: &&Unit| {
        Path::new(&unit.source).extension().is_some_and(|extension| extension == "c")
            && modules == (unit.owner != Owner::Vmlinux)
            && unit.source.starts_with(folder)
            // A patch to what runs elsewhere than in the kernel that is mended is always refused.
            && [&unit.source, &unit.object].iter().all(|path| runs_elsewhere(path).is_none())
            // Nor is there a patch to what the build writes.
            && subject.kernel.source.join(&unit.source).is_file()
    };
    let found: BTreeSet<&str> =
        subject.prepared.database.units().iter().filter(belongs).map(|unit| unit.source.as_str()).collect();
    found.into_iter().collect()
}

/// How much of `count` each group of these sizes gets: one in turn, until all is given or nothing is left.
pub(crate) fn shares(sizes: &[usize], count: usize) -> Vec<usize> {
    let mut shares = vec![0; sizes.len()];
    let mut left = count.min(sizes.iter().sum());
    while left > 0 {
        for (share, size) in shares.iter_mut().zip(sizes) {
            if left > 0 && *share < *size {
                *share += 1;
                left -= 1;
            }
        }
    }
    shares
}

/// `count` elements, from the middle of as many equal pieces.
pub(crate) fn evenly<T: Copy>(all: &[T], count: usize) -> Vec<T> {
    let count = count.min(all.len());
    (0..count).filter_map(|number| all.get((2 * number + 1) * all.len() / (2 * count)).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_picked_evenly() {
        assert_eq!(evenly(&["a", "b", "c", "d", "e", "f"], 3), ["b", "d", "f"]);
        assert_eq!(evenly(&["a", "b"], 5), ["a", "b"]);
        assert!(evenly(&[0; 0], 3).is_empty());
    }

    #[test]
    fn small_groups_give_what_they_have() {
        assert_eq!(shares(&[100, 1, 5], 12), [6, 1, 5]);
        assert_eq!(shares(&[1, 1], 12), [1, 1]);
    }
}
