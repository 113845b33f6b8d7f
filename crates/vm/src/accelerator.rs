//! Whether the machine can run guests by itself or must emulate them.

use crate::machine::Machine;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

/// A guest that boots prints its banner well within this time on real KVM; an answer is not worth more.
const PROBE: Duration = Duration::from_secs(3);
/// Where the answer is kept, in the caller's cache folder.
const ANSWER: &str = "vm-accelerator";
/// Overrides the probe: `kvm` or `tcg`.
const VARIABLE: &str = "KMEND_ACCEL";

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accelerator {
    /// QEMU's own translator: slow, everywhere.
    #[default]
    Tcg,
    /// The processor, through /dev/kvm.
    Kvm,
}

impl Accelerator {
    /// The name that QEMU knows.
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Tcg => "tcg",
            Accelerator::Kvm => "kvm",
        }
    }

    fn named(name: &str) -> Option<Accelerator> {
        [Accelerator::Tcg, Accelerator::Kvm].into_iter().find(|accelerator| accelerator.name() == name.trim())
    }

    /// The accelerator to use for an image: that of `KMEND_ACCEL`, else KVM if `image` boots with it, else TCG.
    ///
    /// That /dev/kvm opens means little: on some nested hypervisors the guest's kernel never gets out of its
    /// decompressor. So the kernel itself is started, once in each uptime of this machine (the answer is kept
    /// in `cache`), for at most three seconds.
    pub fn choose(image: &Path, cache: Option<&Path>) -> Accelerator {
        if let Some(asked) = std::env::var(VARIABLE).ok().as_deref().and_then(Accelerator::named) {
            return asked;
        }
        if OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
            return Accelerator::Tcg;
        }
        let uptime = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let kept = cache.and_then(|folder| fs::read_to_string(folder.join(ANSWER)).ok());
        if let Some(answer) = kept.as_deref().and_then(|text| answer_of(text, &uptime)) {
            return answer;
        }
        let answer = if boots_with_kvm(image) { Accelerator::Kvm } else { Accelerator::Tcg };
        if let Some(folder) = cache {
            // An answer that cannot be kept is found again next time.
            let _ = fs::write(folder.join(ANSWER), format!("{} {}\n", answer.name(), uptime.trim()));
        }
        answer
    }
}

/// The kept answer, if it was found in this uptime of the machine.
fn answer_of(kept: &str, uptime: &str) -> Option<Accelerator> {
    let (name, id) = kept.trim().split_once(' ')?;
    (!id.is_empty() && id == uptime.trim()).then(|| Accelerator::named(name)).flatten()
}

fn boots_with_kvm(image: &Path) -> bool {
    let machine = Machine { accelerator: Accelerator::Kvm, timeout: PROBE, ..Machine::new(image) };
    machine.prints_banner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_one_uptime() {
        assert_eq!(answer_of("kvm 1234\n", "1234\n"), Some(Accelerator::Kvm));
        assert_eq!(answer_of("tcg 1234\n", "1234\n"), Some(Accelerator::Tcg));
        assert_eq!(answer_of("kvm 1234\n", "5678\n"), None);
        assert_eq!(answer_of("kvm \n", ""), None);
        assert_eq!(answer_of("xen 1234\n", "1234"), None);
    }
}
