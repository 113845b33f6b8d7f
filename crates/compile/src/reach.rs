//! Which units a change to an included file reaches.
//!
//! ```text
//! considered    the include graph says that the unit may include it
//! read          the compiler says so too, when it preprocesses the original; what it says is kept for the next patch, with a
//!               fingerprint of the text
//! preprocessed  patched
//! reached       the two texts differ in what the object depends on
//! ```

use crate::author;
use crate::belongs::Kernel;
use crate::database::Unit;
use crate::edits::Edits;
use crate::error::{CompileError, io_error};
use crate::estimate::Estimate;
use crate::graph::Graph;
use crate::live_text;
use crate::prepare::Prepared;
use crate::reads::Reads;
use crate::shadow::{SharedShadow, dependencies};
use crate::target::{Progress, Target};
use crate::unit::{Compiled, message, misses_a_file};
use kmend_process::Command;
use kmend_refusal::Refusal;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The objects of the units that each step of finding the reached ones came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Steps {
    /// Units that may include a patched file.
    pub considered: Vec<String>,
    /// Units that do, whose texts were compared.
    pub preprocessed: Vec<String>,
    /// Units whose text differs in what they use, and were compiled twice.
    pub compiled: Vec<String>,
}

/// The units that patched included files reach, and how they were found.
pub struct Reached {
    pub units: Vec<Unit>,
    pub steps: Steps,
    /// The patched files that some unit includes.
    pub read: BTreeSet<String>,
    /// What else they change, that cannot be patched.
    pub refusals: Vec<Refusal>,
}

/// What the search shares.
pub struct Search<'a> {
    pub target: &'a Target,
    pub prepared: &'a Prepared,
    pub edits: &'a Edits,
    pub shadow: &'a SharedShadow,
    pub work: &'a Path,
    pub progress: Progress<'a>,
}

/// After how many units what was learned of them is kept.
const AT_ONCE: usize = 256;

/// The fingerprint of a unit's text, and the files read for it.
type Text = (Option<String>, Vec<String>);

