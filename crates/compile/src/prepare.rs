//! The prepared tree: made once per kernel, then only read.
//!
//! It is a tree of links ([`crate::tree`]) with the kernel's configuration, its generated headers and the few
//! host programs that the build system needs to tell its commands. Kconfig is never run: see
//! [`crate::configuration`]. The database is written last, by a rename, and its presence says that the tree
//! is complete; whatever is found without it is what a killed run left, and is made anew.

use crate::classify::runs_elsewhere;
use crate::compiler;
use crate::configuration::Configuration;
use crate::database::{Database, Unit};
use crate::error::{CompileError, io_error};
use crate::recipes::Recipes;
use crate::static_keys::exported_by_vmlinux;
use crate::target::{Progress, Target};
use crate::tree;
use kmend_process::{Command, Output};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Changes with the way in which the tree is made, so that an older one is not used.
const FORMAT: &str = "kmend-prepared-5";

/// A kernel's tree, ready to compile units in.
#[derive(Debug)]
pub struct Prepared {
    /// The tree's root. Commands of the database run in a shadow of it.
    pub tree: PathBuf,
    /// How each unit is compiled, and how objtool is run.
    pub database: Database,
    /// The first line of the compiler's `--version`.
    pub compiler_line: String,
    /// The symbols that vmlinux exports.
    pub(crate) exported: HashSet<String>,
    /// Whether it was there already.
    pub was_ready: bool,
    /// Tells what it was made from.
    pub(crate) fingerprint: String,
    make: Make,
    lock: PathBuf,
}

/// Makes the prepared tree and the database of `target`, or finds them ready.
///
/// Two at once do not collide: the second waits for the first.
pub fn prepare(target: &Target, progress: Progress<'_>) -> Result<Prepared, CompileError> {
    let compiler_line = compiler::check(&target.compiler, &target.compiler_text)?;
    fs::create_dir_all(&target.derived).map_err(io_error("create", &target.derived))?;
    let configuration = read_configuration(target)?;
    let fingerprint = fingerprint(target, &configuration, &compiler_line);
    let tree = target.derived.join("tree");
    let lock = target.derived.join("tree.lock");
    let stored = target.derived.join("database.json");
    let symvers = fs::read_to_string(&target.symvers).map_err(io_error("read", &target.symvers))?;
    let exported = || exported_by_vmlinux(&symvers).map(str::to_owned).collect();
    let shipped = shipped_headers(target);
    let make = Make {
        tree: tree.clone(),
        compiler: target.compiler.clone(),
        release: target.release.clone(),
        shipped: shipped.map(Path::to_owned),
    };
    let ready = |database, was_ready| Prepared {
        tree: tree.clone(),
        database,
        compiler_line: compiler_line.clone(),
        exported: exported(),
        was_ready,
        fingerprint: fingerprint.clone(),
        make: make.clone(),
        lock: lock.clone(),
    };
    let complete = |database: &Database| database.recipes.is_some();
    if let Some(database) = Database::read(&stored, &fingerprint).filter(complete) {
        return Ok(ready(database, true));
    }
    let _held = hold(&lock)?;
    if let Some(mut database) = Database::read(&stored, &fingerprint) {
        if !complete(&database) {
            // An earlier version of kmend made the tree, which is as good: only the listing lacks something. It takes a tree
            // in which nothing is made yet, because what is made is not printed.
            let aside = target.derived.join("listing");
            remove_folder(&aside)?;
            let make = Make { tree: aside.clone(), ..make.clone() };
            database.complete_from(make_tree(target, &configuration, shipped, &make, progress)?);
            remove_folder(&aside)?;
            database.write(&stored, &fingerprint)?;
        }
        return Ok(ready(database, true));
    }
    if let Some(headers) = shipped {
        check_headers(headers, &configuration)?;
    }
    remove(&stored)?;
    remove_folder(&tree)?;
    let database = make_tree(target, &configuration, shipped, &make, progress)?;
    database.write(&stored, &fingerprint)?;
    Ok(ready(database, false))
}

/// Makes the tree of `make`, and lists its commands.
fn make_tree(
    target: &Target,
    configuration: &Configuration,
    shipped: Option<&Path>,
    make: &Make,
    progress: Progress<'_>,
) -> Result<Database, CompileError> {
    progress("linking the source");
    tree::create(&target.source, &make.tree)?;
    progress("placing the configuration and the generated headers");
    place_generated(target, configuration, shipped, &make.tree)?;
    progress("building the build system's own programs");
    make.host_programs()?;
    progress("listing the compile commands");
    make.dry_run()
}

