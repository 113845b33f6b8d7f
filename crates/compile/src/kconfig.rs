//! What a patch to a Kconfig file changes: words, or the options of a configuration.
//!
//! Format: Documentation/kbuild/kconfig-language.rst. Help is indented text behind a line `help`, up to the first line that is
//! indented less than its first; prompts, titles and comments are quoted words. None of them takes part in what an option's value
//! is. All else does, and the kernel that runs has its values.

use crate::edits::Edits;
use crate::session::Note;
use kmend_refusal::{Code, Refusal};

/// Whether a file is one of Kconfig's.
pub fn is_kconfig(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.starts_with("Kconfig"))
}

/// Takes the Kconfig files out of the edits: those of which only words change, with a note.
pub fn settle_kconfig(edits: &mut Edits) {
    let (kconfig, files) =
        std::mem::take(&mut edits.files).into_iter().partition(|(path, _)| is_kconfig(path));
    edits.files = files;
    for (path, file) in std::collections::BTreeMap::into_iter(kconfig) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let original = text(file.original.as_deref().unwrap_or_default());
        let patched: Vec<u8> =
            file.lines.iter().flatten().flat_map(|line| line.bytes.iter().copied()).collect();
        match first_difference(&original, &text(&patched)) {
            None => {
                let text = "only words for people change in it: it is passed over".to_owned();
                edits.notes.push(Note { file: Some(path), text });
            }
            Some(line) => {
                let why = format!(
                    "the kernel that runs has its configuration, and `{line}` is part of what makes it"
                );
                edits.refusals.push(Refusal::new(Code::Configuration, &path, why).at(&path, None));
            }
        }
    }
}

/// The first line that differs between what two versions say of options.
fn first_difference(original: &str, patched: &str) -> Option<String> {
    let (original, patched) = (statements(original), statements(patched));
    let at = original.iter().zip(&patched).take_while(|(one, other)| one == other).count();
    patched.get(at).or_else(|| original.get(at)).cloned()
}

/// Words before a quoted text that is only shown.
const SHOWN: &[&str] = &["bool", "tristate", "string", "int", "hex", "prompt", "comment", "menu", "mainmenu"];

/// The lines of a file that say something of options, without help, comments and white space that does not count.
fn statements(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // Within help: how far its first line is indented, once that was met.
    let mut help: Option<Option<usize>> = None;
    for line in text.replace("\\\n", " ").lines() {
        let words = line.trim();
        if words.is_empty() {
            continue;
        }
        match help {
            Some(None) if indent(line) > 0 => {
                help = Some(Some(indent(line)));
                continue;
            }
            Some(Some(first)) if indent(line) >= first => continue,
            _ => help = None,
        }
        if words.starts_with('#') {
            continue;
        }
        if words == "help" || words == "---help---" {
            help = Some(None);
            continue;
        }
        found.push(statement(words));
    }
    found
}

/// How far a line is indented, with tabs of eight (scripts/kconfig/lexer.l, `<HELP>`).
fn indent(line: &str) -> usize {
    line.chars()
        .take_while(|c| matches!(c, ' ' | '\t'))
        .fold(0, |at, c| if c == '\t' { (at & !7) + 8 } else { at + 1 })
}

fn statement(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let joined = words.join(" ");
    let Some((keyword, rest)) = joined.split_once(' ') else { return joined };
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote.filter(|_| SHOWN.contains(&keyword)) else { return joined };
    let mut is_escaped = false;
    let end = rest.char_indices().skip(1).find(|&(_, c)| {
        let is_end = c == quote && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    });
    match end {
        Some((end, _)) => format!("{keyword} \"\"{}", rest.get(end + 1..).unwrap_or_default()),
        None => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "config A\n\tbool \"about a\" if B\n\tdepends on C\n\thelp\n\t  Words of a\n\n\t    and more.\n\n# a comment\nconfig D\n\tstring \"d\"\n\tdefault \"x\"\n";

    fn difference(from: &str, to: &str) -> Option<String> {
        assert!(TEXT.contains(from));
        first_difference(TEXT, &TEXT.replacen(from, to, 1))
    }

    #[test]
    fn words_do_not_count() {
        for (from, to) in [
            ("Words", "Other words"),
            ("\t  Words of a\n", "\t  depends on X\n\t  Words\n"),
            ("about a", "about \\\"b"),
            ("# a comment", "# another"),
            ("depends on C", "depends   on C"),
            ("\t    and more.\n", ""),
        ] {
            assert_eq!(difference(from, to), None, "{from}");
        }
    }

    #[test]
    fn options_do() {
        for (from, to, line) in [
            ("depends on C", "depends on E", "depends on E"),
            ("if B", "if F", "bool \"\" if F"),
            ("\"x\"", "\"y\"", "default \"y\""),
            ("# a comment", "\tdepends on Z", "depends on Z"),
            ("\tbool \"about a\" if B\n", "\tbool\n", "bool"),
            ("config D\n", "", "string \"\""),
        ] {
            assert_eq!(difference(from, to).as_deref(), Some(line), "{from}");
        }
    }
}
