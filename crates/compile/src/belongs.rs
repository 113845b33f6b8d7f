//! What a file of a patch is to this kernel.
//!
//! It is asked of what the kernel is built from: the compile database, what units include, and what the commands of the build
//! name ([`crate::recipes`]). A folder or a name says nothing: tools/lib/bpf/relo_core.c is a unit of Linux 6.1, and the instruction
//! decoder is made from a text file. Only where the build has nothing to say, because no command shows what it reads a file
//! for, a file is refused that a Makefile of this build names.

use crate::adopt::is_makefile;
use crate::classify::{configuration, is_linker_script, runs_elsewhere};
use crate::error::CompileError;
use crate::graph::Graph;
use crate::kconfig::is_kconfig;
use crate::prepare::Prepared;
use crate::recipes::is_below;
use crate::scan::folder_of;
use crate::session::is_source;
use crate::target::{Progress, Target};
use kmend_refusal::Code;
use std::cell::OnceCell;
use std::fs;
use std::path::Path;

/// What to do with a file of a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It is applied: units are compiled from it, or it says which are.
    Text,
    /// Nothing of this kernel depends on it, with the reason; it is passed over.
    Nothing(String),
    /// A C source that this kernel's build compiles no object from: it is passed over.
    NotBuilt,
    /// This kernel depends on it in a way that cannot be changed while it runs; with the reason.
    Refused(Code, String),
}

/// The kernel that is asked. The include graph is read when the first question needs it.
pub struct Kernel<'a> {
    prepared: &'a Prepared,
    target: &'a Target,
    progress: Progress<'a>,
    graph: OnceCell<Graph>,
}

/// The longest part of a command that a reason shows, in bytes.
const SHOWN: usize = 160;

impl<'a> Kernel<'a> {
    pub fn new(prepared: &'a Prepared, target: &'a Target, progress: Progress<'a>) -> Self {
        Self { prepared, target, progress, graph: OnceCell::new() }
    }

    /// The include graph.
    pub fn graph(&self) -> Result<&Graph, CompileError> {
        if let Some(graph) = self.graph.get() {
            return Ok(graph);
        }
        let graph = Graph::of(self.prepared, self.target, self.progress)?;
        Ok(self.graph.get_or_init(|| graph))
    }

    /// What the file at `path` is. `is_there` says whether the source has it, `adds` whether the patch adds it.
    pub fn part(&self, path: &str, is_there: bool, adds: bool) -> Result<Part, CompileError> {
        let is_unit = !self.prepared.database.units_of(path).is_empty();
        let is_included = || Ok::<_, CompileError>(self.graph()?.is_included(path));
        if let Some((code, why)) = runs_elsewhere(path)
            && (is_unit || !self.commands(path).is_empty() || self.is_listed(path) || is_included()?)
        {
            return Ok(Part::Refused(code, why.to_owned()));
        }
        if is_unit {
            return Ok(Part::Text);
        }
        if is_makefile(path) && path.contains('/') {
            return Ok(self.makefile(path));
        }
        if is_kconfig(path) {
            return Ok(of_another_architecture(path).unwrap_or(Part::Text));
        }
        if let Some(why) = configuration(path) {
            return Ok(
                of_another_architecture(path).unwrap_or(Part::Refused(Code::Configuration, why.to_owned()))
            );
        }
        if adds {
            return Ok(Part::Text);
        }
        if !is_there {
            return self.missing(path);
        }
        // A header that units include may be read by a script as well, which may take its comments for data.
        if let Some(command) = self.commands(path).first() {
            return Ok(named_by(path, command));
        }
        if is_included()? {
            return Ok(Part::Text);
        }
        if is_source(path) {
            return Ok(Part::NotBuilt);
        }
        if has_extension(path, "h") {
            // A header that no unit includes may be included by what the patch adds.
            let nothing = Part::Nothing("no unit of this kernel includes it".to_owned());
            return Ok(if self.uses(folder_of(path))? { Part::Text } else { nothing });
        }
        Ok(of_another_architecture(path).unwrap_or_else(|| self.named_in_makefiles(path)))
    }

    /// Whether the Makefile of its folder lists its object. What is built around the kernel's image, as the boot code is, no command
    /// of the kernel and its modules names.
    fn is_listed(&self, path: &str) -> bool {
        let file = self.prepared.tree.join(folder_of(path)).join("Makefile");
        let name = path.rsplit('/').next().unwrap_or(path);
        let Some((stem, "c" | "S")) = name.rsplit_once('.') else { return false };
        let object = format!("{stem}.o");
        fs::read_to_string(file).is_ok_and(|text| text.split_ascii_whitespace().any(|word| word == object))
    }

    /// The commands of the build that name a file.
    pub fn commands(&self, path: &str) -> &[String] {
        self.prepared.database.recipes().commands(path)
    }

