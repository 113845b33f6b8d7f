//! `kmend kernel import`

use super::{fetch, show};
use crate::failure::{End, Failure};
use crate::output::Output;
use crate::progress::Progress;
use clap::Args;
use kmend_kernel::Image;
use kmend_store::{Cache, Kernel};
use std::path::PathBuf;

/// Take a kernel of your own into the cache
///
/// Source, configuration, image and headers stay where they are and are never written to; the cache refers to them.
/// They must be of one build. Whether they really are, each build proves: what the compiler makes of the
/// source must equal the image.
///
/// Module.symvers must lie in the headers folder, or in the source tree if the kernel was built there.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Import {
    /// The source tree that the kernel was built from
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
    /// The configuration that it was built with
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The image: a bzImage (vmlinuz) or an ELF vmlinux
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// Where modules for it are built; the source tree if it was built there
    #[arg(long, value_name = "DIR")]
    headers: Option<PathBuf>,
    /// Its release as `uname -r` prints it; read from the image if not given
    #[arg(long, value_name = "RELEASE")]
    release: Option<String>,
}

const EXAMPLES: &str = "\
Example:
  kmend kernel import --source ~/linux --config ~/linux/.config --image ~/linux/arch/x86/boot/bzImage";

impl Import {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let own = OwnKernel {
            source: self.source.clone(),
            config: self.config.clone(),
            image: self.image.clone(),
            headers: self.headers.clone(),
            release: self.release.clone(),
        };
        let kernel = own.import(&Cache::open()?)?;
        output.document(&kernel, fetch::text)?;
        Ok(End::Done)
    }
}

/// The parts of a kernel of one's own.
pub(crate) struct OwnKernel {
    pub(crate) source: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) image: PathBuf,
    pub(crate) headers: Option<PathBuf>,
    pub(crate) release: Option<String>,
}

impl OwnKernel {
    /// Takes it into the cache. The image says which release it is, if the user does not.
    pub(crate) fn import(self, cache: &Cache) -> Result<Kernel, Failure> {
        let mut progress = Progress::new();
        let release = match self.release {
            Some(release) => release,
            None => Image::open(&self.image)?.release().to_owned(),
        };
        let parts = kmend_store::Import {
            source: self.source,
            config: self.config,
            image: self.image,
            headers: self.headers,
            modules: None,
            release: Some(release),
        };
        Ok(kmend_store::import(cache, &parts, &mut |event| show(&mut progress, &event))?)
    }
}
