//! Blocks of a PEM file (RFC 7468): one file may hold a key and its certificate, as the kernel's certs/signing_key.pem does.

/// What begins a block, before its label.
const BEGIN: &str = "-----BEGIN ";
/// What ends the label.
const DASHES: &str = "-----";

/// The blocks of a text: label, and the block with both its lines. What stands between them is passed over.
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let block = &rest[rest.find(BEGIN)?..];
            rest = &block[BEGIN.len()..];
            let (label, _) = rest.split_once(DASHES)?;
            let end = format!("{DASHES}END {label}{DASHES}");
            if let Some(at) = block.find(&end) {
                let (block, after) = block.split_at(at + end.len());
                rest = after;
                return Some((label, block));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let a = "-----BEGIN A B-----\nAA==\n-----END A B-----";
        let b = "-----BEGIN C-----\n-----END C-----";
        let text = format!("subject=x\n{a}\nbetween -----BEGIN half\n{b}\n-----BEGIN D-----\n");
        assert_eq!(blocks(&format!("x {a} y {b}")).collect::<Vec<_>>(), [("A B", a), ("C", b)]);
        assert_eq!(blocks(&text).next(), Some(("A B", a)));
        assert_eq!(blocks("-----BEGIN ").count() + blocks("").count() + blocks(DASHES).count(), 0);
    }
}
