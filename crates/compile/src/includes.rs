//! What a C file may include, read from its text alone.
//!
//! This is for [`crate::graph`], which must miss nothing and may hold too much. So every `#include` counts but those in
//! groups that the kernel's configuration leaves out of every unit ([`crate::conditions`]).

use crate::conditions::{Facts, Truth, needs};
use crate::lexer::{Conditional, line_starts};
use std::collections::{BTreeSet, HashSet};

/// An `#include` line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Include {
    /// `#include "PATH"`: looked for beside the file first.
    Quoted(String),
    /// `#include <PATH>`.
    Angled(String),
    /// `#include_next`: any file of this path but the first.
    Next(String),
    /// `#include MACRO`, or anything else that only a compiler can read.
    Macro(String),
}

impl Include {
    /// The path, if the text says it.
    pub fn path(&self) -> Option<&str> {
        match self {
            Include::Quoted(path) | Include::Angled(path) | Include::Next(path) => Some(path),
            Include::Macro(_) => None,
        }
    }
}

/// What a line comes to, and the names that must be defined for it to be looked at at all
/// ([`crate::conditions::needs`]), in order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Needing<T> {
    pub what: T,
    pub needs: Vec<String>,
}

/// All `#include` lines of a file that some unit may take, and the paths that `__has_include` asks for.
///
/// A directive counts wherever its line has a `#` before the word, so that a comment before it hides nothing.
pub fn includes(text: &[u8], facts: &Facts) -> Vec<Needing<Include>> {
    let mut found = Vec::new();
    for (line, needs) in taken_lines(text, "include", facts) {
        let mut includes = Vec::new();
        includes_of(line, &mut includes);
        found.extend(includes.into_iter().map(|what| Needing { what, needs: needs.clone() }));
    }
    found
}

/// Those of the macros `names` that a file defines.
pub fn definitions_of(text: &[u8], names: &HashSet<String>, facts: &Facts) -> Vec<Needing<String>> {
    let is_wanted = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| names.contains(name));
    let mut found = Vec::new();
    // Most files define none.
    if definitions(text).any(|(name, _)| is_wanted(name)) {
        for (line, needs) in taken_lines(text, "define", facts) {
            for (name, _) in definitions(line).filter(|(name, _)| is_wanted(name)) {
                let what = String::from_utf8_lossy(name).into_owned();
                found.push(Needing { what, needs: needs.clone() });
            }
        }
    }
    found
}

/// The lines that hold `word` and that some unit may come to, with the names that must be defined for that.
fn taken_lines<'t>(text: &'t [u8], word: &str, facts: &Facts) -> Vec<(&'t [u8], Vec<String>)> {
    let (mut found, mut groups) = (Vec::new(), Groups::default());
    // What follows the last one needs no reading.
    let Some(last) = memchr::memmem::rfind(text, word.as_bytes()) else { return found };
    let end =
        memchr::memchr(b'\n', text.get(last..).unwrap_or_default()).map_or(text.len(), |end| last + end);
    let text = text.get(..end).unwrap_or_default();
    let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let starts = line_starts(lines.iter().copied());
    for (number, (line, start)) in lines.iter().zip(starts).enumerate() {
        if let Some(conditional) = start.conditional {
            groups.enter(conditional, &logical(lines.get(number..).unwrap_or_default()), facts);
        }
        if groups.may_be_taken() && !start.is_comment && memchr::memmem::find(line, word.as_bytes()).is_some()
        {
            found.push((*line, groups.needs()));
        }
    }
    found
}

/// The text of a directive over the lines that a backslash continues, without comments.
fn logical(lines: &[&[u8]]) -> String {
    let mut text = Vec::new();
    for line in lines {
        let line = line.trim_ascii_end();
        let Some(more) = line.strip_suffix(b"\\") else {
            text.extend_from_slice(line);
            break;
        };
        text.extend_from_slice(more);
    }
    String::from_utf8_lossy(&without_comments(&text)).into_owned()
}

/// A directive without its comments.
pub fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'/', rest) {
        let (before, after) = rest.split_at(at);
        plain.extend_from_slice(before);
        rest = match after.get(1) {
            Some(b'*') => {
                plain.push(b' ');
                let end = after.get(2..).and_then(|inside| memchr::memmem::find(inside, b"*/"));
                end.and_then(|end| after.get(end + 4..)).unwrap_or_default()
            }
            Some(b'/') => &[],
            _ => {
                plain.push(b'/');
                after.get(1..).unwrap_or_default()
            }
        };
    }
    plain.extend_from_slice(rest);
    plain
}

