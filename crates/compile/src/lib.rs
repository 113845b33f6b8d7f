//! Original and patched object of every translation unit that a patch reaches.
//!
//! The way of a patch through this crate:
//!
//! ```text
//! patch      unified diffs, parsed
//!   ├─ belongs   what each file is to this kernel: asked of the database, the graph, and the build's commands (recipes)
//!   └─ apply     to the files' contents in memory; every hunk that does not apply is a refusal
//!       └─ lines     `#line` directives, so that untouched lines keep their numbers
//! kconfig    words for people are told from options
//! makefile, adopt   new files that a Makefile lists become units
//! prepare    once per kernel: a tree of links with the generated headers, and the compile database
//! graph      once per kernel: which units may include which files
//! reach      the units that patched headers change
//! shadow     a tree of links in which only the patched files are real
//! unit       one compile to assembly, from which the objects are assembled
//! genksyms   when asked, the CRCs of a unit's exported symbols
//! ```
//!
//! Architecture invariant: the kernel's source is never written to. Whatever is made once per kernel lies
//! in [`Target::derived`], whatever is made for one patch in the scratch folder that the caller gives.
//! This crate knows nothing of ELF: objects are bytes.

mod adopt;
mod apply;
mod assembly;
mod author;
mod belongs;
mod cache;
mod classify;
mod compiler;
mod conditions;
mod configuration;
mod counted;
mod database;
mod declarations;
mod droppable;
mod edits;
mod elsewhere;
mod error;
mod estimate;
mod folders;
mod genksyms;
mod graph;
mod includes;
mod kconfig;
mod lexer;
mod lines;
mod live_text;
mod macro_paths;
mod makefile;
mod nearest;
mod objects;
mod others;
mod own_data;
mod own_sections;
mod patch;
mod place;
mod prepare;
mod present;
mod reach;
mod reads;
mod recipes;
mod reverse;
mod scan;
mod session;
mod shadow;
mod shell;
mod static_keys;
mod target;
mod touched;
mod trace;
mod tree;
mod unit;

pub use classify::runs_elsewhere;
pub use compiler::check as check_compiler;
pub use database::{Database, ObjtoolArguments, Owner, Unit};
pub use elsewhere::{compile_at, compile_texts};
pub use error::{CompileError, Failure};
pub use genksyms::{ExportChange, Exports};
pub use lexer::{Conditional, LineStart, line_starts};
pub use patch::{MOST_FUZZ, PatchFile, subject};
pub use prepare::{Prepared, prepare};
pub use reach::Steps;
pub use reverse::{applies, reversed};
pub use session::{CompiledUnit, Look, Note, Outcome, PlainPatched, Times, is_source, patch_and_compile};
pub use target::{Progress, Target};
pub use trace::{Change, Fate, Hunk, words};

/// Parsers of foreign bytes, for the fuzz targets: none of them may panic, whatever it is given.
pub mod foreign {
    /// Parses `bytes` as a patch, applies it to `file` under whatever names it gives, and numbers the lines.
    pub fn patch_round(bytes: &[u8], file: &[u8]) {
        let patch = crate::PatchFile { fuzz: crate::MOST_FUZZ, ..crate::PatchFile::new("fuzz.patch", bytes) };
        if let Ok(reversed) = crate::reversed(&patch) {
            crate::session::fuzz_round(&reversed.bytes, file);
        }
        crate::session::fuzz_round(bytes, file);
    }

    /// Reads `bytes` as the output of a dry run.
    pub fn dry_run(bytes: &[u8]) {
        let _ = crate::database::Database::from_dry_run(bytes);
    }
}
