//! `kmend load` and `kmend replace`

use crate::failure::{End, Failure};
use crate::journal;
use crate::output::Output;
use crate::style::{self, DIM, GREEN, YELLOW, paint};
use crate::watcher::Watcher;
use clap::Args;
use kmend_install::{Recorder, Store};
use kmend_live::{
    Candidate, Late, LiveError, LoadOptions, Loaded, OVERRIDABLE, Parameter, State, Switch, System,
};
use kmend_refusal::{Code, Coded};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Load livepatches into the running kernel, and wait until every task runs them
///
/// First all the files are checked: that each is for the kernel that runs (release and build id), that it is not loaded
/// already, that it patches no function that another loaded livepatch patches and that it does not replace, that ftrace is
/// on, and that it is signed where this kernel takes signed modules only. If /etc/kmend/trusted has certificates, one
/// of them must have signed it, whatever the kernel asks for. Then they are loaded in their order.
///
/// The kernel moves its tasks to the new code one by one, each when it runs none of the old. After 15 s it signals those
/// that are left. A transition that is not over after --timeout is reversed: the tasks that held it are named, and the
/// livepatch is unloaded again. With --wait it is left to the kernel instead, which goes on with it. Ctrl-C on a terminal
/// asks what to do; elsewhere it leaves the transition to the kernel.
///
/// What stands after `--` are parameters of the module, as insmod and modprobe take them. The kernel would ignore one that
/// the module does not have; kmend refuses it.
///
/// Patches that were built with `kmend build --engine` are loaded into kmend's consistency engine, which must be loaded
/// (`kmend engine load`) and offers more models than the kernel: --model and --redirect choose, else the patch does. What they
/// are for is told by the modules themselves; --engine makes sure of it.
///
/// Livepatches of other tools are loaded as well: what kmend cannot read in them (a build id, a patch table that is made at run
/// time) it does not check. A check that you know better than can be overridden with --despite and its code.
///
/// A livepatch that was built to replace others (which is what `kmend build` does unless told otherwise) takes the
/// place of all that are loaded; `kmend inspect` tells. What kmend loads is gone after the next boot, unless it is
/// installed (`kmend install`); what is installed for the running kernel can be given by its name.
///
/// Needs root. Exit codes: 0 loaded, 3 it is loaded already, 2 refused, 1 failed or not over in time.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Load {
    /// The livepatch modules that `kmend build` wrote, or names of installed ones
    #[arg(value_name = "FILE|NAME", required = true)]
    modules: Vec<PathBuf>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    engine: ForEngine,
    /// Parameters for the module, if it is one
    #[arg(value_name = "PARAMETER[=VALUE]", last = true)]
    parameters: Vec<Parameter>,
}

/// Load a livepatch that takes the place of all that are loaded, in one step
///
/// No task runs unpatched code in between: the kernel moves each from what it runs to the new livepatch at once, and then
/// unloads the old ones' code. Refused if the module was built with --no-replace. Otherwise as `kmend load`.
///
/// Needs root. Exit codes: 0 loaded, 3 it is loaded already, 2 refused, 1 failed or not over in time.
#[derive(Debug, Args)]
#[command(after_help = REPLACE_EXAMPLES)]
pub(crate) struct Replace {
    /// The livepatch module that `kmend build` wrote
    #[arg(value_name = "FILE")]
    module: PathBuf,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    engine: ForEngine,
}

/// How kmend's consistency engine is to switch what is loaded.
#[derive(Debug, Args)]
struct ForEngine {
    /// Refuse modules that are not for kmend's consistency engine
    #[arg(long)]
    engine: bool,
    /// The consistency model, for modules that are
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// How callers are redirected, for modules that are
    #[arg(long, value_name = "HOW")]
    redirect: Option<String>,
}

