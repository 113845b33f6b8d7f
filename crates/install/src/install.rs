//! Changing the set: install, uninstall, release.

use crate::engine;
use crate::error::InstallError;
use crate::folder::Folder;
use crate::history::{self, Event, Outcome, Record};
use crate::manifest::{Manifest, Module, check_release};
use crate::store::{Locked, Store, now};
use kmend_live::{Candidate, LiveError, System, conflicts_in_order};
use rustix::fs::{Advice, fadvise};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

/// A livepatch that was, or would be, installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstalledPatch {
    /// Its name.
    pub name: String,
    /// The kernel.
    pub release: String,
    /// The SHA-256 of its module.
    pub sha256: String,
    /// Whether it took the place of other contents.
    pub overwrites: bool,
}

/// What became of the files.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Installs {
    /// What was, or would be, installed, in order.
    pub installed: Vec<InstalledPatch>,
    /// What was there before, with the same contents.
    pub unchanged: Vec<String>,
    /// What is to be known.
    pub notes: Vec<String>,
}

impl Store {
    /// Opens and checks modules that shall be installed, by kernel. All the reasons against it.
    fn candidates(system: &System, paths: &[PathBuf]) -> Result<BTreeMap<String, Vec<Candidate>>, Reasons> {
        let (mut candidates, mut reasons) = (BTreeMap::<String, Vec<Candidate>>::new(), Vec::new());
        for path in paths {
            let about = |error: InstallError| (path.clone(), error);
            let mut candidate = match Candidate::open(path) {
                Ok(candidate) => candidate,
                Err(errors) => {
                    reasons.extend(errors.into_iter().map(|error| about(error.into())));
                    continue;
                }
            };
            // What would be refused at boot is refused now.
            if let Err(error) = system.vouch(&mut candidate) {
                reasons.push(about(error.into()));
                continue;
            }
            let module = &candidate.module;
            if let Err(error) = check_release(&module.name, &module.kernel) {
                reasons.push(about(error));
                continue;
            }
            let release = module.kernel.clone();
            let beside = candidates.entry(release.clone()).or_default();
            match beside.iter().find(|other| other.module.name == module.name) {
                None => beside.push(candidate),
                Some(same) if same.sha256 == candidate.sha256 => {}
                Some(_) => {
                    let name = module.name.clone();
                    reasons.push(about(InstallError::OtherContents { name, release }));
                }
            }
        }
        if reasons.is_empty() { Ok(candidates) } else { Err(reasons) }
    }

    /// Installs modules, each for the kernel that it is for, behind those that are installed. One of a name that is
    /// installed with other contents is refused, or takes its place (`overwrite`). For each kernel all are
    /// installed or none.
    pub fn install(&self, system: &System, paths: &[PathBuf], overwrite: bool) -> Result<Installs, Reasons> {
        let candidates = Store::candidates(system, paths)?;
        let locked = self.lock_judged(system).map_err(reason(paths))?;
        let manifests = read_all(&locked.folder, &candidates).map_err(reason(paths))?;
        // What a killed change has left goes, even if there is nothing else to do.
        sweep(&locked.folder, candidates.keys().zip(&manifests)).map_err(reason(paths))?;
        let installs = self.plan(system, &candidates, &manifests, overwrite)?;
        for ((release, candidates), manifest) in candidates.iter().zip(manifests) {
            commit(&locked, system, release, candidates, manifest).map_err(reason(paths))?;
        }
        Ok(installs)
    }

    /// What `install` would do.
    pub fn would_install(
        &self,
        system: &System,
        paths: &[PathBuf],
        overwrite: bool,
    ) -> Result<Installs, Reasons> {
        let candidates = Store::candidates(system, paths)?;
        let manifests = match self.folder().map_err(reason(paths))? {
            None => candidates.keys().map(|_| Manifest::default()).collect(),
            Some(folder) => read_all(&folder, &candidates).map_err(reason(paths))?,
        };
        self.plan(system, &candidates, &manifests, overwrite)
    }

    /// What is to be done, or why not.
    fn plan(
        &self,
        system: &System,
        candidates: &BTreeMap<String, Vec<Candidate>>,
        manifests: &[Manifest],
        overwrite: bool,
    ) -> Result<Installs, Reasons> {
        let mut installs = plan(system, candidates, manifests, overwrite)?;
        for ((release, candidates), manifest) in candidates.iter().zip(manifests) {
            engine::check_set(release, candidates, manifest)?;
        }
        for ((release, candidates), manifest) in candidates.iter().zip(manifests) {
            let refused = self.conflicts(release, manifest, candidates);
            installs.notes.extend(refused.iter().map(|why| format!("at boot it would be refused: {why}")));
        }
        Ok(installs)
    }

