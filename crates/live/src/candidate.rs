//! What is checked of a livepatch before the kernel sees it.

use crate::error::LiveError;
use crate::parameters::{self, Parameter};
use crate::patches::{LoadedPatch, State};
use crate::switch::Switch;
use crate::system::{System, check_name};
use kmend_inspect::Inspection;
use kmend_kernel::{LARGEST_MODULE, Module, Packing, read_file};
use kmend_refusal::{Code, Coded};
use kmend_sign::{CertificateFacts, sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Refusals that whoever loads may override: the kernel judges by itself whether it takes such a module, or an administrator may
/// know better. Whom a machine trusts is not among them.
pub const OVERRIDABLE: [Code; 6] = [
    Code::WrongKernel,
    Code::BuildIdDiffers,
    Code::FunctionConflict,
    Code::FtraceOff,
    Code::SignatureNeeded,
    Code::RedirectedByOther,
];

/// A livepatch that can be loaded: its file, as it was checked.
#[derive(Debug)]
pub struct Candidate {
    /// The file.
    pub path: PathBuf,
    /// What the module says of itself.
    pub module: Inspection,
    /// The SHA-256 of the file's bytes, in hexadecimal.
    pub sha256: String,
    /// The trusted certificate by which its signature is valid; `None` if this machine trusts nobody in particular.
    pub signed_by: Option<CertificateFacts>,
    /// What its module is given.
    pub parameters: Vec<Parameter>,
    /// How the consistency engine is to switch it, if it is for that.
    pub switch: Switch,
    /// What speaks against it, and was overridden.
    pub despite: Vec<LiveError>,
    /// The names of the parameters that its module has.
    declared: BTreeSet<String>,
    /// What was checked, and is loaded.
    pub(crate) bytes: Vec<u8>,
}

/// A function of an object: the object's name, the function's, and its position counted from 1.
type Target = (String, String, u64);

/// Which livepatch patches a function now.
#[derive(Default)]
struct Owners {
    kernel: BTreeMap<Target, String>,
    /// The same in the consistency engine, which does not tell positions.
    engine: BTreeMap<(String, String), String>,
}

impl Owners {
    /// What is loaded.
    fn of(patches: &[LoadedPatch]) -> Owners {
        let mut owners = Owners::default();
        for patch in patches.iter().filter(|patch| patch.engine.is_none() || patch.state() != State::Disabled)
        {
            let functions = patch.objects.iter().flat_map(|object| {
                let target = |name: &String, position| (object.name.clone(), name.clone(), position);
                object.functions.iter().map(move |function| target(&function.name, function.position))
            });
            owners.add(patch.engine.is_some(), functions, &patch.name);
        }
        owners
    }

    /// A module that is loaded after these.
    fn load(&mut self, module: &Inspection) {
        let engine = module.engine.is_some();
        if module.replace == Some(true) {
            if engine { self.engine.clear() } else { self.kernel.clear() }
        }
        self.add(engine, targets(module), &module.name);
    }

    fn add(&mut self, engine: bool, functions: impl Iterator<Item = Target>, name: &str) {
        for target in functions {
            if engine {
                self.engine.insert((target.0, target.1), name.to_owned());
            } else {
                self.kernel.insert(target, name.to_owned());
            }
        }
    }

    /// Who patches a function by the same of kernel and engine.
    fn same(&self, engine: bool, target: &Target) -> Option<&String> {
        if engine { self.by_engine(target) } else { self.kernel.get(target) }
    }

    /// Who patches it by the other of the two.
    fn other(&self, engine: bool, target: &Target) -> Option<&String> {
        if !engine {
            return self.by_engine(target);
        }
        let positions =
            (target.0.clone(), target.1.clone(), 0)..=(target.0.clone(), target.1.clone(), u64::MAX);
        self.kernel.range(positions).next().map(|(_, name)| name)
    }

    fn by_engine(&self, target: &Target) -> Option<&String> {
        self.engine.get(&(target.0.clone(), target.1.clone()))
    }
}

impl Candidate {
    /// Opens a module's file and reads what it says of itself. The kernel that runs is not asked.
    pub fn open(path: &Path) -> Result<Candidate, Vec<LiveError>> {
        let io = |source| vec![LiveError::Io { path: path.to_owned(), source }];
        let no_livepatch = |why| vec![LiveError::NotALivepatch { what: path.display().to_string(), why }];
        let bytes = read_file(path, LARGEST_MODULE).map_err(io)?;
        if Packing::detect(&bytes).is_some() {
            return Err(no_livepatch("it is packed; unpack it first"));
        }
        let module = Module::parse(&bytes).map_err(|error| vec![error.into()])?;
        let declared = parameters::declared(&module);
        let module = kmend_inspect::read(path, &module)
            .map_err(|_| no_livepatch("it is a module, but its .modinfo does not say `livepatch=Y`"))?;
        check_name(&module.name).map_err(|error| vec![error])?;
        let sha256 = sha256(&bytes);
        Ok(Candidate {
            path: path.to_owned(),
            module,
            sha256,
            signed_by: None,
            parameters: Vec::new(),
            switch: Switch::default(),
            despite: Vec::new(),
            declared,
            bytes,
        })
    }

    /// Gives its module parameters. The kernel would ignore those that the module does not have; they are refused.
    pub fn give(&mut self, parameters: &[Parameter]) -> Result<(), Vec<LiveError>> {
        let unknown =
            parameters.iter().filter(|parameter| !parameters::is_declared(parameter, &self.declared));
        let errors: Vec<LiveError> = unknown
            .map(|parameter| LiveError::NoSuchParameter {
                name: self.module.name.clone(),
                parameter: parameter.name().to_owned(),
                declared: self.declared.iter().cloned().collect(),
            })
            .collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        self.parameters = parameters.to_vec();
        Ok(())
    }

    /// What was read of the file, which is what is loaded.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks that the module was built to take the place of those that are loaded.
    pub fn require_replace(&self) -> Result<(), LiveError> {
        let why = match self.module.replace {
            Some(true) => return Ok(()),
            Some(false) => "was built to be added to the livepatches that are loaded",
            None => "makes its patch table at run time: whether it replaces cannot be read from its file",
        };
        Err(LiveError::DoesNotReplace { name: self.module.name.clone(), why })
    }
}

impl System {
    /// Checks livepatches that shall be loaded one after the other, all before the first is. For each that cannot be,
    /// all the reasons.
    pub fn check(&self, paths: &[PathBuf]) -> Vec<Result<Candidate, Vec<LiveError>>> {
        self.check_despite(paths, &[])
    }

    /// The same. Refusals with one of these codes that can be overridden are: the candidate names them.
    pub fn check_despite(
        &self,
        paths: &[PathBuf],
        despite: &[Code],
    ) -> Vec<Result<Candidate, Vec<LiveError>>> {
        let Ok(patches) = self.patches() else {
            // A file that cannot be read is told first.
            return paths.iter().map(|path| self.without_livepatches(path)).collect();
        };
        let mut owners = Owners::of(&patches);
        let mut names: Vec<String> = Vec::new();
        let mut check = |path: &PathBuf| {
            let mut candidate = Candidate::open(path)?;
            if candidate.module.is_engine() {
                let why = "it is the consistency engine itself: `kmend engine load` loads it";
                return Err(vec![LiveError::NotALivepatch { what: path.display().to_string(), why }]);
            }
            let mut errors = self.misfits(&candidate.module);
            errors.extend(self.vouch(&mut candidate).err());
            errors.extend(self.engine_misfit(&candidate.module));
            errors.extend(no_room(&candidate.module, &patches, &owners));
            if names.contains(&candidate.module.name) {
                errors.push(LiveError::AlreadyLoaded(candidate.module.name.clone()));
            }
            let overridden =
                |error: &LiveError| OVERRIDABLE.contains(&error.code()) && despite.contains(&error.code());
            (candidate.despite, errors) = errors.into_iter().partition(overridden);
            if !errors.is_empty() {
                return Err(errors);
            }
            owners.load(&candidate.module);
            names.push(candidate.module.name.clone());
            Ok(candidate)
        };
        paths.iter().map(&mut check).collect()
    }

    /// Checks that somebody vouches for a livepatch, if this machine trusts certificates.
    pub fn vouch(&self, candidate: &mut Candidate) -> Result<(), LiveError> {
        candidate.signed_by = self.vouched(&candidate.module.name, &candidate.bytes)?;
        Ok(())
    }

    /// Why a livepatch cannot be loaded where the kernel shows none.
    fn without_livepatches(&self, path: &Path) -> Result<Candidate, Vec<LiveError>> {
        let candidate = Candidate::open(path)?;
        self.patches().map_err(|error| vec![error])?;
        Ok(candidate)
    }

    /// Why a module does not fit the kernel that runs, as it is now.
    pub(crate) fn misfits(&self, module: &Inspection) -> Vec<LiveError> {
        let mut errors = Vec::new();
        let name = module.name.clone();
        match self.release() {
            Ok(running) if running != module.kernel => {
                let built_for = if module.kernel.is_empty() {
                    "no kernel that it names".to_owned()
                } else {
                    module.kernel.clone()
                };
                errors.push(LiveError::WrongKernel { name: name.clone(), built_for, running });
            }
            Ok(_) => errors.extend(self.other_build(module)),
            Err(error) => errors.push(error),
        }
        if self.ftrace_enabled() == Some(false) {
            errors.push(LiveError::FtraceOff(name.clone()));
        }
        if !module.signed
            && let Some(why) = self.demands_signatures()
        {
            errors.push(LiveError::Unsigned { name, why });
        }
        errors
    }

    /// The same release may have been built more than once, with functions and symbols in other places.
    fn other_build(&self, module: &Inspection) -> Option<LiveError> {
        let (built_for, running) = (module.build_id.clone()?, self.build_id()?);
        let name = module.name.clone();
        (built_for != running).then_some(LiveError::BuildIdDiffers { name, built_for, running })
    }
}

/// Why a livepatch cannot be loaded beside those that are there.
fn no_room(module: &Inspection, patches: &[LoadedPatch], owners: &Owners) -> Vec<LiveError> {
    let name = &module.name;
    match patches.iter().find(|patch| patch.name == *name && patch.enabled) {
        // A load that was ended has begun it: `load` waits for its end.
        Some(patch) if patch.transition => return Vec::new(),
        Some(_) => return vec![LiveError::AlreadyLoaded(name.clone())],
        None => {}
    }
    let mut errors = Vec::new();
    let engine = module.engine.is_some();
    if let Some(other) = patches.iter().find(|patch| patch.transition && patch.engine.is_some() == engine) {
        errors.push(LiveError::TransitionBusy { name: name.clone(), other: other.name.clone() });
    }
    errors.extend(conflicts(module, owners));
    errors
}

/// What each of several livepatches would undo of those before it, if they were loaded in this order.
pub fn conflicts_in_order(modules: &[Inspection]) -> Vec<LiveError> {
    let (mut owners, mut errors) = (Owners::default(), Vec::new());
    for module in modules {
        errors.extend(conflicts(module, &owners));
        owners.load(module);
    }
    errors
}

/// What a livepatch would undo of others, by which of them patches a function now; and what it cannot patch at all.
fn conflicts(module: &Inspection, owners: &Owners) -> Vec<LiveError> {
    let engine = module.engine.is_some();
    let mut undone: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    let mut taken: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for target in targets(module) {
        if let Some(owner) = owners.same(engine, &target).filter(|_| module.replace != Some(true)) {
            undone.entry(owner).or_default().push(target.1.clone());
        }
        if let Some(owner) = owners.other(engine, &target) {
            taken.entry(owner).or_default().push(target.1);
        }
    }
    let name = || module.name.clone();
    let undone = undone.into_iter().map(|(other, functions)| {
        let other = other.clone();
        LiveError::Conflict { name: name(), other, functions }
    });
    let taken = taken.into_iter().map(|(other, functions)| {
        let other = other.clone();
        LiveError::RedirectedByOther { name: name(), other, functions, engine }
    });
    undone.chain(taken).collect()
}

/// The functions that a module patches. A position of 0 says that the name is the only one, which sysfs shows as 1
/// (Linux, kernel/livepatch/core.c, `klp_init_func`).
fn targets(module: &Inspection) -> impl Iterator<Item = Target> {
    module.objects.iter().flat_map(|object| {
        let target = |name: &String, position: u64| (object.name.clone(), name.clone(), position.max(1));
        object.functions.iter().map(move |function| target(&function.name, function.position))
    })
}

#[cfg(test)]
mod tests;
