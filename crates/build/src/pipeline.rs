//! The stages in their order.

use crate::audit;
use crate::consistency;
use crate::error::BuildError;
use crate::explain;
use crate::exports::Versions;
use crate::facts::Facts;
use crate::hunks;
use crate::outset::empty_report;
use crate::publish::{Made, check_output, publish};
use crate::report::{
    Effect, EngineReport, HunkReport, ModuleReport, Note, NoteKind, RefusalReport, Report, SymbolReport,
};
use crate::scope::{Names, lost_state};
use crate::types;
use crate::units::{self, Proof, ProvenUnit};
use crate::{Built, Event, Request, Stage};
use kmend_compile::{Failure, Outcome, Prepared, Target};
use kmend_diff::Fentry;
use kmend_explain::Explanation;
use kmend_kernel::{Image, KernelError};
use kmend_link::{
    BuiltModule, ForEngine, LinkInput, Linked, Mends, Paths, Resolution, TargetKernel, UnitInput,
};
use kmend_refusal::{Advice, Code, Refusal};
use kmend_sign::{Manifest, Signer, Sources};
use kmend_store::Kernel;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Runs the stages and writes down what they find.
pub(crate) struct Pipeline<'a> {
    request: &'a Request<'a>,
    events: &'a (dyn Fn(Event) + Sync),
    times: Vec<(Stage, Duration)>,
    report: Report,
    explanation: Option<Explanation>,
    advice: BTreeSet<Advice>,
}

/// How a pipeline ends before there is a module.
enum Stop {
    Refused(Vec<Refusal>),
    Failed(BuildError),
}

impl<E: Into<BuildError>> From<E> for Stop {
    fn from(error: E) -> Self {
        let error = error.into();
        match error.refusals() {
            [] => Stop::Failed(error),
            refusals => Stop::Refused(refusals.to_vec()),
        }
    }
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(request: &'a Request<'a>, events: &'a (dyn Fn(Event) + Sync)) -> Self {
        let report = empty_report(request);
        Pipeline { request, events, times: Vec::new(), report, explanation: None, advice: BTreeSet::new() }
    }

    pub(crate) fn run(mut self) -> Result<Built, BuildError> {
        let made = match self.stages() {
            Ok(made) => Some(made),
            Err(Stop::Refused(mut refusals)) => {
                refusals.sort();
                refusals.dedup();
                self.report.refusals = refusals.into_iter().map(RefusalReport::from).collect();
                None
            }
            Err(Stop::Failed(error)) => return Err(error),
        };
        let (module, json) = publish(&self.request.output, &self.report.name, &self.report, made.as_ref())?;
        Ok(Built { report: self.report, explanation: self.explanation, module, json, times: self.times })
    }

    fn stages(&mut self) -> Result<Made, Stop> {
        check_architecture()?;
        // What can be known now is not told after minutes of work.
        let mut early = kmend_link::check_patch_name(&self.report.name);
        early.extend(self.request.engine.iter().flat_map(consistency::check));
        if !early.is_empty() {
            return Err(Stop::Refused(early));
        }
        check_output(&self.request.output)?;
        let target = target(self.request.kernel);
        let scratch = self.request.cache.scratch()?;
        let prepared = self.timed(Stage::Prepare, |say| kmend_compile::prepare(&target, say))?;
        let (outcome, facts) = self.compile(&target, &prepared, scratch.path())?;
        let facts = facts?;
        self.check_kernel(&facts.image)?;
        let proven = self.prove_and_compare(&outcome, &target, &prepared, &facts)?;
        let engine = self.engine(&proven)?;
        let linked = self.link(&proven, &facts, engine.as_ref())?;
        self.report.notes.extend(linked.pins.iter().map(units::outlives));
        let module = self.make_module(&linked, &scratch.path().join("module"))?;
        self.audit(&facts, &outcome, &module)?;
        let made = self.vouch(&module.bytes)?;
        self.describe(&linked, &module, &made.module);
        Ok(made)
    }

