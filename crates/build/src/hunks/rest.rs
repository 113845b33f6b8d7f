//! What no hunk has lines of: functions and data that change because of what they use.

use super::view::View;
use super::{Explainer, How, Judged};
use crate::report::Effect;
use kmend_compile::{Change, Fate, words};
use std::collections::{BTreeMap, BTreeSet};

/// More lines than a function has.
const LONGEST: usize = 5_000;
/// How many macros deep a name is followed.
const DEEP: usize = 4;

/// Something of the livepatch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Function(String),
    Variable(String),
}

/// The lines of files by their numbers; `None` for one that cannot be read.
type Texts = BTreeMap<String, Vec<(u32, String)>>;

/// Whether a hunk's file and change are of a kind.
type IsKind<'a> = &'a dyn Fn(&str, &Change) -> bool;

impl Explainer<'_> {
    /// Gives the functions that use what hunks declare to these hunks, and then what is left, functions and data, to hunks that
    /// nothing was found for: of those the first kind that there is.
    pub(super) fn rest(&self, hunks: &mut [Judged]) {
        let is_any = |view: &View<'_>| !view.changes().is_empty() || view.variables().next().is_some();
        if !self.views.iter().any(is_any) {
            return;
        }
        self.users(hunks);
        for view in &self.views {
            let left = left(view, hunks);
            if left.is_empty() {
                continue;
            }
            let own = |file: &str| file == view.source();
            let header = |file: &str| !kmend_compile::is_source(file);
            let declares = |change: &Change| !change.is_space && change.functions.is_empty();
            let kinds: [IsKind<'_>; 3] = [
                &|file, change| declares(change) && (own(file) || header(file)),
                &|file, _| own(file),
                &|file, _| header(file),
            ];
            for is_kind in kinds {
                if self.give(hunks, is_kind, &left) {
                    break;
                }
            }
        }
    }

    /// Gives something to all hunks of a kind that have no effect yet; says whether there is one.
    fn give(&self, hunks: &mut [Judged], is_kind: IsKind<'_>, items: &BTreeSet<Item>) -> bool {
        let mut is_any = false;
        for (judged, hunk) in hunks.iter_mut().zip(&self.outcome.hunks) {
            let Fate::Changes(change) = &hunk.fate else { continue };
            if judged.how != How::Certain && is_kind(&hunk.file, change) {
                add(judged, items);
                is_any = true;
            }
        }
        is_any
    }

    /// Gives each function that has a name of a hunk in its text to that hunk.
    fn users(&self, hunks: &mut [Judged]) {
        let mut texts = Texts::new();
        let mut used: Vec<(Item, BTreeSet<String>)> = Vec::new();
        for (judged, hunk) in hunks.iter_mut().zip(&self.outcome.hunks) {
            let Fate::Changes(change) = &hunk.fate else { continue };
            if judged.how == How::Certain || change.is_space || !change.functions.is_empty() {
                continue;
            }
            if used.is_empty() {
                used = self.words_of_changes(&mut texts);
            }
            let names = self.names(change);
            let users = used.iter().filter(|(_, words)| !words.is_disjoint(&names));
            let users: BTreeSet<Item> = users.map(|(item, _)| item.clone()).collect();
            if !users.is_empty() {
                add(judged, &users);
            }
        }
    }

    /// What a hunk declares, and the macros of the patched files that have it in them.
    fn names(&self, change: &Change) -> BTreeSet<String> {
        let is_telling = |name: &&String| !super::DECLARING.contains(&name.as_str());
        let mut names: BTreeSet<String> = change.names.iter().filter(is_telling).cloned().collect();
        let lines = self.outcome.lines.values().flatten();
        let defines: Vec<String> = lines
            .map(|(_, line)| String::from_utf8_lossy(line).trim_start().to_owned())
            .filter(|line| line.starts_with('#') && line.contains("define"))
            .collect();
        for _ in 0..DEEP {
            let before = names.len();
            for line in &defines {
                let mut words = words(line).skip_while(|word| *word != "define").skip(1);
                if let Some(name) = words.next()
                    && words.any(|word| names.contains(word))
                {
                    names.insert(name.to_owned());
                }
            }
            if names.len() == before {
                break;
            }
        }
        names
    }

    /// The words in the bodies that each changed function has code of, in its own source and in patched files.
    fn words_of_changes(&self, texts: &mut Texts) -> Vec<(Item, BTreeSet<String>)> {
        let mut found = Vec::new();
        for view in &self.views {
            for function in view.changes() {
                let mut used = BTreeSet::new();
                for (file, line) in view.lines(function.sides.patched) {
                    if file != view.source() && !self.outcome.lines.contains_key(file) {
                        continue;
                    }
                    let text = texts.entry(file.to_owned()).or_insert_with(|| self.text(file));
                    add_body(text, line, &mut used);
                }
                found.push((Item::Function(function.name.clone()), used));
            }
        }
        found
    }

    fn text(&self, file: &str) -> Vec<(u32, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if let Some(lines) = self.outcome.lines.get(file) {
            return lines.iter().map(|(number, line)| (*number, text(line))).collect();
        }
        let bytes = std::fs::read(self.prepared.tree.join(file)).unwrap_or_default();
        (1..).zip(bytes.split(|&byte| byte == b'\n').map(text)).collect()
    }
}