    /// Which of the set of a kernel would be refused at boot, because they undo what others do. What cannot be read is told
    /// at boot.
    fn conflicts(&self, release: &str, manifest: &Manifest, candidates: &[Candidate]) -> Vec<LiveError> {
        let new = |name: &String| candidates.iter().find(|candidate| candidate.module.name == *name);
        let open = |module: &Module| {
            Candidate::open(&self.path().join(release).join(module.file())).map(|candidate| candidate.module)
        };
        let there = manifest.modules.iter().filter_map(|module| match new(&module.name) {
            Some(candidate) => Some(candidate.module.clone()),
            None => open(module).ok(),
        });
        let added = candidates.iter().filter(|candidate| manifest.module(&candidate.module.name).is_none());
        let mut set: Vec<_> = there.chain(added.map(|candidate| candidate.module.clone())).collect();
        // As they are loaded.
        set.sort_by_key(|module| module.engine.is_some());
        conflicts_in_order(&set)
    }

    /// Takes livepatches out of the set of a kernel: all of them, or none if one is not there.
    pub fn uninstall(
        &self,
        system: &System,
        release: &str,
        names: &[String],
    ) -> Result<(), Vec<InstallError>> {
        let locked = self.lock_judged(system).map_err(|error| vec![error])?;
        self.would_uninstall(release, names)?;
        let edit = |manifest: &mut Manifest| engine::take_out(manifest, names);
        change(&locked, system, release, edit, (Event::Uninstall, names)).map_err(|error| vec![error])
    }

    /// Checks that livepatches are in the set of a kernel, and what is left in it does not need them.
    pub fn would_uninstall(&self, release: &str, names: &[String]) -> Result<(), Vec<InstallError>> {
        let installed = self.all_installed(release, names)?;
        engine::check_left(&installed, names).map_err(|error| vec![error])
    }

    /// The set of a kernel, if these are all in it.
    fn all_installed(&self, release: &str, names: &[String]) -> Result<Vec<Module>, Vec<InstallError>> {
        let installed = self.installed(release).map_err(|error| vec![error])?;
        let missing = names.iter().filter(|name| !installed.iter().any(|module| module.name == **name));
        let errors: Vec<InstallError> = missing.map(|name| self.not_installed(release, name)).collect();
        if errors.is_empty() { Ok(installed) } else { Err(errors) }
    }

    /// Lets held livepatches be loaded at boot again.
    pub fn release(&self, system: &System, release: &str, names: &[String]) -> Result<(), Vec<InstallError>> {
        let locked = self.lock_judged(system).map_err(|error| vec![error])?;
        self.would_release(release, names)?;
        let edit = |manifest: &mut Manifest| {
            for module in manifest.modules.iter_mut().filter(|module| names.contains(&module.name)) {
                module.held = None;
            }
        };
        change(&locked, system, release, edit, (Event::Release, names)).map_err(|error| vec![error])
    }

