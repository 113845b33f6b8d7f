//! A manifest: what a livepatch is and was made from, in a JSON file beside the module that can be signed.
//!
//! It holds nothing of time and place, so the same build gives the same manifest. Its hash is of the module without
//! a signature: a module can be signed, and signed anew, on another machine without becoming another.

use crate::appended::unsigned;
use crate::error::SignError;
use crate::facts::Fact;
use crate::files::inspect;
use crate::hash::sha256;
use kmend_inspect::Inspection;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The version of the manifest's shape. It grows when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// What a livepatch is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of the kmend that made the module.
    pub kmend: String,
    /// The module.
    pub module: ManifestModule,
    /// The kernel that it is for.
    pub kernel: ManifestKernel,
    /// What it fixes, as whoever built it said.
    pub fixes: Vec<String>,
    /// The subjects of the patches that it was built from.
    pub subjects: Vec<String>,
    /// The patches, in the order they were applied.
    pub patches: Vec<ManifestPatch>,
    /// The functions that it replaces.
    pub functions: Vec<ManifestFunction>,
}

/// The module's part of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestModule {
    /// Its name, as the kernel knows it.
    pub name: String,
    /// SHA-256 of its bytes without an appended signature, in hexadecimal.
    pub sha256: String,
    /// How many bytes these are.
    pub size: u64,
    /// Whether it replaces all livepatches that are loaded before it.
    pub replace: Option<bool>,
}

/// The kernel's part of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestKernel {
    /// `uname -r`.
    pub release: String,
    /// The version of the package that its image and source are from, or `imported`.
    pub version: String,
    /// The image's build id in hexadecimal, if it has one.
    pub build_id: Option<String>,
    /// The compiler that built it, in its own words.
    pub compiler: String,
}

/// One patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPatch {
    /// The file's name.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal; of a patch that was reversed, those of the reverse.
    pub sha256: String,
}

/// One function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFunction {
    /// `vmlinux` or a module's name.
    pub object: String,
    /// Its name.
    pub name: String,
    /// Its position among the symbols of its name, counted from 1; 0 where it is unique.
    pub position: u64,
}

/// What a module does not say of itself.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The version of the kernel's package.
    pub version: &'a str,
    /// The kernel's compiler.
    pub compiler: &'a str,
    /// The patches: name and bytes.
    pub patches: &'a [(String, Vec<u8>)],
}

/// Where the manifest of a module lies unless told otherwise: `FIX.kmend.json` beside `FIX.ko`.
pub fn beside(module: &Path) -> PathBuf {
    module.with_extension("kmend.json")
}

/// Where the signature of a manifest lies: its name and `.p7s`, as `sign-file -p` names it.
pub fn signature_of(manifest: &Path) -> PathBuf {
    let mut name = OsString::from(manifest);
    name.push(".p7s");
    name.into()
}

impl Manifest {
    /// The manifest of a module, given its bytes without a signature.
    pub fn of(module: &Inspection, contents: &[u8], sources: &Sources<'_>) -> Manifest {
        let patch =
            |(name, bytes): &(String, Vec<u8>)| ManifestPatch { name: name.clone(), sha256: sha256(bytes) };
        Manifest {
            schema: SCHEMA,
            kmend: module.kmend.clone().unwrap_or_default(),
            module: ManifestModule {
                name: module.name.clone(),
                sha256: sha256(contents),
                size: contents.len() as u64,
                replace: module.replace,
            },
            kernel: ManifestKernel {
                release: module.kernel.clone(),
                version: sources.version.into(),
                build_id: module.build_id.clone(),
                compiler: sources.compiler.into(),
            },
            fixes: module.fixes.clone(),
            subjects: module.subjects.clone(),
            patches: sources.patches.iter().map(patch).collect(),
            functions: functions(module),
        }
    }

    /// The text of a module's manifest, given its bytes, signed or not.
    pub fn of_module(module: &[u8], sources: &Sources<'_>) -> Result<Vec<u8>, SignError> {
        let contents = unsigned(module)?;
        let inspection = inspect(Path::new("the module"), contents)?;
        let text = Manifest::of(&inspection, contents, sources).text();
        text.map_err(|error| SignError::Signing(error.to_string()))
    }

