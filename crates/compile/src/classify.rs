//! Files whose place in the tree says what their code is to a kernel that runs.

use kmend_refusal::Code;
use std::path::Path;

/// Folders and files whose code runs outside the kernel that is mended, with what it is.
const ELSEWHERE: &[(&str, Code, &str)] = &[
    ("arch/x86/boot/", Code::BootCode, "boot code has run before the kernel does"),
    ("arch/x86/entry/vdso/", Code::Vdso, "the vdso is mapped into processes and has no ftrace entry"),
    ("lib/vdso/", Code::Vdso, "the vdso is mapped into processes and has no ftrace entry"),
    ("arch/x86/realmode/", Code::RealMode, "real-mode code is copied away when the kernel starts"),
    ("arch/x86/purgatory/", Code::BootCode, "purgatory runs between two kernels"),
    ("drivers/firmware/efi/libstub/", Code::BootCode, "the EFI stub has run before the kernel does"),
];

/// Files beside the vdso that are kernel code: they map it (arch/x86/entry/vdso/Makefile, `obj-y`).
const VDSO_KERNEL_SIDE: &[&str] = &["arch/x86/entry/vdso/vma", "arch/x86/entry/vdso/extable"];

/// Why code made from the source, or the object, at `path` does not run in the kernel that is mended.
pub fn runs_elsewhere(path: &str) -> Option<(Code, &'static str)> {
    let stem = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
    if VDSO_KERNEL_SIDE.contains(&stem) {
        return None;
    }
    ELSEWHERE.iter().find(|(folder, ..)| path.starts_with(folder)).map(|&(_, code, why)| (code, why))
}

/// Why a file is a kernel's configuration, if it is: what `make` has it made of.
pub fn configuration(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let is_config = path == ".config"
        || name.ends_with("_defconfig")
        || (path.contains("configs/")
            && Path::new(name).extension().is_some_and(|extension| extension == "config"));
    is_config.then_some("the kernel that runs has its configuration")
}

/// Whether a file lays out memory.
pub fn is_linker_script(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.contains(".lds.") || Path::new(name).extension().is_some_and(|extension| extension == "lds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        for (path, code) in [
            ("arch/x86/boot/main.c", Code::BootCode),
            ("lib/vdso/gettimeofday.c", Code::Vdso),
            ("arch/x86/realmode/rm/wakemain.c", Code::RealMode),
            ("arch/x86/purgatory/sha256.o", Code::BootCode),
        ] {
            assert_eq!(runs_elsewhere(path).map(|(code, _)| code), Some(code), "{path}");
        }
        assert_eq!(runs_elsewhere("arch/x86/entry/vdso/vma.c"), None);
        for path in ["arch/x86/configs/x86_64_defconfig", ".config", "kernel/configs/debug.config"] {
            assert!(configuration(path).is_some(), "{path}");
        }
        assert!(configuration("fs/config.c").is_none());
        assert!(is_linker_script("arch/x86/kernel/vmlinux.lds.S") && !is_linker_script("a.S"));
    }
}
