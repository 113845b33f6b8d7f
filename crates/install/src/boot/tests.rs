use super::*;
use kmend_live::ENGINE;
use kmend_live::fake::{Fake, RELEASE, module, module_with};
use std::fs;

struct Machine {
    fake: Fake,
    store: Store,
}

fn machine() -> Machine {
    let fake = Fake::new();
    fake.write("proc/sys/kernel/random/boot_id", "first\n");
    fake.write("proc/uptime", "5.00 1.00\n");
    let store = Store::of(&fake.system());
    Machine { fake, store }
}

impl Machine {
    fn install(&self, names: &[&str]) {
        for name in names {
            let file = self.fake.file("x.ko", &module(name, RELEASE, true));
            self.store.install(&self.fake.system(), &[file], false).unwrap();
        }
    }

    fn boot(&self) -> Vec<(String, BootOutcome)> {
        let boot = self.store.boot(&self.fake.system(), false).unwrap();
        boot.livepatches.into_iter().map(|patch| (patch.name, patch.outcome)).collect()
    }

    /// Says of the installed livepatches whether they replace, which the fake modules do not tell.
    fn replaces(&self, replace: &[bool]) {
        let locked = self.store.lock().unwrap();
        let folder = locked.folder.folder(RELEASE).unwrap().unwrap();
        let mut manifest = Manifest::read(&folder).unwrap();
        for (module, replace) in manifest.modules.iter_mut().zip(replace) {
            module.replace = Some(*replace);
        }
        manifest.write(&folder).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.path_of(RELEASE, name).unwrap()
    }

    fn restart(&self, boot: &str) {
        self.fake.write("proc/sys/kernel/random/boot_id", &format!("{boot}\n"));
        for folder in ["sys/kernel/livepatch", "sys/module"] {
            let _ = fs::remove_dir_all(self.fake.path(folder));
            self.fake.folder(folder);
        }
    }
}

fn pairs(expected: &[(&str, BootOutcome)]) -> Vec<(String, BootOutcome)> {
    expected.iter().map(|(name, outcome)| ((*name).to_owned(), *outcome)).collect()
}

#[test]
fn the_set_is_loaded_in_order_and_once() {
    let machine = machine();
    assert_eq!(machine.boot(), []);
    assert!(!machine.fake.path("var").exists());
    machine.install(&["b", "a"]);
    assert_eq!(machine.boot(), pairs(&[("b", BootOutcome::Loaded), ("a", BootOutcome::Loaded)]));
    assert_eq!(machine.fake.calls(), ["insert b", "insert a"]);
    let again = [("b", BootOutcome::AlreadyLoaded), ("a", BootOutcome::AlreadyLoaded)];
    assert_eq!(machine.boot(), pairs(&again));
}

#[test]
fn a_machine_that_dies_within_the_minute_holds_what_was_young() {
    let machine = machine();
    machine.install(&["a"]);
    machine.boot();
    machine.restart("second");
    assert_eq!(machine.boot(), pairs(&[("a", BootOutcome::Held)]));
    machine.restart("third");
    assert_eq!(machine.boot(), pairs(&[("a", BootOutcome::Held)]), "it stays held");
    let system = machine.fake.system();
    machine.store.release(&system, RELEASE, &["a".into()]).unwrap();
    assert_eq!(machine.boot(), pairs(&[("a", BootOutcome::Loaded)]));
    machine.fake.write("proc/uptime", "65.00 1.00\n");
    machine.store.settle(&system, || false).unwrap();
    machine.restart("fourth");
    assert_eq!(machine.boot(), pairs(&[("a", BootOutcome::Loaded)]));
}

#[test]
fn a_load_that_cannot_be_noted_is_not_made() {
    let machine = machine();
    machine.install(&["a"]);
    fs::create_dir(machine.store.path().join("loading.json")).unwrap();
    assert_eq!(machine.boot(), pairs(&[("a", BootOutcome::Failed)]));
    assert!(machine.fake.calls().is_empty());
    fs::remove_dir(machine.store.path().join("loading.json")).unwrap();
    fs::remove_file(machine.fake.path("proc/sys/kernel/random/boot_id")).unwrap();
    let boot = machine.store.boot(&machine.fake.system(), false).unwrap();
    assert_eq!(boot.livepatches[0].code, Some(Code::NoCrashMemory));
    assert!(machine.fake.calls().is_empty());
}

