//! What `#include MACRO` may come to, for [`crate::scan`].

use crate::database::from_root;
use crate::includes::without_comments;
use crate::scan::folder_of;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What `#include MACRO` may come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MacroPaths {
    /// For each file, the headers whose names its definitions hold.
    pub headers: BTreeMap<String, BTreeSet<String>>,
    /// What may stand before the name: folders, seen from a folder of includes.
    pub folders: BTreeSet<String>,
    /// The folders of the files that hold `#include MACRO`.
    pub from: BTreeSet<String>,
}

impl MacroPaths {
    /// All folders in which a header whose name a macro makes may lie.
    pub fn folders_from(&self, folders: &[String]) -> HashSet<String> {
        let starts = folders.iter().chain(&self.from);
        starts.flat_map(|start| self.folders.iter().map(move |folder| from_root(start, folder))).collect()
    }
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
    let has_blanks = body
        .windows(3)
        .any(|part| is_word_byte(part[0]) && part[1].is_ascii_whitespace() && is_word_byte(part[2]));
    (squeezed.iter().all(is_path) && !has_blanks).then_some(squeezed)
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
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
    }
}
