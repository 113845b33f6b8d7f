//! What it takes to build livepatches.

use crate::configuration::Configuration;
use crate::finding::Finding;
use crate::{Machine, existing};
use kmend_store::{Cache, Kernel};
use std::path::Path;

/// Programs of Debian's packages that the kernel's build system and kmend call on, with what each is for.
const TOOLS: [(&str, &str, &str); 9] = [
    ("make", "make", "the kernel's build system"),
    ("as", "binutils", "assembles what the compiler wrote"),
    ("ld", "binutils", "links what the compiler wrote"),
    ("flex", "flex", "makes parsers of the build system"),
    ("bison", "bison", "makes parsers of the build system"),
    ("bc", "bc", "computes constants of the build system"),
    ("awk", "mawk", "writes tables of the build system"),
    ("xz", "xz-utils", "unpacks the kernel's source"),
    ("kmod", "kmod", "reads modules in the build system's last step"),
];

/// Headers that the build system's own programs are compiled with.
const HEADERS: [(&str, &str, &str); 3] = [
    ("usr/include/stdio.h", "libc6-dev", "for the programs of the build system"),
    ("usr/include/libelf.h", "libelf-dev", "objtool reads objects with it"),
    ("usr/include/openssl/opensslv.h", "libssl-dev", "for the build system's signing program"),
];

/// Without these no kernel can be fetched, but one can be imported.
const FETCHERS: [(&str, &str); 2] = [("apt-get", "apt"), ("dpkg-deb", "dpkg")];

/// What a kernel takes in the cache, fetched and prepared: 1.9 GiB for Debian's 6.1 and 6.12, in bytes.
const ROOM: u64 = 2 << 30;

impl Machine {
    pub(crate) fn building(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            TOOLS.iter().map(|(program, package, purpose)| self.tool(program, package, purpose)).collect();
        findings.extend(HEADERS.iter().map(|(path, package, purpose)| {
            if self.below(path).exists() {
                Finding::ok(package, format!("/{path}"))
            } else {
                Finding::missing(package, format!("/{path} is not there; {purpose}")).install(package)
            }
        }));
        findings.extend(FETCHERS.iter().map(|(program, package)| {
            match self.program(program) {
                Some(path) => Finding::ok(program, path.display().to_string()),
                None => Finding::note(program, "not in PATH: `kmend kernel fetch` needs it")
                    .way_out(format!("`kmend kernel import` does without it; the package is {package}")),
            }
        }));
        match &self.cache {
            Ok(root) => self.add_cache(root, &mut findings),
            Err(why) => findings.push(Finding::missing("cache", why).way_out("set KMEND_CACHE to a folder")),
        }
        findings
    }

    fn add_cache(&self, root: &Path, findings: &mut Vec<Finding>) {
        // What is not there is not made.
        let opened = root.is_dir().then(|| Cache::at(root));
        let kernels = match &opened {
            None => {
                findings.push(Finding::ok("cache", format!("{} will be made", root.display())));
                Vec::new()
            }
            Some(Ok(cache)) => {
                findings.push(Finding::ok("cache", root.display().to_string()));
                findings.extend(damaged(cache));
                cache.kernels().unwrap_or_default()
            }
            Some(Err(error)) => {
                let finding = Finding::missing("cache", error.to_string());
                findings.push(finding.way_out("set KMEND_CACHE to a folder that you can write to"));
                Vec::new()
            }
        };
        findings.push(room(root));
        self.add_kernels(&kernels, findings);
    }

    /// The kernels to build for, and the compiler that each needs.
    fn add_kernels(&self, kernels: &[Kernel], findings: &mut Vec<Finding>) {
        let running = self.read("proc/sys/kernel/osrelease").unwrap_or_default();
        let releases: Vec<&str> = kernels.iter().map(|kernel| kernel.release.as_str()).collect();
        let fetch = "`kmend kernel fetch debian:cloud-amd64` gets Debian's newest one for clouds, `kmend kernel fetch \
                     debian:amd64` the one for any machine";
        findings.push(if releases.is_empty() {
            Finding::missing("kernels", "none in the cache").way_out(fetch)
        } else {
            Finding::ok("kernels", releases.join(", "))
        });
        let mut compilers: Vec<Finding> =
            kernels.iter().map(|kernel| self.compiler(&kernel.compiler, &kernel.compiler_text)).collect();
        if !releases.contains(&running.as_str()) {
            findings.push(Finding::note("running kernel", format!("{running} is not in the cache")).way_out(
                "to build for it, fetch it with `kmend kernel fetch` or import it with `kmend kernel import`",
            ));
            // Only who will build for it misses its compiler.
            if let Some(text) = self.compiler_of_running(&running) {
                let finding = self.compiler(&kmend_store::compiler_program(&text), &text);
                compilers.push(finding.if_wanted());
            }
        }
        for finding in compilers {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }

    /// `--version` of the compiler that built the kernel that runs.
    fn compiler_of_running(&self, release: &str) -> Option<String> {
        let configuration = Configuration::of_running(&self.root, release)?;
        configuration.value("CC_VERSION_TEXT").map(str::to_owned)
    }

    fn compiler(&self, program: &str, wanted: &str) -> Finding {
        let what = format!("compiler {program}");
        let package = program.rsplit('-').next().map_or("gcc".into(), |number| format!("gcc-{number}"));
        let package = if program.contains("clang") { program.to_owned() } else { package };
        let Some(path) = self.program(program) else {
            let found = format!("not in PATH; a kernel was built by {wanted}");
            return Finding::missing(&what, found).install(&package);
        };
        match kmend_compile::check_compiler(&path.display().to_string(), wanted) {
            Ok(line) => Finding::ok(&what, line),
            Err(error) => Finding::missing(&what, error.to_string())
                .way_out("install the version that built the kernel: code differs between any two"),
        }
    }
}

fn damaged(cache: &Cache) -> Vec<Finding> {
    let damaged = cache.damaged().unwrap_or_default();
    damaged
        .iter()
        .map(|(release, why)| {
            Finding::note(&format!("kernel {release}"), why.to_string())
                .way_out(format!("`kmend kernel remove {release}`, then fetch it again"))
        })
        .collect()
}

fn room(root: &Path) -> Finding {
    let free = existing(root).and_then(|folder| kmend_store::free(folder).ok());
    let Some(free) = free else {
        return Finding::note("disk", "how much is free there cannot be asked");
    };
    let found = format!("{} MiB free", free >> 20);
    if free >= ROOM {
        return Finding::ok("disk", found);
    }
    Finding::note("disk", found)
        .way_out("a kernel takes 2 GiB: free some, or set KMEND_CACHE to another file system")
}
