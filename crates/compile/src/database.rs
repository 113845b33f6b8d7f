//! The compile database: how the kernel's build compiles each of its units, from one dry run.
//!
//! `make -n V=1` prints for every unit the line that kbuild's `if_changed_rule` runs. It ends in
//! `scripts/basic/fixdep DEPFILE TARGET 'COMMAND'` (scripts/Makefile.lib, `cmd_and_fixdep`), and that
//! COMMAND, quoted once for the shell, is the compile command: the one place where it stands alone.

use crate::error::{CompileError, io_error};
use crate::recipes::Recipes;
use crate::scan::folder_of;
use crate::shell;
use kmend_process::Command;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

/// What a unit becomes a part of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// The kernel image.
    Vmlinux,
    /// A module.
    Module {
        /// Its name in the running kernel, such as `nf_conntrack`.
        name: String,
        /// Its path in the build without `.ko`, such as `net/netfilter/nf_conntrack`.
        file: String,
    },
}

/// A translation unit: one source compiled once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The source, from the tree's root.
    pub source: String,
    /// The source as the command names it, which `__FILE__` shows: for `virt/kvm/kvm_main.c` that is
    /// `arch/x86/kvm/../../../virt/kvm/kvm_main.c`.
    pub named: String,
    /// The object, from the tree's root.
    pub object: String,
    /// The compiler's arguments, without the dependency file, `-c`, `-o OBJECT` and the source.
    pub arguments: Vec<String>,
    /// What it becomes a part of.
    pub owner: Owner,
    /// The further modules that its object is linked into: it is compiled once, and its code is in each of them.
    pub shared_by: Vec<Owner>,
    /// The arguments with which objtool is run on this unit's object, without the object; `None` where the
    /// build runs objtool later, on what is linked from several objects.
    pub objtool: Option<Vec<String>>,
}

impl Unit {
    /// A run of the compiler as the kernel's build has it, without debug information: that changes no code, and takes time.
    pub(crate) fn compiler(&self, compiler: &str) -> Command {
        Command::new(compiler)
            .args(self.arguments.iter().filter(|argument| !asks_for_debug_information(argument)))
    }
}

/// `-g` and its kin. They add sections of their own and change no code.
pub(crate) fn asks_for_debug_information(argument: &str) -> bool {
    argument.starts_with("-g")
}

/// The arguments with which the kernel's build runs objtool, without the object's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjtoolArguments {
    /// On modules, or on the units of modules where it runs on every unit.
    pub module: Option<Vec<String>>,
    /// On `vmlinux.o`, where the build does.
    pub vmlinux: Option<Vec<String>>,
}

/// All units of a kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    units: Vec<Unit>,
    /// Ranges of `units`, which are in the order of their sources.
    by_source: HashMap<String, std::ops::Range<usize>>,
    /// How objtool is run.
    pub objtool: ObjtoolArguments,
    /// The arguments with which the build runs genksyms on every unit that exports symbols; `None` where it does not,
    /// because symbols have no CRCs or get them in another way.
    pub genksyms: Option<Vec<String>>,
    /// What the build reads beside units; `None` if that is not known yet.
    pub(crate) recipes: Option<Recipes>,
}

