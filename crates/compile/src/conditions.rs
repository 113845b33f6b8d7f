//! Conditions of `#if` that the kernel's configuration decides.
//!
//! For [`crate::includes`]: what lies in a group that no unit of this kernel can take need not be looked at. Only
//! names that the configuration alone sets are known; everything else may be either way.

use std::collections::{BTreeMap, HashSet};

/// What is known of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds in every unit.
    True,
    /// It holds in none.
    False,
    /// It depends.
    Unknown,
}

use Truth::{False, True, Unknown};

impl Truth {
    /// The opposite.
    pub fn not(self) -> Self {
        match self {
            True => False,
            False => True,
            Unknown => Unknown,
        }
    }

    /// Either.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (True, _) | (_, True) => True,
            (False, False) => False,
            _ => Unknown,
        }
    }

    /// Both.
    pub fn and(self, other: Self) -> Self {
        self.not().or(other.not()).not()
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { True } else { False }
    }
}

/// How deep parentheses are followed; what is deeper may be either way.
const DEEPEST: u32 = 24;

/// The macros that are the same in all units.
#[derive(Debug, Default)]
pub struct Facts {
    /// What `autoconf.h` defines, with the values.
    pub configuration: BTreeMap<String, String>,
    /// Names that some file defines or undefines for itself.
    pub unsure: HashSet<String>,
}

impl Facts {
    /// What `autoconf.h` says.
    pub fn of(autoconf: &str) -> Self {
        let definition = |line: &str| {
            let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Self { configuration: autoconf.lines().filter_map(definition).collect(), unsure: HashSet::new() }
    }

    /// Whether a name is one that this answers for, as long as no file defines it.
    pub fn answers_for(name: &str) -> bool {
        name.starts_with("CONFIG_") || name == "__KERNEL__"
    }

    /// Whether `name` is defined.
    pub fn defined(&self, name: &str) -> Truth {
        if !Self::answers_for(name) || self.unsure.contains(name) {
            return Unknown;
        }
        (name == "__KERNEL__" || self.configuration.contains_key(name)).into()
    }

    /// The condition of an `#if` or `#elif`, without comments.
    pub fn condition(&self, text: &str) -> Truth {
        self.expression(text, 0)
    }

    fn expression(&self, text: &str, depth: u32) -> Truth {
        if depth > DEEPEST || text.contains('?') {
            return Unknown;
        }
        let text = text.trim();
        if let Some((left, right)) = split(text, "||") {
            return self.expression(left, depth).or(self.expression(right, depth + 1));
        }
        if let Some((left, right)) = split(text, "&&") {
            return self.expression(left, depth).and(self.expression(right, depth + 1));
        }
        if let Some(rest) = text.strip_prefix('!').filter(|rest| !rest.starts_with('=')) {
            return if is_operand(rest.trim()) { self.expression(rest, depth + 1).not() } else { Unknown };
        }
        if !is_operand(text) {
            return Unknown;
        }
        match text.split_once('(') {
            Some(("", inner)) => self.expression(inner.strip_suffix(')').unwrap_or_default(), depth + 1),
            Some((function, argument)) => {
                self.function(function.trim(), argument.trim_end_matches(')').trim())
            }
            None => match text.strip_prefix("defined ") {
                Some(name) => self.defined(name.trim()),
                None => self.name(text),
            },
        }
    }

    /// `defined()` and the macros of include/linux/kconfig.h.
    fn function(&self, function: &str, name: &str) -> Truth {
        let module = || self.defined(&format!("{name}_MODULE"));
        match function {
            "defined" | "IS_BUILTIN" => self.defined(name),
            "IS_MODULE" => module(),
            "IS_ENABLED" => self.defined(name).or(module()),
            _ => Unknown,
        }
    }

    /// A number, or the value of a macro; one that is not defined counts as 0.
    fn name(&self, name: &str) -> Truth {
        match name {
            "0" => return False,
            "1" => return True,
            _ => {}
        }
        match self.defined(name) {
            True if self.configuration.get(name).is_some_and(|value| value == "1") => True,
            False => False,
            _ => Unknown,
        }
    }
}

/// Names that must be defined where a condition (of `#if`, without comments) holds; there may be more.
///
/// A name that is not defined counts as 0 in a condition (C11 6.10.1 paragraph 4).
pub fn needs(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    collect_needs(text, 0, &mut names);
    names
}

fn collect_needs(text: &str, depth: u32, names: &mut Vec<String>) {
    let text = text.trim();
    if depth > DEEPEST || text.contains('?') || split(text, "||").is_some() {
        return;
    }
    if let Some((left, right)) = split(text, "&&") {
        collect_needs(left, depth + 1, names);
        collect_needs(right, depth + 1, names);
    } else if is_operand(text) {
        let name = match text.split_once('(') {
            Some(("", inner)) => {
                return collect_needs(inner.strip_suffix(')').unwrap_or_default(), depth + 1, names);
            }
            Some((function, name)) if function.trim() == "defined" => name.trim_end_matches(')').trim(),
            Some(_) => return,
            None => text.strip_prefix("defined ").map_or(text, str::trim),
        };
        names.extend(is_files_own(name).then(|| name.to_owned()));
    }
}

/// Whether a name is one that only a source file or a `-D` option can define: neither the configuration's, nor reserved
/// for the compiler (C11 7.1.3), nor one of those that gcc takes all the same (gcc/config/i386/i386-c.cc, `linux.h`).
pub fn is_files_own(name: &str) -> bool {
    let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let is_reserved = name.starts_with('_') || name.starts_with(|c: char| c.is_ascii_digit());
    let is_gcc = matches!(name, "linux" | "unix" | "i386" | "");
    is_word && !is_reserved && !is_gcc && !Facts::answers_for(name)
}

/// Splits at the first `operator` outside of parentheses.
fn split<'a>(text: &'a str, operator: &str) -> Option<(&'a str, &'a str)> {
    let mut depth = 0i32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ if depth == 0 && text.as_bytes().get(at..)?.starts_with(operator.as_bytes()) => {
                return Some((text.get(..at)?, text.get(at + operator.len()..)?));
            }
            _ => {}
        }
    }
    None
}

