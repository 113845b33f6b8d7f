//! A kernel in the cache, and the record of it in `kernel.json`.

use crate::disk;
use crate::error::StoreError;
use crate::files;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The record's file name in the kernel's folder.
const RECORD: &str = "kernel.json";
/// The folder beside it for what other stages derive.
const DERIVED: &str = "derived";
/// Changes when a record of an older kmend can no longer be used.
const LAYOUT: u32 = 1;

/// Where a kernel in the cache came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "from")]
pub enum Origin {
    /// Debian's packages.
    Debian {
        /// The source package, such as `linux`.
        source: String,
        /// The binary packages it was unpacked from, as `NAME=VERSION`.
        packages: Vec<String>,
    },
    /// Folders and files of the user's own, which stay where they are.
    Imported,
}

/// One kernel to build for. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// `uname -r` of the kernel, such as `6.1.0-56-cloud-amd64`.
    pub release: String,
    /// The version of the source package it was built from, such as `6.1.192-2`; or `imported`.
    pub version: String,
    /// The kernel's folder in the cache.
    #[serde(skip)]
    pub root: PathBuf,
    /// The pristine kernel source tree. Nobody writes to it.
    pub source: PathBuf,
    /// The folder in which `make -C HEADERS M=DIR modules` builds a module for this kernel.
    pub headers: PathBuf,
    /// The folder with the kernel's own `scripts` and `tools` programs (objtool, modpost, sign-file).
    pub kbuild: PathBuf,
    /// The configuration the kernel was built with.
    pub config: PathBuf,
    /// The bootable image, or an ELF vmlinux.
    pub image: PathBuf,
    /// The folder of the kernel's modules, `…/lib/modules/RELEASE`. An imported kernel may have none.
    pub modules: PathBuf,
    /// `Module.symvers`: exports and their CRCs.
    pub symvers: PathBuf,
    /// The compiler's program, such as `gcc-12`.
    pub compiler: String,
    /// `CONFIG_CC_VERSION_TEXT`: what that compiler's `--version` begins with.
    pub compiler_text: String,
    /// Where it came from.
    pub origin: Origin,
}

#[derive(Serialize, Deserialize)]
struct Record {
    layout: u32,
    kernel: Kernel,
}

impl Kernel {
    /// The folder for what other stages derive from this kernel and keep (the prepared tree, the compile
    /// database, original objects). It is there, and is removed with the kernel.
    pub fn derived(&self) -> PathBuf {
        self.root.join(DERIVED)
    }

    /// Every path of the record with what it is, for checks.
    fn paths(&mut self) -> [(&'static str, &mut PathBuf); 7] {
        [
            ("source", &mut self.source),
            ("headers", &mut self.headers),
            ("kbuild", &mut self.kbuild),
            ("configuration", &mut self.config),
            ("image", &mut self.image),
            ("modules", &mut self.modules),
            ("Module.symvers", &mut self.symvers),
        ]
    }

    /// The first part that is not there, and its path. Modules are none: an imported kernel may lack them.
    pub(crate) fn missing(&mut self) -> Option<(&'static str, PathBuf)> {
        let imported = self.origin == Origin::Imported;
        self.paths()
            .into_iter()
            .filter(|(what, _)| !(imported && *what == "modules"))
            .find(|(_, path)| !path.exists())
            .map(|(what, path)| (what, path.clone()))
    }

    /// Writes the record into the kernel's folder, whose final name may differ: paths inside the folder
    /// are stored relative to it.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), StoreError> {
        let mut kernel = self.clone();
        for (_, path) in kernel.paths() {
            if let Ok(inside) = path.strip_prefix(&self.root) {
                *path = inside.to_owned();
            }
        }
        files::make_folder(&folder.join(DERIVED))?;
        let path = folder.join(RECORD);
        let text = serde_json::to_vec_pretty(&Record { layout: LAYOUT, kernel })
            .map_err(|error| StoreError::Damaged { path: path.clone(), why: error.to_string() })?;
        files::write(&path, &text)
    }

    /// Reads the record in a kernel's folder and makes sure that the parts are there.
    pub(crate) fn load(root: &Path) -> Result<Self, StoreError> {
        let path = root.join(RECORD);
        let damaged = |why: String| StoreError::Damaged { path: path.clone(), why };
        if !path.exists() {
            return Err(damaged("the kernel's record is missing".into()));
        }
        let record: Record =
            serde_json::from_str(&files::read_text(&path)?).map_err(|error| damaged(error.to_string()))?;
        if record.layout != LAYOUT {
            return Err(damaged(format!(
                "written by another kmend (layout {}, not {LAYOUT})",
                record.layout
            )));
        }
        let mut kernel = record.kernel;
        root.clone_into(&mut kernel.root);
        if root.file_name().is_none_or(|name| name != kernel.release.as_str()) {
            return Err(damaged(format!("the record is of kernel {}", kernel.release)));
        }
        for (_, path) in kernel.paths() {
            // An absolute path stays as it is when joined.
            *path = root.join(&path);
        }
        match kernel.missing() {
            Some((what, missing)) => Err(damaged(format!("its {what} is missing: {}", missing.display()))),
            None => Ok(kernel),
        }
    }
}

/// Bytes on disk of what the cache holds of a kernel, with all that was derived from it. The folders that
/// an imported kernel refers to are not the cache's and not counted.
pub fn sizes(kernel: &Kernel) -> u64 {
    disk::used(&kernel.root)
}
