//! `kmend kernel fetch`

use super::show;
use crate::failure::{End, Failure};
use crate::output::Output;
use crate::progress::Progress;
use clap::Args;
use kmend_store::{Cache, Kernel};

/// Fetch a distribution's kernel into the cache
///
/// Downloads the packages of a kernel, with apt's own package sources and signatures, and unpacks them into the cache.
/// Nothing is installed and root is not needed. Image, headers, kbuild and source must all be of one version; if
/// the archive does not have them in one version, the fetch is refused.
///
/// A fetch that is broken off continues where it was when the same command is run again. Of two that fetch the same
/// kernel at once, one works and the other waits.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Fetch {
    /// debian:FLAVOUR for the newest kernel of a flavour, or debian:RELEASE for the one that `uname -r` prints
    #[arg(value_name = "SPEC")]
    spec: String,
}

const EXAMPLES: &str = "\
Examples:
  kmend kernel fetch debian:cloud-amd64        the newest cloud kernel of this Debian
  kmend kernel fetch debian:6.12-cloud-amd64   the newest 6.12, from backports if they are enabled
  kmend kernel fetch debian:$(uname -r)        the kernel that runs";

impl Fetch {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let cache = Cache::open()?;
        let mut progress = Progress::new();
        let kernel = kmend_store::fetch(&cache, &self.spec, &mut |event| show(&mut progress, &event))?;
        drop(progress);
        output.document(&kernel, text)?;
        Ok(End::Done)
    }
}

/// A kernel that is in the cache now.
pub(super) fn text(kernel: &Kernel) -> String {
    format!("{} {} ({})\n", kernel.release, kernel.version, kernel.compiler_text)
}