/// Whether a text is one operand: a word, `WORD WORD`, or what ends with the parenthesis that it opens.
fn is_operand(text: &str) -> bool {
    let is_plain =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_ \t".contains(&byte));
    let Some((word, rest)) = text.split_once('(') else {
        return is_plain(text) && !text.is_empty();
    };
    let mut depth = 1i32;
    let closes = rest.bytes().position(|byte| {
        depth += i32::from(byte == b'(') - i32::from(byte == b')');
        depth == 0
    });
    is_plain(word) && closes == rest.len().checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Truth) {
        let mut facts = Facts::of("#define CONFIG_A 1\n#define CONFIG_B_MODULE 1\n#define CONFIG_N 12\n");
        facts.unsure.insert("CONFIG_64BIT".to_owned());
        assert_eq!(facts.condition(text), expect, "{text}");
    }

    #[test]
    fn the_configuration_decides_what_it_can() {
        check("defined(CONFIG_A)", True);
        check("defined CONFIG_X", False);
        check("!defined(CONFIG_A) || CONFIG_X", False);
        check("IS_ENABLED(CONFIG_B) && !IS_BUILTIN(CONFIG_B)", True);
        check("(defined(CONFIG_A) && (CONFIG_A))", True);
        check("0 && FOO", False);
        check("defined(CONFIG_X) && (PAGE_SIZE > 4096 || defined(Y))", False);
    }

    #[test]
    fn what_a_condition_needs_is_told_when_it_is_certain() {
        assert_eq!(needs("defined(A) && (defined B && C) && D > 3 && !defined(E)"), ["A", "B", "C"]);
        for text in
            ["defined(A) || B", "!A", "A ? B : C", "__GNUC__", "CONFIG_A", "12", "linux", "", "(", "F(A)"]
        {
            assert!(needs(text).is_empty(), "{text}");
        }
        assert!(needs(&"(".repeat(5000)).is_empty());
        assert!(needs(&"A&&".repeat(5000)).len() <= DEEPEST as usize + 1);
    }

    #[test]
    fn the_rest_may_be_either_way() {
        for text in [
            "FOO",
            "defined(FOO)",
            "CONFIG_N > 3",
            "CONFIG_N",
            "defined(CONFIG_64BIT)",
            "CONFIG_A ? 0 : 1",
            "IS_REACHABLE(CONFIG_B)",
            "!(CONFIG_A) == 0",
            "",
            "(",
            ")",
            "defined(CONFIG_A) && FOO(3)",
            "!",
            "CONFIG_X + 1",
        ] {
            check(text, Unknown);
        }
        check(&"(".repeat(5000), Unknown);
        check(&"!".repeat(5000), Unknown);
        check(&"A||".repeat(5000), Unknown);
    }
}
