//! The livepatches that are there, as sysfs shows them.

use crate::engine::Switching;
use crate::error::LiveError;
use crate::system::{System, check_name, folders_in, read_flag};
use serde::Serialize;
use std::path::Path;

/// A livepatch of the running kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LoadedPatch {
    /// The name of its module.
    pub name: String,
    /// Whether tasks are, or are being moved, to its code.
    pub enabled: bool,
    /// Whether tasks are still being moved, in either direction.
    pub transition: bool,
    /// Whether it replaces the ones before it; `None` before Linux 6.11.
    pub replace: Option<bool>,
    /// The patched objects, by name.
    pub objects: Vec<PatchedObject>,
    /// How kmend's consistency engine switches it; `None` if the kernel's own livepatch does.
    pub engine: Option<Switching>,
}

/// The state of a livepatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Every task runs its code.
    Enabled,
    /// Tasks are being moved to its code.
    Enabling,
    /// Tasks are being moved away from its code.
    Disabling,
    /// No task runs its code. Since Linux 5.1 such a livepatch is gone from sysfs a moment later.
    Disabled,
}

impl State {
    /// What the files `enabled` and `transition` mean together.
    pub(crate) fn of(enabled: bool, transition: bool) -> State {
        match (enabled, transition) {
            (true, false) => State::Enabled,
            (true, true) => State::Enabling,
            (false, true) => State::Disabling,
            (false, false) => State::Disabled,
        }
    }

    /// The state in a word.
    pub fn name(self) -> &'static str {
        match self {
            State::Enabled => "enabled",
            State::Enabling => "enabling",
            State::Disabling => "disabling",
            State::Disabled => "disabled",
        }
    }
}

impl LoadedPatch {
    /// What `enabled` and `transition` mean together.
    pub fn state(&self) -> State {
        State::of(self.enabled, self.transition)
    }
}

/// vmlinux or a module, with its patched functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PatchedObject {
    /// `vmlinux` or the module's name.
    pub name: String,
    /// Whether the object is loaded and patched; `None` before Linux 6.1.
    pub patched: Option<bool>,
    /// The functions, by name.
    pub functions: Vec<PatchedFunction>,
}

/// A patched function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PatchedFunction {
    /// The name of the function that is replaced.
    pub name: String,
    /// Which of the symbols of that name in its object, counted from 1; the consistency engine does not tell it, and 1 stands
    /// for that.
    pub position: u64,
    /// How it stands, as the consistency engine tells: `absent`, `living`, `changing`, `patched`, or `covered` by a newer version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl System {
    /// All livepatches, by name; behind them those of kmend's consistency engine.
    pub fn patches(&self) -> Result<Vec<LoadedPatch>, LiveError> {
        let folder = self.livepatches();
        if !folder.is_dir() {
            return Err(LiveError::NoLivepatch(folder));
        }
        let mut patches = Vec::new();
        for name in folders_in(&folder)? {
            patches.extend(self.patch(&name)?);
        }
        let engine = self.engine()?;
        patches.extend(engine.into_iter().flat_map(|engine| engine.patches).map(LoadedPatch::from));
        Ok(patches)
    }

    /// A livepatch in transition: the kernel does one at a time, and so does the consistency engine.
    pub fn in_transition(&self) -> Result<Option<LoadedPatch>, LiveError> {
        Ok(self.patches()?.into_iter().find(|patch| patch.transition))
    }

    /// What keeps another transition from being begun: in the consistency engine, or in the kernel.
    pub(crate) fn busy_with(&self, engine: bool) -> Result<Option<LoadedPatch>, LiveError> {
        let same = |patch: &LoadedPatch| patch.transition && patch.engine.is_some() == engine;
        Ok(self.patches()?.into_iter().find(same))
    }

    /// One livepatch; `None` if it is not there, or goes while it is looked at.
    pub fn patch(&self, name: &str) -> Result<Option<LoadedPatch>, LiveError> {
        check_name(name)?;
        let folder = self.livepatch(name);
        let Some(enabled) = read_flag(&folder.join("enabled"))? else {
            return Ok(self.engine_patch(name)?.map(LoadedPatch::from));
        };
        let Some(transition) = read_flag(&folder.join("transition"))? else { return Ok(None) };
        let replace = read_flag(&folder.join("replace"))?;
        let mut objects = Vec::new();
        for object in folders_in(&folder)? {
            objects.push(read_object(&folder.join(&object), object)?);
        }
        Ok(Some(LoadedPatch { name: name.to_owned(), enabled, transition, replace, objects, engine: None }))
    }
}

