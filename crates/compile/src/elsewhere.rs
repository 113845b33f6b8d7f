//! A unit as a build in another folder compiles it.

use crate::database::Unit;
use crate::error::Failure;
use crate::prepare::Prepared;
use crate::target::Target;
use crate::unit::{Compiled, sectioned, to_assembly};
use kmend_refusal::{Code, Refusal};
use std::path::Path;

/// The object for the differ that comes of `unit` when the tree lies at `root` (the prepared tree itself by another
/// path, or a copy), the source is named by its whole path, and the compiler gets `more` arguments. `work` is a folder for
/// temporary files.
pub fn compile_at(
    target: &Target,
    prepared: &Prepared,
    unit: &Unit,
    root: &Path,
    more: &[String],
    work: &Path,
) -> Result<Vec<u8>, Failure> {
    let mut unit = unit.clone();
    unit.named = root.join(&unit.named).display().to_string();
    // __FILE__ as it is where the kernel is built (the kernel's Makefile, -fmacro-prefix-map=$(srctree)/=).
    unit.arguments.push(format!("-fmacro-prefix-map={}/=", root.display()));
    unit.arguments.extend_from_slice(more);
    let stem = work.join("elsewhere");
    match to_assembly(&target.compiler, root, &unit, &[], &stem)? {
        Compiled::Done((text, _)) => {
            Ok(sectioned(&target.compiler, &unit, &text, &prepared.exported, &stem)?)
        }
        Compiled::Failed(words) => {
            let why = "it does not compile in another folder";
            let refusal = Refusal::new(Code::CompileFailed, &unit.source, why).with_details(words);
            Err(Failure::Refused { refusals: vec![refusal] })
        }
    }
}
