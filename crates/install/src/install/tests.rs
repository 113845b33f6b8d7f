use super::*;
use kmend_live::ENGINE;
use kmend_live::fake::{Fake, RELEASE, module};
use kmend_refusal::{Code, Coded};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

struct Set {
    fake: Fake,
    system: System,
    store: Store,
}

fn set() -> Set {
    let fake = Fake::new();
    fake.write("proc/sys/kernel/random/boot_id", "this\n");
    let (system, store) = (fake.system(), Store::of(&fake.system()));
    Set { fake, system, store }
}

impl Set {
    fn file(&self, file: &str, name: &str, more: &[u8]) -> PathBuf {
        self.fake.file(file, &[&module(name, RELEASE, true)[..], more].concat())
    }

    fn install(&self, files: &[PathBuf]) -> Result<Installs, Vec<Code>> {
        let codes = |reasons: Reasons| reasons.iter().map(|(_, error)| error.code()).collect();
        self.store.install(&self.system, files, false).map_err(codes)
    }

    fn names(&self) -> Vec<String> {
        let modules = self.store.installed(RELEASE).unwrap();
        modules.into_iter().map(|module| module.name).collect()
    }

    fn folder(&self) -> PathBuf {
        self.store.path().join(RELEASE)
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder()).unwrap().count()
    }
}

#[test]
fn livepatches_are_kept_in_order_with_their_contents() {
    let set = set();
    let files = [set.file("b.ko", "b", b""), set.file("a.ko", "a", b"")];
    let installs = set.install(&files).unwrap();
    assert_eq!(installs.installed.len(), 2);
    assert_eq!(set.names(), ["b", "a"]);
    let path = set.store.path_of(RELEASE, "b").unwrap();
    assert_eq!(fs::read(path).unwrap(), fs::read(&files[0]).unwrap());
    assert_eq!(set.install(&files).unwrap_err(), [Code::AlreadyInstalled]);
    let events: Vec<Event> = set.store.history().unwrap().records.iter().map(|record| record.event).collect();
    assert_eq!(events, [Event::Install, Event::Install]);
}

#[test]
fn other_contents_are_taken_only_if_that_is_asked_for_and_in_the_same_place() {
    let set = set();
    set.install(&[set.file("a.ko", "a", b""), set.file("b.ko", "b", b"")]).unwrap();
    let new = set.file("new.ko", "a", b"\0");
    assert_eq!(set.install(std::slice::from_ref(&new)).unwrap_err(), [Code::OtherContents]);
    let installs = set.store.install(&set.system, std::slice::from_ref(&new), true).unwrap();
    assert!(installs.installed[0].overwrites);
    assert_eq!(set.names(), ["a", "b"]);
    assert_eq!(fs::read(set.store.path_of(RELEASE, "a").unwrap()).unwrap(), fs::read(new).unwrap());
    assert_eq!(set.files(), 3, "the old contents are swept");
}

#[test]
fn all_the_reasons_are_told_and_nothing_is_installed() {
    let set = set();
    let files = [
        set.file("a.ko", "a", b""),
        set.fake.file("plain.ko", &module("plain", RELEASE, false)),
        set.fake.file("cut.ko", &module("cut", RELEASE, true)[..200]),
        set.fake.file("slash.ko", &module("../slash", RELEASE, true)),
        set.fake.file("line.ko", &module("a\nb", RELEASE, true)),
        set.fake.file("release.ko", &module("release", "../6.1", true)),
        set.file("other.ko", "a", b"\0"),
    ];
    let codes = set.install(&files).unwrap_err();
    let expected = [
        Code::NotALivepatch,
        Code::ModuleFormat,
        Code::Usage,
        Code::Usage,
        Code::NotALivepatch,
        Code::OtherContents,
    ];
    assert_eq!(codes, expected);
    assert!(!set.fake.path("var").exists());
}

