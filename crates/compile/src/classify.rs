//! What a patch to a file means for a running kernel, by the file's path.

use crate::adopt::is_makefile;
use crate::kconfig::is_kconfig;
use kmend_refusal::{Code, Refusal};
use std::path::Path;

/// What is to be done with a file of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It becomes no part of a kernel: its hunks are passed over.
    Skipped,
    /// A C source: its units are compiled.
    Source,
    /// A header.
    Header,
    /// A list of the objects that the kernel is built from.
    Makefile,
    /// A list of the options of a configuration.
    Kconfig,
    /// It is part of a kernel in a way that cannot be changed while it runs; with the reason.
    Unsupported(Code, &'static str),
}

/// Folders whose files never become part of a kernel.
const SKIPPED: &[&str] =
    &["Documentation/", "LICENSES/", "tools/", "samples/", "scripts/", "usr/", "lib/kunit/"];

/// Names, anywhere, of files that never become part of a kernel.
const SKIPPED_NAMES: &[&str] = &[
    "MAINTAINERS",
    "CREDITS",
    "COPYING",
    "README",
    ".gitignore",
    ".mailmap",
    ".clang-format",
    ".get_maintainer.ignore",
];

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

/// What to do with the file at `path` (from the tree's root).
pub fn classify(path: &str) -> Kind {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let other_architecture =
        path.starts_with("arch/") && !path.starts_with("arch/x86/") && path != "arch/Kconfig";
    if SKIPPED.iter().any(|folder| path.starts_with(folder))
        || SKIPPED_NAMES.contains(&name)
        || matches!(extension, "rst" | "txt" | "md")
        || other_architecture
    {
        return Kind::Skipped;
    }
    if let Some((code, why)) = runs_elsewhere(path) {
        return Kind::Unsupported(code, why);
    }
    if is_makefile(path) && path.contains('/') {
        return Kind::Makefile;
    }
    if name.starts_with("Makefile") || name.starts_with("Kbuild") {
        return Kind::Unsupported(Code::BuildFile, "it says how the whole kernel is built");
    }
    if is_kconfig(path) {
        return Kind::Kconfig;
    }
    if name.ends_with("_defconfig") || matches!(extension, "config" | "configs") {
        return Kind::Unsupported(Code::Configuration, "the kernel that runs has its configuration");
    }
    if path == ".config" {
        return Kind::Unsupported(Code::Configuration, "the kernel that runs has its configuration");
    }
    if name.contains(".lds.") || extension == "lds" {
        return Kind::Unsupported(Code::UnsupportedFile, "it is a linker script: memory is laid out by it");
    }
    match extension {
        "c" => Kind::Source,
        "h" => Kind::Header,
        "S" | "s" => {
            Kind::Unsupported(Code::Assembly, "assembly has neither ftrace entries nor sections of its own")
        }
        "rs" => Kind::Unsupported(Code::UnsupportedFile, "Rust code is not supported"),
        _ => Kind::Unsupported(Code::UnsupportedFile, "it is neither C source nor documentation"),
    }
}

/// The refusal for a file that cannot be patched live.
pub fn unsupported(path: &str, code: Code, why: &str) -> Refusal {
    Refusal::new(code, path, why).at(path, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        for path in
            ["Documentation/x.c", "tools/testing/selftests/a.c", "MAINTAINERS", "fs/a.rst", "arch/arm64/k.c"]
        {
            assert_eq!(classify(path), Kind::Skipped, "{path}");
        }
        for (path, code) in [
            ("arch/x86/boot/main.c", Code::BootCode),
            ("lib/vdso/gettimeofday.c", Code::Vdso),
            ("arch/x86/realmode/rm/wakemain.c", Code::RealMode),
            ("arch/x86/configs/x86_64_defconfig", Code::Configuration),
            (".config", Code::Configuration),
            ("Makefile", Code::BuildFile),
            ("a/b.S", Code::Assembly),
            ("a.lds.S", Code::UnsupportedFile),
        ] {
            assert!(matches!(classify(path), Kind::Unsupported(found, _) if found == code), "{path}");
        }
        assert_eq!(classify("fs/Makefile"), Kind::Makefile);
        assert_eq!(classify("fs/Kconfig.debug"), Kind::Kconfig);
        assert_eq!(classify("fs/proc/meminfo.c"), Kind::Source);
        assert_eq!(classify("arch/x86/entry/vdso/vma.c"), Kind::Source);
        assert!(runs_elsewhere("arch/x86/purgatory/sha256.o").is_some());
        assert_eq!(classify("include/linux/fs.h"), Kind::Header);
    }
}