    /// Compiles the units while the image is read.
    fn compile(
        &mut self,
        target: &Target,
        prepared: &Prepared,
        scratch: &Path,
    ) -> Result<(Outcome, Result<Facts, KernelError>), Stop> {
        let kernel = self.request.kernel;
        let patches = &self.request.patches;
        let (outcome, facts) = self.timed(Stage::Compile, |say| {
            thread::scope(|scope| {
                let facts = scope.spawn(|| Facts::read(&kernel.image, &kernel.modules, &kernel.symvers));
                let outcome = kmend_compile::patch_and_compile(
                    target,
                    prepared,
                    patches,
                    scratch,
                    say,
                    &types::first_look,
                );
                let facts = facts.join().unwrap_or_else(|_| {
                    Err(KernelError::Image("reading the image ended unexpectedly".into()))
                });
                (outcome, facts)
            })
        });
        match outcome {
            Ok(outcome) => {
                self.note_all(&outcome);
                self.report.reach = Some(outcome.reach.clone()).filter(|reach| !reach.considered.is_empty());
                Ok((outcome, facts))
            }
            Err(Failure::Refused { refusals }) => Err(Stop::Refused(refusals)),
            Err(Failure::Failed(error)) => Err(error.into()),
        }
    }

    fn note_all(&mut self, outcome: &Outcome) {
        self.report.notes.extend(outcome.notes.iter().cloned().map(Note::from));
    }

    /// The image must be the kernel that the packages say, and able to be patched.
    fn check_kernel(&mut self, image: &Image) -> Result<(), Stop> {
        let kernel = self.request.kernel;
        self.report.kernel.build_id = image.build_id().map(hex::encode);
        if image.release() != kernel.release {
            let why = format!("the image says it is {}, not {}", image.release(), kernel.release);
            return Err(Stop::Refused(vec![Refusal::new(Code::ImageDiffers, "the image", why)]));
        }
        if image.symbols().named("klp_enable_patch").next().is_none() {
            let why = "its image has no klp_enable_patch()";
            return Err(Stop::Refused(vec![Refusal::new(Code::NoLivepatch, &kernel.release, why)]));
        }
        Ok(())
    }

    fn prove_and_compare(
        &mut self,
        outcome: &Outcome,
        target: &Target,
        prepared: &Prepared,
        facts: &Facts,
    ) -> Result<Vec<ProvenUnit>, Stop> {
        let matches: Vec<_> = self.timed(Stage::Match, |_| {
            let prove = |unit| units::prove(unit, &facts.image, facts.modules.as_ref());
            outcome.units.par_iter().map(prove).collect::<Result<Vec<_>, BuildError>>()
        })?;
        let versions = Versions { outcome, target, prepared, symvers: &facts.symvers };
        let (results, of_names) = self.timed(Stage::Diff, |_| {
            let names = Names::of(&outcome.units, &matches, facts)?;
            let pairs: Vec<_> = outcome.units.iter().zip(matches).zip(&names.scopes).collect();
            let module = facts.image.btf().and_then(|types| types.structure("module"));
            let exit_pointer = module.and_then(|module| module.member("exit")).map(u64::from);
            let fentry = if self.request.engine.is_some() { Fentry::OrRoom } else { Fentry::Required };
            let terms = units::Terms { fentry, exit_pointer };
            let wanted = &names.wanted;
            let compare =
                |((unit, matched), scope)| units::compare(unit, matched, (wanted, scope), &versions, terms);
            let results = pairs.into_par_iter().map(compare).collect::<Result<Vec<_>, BuildError>>()?;
            Ok::<_, BuildError>((results, names.refusals))
        })?;
        let explained = hunks::explain(outcome, &results, target, prepared)?;
        self.report.hunks = explained.hunks;
        if self.request.explain {
            let tree = &prepared.tree;
            let inlined = &explained.inlined;
            let text = self.timed(Stage::Explain, |_| explain::explain(outcome, &results, tree, inlined));
            self.explanation = Some(text?);
        }
        let judged = types::judge(&results, &facts.image, facts.modules.as_ref(), &facts.symvers);
        self.report.notes.extend(judged.notes);
        self.advice = judged.advice;
        let (mut proven, mut refusals) = (Vec::new(), of_names);
        for compared in results {
            match compared.result {
                Ok(unit) => proven.push(unit),
                Err(more) => refusals.extend(more),
            }
        }
        refusals.extend(lost_state(&proven));
        refusals.extend(proven.iter().flat_map(|unit| units::copied_at_start(unit, &facts.image)));
        types::drop_doubled(&mut refusals, &judged.refusals);
        refusals.extend(judged.refusals);
        refusals.extend(explained.refusals);
        for unit in &proven {
            let note = |text: &String| Note {
                kind: NoteKind::Fact,
                subject: unit.source.clone(),
                text: text.clone(),
            };
            self.report.notes.extend(unit.delta.notes.iter().map(note));
            self.report.notes.extend(unit.delta.updates.iter().flat_map(units::advice));
            self.report.notes.extend(units::left(unit));
        }
        self.report.notes.extend(self.report.hunks.iter().filter_map(unexplained_note));
        let report = |unit| units::report(unit, &proven, &outcome.touched, &explained.inlined);
        self.report.units = proven.iter().map(report).collect();
        if refusals.is_empty() && proven.iter().all(|unit| unit.delta.is_empty()) {
            let left = |unit: &ProvenUnit| {
                let refusals = unit.delta.passed_over.clone();
                refusals.into_iter().map(|refusal| refusal.at(&unit.source, None)).collect::<Vec<_>>()
            };
            refusals.extend(proven.iter().flat_map(left));
            if refusals.is_empty() {
                refusals.extend(unexplained(&self.report.hunks));
            }
            if refusals.is_empty() {
                refusals.push(nothing_changes(&self.report));
            }
        }
        if refusals.is_empty() { Ok(proven) } else { Err(Stop::Refused(refusals)) }
    }