#[test]
fn a_kernel_that_does_not_run_has_a_set_of_its_own() {
    let set = set();
    let file = set.fake.file("a.ko", &module("a", "6.12.0-other", true));
    let installs = set.install(&[file]).unwrap();
    assert_eq!(installs.notes, [format!("{RELEASE} is running; 6.12.0-other loads them when it boots")]);
    assert_eq!(set.store.releases().unwrap(), ["6.12.0-other"]);
    let error = set.store.uninstall(&set.system, RELEASE, &["a".into()]).unwrap_err().remove(0);
    assert_eq!(error.to_string(), format!("a is not installed for {RELEASE}, but for 6.12.0-other"));
}

#[test]
fn what_is_uninstalled_leaves_nothing() {
    let set = set();
    set.install(&[set.file("a.ko", "a", b""), set.file("b.ko", "b", b"")]).unwrap();
    let uninstall = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        set.store.uninstall(&set.system, RELEASE, &names).map_err(|errors| errors[0].code())
    };
    assert_eq!(uninstall(&["a", "none"]), Err(Code::NotInstalled));
    assert_eq!(set.names(), ["a", "b"]);
    uninstall(&["a"]).unwrap();
    assert_eq!((set.names(), set.files()), (vec!["b".to_owned()], 2));
    uninstall(&["b"]).unwrap();
    assert!(!set.folder().exists());
}

#[test]
fn what_a_killed_install_leaves_is_swept_and_nothing_else() {
    let set = set();
    set.install(&[set.file("a.ko", "a", b"")]).unwrap();
    fs::write(set.folder().join(".new"), "half").unwrap();
    fs::write(set.folder().join(format!("{}.ko", "0".repeat(64))), "whole").unwrap();
    fs::write(set.folder().join("README"), "the administrator's").unwrap();
    // Of what is beside the kernels' folders, such as the crash memory.
    fs::write(set.store.path().join(".new"), "half").unwrap();
    // Swept even if nothing else is to be done.
    assert_eq!(set.install(&[set.file("a.ko", "a", b"")]).unwrap_err(), [Code::AlreadyInstalled]);
    assert_eq!(set.files(), 3);
    assert!(set.folder().join("README").exists());
    assert!(!set.store.path().join(".new").exists());
}

#[test]
fn a_damaged_list_stops_every_change() {
    let set = set();
    set.install(&[set.file("a.ko", "a", b"")]).unwrap();
    let manifest = set.folder().join("installed.json");
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(set.install(&[set.file("b.ko", "b", b"")]).unwrap_err(), [Code::InstalledDamaged]);
    let error = set.store.uninstall(&set.system, RELEASE, &["a".into()]).unwrap_err().remove(0);
    assert_eq!(error.code(), Code::InstalledDamaged);
    assert_eq!(set.files(), 2, "nothing is swept");
    fs::remove_file(&manifest).unwrap();
    set.install(&[set.file("a.ko", "a", b"")]).unwrap();
    assert_eq!(set.names(), ["a"]);
}

