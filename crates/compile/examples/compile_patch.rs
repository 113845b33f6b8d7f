//! Compiles the units that patches reach and writes their objects, with the time of every part.
//!
//! `compile_patch RELEASE SOURCE CONFIG HEADERS COMPILER DERIVED OUT PATCH...`

mod target;

use kmend_compile::{PatchFile, patch_and_compile, prepare};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = || format!("usage: compile_patch {} OUT PATCH...", target::USAGE);
    let target = target::read(&mut arguments).ok_or_else(usage)?;
    let out = PathBuf::from(arguments.next().ok_or_else(usage)?);
    let progress = |line: &str| eprintln!("  {line}");
    let start = Instant::now();
    let prepared = prepare(&target, &progress)?;
    eprintln!("prepared in {:.2?}, {} units", start.elapsed(), prepared.database.units().len());
    eprintln!("objtool: {:?}", prepared.database.objtool);
    let mut patches = Vec::new();
    for path in arguments {
        patches.push(PatchFile::new(path.clone(), std::fs::read(&path)?));
    }
    let start = Instant::now();
    let outcome =
        patch_and_compile(&target, &prepared, &patches, &out.join("scratch"), &progress, &|_| Vec::new())?;
    eprintln!("compiled in {:.2?}", start.elapsed());
    for note in &outcome.notes {
        eprintln!("note: {note:?}");
    }
    for unit in &outcome.units {
        eprintln!(
            "{} ({:?}): cached {}, {:?}",
            unit.unit.source, unit.unit.owner, unit.original_was_cached, unit.times
        );
        let name = unit.unit.object.replace('/', "_");
        std::fs::write(out.join(format!("{name}.plain")), &unit.plain)?;
        std::fs::write(out.join(format!("{name}.original")), &unit.original)?;
        std::fs::write(out.join(format!("{name}.patched")), &unit.patched)?;
    }
    Ok(())
}
