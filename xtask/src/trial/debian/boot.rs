//! What is installed for every boot, on a real system that is booted again and again.

use super::{Debian, Guest};
use crate::kernels;
use crate::trial::{Bench, whole};
use anyhow::{Context, Result, bail, ensure};
use kmend_store::Kernel;
use kmend_vm::VmError;

/// A livepatch that oopses while it is loaded.
const OOPS: &str = "tests/debian/oops.patch";

/// Says in which order two units became active, by the clock that only goes forward.
const EARLIER: &str = "time() { systemctl show -P ActiveEnterTimestampMonotonic \"$1\"; }\n\
                       kmend=$(time kmend.service) network=$(time network-pre.target)\n\
                       [ 0 -lt \"$kmend\" ] && [ \"$kmend\" -le \"$network\" ] && echo before the network";

/// Installed, booted again: it is loaded, and was before the network.
pub(crate) fn installed(bench: &Bench, debian: &Debian, kernel: &Kernel) -> Result<()> {
    let mut guest = Guest::new(bench, debian)?;
    guest.add_livepatch(kernel, whole::PATCH)?;
    guest.boot(
        kernel,
        &[
            ("dpkg -i /kmend/kmend.deb", "Setting up kmend"),
            ("systemctl is-enabled kmend.service", "enabled"),
            ("kmend install /kmend/livepatch-meminfo.ko", "installed"),
            ("kmend list", "no livepatch is loaded"),
        ],
    )?;
    guest.boot(
        kernel,
        &[
            ("kmend list", "livepatch_meminfo enabled"),
            (EARLIER, "before the network"),
            ("systemctl is-active kmend.service", "active"),
            ("grep VMALLOCChunk /proc/meminfo", "VMALLOCChunk"),
            ("kmend uninstall livepatch_meminfo", "uninstalled"),
        ],
    )?;
    guest.boot(kernel, &[("kmend list", "no livepatch is loaded")])
}

/// The machine goes down while an installed livepatch is loaded: the next boot holds it.
pub(crate) fn crash(bench: &Bench, debian: &Debian, kernel: &Kernel) -> Result<()> {
    let mut guest = Guest::new(bench, debian)?;
    guest.add_livepatch(kernel, OOPS)?;
    guest.boot(
        kernel,
        &[
            ("dpkg -i /kmend/kmend.deb", "Setting up kmend"),
            ("kmend install /kmend/livepatch-oops.ko", "installed"),
        ],
    )?;
    match guest.scenario(kernel, &[("true", "")]).run() {
        Err(VmError::Boot { tail, .. } | VmError::Fault { tail, .. }) => {
            ensure!(tail.contains("kernel BUG at"), "it went down for another reason:\n{tail}");
        }
        Err(error) => return Err(error).context("the boot with the livepatch that oopses"),
        Ok(_) => bail!("the livepatch that oopses was not loaded at boot"),
    }
    guest.boot(
        kernel,
        &[
            ("kmend list", "no livepatch is loaded"),
            ("kmend status", "held: the machine went down"),
            ("systemctl is-system-running --wait || systemctl --failed", "kmend.service"),
        ],
    )
}

/// After an upgrade of the kernel what was installed for the old one is skipped.
pub(crate) fn upgrade(bench: &Bench, debian: &Debian, kernel: &Kernel) -> Result<()> {
    let other =
        kernels::ALL.iter().map(|spec| kernels::obtain(&bench.cache, spec)).collect::<Result<Vec<_>>>()?;
    let other = other.into_iter().find(|other| other.release != kernel.release).context("no other kernel")?;
    let mut guest = Guest::new(bench, debian)?;
    guest.add_livepatch(kernel, whole::PATCH)?;
    guest.boot(
        kernel,
        &[
            ("dpkg -i /kmend/kmend.deb", "Setting up kmend"),
            ("kmend install /kmend/livepatch-meminfo.ko", "installed"),
        ],
    )?;
    guest.boot(
        &other,
        &[
            ("kmend list", "no livepatch is loaded"),
            ("! systemctl is-failed kmend.service", ""),
            ("kmend status", &other.release),
        ],
    )?;
    guest.boot(kernel, &[("kmend list", "livepatch_meminfo enabled")])
}
