//! The cache itself: scratch folders, locks, listing, removal, import.

mod archive;

use archive::{RELEASE, bzimage, file};
use kmend_refusal::{Code, Coded};
use kmend_store::{Cache, Import, Kernel, Origin, StoreError, import, sizes};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn cache() -> (TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path().join("cache")).unwrap();
    (folder, cache)
}

/// A tree that a kernel was built in, with its image.
fn own_kernel(folder: &Path) -> Import {
    file(folder, "tree/Makefile", b"VERSION = 6\n");
    file(folder, "tree/.config", b"CONFIG_CC_VERSION_TEXT=\"gcc (Debian 12.2.0-14) 12.2.0\"\n");
    file(folder, "tree/Module.symvers", b"0x0\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n");
    file(folder, "tree/modules.order", b"drivers/net/dummy.o\n");
    let release = format!("#define UTS_RELEASE \"{RELEASE}\"\n");
    file(folder, "tree/include/generated/utsrelease.h", release.as_bytes());
    file(folder, "bzImage", &bzimage(RELEASE));
    Import {
        source: folder.join("tree"),
        config: folder.join("tree/.config"),
        image: folder.join("bzImage"),
        ..Import::default()
    }
}

fn take(cache: &Cache, own: &Import) -> Result<Kernel, StoreError> {
    import(cache, own, &mut |_| {})
}

#[test]
fn scratch_is_removed_with_its_owner_and_swept_after_a_dead_one() {
    let (_folder, cache) = cache();
    let living = cache.scratch().unwrap();
    fs::write(living.path().join("work"), "").unwrap();
    let place = living.path().parent().unwrap().to_owned();
    // What a killed process leaves: a folder whose lock nobody holds, or that got no lock.
    file(&place, "kmend-dead/.lock", b"");
    file(&place, "kmend-dead/tree/file", b"");
    file(&place, "kmend-young/file", b"");

    let other = cache.scratch().unwrap();
    assert!(!place.join("kmend-dead").exists() && !place.join("kmend-young").exists());
    assert!(living.path().join("work").exists());
    drop((living, other));
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
}

#[test]
fn a_lock_is_held_by_one_and_freed_when_dropped() {
    let (_folder, cache) = cache();
    let lock = cache.lock(RELEASE).unwrap();
    assert!(cache.try_lock(RELEASE).unwrap().is_none());
    assert!(cache.try_lock("another").unwrap().is_some());
    drop(lock);
    assert!(cache.try_lock(RELEASE).unwrap().is_some());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let (folder, cache) = cache();
    file(folder.path(), "outside/kernel.json", b"{}");
    for name in ["", "..", "../outside", "../../outside", "/etc", "a/b", "6.1\0", ".scratch"] {
        assert_eq!(cache.kernel(name).unwrap_err().code(), Code::Usage, "{name:?}");
        assert_eq!(cache.remove(name).unwrap_err().code(), Code::Usage, "{name:?}");
        assert_eq!(cache.lock(name).unwrap_err().code(), Code::Usage, "{name:?}");
    }
    assert!(folder.path().join("outside").exists());
}

#[test]
fn a_cache_is_refused_where_no_kernel_builds() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["two words", "a:b", "$HOME", "x;y"] {
        let error = Cache::at(folder.path().join(name)).unwrap_err();
        assert_eq!(error.code(), Code::Usage, "{name}");
    }
    assert!(Cache::at(folder.path().join("zwölf+1~x")).is_ok());
}

#[test]
fn unknown_kernels_are_answered_with_the_known() {
    let (folder, cache) = cache();
    let error = cache.kernel("6.6.6").unwrap_err();
    assert_eq!(error.code(), Code::KernelUnknown);
    assert_eq!(error.to_string(), "the cache has no kernel 6.6.6; it has none");
    take(&cache, &own_kernel(folder.path())).unwrap();
    let error = cache.remove("6.6.6").unwrap_err();
    assert_eq!(error.to_string(), format!("the cache has no kernel 6.6.6; it has {RELEASE}"));
}

#[test]
fn damaged_kernels_are_listed_apart_and_can_be_removed() {
    let (folder, cache) = cache();
    take(&cache, &own_kernel(folder.path())).unwrap();
    let kernels = cache.root().join("kernels");
    let record = fs::read_to_string(kernels.join(RELEASE).join("kernel.json")).unwrap();
    file(&kernels, "6.0-none/boot/vmlinuz", b"");
    file(&kernels, "6.0-text/kernel.json", b"{");
    file(&kernels, "6.0-other/kernel.json", record.as_bytes());
    file(&kernels, "6.0-layout/kernel.json", record.replace("\"layout\": 1", "\"layout\": 2").as_bytes());

    let damaged = cache.damaged().unwrap();
    let releases: Vec<&str> = damaged.iter().map(|(release, _)| release.as_str()).collect();
    assert_eq!(releases, ["6.0-layout", "6.0-none", "6.0-other", "6.0-text"]);
    assert!(damaged.iter().all(|(_, why)| why.code() == Code::CacheDamaged));
    assert_eq!(cache.kernels().unwrap().len(), 1);
    for release in releases {
        cache.remove(release).unwrap();
    }
    assert!(cache.damaged().unwrap().is_empty());
}

