//! The first build for a kernel: unpack the packages, prepare the tree, list the compile commands.

use super::{Row, row};
use crate::narrate;
use anyhow::Result;
use kmend_build::target;
use kmend_store::{Cache, Kernel, Progress, Stage, fetch};
use std::time::{Duration, Instant};

/// Fetches a kernel into an empty cache and prepares its tree. The download is not counted.
pub(super) fn run(cache: &Cache, spec: &str) -> Result<(Kernel, Vec<Row>)> {
    narrate::say(&format!("fetching {spec} into a cache of its own"));
    let mut downloaded = Instant::now();
    let kernel = fetch(cache, spec, &mut |progress: Progress| {
        if matches!(progress.stage, Stage::Download { .. }) {
            downloaded = Instant::now();
        }
    })?;
    let unpack = downloaded.elapsed();
    narrate::say("preparing its tree");
    let start = Instant::now();
    kmend_compile::prepare(&target(&kernel), &|text| narrate::say(text))?;
    let prepare = start.elapsed();
    let seconds = |time: Duration| narrate::seconds(time);
    let rows = vec![
        row("cold start, without the download", &seconds(unpack + prepare), "", "90 s"),
        row("  of which verify and unpack", &seconds(unpack), "", ""),
        row("  of which prepare and list the commands", &seconds(prepare), "", ""),
    ];
    Ok((kernel, rows))
}
