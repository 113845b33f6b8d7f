//! What the author of a livepatch should look at and no comparison can prove.
//!
//! Tasks take to the new code one by one, so for a while the old and the new run side by side. That is safe for
//! most fixes. This crate looks for signs of the others in the code of changed functions:
//!
//! ```text
//! code ─ locks    locks that are taken anew, no longer, or in another order
//!      ─ shared   variables that several changed functions write in another way
//!      ─ stalls   functions in which tasks stay, so that they never take to the new code
//! ```
//!
//! It goes by the names of called functions and by the order of instructions. It proves nothing: it can be wrong, and
//! its silence says nothing either. Rules that would often be wrong are left out.
//!
//! Architecture invariant: nothing here decides whether a livepatch is made.

mod code;
mod locks;
mod shared;
mod stalls;

use code::Code;
use kmend_diff::FunctionChange;
use kmend_object::Object;
use kmend_refusal::Advice;

/// A changed function, before and after.
struct Changed<'a> {
    /// Its name in the source.
    name: String,
    before: Code<'a>,
    after: Code<'a>,
}

/// Looks at the changed functions of one unit.
pub fn advise(original: &Object, patched: &Object, functions: &[FunctionChange]) -> Vec<Advice> {
    let changed: Vec<Changed<'_>> = functions
        .iter()
        .filter(|function| function.original.is_some())
        .filter_map(|function| {
            Some(Changed {
                name: kmend_diff::source_function(&function.name),
                before: Code::of(original, function.sides.original?)?,
                after: Code::of(patched, function.sides.patched)?,
            })
        })
        .collect();
    let mut advice: Vec<Advice> = changed.iter().filter_map(locks::advise).collect();
    advice.extend(shared::advise(&changed));
    let threads = stalls::threads(original);
    advice.extend(changed.iter().filter_map(|function| stalls::advise(function, &threads)));
    advice.sort();
    advice.dedup();
    advice
}
