//! From what the user asks for to the packages that make that kernel, all of one version.
//!
//! Nothing here knows a kernel version or which package goes with which: the release is in the image
//! package's name, its headers have the same release, the headers' dependencies name the shared headers
//! and kbuild, and the source is the `linux-source-*` package that was built from the same source package.

use super::apt::{Lists, Package, Source};
use crate::error::{PackageVersion, StoreError};
use crate::facts;

/// What the name of an image package, and of a flavour's, begins with.
pub(crate) const IMAGE: &str = "linux-image-";
const HEADERS: &str = "linux-headers-";
const KBUILD: &str = "linux-kbuild-";
const SOURCE: &str = "linux-source-";

/// The packages that make one kernel.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `uname -r`.
    pub release: String,
    /// What all of them were built from.
    pub source: Source,
    /// Image, headers, shared headers and kbuild: those that are unpacked as they are.
    pub parts: Vec<Package>,
    /// The package with the archive of the kernel source.
    pub tree: Package,
}

impl Plan {
    /// All packages.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &Package> {
        self.parts.iter().chain([&self.tree])
    }
}

/// Finds the kernel of a spec `debian:FLAVOUR` or `debian:RELEASE`; `None` where the package lists do not
/// have the package.
pub(crate) fn resolve(lists: &Lists, spec: &str) -> Result<Option<Plan>, StoreError> {
    let wanted = wanted(spec)?;
    let Some(image) = lists.candidate(&format!("{IMAGE}{wanted}"))? else { return Ok(None) };
    // A flavour's package holds nothing but a dependency on the image of its newest release.
    let (name, version) = match image.depends.iter().find(|(name, _)| name.starts_with(IMAGE)) {
        Some((name, version)) => (name.clone(), version.clone()),
        None => (image.name, None),
    };
    let release = name.strip_prefix(IMAGE).unwrap_or(&name).to_owned();
    facts::check_release(&release)?;
    plan(lists, release, &name, version.as_deref()).map(Some)
}

/// The part after `debian:`, which is a flavour or a release.
pub(crate) fn wanted(spec: &str) -> Result<&str, StoreError> {
    let error = |why: &str| StoreError::Spec { spec: spec.into(), why: why.into() };
    let wanted = spec.strip_prefix("debian:").ok_or_else(|| {
        error(
            "say debian:FLAVOUR, such as debian:cloud-amd64, or debian:RELEASE, such as `uname -r` prints it",
        )
    })?;
    facts::check_release(wanted).map_err(|_| error("no flavour or release of a kernel has such a name"))?;
    Ok(wanted)
}

/// Finds the newest version of an image (or the one that is asked for) with which all of its companions
/// agree.
fn plan(lists: &Lists, release: String, image: &str, version: Option<&str>) -> Result<Plan, StoreError> {
    let headers = format!("{HEADERS}{release}");
    let mut known = lists.versions(&[image, &headers])?;
    let sources = lists.names(SOURCE)?;
    let companions = companions(known.iter(), &release);
    let more: Vec<&str> = companions.iter().chain(&sources).map(String::as_str).collect();
    if !more.is_empty() {
        known.extend(lists.versions(&more)?);
    }
    let images = known.iter().filter(|package| package.name == image);
    for candidate in images.filter(|package| version.is_none_or(|version| version == package.version)) {
        if let Some((parts, tree)) = complete(&known, candidate, &headers, &release) {
            return Ok(Plan { release, source: candidate.source.clone(), parts, tree });
        }
    }
    let needed: Vec<&str> =
        [image, &headers].into_iter().chain(companions.iter().map(String::as_str)).collect();
    Err(differ(&known, &needed))
}

/// All that goes with one version of an image: its parts with itself first, and the source; `None` if one
/// is not there.
fn complete(
    known: &[Package],
    image: &Package,
    headers: &str,
    release: &str,
) -> Option<(Vec<Package>, Package)> {
    let of_one_version = || known.iter().filter(|package| package.source == image.source);
    let named = |name: &str| of_one_version().find(|package| package.name == name).cloned();
    let headers = named(headers)?;
    // What another version depends on may have other names.
    let companions = companions([image, &headers].into_iter(), release);
    let mut parts = vec![image.clone(), headers];
    for name in companions {
        parts.push(named(&name)?);
    }
    Some((parts, of_one_version().find(|package| is_tree(package)).cloned()?))
}

/// What the image and the headers need of the kernel's own: shared headers, kbuild, and (where the image
/// is split) modules of the same release.
fn companions<'a>(packages: impl Iterator<Item = &'a Package>, release: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in packages.flat_map(|package| &package.depends) {
        let of_headers = name.starts_with(HEADERS) || name.starts_with(KBUILD);
        let of_image = name.starts_with("linux-")
            && name.ends_with(release)
            && !name.starts_with(IMAGE)
            && !name.starts_with("linux-base");
        let itself = name.strip_prefix(HEADERS) == Some(release);
        if (of_headers || of_image) && !itself && !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Whether a package holds the kernel source, and not just a dependency on another that does.
fn is_tree(package: &Package) -> bool {
    package.name.starts_with(SOURCE) && !package.depends.iter().any(|(name, _)| name.starts_with(SOURCE))
}

/// The refusal that lists what there is.
fn differ(known: &[Package], needed: &[&str]) -> StoreError {
    let newest = |name: &str| PackageVersion {
        package: name.into(),
        version: known
            .iter()
            .find(|package| package.name == name)
            .map(|package| package.source.version.clone()),
    };
    let mut packages: Vec<PackageVersion> = needed.iter().map(|name| newest(name)).collect();
    // Of the source packages, those which come from the image's source; all of them if none does.
    let source =
        known.iter().find(|package| needed.first() == Some(&package.name.as_str())).map(|p| &p.source.name);
    let trees: Vec<&Package> = known.iter().filter(|package| is_tree(package)).collect();
    let mut related: Vec<&str> = trees
        .iter()
        .filter(|tree| Some(&tree.source.name) == source)
        .map(|tree| tree.name.as_str())
        .collect();
    if related.is_empty() {
        related = trees.iter().map(|tree| tree.name.as_str()).collect();
    }
    related.dedup();
    packages.extend(related.iter().map(|name| newest(name)));
    if related.is_empty() {
        packages.push(PackageVersion { package: format!("{SOURCE}*"), version: None });
    }
    StoreError::VersionsDiffer { packages }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_name_a_flavour_or_a_release() {
        assert_eq!(wanted("debian:cloud-amd64").unwrap(), "cloud-amd64");
        assert_eq!(wanted("debian:6.12.117+deb12-cloud-amd64").unwrap(), "6.12.117+deb12-cloud-amd64");
        for bad in ["", "cloud-amd64", "debian:", "debian:../x", "debian:a b", "debian:-o", "ubuntu:generic"]
        {
            assert!(matches!(wanted(bad), Err(StoreError::Spec { .. })), "{bad}");
        }
    }
}
