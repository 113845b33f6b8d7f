//! What a patch to a file means for a running kernel, by the file's path.

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
    /// It is part of a kernel in a way that cannot be changed while it runs; with the reason.
    Unsupported(&'static str),
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
const ELSEWHERE: &[(&str, &str)] = &[
    ("arch/x86/boot/", "boot code has run before the kernel does"),
    ("arch/x86/entry/vdso/", "the vdso is mapped into processes and has no ftrace entry"),
    ("lib/vdso/", "the vdso is mapped into processes and has no ftrace entry"),
    ("arch/x86/realmode/", "real-mode code is copied away when the kernel starts"),
    ("arch/x86/purgatory/", "purgatory runs between two kernels"),
    ("drivers/firmware/efi/libstub/", "the EFI stub has run before the kernel does"),
];

/// Files beside the vdso that are kernel code: they map it (arch/x86/entry/vdso/Makefile, `obj-y`).
const VDSO_KERNEL_SIDE: &[&str] = &["arch/x86/entry/vdso/vma", "arch/x86/entry/vdso/extable"];

/// Why code made from the source, or the object, at `path` does not run in the kernel that is mended.
pub fn runs_elsewhere(path: &str) -> Option<&'static str> {
    let stem = path.rsplit_once('.').map_or(path, |(stem, _)| stem);
    if VDSO_KERNEL_SIDE.contains(&stem) {
        return None;
    }
    ELSEWHERE.iter().find(|(folder, _)| path.starts_with(folder)).map(|(_, why)| *why)
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
    if let Some(why) = runs_elsewhere(path) {
        return Kind::Unsupported(why);
    }
    if name.starts_with("Kconfig") || name.starts_with("Makefile") || name.starts_with("Kbuild") {
        return Kind::Unsupported("the build's configuration is not part of a unit");
    }
    match extension {
        "c" => Kind::Source,
        "h" => Kind::Header,
        "S" | "s" => Kind::Unsupported("assembly has neither ftrace entries nor sections of its own"),
        "rs" => Kind::Unsupported("Rust code is not supported"),
        _ => Kind::Unsupported("it is neither C source nor documentation"),
    }
}

/// The refusal for a file of a kind that cannot be patched live.
pub fn unsupported(path: &str, why: &str) -> Refusal {
    Refusal::new(Code::UnsupportedFile, path, why).at(path, None)
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
        for path in
            ["arch/x86/boot/main.c", "lib/vdso/gettimeofday.c", "fs/Kconfig", "fs/Makefile", "a/b.S", "a.lds"]
        {
            assert!(matches!(classify(path), Kind::Unsupported(_)), "{path}");
        }
        assert_eq!(classify("fs/proc/meminfo.c"), Kind::Source);
        assert_eq!(classify("arch/x86/entry/vdso/vma.c"), Kind::Source);
        assert!(runs_elsewhere("arch/x86/purgatory/sha256.o").is_some());
        assert_eq!(classify("include/linux/fs.h"), Kind::Header);
    }
}