#[test]
fn a_module_that_is_not_what_was_installed_is_told_and_the_others_go_on() {
    let machine = machine();
    machine.install(&["cut", "gone", "changed", "linked", "a"]);
    let whole = fs::read(machine.path("cut")).unwrap();
    fs::write(machine.path("cut"), &whole[..100]).unwrap();
    fs::remove_file(machine.path("gone")).unwrap();
    fs::write(machine.path("changed"), [&whole[..], b"\0"].concat()).unwrap();
    fs::rename(machine.path("linked"), machine.fake.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(machine.fake.path("elsewhere"), machine.path("linked")).unwrap();
    let boot = machine.store.boot(&machine.fake.system(), false).unwrap();
    let codes: Vec<Option<Code>> = boot.livepatches.iter().map(|patch| patch.code).collect();
    let damaged = Some(Code::InstalledModuleDamaged);
    assert_eq!(codes, [damaged, damaged, damaged, Some(Code::InstalledUnsafe), None]);
    assert_eq!(machine.fake.calls(), ["insert a"]);
}

#[test]
fn another_kernel_or_another_build_is_skipped() {
    let machine = machine();
    let other = machine.fake.file("x.ko", &module("other", "6.12.0-other", true));
    let build = machine.fake.file("y.ko", &module_with("build", RELEASE, true, "kmend_build_id=00ff\0"));
    machine.fake.write("sys/kernel/notes", "\u{4}\0\0\0\u{4}\0\0\0\u{3}\0\0\0GNU\0\u{1}\u{2}\u{3}\u{4}");
    machine.store.install(&machine.fake.system(), &[other, build], false).unwrap();
    let boot = machine.store.boot(&machine.fake.system(), false).unwrap();
    assert_eq!(boot.notes, [format!("what is installed for 6.12.0-other is skipped: {RELEASE} is running")]);
    assert_eq!(boot.livepatches[0].outcome, BootOutcome::Skipped);
    assert!(machine.fake.calls().is_empty());
}

#[test]
fn one_that_replaces_comes_alone_and_those_before_it_if_it_cannot() {
    let machine = machine();
    machine.install(&["a", "b", "all", "c"]);
    machine.replaces(&[false, false, true, false]);
    let superseded = [
        ("all", BootOutcome::Loaded),
        ("a", BootOutcome::Superseded),
        ("b", BootOutcome::Superseded),
        ("c", BootOutcome::Loaded),
    ];
    assert_eq!(machine.boot(), pairs(&superseded));
    machine.restart("second");
    let system = machine.fake.system();
    // The machine died: all that was young is held; all but the one that replaces are released.
    machine.boot();
    machine.store.release(&system, RELEASE, &["c".into()]).unwrap();
    let before = [
        ("a", BootOutcome::Loaded),
        ("b", BootOutcome::Loaded),
        ("all", BootOutcome::Held),
        ("c", BootOutcome::Loaded),
    ];
    machine.restart("second");
    assert_eq!(machine.boot(), pairs(&before));
}

#[test]
fn the_command_line_turns_it_off() {
    let machine = machine();
    machine.install(&["a"]);
    machine.fake.write("proc/cmdline", "root=/dev/vda1 kmend.enable=0 quiet\n");
    let boot = machine.store.boot(&machine.fake.system(), false).unwrap();
    assert!(boot.off && boot.livepatches.is_empty());
    assert!(machine.fake.calls().is_empty());
}

#[test]
fn what_the_kernel_refuses_is_told() {
    let machine = machine();
    machine.install(&["a", "b"]);
    machine.fake.refuse(rustix::io::Errno::INVAL);
    let boot = machine.store.boot(&machine.fake.system(), false).unwrap();
    let codes: Vec<Option<Code>> = boot.livepatches.iter().map(|patch| patch.code).collect();
    assert_eq!(codes, [Some(Code::KernelRefused); 2]);
    assert!(!machine.store.path().join("loading.json").exists(), "they are not in the kernel");
}

#[test]
fn a_dry_run_loads_nothing() {
    let machine = machine();
    machine.install(&["a"]);
    let boot = machine.store.boot(&machine.fake.system(), true).unwrap();
    assert_eq!(boot.livepatches[0].outcome, BootOutcome::WouldLoad);
    assert!(machine.fake.calls().is_empty());
}

/// Installs livepatches of the kernel's (`k`), patches for the consistency engine (`e`), and that between them.
fn with_engine() -> Machine {
    let machine = machine();
    let patch = |name: &str| {
        let more = format!("depends={ENGINE}\0kmend_engine=01\0");
        machine.fake.file(&format!("{name}.ko"), &module_with(name, RELEASE, true, &more))
    };
    let files = [
        patch("e1"),
        machine.fake.file("k1.ko", &module("k1", RELEASE, true)),
        machine.fake.file("engine.ko", &module_with(ENGINE, RELEASE, true, "version=01\0")),
        patch("e2"),
    ];
    machine.store.install(&machine.fake.system(), &files, false).unwrap();
    machine
}

#[test]
fn the_engine_is_loaded_before_its_patches() {
    use BootOutcome::{AlreadyLoaded, Loaded, WouldLoad};
    let machine = with_engine();
    let all = |outcome| pairs(&["k1", ENGINE, "e1", "e2"].map(|name| (name, outcome)));
    let dry = machine.store.boot(&machine.fake.system(), true).unwrap();
    let dry: Vec<_> = dry.livepatches.into_iter().map(|patch| (patch.name, patch.outcome)).collect();
    assert_eq!(dry, all(WouldLoad));
    assert_eq!(machine.boot(), all(Loaded));
    assert_eq!(machine.fake.calls(), ["insert k1", "insert kmend_engine", "insert e1", "insert e2"]);
    assert_eq!(machine.fake.read("sys/kernel/kmend/e2/enabled"), "1\n");
    assert_eq!(machine.boot(), all(AlreadyLoaded));
    assert!(machine.fake.read("var/lib/kmend/loading.json").contains("\"name\":\"kmend_engine\""));
}

#[test]
fn one_of_the_engines_replaces_those_of_the_engine_alone() {
    use BootOutcome::{Loaded, Superseded};
    let machine = with_engine();
    machine.replaces(&[false, false, false, true]);
    let expected = [("k1", Loaded), (ENGINE, Loaded), ("e2", Loaded), ("e1", Superseded)];
    assert_eq!(machine.boot(), pairs(&expected));
    let overview = machine.store.overview(RELEASE, &machine.fake.system().patches().unwrap());
    let shown: Vec<_> =
        overview.installed.iter().map(|it| (it.loaded, it.superseded_by.as_deref())).collect();
    assert_eq!(shown, [(false, Some("e2")), (true, None), (true, None), (true, None)]);
}

#[test]
fn without_the_engine_its_patches_fail_and_the_others_are_loaded() {
    use BootOutcome::{Failed, Held, Loaded};
    let machine = with_engine();
    let locked = machine.store.lock().unwrap();
    let engine = Candidate::open(&machine.path(ENGINE)).unwrap();
    Crash::begin(&locked, &machine.fake.system(), &engine).unwrap();
    drop(locked);
    machine.restart("second");
    let expected = [("k1", Loaded), (ENGINE, Held), ("e1", Failed), ("e2", Failed)];
    assert_eq!(machine.boot(), pairs(&expected));
    let boot = machine.store.boot(&machine.fake.system(), true).unwrap();
    assert_eq!(boot.livepatches[2].code, Some(Code::EngineMissing));
    machine.store.release(&machine.fake.system(), RELEASE, &[ENGINE.into()]).unwrap();
    assert_eq!(machine.boot()[2], ("e1".into(), Loaded));
}