#[derive(Debug, Args)]
struct How {
    /// After how many seconds a transition that is not over is reversed
    #[arg(long, value_name = "S", default_value_t = LoadOptions::default().timeout.as_secs())]
    timeout: u64,
    /// Wait this many seconds, and then leave the transition to the kernel; with 0 do not wait, and count it as loaded
    #[arg(long, value_name = "S", conflicts_with = "timeout")]
    wait: Option<u64>,
    /// Override the refusal with this code: KM0703, KM0710, KM0711, KM0712, KM0713 or KM0810 (may be given more than once)
    #[arg(long, value_name = "CODE", value_parser = overridable)]
    despite: Vec<Code>,
    /// Make all the checks, and load nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  kmend load livepatch-fix.ko
  kmend load livepatch-first.ko livepatch-second.ko --timeout 300
  kmend load livepatch-fix.ko --dry-run
  kmend load livepatch-fix.ko --engine --model stop-machine
  kmend load livepatch-theirs.ko -- debug=1 name=\"two words\"
  kmend load livepatch_fix";

const REPLACE_EXAMPLES: &str = "\
Example:
  kmend replace livepatch-all-fixes.ko";

/// What was done with the files.
#[derive(Debug, Default, Serialize)]
struct Loads {
    /// Whether nothing was to be changed.
    dry_run: bool,
    /// What the module was or would be given.
    parameters: Vec<Parameter>,
    /// What was or would be overridden.
    despite: Vec<Override>,
    /// What was loaded, in order.
    loaded: Vec<Loaded>,
    /// What would be loaded.
    would_load: Vec<String>,
    /// What was loaded before.
    already_loaded: Vec<String>,
    /// What is to be known.
    notes: Vec<String>,
}

/// What speaks against a livepatch, and is overridden.
#[derive(Debug, Serialize)]
struct Override {
    code: Code,
    why: String,
}

impl Load {
    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.how.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let paths: Vec<PathBuf> =
            self.modules.iter().map(|module| file(&system, module)).collect::<Result<_, _>>()?;
        if paths.len() > 1 && !self.parameters.is_empty() {
            let why = "parameters are for one module: load them one by one";
            return Err(Failure::new(Code::Usage, "", why));
        }
        let (mut candidates, already_loaded) = check(&system, &paths, &self.how.despite)?;
        for candidate in &mut candidates {
            let subject = candidate.path.display().to_string();
            candidate.give(&self.parameters).map_err(|errors| Failure::all(&subject, &errors))?;
        }
        self.engine.apply(&system, &mut candidates)?;
        load(&system, &candidates, already_loaded, &self.how, output)
    }
}

impl Replace {
    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.how.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let (mut candidates, already_loaded) =
            check(&system, std::slice::from_ref(&self.module), &self.how.despite)?;
        self.engine.apply(&system, &mut candidates)?;
        for candidate in &candidates {
            candidate.require_replace()?;
        }
        load(&system, &candidates, already_loaded, &self.how, output)
    }
}

/// The file that is meant: a word that is no file's name may be that of an installed livepatch.
fn file(system: &System, module: &Path) -> Result<PathBuf, Failure> {
    match module.to_str() {
        Some(name) if !module.exists() && crate::arguments::module_name(name).is_ok() => {
            let name = name.replace('-', "_");
            Ok(Store::of(system).path_of(&system.release()?, &name)?)
        }
        _ => Ok(module.to_owned()),
    }
}

/// Checks all the files. One that is loaded already is no reason not to load the others.
fn check(
    system: &System,
    paths: &[PathBuf],
    despite: &[Code],
) -> Result<(Vec<Candidate>, Vec<String>), Failure> {
    let (mut candidates, mut loaded, mut failure) = (Vec::new(), Vec::new(), None::<Failure>);
    for (path, checked) in paths.iter().zip(system.check_despite(paths, despite)) {
        match checked {
            Ok(candidate) => candidates.push(candidate),
            Err(errors) => match errors.as_slice() {
                [LiveError::AlreadyLoaded(name)] if paths.len() > 1 => loaded.push(name.clone()),
                errors => {
                    let reasons = Failure::all(&path.display().to_string(), errors);
                    failure = Some(match failure {
                        None => reasons,
                        Some(failure) => failure.and(reasons),
                    });
                }
            },
        }
    }
    failure.map_or(Ok((candidates, loaded)), Err)
}

fn load(
    system: &System,
    candidates: &[Candidate],
    already_loaded: Vec<String>,
    how: &How,
    output: &mut Output,
) -> Result<End, Failure> {
    let mut loads = Loads {
        dry_run: how.dry_run,
        parameters: candidates.iter().flat_map(|candidate| candidate.parameters.clone()).collect(),
        despite: candidates.iter().flat_map(|candidate| candidate.despite.iter().map(Override::of)).collect(),
        already_loaded,
        ..Loads::default()
    };
    if how.dry_run {
        loads.would_load = candidates.iter().map(|candidate| candidate.module.name.clone()).collect();
    } else {
        let mut watcher = Watcher::new("load")?;
        let mut recorder = Recorder::new(system);
        for candidate in candidates {
            let loaded = recorder
                .load(candidate, how.options(), &mut |waiting| watcher.look(waiting))
                .map_err(|error| {
                    let failure = Failure::about(candidate.path.display().to_string(), &error);
                    failure
                        .with_detail(loads.loaded.iter().map(|loaded| format!("{} is loaded", loaded.name)))
                })?;
            journal::changed("load", &loaded.name, &done(&loaded, candidate));
            loads.loaded.push(loaded);
        }
        loads.notes = recorder.notes();
    }
    let nothing = loads.loaded.is_empty() && loads.would_load.is_empty();
    output.document(&loads, text)?;
    Ok(if nothing { End::Nothing } else { End::Done })
}

