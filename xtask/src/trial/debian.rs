//! The package on a real Debian 12 with systemd: it installs, works, and goes without a trace.

pub(super) mod boot;
pub(super) mod selftests;

use super::{Bench, whole};
use crate::{package, userland};
use anyhow::{Result, ensure};
use kmend_store::{Cache, Kernel};
use kmend_vm::{Disk, GuestFile, Machine, Scenario, Step, StepOutcome};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// From power on to power off: an emulated guest starts systemd in half a minute where nobody else is at work.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What all of these trials share.
pub(crate) struct Debian {
    /// The system.
    image: PathBuf,
    /// kmend's package.
    package: PathBuf,
}

/// A guest's disk, which outlives a boot.
struct Guest<'a> {
    bench: &'a Bench,
    folder: tempfile::TempDir,
    disk: PathBuf,
    files: Vec<GuestFile>,
}

/// A command, and what its output must hold. It must succeed.
type Expectation<'a> = (&'a str, &'a str);

impl Debian {
    /// Makes the system and the package.
    pub(crate) fn prepare(cache: &Cache) -> Result<Debian> {
        Ok(Debian { image: userland::image(cache)?, package: package::run(package::Profile::Dev)? })
    }
}

/// Files of the disk by name. Left out is what others write: dpkg and systemd of what they did, the log, and the system at its
/// first boot.
const FILES: &str = "find / -xdev -not \\( -path '/var/log/*' -o -path '/var/lib/dpkg/*' -o -path '/var/lib/systemd/*' \
                     -o -path '/var/tmp/*' -o -path '/tmp/*' -o -path '/var/cache/*' \\) | sort";

/// Loads what is installed, and makes the crash memory one of another boot, which then holds it.
const HELD: &str = "kmend load livepatch_meminfo && sed -i \"s/$(cat /proc/sys/kernel/random/boot_id)/\
                    00000000-0000-4000-8000-000000000000/\" /var/lib/kmend/loading.json; kmend boot; kmend status";

/// Installs the package, uses it, and purges it.
pub(crate) fn package(bench: &Bench, debian: &Debian, kernel: &Kernel) -> Result<()> {
    let mut guest = Guest::new(bench, debian)?;
    guest.add_livepatch(kernel, whole::PATCH)?;
    let before = format!("{FILES} > /kmend/before");
    let purged = format!("{FILES} > /kmend/after; diff /kmend/before /kmend/after && echo nothing is left");
    let release = format!("\"release\": \"{}\"", kernel.release);
    guest.boot(
        kernel,
        &[
            (before.as_str(), ""),
            ("dpkg -i /kmend/kmend.deb", "Setting up kmend"),
            ("kmend doctor --for load", "ready"),
            ("kmend status --json", &release),
            ("kmend load /kmend/livepatch-meminfo.ko && grep VMALLOCChunk /proc/meminfo", "VMALLOCChunk"),
            (
                "journalctl --sync; journalctl -o verbose KMEND_LIVEPATCH=livepatch_meminfo",
                "KMEND_COMMAND=load",
            ),
            (
                "kmend status --prometheus /tmp/kmend.prom; cat /tmp/kmend.prom",
                "kmend_livepatch_in_force{name=\"livepatch_meminfo\"} 1",
            ),
            (
                "! kmend load /kmend/kmend.deb; journalctl --sync; journalctl -o verbose -t kmend",
                "KMEND_CODE=",
            ),
            ("kmend install /kmend/livepatch-meminfo.ko && ls /var/lib/kmend", "installed"),
            ("kmend unload livepatch_meminfo; grep VmallocChunk /proc/meminfo", "VmallocChunk"),
            ("zcat /usr/share/man/man1/kmend.1.gz", "livepatch"),
            // Loaded, installed and held: what goes with the package, and what does not.
            (HELD, "held: the machine went down"),
            ("dpkg --remove kmend", "stay loaded until the next boot: livepatch_meminfo"),
            ("dpkg -i /kmend/kmend.deb && kmend status", "held: the machine went down"),
            ("dpkg --purge kmend", "Purging configuration files for kmend"),
            ("ls /var/lib/kmend 2>&1 || ls /sys/kernel/livepatch", "livepatch_meminfo"),
            (&purged, "nothing is left"),
        ],
    )
}

impl<'a> Guest<'a> {
    fn new(bench: &'a Bench, debian: &Debian) -> Result<Guest<'a>> {
        let folder = tempfile::tempdir()?;
        let disk = userland::disk(&debian.image, folder.path())?;
        let package =
            GuestFile { host: debian.package.clone(), guest: "/kmend/kmend.deb".into(), program: false };
        Ok(Guest { bench, folder, disk, files: vec![package] })
    }

    /// Builds the livepatch of a patch for a kernel; the guest finds it in /kmend.
    fn add_livepatch(&mut self, kernel: &Kernel, patch: &str) -> Result<()> {
        whole::build(self.bench, kernel, patch, self.folder.path())?;
        let stem = Path::new(patch).file_stem().unwrap_or_default().to_string_lossy();
        self.add(&format!("livepatch-{stem}.ko"));
        Ok(())
    }

    /// Builds the consistency engine, and a patch for it.
    fn add_engine(&mut self, kernel: &Kernel, patch: &str, name: &str) -> Result<()> {
        whole::build_engine(self.bench, kernel, self.folder.path())?;
        let options = ["--engine", "--name", name];
        whole::build_with(self.bench, kernel, &[patch], &options, self.folder.path())?;
        self.add("kmend_engine.ko");
        self.add(&format!("livepatch-{name}.ko"));
        Ok(())
    }

    /// Gives the guest a file that was built.
    fn add(&mut self, name: &str) {
        let (host, guest) = (self.folder.path().join(name), format!("/kmend/{name}"));
        self.files.push(GuestFile { host, guest, program: false });
    }

    /// Boots the disk with a kernel, runs the commands, and shuts down in order.
    fn boot(&self, kernel: &Kernel, expectations: &[Expectation<'_>]) -> Result<()> {
        let transcript = self.scenario(kernel, expectations).run()?;
        let wrong: Vec<String> = transcript
            .steps
            .iter()
            .zip(expectations)
            .filter_map(|(step, (_, expected))| complaint(step, expected))
            .collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    fn scenario(&self, kernel: &Kernel, expectations: &[Expectation<'_>]) -> Scenario {
        let mut scenario = Scenario::new(&kernel.image);
        scenario.machine = Machine {
            accelerator: self.bench.accelerator,
            memory: 1024,
            // systemd has tasks wait for long on an emulated disk.
            options: "sysctl.kernel.hung_task_timeout_secs=240 systemd.log_color=0".into(),
            timeout: TIMEOUT,
            ..Machine::new(&kernel.image)
        };
        scenario.disk = Some(Disk { image: self.disk.clone(), modules: kernel.modules.clone() });
        scenario.files.clone_from(&self.files);
        let step = |(command, _): &Expectation<'_>| Step::Run {
            name: (*command).to_owned(),
            command: (*command).to_owned(),
        };
        scenario.steps = expectations.iter().map(step).collect();
        scenario
    }
}

fn complaint(step: &StepOutcome, expected: &str) -> Option<String> {
    let text = step.text();
    if step.status == 0 && text.contains(expected) {
        return None;
    }
    Some(format!("`{}` ended with {} and should print `{expected}`:\n{text}", step.name, step.status))
}
