//! Text of others, made safe to look at.

/// The text with what cannot be seen written out: a terminal's escapes, and the marks that turn the reading
/// direction, by which a text shows as another than it is (CVE-2021-42574). Tabs stay.
pub fn visible(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '"' | '\'' | '\\' => safe.push(c),
            _ => safe.extend(c.escape_debug()),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        assert_eq!(visible("\tif (a) \"b\\n\" 'ä' → 日本"), "\tif (a) \"b\\n\" 'ä' → 日本");
        assert_eq!(visible("a\u{1b}[2Jb\r\0"), "a\\u{1b}[2Jb\\r\\0");
        assert_eq!(visible("a\u{202e}b\u{2066}c\u{200b}"), "a\\u{202e}b\\u{2066}c\\u{200b}");
    }
}