impl Prepared {
    /// Lets the build system make what `units` need beyond the prepared headers (such as `lib/crc32table.h`
    /// or the parsers made from `*.asn1`), by asking for their objects. These are not compiled: in their place are empty files, which
    /// are thrown away. Objects that only something needed is made from are compiled, though. Whatever cannot be made does
    /// not keep the rest from it.
    ///
    /// `rule_cc_o_c` is how kbuild compiles (scripts/Makefile.build).
    pub(crate) fn generate_for(&self, units: &[&Unit]) -> Result<(), CompileError> {
        let _held = hold(&self.lock)?;
        let live = units.iter().filter(|unit| runs_elsewhere(&unit.object).is_none());
        let live: Vec<&str> = live.map(|unit| unit.object.as_str()).collect();
        let spared = format!("KMEND_SPARED={}", live.join(" "));
        let rule = "rule_cc_o_c=$(if $(filter $@,$(KMEND_SPARED)),touch $@,$(call cmd_and_fixdep,cc_o_c))";
        let mut arguments = vec!["-k", "CONFIG_OBJTOOL=", &spared, rule];
        arguments.extend(units.iter().map(|unit| unit.object.as_str()));
        let result = self.make.command(&arguments)?.run();
        units.iter().try_for_each(|unit| remove(&self.tree.join(&unit.object)))?;
        result.map(drop).map_err(CompileError::from)
    }
}

fn read_configuration(target: &Target) -> Result<Configuration, CompileError> {
    let text = fs::read(&target.config).map_err(io_error("read", &target.config))?;
    let configuration = Configuration::parse(&String::from_utf8_lossy(&text));
    if configuration.is_empty() {
        let why = format!("{} sets no option", target.config.display());
        return Err(CompileError::Prepare { why });
    }
    Ok(configuration)
}

