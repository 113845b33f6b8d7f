//! Which kernel of the cache is meant where the user names none.

use crate::failure::Failure;
use kmend_refusal::{Code, Refusal};
use kmend_store::{Cache, Kernel};

/// The release of the kernel that runs. Empty where /proc is not mounted, which no kernel of the cache is.
fn running_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The named kernel; else the one that runs; else the only one that is there.
pub(crate) fn choose(cache: &Cache, release: Option<&str>) -> Result<Kernel, Failure> {
    if let Some(release) = release {
        return Ok(cache.kernel(release)?);
    }
    let running = running_release();
    let mut kernels = cache.kernels()?;
    if let Some(found) = kernels.iter().position(|kernel| kernel.release == running) {
        return Ok(kernels.swap_remove(found));
    }
    if kernels.len() == 1 {
        return Ok(kernels.swap_remove(0));
    }
    let why = if kernels.is_empty() {
        "this is the kernel that runs, and the cache holds none at all"
    } else {
        "this is the kernel that runs; --kernel names one of those that the cache holds"
    };
    let known = kernels.into_iter().map(|kernel| kernel.release).collect();
    Err(Failure::refused(vec![Refusal::new(Code::KernelUnknown, running, why).with_details(known)]))
}
