//! What the kernel's build reads beside the sources of its units: scripts, tables, host programs, assembly, Makefiles.
//!
//! Code of a kernel can be made from any kind of file, whatever its name is (lib/oid_registry_data.c is made by a Perl
//! script of a header, arch/x86/lib/inat-tables.c by an awk script of a text). So it is asked which files the commands name: those
//! that the dry run prints, and those of what was made already, which kbuild keeps in `.NAME.cmd` files beside it
//! (scripts/Kbuild.include, `if_changed`; the headers of host programs are there, too: scripts/basic/fixdep.c).

use crate::belongs::has_extension;
use crate::database::from_root;
use crate::shell;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// How many commands are kept for a file, and how much of each, in bytes.
const MOST_COMMANDS: usize = 4;
const LONGEST_COMMAND: usize = 2048;

/// The files that commands of the build name, and the folders that it goes through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipes {
    /// By the files' paths from the tree's root: the commands.
    inputs: BTreeMap<String, Vec<String>>,
    /// The folders whose Makefiles are read.
    folders: BTreeSet<String>,
}

impl Recipes {
    /// Of a build that reads nothing else.
    pub const fn none() -> Recipes {
        Recipes { inputs: BTreeMap::new(), folders: BTreeSet::new() }
    }

    /// Collects them from a dry run, and from what was made in the tree before.
    pub fn of(log: &[u8], tree: &Path) -> Recipes {
        let mut found = Recipes::default();
        for line in log.split(|&byte| byte == b'\n') {
            let text = String::from_utf8_lossy(line);
            if !is_of_unit(&text) {
                found.line(&text, tree);
            }
        }
        found.made(tree, "", 0);
        found
    }

    /// The commands that name a file; none if the build does not.
    pub fn commands(&self, path: &str) -> &[String] {
        self.inputs.get(path).map_or(&[], Vec::as_slice)
    }

    /// Whether the build reads the Makefile of a folder.
    pub fn enters(&self, folder: &str) -> bool {
        self.folders.contains(folder)
    }

    /// Whether a command names a file in a folder or below it, or the build enters one.
    pub fn touches(&self, folder: &str) -> bool {
        let is_below = |path: &String| is_below(path, folder);
        self.inputs.keys().any(is_below) || self.folders.iter().any(is_below)
    }

    fn line(&mut self, line: &str, tree: &Path) {
        if let Some(folder) = line.split(" obj=").nth(1).and_then(|rest| rest.split_whitespace().next()) {
            self.folders.insert(from_root("", folder));
        }
        let words = shell::words(line);
        for command in words.split(|word| word == ";") {
            self.command(command, tree);
        }
    }

    fn command(&mut self, words: &[String], tree: &Path) {
        let is_compile = words.iter().any(|word| word == "-c" || word == "-S" || word == "-E");
        for word in words {
            let word = word.trim_start_matches(['<', '>', '(', '{']).trim_end_matches([')', '}']);
            // What a text for people or another shell names is no input; headers of a compile are asked of the include graph.
            let is_name = !word.is_empty() && !word.contains(char::is_whitespace) && !word.starts_with('-');
            if !is_name || (is_compile && has_extension(word, "h")) {
                continue;
            }
            let path = from_root("", word);
            if is_source_file(tree, &path) {
                self.add(path, &words.join(" "));
            }
        }
    }

    fn add(&mut self, path: String, command: &str) {
        let commands = self.inputs.entry(path).or_default();
        let command: String = command.chars().take(LONGEST_COMMAND).collect();
        if commands.len() < MOST_COMMANDS && !commands.contains(&command) {
            commands.push(command);
        }
    }

    /// Reads the `.cmd` files below a folder of the tree.
    fn made(&mut self, tree: &Path, folder: &str, depth: usize) {
        // Links are the source's, where the prepared tree's build leaves nothing.
        let Ok(entries) = fs::read_dir(tree.join(folder)) else { return };
        for entry in entries.flatten() {
            let (Ok(kind), name) = (entry.file_type(), entry.file_name()) else { continue };
            let name = name.to_string_lossy();
            if kind.is_dir() && depth < 64 {
                self.made(tree, &from_root(folder, &name), depth + 1);
            } else if kind.is_file() && name.starts_with('.') && name.ends_with(".cmd") {
                let text = fs::read(entry.path()).unwrap_or_default();
                self.made_by(&String::from_utf8_lossy(&text), tree);
            }
        }
    }

