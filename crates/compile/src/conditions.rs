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
