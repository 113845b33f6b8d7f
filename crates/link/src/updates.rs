//! Variables of the running kernel whose values are exchanged.
//!
//! Each unit brings a table of words; the patch table checks them in `pre_patch`, before anything is patched, writes them
//! in `post_patch`, when every task runs the new code, and takes them back in `pre_unpatch`, while every task still does.
//! So old code never meets a new value. When the kernel reverses a transition it calls neither, or `post_patch` again
//! (kernel/livepatch/transition.c, `klp_complete_transition`); exchanging a word twice does nothing.

use crate::merge::Merged;
use crate::{LinkInput, table};
use kmend_diff::Moment;
use std::fmt::Write;

/// What the patch table needs to exchange words.
pub(crate) const CODE: &str = include_str!("../module/update.h");

/// The words of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words {
    /// `vmlinux` or a module's name.
    pub(crate) object: String,
    /// The symbol of their table in the merged object.
    pub(crate) table: String,
    /// The variables they belong to.
    pub(crate) variables: Vec<String>,
    /// How many there are.
    pub(crate) count: usize,
    /// Whether one of them leads into the livepatch.
    pub(crate) pins: bool,
}

/// The words of all units that have some.
pub(crate) fn collect(input: &LinkInput<'_>, merged: &Merged) -> Vec<Words> {
    let of_unit = |(number, unit): (usize, &crate::UnitInput<'_>)| {
        let placed = merged.placed.get(number)?.get(unit.delta.update_table?.index()).copied().flatten();
        Some(Words {
            object: unit.owner.to_owned(),
            // The finish reports an alias without a table.
            table: placed.map(|id| merged.object.symbol(id).name.clone()).unwrap_or_default(),
            variables: unit.delta.updates.iter().map(|update| update.variable.clone()).collect(),
            count: unit.delta.updates.iter().map(|update| update.words).sum(),
            pins: unit.delta.updates.iter().any(|update| update.pins),
        })
    };
    input.units.iter().enumerate().filter_map(of_unit).collect()
}

/// The symbol by which the patch table means a table of words until the finish.
pub(crate) fn alias(number: usize) -> String {
    format!("kmend_words_{number}")
}

/// The number in an alias.
pub(crate) fn alias_number(name: &str) -> Option<usize> {
    name.strip_prefix("kmend_words_")?.parse().ok()
}

/// Declares the tables, weak so that modpost lets them pass undefined, with the code that works on them.
pub(crate) fn declarations(words: &[Words]) -> String {
    if words.is_empty() {
        return String::new();
    }
    (0..words.len()).fold(format!("\n{CODE}\n"), |mut text, number| {
        let _ = writeln!(text, "extern struct kmend_word {}[] __attribute__((weak));", alias(number));
        text
    })
}

/// Tells of the updates in `.modinfo`, where `kmend inspect` reads them: `OBJECT VARIABLE`.
pub(crate) fn descriptions(words: &[Words]) -> String {
    let mut text = String::new();
    for words in words {
        for variable in &words.variables {
            let what = table::literal(&format!("{} {variable}", words.object));
            let _ = writeln!(text, "MODULE_INFO(kmend_update, {what});");
        }
    }
    text
}

/// The statements of one callback of an object.
pub(crate) fn statements(words: &[Words], object: &str, moment: Moment) -> String {
    let mut text = String::new();
    for (number, Words { count, pins, .. }) in
        words.iter().enumerate().filter(|(_, words)| words.object == object)
    {
        let table = alias(number);
        let _ = match moment {
            Moment::PrePatch => write!(
                text,
                "\terror = kmend_check_words(object, {table}, {count});\n\tif (error)\n\t\treturn error;\n"
            ),
            Moment::PostPatch => writeln!(text, "\tkmend_put_words(object, {table}, {count}, {pins});"),
            Moment::PreUnpatch => writeln!(text, "\tkmend_take_words_back(object, {table}, {count});"),
            Moment::PostUnpatch => Ok(()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_process::Command;
    use std::fs;

    /// The module's code as a program, on memory that is read-only but for the mappings that the code makes.
    #[test]
    fn all_words_are_exchanged_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let headers = folder.path().join("linux");
        fs::create_dir(&headers).unwrap();
        for header in ["mm.h", "slab.h", "string.h", "vmalloc.h"] {
            fs::write(headers.join(header), "").unwrap();
        }
        fs::write(folder.path().join("update.h"), CODE).unwrap();
        fs::write(folder.path().join("words.c"), include_str!("../module/words_test.c")).unwrap();
        let command = |program: &str| Command::new(program).folder(folder.path());
        command("gcc")
            .args(["-std=gnu11", "-O2", "-Wall", "-Werror", "-I.", "words.c", "-o", "words"])
            .run()
            .unwrap();
        command("./words").run().unwrap();
    }
}