/// Open conditional groups.
#[derive(Default)]
struct Groups(Vec<Group>);

struct Group {
    /// Whether an earlier branch is taken.
    before: Truth,
    /// Whether this branch is.
    here: Truth,
    /// The names that must be defined for that.
    needs: Vec<String>,
}

impl Groups {
    fn enter(&mut self, conditional: Conditional, text: &str, facts: &Facts) {
        let rest = text.trim_start().trim_start_matches('#').trim_start();
        let (word, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len()));
        let (condition, needs) = match word {
            "ifdef" | "elifdef" => (facts.defined(rest.trim()), needs(rest)),
            "ifndef" | "elifndef" => (facts.defined(rest.trim()).not(), Vec::new()),
            "else" => (Truth::True, Vec::new()),
            _ => (facts.condition(rest), needs(rest)),
        };
        match conditional {
            Conditional::Open => self.0.push(Group { before: Truth::False, here: condition, needs }),
            Conditional::Else => {
                if let Some(group) = self.0.last_mut() {
                    group.before = group.before.or(group.here);
                    group.here = group.before.not().and(condition);
                    group.needs = needs;
                }
            }
            Conditional::Close => drop(self.0.pop()),
        }
    }

    fn may_be_taken(&self) -> bool {
        self.0.iter().all(|group| group.here != Truth::False)
    }

    fn needs(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.iter().flat_map(|group| &group.needs).collect();
        names.into_iter().cloned().collect()
    }
}

/// What one line includes.
fn includes_of(line: &[u8], found: &mut Vec<Include>) {
    for at in memchr::memmem::find_iter(line, b"include") {
        let (before, after) = line.split_at(at);
        let rest = after.get(b"include".len()..).unwrap_or_default();
        if before.ends_with(b"__has_") {
            let argument = rest.trim_ascii_start().strip_prefix(b"(").unwrap_or_default();
            found.extend(path(argument.trim_ascii_start()));
        } else if before.trim_ascii_end().ends_with(b"#") {
            found.extend(directive(rest));
        }
    }
}

/// The directive whose text after `include` this is.
fn directive(rest: &[u8]) -> Option<Include> {
    let (rest, is_next) = rest.strip_prefix(b"_next").map_or((rest, false), |rest| (rest, true));
    // A word that only begins like this (`#includes`) is no directive.
    if rest.first().is_some_and(|byte| is_word(*byte)) {
        return None;
    }
    let rest = rest.trim_ascii();
    let include = match path(rest) {
        Some(include) => include,
        None if rest.is_empty() => return None,
        None => return Some(Include::Macro(String::from_utf8_lossy(rest).into_owned())),
    };
    Some(match include {
        Include::Quoted(path) | Include::Angled(path) if is_next => Include::Next(path),
        include => include,
    })
}

fn path(text: &[u8]) -> Option<Include> {
    let (open, rest) = text.split_first()?;
    let close = match open {
        b'"' => b'"',
        b'<' => b'>',
        _ => return None,
    };
    let path = rest.get(..memchr::memchr(close, rest)?)?;
    let path = String::from_utf8_lossy(path).into_owned();
    Some(if close == b'"' { Include::Quoted(path) } else { Include::Angled(path) })
}

/// The macros that a file defines, each with the rest of its definition (parameters, body, continued lines).
pub fn definitions(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    directives(text, b"define").filter_map(|after| {
        let name = after.iter().position(|&byte| !is_word(byte)).unwrap_or(after.len());
        let (name, rest) = after.split_at(name);
        let mut end = 0;
        while let Some(line) = memchr::memchr(b'\n', rest.get(end..)?) {
            end += line + 1;
            if !rest.get(..end - 1)?.trim_ascii_end().ends_with(b"\\") {
                break;
            }
        }
        Some((name, rest.get(..if end == 0 { rest.len() } else { end })?))
    })
}

/// The macros that a file undefines.
pub fn removals(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    directives(text, b"undef").filter_map(|after| after.split(|&byte| !is_word(byte)).next())
}

