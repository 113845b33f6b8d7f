//! What the package lists say, read from `apt-cache`.

use crate::disk;
use crate::error::StoreError;
use kmend_process::{Command, ProcessError};
use std::path::{Path, PathBuf};

/// The programs that a fetch runs. [`Tools::default`] is what everybody wants; tests give their own.
#[derive(Debug, Clone)]
pub struct Tools {
    /// `apt-cache`: looks packages up.
    pub apt_cache: PathBuf,
    /// `apt-get`: downloads packages, and as root updates the package lists.
    pub apt_get: PathBuf,
    /// `dpkg-deb`: unpacks packages.
    pub dpkg_deb: PathBuf,
}

impl Default for Tools {
    fn default() -> Self {
        Self { apt_cache: "apt-cache".into(), apt_get: "apt-get".into(), dpkg_deb: "dpkg-deb".into() }
    }
}

/// Bytes that must be free for apt's index to be kept: it takes 74 MB for Debian 12 with its backports.
const INDEX_ROOM: u64 = 512 << 20;

/// One version of one package in the package lists: a stanza of deb-control(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub name: String,
    pub version: String,
    /// What it was built from.
    pub source: Source,
    /// Names and exact versions (`(= V)`) of `Depends`, alternatives in a row.
    pub depends: Vec<(String, Option<String>)>,
    /// The last component of `Filename`: what the file is called in the archive.
    pub file: String,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of what it unpacks to, as its maker counted them.
    pub installed: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// A source package in one version. Packages belong together if and only if these are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub name: String,
    pub version: String,
}

/// The package lists, as `apt-cache` reads them.
pub(crate) struct Lists<'a> {
    tools: &'a Tools,
    /// Where apt keeps its index of the lists between one look and the next.
    index: Option<&'a Path>,
}

impl<'a> Lists<'a> {
    /// The package lists, indexed in a folder of the caller's. Where no index is kept in /var/cache/apt (in
    /// containers, say) or cannot be written, apt makes it anew for every command: 0.4 s each, not 0.02 s.
    ///
    /// On a disk with little room it does that: that the kernel needs more must be told in other words than
    /// apt's.
    pub(crate) fn new(tools: &'a Tools, index: &'a Path) -> Self {
        let room = disk::free(index).is_ok_and(|free| free >= INDEX_ROOM);
        Self { tools, index: room.then_some(index) }
    }

    /// All versions of some packages, in apt's order: a package's newest comes first. Names that the package
    /// lists do not have are no error.
    pub(crate) fn versions(&self, names: &[&str]) -> Result<Vec<Package>, StoreError> {
        self.show("--all-versions", names)
    }

    /// The version of a package that apt would install, by its pins.
    pub(crate) fn candidate(&self, name: &str) -> Result<Option<Package>, StoreError> {
        Ok(self.show("--no-all-versions", &[name])?.into_iter().next())
    }

    /// The names of the packages that begin so, sorted.
    pub(crate) fn names(&self, beginning: &str) -> Result<Vec<String>, StoreError> {
        let output = self.command().args(["pkgnames", beginning]).run()?;
        let mut names: Vec<String> = output.text().split_whitespace().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn show(&self, which: &str, names: &[&str]) -> Result<Vec<Package>, StoreError> {
        let command = self.command().args(["show", which, "--"]).args(names);
        let output = command.output()?;
        // Exit status 100, but `No packages found` is an answer. (LC_ALL=C: these are the words.)
        if !output.success && !output.error_text().contains("No packages found") {
            return Err(command.failure(&output).into());
        }
        Ok(output.text().split("\n\n").filter_map(Package::parse).collect())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.tools.apt_cache);
        if let Some(index) = self.index {
            for (name, file) in [("pkgcache", "pkgcache.bin"), ("srcpkgcache", "srcpkgcache.bin")] {
                command = command.arg(format!("--option=Dir::Cache::{name}={}", index.join(file).display()));
            }
        }
        command
    }
}

impl Tools {
    /// Downloads one package in one version into a folder, which has nothing else in it, and returns the
    /// file's path.
    pub(crate) fn download(&self, package: &Package, folder: &Path) -> Result<PathBuf, StoreError> {
        Command::new(&self.apt_get)
            .args(["--quiet=2", "--option=Acquire::Retries=3", "download"])
            .arg(format!("{}={}", package.name, package.version))
            .folder(folder)
            .run()?;
        // apt's own file name has the version's colon escaped; whatever it is, it is the only one.
        let is_deb = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
        crate::files::entries(folder)?.into_iter().find(is_deb).ok_or_else(|| {
            StoreError::Fetch(format!("apt-get downloaded no file for {}={}", package.name, package.version))
        })
    }

    /// Fetches the package lists anew. Takes root.
    pub(crate) fn update(&self) -> Result<(), ProcessError> {
        Command::new(&self.apt_get).args(["--quiet=2", "update"]).run().map(drop)
    }

    /// Unpacks a package's files into a folder.
    pub(crate) fn unpack(&self, deb: &Path, folder: &Path) -> Result<(), ProcessError> {
        Command::new(&self.dpkg_deb).arg("--extract").arg(deb).arg(folder).run().map(drop)
    }
}

