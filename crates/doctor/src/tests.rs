use super::*;
use std::fs;
use tempfile::TempDir;

const RELEASE: &str = "6.1.0-test";

/// A machine that is fit for everything but fetching.
struct Fake {
    root: TempDir,
    machine: Machine,
}

impl Fake {
    fn new() -> Fake {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_owned();
        let machine = Machine {
            root: path.clone(),
            path: path.join("bin").into(),
            cache: Ok(path.join("cache")),
            superuser: true,
        };
        let fake = Fake { root, machine };
        fs::create_dir_all(fake.root.path().join("sys/kernel/livepatch")).unwrap();
        for (path, text) in [
            ("proc/sys/kernel/osrelease", RELEASE),
            ("proc/sys/kernel/ftrace_enabled", "1"),
            ("proc/sys/kernel/modules_disabled", "0"),
            ("proc/meminfo", "MemTotal:  9 kB\nMemAvailable:    4000000 kB\n"),
            ("run/systemd/journal/socket", ""),
        ] {
            fake.write(path, text);
        }
        fake.configure(&["DYNAMIC_FTRACE_WITH_ARGS=y", "KALLSYMS_ALL=y", "HAVE_RELIABLE_STACKTRACE=y"]);
        fake
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn configure(&self, options: &[&str]) {
        let text = format!("CONFIG_{}\n", options.join("\nCONFIG_"));
        self.write(&format!("boot/config-{RELEASE}"), &text);
    }

    fn group(&self, purpose: Purpose) -> Group {
        self.machine.examine(&[purpose]).groups.remove(0)
    }

    fn verdict(&self, purpose: Purpose, what: &str) -> Verdict {
        let group = self.group(purpose);
        let found = group.findings.iter().find(|finding| finding.what == what);
        found.unwrap_or_else(|| panic!("nothing is said of {what}: {group:?}")).verdict
    }
}

#[test]
fn a_stock_kernel_is_ready() {
    let fake = Fake::new();
    let group = fake.group(Purpose::Load);
    assert!(group.ready, "{group:?}");
    assert!(group.findings.iter().all(|finding| finding.verdict == Verdict::Ok), "{group:?}");
}

#[test]
fn what_a_load_cannot_do_without_is_missing() {
    let fake = Fake::new();
    fake.write("proc/sys/kernel/ftrace_enabled", "0");
    fake.write("proc/sys/kernel/modules_disabled", "1");
    fake.configure(&["DYNAMIC_FTRACE_WITH_REGS=y", "KALLSYMS_ALL=n"]);
    assert_eq!(fake.verdict(Purpose::Load, "ftrace"), Verdict::Missing);
    assert_eq!(fake.verdict(Purpose::Load, "modules"), Verdict::Missing);
    assert_eq!(fake.verdict(Purpose::Load, "redirection"), Verdict::Ok);
    assert_eq!(fake.verdict(Purpose::Load, "all symbols"), Verdict::Missing);
    assert_eq!(fake.verdict(Purpose::Load, "reliable stacks"), Verdict::Note);
    fs::remove_dir(fake.root.path().join("sys/kernel/livepatch")).unwrap();
    assert_eq!(fake.verdict(Purpose::Load, "livepatches"), Verdict::Missing);
    assert!(!fake.machine.examine(&Purpose::ALL).is_ready());
}

#[test]
fn a_kernel_that_takes_signed_modules_only_is_a_note() {
    let fake = Fake::new();
    assert_eq!(fake.verdict(Purpose::Load, "lockdown"), Verdict::Ok);
    fake.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    fake.write("sys/module/module/parameters/sig_enforce", "Y\n");
    assert_eq!(fake.verdict(Purpose::Load, "lockdown"), Verdict::Note);
    assert_eq!(fake.verdict(Purpose::Load, "module signatures"), Verdict::Note);
    assert!(fake.group(Purpose::Load).ready);
}

#[test]
fn a_kernel_without_configuration_or_without_proc_is_told_so() {
    let fake = Fake::new();
    fs::remove_file(fake.root.path().join(format!("boot/config-{RELEASE}"))).unwrap();
    assert_eq!(fake.verdict(Purpose::Load, "configuration"), Verdict::Note);
    fs::remove_dir_all(fake.root.path().join("proc")).unwrap();
    assert_eq!(fake.verdict(Purpose::Load, "kernel"), Verdict::Missing);
}

#[test]
fn missing_tools_are_named_with_their_packages() {
    let fake = Fake::new();
    fake.configure(&["CC_VERSION_TEXT=\"gcc-12 (Debian 12.2.0-14) 12.2.0\""]);
    let group = fake.group(Purpose::Build);
    let packages: Vec<&str> = group.packages.iter().map(String::as_str).collect();
    let expected = [
        "binutils",
        "bison",
        "flex",
        "gcc-12",
        "kmod",
        "libc6-dev",
        "libelf-dev",
        "libssl-dev",
        "make",
        "mawk",
        "xz-utils",
    ];
    assert!(expected.iter().all(|package| packages.contains(package)), "{packages:?}");
    for (program, ..) in [("make", ""), ("bc", "")] {
        fake.write(&format!("bin/{program}"), "");
    }
    assert_eq!(fake.verdict(Purpose::Build, "make"), Verdict::Ok);
    assert_eq!(fake.verdict(Purpose::Build, "flex"), Verdict::Missing);
    assert_eq!(fake.verdict(Purpose::Prove, "qemu-system-x86_64"), Verdict::Missing);
    assert_eq!(fake.verdict(Purpose::Prove, "KVM"), Verdict::Note);
}

#[test]
fn a_busybox_with_libraries_is_not_enough() {
    let fake = Fake::new();
    let here = std::env::current_exe().unwrap();
    fs::create_dir_all(fake.root.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(here, fake.root.path().join("bin/busybox")).unwrap();
    let group = fake.group(Purpose::Prove);
    assert!(group.packages.contains("busybox-static"), "{group:?}");
}

#[test]
fn the_cache_is_looked_at_and_not_made() {
    let fake = Fake::new();
    assert_eq!(fake.verdict(Purpose::Build, "cache"), Verdict::Ok);
    assert_eq!(fake.verdict(Purpose::Build, "kernels"), Verdict::Missing);
    assert!(!fake.root.path().join("cache").exists());
    let machine = Machine { cache: Err("no HOME".into()), ..fake.machine.clone() };
    assert!(!machine.examine(&[Purpose::Build]).is_ready());
}

#[test]
fn a_damaged_configuration_is_none() {
    let fake = Fake::new();
    fs::remove_file(fake.root.path().join(format!("boot/config-{RELEASE}"))).unwrap();
    for bytes in
        [&b"\x1f\x8b\x08"[..], b"\x1f\x8b\x08\0\0\0\0\0\0\x03garbage", b"", b"\xff\xfe", b"\xfd7zXZ\0"]
    {
        let path = fake.root.path().join("proc/config.gz");
        fs::write(path, bytes).unwrap();
        assert_eq!(fake.verdict(Purpose::Load, "configuration"), Verdict::Note, "{bytes:?}");
    }
}
