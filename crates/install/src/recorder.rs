//! What is done to the running system, remembered.

use crate::crash::Crash;
use crate::error::InstallError;
use crate::history::{self, Event, Outcome, Record};
use crate::store::{Locked, Store};
use kmend_live::{Candidate, LiveError, LoadOptions, Loaded, State, System, Watch};
use kmend_refusal::{Code, Coded};

/// Remembers what is done to a system. What cannot be remembered is done all the same, and told.
pub struct Recorder<'a> {
    system: &'a System,
    store: Store,
    notes: Vec<String>,
}

impl<'a> Recorder<'a> {
    /// Remembers in the system's own folder.
    pub fn new(system: &'a System) -> Recorder<'a> {
        Recorder { system, store: Store::of(system), notes: Vec::new() }
    }

    /// Loads a livepatch by hand.
    pub fn load(
        &mut self,
        candidate: &Candidate,
        options: LoadOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Loaded, LiveError> {
        self.insert(candidate, |system| system.load(candidate, options, watch))
    }

    /// Loads the consistency engine by hand.
    pub fn load_engine(&mut self, engine: &Candidate) -> Result<Loaded, LiveError> {
        self.insert(engine, |system| system.load_engine(engine))
    }

    fn insert(
        &mut self,
        candidate: &Candidate,
        load: impl FnOnce(&System) -> Result<Loaded, LiveError>,
    ) -> Result<Loaded, LiveError> {
        let system = self.system;
        self.remember(|locked| Crash::begin(locked, system, candidate));
        let result = load(system);
        self.remember(|locked| loaded(locked, system, Event::Load, candidate, &result));
        result
    }

    /// Does something to a livepatch.
    pub fn record<T>(
        &mut self,
        event: Event,
        name: &str,
        act: impl FnOnce(&System) -> Result<T, LiveError>,
    ) -> Result<T, LiveError> {
        let system = self.system;
        let result = act(system);
        self.remember(|locked| {
            if result.is_ok() && matches!(event, Event::Unload | Event::Disable) {
                Crash::forget(locked, |load, _| load == name, system)?;
            }
            let record = Record::of(event, name, &result);
            history::keep(locked, system, system.release().ok(), record)
        });
        result
    }

    /// What could not be remembered.
    pub fn notes(self) -> Vec<String> {
        self.notes
    }

    fn remember(&mut self, write: impl FnOnce(&Locked) -> Result<(), InstallError>) {
        if let Err(error) = self.store.lock_judged(self.system).and_then(|locked| write(&locked)) {
            let note = format!("this is not remembered: {error}");
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}

/// Remembers how a load ended. One that the kernel still has to end stays in the crash memory until then.
pub(crate) fn loaded(
    locked: &Locked,
    system: &System,
    event: Event,
    candidate: &Candidate,
    result: &Result<Loaded, LiveError>,
) -> Result<(), InstallError> {
    let name = &candidate.module.name;
    let goes_on = matches!(result, Ok(Loaded { state: State::Enabling, .. }));
    match result.as_ref().map_err(Coded::code) {
        Ok(_) if goes_on => {}
        Ok(_) | Err(Code::AlreadyLoaded) => Crash::finish(locked, system, name)?,
        Err(Code::TransitionStalled | Code::Interrupted) => {}
        Err(_) => {
            Crash::forget(locked, |load, _| load == name, system)?;
        }
    }
    let mut record = Record::of(event, name, result);
    record.sha256 = Some(candidate.sha256.clone());
    record.parameters = candidate.parameters.iter().map(ToString::to_string).collect();
    let engine = result.as_ref().ok().and_then(|loaded| loaded.engine.as_ref());
    record.model = engine.map(|engine| engine.model.clone());
    record.despite = candidate.despite.iter().map(|error| error.code().name().to_owned()).collect();
    if goes_on {
        record.outcome = Outcome::Left;
    }
    history::keep(locked, system, system.release().ok(), record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_live::fake::{Fake, RELEASE, module, module_with, patient};
    use kmend_live::{ENGINE, Late};
    use std::time::Duration;

    const NOW: LoadOptions =
        LoadOptions { timeout: Duration::ZERO, late: Late::Leave, way_back: Duration::ZERO };

    fn load(fake: &Fake) -> (Result<Loaded, LiveError>, Vec<String>) {
        let system = fake.system();
        let candidate = Candidate::open(&fake.file("x.ko", &module("x", RELEASE, true))).unwrap();
        let mut recorder = Recorder::new(&system);
        (recorder.load(&candidate, NOW, &mut patient), recorder.notes())
    }

    fn outcomes(fake: &Fake) -> Vec<(Event, Outcome)> {
        let history = Store::of(&fake.system()).history().unwrap();
        history.records.iter().map(|record| (record.event, record.outcome)).collect()
    }

    #[test]
    fn a_load_is_remembered_until_it_is_unloaded() {
        let fake = Fake::new();
        assert_eq!(load(&fake).1, Vec::<String>::new());
        assert!(fake.read("var/lib/kmend/loading.json").contains("\"finished\":true"));
        fake.write("sys/module/x/refcnt", "0\n");
        let system = fake.system();
        let mut recorder = Recorder::new(&system);
        recorder
            .record(Event::Unload, "x", |system| {
                system.unload("x", &kmend_live::Switch::default(), Duration::ZERO, &mut patient)
            })
            .unwrap();
        assert!(!fake.path("var/lib/kmend/loading.json").exists());
        assert_eq!(outcomes(&fake), [(Event::Load, Outcome::Done), (Event::Unload, Outcome::Done)]);
    }

    #[test]
    fn the_engine_is_remembered_like_what_it_loads() {
        let fake = Fake::new();
        let system = fake.system();
        let file = fake.file("engine.ko", &module_with(ENGINE, RELEASE, true, "version=01\0"));
        Recorder::new(&system).load_engine(&system.check_engine(&file).unwrap()).unwrap();
        assert!(fake.read("var/lib/kmend/loading.json").contains("\"name\":\"kmend_engine\""));
        fake.write("sys/module/kmend_engine/refcnt", "0\n");
        let unload = |system: &System| system.unload_engine(Duration::ZERO);
        Recorder::new(&system).record(Event::Unload, ENGINE, unload).unwrap();
        assert!(!fake.path("var/lib/kmend/loading.json").exists());
        assert_eq!(outcomes(&fake), [(Event::Load, Outcome::Done), (Event::Unload, Outcome::Done)]);
    }

    #[test]
    fn what_the_kernel_refuses_is_no_danger_and_what_goes_on_is() {
        let fake = Fake::new();
        fake.stall();
        assert!(load(&fake).0.is_err());
        assert!(fake.read("var/lib/kmend/loading.json").contains("\"finished\":false"));
        let fake = Fake::new();
        fake.refuse(rustix::io::Errno::INVAL);
        assert!(load(&fake).0.is_err());
        assert!(!fake.path("var/lib/kmend/loading.json").exists());
        assert_eq!(outcomes(&fake), [(Event::Load, Outcome::Failed)]);
    }

    #[test]
    fn what_was_given_and_overridden_is_remembered() {
        let fake = Fake::new();
        fake.write("proc/sys/kernel/ftrace_enabled", "0\n");
        fake.stall();
        let path = fake.file("x.ko", &module_with("x", RELEASE, true, "parmtype=replace:int\0"));
        let system = fake.system();
        let mut candidate = system.check_despite(&[path], &[Code::FtraceOff]).remove(0).unwrap();
        candidate.give(&["replace=1".parse().unwrap()]).unwrap();
        let options = LoadOptions { late: Late::Accept, ..NOW };
        Recorder::new(&system).load(&candidate, options, &mut patient).unwrap();
        let record = Store::of(&system).history().unwrap().records.remove(0);
        assert_eq!((record.parameters, record.despite), (vec!["replace=1".into()], vec!["KM0712".into()]));
        assert_eq!(record.outcome, Outcome::Left);
        assert!(fake.read("var/lib/kmend/loading.json").contains("\"finished\":false"));
    }

    #[test]
    fn a_load_that_cannot_be_remembered_is_done_and_told() {
        let fake = Fake::new();
        fake.write("var/lib/kmend", "in the way");
        let (loaded, notes) = load(&fake);
        loaded.unwrap();
        assert!(notes.len() == 1 && notes[0].starts_with("this is not remembered: "), "{notes:?}");
    }
}
