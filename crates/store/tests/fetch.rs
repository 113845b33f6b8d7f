//! Fetching a kernel, from an archive of the test's own.

mod archive;

use archive::{Archive, PACKAGES, RELEASE, SPEC, VERSION, is_clean};
use kmend_refusal::{Code, Coded};
use kmend_store::{Cache, Kernel, Origin, PackageVersion, Stage, StoreError, fetch_with};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

struct Ground {
    archive: Archive,
    cache: Cache,
    _folder: TempDir,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::new(&folder.path().join("archive"));
        let cache = Cache::at(folder.path().join("cache")).unwrap();
        Self { archive, cache, _folder: folder }
    }

    fn fetch(&self) -> Result<Kernel, StoreError> {
        fetch_with(&self.cache, &self.archive.tools(), SPEC, &mut |_| {})
    }

    /// Fetches and expects a refusal or an error, and that no kernel is there after it.
    fn fails(&self) -> StoreError {
        let error = self.fetch().unwrap_err();
        assert!(self.cache.kernels().unwrap().is_empty());
        assert!(self.cache.damaged().unwrap().is_empty());
        error
    }
}

#[test]
fn a_kernel_is_fetched_whole_and_leaves_nothing_else() {
    let ground = Ground::new();
    let mut stages = Vec::new();
    let kernel = fetch_with(&ground.cache, &ground.archive.tools(), SPEC, &mut |progress| {
        assert!(progress.total.is_none_or(|total| progress.done <= total), "{progress:?}");
        if stages.last() != Some(&progress.stage) {
            stages.push(progress.stage);
        }
    })
    .unwrap();

    assert_eq!((kernel.release.as_str(), kernel.version.as_str()), (RELEASE, VERSION));
    assert_eq!(kernel.compiler, "gcc-12");
    assert_eq!(kernel.compiler_text, "gcc-12 (Debian 12.2.0-14) 12.2.0");
    let packages = PACKAGES.map(|package| format!("{package}={VERSION}")).to_vec();
    assert_eq!(kernel.origin, Origin::Debian { source: "linux".into(), packages });
    assert_eq!(fs::read_to_string(kernel.source.join("mm/slub.c")).unwrap(), "int slub;\n");
    assert!(kernel.kbuild.join("tools/objtool/objtool").is_file());
    assert!(kernel.modules.join("kernel/drivers/net/dummy.ko").is_file());
    assert!(kernel.derived().is_dir());
    assert_eq!(ground.cache.kernels().unwrap(), std::slice::from_ref(&kernel));
    assert_eq!(ground.cache.kernel(RELEASE).unwrap(), kernel);

    let names: Vec<&str> = stages.iter().map(Stage::name).collect();
    assert_eq!(names.first(), Some(&"resolve"));
    assert_eq!(names[names.len() - 2..], ["unpack", "done"]);
    assert!(is_clean(ground.cache.root()));
    assert_eq!(ground.archive.downloads(), PACKAGES);
}

#[test]
fn unpacked_headers_work_where_they_lie_and_where_they_are_moved() {
    let ground = Ground::new();
    let kernel = ground.fetch().unwrap();
    let build =
        |headers: &Path| kmend_process::Command::new("make").arg("-C").arg(headers).run().unwrap().text();
    assert!(build(&kernel.headers).contains("built"));
    assert!(build(&kernel.modules.join("build")).contains("built"));
    // Its presence makes kbuild run pahole.
    assert!(!kernel.headers.join("vmlinux").exists());
    // make compares times: the archive's are kept.
    let time = fs::metadata(kernel.source.join("Makefile")).unwrap().modified().unwrap();
    assert_eq!(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_700_000_000);

    let moved = ground.cache.root().with_file_name("moved");
    fs::rename(ground.cache.root(), &moved).unwrap();
    let kernel = Cache::at(&moved).unwrap().kernel(RELEASE).unwrap();
    assert!(kernel.headers.starts_with(&moved));
    assert!(build(&kernel.modules.join("build")).contains("built"));
}

