//! The main job on real input: a stock kernel, a patch, a livepatch, and the kernel mended while it runs.

use crate::{built, kernels, narrate, packages};
use anyhow::{Result, ensure};
use kmend_store::Cache;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is patched, from the workspace's folder.
const PATCH: &str = "examples/meminfo.patch";
/// The livepatch that comes of it.
const MODULE: &str = "livepatch-meminfo.ko";
/// Where it goes, from the workspace's folder.
const OUTPUT: &str = "target/demo";

/// The stages and how long each took.
#[derive(Default)]
struct Times {
    rows: Vec<(String, Duration)>,
}

impl Times {
    /// Runs a stage.
    fn stage<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        narrate::heading(name);
        let start = Instant::now();
        let value = run()?;
        self.rows.push((name.to_owned(), start.elapsed()));
        Ok(value)
    }

    fn print(&self) {
        let mut table = narrate::table(&["stage", "time"]);
        for (name, time) in &self.rows {
            table.add_row([name.clone(), narrate::seconds(*time)]);
        }
        let total = self.rows.iter().map(|(_, time)| *time).sum();
        table.add_row(["in all".to_owned(), narrate::seconds(total)]);
        println!("\n{table}");
    }
}

/// Runs the demonstration.
pub(crate) fn run() -> Result<()> {
    let mut times = Times::default();
    times.stage("install what is missing", packages::ensure)?;
    let kmend = times.stage("build kmend", built::kmend)?;
    times
        .stage("fetch the kernel", || type_and_run(&kmend, &["kernel", "fetch", kernels::FIRST]).map(drop))?;
    let release = kmend_store::fetch(&Cache::open()?, kernels::FIRST, &mut |_| {})?.release;
    let build = ["build", PATCH, "--kernel", &release, "--output", OUTPUT];
    times.stage("build the livepatch", || type_and_run(&kmend, &build).map(drop))?;
    let module = format!("{OUTPUT}/{MODULE}");
    let [before, after] = ["VmallocChunk", "VMALLOCChunk"].map(|name| format!("grep {name} /proc/meminfo"));
    let prove = ["prove", &module, "--before", &before, "--after", &after];
    let lines = times
        .stage("boot the kernel, load the livepatch, unload it, twice", || type_and_run(&kmend, &prove))?;
    check(&lines)?;
    times.print();
    println!("\nThe stock kernel {release} was mended while it ran. The livepatch is {module}.");
    Ok(())
}

/// Shows what a user would type, runs it, and hands on what it printed.
fn type_and_run(kmend: &Path, arguments: &[&str]) -> Result<Vec<String>> {
    let (command, typed) = built::line(kmend, arguments);
    narrate::command(&typed);
    let mut lines = Vec::new();
    command.watch(&mut |line| {
        println!("{line}");
        lines.push(line.to_owned());
    })?;
    Ok(lines)
}

/// The line of /proc/meminfo was shown as it was, mended, and as it was again.
fn check(lines: &[String]) -> Result<()> {
    let shown: Vec<&str> =
        lines.iter().filter_map(|line| line.trim().split_once(':')).map(|(name, _)| name).collect();
    let shown: Vec<&&str> = shown.iter().filter(|name| name.eq_ignore_ascii_case("vmallocchunk")).collect();
    ensure!(
        shown == [&"VmallocChunk", &"VMALLOCChunk", &"VmallocChunk"],
        "the guest did not show the line before, while and after the livepatch was loaded, but {shown:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_must_change_and_change_back() {
        let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let [old, new] = ["  VmallocChunk:  0 kB", "  VMALLOCChunk:  0 kB"];
        assert!(check(&lines(&["before", old, "loaded", new, "unloaded", old])).is_ok());
        assert!(check(&lines(&[old, old, old])).is_err());
        assert!(check(&lines(&[old, new])).is_err());
    }
}
