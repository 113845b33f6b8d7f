//! Names without the compiler's numbering.
//!
//! gcc numbers what it makes: `foo.isra.0`, `foo.constprop.3`, `count.12`, `__func__.7`, `CSWTCH.45`; the kernel's
//! `__UNIQUE_ID()` and `BTF_ID()` number too. An edit anywhere in a unit renumbers the rest, so the numbers identify
//! nothing. What is left without them is the base name; things of one base name are told apart by content
//! and by who refers to them.

use crate::atoms::{AtomId, Unit};
use kmend_object::{Binding, SymbolId};

/// What is generated from source text that has no name of its own. Its identity is its content. `__msg` is the text of
/// `NL_SET_ERR_MSG()` and its kin (include/linux/netlink.h), of which a function may have several.
const CONTENT_ONLY: &[&str] =
    &["__func__", "__FUNCTION__", "__PRETTY_FUNCTION__", "CSWTCH", "switch.table", "__msg"];

/// How the names of the entries of lists of types begin; a count and a line follow (include/linux/btf_ids.h, `BTF_ID()`).
const BTF_ENTRY: &str = "__BTF_ID__";

/// Sections of the flags of macros that do something once (include/linux/once.h, include/linux/once_lite.h). The second since
/// 6.13 and its stable kernels (dbefa1f31a91, "Rename .data.once to .data..once").
const ONCE: &[&str] = &[".data.once", ".data..once"];

/// How the names of labels begin that are local to one assembly (binutils: "Local Symbol Names").
const ASSEMBLER_LOCAL: &str = ".L";

/// Suffixes of functions that gcc splits or clones (gcc/ipa-*.cc, gcc/cgraphclones.cc).
const CLONE_SUFFIXES: &[&str] =
    &[".isra", ".constprop", ".part", ".cold", ".llvm", ".localalias", ".lto_priv"];

/// The name without numbers that the compiler, `__UNIQUE_ID()` or `BTF_ID()` gave.
pub(crate) fn base(name: &str) -> String {
    let mut parts = Vec::new();
    for (position, part) in name.split('.').enumerate() {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if position > 0 && is_number {
            continue;
        }
        parts.push(part);
    }
    let joined = parts.join(".");
    if joined.contains("__UNIQUE_ID_") || is_btf_entry(&joined) {
        return joined.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    }
    joined
}

/// Whether it is an entry of a list of types.
pub(crate) fn is_btf_entry(name: &str) -> bool {
    name.starts_with(BTF_ENTRY)
}

/// Whether the flags of macros lie there that do something once.
pub(crate) fn is_once_section(section: &str) -> bool {
    ONCE.iter().any(|beginning| section.starts_with(beginning))
}

/// Whether the compiler numbered it, so that the name alone does not identify it.
pub(crate) fn is_numbered(name: &str) -> bool {
    base(name) != name
}

/// The name of the function in the source: the base name without clone suffixes.
pub(crate) fn root(name: &str) -> String {
    let mut root = base(name);
    while let Some(suffix) = CLONE_SUFFIXES.iter().find(|suffix| root.ends_with(**suffix)) {
        root.truncate(root.len() - suffix.len());
    }
    root
}

/// The function that `name` is the cold part of.
pub(crate) fn cold_parent(name: &str) -> Option<&str> {
    let at = name.rfind(".cold")?;
    let rest = &name[at + ".cold".len()..];
    let numbered =
        rest.strip_prefix('.').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    (at > 0 && (rest.is_empty() || numbered)).then(|| &name[..at])
}

/// Whether it is a constant whose name says only how it came to be.
///
/// Labels such as `.LC7` name vectors and floating-point constants. The assembler keeps them in the symbol table
/// where they are referred to in a mergeable section (gas/config/tc-i386.c, `tc_i386_fix_adjustable`).
pub(crate) fn is_content_only(name: &str) -> bool {
    let base = base(name);
    base.starts_with(ASSEMBLER_LOCAL)
        || CONTENT_ONLY.contains(&base.as_str())
        || base.starts_with("switch.table.")
}

impl Unit<'_> {
    /// All names of a function in the source: `module_init()` gives a static one another name, `init_module`, which is
    /// global. Those of one file come first.
    pub(crate) fn source_names(&self, id: AtomId) -> Vec<String> {
        let object = self.object;
        let is_name = |symbol: &SymbolId| {
            self.atom_of_symbol(*symbol) == Some(id)
                && object.symbol(*symbol).is_function()
                && object.symbol(*symbol).value == self.atom(id).origin
        };
        let mut symbols: Vec<SymbolId> = object.symbol_ids().filter(is_name).collect();
        symbols.sort_by_key(|&symbol| object.symbol(symbol).binding != Binding::Local);
        symbols.into_iter().map(|symbol| root(&object.symbol(symbol).name)).collect()
    }

    /// A function's name in the source.
    pub(crate) fn source_name(&self, id: AtomId) -> String {
        self.source_names(id).into_iter().next().unwrap_or_else(|| self.name(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_and_the_rest_stays() {
        for (name, expect) in [
            ("foo", "foo"),
            ("foo.isra.0", "foo.isra"),
            ("foo.constprop.3.isra.12", "foo.constprop.isra"),
            ("count.12", "count"),
            ("__func__.7", "__func__"),
            ("__UNIQUE_ID_ddebug412.3", "__UNIQUE_ID_ddebug"),
            ("__UNIQUE_ID___addressable_init99", "__UNIQUE_ID___addressable_init"),
            ("__BTF_ID__struct__file__151111809", "__BTF_ID__struct__file__"),
            ("sha256", "sha256"),
            ("f.count", "f.count"),
            (".512", ""),
        ] {
            assert_eq!(base(name), expect);
        }
    }

    #[test]
    fn generated_constants_are_told_from_variables() {
        for name in [".LC7", "__func__.3", "CSWTCH.45", "switch.table.f", "__msg.12"] {
            assert!(is_content_only(name), "{name}");
        }
        assert!(!is_content_only("L7") && !is_content_only("table"));
    }

    #[test]
    fn the_root_is_the_source_function() {
        assert_eq!(root("foo.constprop.0.cold"), "foo");
        assert_eq!(root("foo.part.1"), "foo");
        assert_eq!(root("cold"), "cold");
    }

    #[test]
    fn cold_parts_name_their_function() {
        assert_eq!(cold_parent("foo.cold"), Some("foo"));
        assert_eq!(cold_parent("foo.isra.0.cold.3"), Some("foo.isra.0"));
        assert_eq!(cold_parent("foo.coldish"), None);
        assert_eq!(cold_parent(".cold"), None);
    }
}
