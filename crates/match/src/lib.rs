//! The proof that the compiled original is what the shipped kernel contains, and what follows from it: the
//! true address of every symbol that a translation unit defines or refers to.
//!
//! The idea is Ksplice's run-pre matching (Arnold and Kaashoek, "Ksplice: Automatic Rebootless Kernel
//! Updates", EuroSys 2009, section 4). A unit is compiled as the kernel's own build does it, but without
//! objtool. The linker puts each of its sections into the kernel as one block, so that one address places a
//! whole section. Then every byte of its code must be there again, with two exceptions:
//!
//! - relocation holes. What the shipped kernel holds in a hole tells which address the reference leads to.
//!   All references to one symbol must agree, and where the kernel has symbols of that name, one of them must
//!   be there. References to strings must lead to the same text.
//! - sites that the build rewrites: each only where an entry of a table of the unit says so (`sites`).
//!
//! A wrong compiler, configuration or source shows as the first instruction that differs, or as a text or
//! symbol that is not the expected one. And of several symbols of one name, the one that this unit means is
//! the one its code leads to: that is where livepatch's `sympos` comes from.
//!
//! The stages of a match, each a module: `unit` prepares the object; `place` finds where its sections are;
//! `refer` judges one reference; `compare` goes through the code and the data; `locate` gathers the
//! symbols. `shipped` is what the other side must answer, for an image and for a `.ko`.
//!
//! Architecture invariant: no I/O, no commands. A match is a pure function of two parsed files.

mod compare;
mod error;
mod locate;
mod matched;
mod names;
mod place;
mod refer;
mod shipped;
mod show;
mod sites;
mod unit;

#[cfg(test)]
mod double;
#[cfg(test)]
mod tests;

pub use error::MatchError;
pub use matched::{Difference, FunctionMatch, KernelName, Located, Matched, Outcome, SectionMatch};

use kmend_kernel::{Image, Module};
use kmend_object::Object;
use shipped::{InImage, InModule, Shipped};

/// What the unit was linked into.
#[derive(Clone, Copy)]
pub enum Against<'a> {
    /// The kernel proper.
    Image(&'a Image),
    /// A module of it.
    Module {
        /// The module.
        module: &'a Module,
        /// The kernel proper, which defines what the module refers to.
        image: &'a Image,
    },
}

/// Matches a unit, compiled plainly from the unpatched source, against the kernel that ships.
///
/// Differences are part of the result ([`Matched::refusals`]); an error is an object that cannot be matched
/// at all.
pub fn match_unit(plain: &Object, against: &Against<'_>) -> Result<Matched, MatchError> {
    match *against {
        Against::Image(image) => match_shipped(plain, &InImage::new(image)),
        Against::Module { module, image } => {
            let imported = |name: &str| shipped::exported(image, name);
            match_shipped(plain, &InModule::new(module, &imported))
        }
    }
}

fn match_shipped(plain: &Object, shipped: &dyn Shipped) -> Result<Matched, MatchError> {
    let unit = unit::Unit::new(plain, shipped)?;
    let placement = place::place(&unit, shipped);
    let functions = compare::functions(&unit, shipped, &placement);
    if !functions.is_empty() && functions.iter().all(|function| function.outcome == Outcome::Absent) {
        return Err(MatchError::Absent);
    }
    let sections = compare::sections(&unit, shipped, &placement);
    let symbols = locate::symbols(&unit, shipped, &placement);
    Ok(Matched { functions, sections, symbols })
}
