//! What it takes to prove livepatches in virtual machines.

use crate::Machine;
use crate::finding::Finding;
use std::fs::OpenOptions;

/// A guest's memory and QEMU's own, in KiB.
const MEMORY_KIB: u64 = 768 << 10;

impl Machine {
    pub(crate) fn proving(&self) -> Vec<Finding> {
        vec![
            self.tool("qemu-system-x86_64", "qemu-system-x86", "boots a kernel in a virtual machine"),
            self.busybox(),
            self.kvm(),
            self.memory(),
        ]
    }

    fn busybox(&self) -> Finding {
        let missing = |why: String| Finding::missing("busybox", why).install("busybox-static");
        let Some(path) = self.program("busybox") else {
            return missing("not in PATH; all the programs of a guest".to_owned());
        };
        match kmend_vm::static_busybox(&path) {
            Ok(path) => Finding::ok("busybox", path.display().to_string()),
            Err(error) => missing(error.to_string()),
        }
    }

    fn kvm(&self) -> Finding {
        match OpenOptions::new().read(true).write(true).open(self.below("dev/kvm")) {
            Ok(_) => Finding::ok(
                "KVM",
                "/dev/kvm can be used; whether a guest boots with it is tried at the first proof",
            ),
            Err(error) => {
                Finding::note("KVM", format!("/dev/kvm: {error}; guests are emulated, which is slower"))
                    .way_out("on a machine that has it: be a member of the group kvm")
            }
        }
    }

    fn memory(&self) -> Finding {
        // proc(5): "MemAvailable: %lu", in kB.
        let available = self.read("proc/meminfo").and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
            line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
        });
        match available {
            Some(kib) if kib < MEMORY_KIB => Finding::note("memory", format!("{} MiB available", kib >> 10))
                .way_out("a guest takes 768 MiB: end what takes the memory"),
            Some(kib) => Finding::ok("memory", format!("{} MiB available", kib >> 10)),
            None => Finding::note("memory", "how much is available cannot be read"),
        }
    }
}
