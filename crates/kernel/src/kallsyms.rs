//! Finding and reading the kernel's own symbol table in an image without symbols.
//!
//! `CONFIG_KALLSYMS` puts these labels into `.rodata`, each aligned to 8 bytes (scripts/kallsyms.c,
//! `write_src`). Their order and their encoding changed over time:
//!
//! | order | until 6.3 | since 6.4 (404bad70fcf7) |
//! |---|---|---|
//! | addresses | first | after the token index |
//! | num_syms, names, markers | then | first |
//! | seqs_of_names | after the markers (6.2, 60443c88f3a8, and its backports) | last |
//! | token table, token index | last | after the markers |
//!
//! Newest kernels have no base: an offset counts from its own place.
//!
//! The labels themselves are not in the image, and a version number would not tell what a distribution
//! backported. So the tables are found by their structure, in three steps, each of which leaves hardly
//! room for chance:
//!
//! 1. [`tokens`]: the token index is 256 rising 16-bit offsets, and each is the end of a text in the token
//!    table just before it.
//! 2. [`names`]: before the tokens, a count, so many names, and one marker for every 256 names which must
//!    equal the offset of that name; the markers end where the tokens begin.
//! 3. [`addresses`]: before the count or after the index, in each known encoding, one address a name; they
//!    must rise, and `_text` must be where the section `.text` begins.
//!
//! Several candidates of one step may reach the next; the first that passes all of them is the table.

mod addresses;
mod names;
mod tokens;

use crate::symbols::{KernelSymbol, Symbols};
use addresses::Anchor;
use std::ops::Range;

/// What is read at most, in steps for each byte of the section: names are walked from many places, and a
/// crafted image could make each walk long.
const STEPS_PER_BYTE: usize = 16;

/// How far the search for the tables got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reached {
    /// There is nothing like a token table.
    Nothing,
    /// There is a token table, and no names before it.
    Tokens,
    /// There are names, and no addresses that fit them.
    Names,
}

impl Reached {
    /// The same in words.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Reached::Nothing => "there is no token table",
            Reached::Tokens => "there is a token table, but no names before it",
            Reached::Names => "there are names, but no addresses that fit them",
        }
    }
}

/// The symbols of the kallsyms tables in `section`, which is linked at `address`, of a kernel whose `.text`
/// covers `text`.
pub(crate) fn find(section: &[u8], address: u64, text: &Range<u64>) -> Result<Symbols, Reached> {
    let mut reached = Reached::Nothing;
    let mut steps = section.len().saturating_mul(STEPS_PER_BYTE);
    for tokens in tokens::candidates(section) {
        reached = reached.max(Reached::Tokens);
        let mut before = tokens.start;
        while let Some(names) = names::find_before(section, before, &tokens, &mut steps) {
            reached = Reached::Names;
            before = names.start;
            let Some(symbols) = names.expand(section, &tokens) else { continue };
            steps = steps.saturating_sub(symbols.len());
            let Some(anchor) = Anchor::among(&symbols, text) else { continue };
            if let Some(found) = addresses::find(section, address, &names, &tokens, &anchor) {
                return Ok(assemble(section, symbols, &found));
            }
        }
        if steps == 0 {
            break;
        }
    }
    Err(reached)
}

fn assemble(section: &[u8], names: Vec<names::Name>, found: &addresses::Addresses) -> Symbols {
    let order = found.seqs.and_then(|at| names::read_seqs(section, at, names.len()));
    let symbols = names
        .into_iter()
        .zip(&found.values)
        .map(|(name, &address)| KernelSymbol { name: name.name, address, kind: name.kind })
        .collect();
    Symbols::with_name_order(symbols, order)
}

/// The next multiple of 8, the alignment of every label.
fn align(offset: usize) -> usize {
    offset.next_multiple_of(8)
}
