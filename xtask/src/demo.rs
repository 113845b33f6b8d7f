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
    /// After how many rows the parts of the last one are shown.
    parts: usize,
    parts_of_build: Vec<(String, Duration)>,
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

    /// Adds the stages of a build, from the line in which `kmend build` tells their times.
    fn add_parts(&mut self, lines: &[String]) {
        self.parts = self.rows.len();
        let line = lines.iter().find_map(|line| line.strip_prefix("time ")).unwrap_or_default();
        let part = |text: &str| {
            let (name, time) = text.split_once(' ')?;
            let seconds: f64 = time.strip_suffix(" s")?.parse().ok()?;
            Some((format!("  of which {name}"), Duration::try_from_secs_f64(seconds).ok()?))
        };
        self.parts_of_build = line.split(", ").filter_map(part).collect();
    }

    fn print(&self) {
        let mut table = narrate::table(&["stage", "time"]);
        for (number, (name, time)) in self.rows.iter().enumerate() {
            table.add_row([name.clone(), narrate::seconds(*time)]);
            if number + 1 == self.parts {
                let rows = self.parts_of_build.iter();
                table.add_rows(
                    rows.map(|(name, time)| [name.clone(), format!("{:.2} s", time.as_secs_f64())]),
                );
            }
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
    let lines = times.stage("build the livepatch", || type_and_run(&kmend, &build))?;
    times.add_parts(&lines);
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
    fn the_stages_of_a_build_are_read() {
        let mut times = Times::default();
        times.add_parts(&[
            "module out/x.ko 3 KiB".to_owned(),
            "time prepare 0.05 s, compile 1.20 s".to_owned(),
        ]);
        let names: Vec<&str> = times.parts_of_build.iter().map(|part| part.0.as_str()).collect();
        assert_eq!(names, ["  of which prepare", "  of which compile"]);
        assert_eq!(times.parts_of_build[1].1, Duration::from_millis(1200));
    }

    #[test]
    fn the_line_must_change_and_change_back() {
        let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let [old, new] = ["  VmallocChunk:  0 kB", "  VMALLOCChunk:  0 kB"];
        assert!(check(&lines(&["before", old, "loaded", new, "unloaded", old])).is_ok());
        assert!(check(&lines(&[old, old, old])).is_err());
        assert!(check(&lines(&[old, new])).is_err());
    }
}
