//! Null tests: comments and blank lines at the top of a unit change nothing.
//!
//! Units are picked from the kernel's own compile commands, evenly over each area, so that the choice is the
//! same every time and no list has to be kept. The units of one area go through one build by one patch, but
//! the verdict is each unit's own.

use super::Bench;
use super::patch::outcome;
use anyhow::{Result, anyhow, bail, ensure};
use kmend_build::{Report, Request, target};
use kmend_compile::{Database, Owner, Unit};
use kmend_refusal::Code;
use kmend_store::Kernel;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Units of one area in one build.
pub(crate) struct Group {
    /// What the area is called.
    pub(crate) area: &'static str,
    /// The units' sources.
    pub(crate) sources: Vec<String>,
    built: OnceLock<Result<Report, String>>,
}

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

/// Sources whose code runs elsewhere than in the kernel that is mended; a patch to them is always refused.
const ELSEWHERE: [&str; 5] =
    ["arch/x86/boot/", "arch/x86/realmode/", "arch/x86/entry/vdso/", "arch/x86/purgatory/", "lib/vdso/"];

/// Picks `count` units of each area.
pub(crate) fn groups(kernel: &Kernel, count: usize) -> Result<Vec<Group>> {
    let database = kmend_compile::prepare(&target(kernel), &|text| crate::narrate::say(text))?.database;
    let group = |(area, folder)| Group {
        area,
        sources: pick(&database, area, folder, count),
        built: OnceLock::new(),
    };
    Ok(AREAS.into_iter().map(group).collect())
}

fn pick(database: &Database, area: &str, folder: &str, count: usize) -> Vec<String> {
    let belongs = |unit: &&Unit| {
        let module = unit.owner != Owner::Vmlinux;
        Path::new(&unit.source).extension().is_some_and(|extension| extension == "c")
            && module == (area == MODULES)
            && unit.source.starts_with(folder)
            && !ELSEWHERE.iter().any(|folder| unit.source.starts_with(folder))
    };
    let sources: BTreeSet<&str> =
        database.units().iter().filter(belongs).map(|unit| unit.source.as_str()).collect();
    let sources: Vec<&str> = sources.into_iter().collect();
    evenly(&sources, count).into_iter().map(str::to_owned).collect()
}

/// `count` elements, from the middle of as many equal pieces.
fn evenly<'a>(all: &[&'a str], count: usize) -> Vec<&'a str> {
    let count = count.min(all.len());
    (0..count).filter_map(|number| all.get((2 * number + 1) * all.len() / (2 * count)).copied()).collect()
}

/// The verdict on one unit of a group. The first to ask builds for all of the group.
pub(crate) fn run(bench: &Bench, kernel: &Kernel, group: &Group, source: &str) -> Result<()> {
    let report = group
        .built
        .get_or_init(|| build(bench, kernel, group).map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("the units of {} were not compared: {error}", group.area))?;
    let about = |file: &str| file == source;
    let refused = report.refusals.iter().any(|refusal| {
        refusal.code() != Code::NothingChanges
            && refusal.refusal.place.as_ref().is_some_and(|place| about(&place.file))
    });
    ensure!(!refused, "nothing must change, but {}", outcome(report));
    let mut units = report.units.iter().filter(|unit| about(&unit.source)).peekable();
    ensure!(units.peek().is_some(), "no result is reported for it; {}", outcome(report));
    for unit in units {
        if !unit.functions.is_empty() || !unit.variables.is_empty() {
            bail!("nothing must change, but {:?} {:?}", unit.functions, unit.variables);
        }
    }
    Ok(())
}

fn build(bench: &Bench, kernel: &Kernel, group: &Group) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let mut patch = String::new();
    for source in &group.sources {
        let text = String::from_utf8_lossy(&fs::read(kernel.source.join(source))?).into_owned();
        patch.push_str(&lines_at_the_top(source, &text));
    }
    let request = Request {
        cache: &bench.cache,
        kernel,
        patches: vec![(format!("{}.patch", group.area), patch.into_bytes())],
        name: Some(group.area.to_owned()),
        replace: false,
        output: folder.path().to_owned(),
        explain: false,
    };
    Ok(kmend_build::build(&request, &|_| {})?.report)
}

/// A patch that inserts comments and blank lines before a file's first line.
pub(crate) fn lines_at_the_top(source: &str, text: &str) -> String {
    let first: Vec<&str> = text.lines().take(3).collect();
    let added = ["/* A comment at the top", " * that has two lines. */", "", "// Another one.", "", ""];
    // Writing to a String cannot fail.
    let mut patch = String::new();
    let (old, new) = (first.len(), first.len() + added.len());
    let _ = write!(patch, "--- a/{source}\n+++ b/{source}\n@@ -1,{old} +1,{new} @@\n");
    for line in added {
        let _ = writeln!(patch, "+{line}");
    }
    for line in first {
        let _ = writeln!(patch, " {line}");
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_picked_evenly() {
        assert_eq!(evenly(&["a", "b", "c", "d", "e", "f"], 3), ["b", "d", "f"]);
        assert_eq!(evenly(&["a", "b"], 5), ["a", "b"]);
        assert!(evenly(&[], 3).is_empty());
    }

    #[test]
    fn the_patch_keeps_the_first_lines() {
        let patch = lines_at_the_top("mm/x.c", "one\ntwo\nthree\nfour\n");
        assert!(patch.starts_with("--- a/mm/x.c\n+++ b/mm/x.c\n@@ -1,3 +1,9 @@\n+/* A comment"), "{patch}");
        assert!(patch.ends_with("+\n+\n one\n two\n three\n"), "{patch}");
    }
}
