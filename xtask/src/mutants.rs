//! Wrong modules made out of right ones: the audit refuses every one of them, and none of the right ones.
//!
//! Each patch of the trials that becomes a livepatch is built; in copies of the module one thing is changed, of the kinds in
//! `mutate`. A copy that the audit lets pass is printed: it is equal in meaning, or the audit has a hole.

mod mutate;

use crate::selfcheck::{Random, SEED};
use crate::trial::{Case, cases};
use crate::{kernels, narrate, packages};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kmend_build::{Materials, NoMaterials, Request};
use kmend_object::Object;
use kmend_store::{Cache, Kernel};
use mutate::Kind;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

/// How often a kind is tried on modules that may have nothing of it.
const MOST_TRIES: usize = 2000;

/// What to make.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    kernels: kernels::Wanted,
    /// Wrong modules of each kernel
    #[arg(long, value_name = "N", default_value_t = 1000)]
    count: usize,
    /// Where the random numbers start
    #[arg(long, value_name = "N", default_value_t = SEED)]
    seed: u64,
    /// Only of patches whose name holds this text
    filter: Option<String>,
}

/// A right module, and what it is made from.
struct Right {
    name: String,
    object: Object,
    originals: Vec<Object>,
    materials: Materials,
}

/// How many wrong modules of a kind were made, and how many of them passed.
pub(crate) type Counts = BTreeMap<Kind, (usize, usize)>;

/// Makes them for each kernel and prints a table. Fails if one passes.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure()?;
    let cache = Cache::open()?;
    let mut table = narrate::table(&["kernel", "what is wrong", "made", "passed"]);
    let mut survivors = Vec::new();
    for kernel in options.kernels.names() {
        let start = Instant::now();
        let kernel = kernels::choose(&cache, kernel)?;
        let wanted = |case: &Case| options.filter.as_ref().is_none_or(|filter| case.name.contains(filter));
        let rights = rights(&cache, &kernel, wanted)?;
        narrate::say(&format!("{}: {} right modules pass", kernel.release, rights.len()));
        let (counts, passed) = mutants(&rights, &kernel.release, options.count, options.seed);
        for (kind, (made, passed)) in counts {
            table.add_row([kernel.release.clone(), kind.to_string(), made.to_string(), passed.to_string()]);
        }
        survivors.extend(passed.into_iter().map(|what| format!("{}: {what}", kernel.release)));
        narrate::say(&format!("{}: {}", kernel.release, narrate::seconds(start.elapsed())));
    }
    println!("{table}");
    for survivor in &survivors {
        println!("PASSED {survivor}");
    }
    Ok(if survivors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The same as a trial: with few patches and few wrong modules unless all are asked for.
pub(crate) fn trial(cache: &Cache, kernel: &Kernel, all: bool) -> Result<()> {
    const FEW: [&str; 3] = ["jump-label", "static-call", "update-module"];
    let wanted = |case: &Case| all || FEW.contains(&case.name.as_str());
    let rights = rights(cache, kernel, wanted)?;
    let (_, passed) = mutants(&rights, &kernel.release, if all { 1000 } else { 60 }, SEED);
    ensure!(passed.is_empty(), "the audit lets pass what is wrong:\n  {}", passed.join("\n  "));
    Ok(())
}

/// Builds the modules; each must pass.
fn rights(cache: &Cache, kernel: &Kernel, wanted: impl Fn(&Case) -> bool) -> Result<Vec<Right>> {
    let mut rights = Vec::new();
    for case in cases()?.iter().filter(|case| case.works() && wanted(case)) {
        if let Some(right) = right(cache, kernel, case).with_context(|| case.name.clone())? {
            rights.push(right);
        }
    }
    ensure!(!rights.is_empty(), "no patch becomes a livepatch");
    Ok(rights)
}

/// `None` where the kernel has something that the patch is refused for.
fn right(cache: &Cache, kernel: &Kernel, case: &Case) -> Result<Option<Right>> {
    let folder = tempfile::tempdir()?;
    for patches in case.sources() {
        let request = Request {
            cache,
            kernel,
            patches: patches.clone(),
            name: Some(case.name.clone()),
            replace: false,
            fixes: Vec::new(),
            engine: None,
            output: folder.path().to_owned(),
            explain: false,
            signer: None,
        };
        let built = kmend_build::build(&request, &|_| {})?;
        let Some(module) = built.module else {
            let text: Vec<String> = built.report.refusals.iter().map(|one| one.refusal.to_string()).collect();
            ensure!(!text.iter().any(|text| text.contains("audit:")), "a right module is refused: {text:?}");
            continue;
        };
        let bytes = std::fs::read(&module)?;
        let materials = match Materials::make(cache, kernel, &patches, &bytes, &|_| {}) {
            Ok(materials) => materials,
            Err(NoMaterials::Failed(error)) => return Err((*error).into()),
            Err(NoMaterials::Refused(refusals)) => bail!("it was built, and is refused: {refusals:?}"),
        };
        let object = Object::parse(&bytes)?;
        // What is written anew from what was read is the same module.
        let audit = materials.audit(&object.write()?)?;
        ensure!(audit.refusals.is_empty(), "a right module is refused: {:?}", audit.refusals);
        let originals =
            materials.units().iter().map(|unit| Object::parse(&unit.plain)).collect::<Result<_, _>>()?;
        return Ok(Some(Right { name: case.name.clone(), object, originals, materials }));
    }
    Ok(None)
}

/// Makes wrong modules, the kinds in turns, and says which pass.
fn mutants(rights: &[Right], release: &str, count: usize, seed: u64) -> (Counts, Vec<String>) {
    let mut random = Random::new(seed, release, "mutants");
    let (mut counts, mut passed) = (Counts::new(), Vec::new());
    for number in 0..count {
        let kind = Kind::ALL[number % Kind::ALL.len()];
        let made = (0..MOST_TRIES).find_map(|_| {
            let right = random.one_of(rights)?;
            let (object, what) = mutate::mutate(&right.object, &right.originals, kind, &mut random)?;
            Some((right, object, what))
        });
        // Few modules may have nothing of a kind, such as a function of the same size.
        let Some((right, object, what)) = made else { continue };
        let survives = match object.write() {
            Ok(bytes) => right.materials.audit(&bytes).is_ok_and(|audit| audit.refusals.is_empty()),
            Err(_) => false,
        };
        let entry = counts.entry(kind).or_default();
        entry.0 += 1;
        if survives {
            entry.1 += 1;
            passed.push(format!("{kind}, {}: {what}", right.name));
        }
    }
    (counts, passed)
}
