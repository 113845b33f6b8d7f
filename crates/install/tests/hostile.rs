//! What stands in the way in kmend's folder: links, pipes, folders, files that others can write, and somebody who exchanges
//! folders for links all the time. An operation is refused or goes on; it never writes elsewhere, and never waits.

use kmend_install::{Recorder, Store};
use kmend_live::fake::{Fake, RELEASE, module, patient};
use kmend_live::{Candidate, LoadOptions};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a victim's file holds.
const VICTIM: &str = "not kmend's";

/// Puts something in the place of a file or folder of kmend's.
type Trap = fn(&Path, &Path);

const TRAPS: [(&str, Trap); 6] = [
    ("a link to a file", |path, victim| symlink(victim, path).unwrap()),
    ("a link to nothing", |path, victim| symlink(victim.with_extension("none"), path).unwrap()),
    ("a link to a folder", |path, victim| symlink(victim.parent().unwrap(), path).unwrap()),
    ("a folder", |path, _| fs::create_dir(path).unwrap()),
    ("a pipe", |path, _| mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap()),
    ("a file for all", |path, _| {
        fs::write(path, "{}").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    }),
];

fn remove(path: &Path) {
    let Ok(there) = path.symlink_metadata() else { return };
    if there.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

/// A system on which `a` is installed and was loaded, and a file and a folder that are not kmend's.
fn installed() -> (Fake, PathBuf) {
    let fake = Fake::new();
    fake.write("proc/uptime", "5.00 1.00\n");
    fake.write("elsewhere/victim", VICTIM);
    fake.file("a.ko", &module("a", RELEASE, true));
    fake.file("b.ko", &module("b", RELEASE, true));
    let (system, store) = (fake.system(), Store::of(&fake.system()));
    store.install(&system, &[fake.path("a.ko")], false).unwrap();
    load(&fake, "a.ko");
    let victim = fake.path("elsewhere/victim");
    (fake, victim)
}

fn load(fake: &Fake, file: &str) {
    let system = fake.system();
    let candidate = Candidate::open(&fake.path(file)).unwrap();
    let options = LoadOptions { timeout: Duration::ZERO, ..LoadOptions::default() };
    let _ = Recorder::new(&system).load(&candidate, options, &mut patient);
}

/// Everything that reads or writes there.
fn all_operations(fake: &Fake) {
    let (system, store) = (fake.system(), Store::of(&fake.system()));
    let _ = store.install(&system, &[fake.path("b.ko")], true);
    let _ = store.boot(&system, false);
    let _ = store.history();
    let _ = store.releases();
    let _ = store.overview(RELEASE, &[]);
    load(fake, "b.ko");
    let _ = store.release(&system, RELEASE, &["a".to_owned()]);
    let _ = store.uninstall(&system, RELEASE, &["a".to_owned()]);
    let _ = store.settle(&system, || true);
}

#[test]
fn nothing_is_written_through_what_stands_in_the_way() {
    let hash = {
        let (fake, _) = installed();
        Store::of(&fake.system()).path_of(RELEASE, "a").unwrap().file_name().unwrap().to_owned()
    };
    let hash = format!("{RELEASE}/{}", hash.to_string_lossy());
    let manifest = format!("{RELEASE}/installed.json");
    let unfinished = format!("{RELEASE}/.new");
    let names = [
        "lock",
        "loading.json",
        ".new",
        "history.jsonl",
        "history.1.jsonl",
        RELEASE,
        &manifest,
        &hash,
        &unfinished,
    ];
    for name in names {
        for (what, trap) in TRAPS {
            let (fake, victim) = installed();
            let path = fake.path("var/lib/kmend").join(name);
            remove(&path);
            trap(&path, &victim);
            let start = Instant::now();
            all_operations(&fake);
            assert!(start.elapsed() < Duration::from_secs(15), "it waits where {name} is {what}");
            let elsewhere: Vec<_> = fs::read_dir(victim.parent().unwrap())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(elsewhere, ["victim"], "{name} is {what}");
            assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM, "{name} is {what}");
        }
    }
}

#[test]
fn who_exchanges_a_folder_for_a_link_gains_nothing() {
    let (fake, victim) = installed();
    let (system, store) = (fake.system(), Store::of(&fake.system()));
    let (folder, aside) = (store.path().join(RELEASE), fake.path("aside"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // Each of these may fail, because the others are at work.
                let _ = fs::rename(&folder, &aside);
                let _ = symlink(victim.parent().unwrap(), &folder);
                let _ = fs::remove_file(&folder);
                let _ = fs::rename(&aside, &folder);
            }
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(400) {
            let _ = store.install(&system, &[fake.path("b.ko")], true);
            let _ = store.uninstall(&system, RELEASE, &["b".to_owned()]);
        }
        over.store(true, Ordering::Relaxed);
    });
    let elsewhere: Vec<_> =
        fs::read_dir(victim.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(elsewhere, ["victim"]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM);
}

#[test]
fn a_damaged_module_is_installed_as_it_is_or_not_at_all() {
    let fake = Fake::new();
    let (system, store) = (fake.system(), Store::of(&fake.system()));
    let whole = module("a", RELEASE, true);
    let cut = (0..whole.len()).map(|length| whole[..length].to_vec());
    // Each that is installed is flushed to the disk several times.
    let changed = (0..whole.len()).step_by(11).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x15;
        bytes
    });
    for bytes in cut.chain(changed) {
        let file = fake.file("a.ko", &bytes);
        let Ok(installs) = store.install(&system, &[file], true) else { continue };
        let patch = &installs.installed[0];
        let kept = store.path_of(&patch.release, &patch.name).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), bytes);
        assert!(kept.starts_with(store.path()), "{}", kept.display());
        store.uninstall(&system, &patch.release, std::slice::from_ref(&patch.name)).unwrap();
    }
    assert!(store.releases().unwrap().is_empty());
}