    fn makefile(&self, path: &str) -> Part {
        let folder = folder_of(path);
        let mut objects = self.prepared.database.units().iter().map(|unit| unit.object.as_str());
        // Some Makefiles are included by one above them; those of the root and of the architecture always are.
        let is_read = self.prepared.database.recipes().enters(folder)
            || objects.any(|object| is_below(object, folder))
            || ["scripts", "arch/x86"].contains(&folder);
        if is_read { Part::Text } else { Part::Nothing("this kernel's build does not read it".to_owned()) }
    }

    /// A file that the patch changes and the source lacks: of no account if nothing of this kernel lies in its folder.
    fn missing(&self, path: &str) -> Result<Part, CompileError> {
        let mut folder = folder_of(path);
        while !folder.is_empty() && !self.prepared.tree.join(folder).is_dir() {
            folder = folder_of(folder);
        }
        if folder.is_empty() || self.uses(folder)? {
            return Ok(Part::Text);
        }
        let why =
            format!("this kernel's source does not have it, and nothing of this kernel lies in {folder}");
        Ok(Part::Nothing(why))
    }

    /// Whether something that this kernel is built from lies in a folder or below.
    fn uses(&self, folder: &str) -> Result<bool, CompileError> {
        let database = &self.prepared.database;
        let mut sources = database.units().iter().map(|unit| unit.source.as_str());
        Ok(sources.any(|source| is_below(source, folder))
            || database.recipes().touches(folder)
            || self.graph()?.files().any(|file| is_below(file, folder)))
    }

    /// A file that no command names: it may still be read by a rule that does not show it.
    fn named_in_makefiles(&self, path: &str) -> Part {
        let name = path.rsplit('/').next().unwrap_or(path);
        let is_build_file = name.starts_with("Makefile") || name.starts_with("Kbuild");
        if is_build_file
            && (!path.contains('/') || path.starts_with("scripts/") || path.starts_with("arch/x86/"))
        {
            return Part::Refused(Code::BuildFile, "it says how the whole kernel is built".to_owned());
        }
        let Some(makefile) =
            self.makefiles(path).into_iter().find(|makefile| self.holds_word(makefile, name))
        else {
            let why = "no command of this kernel's build names it, and no unit includes it";
            return Part::Nothing(why.to_owned());
        };
        let what = match () {
            () if is_linker_script(path) => "it is a linker script: memory is laid out by it",
            () if is_build_file => return Part::Refused(Code::BuildFile, format!("{makefile} names it")),
            () => "it is neither C nor documentation",
        };
        Part::Refused(Code::UnsupportedFile, format!("{what}, and {makefile} names it"))
    }

    /// The Makefiles that may name a file: those of its folder and above, and those that all of the build reads.
    fn makefiles(&self, path: &str) -> Vec<String> {
        let mut found = vec!["Makefile".to_owned(), "Kbuild".to_owned()];
        let mut folder = folder_of(path);
        while !folder.is_empty() {
            if self.prepared.database.recipes().enters(folder) || folder == "arch/x86" || folder == "scripts"
            {
                found.extend(["Makefile", "Kbuild"].map(|name| format!("{folder}/{name}")));
            }
            folder = folder_of(folder);
        }
        let entries = fs::read_dir(self.prepared.tree.join("scripts")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // Packages are made of a kernel that is built.
        let mut names: Vec<String> = names
            .filter(|name| {
                name.starts_with("Makefile.") && name != "Makefile.package" || name == "Kbuild.include"
            })
            .map(|name| format!("scripts/{name}"))
            .collect();
        names.sort();
        found.extend(names);
        found
    }

    fn holds_word(&self, makefile: &str, name: &str) -> bool {
        // A name without an ending is a word of any text.
        let text = fs::read(self.prepared.tree.join(makefile)).unwrap_or_default();
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || byte == b'.';
        // kbuild makes NAME.lds of NAME.lds.S, and names the former.
        let name = name.strip_suffix(".S").filter(|rest| has_extension(rest, "lds")).unwrap_or(name);
        name.contains('.')
            && memchr::memmem::find_iter(&text, name).any(|at| {
                let before =
                    at.checked_sub(1).and_then(|before| text.get(before)).is_some_and(|&byte| is_part(byte));
                let after = text.get(at + name.len()).is_some_and(|&byte| is_part(byte));
                !before && !after
            })
    }
}

/// That a file is of another architecture, if it is.
fn of_another_architecture(path: &str) -> Option<Part> {
    let other = path.strip_prefix("arch/").filter(|rest| rest.contains('/') && !rest.starts_with("x86/"));
    other.map(|_| Part::Nothing("it is of another architecture".to_owned()))
}

/// A file that a command of the build reads.
fn named_by(path: &str, command: &str) -> Part {
    if is_linker_script(path) {
        return Part::Refused(
            Code::UnsupportedFile,
            "it is a linker script: memory is laid out by it".to_owned(),
        );
    }
    if has_extension(path, "S") {
        let why = "assembly has neither ftrace entries nor sections of its own";
        return Part::Refused(Code::Assembly, why.to_owned());
    }
    let shown: String = command.chars().take(SHOWN).collect();
    Part::Refused(Code::GeneratedFrom, format!("the build reads it: `{}`", shown.trim()))
}

/// Whether a path ends in a dot and this.
pub fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}
