//! An archive of small packages in Debian's form, and programs that serve it.
//!
//! The programs are scripts that do what the tests tell them by files in the archive's folder: `fail-NAME`
//! stops the download of a package half way, `truncate-NAME` cuts it off without a word, `slow` delays,
//! `full` lets the disk be full, `kill-PROGRAM-N` kills the caller in the N-th call. `log` has a line for
//! each call. Packages are made, and unpacked, by the real `dpkg-deb`.

// Every test program uses its own part of this.
#![allow(dead_code)]

use kmend_process::Command;
use kmend_store::Tools;
use lzma_rust2::{XzOptions, XzWriter};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub const RELEASE: &str = "6.1.0-9-test-amd64";
pub const VERSION: &str = "6.1.9-1";
pub const SPEC: &str = "debian:test-amd64";

/// The packages that make the kernel, in the order of their download.
pub const PACKAGES: [&str; 5] = [
    "linux-image-6.1.0-9-test-amd64",
    "linux-headers-6.1.0-9-test-amd64",
    "linux-headers-6.1.0-9-common",
    "linux-kbuild-6.1",
    "linux-source-6.1",
];

/// The archive's folder.
pub struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// An archive with one kernel in one version.
    pub fn new(folder: &Path) -> Self {
        let archive = Self { folder: folder.to_owned() };
        for name in ["lists", "pool", "bin"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        archive.programs();
        archive.add_kernel(VERSION);
        archive
    }

    /// An archive that another process has made.
    pub fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub fn tools(&self) -> Tools {
        let [apt_cache, apt_get, dpkg_deb] =
            ["apt-cache", "apt-get", "dpkg-deb"].map(|name| self.folder.join("bin").join(name));
        Tools { apt_cache, apt_get, dpkg_deb }
    }

    /// Sets one of the files by which the programs are told what to do.
    pub fn set(&self, name: &str) {
        fs::write(self.folder.join(name), "").unwrap();
    }

    pub fn unset(&self, name: &str) {
        fs::remove_file(self.folder.join(name)).unwrap();
    }

    /// The packages downloaded since the last question.
    pub fn downloads(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let _ = fs::remove_file(self.folder.join("log"));
        log.lines().filter_map(|line| line.strip_prefix("download ")).map(str::to_owned).collect()
    }

    /// The package lists' stanzas of one package, newest first.
    pub fn edit_list(&self, package: &str, edit: impl FnOnce(String) -> String) {
        let path = self.folder.join("lists").join(package);
        let text = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, edit(text)).unwrap();
    }

    pub fn remove_list(&self, package: &str) {
        fs::remove_file(self.folder.join("lists").join(package)).unwrap();
    }

    /// Moves the package lists away, to where `apt-get update` brings them from.
    pub fn forget_lists(&self) {
        fs::rename(self.folder.join("lists"), self.folder.join("new-lists")).unwrap();
        fs::create_dir(self.folder.join("lists")).unwrap();
    }

    /// Adds a version of the kernel, as the newest.
    pub fn add_kernel(&self, version: &str) {
        let signed = format!("Source: linux-signed-amd64 (9)\nBuilt-Using: linux (= {version})\n");
        let flavour = format!("{signed}Depends: {} (= {version})\n", PACKAGES[0]);
        self.add("linux-image-test-amd64", version, &flavour, |_| {});
        self.add(PACKAGES[0], version, &format!("{signed}Depends: kmod, linux-base (>= 4)\n"), image);
        let depends = format!(
            "Source: linux\nDepends: {} (= {version}), {} (>= {version}), gcc-12\n",
            PACKAGES[2], PACKAGES[3]
        );
        self.add(PACKAGES[1], version, &depends, headers);
        self.add(PACKAGES[2], version, "Source: linux\n", |root| {
            file(root, &format!("usr/src/{}/Makefile", PACKAGES[2]), b"all:\n\t@echo built\n");
        });
        self.add(PACKAGES[3], version, "Source: linux\n", |root| {
            file(root, "usr/lib/linux-kbuild-6.1/scripts/basic/fixdep", b"program");
            file(root, "usr/lib/linux-kbuild-6.1/tools/objtool/objtool", b"program");
        });
        self.add(PACKAGES[4], version, "Source: linux\n", source);
        self.add(
            "linux-source",
            version,
            &format!("Source: linux\nDepends: {} (= {version})\n", PACKAGES[4]),
            |_| {},
        );
    }

    /// Makes a package and puts it first in its list.
    pub fn add(&self, package: &str, version: &str, fields: &str, fill: impl FnOnce(&Path)) {
        let root = self.folder.join("build").join(package);
        let control = format!("Package: {package}\nVersion: {version}\nArchitecture: amd64\n{fields}");
        fill(&root);
        let rest = "Maintainer: Nobody <nobody@example.org>\nDescription: a test\n";
        file(&root, "DEBIAN/control", format!("{control}{rest}").as_bytes());
        let name = format!("{package}_{version}_amd64.deb");
        let deb = self.folder.join("pool").join(&name);
        Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group", "-Znone"])
            .args([root.as_os_str(), deb.as_os_str()])
            .run()
            .unwrap();
        fs::remove_dir_all(&root).unwrap();
        let bytes = fs::read(&deb).unwrap();
        let mut sha256 = String::new();
        for byte in Sha256::digest(&bytes) {
            write!(sha256, "{byte:02x}").unwrap();
        }
        let stanza = format!(
            "{control}Installed-Size: 10\nFilename: pool/main/l/linux/{name}\nSize: {}\nSHA256: {sha256}\n\n",
            bytes.len()
        );
        self.edit_list(package, |others| stanza + &others);
    }

    fn programs(&self) {
        let archive = self.folder.display();
        // `mkdir` counts the calls, because only one of two at once can make a folder; and `rm` lets only
        // one of them kill.
        let kill = |program: &str| {
            format!(
                "#!/bin/sh\nn=1\n\
                 while ! mkdir {archive}/call-{program}-$n 2>/dev/null; do n=$((n + 1)); done\n\
                 if rm {archive}/kill-{program}-$n 2>/dev/null; then kill -9 $PPID; sleep 0.1; fi\n"
            )
        };
        let apt_cache = "while :; do case $1 in --option=*) shift;; *) break;; esac; done\n\
             cd @/lists\n\
             if [ $1 = pkgnames ]; then ls | grep \"^$2\"; exit 0; fi\n\
             [ $1 = show ] || exit 9\n\
             which=$2; shift 3; found=\n\
             for name; do if [ -e $name ]; then found=1\n\
               if [ $which = --no-all-versions ]; then sed '/^$/q' $name; else cat $name; fi; fi; done\n\
             if [ -z $found ]; then echo 'E: No packages found' >&2; exit 100; fi\n";
        let apt_get = "for last; do :; done\n\
             if [ $last = update ]; then echo update >> @/log; rm -r @/lists; mv @/new-lists @/lists; exit 0; fi\n\
             name=${last%=*}; version=${last#*=}; file=${name}_${version}_amd64.deb\n\
             echo download $name >> @/log\n\
             if [ -e @/slow ]; then sleep 0.3; fi\n\
             if [ -e @/fail-$name ]; then head -c 100 @/pool/$file > $file; echo 'E: no connection' >&2; exit 100; fi\n\
             if [ -e @/truncate-$name ]; then head -c 100 @/pool/$file > $file; exit 0; fi\n\
             cp @/pool/$file .\n";
        let dpkg_deb = "if [ -e @/full ]; then\n\
             echo 'dpkg-deb: error: cannot copy: No space left on device' >&2; exit 2; fi\n\
             exec dpkg-deb \"$@\"\n";
        for (name, text) in [("apt-cache", apt_cache), ("apt-get", apt_get), ("dpkg-deb", dpkg_deb)] {
            let path = self.folder.join("bin").join(name);
            fs::write(&path, kill(name) + &text.replace("@/", &format!("{archive}/"))).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

/// Fills the image package.
fn image(root: &Path) {
    file(root, &format!("boot/vmlinuz-{RELEASE}"), &bzimage(RELEASE));
    file(root, &format!("lib/modules/{RELEASE}/kernel/drivers/net/dummy.ko"), b"module");
}

/// Fills the headers package, with the links that Debian's have.
fn headers(root: &Path) {
    let folder = format!("usr/src/{}", PACKAGES[1]);
    file(
        root,
        &format!("{folder}/Makefile"),
        format!("include /usr/src/{}/Makefile\n", PACKAGES[2]).as_bytes(),
    );
    file(
        root,
        &format!("{folder}/.config"),
        b"CONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian 12.2.0-14) 12.2.0\"\n",
    );
    file(root, &format!("{folder}/.kernelvariables"), b"CC = $(if $(X),$(CCACHE)) $(CROSS_COMPILE)gcc-12\n");
    file(root, &format!("{folder}/Module.symvers"), b"0x0\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n");
    file(root, &format!("{folder}/vmlinux"), b"types");
    let release = format!("#define UTS_RELEASE \"{RELEASE}\"\n");
    file(root, &format!("{folder}/include/generated/utsrelease.h"), release.as_bytes());
    for name in ["scripts", "tools"] {
        symlink(format!("../../lib/linux-kbuild-6.1/{name}"), root.join(&folder).join(name)).unwrap();
    }
    let modules = root.join(format!("lib/modules/{RELEASE}"));
    fs::create_dir_all(&modules).unwrap();
    symlink(format!("/{folder}"), modules.join("build")).unwrap();
}

/// Fills the source package.
fn source(root: &Path) {
    let path = root.join("usr/src/linux-source-6.1.tar.xz");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let xz = XzWriter::new(fs::File::create(&path).unwrap(), XzOptions::default()).unwrap();
    let mut tar = tar::Builder::new(xz);
    for (name, text) in [("Makefile", "VERSION = 6\n"), ("mm/slub.c", "int slub;\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, format!("linux-source-6.1/{name}"), text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

/// The least file that says, as a bzImage does, of which release it is.
pub fn bzimage(release: &str) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    image[0x300..0x300 + release.len()].copy_from_slice(release.as_bytes());
    image[0x300 + release.len()] = b' ';
    image
}

/// Writes a file and makes the folders above it.
pub fn file(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Whether nothing of a fetch is left but kernels: no scratch, no downloads.
pub fn is_clean(cache: &Path) -> bool {
    ["scratch", "downloads"].iter().all(|name| fs::read_dir(cache.join(name)).unwrap().next().is_none())
}
