//! The program itself, as a user runs it: what it builds is the same every time, and is proved.

use super::Bench;
use crate::torture::{Amount, Supplies, Workshop, engine_sample};
use anyhow::{Context, Result, ensure};
use kmend_process::{Command, Output};
use kmend_store::Kernel;
use std::fs;
use std::path::{Path, PathBuf};

/// The example of the README, from the workspace's folder.
pub(super) const PATCH: &str = "examples/meminfo.patch";

/// A patch to a unit that includes a header which only this unit has, and the header.
const GENERATING: &str = "tests/patches/generated-header.patch";
const GENERATED: &str = "lib/crc32table.h";

/// What the trials have of `cargo xtask torture` on each kernel: under its load an emulated guest takes four seconds for a load, and as
/// many for an unload.
const ROUNDS: Amount = Amount { rounds: 10, replaces: 2 };
/// The same with `--all`.
const ALL_ROUNDS: Amount = Amount { rounds: 20, replaces: 4 };

/// A few rounds of `cargo xtask torture`.
pub(crate) fn torture(bench: &Bench, kernel: &Kernel, all: bool) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let supplies = Supplies::build(&bench.cache, kernel, folder.path())?;
    let workshop = Workshop { kernel, accelerator: bench.accelerator, kmend: &bench.kmend, supplies };
    workshop.rounds(if all { ALL_ROUNDS } else { ROUNDS }).map(drop)
}

/// The same of `cargo xtask torture engine`, of each model: each patch once.
const ENGINE_ROUNDS: u32 = 3;
/// The same with `--all`: each patch once under each of the tracers.
const ALL_ENGINE_ROUNDS: u32 = 12;

/// A few rounds of `cargo xtask torture engine`.
pub(crate) fn engine_torture(bench: &Bench, kernel: &Kernel, all: bool) -> Result<()> {
    engine_sample(kernel, bench.accelerator, if all { ALL_ENGINE_ROUNDS } else { ENGINE_ROUNDS })
}

/// `kmend build` and `kmend prove`, with what the guest shows.
pub(crate) fn prove(bench: &Bench, kernel: &Kernel) -> Result<()> {
    let folder = tempfile::tempdir()?;
    build(bench, kernel, PATCH, folder.path())?;
    let module = folder.path().join("livepatch-meminfo.ko");
    let module = text(&module)?;
    let shown = kmend(
        bench,
        &[
            "prove",
            module,
            "--before",
            "grep VmallocChunk /proc/meminfo",
            "--after",
            "grep VMALLOCChunk /proc/meminfo",
            "--timeout",
            "150",
        ],
    )?;
    let text = shown.text();
    let count = |name: &str| text.lines().filter(|line| line.trim_start().starts_with(name)).count();
    let counts = (count("VmallocChunk:"), count("VMALLOCChunk:"));
    ensure!(counts == (2, 1), "it must show the line twice as it was and once mended:\n{text}");
    let inspected = kmend(bench, &["inspect", module])?.text();
    ensure!(inspected.contains(&kernel.release), "it does not name its kernel:\n{inspected}");
    Ok(())
}

/// Two builds of one patch have the same bytes.
pub(crate) fn same_bytes(bench: &Bench, kernel: &Kernel) -> Result<()> {
    let [first, second] = [tempfile::tempdir()?, tempfile::tempdir()?];
    for folder in [&first, &second] {
        build(bench, kernel, PATCH, folder.path())?;
    }
    for file in ["livepatch-meminfo.ko", "livepatch-meminfo.kmend.json", "meminfo.json"] {
        let read = |folder: &Path| fs::read(folder.join(file)).with_context(|| file.to_owned());
        ensure!(read(first.path())? == read(second.path())?, "{file} differs between two builds");
    }
    Ok(())
}

/// The headers that came with the kernel are as they were, and nothing that a build had the build system make wrote one anew: other
/// builds may be reading it.
pub(crate) fn headers(bench: &Bench, kernel: &Kernel) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let arguments = ["build", GENERATING, "--kernel", &kernel.release, "--output", text(folder.path())?];
    let refused = command(bench, &arguments).output()?;
    ensure!(refused.error_text().contains("KM0403"), "{}", refused.error_text());
    let target = kmend_build::target(kernel);
    ensure!(target.derived.join("tree").join(GENERATED).exists(), "{GENERATED} was not made");
    let shipped = target.headers.as_deref().context("the kernel has no headers of its own")?;
    let prepared = target.derived.join("database.json").metadata()?.modified()?;
    for of_build in ["include/generated", "arch/x86/include/generated"] {
        let theirs = shipped.join(of_build);
        for entry in walk(&theirs)? {
            let ours = target.derived.join("tree").join(of_build).join(entry.strip_prefix(&theirs)?);
            let name = ours.display();
            ensure!(
                ours.metadata()?.modified()? <= prepared,
                "{name} was written since the tree was prepared"
            );
            // The configuration is written from what it is read from, and rustc has none.
            if !ours.ends_with("autoconf.h") && !ours.ends_with("rustc_cfg") {
                ensure!(fs::read(&entry)? == fs::read(&ours)?, "{name} is not what came with the kernel");
            }
        }
    }
    Ok(())
}

/// The files below a folder.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { files.extend(walk(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// `kmend build` of a patch, given from the workspace's folder.
pub(super) fn build(bench: &Bench, kernel: &Kernel, patch: &str, output: &Path) -> Result<Output> {
    build_with(bench, kernel, &[patch], &[], output)
}

/// `kmend build` with further options.
pub(super) fn build_with(
    bench: &Bench,
    kernel: &Kernel,
    patches: &[&str],
    options: &[&str],
    output: &Path,
) -> Result<Output> {
    let into = ["--kernel", &kernel.release, "--output", text(output)?];
    kmend(bench, &[&["build"], patches, &into, options].concat())
}

/// `kmend engine build`.
pub(super) fn build_engine(bench: &Bench, kernel: &Kernel, output: &Path) -> Result<Output> {
    kmend(bench, &["engine", "build", "--kernel", &kernel.release, "--output", text(output)?])
}

pub(super) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the temporary folder's name is no text")
}

pub(super) fn kmend(bench: &Bench, arguments: &[&str]) -> Result<Output> {
    Ok(command(bench, arguments).run()?)
}

fn command(bench: &Bench, arguments: &[&str]) -> Command {
    let (command, _) = crate::built::line(&bench.kmend, arguments);
    command.env("KMEND_CACHE", bench.cache.root())
}