    /// Reads a manifest; `path` is for the error.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Manifest, SignError> {
        let because = |why: String| SignError::Manifest { path: path.into(), why };
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| because(format!("it is no manifest: {error}")))?;
        if manifest.schema == SCHEMA {
            Ok(manifest)
        } else {
            Err(because(format!("its schema is {}, and this kmend knows {SCHEMA}", manifest.schema)))
        }
    }

    /// As it is written to its file.
    pub fn text(&self) -> serde_json::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Each fact beside what the module says, and beside these patches (file names and bytes) if there are any.
    pub fn compare(&self, module: &Inspection, contents: &[u8], patches: &[(String, Vec<u8>)]) -> Vec<Fact> {
        let is = Manifest::of(module, contents, &Sources { version: "", compiler: "", patches });
        let functions = |manifest: &Manifest| {
            let mut names: Vec<String> = manifest.functions.iter().map(ManifestFunction::text).collect();
            names.sort();
            names.join(", ")
        };
        let replace = |manifest: &Manifest| match manifest.module.replace {
            Some(true) => "all livepatches before it",
            Some(false) => "nothing",
            None => "unknown",
        };
        let id = |manifest: &Manifest| manifest.kernel.build_id.clone().unwrap_or_else(|| "none".into());
        let mut facts = vec![
            Fact::compared("name", &self.module.name, &is.module.name),
            Fact::compared("sha256", &self.module.sha256, &is.module.sha256),
            Fact::compared("size", &self.module.size.to_string(), &is.module.size.to_string()),
            Fact::compared("replaces", replace(self), replace(&is)),
            Fact::compared("made by", &self.kmend, &is.kmend),
            Fact::compared("kernel", &self.kernel.release, &is.kernel.release),
            Fact::compared("build id", &id(self), &id(&is)),
            Fact::compared("fixes", &self.fixes.join(", "), &is.fixes.join(", ")),
            Fact::compared("subjects", &self.subjects.join("; "), &is.subjects.join("; ")),
            Fact::compared("functions", &functions(self), &functions(&is)),
            Fact::stated("kernel package", &self.kernel.version),
            Fact::stated("compiler", &self.kernel.compiler),
        ];
        facts.extend(self.compare_patches(&is.patches));
        facts
    }

    fn compare_patches(&self, given: &[ManifestPatch]) -> Vec<Fact> {
        let named = |patch: &ManifestPatch| format!("patch {}", patch.name);
        if given.is_empty() {
            return self.patches.iter().map(|patch| Fact::stated(&named(patch), &patch.sha256)).collect();
        }
        let found = |patch: &ManifestPatch| {
            let same = given.iter().find(|other| other.sha256 == patch.sha256);
            let found = same.or_else(|| given.iter().find(|other| other.name == patch.name));
            found.map_or("not given", |found| &found.sha256)
        };
        let stated =
            self.patches.iter().map(|patch| Fact::compared(&named(patch), &patch.sha256, found(patch)));
        let known = |patch: &&ManifestPatch| {
            self.patches.iter().any(|other| other.name == patch.name || other.sha256 == patch.sha256)
        };
        let more = given.iter().filter(|patch| !known(patch));
        stated.chain(more.map(|patch| Fact::compared(&named(patch), "not used", &patch.sha256))).collect()
    }
}

impl ManifestFunction {
    fn text(&self) -> String {
        let ManifestFunction { object, name, position } = self;
        if *position == 0 { format!("{object}:{name}") } else { format!("{object}:{name},{position}") }
    }
}

fn functions(module: &Inspection) -> Vec<ManifestFunction> {
    let of = |object: &kmend_inspect::PatchedObject| {
        let object_name = object.name.clone();
        let functions = object.functions.clone();
        functions.into_iter().map(move |function| ManifestFunction {
            object: object_name.clone(),
            name: function.name,
            position: function.position,
        })
    };
    module.objects.iter().flat_map(of).collect()
}
