//! The fixes of tests/corpus.

use crate::selfcheck::{evenly, shares};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// One fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fix {
    /// The patch's file name.
    pub(crate) file: String,
    /// What it changes, as a scanner of its text saw it: `function-only`, `header`, `struct` and so on.
    pub(crate) kind: String,
}

impl Fix {
    pub(crate) fn path(&self) -> PathBuf {
        folder().join(&self.file)
    }

    /// The file's name without `.patch`.
    pub(crate) fn name(&self) -> &str {
        self.file.strip_suffix(".patch").unwrap_or(&self.file)
    }
}

/// Where the corpus is.
pub(super) fn folder() -> PathBuf {
    crate::root().join("tests/corpus")
}

/// All fixes, in the order of their file names.
pub(crate) fn read_index() -> Result<Vec<Fix>> {
    let path = folder().join("index.tsv");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    parse(&text).with_context(|| path.display().to_string())
}

/// Reads a table of columns between tabs; the first line names them.
fn parse(text: &str) -> Result<Vec<Fix>> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let column = |name: &str| names.iter().position(|column| *column == name).context(name.to_owned());
    let (file, kind) = (column("file")?, column("kind")?);
    let fix = |line: &str| -> Result<Fix> {
        let cells: Vec<&str> = line.split('\t').collect();
        let cell = |at: usize| cells.get(at).map(|text| (*text).to_owned()).context(line.to_owned());
        Ok(Fix { file: cell(file)?, kind: cell(kind)? })
    };
    let mut fixes = lines.map(fix).collect::<Result<Vec<Fix>>>()?;
    fixes.sort_by(|one, other| one.file.cmp(&other.file));
    ensure!(fixes.windows(2).all(|pair| pair[0].file != pair[1].file), "a file is named twice");
    Ok(fixes)
}

/// `count` fixes, spread over the kinds in turn and evenly within each, so that the choice is nobody's.
pub(crate) fn sample(fixes: &[Fix], count: usize) -> Vec<Fix> {
    let mut kinds: BTreeMap<&str, Vec<&Fix>> = BTreeMap::new();
    for fix in fixes {
        kinds.entry(&fix.kind).or_default().push(fix);
    }
    let shares = shares(&kinds.values().map(Vec::len).collect::<Vec<_>>(), count);
    kinds.values().zip(shares).flat_map(|(fixes, share)| evenly(fixes, share)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fix(file: &str, kind: &str) -> Fix {
        Fix { file: file.into(), kind: kind.into() }
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let fixes = parse("cve\tkind\tfile\nx\tdata\tb.patch\n\theader\ta.patch\n").unwrap();
        assert_eq!(fixes, [fix("a.patch", "header"), fix("b.patch", "data")]);
        assert!(parse("file\na.patch\n").is_err());
        assert!(parse("file\tkind\na\tx\na\ty\n").is_err());
    }

    #[test]
    fn the_sample_has_every_kind_and_no_fix_twice() {
        let mut fixes: Vec<Fix> = (0..20).map(|n| fix(&format!("{n:02}"), "code")).collect();
        fixes.push(fix("x", "data"));
        fixes.push(fix("y", "header"));
        let chosen = sample(&fixes, 6);
        let files: Vec<&str> = chosen.iter().map(|fix| fix.file.as_str()).collect();
        assert_eq!(files, ["02", "07", "12", "17", "x", "y"]);
        assert_eq!(sample(&fixes, 100).len(), 22);
    }
}
