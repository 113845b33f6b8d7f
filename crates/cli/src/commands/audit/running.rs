//! `kmend audit --running`

use super::read_module;
use crate::failure::{End, Failure};
use crate::output::{self, Output};
use crate::style::{GREEN, RED, paint};
use kmend_build::{Machine, MachineError, RefusalReport, Running};
use kmend_explain::visible;
use kmend_install::Store;
use kmend_live::System;
use kmend_refusal::Code;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What was found in memory.
#[derive(Serialize)]
pub(in crate::commands) struct Document {
    right: bool,
    livepatches: Vec<Livepatch>,
    /// Livepatches that are loaded, and of which no file is installed.
    not_compared: Vec<String>,
}

#[derive(Serialize)]
struct Livepatch {
    name: String,
    #[serde(flatten)]
    running: Running,
    refusals: Vec<RefusalReport>,
}

/// Compares one livepatch, or all that are installed and loaded, and shows what was found.
pub(super) fn run(module: Option<&Path>, output: &mut Output) -> Result<End, Failure> {
    let system = System::running();
    let document = match module {
        Some(path) => {
            let name = kmend_inspect::inspect(path)?.name;
            compare(&system, vec![(name, path.to_owned())], Vec::new())?
        }
        None => of_installed(&system, |_| true)?,
    };
    output.document(&document, text)?;
    if !output.is_json() {
        document.show_reasons();
    }
    Ok(document.end())
}

/// Compares the livepatches that are installed and loaded, of those that are wanted.
pub(in crate::commands) fn of_installed(
    system: &System,
    wanted: impl Fn(&str) -> bool,
) -> Result<Document, Failure> {
    let (mut files, mut without) = loaded(system)?;
    files.retain(|(name, _)| wanted(name));
    without.retain(|name| wanted(name));
    compare(system, files, without)
}

impl Document {
    pub(in crate::commands) fn show_reasons(&self) {
        for one in &self.livepatches {
            output::reasons(&one.refusals);
        }
    }

    pub(in crate::commands) fn end(&self) -> End {
        End::of(self.livepatches.iter().flat_map(|one| &one.refusals).map(RefusalReport::code))
    }
}

fn compare(system: &System, files: Named, not_compared: Vec<String>) -> Result<Document, Failure> {
    let mut livepatches = Vec::new();
    for (name, path) in files {
        let bytes = read_module(&path)?;
        let machine = Machine::open(system.root(), &name).map_err(|error| failure(&error))?;
        let running = kmend_build::running(&bytes, &machine);
        let running = running.map_err(|error| {
            Failure::new(Code::ModuleFormat, path.display().to_string(), error.to_string())
        })?;
        let refusals = running.refusals.iter().cloned().map(Into::into).collect();
        livepatches.push(Livepatch { name, running, refusals });
    }
    let right = livepatches.iter().all(|one| one.refusals.is_empty());
    Ok(Document { right, livepatches, not_compared })
}

/// Modules' files by the modules' names.
type Named = Vec<(String, PathBuf)>;

/// The installed files of the livepatches that are loaded, and the loaded ones without a file.
fn loaded(system: &System) -> Result<(Named, Vec<String>), Failure> {
    let release = system.kernel_status()?.release;
    let store = Store::of(system);
    let (mut files, mut without) = (Vec::new(), Vec::new());
    for patch in system.patches()? {
        match store.path_of(&release, &patch.name) {
            Ok(path) => files.push((patch.name, path)),
            Err(_) => without.push(patch.name),
        }
    }
    Ok((files, without))
}

fn failure(error: &MachineError) -> Failure {
    let code = match error {
        MachineError::NotLoaded(_) => Code::NotLoaded,
        MachineError::Hidden(_) => Code::NotRoot,
        MachineError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Code::NotRoot
        }
        MachineError::Io { .. } | MachineError::Core { .. } => Code::Io,
    };
    Failure::new(code, "the running kernel".to_owned(), error.to_string())
}

pub(in crate::commands) fn text(document: &Document) -> String {
    let mut text = String::new();
    for one in &document.livepatches {
        let running = &one.running;
        let _ = writeln!(text, "{}", visible(&one.name));
        let _ = writeln!(
            text,
            "  {} words of relocations, {} bytes of code and constants, {} replaced functions compared",
            running.words, running.bytes, running.entries
        );
        if running.left > 0 {
            let _ = writeln!(
                text,
                "  {} places left out that the kernel rewrites or has not loaded",
                running.left
            );
        }
    }
    for name in &document.not_compared {
        let _ = writeln!(text, "{}: not compared, no file of it is installed: name it", visible(name));
    }
    let verdict = match (document.right, document.livepatches.is_empty()) {
        (_, true) => "nothing to compare".to_owned(),
        (true, false) => paint(GREEN, "memory holds what the modules say"),
        (false, false) => paint(RED, "memory does not hold what the modules say"),
    };
    let _ = writeln!(text, "{verdict}");
    text
}