/// Tells what a tree is made from. An edit of a file in the source needs no new tree: it holds links.
fn fingerprint(target: &Target, configuration: &Configuration, compiler_line: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    let source = fs::canonicalize(&target.source).unwrap_or_else(|_| target.source.clone());
    for part in [
        FORMAT,
        &target.release,
        &target.compiler,
        compiler_line,
        &configuration.auto_conf(true),
        &source.to_string_lossy(),
        &target.headers.as_deref().unwrap_or(Path::new("")).to_string_lossy(),
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The folder of the headers that the kernel's build generated, if it came with the kernel; they need not be
/// made again.
fn shipped_headers(target: &Target) -> Option<&Path> {
    target.headers.as_deref().filter(|headers| headers.join("include/generated/autoconf.h").is_file())
}

/// Keeps the headers that came with the kernel as they are, such as compile.h, which says who built it. The build system
/// makes such a header anew each time, by a macro of its name (`filechk` of scripts/Kbuild.include), and compares.
fn kept(headers: &Path) -> Result<Vec<String>, CompileError> {
    let folder = headers.join("include/generated");
    let mut kept = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
        let name = PathBuf::from(entry.map_err(io_error("read", &folder))?.file_name());
        if name.extension().is_some_and(|extension| extension == "h") {
            kept.push(format!("filechk_{}=cat $@", name.display()));
        }
    }
    Ok(kept)
}

/// Places `.config`, what is made from it, and the headers that came with the kernel.
fn place_generated(
    target: &Target,
    configuration: &Configuration,
    shipped: Option<&Path>,
    tree: &Path,
) -> Result<(), CompileError> {
    let config = tree.join(".config");
    fs::copy(&target.config, &config).map_err(io_error("write", &config))?;
    if let Some(headers) = shipped {
        for folder in ["include/generated", "arch/x86/include/generated"] {
            tree::copy_folder(&headers.join(folder), &tree.join(folder))?;
        }
    }
    let write = |path: &str, text: &str| {
        let file = tree.join(path);
        let folder = file.parent().unwrap_or(tree);
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        fs::write(&file, text).map_err(io_error("write", &file))
    };
    // kconfig's own source tells which form it writes.
    let writer = fs::read(target.source.join("scripts/kconfig/confdata.c")).unwrap_or_default();
    let quoted = !String::from_utf8_lossy(&writer).contains("print_symbol_for_autoconf");
    // An empty auto.conf.cmd has no prerequisites, so make never finds the configuration out of date. The
    // order of writing is the order of the times that make compares.
    write("include/config/kernel.release", &format!("{}\n", target.release))?;
    write("include/generated/rustc_cfg", "")?;
    write("include/generated/autoconf.h", &configuration.autoconf_header())?;
    write("include/config/auto.conf.cmd", "")?;
    write("include/config/auto.conf", &configuration.auto_conf(quoted))?;
    Ok(())
}

/// Files that stand in for built ones while the dry run prints: the link of vmlinux and of the modules starts from them, and
/// without them the dry run ends before it prints how objtool is run on these.
const PLACEHOLDERS: &[&str] = &["vmlinux.a", "vmlinux.o", "modules.order"];

fn check_headers(headers: &Path, configuration: &Configuration) -> Result<(), CompileError> {
    let path = headers.join("include/config/auto.conf");
    let text = fs::read(&path).map_err(io_error("read", &path))?;
    let differing = Configuration::parse(&String::from_utf8_lossy(&text)).differences(configuration);
    if differing.is_empty() {
        return Ok(());
    }
    Err(CompileError::ConfigurationsDiffer { headers: headers.to_owned(), options: differing })
}

/// The build system, as it is run in the prepared tree.
#[derive(Debug, Clone)]
struct Make {
    tree: PathBuf,
    compiler: String,
    release: String,
    /// The folder of the headers that came with the kernel.
    shipped: Option<PathBuf>,
}

impl Make {
    fn command(&self, arguments: &[&str]) -> Result<Command, CompileError> {
        let kept = self.shipped.as_deref().map(kept).transpose()?.unwrap_or_default();
        let jobs = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let command = Command::new("make")
            .args(["-s", &format!("-j{jobs}")])
            .args([format!("CC={}", self.compiler), format!("HOSTCC={}", self.compiler)])
            .arg(format!("KERNELRELEASE={}", self.release))
            // Signing, symbol versions and device trees are no part of an object, but their host programs
            // would ask for libssl, flex and bison.
            .args(["CONFIG_MODULE_SIG_FORMAT=", "CONFIG_MODVERSIONS=", "CONFIG_DTC="])
            .args(&kept)
            .args(arguments)
            .env("KBUILD_VERBOSE", "0")
            .folder(&self.tree);
        Ok(command)
    }

    fn host_programs(&self) -> Result<(), CompileError> {
        for (program, package) in [("make", "make"), ("ld", "binutils"), ("awk", "mawk")] {
            needed(program, package)?;
        }
        if self.shipped.is_none() {
            needed("bc", "bc")?;
        }
        // All that writes headers which others read runs now, while nobody does: any object that is made later asks for it, too.
        let goal = if self.shipped.is_some() { "archprepare" } else { "prepare0" };
        self.command(&[goal])?
            .run()
            .map(drop)
            .map_err(|error| CompileError::Prepare { why: error.to_string() })
    }

    fn dry_run(&self) -> Result<Database, CompileError> {
        for placeholder in PLACEHOLDERS {
            let file = self.tree.join(placeholder);
            fs::write(&file, "").map_err(io_error("write", &file))?;
        }
        let jobs = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let command = Command::new("make")
            // -O keeps the lines of parallel jobs apart.
            .args(["-n", "-k", "-O", &format!("-j{jobs}"), "V=1"])
            .args([format!("CC={}", self.compiler), format!("HOSTCC={}", self.compiler)])
            .arg(format!("KERNELRELEASE={}", self.release))
            // The distribution's signing key is not ours; without a rule for it the dry run would end early.
            .arg("CONFIG_MODULE_SIG_KEY=certs/signing_key.pem")
            .args(["vmlinux", "modules"])
            .folder(&self.tree);
        // With -k make tells of the targets it could not reach by a bad exit status; what it printed counts.
        let output: Output = command.output()?;
        let recipes = Recipes::of(&output.stdout, &self.tree);
        let database = Database::from_dry_run(&output.stdout)
            .map(|database| database.with_recipes(recipes))
            .map_err(|_| CompileError::Database { why: command.failure(&output).to_string() });
        for placeholder in PLACEHOLDERS {
            remove(&self.tree.join(placeholder))?;
        }
        database
    }
}

fn needed(program: &str, package: &str) -> Result<(), CompileError> {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if there {
        return Ok(());
    }
    Err(CompileError::ToolMissing { program: program.to_owned(), package: package.to_owned() })
}

/// Takes the lock; it is released when the file is closed, also by a kill.
pub fn hold(path: &Path) -> Result<File, CompileError> {
    let file = File::options().create(true).append(true).open(path).map_err(io_error("open", path))?;
    file.lock().map_err(io_error("lock", path))?;
    Ok(file)
}

fn remove(path: &Path) -> Result<(), CompileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn remove_folder(path: &Path) -> Result<(), CompileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}
