//! What is installed, for who asks how the system stands.

use crate::manifest::{Module, last_replacing};
use crate::store::Store;
use kmend_live::LoadedPatch;
use serde::Serialize;

/// What is installed, for all kernels.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overview {
    /// The livepatches, by kernel and in order; those of the kernel that runs first.
    pub installed: Vec<Place>,
    /// Why some of it cannot be shown, and will not be loaded.
    pub installed_unreadable: Vec<String>,
}

/// An installed livepatch and its place in its kernel's set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The kernel.
    pub release: String,
    /// Whether that kernel runs.
    pub running: bool,
    /// The livepatch.
    #[serde(flatten)]
    pub module: Module,
    /// Whether a livepatch of this name is loaded now.
    pub loaded: bool,
    /// The one behind it that takes its place at boot.
    pub superseded_by: Option<String>,
}

impl Store {
    /// What is installed, beside a kernel that runs and what is loaded there.
    pub fn overview(&self, running: &str, loaded: &[LoadedPatch]) -> Overview {
        let mut overview = Overview::default();
        let mut releases = self.releases().unwrap_or_else(|error| {
            overview.installed_unreadable.push(error.to_string());
            Vec::new()
        });
        releases.sort_by_key(|release| release != running);
        for release in releases {
            let modules = match self.installed(&release) {
                Ok(modules) => modules,
                Err(error) => {
                    overview.installed_unreadable.push(error.to_string());
                    continue;
                }
            };
            for (number, module) in modules.iter().enumerate() {
                let module = module.clone();
                // The engine's own patches show that it is there.
                let is_loaded = |patch: &LoadedPatch| {
                    patch.enabled && patch.name == module.name || module.is_engine() && patch.engine.is_some()
                };
                overview.installed.push(Place {
                    running: release == running,
                    loaded: release == running && loaded.iter().any(is_loaded),
                    superseded_by: superseding(&modules, number),
                    release: release.clone(),
                    module,
                });
            }
        }
        overview
    }
}

/// The livepatch that takes the place of another one of its kind at boot, if one behind it does.
fn superseding(modules: &[Module], number: usize) -> Option<String> {
    let module = modules.get(number).filter(|module| !module.is_engine())?;
    let of_kind = |other: &&Module| !other.is_engine() && other.needs_engine() == module.needs_engine();
    let kind: Vec<&Module> = modules.iter().filter(of_kind).collect();
    let name = &kind.get(last_replacing(&kind)?)?.name;
    modules.iter().skip(number + 1).any(|other| other.name == *name).then(|| name.clone())
}