    /// What the module must know of the consistency engine, if it is for that.
    fn engine(&mut self, proven: &[ProvenUnit]) -> Result<Option<ForEngine>, Stop> {
        let request = self.request;
        let Some(wanted) = &request.engine else { return Ok(None) };
        let untraced: Vec<String> = proven.iter().flat_map(units::untraced).collect();
        self.report.notes.extend(untraced.iter().map(|name| consistency::note(name)));
        let wanted = consistency::settle(wanted, &untraced).map_err(Stop::Refused)?;
        Ok(Some(self.timed(Stage::Engine, |_| consistency::for_engine(request, wanted, untraced))?))
    }

    fn link(
        &mut self,
        proven: &[ProvenUnit],
        facts: &Facts,
        engine: Option<&ForEngine>,
    ) -> Result<Linked, Stop> {
        let name = self.report.name.clone();
        let build_id = self.report.kernel.build_id.clone().unwrap_or_default();
        let replace = self.request.replace;
        let subjects = self.report.patches.iter().filter_map(|patch| patch.subject.clone()).collect();
        let mends = Mends { fixes: self.report.fixes.clone(), subjects };
        self.timed(Stage::Link, |_| {
            let changed: Vec<&ProvenUnit> = proven.iter().filter(|unit| !unit.delta.is_empty()).collect();
            let proofs: Vec<Proof<'_>> = changed.iter().map(|unit| Proof::of(unit, proven)).collect();
            let inputs: Vec<UnitInput<'_>> = changed
                .iter()
                .zip(&proofs)
                .map(|(unit, proof)| UnitInput {
                    source: &unit.source,
                    owner: &unit.owner,
                    delta: &unit.delta,
                    matched: proof,
                })
                .collect();
            let kernel = TargetKernel::new(&facts.image, facts.modules.as_ref(), &facts.symvers);
            kmend_link::link(&LinkInput {
                name: &name,
                replace,
                units: &inputs,
                kernel: &kernel,
                build_id: &build_id,
                mends: &mends,
                engine,
            })
        })
        .map_err(Stop::Refused)
    }