impl Package {
    /// Reads one stanza; `None` if a field that a package in an archive has is missing or not of its form,
    /// or if the package is of another architecture.
    fn parse(stanza: &str) -> Option<Self> {
        let field = |name: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::trim))
        };
        if !matches!(field("Architecture")?, "amd64" | "all") {
            return None;
        }
        let name = field("Package")?;
        let version = field("Version")?;
        let file = field("Filename")?.rsplit('/').next()?;
        Path::new(file).extension().filter(|extension| *extension == "deb")?;
        let sha256 = field("SHA256")?.to_ascii_lowercase();
        Some(Self {
            name: name.into(),
            version: version.into(),
            source: Source::of(name, version, field("Source"), field("Built-Using")),
            depends: field("Depends").map(relations).unwrap_or_default(),
            file: file.into(),
            size: field("Size")?.parse().ok()?,
            installed: field("Installed-Size")
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or(0)
                .saturating_mul(1024),
            sha256,
        })
    }
}

impl Source {
    /// What a package was built from.
    ///
    /// Debian's signed kernel images come from a source package of their own (`linux-signed-amd64`, version
    /// `6.1.192+2`) and name the kernel's in `Built-Using`. A `Source` field gives a version only where it
    /// differs from the package's; a rebuild of the same source adds `+bNUMBER` to the package's alone
    /// (Debian developer's reference, 5.10.2.1).
    fn of(name: &str, version: &str, source: Option<&str>, built_using: Option<&str>) -> Self {
        let kernel =
            |name: &str| name == "linux" || (name.starts_with("linux-") && !name.starts_with("linux-signed"));
        for (used, version) in built_using.map(relations).unwrap_or_default() {
            if let (true, Some(version)) = (kernel(&used), version) {
                return Self { name: used, version };
            }
        }
        let source = source.unwrap_or(name);
        if let Some((source, version)) = source.split_once(" (") {
            return Self { name: source.into(), version: version.trim_end_matches(')').into() };
        }
        let rebuilt =
            version.rsplit_once("+b").filter(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        Self { name: source.into(), version: rebuilt.map_or(version, |(version, _)| version).into() }
    }
}

/// The names and exact versions in a relationship field such as `a (= 1), b | c (>= 2)`.
fn relations(field: &str) -> Vec<(String, Option<String>)> {
    let one = |relation: &str| {
        let (name, rest) = relation.trim().split_once(' ').unwrap_or((relation.trim(), ""));
        let version = rest.trim().strip_prefix("(= ").and_then(|version| version.split(')').next());
        // `name:any`
        let name = name.split(':').next().unwrap_or(name);
        (name.to_owned(), version.map(str::to_owned))
    };
    field.split([',', '|']).map(one).filter(|(name, _)| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &str = "\
Package: linux-image-6.1.0-56-cloud-amd64
Source: linux-signed-amd64 (6.1.192+2)
Version: 6.1.192-2
Installed-Size: 105548
Architecture: amd64
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
Description: Linux 6.1 for x86-64 cloud (signed)
Built-Using: linux (= 6.1.192-2)
Filename: pool/updates/main/l/linux-signed-amd64/linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb
Size: 26713492
SHA256: E7D02B
";

    #[test]
    fn a_stanza_is_read() {
        let package = Package::parse(IMAGE).unwrap();
        assert_eq!(package.name, "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(package.source, Source { name: "linux".into(), version: "6.1.192-2".into() });
        assert_eq!(package.file, "linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb");
        assert_eq!((package.size, package.installed), (26_713_492, 105_548 * 1024));
        assert_eq!(package.sha256, "e7d02b");
        let names: Vec<&str> = package.depends.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["kmod", "linux-base", "initramfs-tools", "linux-initramfs-tool"]);
    }

    #[test]
    fn what_is_no_package_of_this_machine_is_passed_over() {
        assert_eq!(Package::parse(""), None);
        assert_eq!(Package::parse(&IMAGE.replace("Architecture: amd64", "Architecture: i386")), None);
        assert_eq!(Package::parse(&IMAGE.replace("Size: 26", "Size: -26")), None);
        assert_eq!(Package::parse(&IMAGE.replace("SHA256", "MD5sum")), None);
        assert_eq!(Package::parse(&IMAGE.replace("_amd64.deb", "_amd64.rpm")), None);
    }

    #[test]
    fn sources_are_told_from_whichever_field_has_them() {
        let source = |name: &str, version: &str| Source { name: name.into(), version: version.into() };
        assert_eq!(Source::of("p", "1-2", None, None), source("p", "1-2"));
        assert_eq!(Source::of("p", "1-2", Some("linux-6.12"), None), source("linux-6.12", "1-2"));
        assert_eq!(Source::of("p", "1-2+b1", Some("linux"), None), source("linux", "1-2"));
        assert_eq!(Source::of("p", "1-2+bpo", Some("linux"), None), source("linux", "1-2+bpo"));
        assert_eq!(Source::of("p", "9", Some("linux (1-2)"), None), source("linux", "1-2"));
        let signed = Some("linux-signed-6.12-amd64 (6.12.117+1~deb12u1)");
        let used = Some("gcc-12 (= 12.2.0-14), linux-6.12 (= 6.12.117-1~deb12u1)");
        assert_eq!(Source::of("p", "6", signed, used), source("linux-6.12", "6.12.117-1~deb12u1"));
    }

    #[test]
    fn relations_keep_names_and_exact_versions() {
        let expected = [("a", Some("1")), ("b", None), ("c", None), ("d", None)];
        let read = relations("a (= 1), b | c (>= 2),  d:any");
        assert_eq!(read.len(), expected.len());
        for ((name, version), (expected_name, expected_version)) in read.iter().zip(expected) {
            assert_eq!((name.as_str(), version.as_deref()), (expected_name, expected_version));
        }
    }
}