impl ForEngine {
    /// Gives each what it is to be switched by, if it can be.
    fn apply(&self, system: &System, candidates: &mut [Candidate]) -> Result<(), Failure> {
        let switch = Switch { model: self.model.clone(), redirect: self.redirect.clone() };
        for candidate in candidates {
            let mut errors = system.check_switch(&candidate.module, &switch);
            if self.engine && candidate.module.engine.is_none() && errors.is_empty() {
                errors.push(LiveError::NotForEngine(candidate.module.name.clone()));
            }
            if !errors.is_empty() {
                return Err(Failure::all(&candidate.path.display().to_string(), &errors));
            }
            candidate.switch = switch.clone();
        }
        Ok(())
    }
}

impl How {
    fn options(&self) -> LoadOptions {
        let (timeout, late) = match self.wait {
            None => (self.timeout, Late::Reverse),
            Some(0) => (0, Late::Accept),
            Some(wait) => (wait, Late::Leave),
        };
        LoadOptions { timeout: Duration::from_secs(timeout), late, ..LoadOptions::default() }
    }
}

impl Override {
    fn of(error: &LiveError) -> Override {
        Override { code: error.code(), why: error.to_string() }
    }
}

/// For clap: the code of a refusal that can be overridden.
fn overridable(text: &str) -> Result<Code, String> {
    let found = OVERRIDABLE.iter().find(|code| code.name() == text);
    let codes = || OVERRIDABLE.map(Code::name).join(", ");
    found.copied().ok_or_else(|| format!("these refusals can be overridden: {}", codes()))
}

/// What the journal is told of a load.
fn done(loaded: &Loaded, candidate: &Candidate) -> String {
    let mut words = vec!["loaded".to_owned()];
    if loaded.state == State::Enabling {
        words.push("its transition goes on".into());
    }
    words.extend(loaded.engine.iter().map(|engine| format!("by the consistency engine, {}", engine.model)));
    words.extend(candidate.parameters.iter().map(|parameter| format!("with {parameter}")));
    words.extend(candidate.despite.iter().map(|error| format!("despite {}", error.code())));
    words.join(", ")
}

fn text(loads: &Loads) -> String {
    let already = loads.already_loaded.iter().map(|name| format!("{} {name}\n", paint(DIM, "loaded before")));
    let with = loads.parameters.iter().fold(String::new(), |text, parameter| format!("{text} {parameter}"));
    let would = loads.would_load.iter().map(|name| format!("{} {name}{with}\n", paint(GREEN, "would load")));
    let loaded = loads.loaded.iter().map(|loaded| {
        let by =
            loaded.signed_by.as_ref().map(|by| format!(", signed by {}", by.subject)).unwrap_or_default();
        let how = match loaded.state {
            State::Enabling => ", its transition goes on in the kernel".to_owned(),
            _ => format!(" in {:.2} s", loaded.time.as_secs_f64()),
        };
        let engine = loaded.engine.as_ref().map(super::list::engine).unwrap_or_default();
        format!("{} {}{with}{engine}{how}{by}\n", paint(GREEN, "loaded"), loaded.name)
    });
    let despite =
        loads.despite.iter().map(|it| format!("{} {}: {}\n", paint(YELLOW, "despite"), it.code, it.why));
    let notes = loads.notes.iter().map(style::note);
    already.chain(would).chain(loaded).chain(despite).chain(notes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Arguments;
    use clap::CommandFactory;

    #[test]
    fn the_help_names_what_can_be_overridden() {
        let mut command = Arguments::command();
        let help = command.find_subcommand_mut("load").unwrap().render_long_help().to_string();
        for code in OVERRIDABLE {
            assert!(help.contains(code.name()), "{help}");
            assert_eq!(overridable(code.name()), Ok(code));
        }
        assert!(overridable("KM0701").is_err());
    }
}