    /// Checks that livepatches are in the set and held.
    pub fn would_release(&self, release: &str, names: &[String]) -> Result<(), Vec<InstallError>> {
        let installed = self.all_installed(release, names)?;
        let free = installed.iter().filter(|module| names.contains(&module.name) && module.held.is_none());
        let errors: Vec<InstallError> =
            free.map(|module| InstallError::NotHeld(module.name.clone())).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Reasons, each with the file that it is about.
pub type Reasons = Vec<(PathBuf, InstallError)>;

/// A reason that is not about one of the files is about them all.
fn reason(paths: &[PathBuf]) -> impl Fn(InstallError) -> Reasons {
    let first = match paths {
        [only] => only.clone(),
        _ => PathBuf::new(),
    };
    move |error| vec![(first.clone(), error)]
}

fn read_all(
    own: &Folder,
    candidates: &BTreeMap<String, Vec<Candidate>>,
) -> Result<Vec<Manifest>, InstallError> {
    let read = |release: &String| match own.folder(release)? {
        Some(folder) => Manifest::read(&folder),
        None => Ok(Manifest::default()),
    };
    candidates.keys().map(read).collect()
}

/// Removes what the manifests of kernels do not name.
fn sweep<'a>(
    own: &Folder,
    manifests: impl Iterator<Item = (&'a String, &'a Manifest)>,
) -> Result<(), InstallError> {
    for (release, manifest) in manifests {
        if let Some(folder) = own.folder(release)? {
            manifest.sweep(&folder)?;
        }
    }
    Ok(())
}

/// What is to be done with each module, or why not.
fn plan(
    system: &System,
    candidates: &BTreeMap<String, Vec<Candidate>>,
    manifests: &[Manifest],
    overwrite: bool,
) -> Result<Installs, Reasons> {
    let (mut installs, mut reasons) = (Installs::default(), Vec::new());
    let running = system.release().ok();
    for ((release, candidates), manifest) in candidates.iter().zip(manifests) {
        if running.as_ref() != Some(release) {
            let running = running.as_deref().unwrap_or("another kernel");
            installs.notes.push(format!("{running} is running; {release} loads them when it boots"));
        }
        for candidate in candidates {
            let name = candidate.module.name.clone();
            let sha256 = candidate.sha256.clone();
            let there = manifest.module(&name);
            match there {
                Some(module) if module.sha256 == sha256 => {
                    if let Some(held) = &module.held {
                        installs.notes.push(format!("{name} is held: {}", held.why()));
                    }
                    installs.unchanged.push(name);
                }
                Some(_) if !overwrite => {
                    let release = release.clone();
                    reasons.push((candidate.path.clone(), InstallError::OtherContents { name, release }));
                }
                there => {
                    let (release, overwrites) = (release.clone(), there.is_some());
                    installs.installed.push(InstalledPatch { name, release, sha256, overwrites });
                }
            }
        }
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    if installs.installed.is_empty() && installs.notes.is_empty() {
        let all = installs.unchanged.join(", ");
        return Err(vec![(PathBuf::new(), InstallError::AlreadyInstalled(all))]);
    }
    Ok(installs)
}

/// Changes a kernel's set, and keeps what was done to which livepatches.
fn change(
    locked: &Locked,
    system: &System,
    release: &str,
    edit: impl FnOnce(&mut Manifest),
    (event, names): (Event, &[String]),
) -> Result<(), InstallError> {
    let folder = locked.folder.make_folder(release)?;
    let mut manifest = Manifest::read(&folder)?;
    edit(&mut manifest);
    manifest.write(&folder)?;
    if manifest.modules.is_empty() {
        locked.folder.remove_folder(release)?;
    }
    for name in names {
        note(locked, system, release, Record::new(event, name, Outcome::Done));
    }
    Ok(())
}

/// Installs the modules of one kernel. What could not be finished is removed.
fn commit(
    locked: &Locked,
    system: &System,
    release: &str,
    candidates: &[Candidate],
    manifest: Manifest,
) -> Result<(), InstallError> {
    let folder = locked.folder.make_folder(release)?;
    let records = write(&folder, candidates, manifest).inspect_err(|_| {
        // The next change does it, if this cannot.
        let _ = Manifest::read(&folder).and_then(|manifest| manifest.sweep(&folder));
        let _ = locked.folder.remove_folder(release);
    })?;
    for record in records {
        note(locked, system, release, record);
    }
    Ok(())
}

/// Writes modules, then the manifest that names them. Says what was done.
fn write(
    folder: &Folder,
    candidates: &[Candidate],
    mut manifest: Manifest,
) -> Result<Vec<Record>, InstallError> {
    let mut records = Vec::new();
    for candidate in candidates {
        let module = Module::new(candidate, now());
        let there = manifest.modules.iter_mut().find(|other| other.name == module.name);
        if there.as_ref().is_some_and(|there| there.sha256 == module.sha256) {
            continue;
        }
        write_module(folder, candidate, &module.file())?;
        let mut record = Record::new(Event::Install, &module.name, Outcome::Done);
        record.sha256 = Some(module.sha256.clone());
        records.push(record);
        match there {
            Some(there) => *there = module,
            None => manifest.modules.push(module),
        }
    }
    if !records.is_empty() {
        manifest.write(folder)?;
    }
    Ok(records)
}

/// Writes a module, and reads back what the disk has of it.
fn write_module(folder: &Folder, candidate: &Candidate, name: &str) -> Result<(), InstallError> {
    let path = folder.path().join(name);
    let io = |error| InstallError::io(&path, error);
    folder.put(name, |file| {
        file.write_all(candidate.bytes()).and_then(|()| file.sync_all()).map_err(io)?;
        // What the kernel still has of it in memory would be compared with itself; whether it listens is its own concern.
        let _ = fadvise(&*file, 0, None, Advice::DontNeed);
        file.rewind().map_err(io)?;
        if digest(file).map_err(io)? == candidate.sha256 {
            Ok(())
        } else {
            Err(InstallError::CopyDiffers(path.clone()))
        }
    })
}

/// The SHA-256 of a file from where it stands, in hexadecimal.
pub(crate) fn digest(file: &mut File) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(hex::encode(hash.finalize()))
}

/// Keeps what was done. It was done, whether it can be kept or not.
fn note(locked: &Locked, system: &System, release: &str, record: Record) {
    let _ = history::keep(locked, system, Some(release.to_owned()), record);
}

#[cfg(test)]
mod tests;