#[test]
fn a_second_fetch_finds_the_first_one_s_kernel() {
    let ground = Ground::new();
    let kernel = ground.fetch().unwrap();
    fs::write(kernel.derived().join("kept"), "").unwrap();
    ground.archive.downloads();
    assert_eq!(ground.fetch().unwrap(), kernel);
    let by_release =
        fetch_with(&ground.cache, &ground.archive.tools(), &format!("debian:{RELEASE}"), &mut |_| {});
    assert_eq!(by_release.unwrap(), kernel);
    assert!(ground.archive.downloads().is_empty());
    assert!(kernel.derived().join("kept").exists());
}

#[test]
fn a_newer_version_of_the_same_release_replaces_the_older() {
    let ground = Ground::new();
    let old = ground.fetch().unwrap();
    fs::write(old.derived().join("stale"), "").unwrap();
    ground.archive.add_kernel("6.1.9-2");
    let new = ground.fetch().unwrap();
    assert_eq!(new.version, "6.1.9-2");
    assert!(!new.derived().join("stale").exists());
    assert_eq!(ground.cache.kernels().unwrap(), [new]);
    assert!(is_clean(ground.cache.root()));
}

#[test]
fn packages_of_different_versions_are_refused_by_name() {
    let ground = Ground::new();
    let kbuild = PACKAGES[3];
    ground.archive.edit_list(kbuild, |text| text.replace("Version: 6.1.9-1", "Version: 6.1.8-1"));
    let error = ground.fails();
    assert_eq!(error.code(), Code::VersionsDiffer);
    let StoreError::VersionsDiffer { packages } = &error else { panic!("{error}") };
    let version = |package: &str| if package == kbuild { "6.1.8-1" } else { VERSION };
    let expected = PACKAGES
        .map(|package| PackageVersion { package: package.into(), version: Some(version(package).into()) });
    assert_eq!(packages[..], expected);
    assert!(error.to_string().contains("linux-kbuild-6.1 6.1.8-1"), "{error}");
    assert!(ground.archive.downloads().is_empty());
}

#[test]
fn a_package_that_is_not_there_is_refused_by_name() {
    let ground = Ground::new();
    ground.archive.remove_list(PACKAGES[4]);
    let error = ground.fails();
    assert_eq!(error.code(), Code::VersionsDiffer);
    assert!(error.to_string().contains("linux-source-* is not in the package lists"), "{error}");
}

#[test]
fn a_release_by_name_takes_its_newest_complete_version() {
    let ground = Ground::new();
    ground.archive.add_kernel("6.1.9-2");
    ground.archive.edit_list(PACKAGES[4], |text| text.replace("Version: 6.1.9-2", "Version: 6.1.9-3"));
    let spec = format!("debian:{RELEASE}");
    let kernel = fetch_with(&ground.cache, &ground.archive.tools(), &spec, &mut |_| {}).unwrap();
    assert_eq!(kernel.version, VERSION);
    // The newest of a flavour is the newest or nothing.
    assert_eq!(ground.fetch().unwrap_err().code(), Code::VersionsDiffer);
}

#[test]
fn an_interrupted_download_goes_on_where_it_was() {
    let ground = Ground::new();
    let fail = format!("fail-{}", PACKAGES[4]);
    ground.archive.set(&fail);
    let error = ground.fails();
    assert_eq!(error.code(), Code::CommandFailed);
    assert!(error.to_string().contains("no connection"), "{error}");
    assert_eq!(ground.archive.downloads(), PACKAGES);
    ground.archive.unset(&fail);
    ground.fetch().unwrap();
    assert_eq!(ground.archive.downloads(), [PACKAGES[4]]);
    assert!(is_clean(ground.cache.root()));
}

#[test]
fn a_damaged_package_is_neither_used_nor_kept() {
    let ground = Ground::new();
    let truncate = format!("truncate-{}", PACKAGES[1]);
    ground.archive.set(&truncate);
    let error = ground.fails();
    assert_eq!(error.code(), Code::FetchFailed);
    assert!(error.to_string().contains("arrived damaged"), "{error}");
    ground.archive.unset(&truncate);
    ground.archive.downloads();

    // One that is damaged while it is kept is downloaded again.
    let kept = ground.cache.root().join("downloads").join(format!("{}_{VERSION}_amd64.deb", PACKAGES[0]));
    let mut bytes = fs::read(&kept).unwrap();
    bytes[1000] ^= 1;
    fs::write(&kept, bytes).unwrap();
    ground.fetch().unwrap();
    assert_eq!(ground.archive.downloads(), PACKAGES);
}