#[test]
fn a_removed_kernel_is_gone_with_what_was_derived_from_it() {
    let (folder, cache) = cache();
    let kernel = take(&cache, &own_kernel(folder.path())).unwrap();
    let before = sizes(&kernel);
    fs::write(kernel.derived().join("database"), vec![1; 100_000]).unwrap();
    assert!(sizes(&kernel) >= before + 100_000);
    cache.remove(RELEASE).unwrap();
    assert!(!kernel.root.exists());
    assert_eq!(fs::read_dir(cache.root().join("scratch")).unwrap().count(), 0);
    assert!(folder.path().join("tree/Makefile").exists(), "an import's own files stay");
}

#[test]
fn an_import_refers_to_the_user_s_files() {
    let (folder, cache) = cache();
    let own = own_kernel(folder.path());
    let kernel = take(&cache, &own).unwrap();
    let tree = folder.path().canonicalize().unwrap().join("tree");
    assert_eq!((kernel.release.as_str(), kernel.version.as_str()), (RELEASE, "imported"));
    assert_eq!((&kernel.source, &kernel.headers, &kernel.modules), (&tree, &tree, &tree));
    assert_eq!((kernel.compiler.as_str(), &kernel.origin), ("gcc", &Origin::Imported));
    assert_eq!(cache.kernel(RELEASE).unwrap(), kernel);
}

#[test]
fn an_import_of_the_same_files_keeps_what_was_derived() {
    let (folder, cache) = cache();
    let own = own_kernel(folder.path());
    let kernel = take(&cache, &own).unwrap();
    let derived = kernel.derived().join("database");
    fs::write(&derived, "").unwrap();
    assert_eq!(take(&cache, &own).unwrap(), kernel);
    assert!(derived.exists());

    // Built anew in the same place, whatever of it shows.
    for changed in ["bzImage", "tree/.config", "tree/Module.symvers"] {
        fs::write(&derived, "").unwrap();
        let path = folder.path().join(changed);
        let mut bytes = fs::read(&path).unwrap();
        bytes.push(b'\n');
        fs::write(&path, bytes).unwrap();
        take(&cache, &own).unwrap();
        assert!(!derived.exists(), "{changed}");
    }

    // Other files of the same release.
    fs::write(&derived, "").unwrap();
    fs::copy(folder.path().join("bzImage"), folder.path().join("vmlinuz")).unwrap();
    take(&cache, &Import { image: folder.path().join("vmlinuz"), ..own }).unwrap();
    assert!(!derived.exists());
}

#[test]
fn modules_are_found_in_the_system_that_the_image_lies_in() {
    let (folder, cache) = cache();
    let mut own = own_kernel(folder.path());
    fs::remove_file(folder.path().join("tree/modules.order")).unwrap();
    let modules = folder.path().canonicalize().unwrap().join("lib/modules").join(RELEASE);
    fs::create_dir_all(&modules).unwrap();
    file(folder.path(), "boot/vmlinuz", &bzimage(RELEASE));
    own.image = folder.path().join("boot/vmlinuz");
    assert_eq!(take(&cache, &own).unwrap().modules, modules);
}

#[test]
fn an_import_that_is_not_one_kernel_is_refused() {
    let (folder, cache) = cache();
    let own = own_kernel(folder.path());
    let at = |name: &str| folder.path().join(name);
    file(folder.path(), "empty", b"");
    file(folder.path(), "no-config", b"hello\n");
    file(folder.path(), "other", &bzimage("6.1.0-10-test-amd64"));
    file(folder.path(), "unbuilt/Makefile", b"");
    let cases = [
        (Import { source: at("none"), ..own.clone() }, "source tree"),
        (Import { source: at("empty"), ..own.clone() }, "it has no Makefile"),
        (Import { config: at("none"), ..own.clone() }, "configuration"),
        (Import { config: at("no-config"), ..own.clone() }, "no kernel configuration"),
        (Import { image: at("none"), ..own.clone() }, "image"),
        (Import { image: at("empty"), ..own.clone() }, "is empty"),
        (Import { image: at("tree"), ..own.clone() }, "image"),
        (Import { image: at("other"), ..own.clone() }, "6.1.0-10-test-amd64"),
        (Import { source: at("unbuilt"), ..own.clone() }, "no Module.symvers"),
        (Import { headers: Some(at("none")), ..own.clone() }, "headers"),
        (Import { modules: Some(at("none")), ..own.clone() }, "modules"),
        (Import { release: Some("6.6.6".into()), ..own.clone() }, "6.6.6"),
    ];
    for (case, words) in cases {
        let error = take(&cache, &case).unwrap_err();
        assert_eq!(error.code(), Code::ImportRefused, "{error}");
        assert!(error.to_string().contains(words), "{error} lacks {words}");
    }
    assert!(cache.kernels().unwrap().is_empty());
}

#[test]
fn an_elf_image_s_release_is_the_caller_s_to_give() {
    let (folder, cache) = cache();
    let mut own = own_kernel(folder.path());
    file(folder.path(), "vmlinux", b"\x7fELF");
    own.image = folder.path().join("vmlinux");
    fs::remove_file(folder.path().join("tree/include/generated/utsrelease.h")).unwrap();
    assert_eq!(take(&cache, &own).unwrap_err().code(), Code::ImportRefused);
    own.release = Some(RELEASE.into());
    assert_eq!(take(&cache, &own).unwrap().release, RELEASE);
    own.release = Some("../x".into());
    assert_eq!(take(&cache, &own).unwrap_err().code(), Code::ImportRefused);
}
