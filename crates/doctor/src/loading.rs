//! What it takes to load a livepatch into the kernel that runs.

use crate::Machine;
use crate::configuration::Configuration;
use crate::finding::Finding;
use kmend_live::{KernelStatus, System};

/// What livepatches depend on, the options of which any is enough, and what is without them.
///
/// The first two are what `CONFIG_LIVEPATCH` itself depends on (Linux, kernel/livepatch/Kconfig).
const OPTIONS: [(&str, &[&str], &str); 2] = [
    (
        "redirection",
        &["DYNAMIC_FTRACE_WITH_REGS", "DYNAMIC_FTRACE_WITH_ARGS"],
        "functions cannot be redirected",
    ),
    ("all symbols", &["KALLSYMS_ALL"], "symbols of data cannot be found"),
];

/// What lets the kernel look at the stacks of sleeping tasks (`klp_have_reliable_stack`, kernel/livepatch/core.h).
const RELIABLE_STACKS: &str = "HAVE_RELIABLE_STACKTRACE";

impl Machine {
    pub(crate) fn loading(&self) -> Vec<Finding> {
        let kernel = match System::at(&self.root).kernel_status() {
            Ok(kernel) => kernel,
            Err(error) => {
                let way_out = "mount procfs at /proc and sysfs at /sys";
                return vec![Finding::missing("kernel", error.to_string()).way_out(way_out)];
            }
        };
        let configuration = Configuration::of_running(&self.root, &kernel.release);
        let mut findings = vec![
            Finding::ok(
                "kernel",
                format!("{}, build id {}", kernel.release, known(kernel.build_id.as_ref())),
            ),
            livepatch(&kernel, configuration.as_ref()),
        ];
        findings.extend(options(configuration.as_ref()));
        findings.extend([ftrace(&kernel), self.modules()]);
        findings.extend([lockdown(&kernel), signatures(&kernel, configuration.as_ref())]);
        findings.extend([self.pointers(), self.kernel_log(), self.journal(), self.superuser()]);
        findings
    }

    fn modules(&self) -> Finding {
        // One-way since the boot: Linux, Documentation/admin-guide/sysctl/kernel.rst, "modules_disabled".
        match self.read("proc/sys/kernel/modules_disabled").as_deref() {
            Some("0") => Finding::ok("modules", "the kernel takes modules"),
            Some(_) => Finding::missing("modules", "kernel.modules_disabled is set").way_out(
                "it holds until the next boot: take it out of sysctl's configuration and boot again",
            ),
            None => Finding::missing("modules", "the kernel takes no modules (CONFIG_MODULES)")
                .way_out("boot a kernel with modules"),
        }
    }

    fn pointers(&self) -> Finding {
        let found = match self.read("proc/sys/kernel/kptr_restrict") {
            Some(value) => format!("{value}; kmend asks the running kernel for no address"),
            None => "unknown; kmend asks the running kernel for no address".to_owned(),
        };
        Finding::ok("kptr_restrict", found)
    }

    fn kernel_log(&self) -> Finding {
        match self.read("proc/sys/kernel/dmesg_restrict").as_deref() {
            Some("1") if !self.superuser => {
                Finding::note("kernel log", "kernel.dmesg_restrict lets only root read it")
                    .way_out("as root, `kmend status` tells since when a livepatch is enabled")
            }
            _ => Finding::ok("kernel log", "can be read"),
        }
    }

    fn journal(&self) -> Finding {
        if self.below("run/systemd/journal/socket").exists() {
            Finding::ok("journal", "what kmend changes is written to it")
        } else {
            Finding::note("journal", "there is none: what kmend changes is written nowhere")
        }
    }

    fn superuser(&self) -> Finding {
        if self.superuser {
            Finding::ok("root", "yes")
        } else {
            Finding::note("root", "no").way_out("load, unload and the like need root: run them with sudo")
        }
    }
}

fn known(value: Option<&String>) -> &str {
    value.map_or("unknown", String::as_str)
}

fn livepatch(kernel: &KernelStatus, configuration: Option<&Configuration>) -> Finding {
    if kernel.livepatch {
        return Finding::ok("livepatches", "/sys/kernel/livepatch is there");
    }
    let found = match configuration {
        Some(configuration) if configuration.has("LIVEPATCH") => {
            "/sys/kernel/livepatch is not there, though the kernel is configured for it"
        }
        _ => "/sys/kernel/livepatch is not there: no CONFIG_LIVEPATCH",
    };
    let way_out = "boot a kernel with CONFIG_LIVEPATCH=y, such as Debian's amd64 and cloud-amd64; sysfs must be mounted at /sys";
    Finding::missing("livepatches", found).way_out(way_out)
}

fn options(configuration: Option<&Configuration>) -> Vec<Finding> {
    let Some(configuration) = configuration else {
        return vec![Finding::note(
            "configuration",
            "neither /proc/config.gz nor /boot/config-RELEASE is there",
        )];
    };
    let mut findings = vec![Finding::ok("configuration", configuration.file.clone())];
    for (what, any, without) in OPTIONS {
        findings.push(match any.iter().find(|option| configuration.has(option)) {
            Some(option) => Finding::ok(what, format!("CONFIG_{option}=y")),
            None => Finding::missing(what, format!("no CONFIG_{}: {without}", any.join(", no CONFIG_")))
                .way_out("boot a kernel that has it"),
        });
    }
    findings.push(if configuration.has(RELIABLE_STACKS) {
        Finding::ok("reliable stacks", format!("CONFIG_{RELIABLE_STACKS}=y"))
    } else {
        let found = format!(
            "no CONFIG_{RELIABLE_STACKS}: a transition takes until every sleeping task has left the kernel"
        );
        Finding::note("reliable stacks", found)
    });
    findings
}

fn ftrace(kernel: &KernelStatus) -> Finding {
    match kernel.ftrace_enabled {
        Some(true) => Finding::ok("ftrace", "on"),
        Some(false) => {
            Finding::missing("ftrace", "kernel.ftrace_enabled is 0").way_out("sysctl kernel.ftrace_enabled=1")
        }
        None => Finding::note("ftrace", "the kernel does not tell whether it is on"),
    }
}

fn lockdown(kernel: &KernelStatus) -> Finding {
    match kernel.lockdown.as_deref() {
        Some("none") => Finding::ok("lockdown", "none"),
        Some(mode) => Finding::note("lockdown", format!("{mode}: the kernel takes signed modules only"))
            .way_out("sign livepatches with a key that the kernel trusts: `kmend sign`"),
        None => Finding::ok("lockdown", "none that the kernel tells of"),
    }
}

fn signatures(kernel: &KernelStatus, configuration: Option<&Configuration>) -> Finding {
    let has = |option| configuration.is_some_and(|configuration| configuration.has(option));
    let what = "module signatures";
    if kernel.signatures_enforced == Some(true) {
        return Finding::note(what, "module.sig_enforce is on: the kernel takes signed modules only")
            .way_out("sign livepatches with a key that the kernel trusts: `kmend sign`");
    }
    let found = match kernel.signatures_enforced {
        Some(_) => "checked, not demanded: an unsigned livepatch taints the kernel (E)",
        None if has("MODULE_SIG") => "checked; whether they are demanded cannot be read",
        None => "not checked, as far as the kernel tells",
    };
    Finding::ok(what, found)
}
