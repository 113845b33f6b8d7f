//! The patches of tests/patches with what each must do.

use super::expectation::{ExpectedRefusal, Test};
use anyhow::{Context, Result, bail, ensure};
use kmend_compile::PatchFile;
use std::fs;
use std::path::{Path, PathBuf};

/// What a patch must do.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// It becomes a livepatch that does this in a guest.
    Works(Box<Test>),
    /// It is refused with all of these.
    Refused(Vec<ExpectedRefusal>),
    /// It changes nothing, for these reasons.
    Nothing(Vec<String>),
}

/// A patch file's name and bytes, as a build takes them.
pub(crate) type Patch = (String, Vec<u8>);

/// One patch of the folder with what it must do.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The file's name without `.patch`.
    pub(crate) name: String,
    /// The patch.
    pub(crate) patch: Patch,
    /// The same change for the other source.
    pub(crate) alternative: Option<Patch>,
    /// Patches of the same build.
    pub(crate) with: Vec<Patch>,
    /// What it must do.
    pub(crate) expected: Expected,
}

impl Case {
    /// Whether it becomes a livepatch.
    pub(crate) fn works(&self) -> bool {
        matches!(self.expected, Expected::Works(_))
    }

    /// The patches of its build, and those for the other source.
    pub(crate) fn sources(&self) -> Vec<Vec<PatchFile>> {
        let sources = std::iter::once(&self.patch).chain(&self.alternative);
        sources.map(|patch| self.patches(patch)).collect()
    }

    /// What its build is given, with one of its two patches.
    pub(crate) fn patches(&self, patch: &Patch) -> Vec<PatchFile> {
        let (depth, fuzz) = match &self.expected {
            Expected::Works(test) => (test.depth, test.fuzz),
            _ => (None, 0),
        };
        let given = std::iter::once(patch).chain(&self.with);
        given.map(|(name, bytes)| PatchFile { depth, fuzz, ..PatchFile::new(name, bytes.clone()) }).collect()
    }

    /// Whether it may come to something else on another kernel.
    pub(crate) fn differs(&self) -> bool {
        let or_refused = matches!(&self.expected, Expected::Works(test) if !test.or_refused.is_empty());
        or_refused || self.alternative.is_some()
    }
}

/// Reads all cases, in the order of their names.
pub(crate) fn read_cases(folder: &Path) -> Result<Vec<Case>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = file.strip_suffix(".patch").filter(|name| !has_suffix(name, "alt")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    names.iter().map(|name| read_case(folder, name).with_context(|| format!("the trial {name}"))).collect()
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == suffix)
}

fn read_case(folder: &Path, name: &str) -> Result<Case> {
    let beside = |end: &str| -> PathBuf { folder.join(format!("{name}.{end}")) };
    let patch = read_patch(&beside("patch"))?;
    let alternative = Some(beside("alt.patch")).filter(|path| path.exists());
    let found: Vec<&str> =
        ["test", "refuse", "nothing"].into_iter().filter(|end| beside(end).exists()).collect();
    let expected = match found[..] {
        ["test"] => {
            let text = fs::read_to_string(beside("test"))?;
            Expected::Works(Box::new(Test::parse(&text).map_err(anyhow::Error::msg)?))
        }
        ["refuse"] => {
            let lines = ExpectedRefusal::parse_all(&fs::read_to_string(beside("refuse"))?);
            ensure!(!lines.is_empty(), "{name}.refuse names no code");
            Expected::Refused(lines)
        }
        ["nothing"] => {
            let text = fs::read_to_string(beside("nothing"))?;
            Expected::Nothing(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
        }
        _ => bail!("it needs exactly one of .test, .refuse and .nothing, and has {found:?}"),
    };
    let with = match &expected {
        Expected::Works(test) => {
            let read = |name: &String| read_patch(&folder.join(format!("{name}.patch")));
            test.with.iter().map(read).collect::<Result<_>>()?
        }
        _ => Vec::new(),
    };
    let alternative = alternative.as_deref().map(read_patch).transpose()?;
    Ok(Case { name: name.to_owned(), patch, alternative, with, expected })
}

pub(crate) fn read_patch(path: &Path) -> Result<Patch> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_the_folder_is_understood() {
        let cases = read_cases(&crate::root().join("tests/patches")).unwrap();
        assert!(cases.iter().any(|case| matches!(case.expected, Expected::Works(_))));
        assert!(cases.iter().any(|case| case.alternative.is_some()));
        assert!(cases.iter().all(|case| !case.patch.1.is_empty()));
    }

    #[test]
    fn a_patch_without_an_expectation_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.patch"), "x").unwrap();
        let error = format!("{:#}", read_cases(folder.path()).unwrap_err());
        assert!(error.contains("the trial x") && error.contains("exactly one"), "{error}");
    }
}
