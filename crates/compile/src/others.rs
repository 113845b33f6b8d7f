//! What a patched header must not change: assembly, and the constants that the build makes from C.

use crate::database::{Owner, Unit};
use crate::error::CompileError;
use crate::graph::Graph;
use crate::reach::Search;
use crate::scan::folder_of;
use crate::unit::Compiled;
use kmend_refusal::{Code, Refusal};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;

/// How many changed constants a refusal names.
const NAMED: usize = 8;

impl Search<'_> {
    /// A refusal for each file beside units that the patched files change.
    pub fn others(&self, graph: &Graph, seeds: &BTreeSet<String>) -> Result<Vec<Refusal>, CompileError> {
        let others = graph.others(seeds);
        let assembly = others.assembly.par_iter().map(|path| self.assembly(path));
        let constants = others.constants.par_iter().map(|path| self.constants(path));
        let found: Result<Vec<Option<Refusal>>, CompileError> = assembly.chain(constants).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    fn assembly(&self, path: &str) -> Result<Option<Refusal>, CompileError> {
        let Some(unit) = self.compiled_beside(path) else { return Ok(None) };
        let options = ["-D__ASSEMBLY__", "-x", "assembler-with-cpp"];
        let why = "a patched header changes what it assembles to";
        Ok(self
            .text_differs(&unit, &options)?
            .then(|| Refusal::new(Code::Assembly, path, why).at(path, None)))
    }

    fn constants(&self, path: &str) -> Result<Option<Refusal>, CompileError> {
        let Some(unit) = self.compiled_beside(path) else { return Ok(None) };
        if !self.text_differs(&unit, &[])? {
            return Ok(None);
        }
        let original = self.numbers(&self.prepared.tree, &unit)?;
        let patched = self.shadow.until_no_leak(path, |root| {
            Ok(match self.numbers(root, &unit)? {
                Compiled::Done(numbers) => Compiled::Done((numbers, Vec::new())),
                Compiled::Failed(words) => Compiled::Failed(words),
            })
        })?;
        let refuse = |why: &str, details: Vec<String>| {
            Some(Refusal::new(Code::GeneratedConstants, path, why).at(path, None).with_details(details))
        };
        Ok(match (original, patched) {
            (Compiled::Done(original), Compiled::Done((patched, _))) => {
                let differing: Vec<String> = patched.difference(&original).take(NAMED).cloned().collect();
                if original == patched {
                    None
                } else {
                    refuse("the numbers that it gives are others", differing)
                }
            }
            // What was not compiled before is no part of this kernel.
            (Compiled::Failed(_), _) => None,
            (_, Compiled::Failed(words)) => refuse("with the patch it does not compile", words),
        })
    }

    /// A file as if it were compiled like the image's other units in its folder; `None` if there is none.
    fn compiled_beside(&self, path: &str) -> Option<Unit> {
        let units =
            self.prepared.database.units().iter().filter(|unit| folder_of(&unit.source) == folder_of(path));
        let unit = units.min_by_key(|unit| unit.owner != Owner::Vmlinux)?;
        Some(Unit { source: path.to_owned(), named: path.to_owned(), ..unit.clone() })
    }

    /// Whether the patch changes the preprocessed text. What cannot be preprocessed as it is belongs to another
    /// configuration.
    fn text_differs(&self, unit: &Unit, options: &[&str]) -> Result<bool, CompileError> {
        let stem = self.work.join(unit.source.replace('/', "-"));
        let Compiled::Done((original, _)) = self.text(&self.prepared.tree, unit, options, &stem)? else {
            return Ok(false);
        };
        self.shadow.write().widen(&unit.named)?;
        let patched =
            self.shadow.until_no_leak(&unit.source, |root| self.text(root, unit, options, &stem))?;
        Ok(!matches!(patched, Compiled::Done((patched, _)) if patched == original && patched.is_some()))
    }

    /// The constants in the assembly of a unit: `.ascii "->NAME VALUE COMMENT"` (include/linux/kbuild.h).
    fn numbers(&self, root: &Path, unit: &Unit) -> Result<Compiled<BTreeSet<String>>, CompileError> {
        let run = self.preprocessor(unit, &["-S", "-o", "-"]).arg(&unit.named).folder(root).output()?;
        if !run.success {
            return Ok(Compiled::Failed(vec![run.error_text()]));
        }
        let text = run.text();
        let number = |line: &str| Some(line.split_once("\"->")?.1.trim_end_matches('"').to_owned());
        Ok(Compiled::Done(text.lines().filter_map(number).collect()))
    }
}