impl Database {
    /// Reads what the dry run printed.
    pub fn from_dry_run(log: &[u8]) -> Result<Self, CompileError> {
        let mut units: Vec<Unit> = Vec::new();
        let mut modules: HashMap<String, Vec<String>> = HashMap::new();
        let mut genksyms = None;
        let mut runs: BTreeMap<(bool, String), usize> = BTreeMap::new();
        for line in log.split(|&byte| byte == b'\n') {
            if let Some(at) = find(line, FIXDEP) {
                units.extend(unit(&String::from_utf8_lossy(
                    line.get(at + FIXDEP.len()..).unwrap_or_default(),
                )));
            }
            if let Some((module, objects)) = module_objects(line) {
                for object in objects {
                    let owners = modules.entry(object).or_default();
                    if !owners.contains(&module) {
                        owners.push(module.clone());
                    }
                }
            }
            if let Some((object, arguments)) = objtool_run(line) {
                *runs.entry((object == "vmlinux.o", arguments)).or_default() += 1;
            }
            genksyms = genksyms.or_else(|| genksyms_run(line));
        }
        if units.is_empty() {
            return Err(CompileError::Database { why: "the dry run printed no compile command".to_owned() });
        }
        for unit in &mut units {
            let Some(mut owners) = modules.remove(&unit.object) else { continue };
            owners.sort();
            let mut owners = owners.into_iter().map(module_owner);
            if let (Owner::Module { .. }, Some(first)) = (&unit.owner, owners.next()) {
                unit.owner = first;
                unit.shared_by = owners.collect();
            }
        }
        let most_common = |wanted: &dyn Fn(bool, &str) -> bool| {
            let run = runs
                .iter()
                .filter(|((vmlinux, run), _)| wanted(*vmlinux, run))
                .max_by_key(|(_, count)| **count);
            run.map(|((_, arguments), _)| arguments.split(' ').map(str::to_owned).collect())
        };
        let objtool = ObjtoolArguments {
            module: most_common(&|_, run| run.split(' ').any(|word| word == "--module")),
            vmlinux: most_common(&|vmlinux, _| vmlinux),
        };
        Ok(Self::new(units, objtool, genksyms))
    }

    fn new(mut units: Vec<Unit>, objtool: ObjtoolArguments, genksyms: Option<Vec<String>>) -> Self {
        units.sort_by(|a, b| (&a.source, &a.object).cmp(&(&b.source, &b.object)));
        units.dedup_by(|a, b| a.object == b.object);
        let mut by_source: HashMap<String, std::ops::Range<usize>> = HashMap::new();
        for (index, unit) in units.iter().enumerate() {
            by_source.entry(unit.source.clone()).or_insert(index..index).end = index + 1;
        }
        Self { units, by_source, objtool, genksyms, recipes: None }
    }

    /// The same with what the build reads beside units.
    pub(crate) fn with_recipes(self, recipes: Recipes) -> Self {
        Self { recipes: Some(recipes), ..self }
    }

    /// Takes over what only a newer listing knows, for the units that are known.
    pub(crate) fn complete_from(&mut self, listed: Database) {
        let mut shared: HashMap<String, (Owner, Vec<Owner>)> =
            listed.units.into_iter().map(|unit| (unit.object, (unit.owner, unit.shared_by))).collect();
        for unit in &mut self.units {
            if let Some((owner, shared_by)) = shared.remove(&unit.object) {
                (unit.owner, unit.shared_by) = (owner, shared_by);
            }
        }
        self.recipes = listed.recipes;
    }

    /// The commands of the build that read a file which is no unit's source.
    pub(crate) fn recipes(&self) -> &Recipes {
        static NONE: Recipes = Recipes::none();
        self.recipes.as_ref().unwrap_or(&NONE)
    }

    /// The units compiled from `source` (a path from the tree's root); none if it is not in this kernel.
    pub fn units_of(&self, source: &str) -> &[Unit] {
        self.by_source.get(source).and_then(|range| self.units.get(range.clone())).unwrap_or_default()
    }

    /// All units, in the order of their sources.
    pub fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Writes the database with `fingerprint`, which tells what it was made from.
    pub fn write(&self, path: &Path, fingerprint: &str) -> Result<(), CompileError> {
        let stored = Stored::from_database(self, fingerprint);
        let bytes =
            serde_json::to_vec(&stored).map_err(|error| CompileError::Database { why: error.to_string() })?;
        let partial = path.with_extension("partial");
        fs::write(&partial, bytes).map_err(io_error("write", &partial))?;
        fs::rename(&partial, path).map_err(io_error("write", path))
    }

    /// Reads the database back; `None` if it is missing, damaged or made from something else.
    pub fn read(path: &Path, fingerprint: &str) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        if stored.fingerprint == fingerprint { stored.into_database() } else { None }
    }
}

