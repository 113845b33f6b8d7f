//! Which types, variables and signatures changed between two objects, and what that means for a running kernel.
//!
//! Code that is patched meets data that is not: instances of a structure that were made before keep the layout
//! they were made with, and functions that are not replaced keep to theirs. So the types of the original and
//! of the patched unit are compared, from the debug information that both were compiled with:
//!
//! ```text
//! dwarf ─ queries ─ same, record, enumeration ─ compare ─ judge, exports
//! ```
//!
//! Only what differs in layout or in meaning counts. Structures are the same if their fields are, at the same offsets;
//! typedefs, qualifiers and names of fields are not in the kernel. A structure that is held or pointed to by
//! another is compared under its own name, and the other is not reported for it.
//!
//! Architecture invariant: this crate knows two objects of one unit and nothing of the kernel. What it must know of
//! that ([`Surroundings`]) the caller tells.

mod compare;
mod dwarf;
mod enumeration;
mod exports;
mod judge;
mod prototypes;
mod queries;
mod record;
mod same;
mod statics;

pub use compare::{Changes, SignatureChange, TypeChange, TypeKind, VariableChange, accepted, compare};
pub use enumeration::ValueChange;
pub use exports::ExportChange;
pub use judge::{Surroundings, Verdict};
pub use prototypes::{prototypes, without_result};
pub use record::{FieldChange, Layout, Place, Placement};
pub use same::Relation;
pub use statics::{Static, statics};

use kmend_refusal::{Code, Coded};

/// Why the types of an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TypesError {
    /// It was compiled without `-g`.
    #[error("the object has no debug information")]
    Missing,
    /// It is damaged.
    #[error("the debug information cannot be read: {0}")]
    Format(#[from] gimli::Error),
}

impl Coded for TypesError {
    fn code(&self) -> Code {
        Code::ObjectFormat
    }
}
