//! The kernel to compile for, as plain paths and facts.

use std::path::PathBuf;

/// Tells what is being done, one short line at a time.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// The kernel to compile for.
///
/// These are plain values so that this crate need not know where kernels are kept.
#[derive(Debug, Clone)]
pub struct Target {
    /// The release, as `uname -r` prints it on that kernel; it becomes `UTS_RELEASE`.
    pub release: String,
    /// The root of the kernel's source. Read, never written.
    pub source: PathBuf,
    /// The configuration that the kernel was built with (`.config`).
    pub config: PathBuf,
    /// The folder of the build's headers (what `/lib/modules/RELEASE/build` points to): when it holds
    /// `include/generated`, those files are taken as they are and not made again.
    pub headers: Option<PathBuf>,
    /// What the kernel and its modules export (`Module.symvers`).
    pub symvers: PathBuf,
    /// The compiler's command, such as `gcc-12`.
    pub compiler: String,
    /// The compiler that built the kernel, as the first line of its `--version` (`CONFIG_CC_VERSION_TEXT`).
    pub compiler_text: String,
    /// Where what is made once for this kernel is kept. Created when missing.
    pub derived: PathBuf,
}
