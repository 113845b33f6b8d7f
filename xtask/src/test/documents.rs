//! The documents name files that are there and commands that exist.

use super::Count;
use crate::narrate;
use anyhow::{Context, Result};
use kmend_process::Command;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders with documents, from the workspace's folder.
const FOLDERS: [&str; 4] = ["", "docs", "tests/patches", "tests/corpus"];

/// Checks every document. Each counts as one.
pub(super) fn check(kmend: &Path) -> Result<Count> {
    let mut manual = Manual { kmend: kmend.to_owned(), pages: BTreeMap::new() };
    let mut count = Count::default();
    for path in documents()? {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut mistakes = broken_links(&path, &text);
        mistakes.extend(other_patches(&path, &text));
        for command in commands(&text) {
            mistakes.extend(manual.mistake(&command)?);
        }
        let name = path.strip_prefix(crate::root()).unwrap_or(&path).display();
        for mistake in &mistakes {
            narrate::say(&format!("{name}: {mistake}"));
        }
        count.passed += u64::from(mistakes.is_empty());
        count.failed += u64::from(!mistakes.is_empty());
    }
    Ok(count)
}

fn documents() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in FOLDERS.map(|folder| crate::root().join(folder)) {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Links to files that are not there. Links to the web are not followed.
fn broken_links(document: &Path, text: &str) -> Vec<String> {
    let folder = document.parent().unwrap_or(Path::new("."));
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter_map(|target| target.split('#').next()).filter(|file| !file.is_empty());
    files
        .filter(|file| !file.contains("://") && !folder.join(file).exists())
        .map(|file| format!("the link to {file} leads nowhere"))
        .collect()
}

/// Patches in blocks of the kind `diff` that are not, to the letter, the file that the line before the block links to:
/// what a document shows is what the trials try.
fn other_patches(document: &Path, text: &str) -> Vec<String> {
    let folder = document.parent().unwrap_or(Path::new("."));
    let mut mistakes = Vec::new();
    let mut blocks = text.split("\n```diff\n");
    let mut before = blocks.next().unwrap_or_default();
    for block in blocks {
        let shown = block.split("\n```").next().unwrap_or_default();
        let file = before.trim_end().rsplit("](").next().and_then(|link| link.split(')').next());
        let patch = file.and_then(|file| fs::read_to_string(folder.join(file)).ok());
        // The words above a patch's diff are the trial's own.
        let is_it = patch.is_some_and(|patch| {
            patch.find("--- a/").is_some_and(|at| patch[at..].trim_end() == shown.trim_end())
        });
        if !is_it {
            mistakes.push(format!("the patch after {} is another one", file.unwrap_or("no link")));
        }
        before = block;
    }
    mistakes
}

/// The `kmend` command lines of a document: in code between backticks, and in blocks at the start of a line.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block || line.starts_with("    ") {
            let line = line.trim_start();
            let typed = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")).unwrap_or(line);
            found.extend(is_command(typed).then(|| typed.to_owned()));
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.filter(|span| is_command(span)).map(str::to_owned));
        }
    }
    found
}

/// `kmend` and a word: not a path, not a sentence's subject.
fn is_command(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("kmend ") else { return false };
    rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-')
}

/// The pages of `kmend … --help`, by subcommand.
struct Manual {
    kmend: PathBuf,
    pages: BTreeMap<Vec<String>, Option<String>>,
}

impl Manual {
    /// What is wrong with a command line: its subcommand or one of its options.
    fn mistake(&mut self, line: &str) -> Result<Option<String>> {
        // What follows a comment, a pipe or another command is not kmend's.
        let own = line.split(" #").next().unwrap_or(line);
        // `kmend help COMMAND` asks for the page of that command.
        let words: Vec<&str> = own
            .split_whitespace()
            .skip(1)
            .skip_while(|word| *word == "help")
            .take_while(|word| !"|;&".contains(word))
            .collect();
        let plain = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '|');
        let depth = if words.first() == Some(&"kernel") { 2 } else { 1 };
        let subcommand: Vec<&str> = words
            .iter()
            .take(depth)
            .take_while(plain)
            .filter(|word| !word.starts_with('-'))
            .copied()
            .collect();
        // `load|unload` names two commands.
        let (head, last) = subcommand.split_at(subcommand.len().saturating_sub(1));
        for name in last.first().map_or(vec![""], |last| last.split('|').collect()) {
            let path: Vec<String> = head
                .iter()
                .copied()
                .chain([name])
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect();
            let Some(page) = self.page(&path)? else {
                return Ok(Some(format!("`{line}`: there is no `kmend {}`", path.join(" "))));
            };
            let options = words.iter().filter_map(|word| word.strip_prefix("--"));
            for option in
                options.filter_map(|word| word.split(['=', ']', ',']).next()).filter(|word| !word.is_empty())
            {
                if !page.contains(&format!("--{option}")) {
                    return Ok(Some(format!("`{line}`: `kmend {}` has no --{option}", path.join(" "))));
                }
            }
        }
        Ok(None)
    }

    fn page(&mut self, subcommand: &[String]) -> Result<Option<String>> {
        if let Some(page) = self.pages.get(subcommand) {
            return Ok(page.clone());
        }
        let output = Command::new(&self.kmend).args(subcommand).arg("--help").output()?;
        let page = output.success.then(|| output.text());
        self.pages.insert(subcommand.to_vec(), page.clone());
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_blocks_and_between_backticks() {
        let text = "Type `kmend list`, not kmend remove.\n\n```\n$ kmend build x.patch -o out\nkmend: no\n```\n`kmend` is it.\n";
        assert_eq!(commands(text), ["kmend list", "kmend build x.patch -o out"]);
    }

    #[test]
    fn a_patch_in_a_document_is_the_one_that_is_tried() {
        let document = crate::root().join("docs/authoring.md");
        let text = fs::read_to_string(&document).unwrap();
        assert!(text.contains("\n```diff\n"));
        assert_eq!(other_patches(&document, &text), Vec::<String>::new());
        let changed = text.replacen("\n+#include <kmend.h>", "\n+#include <linux/slab.h>", 1);
        assert_eq!(other_patches(&document, &changed).len(), 1);
    }

    #[test]
    fn links_to_files_must_lead_somewhere() {
        let document = crate::root().join("README.md");
        let text = "[a](Cargo.toml) [b](https://kernel.org) [c](#part) [d](no/such.md#x)";
        assert_eq!(broken_links(&document, text), ["the link to no/such.md leads nowhere"]);
    }
}