#[test]
fn of_two_fetches_at_once_the_second_waits_and_finds_the_kernel() {
    let ground = Ground::new();
    ground.archive.set("slow");
    let run = || {
        let mut waited = false;
        let result = fetch_with(&ground.cache, &ground.archive.tools(), SPEC, &mut |progress| {
            waited |= progress.stage == Stage::Wait;
        });
        (result.unwrap(), waited)
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        (run(), other.join().unwrap())
    });
    assert_eq!(one.0, other.0);
    assert!(one.1 != other.1, "exactly one has waited: {} {}", one.1, other.1);
    assert_eq!(ground.archive.downloads(), PACKAGES);
    assert!(is_clean(ground.cache.root()));
}

#[test]
fn a_disk_too_small_is_found_before_anything_is_written() {
    let ground = Ground::new();
    let huge = |text: String| text.replace("Size: ", "Size: 99999999999");
    ground.archive.edit_list(PACKAGES[4], huge);
    let error = ground.fails();
    assert_eq!(error.code(), Code::DiskFull);
    assert!(matches!(&error, StoreError::DiskFull { path, .. } if path == ground.cache.root()), "{error}");
    assert!(ground.archive.downloads().is_empty());
}

#[test]
fn a_disk_that_runs_full_is_told_as_such_and_the_next_fetch_works() {
    let ground = Ground::new();
    ground.archive.set("full");
    let error = ground.fails();
    assert!(matches!(error, StoreError::DiskFull { needed: 1.., .. }), "{error}");
    ground.archive.unset("full");
    ground.archive.downloads();
    ground.fetch().unwrap();
    assert!(ground.archive.downloads().is_empty());
}

#[test]
fn package_lists_without_kernels_are_updated_or_the_user_is_told_to() {
    let ground = Ground::new();
    ground.archive.forget_lists();
    let result = ground.fetch();
    if rustix::process::geteuid().is_root() {
        assert_eq!(result.unwrap().release, RELEASE);
    } else {
        let error = result.unwrap_err();
        assert_eq!(error.code(), Code::FetchFailed);
        assert!(error.to_string().contains("apt-get update"), "{error}");
    }
}

#[test]
fn an_unknown_flavour_is_answered_with_those_that_are_known() {
    let ground = Ground::new();
    let error =
        fetch_with(&ground.cache, &ground.archive.tools(), "debian:rt-amd64", &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), Code::FetchFailed);
    assert!(error.to_string().ends_with("they have 6.1.0-9-test-amd64, test-amd64"), "{error}");
}

#[test]
fn packages_that_hold_another_release_are_refused() {
    let ground = Ground::new();
    let fields = format!("Built-Using: linux (= {VERSION})\n");
    ground.archive.add(PACKAGES[0], VERSION, &fields, |root| {
        archive::file(root, &format!("boot/vmlinuz-{RELEASE}"), &archive::bzimage("6.1.0-8-test-amd64"));
        archive::file(root, &format!("lib/modules/{RELEASE}/kernel/x.ko"), b"module");
    });
    let error = ground.fails();
    assert!(error.to_string().contains("6.1.0-8-test-amd64"), "{error}");
    ground.archive.add(PACKAGES[0], VERSION, &fields, |root| {
        archive::file(root, &format!("lib/modules/{RELEASE}/kernel/x.ko"), b"module");
    });
    let error = ground.fails();
    assert!(error.to_string().contains("lack its image"), "{error}");
}

#[test]
fn a_damaged_kernel_is_fetched_anew() {
    let ground = Ground::new();
    let kernel = ground.fetch().unwrap();
    fs::remove_file(&kernel.image).unwrap();
    assert_eq!(ground.cache.kernel(RELEASE).unwrap_err().code(), Code::CacheDamaged);
    ground.fetch().unwrap();
    assert!(kernel.image.exists());
}