    fn make_module(&mut self, linked: &Linked, scratch: &Path) -> Result<BuiltModule, Stop> {
        let kernel = self.request.kernel;
        let paths = Paths {
            headers: kernel.headers.clone(),
            make_variables: vec![("CC".into(), kernel.compiler.clone())],
            jobs: thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(self.timed(Stage::Module, |_| kmend_link::make_module(linked, &paths, scratch))?)
    }

    /// Asks for a second opinion before anybody sees the module.
    fn audit(&mut self, facts: &Facts, outcome: &Outcome, module: &BuiltModule) -> Result<(), Stop> {
        let table = Some(module.table.as_slice());
        let audit =
            self.timed(Stage::Audit, |_| audit::audit(facts, &outcome.units, &module.bytes, table))?;
        if !audit.refusals.is_empty() {
            return Err(Stop::Refused(audit.refusals));
        }
        audit::keep(self.request.kernel, &module.bytes, &self.request.patches, table)?;
        self.report.audit = Some(audit);
        Ok(())
    }

    /// Reads the module back for its manifest, and signs both.
    fn vouch(&self, module: &[u8]) -> Result<Made, BuildError> {
        let kernel = self.request.kernel;
        let patches = self.request.patches.iter();
        let patches: Vec<_> = patches.map(|patch| (patch.name.clone(), patch.bytes.clone())).collect();
        let patches = &patches;
        let sources = Sources { version: &kernel.version, compiler: &kernel.compiler_text, patches };
        let manifest = Manifest::of_module(module, &sources)?;
        let Some(signer) = self.request.signer else {
            return Ok(Made { module: module.to_vec(), manifest, signature: None });
        };
        let signature = Some(signer.sign(&manifest)?);
        Ok(Made { module: signer.sign_module(module)?, manifest, signature })
    }

    fn describe(&mut self, linked: &Linked, module: &BuiltModule, bytes: &[u8]) {
        let symbols: BTreeSet<SymbolReport> = linked
            .symbols
            .iter()
            .filter_map(|symbol| match &symbol.resolution {
                Resolution::Livepatch { target, .. } => Some(SymbolReport {
                    name: target.name.clone(),
                    object: target.object.clone(),
                    position: target.sympos() as usize,
                }),
                Resolution::Export => None,
            })
            .collect();
        self.report.symbols = symbols.into_iter().collect();
        let warnings = module.warnings.iter().cloned().map(|text| ("module", text));
        let of_signer = self.request.signer.map(Signer::notes).unwrap_or_default();
        let of_signer = of_signer.into_iter().map(|text| ("signature", text));
        self.report.notes.extend(warnings.chain(of_signer).map(|(subject, text)| Note {
            kind: NoteKind::Fact,
            subject: subject.into(),
            text,
        }));
        if self.request.engine.as_ref().is_none_or(|engine| engine.model.is_none()) {
            self.report.recommended = Some(consistency::recommend(linked, &self.advice));
        }
        let engine = linked.engine.as_ref().map(|engine| EngineReport {
            interface: engine.interface.clone(),
            model: engine.model.clone(),
            redirect: engine.redirect.clone(),
            untraced: engine.untraced.clone(),
        });
        self.report.module = Some(ModuleReport {
            file: format!("{}.ko", linked.stem),
            blake3: blake3::hash(bytes).to_hex().to_string(),
            size: bytes.len(),
            replace: linked.replace,
            engine,
            signed_by: self.request.signer.map(Signer::facts),
        });
    }

    /// Runs a stage, tells of its begin and end, and keeps its time.
    fn timed<T>(&mut self, stage: Stage, run: impl FnOnce(&(dyn Fn(&str) + Sync)) -> T) -> T {
        let events = self.events;
        events(Event::Started(stage));
        let start = Instant::now();
        let value = run(&|text| events(Event::Detail(stage, text.to_owned())));
        let time = start.elapsed();
        self.times.push((stage, time));
        events(Event::Finished(stage, time));
        value
    }
}

fn check_architecture() -> Result<(), Stop> {
    if cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let why = "kmend runs its compilers on this machine, which is not x86-64";
    Err(Stop::Refused(vec![Refusal::new(Code::Architecture, std::env::consts::ARCH, why)]))
}

/// What the compile stage is asked for a kernel of the cache.
pub fn target(kernel: &Kernel) -> Target {
    Target {
        release: kernel.release.clone(),
        source: kernel.source.clone(),
        config: kernel.config.clone(),
        headers: Some(kernel.headers.clone()),
        symvers: kernel.symvers.clone(),
        compiler: kernel.compiler.clone(),
        compiler_text: kernel.compiler_text.clone(),
        derived: kernel.derived(),
    }
}

fn nothing_changes(report: &Report) -> Refusal {
    let sources = report.units.iter().map(|unit| unit.source.as_str());
    let patches = report.patches.iter().map(|patch| patch.name.as_str());
    let subject: Vec<&str> = if report.units.is_empty() { patches.collect() } else { sources.collect() };
    let why = "the patched source compiles to the same code and data";
    let hunks = report.hunks.iter().map(|hunk| {
        let why = hunk.why.as_deref().unwrap_or_default();
        format!("{}:{} {}: {why}", hunk.patch, hunk.line, hunk.file)
    });
    Refusal::new(Code::NothingChanges, subject.join(", "), why).with_details(hunks.take(MOST_HUNKS).collect())
}

/// How many hunks a message names.
const MOST_HUNKS: usize = 20;

/// Nothing may be said to change nothing if it is not known why.
fn unexplained(hunks: &[HunkReport]) -> Vec<Refusal> {
    let refuse = |hunk: &HunkReport| {
        let subject = format!("hunk {} of {}", hunk.hunk, hunk.file);
        let why = hunk.why.clone().unwrap_or_default();
        Refusal::new(Code::UnexplainedHunk, subject, why).at(&hunk.file, None)
    };
    hunks.iter().filter(|hunk| hunk.effect == Effect::Unexplained).map(refuse).collect()
}

fn unexplained_note(hunk: &HunkReport) -> Option<Note> {
    (hunk.effect == Effect::Unexplained).then(|| Note {
        kind: NoteKind::Fact,
        subject: hunk.file.clone(),
        text: format!("hunk {} of {}: {}", hunk.hunk, hunk.patch, hunk.why.as_deref().unwrap_or_default()),
    })
}