/// What follows each directive of this name.
fn directives<'a>(text: &'a [u8], name: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    memchr::memmem::find_iter(text, name).filter_map(move |at| {
        let (before, after) = text.split_at(at);
        let after = after.get(name.len()..)?;
        (before.trim_ascii_end().ends_with(b"#") && after.first()?.is_ascii_whitespace())
            .then(|| after.trim_ascii_start())
    })
}

/// The identifiers in a text, and with hyphens what may be parts of paths.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let paths = text.split(|&byte| !is_word(byte) && byte != b'-').filter(|word| word.contains(&b'-'));
    text.split(|&byte| !is_word(byte)).chain(paths).filter(|word| !word.is_empty())
}

/// Whether a macro's name may hold a byte.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_include_is_found() {
        let text = b"#include <a/b.h>\n # include\t\"c.h\" // x\n/* y */ #include \"d.c\"\n#include_next <e.h>\n\
            #include TRACE_INCLUDE(FILE)\n#ifdef X\n#include <f.h>\n#endif\nint include = 1; /* include \"no.h\" */\n\
            #if __has_include(<g.h>)\n#endif\n#included\n/* avoid\n #include hell.\n*/ #include \"h.h\"";
        let quoted = |path: &str| Include::Quoted(path.to_owned());
        let angled = |path: &str| Include::Angled(path.to_owned());
        let expect = [
            angled("a/b.h"),
            quoted("c.h"),
            quoted("d.c"),
            Include::Next("e.h".to_owned()),
            Include::Macro("TRACE_INCLUDE(FILE)".to_owned()),
            angled("f.h"),
            angled("g.h"),
            quoted("h.h"),
        ];
        let found: Vec<Include> =
            includes(text, &Facts::default()).into_iter().map(|found| found.what).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn groups_that_the_configuration_leaves_out_are_left_out() {
        let text = b"#ifdef CONFIG_A\n#include <a.h>\n#else\n#include <b.h>\n#endif\n/*\n#if 0 */\n\
            #if !defined(CONFIG_A) && \\\n defined(X) /* y */\n#include <c.h>\n#elif defined(CONFIG_A)\n#include <d.h>\n\
            #elif X\n#include <e.h>\n#endif\n#ifdef X\n#include <f.h>\n#endif";
        let found: Vec<String> = includes(text, &Facts::of("#define CONFIG_A 1"))
            .into_iter()
            .map(|include| format!("{:?}", include.what))
            .collect();
        assert_eq!(found, ["Angled(\"a.h\")", "Angled(\"d.h\")", "Angled(\"f.h\")"]);
    }

    #[test]
    fn what_a_group_needs_to_be_taken_is_told() {
        let text = b"#ifndef GUARD\n#include <a.h>\n#ifdef A // x\n#if defined(C) && B\n#include <b.h>\n#define N 1\n#elif D\n\
            #include <c.h>\n#else\n#include <d.h>\n#endif\n#else\n#include <e.h>\n#define N\n#define M\n#endif\n#endif";
        let found: Vec<(Option<String>, String)> = includes(text, &Facts::default())
            .into_iter()
            .map(|include| (include.what.path().map(str::to_owned), include.needs.concat()))
            .collect();
        let expect = [("a.h", ""), ("b.h", "ABC"), ("c.h", "AD"), ("d.h", "A"), ("e.h", "")];
        assert_eq!(found, expect.map(|(path, needs)| (Some(path.to_owned()), needs.to_owned())));
        let defined = definitions_of(text, &HashSet::from(["N".to_owned()]), &Facts::default());
        let needs: Vec<String> = defined.iter().map(|found| found.needs.concat()).collect();
        assert_eq!(needs, ["ABC", ""]);
    }

    #[test]
    fn definitions_come_with_their_continued_lines() {
        let text = b"#define A b\n# define F(x) x \\\n  y\nint z;\n#define LAST";
        let found: Vec<(&[u8], &[u8])> = definitions(text).collect();
        let expect: [(&[u8], &[u8]); 3] = [(b"A", b" b\n"), (b"F", b"(x) x \\\n  y\n"), (b"LAST", b"")];
        assert_eq!(found, expect);
        assert_eq!(
            words(b" <linux/x-y.h> \\\n").collect::<Vec<_>>(),
            [&b"linux"[..], b"x", b"y", b"h", b"x-y"]
        );
    }
}