/// A module by its path without extension.
fn module_owner(file: String) -> Owner {
    // The module loader's name: scripts/Makefile.lib, `name-fix-token`.
    let name = file.rsplit('/').next().unwrap_or_default().replace(['-', ','], "_");
    Owner::Module { name, file }
}

const FIXDEP: &[u8] = b"scripts/basic/fixdep ";
/// What runs after kbuild set its traps, so not the copy that it prints.
const MODULE_PRINTF: &[u8] = b" PIPE; printf '%s\\n' ";
const OBJTOOL: &[u8] = b"tools/objtool/objtool ";

fn find(line: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = line.get(from..)?.iter().position(|&byte| byte == first) {
        if line.get(from + at..)?.starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// The object and the arguments of the first run of objtool in a line.
fn objtool_run(line: &[u8]) -> Option<(String, String)> {
    let mut words = arguments_of(line, OBJTOOL)?;
    let object = words.pop()?;
    has_extension(&object, "o").then(|| (object, words.join(" ")))
}

/// The arguments of genksyms in a line that feeds it a unit (scripts/Makefile.build, `cmd_gensymtypes_c`); others build it.
fn genksyms_run(line: &[u8]) -> Option<Vec<String>> {
    arguments_of(line.get(find(line, b"-D__GENKSYMS__")?..)?, b"scripts/genksyms/genksyms ")
}

/// The arguments of the first run of a program in a line.
fn arguments_of(line: &[u8], program: &[u8]) -> Option<Vec<String>> {
    let rest = line.get(find(line, program)? + program.len()..)?;
    let end = rest.iter().position(|byte| b";'\"`)>&|".contains(byte)).unwrap_or(rest.len());
    let text = String::from_utf8_lossy(rest.get(..end)?);
    Some(text.split_whitespace().map(str::to_owned).collect())
}

/// The unit whose fixdep call has these arguments; `None` for host programs, assembly and other commands.
fn unit(call: &str) -> Option<Unit> {
    let call = shell::words(call);
    let [_, object, command, ..] = call.as_slice() else { return None };
    let words = shell::words(command);
    let mut commands = words.split(|word| word == ";");
    let compile = commands.next()?;
    let source = compile.last()?;
    let is_kernel = compile.iter().any(|word| word == "-D__KERNEL__");
    if !is_kernel || !has_extension(source, "c") || !has_extension(object, "o") {
        return None;
    }
    let objtool = commands
        .find(|command| command.first().is_some_and(|word| word.ends_with("tools/objtool/objtool")))
        .and_then(|command| command.get(1..command.len().saturating_sub(1)))
        .map(<[String]>::to_vec);
    let arguments = compile_arguments(compile.get(1..compile.len() - 1)?);
    let (named, object) = (source.strip_prefix("./").unwrap_or(source).to_owned(), from_root("", object));
    Some(Unit {
        owner: owner(&arguments),
        source: from_root("", &named),
        shared_by: Vec::new(),
        named,
        object,
        arguments,
        objtool,
    })
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// The arguments without the dependency file and without what is to be written where.
fn compile_arguments(words: &[String]) -> Vec<String> {
    let mut arguments = Vec::with_capacity(words.len());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-o" => drop(words.next()),
            "-c" => {}
            word if word.starts_with("-Wp,-MMD,") || word.starts_with("-Wp,-MD,") => {}
            word => arguments.push(word.to_owned()),
        }
    }
    arguments
}

/// The owner as the command tells it; a module's path is not in it.
fn owner(arguments: &[String]) -> Owner {
    if !arguments.iter().any(|argument| argument == "-DMODULE") {
        return Owner::Vmlinux;
    }
    let name = arguments.iter().rev().find_map(|argument| argument.strip_prefix("-DKBUILD_MODNAME="));
    Owner::Module { name: name.unwrap_or_default().trim_matches('"').to_owned(), file: String::new() }
}

/// A module's path without extension, and its objects, from the command that writes its `.mod` file:
/// `printf '%s\n' OBJECT... | awk ... > MODULE.mod` (scripts/Makefile.build, `cmd_mod`). The objects are
/// named from the module's folder.
fn module_objects(line: &[u8]) -> Option<(String, Vec<String>)> {
    let start = find(line, MODULE_PRINTF)?;
    let text = String::from_utf8_lossy(line.get(start + " PIPE; ".len()..)?);
    let words = shell::words(&text);
    let pipe = words.iter().position(|word| word == "|")?;
    let target = words.iter().position(|word| word == ">").and_then(|at| words.get(at + 1))?;
    let module = target.strip_suffix(".mod")?;
    let objects = words.get(2..pipe)?.iter().map(|object| from_root(folder_of(module), object)).collect();
    Some((module.to_owned(), objects))
}

/// A path named from `folder`, from the root.
pub(crate) fn from_root(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The file's form: every argument once, units refer to them by number. The arguments of all units of a
/// kernel are 17 MB of text, but only a few thousand different ones.
#[derive(Serialize, Deserialize)]
struct Stored {
    fingerprint: String,
    arguments: Vec<String>,
    objtool: ObjtoolArguments,
    genksyms: Option<Vec<String>>,
    units: Vec<StoredUnit>,
    /// The further owners of units, by their objects. (What an earlier version wrote lacks the two.)
    #[serde(default)]
    shared: BTreeMap<String, Vec<Owner>>,
    #[serde(default, rename = "inputs")]
    recipes: Option<Recipes>,
}

#[derive(Serialize, Deserialize)]
struct StoredUnit(String, String, Vec<u32>, Owner, Option<Vec<u32>>);

impl Stored {
    fn from_database(database: &Database, fingerprint: &str) -> Self {
        let mut table: HashMap<String, u32> = HashMap::new();
        let mut arguments = Vec::new();
        let mut numbers = |words: &[String]| -> Vec<u32> {
            let number = |word: &String| {
                *table.entry(word.clone()).or_insert_with(|| {
                    arguments.push(word.clone());
                    arguments.len() as u32 - 1
                })
            };
            words.iter().map(number).collect()
        };
        let units = database
            .units
            .iter()
            .map(|unit| {
                let objtool = unit.objtool.as_deref().map(&mut numbers);
                let Unit { named, object, arguments, owner, .. } = unit.clone();
                StoredUnit(named, object, numbers(&arguments), owner, objtool)
            })
            .collect();
        let is_shared = |unit: &&Unit| !unit.shared_by.is_empty();
        let shared = database.units.iter().filter(is_shared);
        let shared = shared.map(|unit| (unit.object.clone(), unit.shared_by.clone())).collect();
        let Database { objtool, genksyms, recipes, .. } = database.clone();
        Self { fingerprint: fingerprint.to_owned(), arguments, objtool, genksyms, units, shared, recipes }
    }

    /// `None` if a number is out of range.
    fn into_database(mut self) -> Option<Database> {
        let arguments = std::mem::take(&mut self.arguments);
        let words = |numbers: Vec<u32>| -> Option<Vec<String>> {
            numbers.into_iter().map(|number| arguments.get(number as usize).cloned()).collect()
        };
        let mut units = Vec::with_capacity(self.units.len());
        for StoredUnit(named, object, arguments, owner, objtool) in std::mem::take(&mut self.units) {
            let source = from_root("", &named);
            let objtool = match objtool {
                Some(numbers) => Some(words(numbers)?),
                None => None,
            };
            let shared_by = self.shared.remove(&object).unwrap_or_default();
            units.push(Unit {
                source,
                named,
                object,
                arguments: words(arguments)?,
                owner,
                shared_by,
                objtool,
            });
        }
        let database = Database::new(units, self.objtool, self.genksyms);
        Some(Database { recipes: self.recipes, ..database })
    }
}

#[cfg(test)]
mod tests;
