//! Names that the compiler numbers.

/// The name without what gcc and clang append to copies and parts of a function: `.isra.0`, `.constprop.3`,
/// `.part.2`, `.cold`, `.llvm.1234`, and the numbers of static locals.
pub(crate) fn stem(name: &str) -> &str {
    match name.find('.') {
        // A leading dot is part of a label, not of a suffix.
        Some(0) | None => name,
        Some(at) => name.get(..at).unwrap_or(name),
    }
}

/// Whether the assembler keeps the label for itself.
pub(crate) fn is_label(name: &str) -> bool {
    name.is_empty() || name.starts_with(".L")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_of_clones_are_cut() {
        for (name, expected) in [
            ("show", "show"),
            ("show.isra.0", "show"),
            ("show.constprop.0.cold", "show"),
            ("__func__.12", "__func__"),
            (".LC0", ".LC0"),
            ("", ""),
        ] {
            assert_eq!(stem(name), expected);
        }
        assert!(is_label(".LC0") && is_label("") && !is_label("show.cold"));
    }
}
