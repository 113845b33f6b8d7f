//! The crash memory: which livepatches the machine may have died of.
//!
//! Before a livepatch is loaded, `loading.json` says so on the disk, with the boot's id. The entry goes when the livepatch is
//! out of the kernel again, when the machine has run for a minute since (`settle`), or when it is shut down in order. An
//! entry of another boot is therefore one after which none of that came: the machine died, or lost its power, while
//! the livepatch was being loaded or within a minute after. If that very module is installed, it is held from then on.
//!
//! What this cannot know: whether it was the livepatch. All that were young are held.

use crate::error::InstallError;
use crate::folder::Folder;
use crate::history::{self, Event, Outcome, Record};
use crate::manifest::Manifest;
use crate::store::{Locked, now};
use kmend_live::{Candidate, System};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The file.
const LOADING: &str = "loading.json";
/// The version of its shape.
const SCHEMA: u32 = 1;
/// More than a hundred loads, in bytes.
const LARGEST: u64 = 256 << 10;
/// How long the machine has to run after a load for it to be a good one.
pub(crate) const CLEAN: Duration = Duration::from_secs(60);

/// Why an installed livepatch is not loaded at boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Since when it is held: UTC, as RFC 3339 has it.
    pub since: String,
    /// When the load began that the machine did not survive.
    pub loaded: String,
    /// The boot's id.
    pub boot: String,
    /// Whether the load was over before the machine went down.
    pub finished: bool,
}

impl Held {
    /// The reason in words.
    pub fn why(&self) -> String {
        let when = if self.finished { "within a minute after it was loaded" } else { "while it was loaded" };
        format!("the machine went down {when} ({})", self.loaded)
    }
}

/// A load that may yet turn out to be a bad one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Load {
    name: String,
    sha256: String,
    release: String,
    boot: String,
    /// When it began, in UTC.
    at: String,
    /// When it was last heard of, in seconds since the boot.
    uptime: f64,
    finished: bool,
}

/// The loads that are under way or young.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Crash {
    schema: u32,
    loads: Vec<Load>,
}

impl Crash {
    fn read(folder: &Folder) -> Result<Crash, InstallError> {
        let Some(bytes) = folder.read(LOADING, LARGEST)? else {
            return Ok(Crash { schema: SCHEMA, loads: Vec::new() });
        };
        let crash: Result<Crash, _> = serde_json::from_slice(&bytes);
        let why = match crash {
            Ok(crash) if crash.schema == SCHEMA => return Ok(crash),
            Ok(crash) => format!("its schema is {}, and this kmend knows {SCHEMA}", crash.schema),
            Err(error) => error.to_string(),
        };
        Err(InstallError::Damaged { path: folder.path().join(LOADING), why })
    }

    fn write(&self, folder: &Folder) -> Result<(), InstallError> {
        if self.loads.is_empty() {
            folder.remove(LOADING)?;
            return folder.flush();
        }
        let text = serde_json::to_vec(self)
            .map_err(|error| InstallError::io(&folder.path().join(LOADING), std::io::Error::other(error)))?;
        folder.write(LOADING, &text)
    }

    /// Notes on the disk that a load begins.
    pub(crate) fn begin(locked: &Locked, system: &System, candidate: &Candidate) -> Result<(), InstallError> {
        let boot = system.boot_id().ok_or_else(|| InstallError::NoCrashMemory {
            name: candidate.module.name.clone(),
            why: "the kernel tells no boot id".into(),
        })?;
        let mut crash = Crash::read(&locked.folder)?;
        crash.loads.retain(|load| load.name != candidate.module.name);
        crash.loads.push(Load {
            name: candidate.module.name.clone(),
            sha256: candidate.sha256.clone(),
            release: system.release()?,
            boot,
            at: now(),
            uptime: seconds(system),
            finished: false,
        });
        crash.write(&locked.folder)
    }

    /// Notes that a load is over, if that it began still stands there: its minute begins.
    pub(crate) fn finish(locked: &Locked, system: &System, name: &str) -> Result<(), InstallError> {
        let mut crash = Crash::read(&locked.folder)?;
        let Some(load) = crash.loads.iter_mut().find(|load| load.name == name) else { return Ok(()) };
        (load.finished, load.uptime) = (true, seconds(system));
        crash.write(&locked.folder)
    }

    /// Forgets loads for which `over` holds, by name and since when the last was heard of each, and says how many are left.
    pub(crate) fn forget(
        locked: &Locked,
        mut over: impl FnMut(&str, Duration) -> bool,
        system: &System,
    ) -> Result<usize, InstallError> {
        let mut crash = Crash::read(&locked.folder)?;
        let (before, uptime) = (crash.loads.len(), seconds(system));
        crash.loads.retain(|load| {
            let age = Duration::try_from_secs_f64(uptime - load.uptime).unwrap_or_default();
            !over(&load.name, age)
        });
        if crash.loads.len() != before {
            crash.write(&locked.folder)?;
        }
        Ok(crash.loads.len())
    }

