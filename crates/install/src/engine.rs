//! The consistency engine among what is installed: an entry like those of its patches, which cannot be loaded without it.

use crate::error::InstallError;
use crate::install::Reasons;
use crate::manifest::{Manifest, Module};
use kmend_live::{Candidate, ENGINE};
use std::path::PathBuf;

/// Checks that the patches for the consistency engine that a set would have find there the one that they were built with.
pub(crate) fn check_set(release: &str, candidates: &[Candidate], manifest: &Manifest) -> Result<(), Reasons> {
    let new = |name: &String| candidates.iter().any(|candidate| candidate.module.name == *name);
    let there = manifest.modules.iter().filter(|module| !new(&module.name));
    let there = there.map(|module| (PathBuf::new(), module.name.clone(), module.interface.clone()));
    let added = candidates.iter().map(|it| (it.path.clone(), it.module.name.clone(), it.module.agreement()));
    let (mut engine, mut patches) = (None, Vec::new());
    for (path, name, interface) in there.chain(added) {
        match interface {
            Some(interface) if name == ENGINE => engine = Some(interface),
            Some(interface) => patches.push((path, name, interface)),
            None => {}
        }
    }
    let release = || release.to_owned();
    let wrong = |(path, name, built_for): (PathBuf, String, String)| match engine.clone() {
        None => Some((path, InstallError::NoEngine { name, release: release() })),
        Some(engine) if engine == built_for || engine.is_empty() || built_for.is_empty() => None,
        Some(engine) => {
            Some((path, InstallError::EngineDiffers { name, built_for, release: release(), engine }))
        }
    };
    let reasons: Reasons = patches.into_iter().filter_map(wrong).collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// Checks that what is left of a set does not need what goes of it.
pub(crate) fn check_left(installed: &[Module], names: &[String]) -> Result<(), InstallError> {
    let goes = |module: &Module| names.contains(&module.name);
    let needing = installed.iter().filter(|module| module.needs_engine() && !goes(module));
    let needing: Vec<String> = needing.map(|module| module.name.clone()).collect();
    if needing.is_empty() || !installed.iter().any(|module| module.is_engine() && goes(module)) {
        return Ok(());
    }
    Err(InstallError::EngineNeeded(needing))
}

/// Takes modules out of a set, and with the last patch that needs it the engine.
pub(crate) fn take_out(manifest: &mut Manifest, names: &[String]) {
    let goes = |module: &Module| names.contains(&module.name);
    let needed = manifest.modules.iter().any(|module| goes(module) && module.needs_engine());
    manifest.modules.retain(|module| !goes(module));
    if needed && !manifest.modules.iter().any(Module::needs_engine) {
        manifest.modules.retain(|module| !module.is_engine());
    }
}
