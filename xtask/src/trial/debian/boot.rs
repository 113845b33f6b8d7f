//! What is installed for every boot, on a real system that is booted again and again.

use super::{Debian, Guest};
use crate::kernels;
use crate::trial::{Bench, whole};
use anyhow::{Context, Result, bail, ensure};
use kmend_store::Kernel;
use kmend_vm::VmError;

/// A livepatch that oopses while it is loaded.
const OOPS: &str = "tests/debian/oops.patch";

/// A livepatch of the function in which a task reads from a pipe that stays empty.
const STALL: &str = "tests/patches/stall.patch";
/// Loads it while a task does, and resets the machine before the transition is over.
const RESET: &str = "mkfifo /tmp/pipe; sleep 1000 > /tmp/pipe & cat /tmp/pipe & sleep 1; kmend load --wait 1 livepatch_stall; \
                     [ $? = 1 ] && echo b > /proc/sysrq-trigger";

/// A patch for the consistency engine: what /proc/version says.
const BY_ENGINE: &str = "tests/patches/callback.patch";

/// Says in which order two units became active, by the clock that only goes forward.
const EARLIER: &str = "time() { systemctl show -P ActiveEnterTimestampMonotonic \"$1\"; }\n\
                       kmend=$(time kmend.service) network=$(time network-pre.target)\n\
                       [ 0 -lt \"$kmend\" ] && [ \"$kmend\" -le \"$network\" ] && echo before the network";

/// Installed, booted again: it is loaded, and was before the network. So is a patch of the consistency engine, with the engine.
pub(crate) fn installed(bench: &Bench, debian: &Debian, kernel: &Kernel) -> Result<()> {
    let mut guest = Guest::new(bench, debian)?;
    guest.add_livepatch(kernel, whole::PATCH)?;
    guest.add_engine(kernel, BY_ENGINE, "version")?;
    guest.boot(
        kernel,
        &[
            ("dpkg -i /kmend/kmend.deb", "Setting up kmend"),
            ("systemctl is-enabled kmend.service", "enabled"),
            ("kmend install /kmend/livepatch-meminfo.ko", "installed"),
            ("! kmend install /kmend/livepatch-version.ko", "KM0813"),
            (
                "kmend install /kmend/kmend_engine.ko /kmend/livepatch-version.ko",
                "installed livepatch_version",
            ),
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
            ("kmend list", "livepatch_version enabled, by kmend's engine"),
            ("cat /proc/version", "mended"),
            ("kmend engine status", "version_proc_show"),
            ("! kmend uninstall kmend_engine", "KM0816"),
            ("kmend uninstall livepatch_meminfo livepatch_version", "uninstalled livepatch_version"),
        ],
    )?;
    guest.boot(kernel, &[("kmend list", "no livepatch is loaded"), ("! grep kmend /proc/modules", "")])
}

/// The machine goes down while an installed livepatch is loaded, by a reset in the middle of its transition and by an oops at
/// boot: the next boot holds it.
pub(crate) fn crash(bench: &Bench, debian: &Debian, kernel: &Kernel) -> Result<()> {
    let mut guest = Guest::new(bench, debian)?;
    guest.add_livepatch(kernel, OOPS)?;
    guest.add_livepatch(kernel, STALL)?;
    let reset =
        [("dpkg -i /kmend/kmend.deb && kmend install /kmend/livepatch-stall.ko && sync", ""), (RESET, "")];
    match guest.scenario(kernel, &reset).run() {
        Err(VmError::Protocol { step: Some(step), .. }) if step == RESET => {}
        Err(error) => return Err(error).context("the boot that is reset in the middle of a transition"),
        Ok(_) => bail!("the machine was not reset"),
    }
    guest.boot(
        kernel,
        &[
            ("kmend list", "no livepatch is loaded"),
            ("kmend status", "held: the machine went down while it was loaded"),
            ("kmend uninstall livepatch_stall", "uninstalled"),
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
