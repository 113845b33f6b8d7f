//! Which lines of a file this configuration compiles in a unit.

use crate::database::Unit;
use crate::error::{CompileError, io_error};
use crate::prepare::Prepared;
use crate::session::Outcome;
use crate::target::Target;
use std::collections::BTreeSet;
use std::fs;

impl Outcome {
    /// The lines of `file` that are left of the unit's original when it is preprocessed: those in groups that this
    /// configuration leaves out are not, and directives are not either. `None` if it cannot be preprocessed.
    pub fn lines_present(
        &self,
        target: &Target,
        prepared: &Prepared,
        unit: &Unit,
        file: &str,
    ) -> Result<Option<BTreeSet<u32>>, CompileError> {
        let output = self.work.path().join(format!("{}-lines.i", unit.object.replace('/', "-")));
        let command = unit.compiler(&target.compiler).arg("-E").arg("-o").arg(&output).arg(&unit.named);
        if !command.folder(&prepared.tree).output()?.success {
            return Ok(None);
        }
        let text = fs::read(&output).map_err(io_error("read", &output))?;
        fs::remove_file(&output).map_err(io_error("remove", &output))?;
        Ok(Some(lines_of(&String::from_utf8_lossy(&text), file)))
    }
}

/// The numbers of the lines with text that are from `file`, by the markers `# NUMBER "FILE" FLAGS` (gcc's manual of cpp,
/// "Preprocessor Output").
fn lines_of(text: &str, file: &str) -> BTreeSet<u32> {
    let (mut found, mut number, mut is_file) = (BTreeSet::new(), 0u32, false);
    for line in text.lines() {
        if let Some((first, name)) = line.strip_prefix("# ").and_then(marker) {
            (number, is_file) = (first, crate::database::from_root("", name) == file);
            continue;
        }
        if is_file && !line.trim().is_empty() {
            found.insert(number);
        }
        number = number.saturating_add(1);
    }
    found
}

fn marker(rest: &str) -> Option<(u32, &str)> {
    let (number, rest) = rest.split_once(" \"")?;
    Some((number.parse().ok()?, rest.split_once('"')?.0))
}

#[cfg(test)]
mod tests {
    use super::lines_of;

    #[test]
    fn lines_are_counted_from_the_markers() {
        let text = "# 1 \"./fs/a.c\"\nint a;\n\n# 9 \"fs/b.h\" 1\nint b;\n# 4 \"fs/../fs/a.c\" 2\nint c;\nint d;\n#pragma x\n";
        assert_eq!(lines_of(text, "fs/a.c").into_iter().collect::<Vec<_>>(), [1, 4, 5, 6]);
        assert_eq!(lines_of(text, "fs/b.h").into_iter().collect::<Vec<_>>(), [9]);
    }
}
