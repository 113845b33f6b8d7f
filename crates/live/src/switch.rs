//! How kmend's consistency engine is to switch a patch: by which model, how callers are redirected, until when.
//!
//! A patch that is loaded into the engine is registered, and disabled; what its files say when it is enabled or disabled counts for
//! that transition.

use crate::engine::Engine;
use crate::error::LiveError;
use crate::system::System;
use crate::transition::write_value;
use kmend_inspect::{EngineUse, Inspection};
use rustix::io::Errno;
use std::io;
use std::time::Duration;

/// The model that switches functions while tasks may still run the old ones.
const IMMEDIATE: &str = "immediate";
/// The engine turns a transition around by itself so much later than whoever waits for it: should that have died.
const LATER: Duration = Duration::from_secs(5);

/// How a patch is to be switched; what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Switch {
    /// The consistency model.
    pub model: Option<String>,
    /// How callers are redirected.
    pub redirect: Option<String>,
}

impl Switch {
    /// Whether everything stays as it is.
    pub fn is_default(&self) -> bool {
        *self == Switch::default()
    }

    /// What the engine does not have of it.
    fn unknown(&self, engine: &Engine) -> Vec<LiveError> {
        let wishes =
            [("model", &self.model, &engine.models), ("redirect", &self.redirect, &engine.redirects)];
        let unknown = |(what, wish, known): (&'static str, &Option<String>, &Vec<String>)| {
            let name = wish.clone().filter(|name| !known.contains(name))?;
            Some(LiveError::NoSuchModel { what, name, known: known.clone() })
        };
        wishes.into_iter().filter_map(unknown).collect()
    }

    /// What of it cannot switch functions that ftrace does not know, if the patch has any.
    fn unfit(&self, module: &Inspection, own: &EngineUse) -> Vec<LiveError> {
        // Whoever built it chose the redirect, as the only one.
        let redirects: Vec<String> = own.redirect.iter().cloned().collect();
        let wishes = [("model", &self.model, &own.stops), ("redirect", &self.redirect, &redirects)];
        let wishes = wishes.into_iter().filter(|_| !own.untraced.is_empty());
        let unfit = |(what, wish, fit): (&'static str, &Option<String>, &Vec<String>)| {
            wish.as_ref().filter(|name| !fit.contains(name))?;
            let (name, functions) = (module.name.clone(), own.untraced.clone());
            Some(LiveError::NoStop { name, functions, what, fit: fit.clone() })
        };
        wishes.filter_map(unfit).collect()
    }
}

impl System {
    /// Checks that a module that is not loaded yet can be switched so: all the reasons why not.
    pub fn check_switch(&self, module: &Inspection, switch: &Switch) -> Vec<LiveError> {
        let Some(own) = &module.engine else {
            return if switch.is_default() {
                Vec::new()
            } else {
                vec![LiveError::NotForEngine(module.name.clone())]
            };
        };
        let whole = Switch {
            model: switch.model.clone().or_else(|| own.model.clone()),
            redirect: switch.redirect.clone().or_else(|| own.redirect.clone()),
        };
        let mut errors = match self.engine() {
            Ok(engine) => engine.map(|engine| whole.unknown(&engine)).unwrap_or_default(),
            Err(error) => vec![error],
        };
        errors.extend(whole.unfit(module, own));
        let mut callbacks = module.objects.iter().flat_map(|object| &object.callbacks);
        let waits = !module.updates.is_empty() || callbacks.any(|callback| callback.when == "post_patch");
        if whole.model.as_deref() == Some(IMMEDIATE) && waits {
            errors.push(LiveError::ModelTooWeak { name: module.name.clone(), model: IMMEDIATE });
        }
        errors
    }

    /// Checks that a patch that is loaded can be switched so.
    pub fn can_switch(&self, name: &str, switch: &Switch) -> Result<(), LiveError> {
        if switch.is_default() {
            return Ok(());
        }
        let Some(patch) = self.patch(name)? else { return Err(LiveError::NotLoaded(name.to_owned())) };
        let Some(engine) = self.engine()?.filter(|_| patch.engine.is_some()) else {
            return Err(LiveError::NotForEngine(name.to_owned()));
        };
        switch.unknown(&engine).into_iter().next().map_or(Ok(()), Err)
    }

    /// Says how a patch of the engine is to be switched. With `late` the engine turns the transition around by itself, some time
    /// after whoever waits for it would have.
    pub fn set_switch(&self, name: &str, switch: &Switch, late: Option<Duration>) -> Result<(), LiveError> {
        let folder = self.engine_folder(name);
        let until = late.map_or(0, |time| u32::try_from(time.saturating_add(LATER).as_millis()).unwrap_or(0));
        let files = [
            ("model", switch.model.clone()),
            ("redirect", switch.redirect.clone()),
            ("timeout_ms", Some(until.to_string())),
        ];
        for (file, value) in files {
            let Some(value) = value else { continue };
            let path = folder.join(file);
            write_value(&path, value.as_bytes()).map_err(|error| switch_error(name, &path, error))?;
        }
        Ok(())
    }

    /// Says how a patch of the engine is to be switched, unless it is being switched. The engine is not to turn the transition
    /// around by itself: whoever waits for it says what it comes to.
    pub(crate) fn prepare_switch(&self, name: &str, switch: &Switch) -> Result<(), LiveError> {
        self.can_switch(name, switch)?;
        match self.patch(name)? {
            Some(patch) if patch.engine.is_some() && !patch.transition => self.set_switch(name, switch, None),
            Some(patch) if patch.transition && !switch.is_default() => {
                Err(LiveError::TransitionBusy { name: name.to_owned(), other: patch.name })
            }
            _ => Ok(()),
        }
    }