    /// Holds what the machine may have died of: installed modules with an entry of another boot. The manifests come first, so
    /// that a kill in between is followed by the same again.
    pub(crate) fn judge(locked: &Locked, boot: &str) -> Result<(), InstallError> {
        let mut crash = Crash::read(&locked.folder)?;
        let (current, dead): (Vec<Load>, Vec<Load>) =
            crash.loads.into_iter().partition(|load| load.boot == boot);
        if dead.is_empty() {
            return Ok(());
        }
        for load in &dead {
            // A manifest that cannot be read loads nothing at boot, and is told there.
            let held = hold(locked, load).or_else(|error| match error {
                InstallError::Damaged { .. } | InstallError::Unsafe { .. } => Ok(false),
                error => Err(error),
            })?;
            let event = if held { Event::Hold } else { Event::WentDown };
            let mut record = Record::new(event, &load.name, Outcome::Done);
            record.release = Some(load.release.clone());
            record.boot = Some(boot.to_owned());
            record.why = Some(load.held(String::new()).why());
            history::append(locked, &record)?;
        }
        crash.loads = current;
        crash.write(&locked.folder)
    }
}

impl Load {
    fn held(&self, since: String) -> Held {
        Held { since, loaded: self.at.clone(), boot: self.boot.clone(), finished: self.finished }
    }
}

/// Holds the module of a load, if it is installed.
fn hold(locked: &Locked, load: &Load) -> Result<bool, InstallError> {
    if crate::manifest::check_release(&load.name, &load.release).is_err() {
        return Ok(false);
    }
    let Some(folder) = locked.folder.folder(&load.release)? else { return Ok(false) };
    let mut manifest = Manifest::read(&folder)?;
    let module = manifest.modules.iter_mut().find(|module| module.sha256 == load.sha256);
    let Some(module) = module else { return Ok(false) };
    if module.held.is_none() {
        module.held = Some(load.held(now()));
        manifest.write(&folder)?;
    }
    Ok(true)
}

fn seconds(system: &System) -> f64 {
    system.uptime().unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use kmend_live::fake::{Fake, RELEASE, module};

    const OTHER: &str = "0d8d6ba9-f5b0-4bd0-a5c4-61ba5b2ae2ba";

    fn fake() -> Fake {
        let fake = Fake::new();
        fake.write("proc/uptime", "10.00 1.00\n");
        fake
    }

    fn candidate(fake: &Fake) -> Candidate {
        Candidate::open(&fake.file("x.ko", &module("livepatch_x", RELEASE, true))).unwrap()
    }

    fn other_boot(fake: &Fake) {
        fake.write("proc/sys/kernel/random/boot_id", &format!("{OTHER}\n"));
    }

    #[test]
    fn who_does_not_survive_a_load_holds_it() {
        let fake = fake();
        let (system, store) = (fake.system(), Store::of(&fake.system()));
        let candidate = candidate(&fake);
        store.install(&system, &[fake.path("x.ko")], false).unwrap();
        Crash::begin(&store.lock().unwrap(), &system, &candidate).unwrap();
        store.lock_judged(&system).unwrap();
        assert_eq!(store.installed(RELEASE).unwrap()[0].held, None, "this boot goes on");
        other_boot(&fake);
        store.lock_judged(&system).unwrap();
        let held = store.installed(RELEASE).unwrap()[0].held.clone().unwrap();
        assert!(!held.finished && held.why().starts_with("the machine went down while it was loaded (2"));
        assert!(!fake.path("var/lib/kmend/loading.json").exists());
        assert!(fake.read("var/lib/kmend/history.jsonl").contains("\"event\":\"hold\""));
    }

    #[test]
    fn only_the_very_module_is_held() {
        let fake = fake();
        let (system, store) = (fake.system(), Store::of(&fake.system()));
        Crash::begin(&store.lock().unwrap(), &system, &candidate(&fake)).unwrap();
        let other = fake.file("other.ko", &[module("livepatch_x", RELEASE, true), vec![0]].concat());
        other_boot(&fake);
        store.install(&system, &[other], false).unwrap();
        assert_eq!(store.installed(RELEASE).unwrap()[0].held, None);
        assert!(fake.read("var/lib/kmend/history.jsonl").contains("\"event\":\"went-down\""));
    }

    #[test]
    fn a_minute_begins_when_the_load_is_over() {
        let fake = fake();
        let (system, store) = (fake.system(), Store::of(&fake.system()));
        let locked = store.lock().unwrap();
        Crash::begin(&locked, &system, &candidate(&fake)).unwrap();
        fake.write("proc/uptime", "60.00 1.00\n");
        Crash::finish(&locked, &system, "livepatch_x").unwrap();
        fake.write("proc/uptime", "119.00 1.00\n");
        assert_eq!(Crash::forget(&locked, |_, age| age >= CLEAN, &system).unwrap(), 1);
        fake.write("proc/uptime", "120.00 1.00\n");
        assert_eq!(Crash::forget(&locked, |_, age| age >= CLEAN, &system).unwrap(), 0);
        Crash::finish(&locked, &system, "livepatch_x").unwrap();
        assert!(!fake.path("var/lib/kmend/loading.json").exists());
    }

    #[test]
    fn a_damaged_memory_is_told() {
        let fake = fake();
        let locked = Store::of(&fake.system()).lock().unwrap();
        Crash::begin(&locked, &fake.system(), &candidate(&fake)).unwrap();
        let whole = fake.read("var/lib/kmend/loading.json");
        for length in 0..whole.len() {
            fake.write("var/lib/kmend/loading.json", &whole[..length]);
            assert!(matches!(Crash::judge(&locked, OTHER), Err(InstallError::Damaged { .. })), "{length}");
        }
    }
}
