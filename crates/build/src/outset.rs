//! What is known of a livepatch before anything is done: its name, and a report without findings.

use crate::Request;
use crate::report::{KernelReport, PatchReport, Report, SCHEMA};
use crate::subject::subject;
use std::path::Path;

/// The report of a build that has yet to begin.
pub(crate) fn empty_report(request: &Request<'_>) -> Report {
    let kernel = request.kernel;
    let patches = request.patches.iter().map(|patch| PatchReport {
        name: patch.name.clone(),
        blake3: blake3::hash(&patch.bytes).to_hex().to_string(),
        subject: subject(&patch.bytes),
    });
    Report {
        schema: SCHEMA,
        kmend: env!("CARGO_PKG_VERSION"),
        name: name(request),
        kernel: KernelReport {
            release: kernel.release.clone(),
            version: kernel.version.clone(),
            build_id: None,
            compiler: kernel.compiler_text.clone(),
        },
        fixes: request.fixes.clone(),
        patches: patches.collect(),
        units: Vec::new(),
        reach: None,
        hunks: Vec::new(),
        symbols: Vec::new(),
        notes: Vec::new(),
        recommended: None,
        audit: None,
        refusals: Vec::new(),
        module: None,
    }
}

/// The livepatch's name: as asked for, or made from the first patch's file name, of which as much is taken as the
/// kernel allows (`git format-patch` writes names of up to 64 characters).
fn name(request: &Request<'_>) -> String {
    if let Some(name) = &request.name {
        return name.clone();
    }
    let first = request.patches.first().map_or("patch", |patch| patch.name.as_str());
    let stem = Path::new(first).file_stem().map_or_else(|| first.into(), |stem| stem.to_string_lossy());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let plain = stem.chars().map(|c| if is_plain(c) { c } else { '-' });
    let name: String = plain.take(kmend_link::LONGEST_NAME).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "patch".into() } else { name.to_owned() }
}