    /// Refuses what makes sense for the kernel's own livepatch alone.
    pub fn require_kernel(
        &self,
        name: &str,
        what: &'static str,
        instead: &'static str,
    ) -> Result<(), LiveError> {
        match self.patch(name)? {
            Some(patch) if patch.engine.is_some() => {
                Err(LiveError::NotInEngine { name: name.to_owned(), what, instead })
            }
            _ => Ok(()),
        }
    }
}

/// Why a file of a patch did not take what was written.
fn switch_error(name: &str, path: &std::path::Path, error: io::Error) -> LiveError {
    if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) {
        return LiveError::TransitionBusy { name: name.to_owned(), other: name.to_owned() };
    }
    LiveError::at(path, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, RELEASE, module_with, patient};
    use crate::load::{Late, LoadOptions, Loaded};
    use crate::patches::State;
    use crate::unload::Rest;

    const SOON: Duration = Duration::from_secs(2);

    fn load(fake: &Fake, options: LoadOptions, model: Option<&str>) -> Result<Loaded, LiveError> {
        let more = "depends=kmend_engine\0kmend_engine=0123\0";
        let path = fake.file("fix.ko", &module_with("fix", RELEASE, true, more));
        let system = fake.system();
        let mut candidate = system.check(&[path]).remove(0).map_err(|mut errors| errors.remove(0))?;
        candidate.switch.model = model.map(str::to_owned);
        system.load(&candidate, options, &mut patient)
    }

    fn file(fake: &Fake, name: &str) -> String {
        fake.read(&format!("sys/kernel/kmend/fix/{name}")).trim_end().to_owned()
    }

    #[test]
    fn a_patch_is_registered_and_then_enabled_as_is_asked_for() {
        let fake = Fake::new();
        fake.engine();
        let loaded = load(&fake, LoadOptions { timeout: SOON, ..LoadOptions::default() }, Some("immediate"));
        let loaded = loaded.unwrap();
        assert_eq!((loaded.state, loaded.engine.unwrap().model.as_str()), (State::Enabled, "immediate"));
        assert_eq!((file(&fake, "enabled"), file(&fake, "timeout_ms")), ("1".into(), "7000".into()));
        assert_eq!(fake.calls(), ["insert fix"]);
        let again = load(&fake, LoadOptions::default(), None).unwrap_err();
        assert!(matches!(again, LiveError::AlreadyLoaded(_)), "{again}");
    }

    #[test]
    fn a_transition_that_is_left_is_not_turned_around_by_the_engine() {
        let fake = Fake::new();
        fake.engine();
        load(&fake, LoadOptions { late: Late::Leave, ..LoadOptions::default() }, None).unwrap();
        assert_eq!(file(&fake, "timeout_ms"), "0");
    }

    #[test]
    fn a_disabled_patch_is_enabled_again_or_unloaded_or_loaded_anew() {
        let fake = Fake::new();
        fake.engine_patch("fix", false, false);
        fake.module("fix", 0);
        let system = fake.system();
        let switch = Switch { model: Some("immediate".into()), redirect: None };
        system.enable("fix", &switch, SOON, &mut patient).unwrap();
        assert_eq!((file(&fake, "enabled"), file(&fake, "model")), ("1".into(), "immediate".into()));
        system.disable("fix", &Switch::default(), SOON, &mut patient).unwrap();
        assert_eq!(file(&fake, "enabled"), "0");
        load(&fake, LoadOptions::default(), None).unwrap();
        assert_eq!(fake.calls(), ["remove fix", "insert fix"]);
        fake.module("fix", 0);
        assert_eq!(system.unload("fix", &Switch::default(), SOON, &mut patient).unwrap(), Rest::Nothing);
        assert!(matches!(system.can_unload("kmend_engine"), Err(LiveError::NotALivepatch { .. })));
    }

    #[test]
    fn what_the_engine_does_not_have_is_told_before_anything_is_done() {
        let fake = Fake::new();
        fake.engine_patch("fix", true, true);
        fake.patch("other", true, false);
        let system = fake.system();
        assert!(matches!(system.signal("fix"), Err(LiveError::NotInEngine { .. })));
        assert!(matches!(system.force("fix", &mut patient), Err(LiveError::NotInEngine { .. })));
        let switch = Switch { model: Some("quick".into()), redirect: None };
        let unknown = system.unload("fix", &switch, SOON, &mut patient).unwrap_err();
        assert!(matches!(unknown, LiveError::NoSuchModel { .. }), "{unknown}");
        let kernels = system.disable("other", &switch, SOON, &mut patient).unwrap_err();
        assert!(matches!(kernels, LiveError::NotForEngine(_)), "{kernels}");
    }

    #[test]
    fn two_transitions_may_go_on_one_in_the_kernel_and_one_in_the_engine() {
        let fake = Fake::new();
        fake.engine();
        fake.patch("other", true, true);
        load(&fake, LoadOptions::default(), None).unwrap();
        fake.engine_patch("third", true, true);
        fake.engine_patch("fix", false, false);
        let busy = load(&fake, LoadOptions::default(), None).unwrap_err();
        assert!(matches!(&busy, LiveError::TransitionBusy { other, .. } if other == "third"), "{busy}");
    }
}