fn read_object(folder: &Path, name: String) -> Result<PatchedObject, LiveError> {
    let patched = read_flag(&folder.join("patched"))?;
    let mut functions = Vec::new();
    for entry in folders_in(folder)? {
        let function = parse_function(&entry);
        functions.push(function.ok_or(LiveError::SysfsFormat { path: folder.to_owned(), found: entry })?);
    }
    functions.sort();
    Ok(PatchedObject { name, patched, functions })
}

/// `NAME,POSITION`.
fn parse_function(entry: &str) -> Option<PatchedFunction> {
    let (name, position) = entry.rsplit_once(',')?;
    Some(PatchedFunction { name: name.to_owned(), position: position.parse().ok()?, state: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn a_livepatch_is_read_with_its_objects() {
        let fake = Fake::new();
        fake.patch("livepatch_x", true, false);
        fake.write("sys/kernel/livepatch/livepatch_x/replace", "0\n");
        fake.folder("sys/kernel/livepatch/livepatch_x/vmlinux/b.isra.0,2");
        fake.folder("sys/kernel/livepatch/livepatch_x/vmlinux/a,1");
        fake.write("sys/kernel/livepatch/livepatch_x/vmlinux/patched", "1\n");
        fake.folder("sys/kernel/livepatch/livepatch_x/zram");
        let function = |name: &str, position| PatchedFunction { name: name.into(), position, state: None };
        let patch = LoadedPatch {
            name: "livepatch_x".into(),
            enabled: true,
            transition: false,
            replace: Some(false),
            objects: vec![
                PatchedObject {
                    name: "vmlinux".into(),
                    patched: Some(true),
                    functions: vec![function("a", 1), function("b.isra.0", 2)],
                },
                PatchedObject { name: "zram".into(), patched: None, functions: vec![] },
            ],
            engine: None,
        };
        assert_eq!(fake.system().patches().unwrap(), [patch]);
    }

    #[test]
    fn without_livepatches_the_list_is_empty_and_without_support_it_is_an_error() {
        let fake = Fake::new();
        assert_eq!(fake.system().patches().unwrap(), []);
        std::fs::remove_dir(fake.path("sys/kernel/livepatch")).unwrap();
        assert!(matches!(fake.system().patches(), Err(LiveError::NoLivepatch(_))));
    }

    #[test]
    fn what_the_kernel_does_not_write_is_an_error_that_names_the_file() {
        let fake = Fake::new();
        fake.patch("x", true, false);
        fake.write("sys/kernel/livepatch/x/enabled", "yes\n");
        let error = fake.system().patches().unwrap_err().to_string();
        assert!(error.ends_with("livepatch/x/enabled holds `yes`"), "{error}");
        fake.write("sys/kernel/livepatch/x/enabled", "1\n");
        fake.folder("sys/kernel/livepatch/x/vmlinux/no_position");
        assert!(matches!(fake.system().patches(), Err(LiveError::SysfsFormat { .. })));
    }

    #[test]
    fn a_livepatch_that_goes_is_not_there() {
        let fake = Fake::new();
        fake.folder("sys/kernel/livepatch/going");
        assert_eq!(fake.system().patches().unwrap(), []);
        assert_eq!(fake.system().patch("other").unwrap(), None);
        assert!(matches!(fake.system().patch("../x"), Err(LiveError::Name(_))));
    }
}
