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
            let replacing = last_replacing(&modules).and_then(|at| Some((at, modules.get(at)?.name.clone())));
            for (number, module) in modules.into_iter().enumerate() {
                let superseded = replacing.as_ref().filter(|(at, _)| number < *at);
                overview.installed.push(Place {
                    running: release == running,
                    loaded: release == running
                        && loaded.iter().any(|patch| patch.enabled && patch.name == module.name),
                    superseded_by: superseded.map(|(_, name)| name.clone()),
                    release: release.clone(),
                    module,
                });
            }
        }
        overview
    }
}
