//! What `#include MACRO` may come to, for [`crate::scan`].

use crate::database::from_root;
use crate::includes::{is_word, without_comments, words};
use crate::scan::folder_of;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What `#include MACRO` may come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MacroPaths {
    /// For each file, the headers whose names its definitions hold.
    pub headers: BTreeMap<String, BTreeSet<String>>,
    /// What may stand before the name: folders, seen from a folder of includes.
    pub folders: BTreeSet<String>,
    /// The files that hold `#include MACRO`.
    pub sites: BTreeSet<String>,
}

impl MacroPaths {
    /// All folders in which a header whose name a macro makes may lie.
    pub fn folders_from(&self, folders: &[String]) -> HashSet<String> {
        let starts = folders.iter().map(String::as_str).chain(self.sites.iter().map(|site| folder_of(site)));
        starts.flat_map(|start| self.folders.iter().map(move |folder| from_root(start, folder))).collect()
    }
}

/// Definitions that may be parts of paths: by name, the files and bodies.
#[derive(Debug, Default)]
pub struct PathParts(pub HashMap<Vec<u8>, Vec<(String, Vec<u8>)>>);

impl PathParts {
    /// Adds all that the macros `names` lead to, over any number of definitions.
    pub fn complete(
        &self,
        mut paths: MacroPaths,
        names: HashSet<Vec<u8>>,
        headers: &HashMap<&[u8], Vec<String>>,
    ) -> MacroPaths {
        let mut todo: Vec<Vec<u8>> = names.iter().cloned().collect();
        let mut names = names;
        while let Some(name) = todo.pop() {
            for (file, body) in self.0.get(&name).into_iter().flatten() {
                let targets = file_words(body).filter_map(|word| headers.get(word)).flatten();
                paths.headers.entry(file.clone()).or_default().extend(targets.cloned());
                paths.folders.extend(macro_folder(body));
                for word in words(body).filter(|word| self.0.contains_key(*word)) {
                    if names.insert(word.to_vec()) {
                        todo.push(word.to_vec());
                    }
                }
            }
        }
        paths
    }
}

/// The words of a macro's body that may be a file's name or begin it: a word before a `/` is a folder.
pub fn file_words(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = body.split(|&byte| byte == b'/').count();
    body.split(|&byte| byte == b'/').enumerate().flat_map(move |(number, part)| {
        let is_part_of_path = |byte: &u8| is_word(*byte) || matches!(byte, b'-' | b'.');
        let folder = part.iter().rev().take_while(|byte| number + 1 < parts && is_part_of_path(byte)).count();
        words(part.get(..part.len() - folder).unwrap_or_default())
    })
}

/// The body of a macro, without its parameters, if it may become part of a file's path: no path has white space in it,
/// and nothing but words, macro calls and the punctuation of paths makes one.
pub fn path_part(definition: &[u8]) -> Option<Vec<u8>> {
    let plain = without_comments(definition);
    let body = match plain.strip_prefix(b"(") {
        Some(rest) => rest.get(memchr::memchr(b')', rest)? + 1..)?,
        None => &plain,
    };
    let is_separator = |&&byte: &&u8| !byte.is_ascii_whitespace() && byte != b'\\';
    let body = match body.trim_ascii().split_first() {
        Some((b'(' | b'0'..=b'9', _)) | None => return None,
        Some(_) => body.trim_ascii(),
    };
    // Arguments of a call may have blanks between them, and lines may be continued.
    let squeezed: Vec<u8> = body.iter().filter(is_separator).copied().collect();
    let is_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+./<>\",()#".contains(byte);
    let has_blanks =
        body.windows(3).any(|part| is_word(part[0]) && part[1].is_ascii_whitespace() && is_word(part[2]));
    (squeezed.iter().all(is_path) && !has_blanks).then_some(squeezed)
}

/// The folder that the body of a macro may name: itself if it looks like one, or else, if it is a whole path, that
/// path's.
pub fn macro_folder(body: &[u8]) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?.trim();
    let path = body.trim_matches(['<', '>', '"']);
    let is_path = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+./".contains(&byte));
    if !is_path || path.is_empty() {
        return None;
    }
    Some(path.strip_suffix(".h").map_or(path, folder_of).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_a_path_is_one() {
        let part = |text: &str| path_part(text.as_bytes()).map(|part| String::from_utf8(part).unwrap());
        assert_eq!(part(" ../../fs/xfs /* where */\n").as_deref(), Some("../../fs/xfs"));
        assert_eq!(part("(system) <trace/system.h>").as_deref(), Some("<trace/system.h>"));
        assert_eq!(part(" ((u16)~0U)"), None);
        assert_eq!(part(" static inline"), None);
        assert_eq!(macro_folder(b"<linux/drbd_genl.h>").as_deref(), Some("linux"));
        assert_eq!(macro_folder(b"__stringify(x)"), None);
        let names = |text: &str| {
            let words = file_words(text.as_bytes()).map(|word| String::from_utf8_lossy(word).into_owned());
            words.collect::<Vec<_>>()
        };
        assert_eq!(names("<trace/events/system.h>"), ["system", "h"]);
        assert_eq!(names("f(a/b,c-d)"), ["f", "b", "c", "d", "c-d"]);
        assert_eq!(names("../../fs/xfs"), ["xfs"]);
    }
}
