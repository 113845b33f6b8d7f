//! Why each function is in a livepatch, for the person who must approve it.
//!
//! A stage after the differ, which says *that* a function changed and why in a word. This one shows it: both
//! disassemblies, aligned so that what only moved does not count, operands named by their relocations, and the
//! source line that each instruction is of.
//!
//! ```text
//! lines         where an instruction is in the source, from .debug_line
//! instructions  a function's code as text, and as what makes it comparable
//! align         the two texts side by side
//! cause         the differ's reason in words, with the place
//! ```
//!
//! Architecture invariant: pure. Two objects, their difference and the text of source files go in; an
//! [`Explanation`] comes out, and nothing in it depends on time or place. It explains and decides nothing: what goes
//! into a livepatch is the differ's business.

mod align;
mod cause;
mod explanation;
mod instructions;
mod lines;
mod operands;
mod side;
mod sources;
mod visible;

pub use explanation::{Cause, Explanation, Function, Instruction, Piece, Place, Row, Status, Stretch};
pub use lines::LineTable;
pub use sources::{NumberedLine, Sources};
pub use visible::visible;

use align::Room;
use kmend_diff::FunctionChange;
use kmend_object::Object;
use side::Side;

/// One unit's two objects and what of them is in the livepatch.
pub struct Unit<'a> {
    /// Its source, from the tree's root.
    pub source: &'a str,
    /// `vmlinux` or a module's name.
    pub object: &'a str,
    /// The object of the original source.
    pub original: &'a Object,
    /// That of the patched source.
    pub patched: &'a Object,
    /// The functions, as the differ found them.
    pub functions: &'a [FunctionChange],
    /// The text of both sides' source files.
    pub sources: Sources<'a>,
}

/// Explains units one after the other; the room for instructions is that of all of them together.
#[derive(Debug, Default)]
pub struct Explainer {
    room: Room,
    functions: Vec<Function>,
}

impl Explainer {
    /// Explains the functions of a unit.
    pub fn add(&mut self, unit: &Unit<'_>) {
        let original = Side::new(unit.original, unit.sources.original, unit.sources.patched);
        let patched = Side::new(unit.patched, unit.sources.patched, unit.sources.original);
        for change in unit.functions {
            let pieces = align::pieces(&original, &patched, change, &mut self.room);
            let (first, first_touched) = explanation::first_differences(&pieces);
            self.functions.push(Function {
                unit: unit.source.to_owned(),
                object: unit.object.to_owned(),
                name: change.name.clone(),
                original: original.name(change.sides.original),
                status: Status::of(change),
                causes: cause::causes(&patched, change, unit.functions),
                first,
                first_touched,
                pieces,
            });
        }
    }

    /// The explanation of all that was added.
    pub fn finish(self) -> Explanation {
        Explanation { functions: self.functions }
    }
}