/// What of a unit's part of the livepatch no hunk has.
fn left(view: &View<'_>, hunks: &[Judged]) -> BTreeSet<Item> {
    let functions = view.changes().iter().map(|function| &function.name);
    let is_left = |name: &&String| !hunks.iter().any(|hunk| hunk.report.functions.contains(name));
    let functions = functions.filter(is_left).cloned().map(Item::Function);
    let is_left = |name: &&String| !hunks.iter().any(|hunk| hunk.report.variables.contains(name));
    let variables = view.variables().filter(is_left).cloned().map(Item::Variable);
    functions.chain(variables).collect()
}

fn add(judged: &mut Judged, items: &BTreeSet<Item>) {
    let report = &mut judged.report;
    for item in items {
        let (list, name) = match item {
            Item::Function(name) => (&mut report.functions, name),
            Item::Variable(name) => (&mut report.variables, name),
        };
        if !list.contains(name) {
            list.push(name.clone());
            list.sort();
        }
    }
    judged.how = How::Use;
    report.effect = if report.functions.is_empty() { Effect::Data } else { Effect::Changed };
    report.why = Some("it changes by what this declares or says".to_owned());
}

/// Adds the words of the body of the function that a line is in, by the kernel's coding style: of a call that is inlined, the line
/// itself can have no code.
fn add_body(text: &[(u32, String)], line: u32, used: &mut BTreeSet<String>) {
    let begins = |line: &str| {
        line.starts_with('{')
            || (line.ends_with('{') && line.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
    };
    for at in (0..text.len()).filter(|&at| text[at].0 == line) {
        let open = (0..=at).rev().take_while(|&before| before == at || !text[before].1.starts_with('}'));
        let Some(open) = open.take(LONGEST).find(|&before| begins(&text[before].1)) else {
            used.extend(words(&text[at].1).map(str::to_owned));
            continue;
        };
        let body = text[open..].iter().take_while(|(_, line)| !line.starts_with('}')).take(LONGEST);
        used.extend(body.flat_map(|(_, line)| words(line)).map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::add_body;
    use std::collections::BTreeSet;

    #[test]
    fn a_body_is_taken_whole_and_nothing_around_it() {
        let lines = [
            "#define A 1",
            "int f(void)",
            "{",
            "\tone(B,",
            "\t    C);",
            "}",
            "#define D 2",
            "int g(E) {",
            "}",
        ];
        let text: Vec<(u32, String)> = (1..).zip(lines.map(str::to_owned)).collect();
        let of = |line| {
            let mut used = BTreeSet::new();
            add_body(&text, line, &mut used);
            used.into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!((of(4).as_str(), of(6).as_str()), ("B C one", "B C one"));
        assert_eq!((of(2).as_str(), of(9).as_str()), ("f int void", "E g int"));
        assert_eq!(of(77), "");
    }
}
