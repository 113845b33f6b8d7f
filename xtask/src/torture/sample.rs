//! What a guest's kernel holds: modules, virtual memory and objects of its caches.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// Objects of a cache that come and go with any work. To these come the slabs that the processors have at hand: all objects of
/// these count as used (Linux, mm/slub.c, `get_slabinfo`). How many slabs these are differs from one moment to the next (one object of
/// 96 bytes has a processor take five slabs), so of several looks the lowest counts.
const OBJECTS_OF_ANY_WORK: u64 = 100;
/// The same of virtually mapped memory, in KiB: fewer pages than the rounds of a full guest.
const KIB_OF_ANY_WORK: u64 = 1024;

/// One look at the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Loaded modules.
    modules: u64,
    /// Virtually mapped memory (`VmallocUsed` of /proc/meminfo), in KiB: modules and tasks' stacks are of it.
    vmalloc: u64,
    processors: u64,
    /// The caches, by their names (/proc/slabinfo).
    slabs: BTreeMap<String, Slabs>,
}

/// One cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Slabs {
    /// Objects in use.
    objects: u64,
    /// Objects of one slab.
    of_a_slab: u64,
}

impl Sample {
    /// Reads what `sample` of guest.sh prints.
    pub(crate) fn parse(text: &str) -> Result<Sample> {
        let mut sample = Sample::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |word: &str| word.parse().with_context(|| format!("no number: {line}"));
            match words[..] {
                ["modules", count] => sample.modules = number(count)?,
                ["vmalloc", size] => sample.vmalloc = number(size)?,
                ["processors", count] => sample.processors = number(count)?,
                ["slab", cache, objects, of_a_slab] => {
                    let slabs = Slabs { objects: number(objects)?, of_a_slab: number(of_a_slab)? };
                    let lowest = sample.slabs.entry(cache.to_owned()).or_insert(slabs);
                    if slabs.objects < lowest.objects {
                        *lowest = slabs;
                    }
                }
                _ => {}
            }
        }
        ensure!(
            sample.vmalloc > 0 && !sample.slabs.is_empty(),
            "the guest says nothing of its memory:\n{text}"
        );
        Ok(sample)
    }

    /// What there is too much of after so many rounds. Each is one sentence.
    pub(crate) fn leaks(&self, after: &Sample, rounds: u64) -> Vec<String> {
        let mut leaks = Vec::new();
        if after.modules != self.modules {
            leaks.push(format!("{} modules were loaded before, {} after", self.modules, after.modules));
        }
        let grown = after.vmalloc.saturating_sub(self.vmalloc);
        if grown > KIB_OF_ANY_WORK {
            leaks.push(format!("virtually mapped memory has grown by {grown} KiB in {rounds} rounds"));
        }
        for (cache, slabs) in &after.slabs {
            let before = self.slabs.get(cache).copied().unwrap_or_default();
            let grown = slabs.objects.saturating_sub(before.objects);
            if grown > OBJECTS_OF_ANY_WORK + after.processors * slabs.of_a_slab {
                leaks.push(format!("the cache {cache} has {grown} objects more after {rounds} rounds"));
            }
        }
        leaks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str =
        "modules 1\nvmalloc 5000\nprocessors 2\nslab kmalloc-8 2048 512\nslab dentry 3000 21\n";

    #[test]
    fn what_comes_and_goes_is_no_leak() {
        let before = Sample::parse(BEFORE).unwrap();
        let after =
            BEFORE.replace("vmalloc 5000", "vmalloc 5900").replace("kmalloc-8 2048", "kmalloc-8 3100");
        let after = Sample::parse(&after.replace("dentry 3000", "dentry 2000")).unwrap();
        assert_eq!(before.leaks(&after, 300), Vec::<String>::new());
    }

    #[test]
    fn an_object_or_a_page_a_round_is_a_leak() {
        let before = Sample::parse(BEFORE).unwrap();
        let after = BEFORE.replace("modules 1", "modules 2").replace("vmalloc 5000", "vmalloc 6200");
        let after = format!("{}slab new 600 16\n", after.replace("dentry 3000", "dentry 3300"));
        assert_eq!(
            before.leaks(&Sample::parse(&after).unwrap(), 300),
            [
                "1 modules were loaded before, 2 after",
                "virtually mapped memory has grown by 1200 KiB in 300 rounds",
                "the cache dentry has 300 objects more after 300 rounds",
                "the cache new has 600 objects more after 300 rounds",
            ]
        );
    }

    #[test]
    fn of_several_looks_the_lowest_counts() {
        let before = Sample::parse(BEFORE).unwrap();
        let looks = "slab dentry 3300 21\nslab dentry 3010 21\nslab dentry 3400 21\n";
        let after = Sample::parse(&BEFORE.replace("slab dentry 3000 21\n", looks)).unwrap();
        assert_eq!(before.leaks(&after, 300), Vec::<String>::new());
    }

    #[test]
    fn a_guest_that_says_nothing_is_an_error() {
        assert!(Sample::parse("").is_err());
        assert!(Sample::parse("modules x\n").is_err());
    }
}
