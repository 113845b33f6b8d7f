//! The module step: the kernel's own build system makes a module of the merged object and the patch table.
//!
//! The prebuilt object enters as one part of a composite module, through a rule that copies it and then runs
//! the build system's own `cmd_objtool`. That variable is empty where a kernel delays objtool to the link
//! of the composite, and holds the flags of a module's unit where it does not (scripts/Makefile.lib and
//! scripts/Makefile.build), so that objtool runs exactly once and as for any module of that kernel.

use crate::{LinkError, Linked, finish, table};
use kmend_object::Object;
use kmend_process::{Command, Output};
use kmend_refusal::{Code, Refusal};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The merged object, as it enters the build.
const OBJECT_FILE: &str = "kmend-patch.bin";
/// The patch table.
const TABLE_FILE: &str = "kmend-table.c";

/// Where the kernel's build system is.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The folder for `make -C`: a configured kernel tree or its headers.
    pub headers: PathBuf,
    /// Variables for make's command line, such as (`CC`, `gcc-12`).
    pub make_variables: Vec<(String, String)>,
    /// How many jobs make may run at once.
    pub jobs: usize,
}

/// How long the parts of the module step took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// The kernel's build system.
    pub build: Duration,
    /// Reading, changing and writing the module.
    pub finish: Duration,
}

/// A finished module.
#[derive(Debug, Clone)]
pub struct BuiltModule {
    /// The `.ko` file's contents.
    pub bytes: Vec<u8>,
    /// The object of the patch table, as the build system made it.
    pub table: Vec<u8>,
    /// What a user should know: the linker's warnings and those of the build system.
    pub warnings: Vec<String>,
    /// How long it took.
    pub times: Times,
}

/// Makes the module. `scratch` is a folder of its own; its path is not seen in the result.
pub fn make_module(linked: &Linked, paths: &Paths, scratch: &Path) -> Result<BuiltModule, LinkError> {
    let start = Instant::now();
    fs::create_dir_all(scratch).map_err(|source| scratch_error(scratch, source))?;
    let scratch = fs::canonicalize(scratch).map_err(|source| scratch_error(scratch, source))?;
    let object = linked
        .object
        .write()
        .map_err(|source| LinkError::Object { what: "cannot write the merged object", source })?;
    write(&scratch.join(OBJECT_FILE), &object)?;
    write(&scratch.join(TABLE_FILE), table::source(linked).as_bytes())?;
    write(&scratch.join("Kbuild"), kbuild_file(&linked.stem).as_bytes())?;
    let mut command = make(paths, &scratch);
    if let Some(engine) = &linked.engine {
        write(&scratch.join(&engine.header.0), engine.header.1.as_bytes())?;
        command = with_symvers(command, &engine.symvers, &scratch)?;
    }
    let output = command.output().map_err(LinkError::Build)?;
    let faults = objtool_faults(&output, &linked.renamed);
    if !faults.is_empty() {
        return Err(LinkError::Objtool(faults));
    }
    if !output.success || output.error_text().lines().filter_map(verdict).any(is_own_failure) {
        return Err(LinkError::Build(command.failure(&output)));
    }
    let build = start.elapsed();
    let file = scratch.join(format!("{}.ko", linked.stem));
    let bytes = fs::read(&file).map_err(|source| scratch_error(&file, source))?;
    let bytes = finished(&bytes, linked)?;
    let file = scratch.join(TABLE_FILE).with_extension("o");
    let table = fs::read(&file).map_err(|source| scratch_error(&file, source))?;
    let times = Times { build, finish: start.elapsed().saturating_sub(build) };
    let warnings = linked.warnings.iter().cloned().chain(warnings(&output)).collect();
    Ok(BuiltModule { bytes, table, warnings, times })
}

fn finished(bytes: &[u8], linked: &Linked) -> Result<Vec<u8>, LinkError> {
    let module = Object::parse(bytes)
        .map_err(|source| LinkError::Object { what: "cannot read the linked module", source })?;
    finish::finish(module, linked)?
        .write()
        .map_err(|source| LinkError::Object { what: "cannot write the module", source })
}

pub(crate) fn make(paths: &Paths, scratch: &Path) -> Command {
    let mut m = std::ffi::OsString::from("M=");
    m.push(scratch);
    Command::new("make")
        .arg("-C")
        .arg(&paths.headers)
        .arg(m)
        .args(["--no-print-directory", "-s"])
        .arg(format!("-j{}", paths.jobs.max(1)))
        // Symbols that the finish resolves are undefined for modpost.
        .arg("KBUILD_MODPOST_WARN=1")
        // Debug information would name the scratch folder, and a livepatch has no use for types of its own.
        .args(["KCFLAGS=-g0", "CONFIG_DEBUG_INFO_BTF_MODULES="])
        .args(paths.make_variables.iter().map(|(name, value)| format!("{name}={value}")))
        .arg("modules")
        // A make above kmend must not reach into this one.
        .env("MAKEFLAGS", "")
}

