//! What was done: one line of JSON each, the newest last.

use crate::error::InstallError;
use crate::folder::Folder;
use crate::store::{Locked, Store, now};
use kmend_live::System;
use kmend_refusal::{Code, Coded};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::io::{Read, Seek, SeekFrom, Write};

const HISTORY: &str = "history.jsonl";
/// What was before it.
const BEFORE: &str = "history.1.jsonl";
/// From this size on, in bytes, it becomes what was before: some five thousand lines.
const LONG: u64 = 1 << 20;
/// More than is ever in one of the files.
const LARGEST: u64 = 2 * LONG;
/// The longest reason that is kept, in characters.
const LONGEST_REASON: usize = 500;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A livepatch was loaded by hand.
    Load,
    /// One was loaded at boot.
    Boot,
    /// One was unloaded.
    Unload,
    /// One was enabled again.
    Enable,
    /// One was disabled.
    Disable,
    /// A transition was forced.
    Force,
    /// One was installed.
    Install,
    /// One was taken out of the set.
    Uninstall,
    /// One is held: the machine went down with it.
    Hold,
    /// The machine went down with one that is not installed.
    WentDown,
    /// One is held no longer.
    Release,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// Its transition was turned around.
    Reversed,
    /// Its transition was left to the kernel, which goes on with it.
    Left,
    /// It was not done.
    Failed,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When: UTC, as RFC 3339 has it.
    pub at: String,
    /// In which boot, by its id.
    pub boot: Option<String>,
    /// For which kernel.
    pub release: Option<String>,
    /// What.
    pub event: Event,
    /// The livepatch.
    pub livepatch: String,
    /// The SHA-256 of its module, where it is known.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The parameters that its module was given.
    #[serde(default)]
    pub parameters: Vec<String>,
    /// The model by which kmend's consistency engine switched it, if that did.
    #[serde(default)]
    pub model: Option<String>,
    /// The codes of the refusals that were overridden.
    #[serde(default)]
    pub despite: Vec<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// The code of the error, if there was one.
    #[serde(default)]
    pub code: Option<String>,
    /// Its first line, or what else is to be said.
    #[serde(default)]
    pub why: Option<String>,
}

impl Record {
    pub(crate) fn new(event: Event, livepatch: &str, outcome: Outcome) -> Record {
        Record {
            at: now(),
            boot: None,
            release: None,
            event,
            livepatch: livepatch.to_owned(),
            sha256: None,
            parameters: Vec::new(),
            model: None,
            despite: Vec::new(),
            outcome,
            code: None,
            why: None,
        }
    }

    /// The same for something that may have failed.
    pub(crate) fn of<T, E: Coded + Display>(event: Event, livepatch: &str, result: &Result<T, E>) -> Record {
        let Err(error) = result else { return Record::new(event, livepatch, Outcome::Done) };
        let code = error.code();
        let outcome = match code {
            Code::TransitionReversed => Outcome::Reversed,
            Code::TransitionStalled | Code::Interrupted => Outcome::Left,
            _ => Outcome::Failed,
        };
        let text = error.to_string();
        let why = text.lines().next().map(|line| line.chars().take(LONGEST_REASON).collect());
        Record { code: Some(code.name().to_owned()), why, ..Record::new(event, livepatch, outcome) }
    }
}

/// What was done, oldest first.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// The lines.
    pub records: Vec<Record>,
    /// How many lines could not be read: one that a power failure tore, or that a newer kmend wrote.
    pub unreadable: usize,
}

impl Store {
    /// What was done, as far as it is kept.
    pub fn history(&self) -> Result<History, InstallError> {
        let mut history = History::default();
        let Some(folder) = self.folder()? else { return Ok(history) };
        for name in [BEFORE, HISTORY] {
            let bytes = folder.read(name, LARGEST)?.unwrap_or_default();
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                match serde_json::from_slice(line) {
                    Ok(record) => history.records.push(record),
                    Err(_) => history.unreadable += 1,
                }
            }
        }
        Ok(history)
    }
}

/// Adds what was done in this boot, for a kernel.
pub(crate) fn keep(
    locked: &Locked,
    system: &System,
    release: Option<String>,
    record: Record,
) -> Result<(), InstallError> {
    append(locked, &Record { boot: system.boot_id(), release, ..record })
}

/// Adds a line.
pub(crate) fn append(locked: &Locked, record: &Record) -> Result<(), InstallError> {
    let folder = &locked.folder;
    let path = folder.path().join(HISTORY);
    let io = |error| InstallError::io(&path, error);
    let mut line = serde_json::to_vec(record).map_err(|error| io(std::io::Error::other(error)))?;
    line.push(b'\n');
    let mut file = rotated(folder)?;
    // A line that a power failure tore must not swallow this one.
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1)).map_err(io)?;
        let mut last = [0];
        file.read_exact(&mut last).map_err(io)?;
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
    }
    file.write_all(&line).and_then(|()| file.sync_data()).map_err(io)
}

/// The file, after what has become long was put aside.
fn rotated(folder: &Folder) -> Result<std::fs::File, InstallError> {
    let file = folder.append(HISTORY)?;
    let length = file.metadata().map_err(|error| InstallError::io(folder.path(), error))?.len();
    if length < LONG {
        return Ok(file);
    }
    folder.rename(HISTORY, BEFORE)?;
    folder.append(HISTORY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn record(name: &str) -> Record {
        Record::new(Event::Load, name, Outcome::Done)
    }

    #[test]
    fn lines_are_read_back_and_a_torn_one_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::at(root.path());
        assert_eq!(store.history().unwrap(), History::default());
        append(&store.lock().unwrap(), &record("a\nb")).unwrap();
        let path = root.path().join("var/lib/kmend/history.jsonl");
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(br#"{"at":"2026-1"#);
        fs::write(&path, text).unwrap();
        append(&store.lock().unwrap(), &record("c")).unwrap();
        let history = store.history().unwrap();
        let names: Vec<&str> = history.records.iter().map(|record| record.livepatch.as_str()).collect();
        assert_eq!((names, history.unreadable), (vec!["a\nb", "c"], 1));
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::at(root.path());
        append(&store.lock().unwrap(), &record("first")).unwrap();
        let path = root.path().join("var/lib/kmend/history.jsonl");
        let line = fs::read(&path).unwrap();
        fs::write(&path, line.repeat(LONG as usize / line.len() + 1)).unwrap();
        append(&store.lock().unwrap(), &record("last")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert_eq!(store.history().unwrap().records.last().unwrap().livepatch, "last");
    }

    #[test]
    fn an_error_is_kept_with_its_code_and_first_line() {
        let error: Result<(), InstallError> = Err(InstallError::NotHeld("x".into()));
        let record = Record::of(Event::Release, "x", &error);
        assert_eq!((record.outcome, record.code.as_deref()), (Outcome::Failed, Some("KM0739")));
        assert_eq!(record.why.as_deref(), Some("x is not held"));
    }
}