impl Search<'_> {
    /// The units beside `direct` that the patched files reach by being included.
    pub fn run(
        &self,
        direct: &[Unit],
        included: &BTreeSet<String>,
        kernel: &Kernel<'_>,
    ) -> Result<Reached, CompileError> {
        let database = &self.prepared.database;
        let is_source = |path: &&String| !database.units_of(path).is_empty();
        let mut reached = Reached {
            units: Vec::new(),
            steps: Steps::default(),
            read: BTreeSet::new(),
            refusals: Vec::new(),
        };
        if self.edits.files.keys().all(|path| is_source(&path) && !included.contains(path)) {
            return Ok(reached);
        }
        let graph = kernel.graph()?;
        let (seeds, names) = self.seeds(graph);
        if seeds.is_empty() && names.is_empty() {
            return Ok(reached);
        }
        reached.refusals = self.others(graph, &seeds)?;
        if !reached.refusals.is_empty() {
            return Ok(reached);
        }
        let certain = graph.units(database, &seeds, false);
        let certain: BTreeSet<&str> = certain.iter().map(|unit| unit.object.as_str()).collect();
        let units = graph.units(database, &seeds, true);
        let mut reads = Reads::of(self.prepared, self.target);
        self.learn(&units, &mut reads)?;
        let mut reading = Vec::new();
        for unit in &units {
            let files = reads.get(&unit.object).into_iter().flatten();
            let found: Vec<&str> =
                files.filter(|file| seeds.contains(*file) || names.contains(name_of(file))).collect();
            // What cannot be read even as it is will fail to compile, which says why; unless it is only suspected of
            // including what is not there.
            let is_broken = reads.is_broken(&unit.object) && certain.contains(unit.object.as_str());
            if is_broken || !found.is_empty() {
                reading.push(*unit);
            }
            reached.read.extend(found.into_iter().map(str::to_owned));
        }
        let direct: BTreeSet<&str> = direct.iter().map(|unit| unit.object.as_str()).collect();
        reading.retain(|unit| !direct.contains(unit.object.as_str()));
        reached.units = self.differing(&reading, &reads)?;
        reached.steps = Steps {
            considered: units.iter().map(|unit| unit.object.clone()).collect(),
            preprocessed: reading.iter().map(|unit| unit.object.clone()).collect(),
            compiled: reached.units.iter().map(|unit| unit.object.clone()).collect(),
        };
        Ok(reached)
    }

    /// The patched files that the graph knows, and the names of new files: one of these may be found in the place of another
    /// file of its name.
    fn seeds(&self, graph: &Graph) -> (BTreeSet<String>, BTreeSet<String>) {
        let files = self.edits.files.iter();
        let (new, known): (Vec<_>, Vec<_>) = files.partition(|(_, file)| file.original.is_none());
        let names: BTreeSet<String> = new.into_iter().map(|(path, _)| name_of(path).to_owned()).collect();
        let mut seeds: BTreeSet<String> = known.into_iter().map(|(path, _)| path.clone()).collect();
        seeds.extend(graph.named(&names).map(str::to_owned));
        seeds.retain(|path| graph.is_included(path));
        (seeds, names)
    }

    /// Asks the compiler about those of the units that were not asked about before.
    fn learn(&self, units: &[&Unit], reads: &mut Reads) -> Result<(), CompileError> {
        let unknown: Vec<&Unit> = units.iter().copied().filter(|unit| !reads.knows(&unit.object)).collect();
        let estimate = Estimate::new("preprocessed", unknown.len(), self.progress);
        let mut failed = Vec::new();
        for some in unknown.chunks(AT_ONCE) {
            failed.extend(self.ask(some, reads, &estimate)?);
            // Whoever is ended on the way need not begin anew.
            reads.write();
        }
        let missing: Vec<&Unit> =
            failed.iter().filter(|(_, words)| misses_a_file(words)).map(|(unit, _)| *unit).collect();
        if !missing.is_empty() {
            (self.progress)("making files that the kernel's build makes on its way");
            // Some of them may be out of reach; the others are there then.
            let _ = self.prepared.generate_for(&missing);
            self.shadow.write().refresh()?;
            failed =
                self.ask(&missing, reads, &Estimate::new("preprocessed", missing.len(), self.progress))?;
        }
        for (unit, _) in &failed {
            reads.insert_broken(&unit.object);
        }
        reads.write();
        Ok(())
    }

    /// Those units whose text differs in what counts.
    fn differing(&self, units: &[&Unit], reads: &Reads) -> Result<Vec<Unit>, CompileError> {
        {
            let mut shadow = self.shadow.write();
            units.iter().try_for_each(|unit| shadow.widen(&unit.named).map(drop))?;
        }
        let estimate = Estimate::new("compared the texts of", units.len(), self.progress);
        let differs = |(number, unit): (usize, &&Unit)| -> Result<Option<Unit>, CompileError> {
            let stem = self.work.join(format!("{number}-text"));
            let patched = self
                .shadow
                .until_no_leak(&unit.source, |root| self.text(root, unit, &[author::OPTION], &stem))?;
            estimate.one_more();
            let is_same = match (reads.text(&unit.object), patched) {
                (Some(original), Compiled::Done((patched, _))) => patched.as_deref() == Some(original),
                // What cannot be preprocessed fails to compile, and then the compiler's words are shown.
                _ => false,
            };
            Ok((!is_same).then(|| (*unit).clone()))
        };
        let found: Result<Vec<Option<Unit>>, CompileError> =
            units.par_iter().enumerate().map(differs).collect();
        Ok(found?.into_iter().flatten().collect())
    }

    /// Preprocesses the originals of units; those that cannot be, with the compiler's words.
    fn ask<'u>(
        &self,
        units: &[&'u Unit],
        reads: &mut Reads,
        estimate: &Estimate<'_>,
    ) -> Result<Vec<(&'u Unit, Vec<String>)>, CompileError> {
        let ask = |(number, unit): (usize, &&'u Unit)| {
            let stem = self.work.join(format!("{number}-original-text"));
            let answer = self.text(&self.prepared.tree, unit, &[], &stem)?;
            estimate.one_more();
            Ok((*unit, answer))
        };
        let answers = units.par_iter().enumerate().map(ask).collect::<Result<Vec<_>, CompileError>>()?;
        let mut failed = Vec::new();
        for (unit, answer) in answers {
            match answer {
                Compiled::Done((text, files)) => reads.insert(&unit.object, &files, text),
                Compiled::Failed(words) => failed.push((unit, words)),
            }
        }
        Ok(failed)
    }

    /// A fingerprint of a unit's text, and what was read for it.
    pub fn text(
        &self,
        root: &Path,
        unit: &Unit,
        options: &[&str],
        stem: &Path,
    ) -> Result<Compiled<Text>, CompileError> {
        // To a file: through a pipe, which holds little, compiler and reader would wait for each other all the time.
        let (output, list) = (stem.with_extension("i"), stem.with_extension("d"));
        let run = self
            .preprocessor(unit, options)
            .args(["-E", "-P", "-MD", "-MT", "unit", "-MF"])
            .arg(&list)
            .arg("-o")
            .arg(&output)
            .arg(&unit.named)
            .folder(root)
            .output()?;
        if !run.success {
            return Ok(Compiled::Failed(message(&run.error_text(), root)));
        }
        let text = fs::read(&output).map_err(io_error("read", &output))?;
        // Thousands of them would fill the disk.
        fs::remove_file(&output).map_err(io_error("remove", &output))?;
        let read = fs::read(&list).map_err(io_error("read", &list))?;
        let print = live_text::fingerprint(&text).map(|print| print.to_hex().to_string());
        Ok(Compiled::Done((print, dependencies(&String::from_utf8_lossy(&read)))))
    }

    pub fn preprocessor(&self, unit: &Unit, options: &[&str]) -> Command {
        unit.compiler(&self.target.compiler).args(options)
    }
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
