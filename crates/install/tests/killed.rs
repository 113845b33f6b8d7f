//! Kill -9 at random moments of install, overwrite and uninstall: the set is the old one or the new one, and the next change
//! sweeps what is left.
//!
//! The test is its own victim: with a folder as its argument it changes the set in it for ever.

use kmend_install::Store;
use kmend_live::fake::{Fake, RELEASE, module};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How often the victim is killed, unless `KMEND_KILL_ROUNDS` says otherwise.
const ROUNDS: u32 = 40;
/// The longest time that it lives, in microseconds: a few changes.
const LONGEST: u64 = 40_000;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(word), Some(root)) = (arguments.next(), arguments.next())
        && word == "victim"
    {
        change_for_ever(Path::new(&root));
    }
    let trial = Trial::test("the_set_is_old_or_new_whenever_it_is_killed", killed);
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

/// Modules of the names `a` and `b`, and other contents of `a`.
fn files(root: &Path) -> [PathBuf; 3] {
    ["a.ko", "b.ko", "other.ko"].map(|name| root.join(name))
}

fn change_for_ever(root: &Path) -> ! {
    let system = kmend_live::System::at(root);
    let store = Store::of(&system);
    let [a, b, other] = files(root);
    loop {
        // What is done already is refused: the round before was killed somewhere in here.
        let _ = store.install(&system, &[a.clone(), b.clone()], true);
        let _ = store.install(&system, std::slice::from_ref(&other), true);
        let _ = store.uninstall(&system, RELEASE, &["a".to_owned()]);
        let _ = store.uninstall(&system, RELEASE, &["b".to_owned()]);
    }
}

fn killed() -> Result<(), Failed> {
    let fake = Fake::new();
    let large = |name: &str, more: u8| [module(name, RELEASE, true), vec![more; 300_000]].concat();
    fake.file("a.ko", &large("a", 1));
    fake.file("b.ko", &large("b", 2));
    fake.file("other.ko", &large("a", 3));
    let root = fake.path("");
    let rounds = std::env::var("KMEND_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let (mut seen, mut left) = (BTreeSet::new(), 0);
    // A generator of numbers as good as any for moments: no two rounds have the same.
    let mut moment = 1_u64;
    for _ in 0..rounds {
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        run_and_kill(&root, Duration::from_micros((moment >> 33) % LONGEST))?;
        let (set, rest) = look(&fake)?;
        seen.insert(set);
        left += u32::from(rest);
        // Every other round begins with what the last one left.
        if moment >> 63 == 0 {
            swept(&fake)?;
        }
    }
    if seen.len() < 2 {
        return Err(format!("{rounds} rounds saw only {seen:?}").into());
    }
    println!("{rounds} rounds saw {seen:?}; {left} times something was left to sweep");
    Ok(())
}

/// Starts the victim, waits until it is at work, and kills it later.
fn run_and_kill(root: &Path, later: Duration) -> Result<(), Failed> {
    let before = fs::metadata(root.join("var/lib/kmend/history.jsonl")).map_or(0, |file| file.len());
    let mut victim =
        Command::new(std::env::current_exe()?).arg("victim").arg(root).stdout(Stdio::null()).spawn()?;
    let start = Instant::now();
    while fs::metadata(root.join("var/lib/kmend/history.jsonl")).map_or(0, |file| file.len()) == before {
        if start.elapsed() > Duration::from_secs(30) {
            victim.kill()?;
            return Err("the victim does nothing".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(later);
    // SIGKILL.
    victim.kill()?;
    victim.wait()?;
    Ok(())
}

/// The set, which must be one that there is between two changes, and whether there are files that it does not name.
fn look(fake: &Fake) -> Result<(Vec<String>, bool), Failed> {
    let store = Store::at(&fake.path(""));
    let modules = store.installed(RELEASE)?;
    let mut set = Vec::new();
    for module in &modules {
        let path = store.path_of(RELEASE, &module.name)?;
        let bytes = fs::read(&path)?;
        let whole =
            files(&fake.path("")).iter().find(|file| fs::read(file).is_ok_and(|file| file == bytes)).cloned();
        let whole = whole.ok_or_else(|| format!("{} is not what was installed", path.display()))?;
        set.push(whole.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    // The last two where a round before was killed between the two changes that take out.
    let known: [&[&str]; 6] =
        [&[], &["a.ko", "b.ko"], &["other.ko", "b.ko"], &["b.ko"], &["b.ko", "a.ko"], &["b.ko", "other.ko"]];
    if !known.iter().any(|known| *known == set) {
        return Err(format!("the set is {set:?}").into());
    }
    let folder = store.path().join(RELEASE);
    let files = fs::read_dir(folder).map_or(0, Iterator::count);
    let named = if modules.is_empty() { 0 } else { modules.len() + 1 };
    Ok((set, files > named))
}

/// The next change removes what no manifest names.
fn swept(fake: &Fake) -> Result<(), Failed> {
    let (system, store) = (fake.system(), Store::at(&fake.path("")));
    let c = fake.file("c.ko", &module("c", RELEASE, true));
    store.install(&system, &[c], true).map_err(|reasons| format!("{reasons:?}"))?;
    store.uninstall(&system, RELEASE, &["c".to_owned()]).map_err(|errors| format!("{errors:?}"))?;
    if look(fake)?.1 {
        return Err("something is left after the next change".into());
    }
    Ok(())
}
