//! A patch to a header that reaches about 500 units, by hand and by kmend.

use super::{Row, build, row, time};
use crate::narrate;
use crate::several::several;
use anyhow::{Context, Result};
use kmend_build::{Built, Stage, Steps, target};
use kmend_compile::PatchFile;
use kmend_compile::Unit;
use kmend_process::Command;
use kmend_store::{Cache, Kernel};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The header, and the line of an inline function that many units use, before and after.
const HEADER: &str = "include/linux/blkdev.h";
const BEFORE: &str = "\treturn queue_logical_block_size(bdev_get_queue(bdev));\n";
const AFTER: &str = "\treturn queue_logical_block_size(bdev_get_queue(bdev)) | 1;\n";

/// Builds the patch and does by hand what it takes: preprocess all units that include the header twice, and compile twice
/// those that it changes. Both use all processors. The first build has to find out what each unit includes, the second knows.
pub(super) fn run(cache: &Cache, kernel: &Kernel) -> Result<Vec<Row>> {
    let text = fs::read_to_string(kernel.source.join(HEADER))?;
    let line =
        text.split_inclusive('\n').position(|line| line == BEFORE).context("the header is another")? + 1;
    let patch = format!("--- a/{HEADER}\n+++ b/{HEADER}\n@@ -{line} +{line} @@\n-{BEFORE}+{AFTER}");
    let patch = PatchFile::new("header.patch", patch);
    let originals = kernel.derived().join("originals");
    let forget_originals = || if originals.exists() { fs::remove_dir_all(&originals) } else { Ok(()) };
    narrate::say("first build");
    forget_originals()?;
    let first = build(cache, kernel, patch.clone())?;
    // The originals are compiled by hand as well.
    forget_originals()?;
    narrate::say("second build");
    let second = build(cache, kernel, patch)?;
    let steps = second.report.reach.as_ref().context("the patch reaches no unit")?;
    narrate::say("by hand");
    let hand = time(|| by_hand(cache, kernel, steps))?;
    let what = format!(
        "{} units preprocessed twice and {} compiled twice by hand",
        steps.preprocessed.len(),
        steps.compiled.len()
    );
    let kmend = |what: &str, built: &Built| {
        let stages = built.times.iter();
        let counted =
            stages.filter(|(stage, _)| matches!(stage, Stage::Compile | Stage::Match | Stage::Diff));
        let time: Duration = counted.map(|(_, time)| *time).sum();
        let ratio = format!("{:.2}", time.as_secs_f64() / hand.as_secs_f64());
        row(what, &narrate::seconds(time), &ratio, "1.3")
    };
    Ok(vec![
        row(&what, &narrate::seconds(hand), "1", ""),
        kmend(&format!("kmend on {HEADER}, the kernel's first patch to a header"), &first),
        kmend(&format!("kmend on {HEADER}, a later one"), &second),
    ])
}

fn by_hand(cache: &Cache, kernel: &Kernel, steps: &Steps) -> Result<()> {
    let prepared = kmend_compile::prepare(&target(kernel), &|_| {})?;
    let units: HashMap<&str, &Unit> =
        prepared.database.units().iter().map(|unit| (unit.object.as_str(), unit)).collect();
    let scratch = cache.scratch()?;
    let compiled: BTreeSet<&String> = steps.compiled.iter().collect();
    let mut commands = Vec::new();
    for (number, object) in steps.preprocessed.iter().enumerate() {
        let unit = *units.get(object.as_str()).context("a unit is gone")?;
        let command = |options: &[&str], output: &Path| {
            Command::new(&kernel.compiler)
                .args(&unit.arguments)
                .args(options)
                .arg(output)
                .arg(&unit.named)
                .folder(&prepared.tree)
        };
        for side in ["original", "patched"] {
            let output = scratch.path().join(format!("{number}-{side}"));
            commands.push(command(&["-E", "-o"], &output));
            if compiled.contains(object) {
                let options = ["-ffunction-sections", "-fdata-sections", "-c", "-o"];
                commands.push(command(&options, &output.with_extension("o")));
            }
        }
    }
    let run = several(crate::processors(), &commands, |_, command| command.run())?;
    run.into_iter().try_for_each(|command| command.map(drop))?;
    Ok(())
}
