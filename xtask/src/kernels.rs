//! The stock kernels that everything is tried on.

use crate::narrate;
use anyhow::Result;
use clap::Args;
use kmend_store::{Cache, Kernel, Progress, Stage, fetch};
use std::time::Instant;

/// The kernel of the demonstration: the newest stock 6.1 for clouds.
pub(crate) const FIRST: &str = "debian:cloud-amd64";
/// All the kernels that a livepatch is tried on. The second has IBT, and runs objtool at the final link.
pub(crate) const ALL: [&str; 2] = [FIRST, "debian:6.12-cloud-amd64"];

/// Which kernels a command is for.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// Kernels to fetch (debian:FLAVOUR), or releases of kernels in the cache [default: those of the trials]
    #[arg(long = "kernel", value_name = "K")]
    kernels: Vec<String>,
}

impl Wanted {
    /// Names that [`choose`] takes.
    pub(crate) fn names(&self) -> Vec<&str> {
        if self.kernels.is_empty() { ALL.to_vec() } else { self.kernels.iter().map(String::as_str).collect() }
    }
}

/// A kernel to fetch (`debian:FLAVOUR`), or one of the cache by its release.
pub(crate) fn choose(cache: &Cache, wanted: &str) -> Result<Kernel> {
    if wanted.contains(':') { obtain(cache, wanted) } else { Ok(cache.kernel(wanted)?) }
}

/// Fetches a kernel, or finds it in the cache, and says what it does.
pub(crate) fn obtain(cache: &Cache, spec: &str) -> Result<Kernel> {
    let start = Instant::now();
    let mut last = String::new();
    let kernel = fetch(cache, spec, &mut |progress: Progress| {
        let line = line(&progress);
        if line != last && progress.stage != Stage::Done {
            narrate::say(&format!("{spec}: {line}"));
            last = line;
        }
    })?;
    let time = narrate::seconds(start.elapsed());
    narrate::say(&format!(
        "{} ({}, {}) is in {} ({time})",
        kernel.release,
        kernel.version,
        kernel.compiler,
        cache.root().display()
    ));
    Ok(kernel)
}

/// One line for each stage and each package.
fn line(progress: &Progress) -> String {
    match &progress.stage {
        Stage::Download { package } => format!("download {package}"),
        stage => stage.name().to_owned(),
    }
}

/// The first two numbers of a release: what tells the stock kernels apart in a trial's name.
pub(crate) fn series(release: &str) -> String {
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}