    /// Takes what one `.cmd` file says: `cmd_TARGET := COMMAND` (since Linux 6.2 `savedcmd_`, kernel commit 92215e7a801d), and
    /// for what was compiled `deps_TARGET := FILE...`.
    fn made_by(&mut self, text: &str, tree: &Path) {
        let text = text.replace("\\\n", " ");
        let mut made = "";
        for line in text.lines() {
            let Some((name, value)) = line.split_once(" := ") else { continue };
            let target = name.strip_prefix("cmd_").or_else(|| name.strip_prefix("savedcmd_"));
            if let Some(target) = target {
                made = target;
                if !is_of_unit(value) {
                    let words = shell::words(&value.replace("$$", "$").replace("$(pound)", "#"));
                    words.split(|word| word == ";").for_each(|command| self.command(command, tree));
                }
            }
            // Of what is no unit's object, the headers too: nothing else asks about those.
            if name.starts_with("deps_") && !text.contains("-D__KERNEL__") {
                for word in value.split_whitespace() {
                    let path = from_root("", word);
                    if !word.starts_with('/') && is_source_file(tree, &path) {
                        self.add(path, &format!("the compile of {made}"));
                    }
                }
            }
        }
    }
}

/// Whether a path lies in a folder or below it.
pub fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a command compiles a unit, which the database has, or makes lists of objects.
fn is_of_unit(line: &str) -> bool {
    let is_unit = line.contains("-D__KERNEL__") && !line.contains("-D__ASSEMBLY__") && !line.contains(" -S ");
    is_unit || line.contains("modules.order") || line.contains(".mod;") || line.contains("-D__GENKSYMS__")
}

/// Whether this is a file of the kernel's source, and none that the build made.
fn is_source_file(tree: &Path, path: &str) -> bool {
    if path.is_empty() || path.len() > 4096 {
        return false;
    }
    let file = tree.join(path);
    let Ok(kind) = file.symlink_metadata() else { return false };
    // In the prepared tree what is of the source is a link, or lies behind one (see `tree`).
    let behind_link = || {
        fs::canonicalize(&file)
            .is_ok_and(|real| !real.starts_with(fs::canonicalize(tree).unwrap_or_default()))
    };
    (kind.is_symlink() || behind_link()) && file.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        for path in [
            "source/lib/gen.pl",
            "source/lib/table.txt",
            "source/lib/unit.c",
            "source/lib/host.c",
            "source/lib/host.h",
            "source/lib/x.h",
        ] {
            let file = scratch.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        fs::create_dir_all(scratch.path().join("tree/lib")).unwrap();
        for entry in fs::read_dir(scratch.path().join("source/lib")).unwrap() {
            let name = entry.unwrap().file_name();
            symlink(Path::new("../../source/lib").join(&name), scratch.path().join("tree/lib").join(&name))
                .unwrap();
        }
        fs::write(scratch.path().join("tree/lib/made.c"), "x").unwrap();
        scratch
    }

    #[test]
    fn commands_of_a_dry_run_name_their_inputs() {
        let scratch = tree();
        let log = "make -f ./scripts/Makefile.build obj=lib need-builtin=1\n\
            set -e; echo '  GEN lib/x.h'; perl ./lib/gen.pl <lib/../lib/table.txt > lib/made.c; printf x\n\
            gcc -D__KERNEL__ -c -o lib/unit.o lib/unit.c\n\
            gcc -include lib/x.h -c -o lib/host lib/host.c\n";
        let recipes = Recipes::of(log.as_bytes(), &scratch.path().join("tree"));
        let inputs: Vec<&str> = recipes.inputs.keys().map(String::as_str).collect();
        assert_eq!(inputs, ["lib/gen.pl", "lib/host.c", "lib/table.txt"]);
        assert!(recipes.commands("lib/gen.pl")[0].starts_with("perl ./lib/gen.pl"));
        assert!(
            recipes.enters("lib")
                && !recipes.enters("lib/x")
                && recipes.touches("")
                && !recipes.touches("li")
        );
    }

    #[test]
    fn what_was_made_before_says_what_of() {
        let scratch = tree();
        let tree = scratch.path().join("tree");
        fs::write(tree.join("lib/.made.c.cmd"), "cmd_lib/made.c := lib/host > lib/made.c; perl lib/gen.pl\n")
            .unwrap();
        let deps = "savedcmd_lib/host := gcc -o lib/host lib/host.c\n\nsource_lib/host := lib/host.c\n\ndeps_lib/host := \\\n    $(wildcard include/config/X) \\\n  /usr/include/stdio.h \\\n  lib/host.h \\\n";
        fs::write(tree.join("lib/.host.cmd"), deps).unwrap();
        let unit =
            "cmd_lib/unit.o := gcc -D__KERNEL__ -c -o lib/unit.o lib/unit.c\ndeps_lib/unit.o := lib/x.h\n";
        fs::write(tree.join("lib/.unit.o.cmd"), unit).unwrap();
        let recipes = Recipes::of(b"", &tree);
        let inputs: Vec<&str> = recipes.inputs.keys().map(String::as_str).collect();
        assert_eq!(inputs, ["lib/gen.pl", "lib/host.c", "lib/host.h"]);
        assert_eq!(recipes.commands("lib/host.h"), ["the compile of lib/host"]);
    }
}
