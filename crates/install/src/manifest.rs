//! The manifest: what is loaded when one kernel boots.

use crate::crash::Held;
use crate::error::InstallError;
use crate::folder::{Folder, NEW};
use kmend_live::{Candidate, ENGINE, check_name};
use serde::{Deserialize, Serialize};

/// The manifest's file.
pub(crate) const MANIFEST: &str = "installed.json";
/// The version of its shape: it grows when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;
/// More than a manifest of a thousand modules, in bytes.
const LARGEST: u64 = 1 << 20;
/// Hexadecimal digits of a SHA-256.
const DIGITS: usize = 64;

/// A livepatch that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its module's name.
    pub name: String,
    /// The SHA-256 of the module, in hexadecimal, which names its file.
    pub sha256: String,
    /// The build id of the kernel that it was matched with, if it says.
    pub build_id: Option<String>,
    /// Whether it takes the place of all livepatches before it, if that can be read.
    pub replace: Option<bool>,
    /// Of the consistency engine and its patches: the id of what they must agree on, empty if they do not say. `None` for what
    /// the kernel's own livepatch loads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// What it fixes, as whoever built it said.
    pub fixes: Vec<String>,
    /// When it was installed: UTC, as RFC 3339 has it.
    pub installed: String,
    /// Why it is not loaded at boot; `None` if it is.
    pub held: Option<Held>,
}

impl Module {
    pub(crate) fn new(candidate: &Candidate, now: String) -> Module {
        let module = &candidate.module;
        Module {
            name: module.name.clone(),
            sha256: candidate.sha256.clone(),
            build_id: module.build_id.clone(),
            replace: module.replace,
            interface: module.agreement(),
            fixes: module.fixes.clone(),
            installed: now,
            held: None,
        }
    }

    /// Whether it is the consistency engine itself.
    pub fn is_engine(&self) -> bool {
        self.name == ENGINE
    }

    /// Whether it is a patch for the consistency engine.
    pub fn needs_engine(&self) -> bool {
        self.interface.is_some() && !self.is_engine()
    }

    /// The name of its file.
    pub(crate) fn file(&self) -> String {
        format!("{}.ko", self.sha256)
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    schema: u32,
    pub(crate) modules: Vec<Module>,
}

impl Default for Manifest {
    fn default() -> Self {
        Manifest { schema: SCHEMA, modules: Vec::new() }
    }
}

impl Manifest {
    /// Reads the manifest of a kernel's folder; an empty one if there is none.
    pub(crate) fn read(folder: &Folder) -> Result<Manifest, InstallError> {
        match folder.read(MANIFEST, LARGEST)? {
            None => Ok(Manifest::default()),
            Some(bytes) => Manifest::parse(&bytes)
                .map_err(|why| InstallError::Damaged { path: folder.path().join(MANIFEST), why }),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Manifest, String> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let version: Version = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if version.schema != SCHEMA {
            return Err(format!("its schema is {}, and this kmend knows {SCHEMA}", version.schema));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        for (number, module) in manifest.modules.iter().enumerate() {
            check_name(&module.name).map_err(|error| error.to_string())?;
            if !is_hash(&module.sha256) {
                return Err(format!("{} has no SHA-256", module.name));
            }
            if manifest.modules.iter().take(number).any(|other| other.name == module.name) {
                return Err(format!("{} is there twice", module.name));
            }
        }
        Ok(manifest)
    }

    /// Writes it, and removes the files that it does not name.
    pub(crate) fn write(&self, folder: &Folder) -> Result<(), InstallError> {
        let path = || folder.path().join(MANIFEST);
        if self.modules.is_empty() {
            folder.remove(MANIFEST)?;
            folder.flush()?;
        } else {
            let text = serde_json::to_vec_pretty(self)
                .map_err(|error| InstallError::io(&path(), std::io::Error::other(error)))?;
            folder.write(MANIFEST, &text)?;
        }
        self.sweep(folder)
    }

    /// Removes what a killed process may have left: nothing else has such names.
    pub(crate) fn sweep(&self, folder: &Folder) -> Result<(), InstallError> {
        for name in folder.names()? {
            let module = name.strip_suffix(".ko").is_some_and(is_hash);
            let named = self.modules.iter().any(|known| known.file() == name);
            if name == NEW || module && !named {
                folder.remove(&name)?;
            }
        }
        Ok(())
    }

    pub(crate) fn module(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|module| module.name == name)
    }
}

/// Where the last livepatch of a set is that takes the place of those before it at boot. They are all for the kernel's own
/// livepatch, or all for the consistency engine: neither replaces what the other loads.
pub(crate) fn last_replacing(modules: &[&Module]) -> Option<usize> {
    modules.iter().rposition(|module| module.replace == Some(true) && module.held.is_none())
}

fn is_hash(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Checks that a kernel's release names one folder and nothing else. The kernel's own limit is 64 (`__NEW_UTS_LEN`).
pub(crate) fn check_release(name: &str, release: &str) -> Result<(), InstallError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    let fine = !release.is_empty() && release.len() <= 64 && !release.starts_with('.');
    if fine && release.bytes().all(plain) {
        return Ok(());
    }
    let release = release.escape_debug().to_string();
    Err(InstallError::NoRelease { name: name.to_owned(), release })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let module = Module {
            name: "livepatch_x".into(),
            sha256: "0a".repeat(32),
            build_id: None,
            replace: Some(true),
            interface: None,
            fixes: vec!["CVE-2026-1".into()],
            installed: "2026-11-21T19:00:00Z".into(),
            held: None,
        };
        serde_json::to_vec(&Manifest { schema: SCHEMA, modules: vec![module] }).unwrap()
    }

    #[test]
    fn a_manifest_reads_back_and_a_damaged_one_is_an_error() {
        let whole = example();
        assert_eq!(Manifest::parse(&whole).unwrap().modules[0].name, "livepatch_x");
        for length in 0..whole.len() {
            assert!(Manifest::parse(&whole[..length]).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x21;
            // No panic, and never a file's name that leads elsewhere.
            if let Ok(manifest) = Manifest::parse(&changed) {
                assert!(manifest.modules.iter().all(|module| is_hash(&module.sha256)));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let text = String::from_utf8(example()).unwrap();
        let why = |from: &str, to: &str| Manifest::parse(text.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(why("\"schema\":1", "\"schema\":2"), "its schema is 2, and this kmend knows 1");
        assert!(why("livepatch_x", "../x").contains("not the name of a module"));
        assert!(why(&"0a".repeat(32), "../x").contains("has no SHA-256"));
        let module = &text[text.find("[{").unwrap() + 1..text.rfind(']').unwrap()];
        assert_eq!(why("\"modules\":[", &format!("\"modules\":[{module},")), "livepatch_x is there twice");
    }

    #[test]
    fn a_release_names_one_folder() {
        check_release("x", "6.1.0-56-cloud-amd64").unwrap();
        for release in ["", "..", ".x", "a/b", "a\nb", "a b", &"6".repeat(65)] {
            assert!(check_release("x", release).is_err(), "{release:?}");
        }
    }
}