#[test]
fn links_and_open_folders_are_refused() {
    let set = set();
    let elsewhere = set.fake.path("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::create_dir_all(set.store.path()).unwrap();
    symlink(&elsewhere, set.folder()).unwrap();
    let file = set.file("a.ko", "a", b"");
    assert_eq!(set.install(std::slice::from_ref(&file)).unwrap_err(), [Code::InstalledUnsafe]);
    fs::remove_file(set.folder()).unwrap();
    fs::set_permissions(set.store.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(set.install(std::slice::from_ref(&file)).unwrap_err(), [Code::InstalledUnsafe]);
    fs::remove_dir_all(set.store.path()).unwrap();
    symlink(&elsewhere, set.store.path()).unwrap();
    assert_eq!(set.install(&[file]).unwrap_err(), [Code::InstalledUnsafe]);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn an_install_that_fails_leaves_nothing_of_what_it_has_written() {
    let set = set();
    let files = [set.file("a.ko", "a", b""), set.file("b.ko", "b", b"")];
    let second = Candidate::open(&files[1]).unwrap();
    let in_the_way = set.folder().join(format!("{}.ko", second.sha256));
    fs::create_dir_all(&in_the_way).unwrap();
    assert_eq!(set.install(&files).unwrap_err(), [Code::Io]);
    assert!(set.names().is_empty());
    assert_eq!(set.files(), 1);
    fs::remove_dir(&in_the_way).unwrap();
    set.install(&files).unwrap();
}

#[test]
fn a_dry_run_changes_nothing() {
    let set = set();
    let file = set.file("a.ko", "a", b"");
    let would = set.store.would_install(&set.system, std::slice::from_ref(&file), false).unwrap();
    assert_eq!(would.installed[0].name, "a");
    assert!(!set.fake.path("var").exists());
    set.install(&[file]).unwrap();
    set.store.would_uninstall(RELEASE, &["a".into()]).unwrap();
    assert_eq!(set.names(), ["a"]);
}

#[test]
fn only_what_is_held_is_released() {
    let set = set();
    set.install(&[set.file("a.ko", "a", b"")]).unwrap();
    let error = set.store.release(&set.system, RELEASE, &["a".into()]).unwrap_err().remove(0);
    assert_eq!(error.code(), Code::NotHeld);
}

/// The consistency engine, or a patch for it.
fn of_engine(set: &Set, name: &str, interface: &str) -> PathBuf {
    let more = match name {
        ENGINE => format!("version={interface}\0"),
        _ => format!("depends={ENGINE}\0kmend_engine={interface}\0"),
    };
    set.fake.file(&format!("{name}.ko"), &kmend_live::fake::module_with(name, RELEASE, true, &more))
}

#[test]
fn a_patch_for_the_engine_is_installed_with_the_engine_that_it_was_built_with() {
    let set = set();
    let (patch, engine) = (of_engine(&set, "fix", "01"), of_engine(&set, ENGINE, "01"));
    assert_eq!(set.install(std::slice::from_ref(&patch)).unwrap_err(), [Code::EngineNotInstalled]);
    assert!(!set.folder().exists());
    let other = of_engine(&set, "other", "02");
    assert_eq!(
        set.install(&[other.clone(), patch.clone(), engine.clone()]).unwrap_err(),
        [Code::EngineDiffers]
    );
    set.install(&[patch, engine]).unwrap();
    assert_eq!(set.install(&[other]).unwrap_err(), [Code::EngineDiffers]);
    set.install(&[of_engine(&set, "second", "01")]).unwrap();
    // Another engine needs other patches.
    let newer = [of_engine(&set, ENGINE, "02"), of_engine(&set, "fix", "02")];
    let reasons = set.store.install(&set.system, &newer, true).unwrap_err();
    assert_eq!(
        reasons[0].1.to_string(),
        format!("second is for the engine interface 01, but that of {RELEASE} has 02")
    );
    assert_eq!(set.names(), ["fix", ENGINE, "second"]);
}

#[test]
fn the_engine_goes_with_the_last_patch_that_needs_it() {
    let set = set();
    set.install(&[of_engine(&set, ENGINE, "01"), set.file("a.ko", "a", b"")]).unwrap();
    set.install(&[of_engine(&set, "fix", "01"), of_engine(&set, "second", "01")]).unwrap();
    let uninstall = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        set.store.uninstall(&set.system, RELEASE, &names).map_err(|errors| errors[0].code())
    };
    assert_eq!(uninstall(&[ENGINE, "fix"]), Err(Code::EngineNeeded));
    uninstall(&["fix"]).unwrap();
    assert_eq!(set.names(), [ENGINE, "a", "second"]);
    uninstall(&["second"]).unwrap();
    assert_eq!((set.names(), set.files()), (vec!["a".to_owned()], 2));
    // Nobody needs one that is installed by itself.
    set.install(&[of_engine(&set, ENGINE, "01")]).unwrap();
    uninstall(&["a"]).unwrap();
    uninstall(&[ENGINE]).unwrap();
    assert!(!set.folder().exists());
}