/// The command with the exports of other modules: the text of their `Module.symvers`.
pub(crate) fn with_symvers(command: Command, symvers: &str, scratch: &Path) -> Result<Command, LinkError> {
    let path = scratch.join("others.symvers");
    write(&path, symvers.as_bytes())?;
    let mut extra = std::ffi::OsString::from("KBUILD_EXTRA_SYMBOLS=");
    extra.push(&path);
    Ok(command.arg(extra))
}

/// The scratch folder's Kbuild file.
fn kbuild_file(stem: &str) -> String {
    format!(
        "obj-m := {stem}.o\n{stem}-y := kmend-table.o kmend-patch.o\n\n\
         quiet_cmd_kmend_patch = OBJTOOL $@\n      cmd_kmend_patch = cp $< $@ $(cmd_objtool)\n\
         $(obj)/kmend-patch.o: $(src)/{OBJECT_FILE} FORCE\n\t$(call if_changed,kmend_patch)\n"
    )
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), LinkError> {
    fs::write(path, bytes).map_err(|source| scratch_error(path, source))
}

pub(crate) fn scratch_error(path: &Path, source: std::io::Error) -> LinkError {
    LinkError::Scratch { path: path.to_owned(), source }
}

/// What objtool writes before its verdict on code (tools/objtool/include/objtool/warn.h, `WARN`), since Linux 6.15 also as an error.
/// Without it, it did not come to one: its loader, its options or its input are at fault, and the build fails.
const VERDICTS: [&str; 2] = [": warning: objtool: ", ": error: objtool: "];
/// How what it says of its own work begins there: with the names of functions of libelf and of the system (`WARN_ELF`).
const OWN_FAILURES: [&str; 6] = ["elf_", "gelf_", "malloc", "calloc", "mmap ", "can't create"];

/// objtool's complaints, such as `x.o: warning: objtool: foo+0x1d: unreachable instruction`, with the
/// functions' true names.
pub(crate) fn objtool_faults(output: &Output, renamed: &BTreeMap<String, String>) -> Vec<Refusal> {
    let text = output.error_text();
    let complaints = text.lines().filter_map(verdict).filter(|words| !is_own_failure(words));
    complaints
        .map(|words| {
            let end = words.find(['+', ':', '(']).unwrap_or(words.len());
            let (function, rest) = words.split_at(end);
            let function = renamed.get(function).map_or(function, String::as_str);
            Refusal::new(Code::ObjtoolWarned, function, format!("objtool says `{function}{rest}`"))
        })
        .collect()
}

/// What objtool says of code, in a line of the build system's.
fn verdict(line: &str) -> Option<&str> {
    VERDICTS.iter().find_map(|before| Some(line.split_once(before)?.1))
}

fn is_own_failure(words: &str) -> bool {
    OWN_FAILURES.iter().any(|start| words.starts_with(start))
}

/// What is left of the output once the expected is taken away.
fn warnings(output: &Output) -> Vec<String> {
    let expected = |line: &str| {
        line.trim().is_empty()
            || line.contains("modpost:") && (line.ends_with("undefined!") || line.contains("suppressed"))
    };
    output.error_text().lines().filter(|line| !expected(line)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(stderr: &str) -> Output {
        Output {
            stdout: Vec::new(),
            stderr: stderr.as_bytes().to_vec(),
            success: true,
            status: "exit status: 0".into(),
        }
    }

    #[test]
    fn a_complaint_of_objtool_names_the_function_of_the_source() {
        let renamed = BTreeMap::from([("foo.kmend1".into(), "foo".into())]);
        let stderr = "  LD x\n/s/x.o: warning: objtool: foo.kmend1+0x1d: unreachable instruction\n";
        let faults = objtool_faults(&output(stderr), &renamed);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].code, Code::ObjtoolWarned);
        assert_eq!(faults[0].subject, "foo");
        assert_eq!(faults[0].why, "objtool says `foo+0x1d: unreachable instruction`");
    }

    #[test]
    fn what_is_no_verdict_of_objtool_is_not_taken_for_one() {
        for stderr in [
            "./tools/objtool/objtool: error while loading shared libraries: libelf.so.1: cannot open shared object file",
            "./tools/objtool/objtool: /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./tools/objtool/objtool)",
            "error: objtool: unknown option `hacks'",
            "/s/x.o: warning: objtool: elf_begin: invalid file",
            "objtool: Can't open 'x.o': No such file or directory",
            "make[2]: ./tools/objtool/objtool: No such file or directory",
        ] {
            assert_eq!(objtool_faults(&output(stderr), &BTreeMap::new()), [], "{stderr}");
        }
        let newer =
            objtool_faults(&output("x.o: error: objtool: f+0x2: stack state mismatch"), &BTreeMap::new());
        assert_eq!(newer[0].subject, "f");
    }

    #[test]
    fn planned_symbols_are_no_warning() {
        let stderr = "WARNING: modpost: \"foo\" [/s/x.ko] undefined!\n\
                      WARNING: modpost: suppressed 3 unresolved symbol warnings because there were too many)\n\
                      kmend-table.c:3: warning: something else\n";
        assert_eq!(warnings(&output(stderr)), ["kmend-table.c:3: warning: something else"]);
    }
}
