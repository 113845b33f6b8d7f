//! Parameters of a module, as insmod(8) and modprobe(8) take them and the kernel reads them.
//!
//! init_module(2) takes them as one text, separated by white space. A `"` begins and ends a stretch in which white space
//! separates nothing, and nothing stands for a `"` itself (Linux, lib/cmdline.c, `next_arg`). So a value with anything
//! but graphic ASCII in it is put between `"`, as modprobe does, and a `"` within a value is refused. (The kernel reads
//! bytes as Latin-1, where 0xa0, a part of many letters in UTF-8, is white space: lib/ctype.c.)

use kmend_kernel::Module;
use serde::{Serialize, Serializer};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What the kernel takes for any module (Linux, kernel/module/main.c, `unknown_module_param_cb`).
const OF_ALL: [&str; 2] = ["async_probe", "dyndbg"];

/// One parameter: `NAME` or `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    name: String,
    /// The value as the kernel is given it: between `"` if need be.
    value: Option<String>,
}

impl Parameter {
    /// Its name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Parameter, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(quoted(value)?)),
            None => (text, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        // The kernel reads no further than to a `--` (Linux, kernel/params.c, `parse_args`).
        if name.is_empty() || name.starts_with('-') || !name.chars().all(plain) {
            return Err(
                "a parameter is NAME=VALUE, and its name consists of letters, digits, `_` and `-`".into()
            );
        }
        Ok(Parameter { name: name.to_owned(), value })
    }
}

/// A value as the kernel is given it.
fn quoted(value: &str) -> Result<String, String> {
    if value.chars().any(char::is_control) {
        return Err("a value holds no newline and no other control character".into());
    }
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    if inner.unwrap_or(value).contains('"') {
        return Err("a `\"` within a value cannot be told to the kernel".into());
    }
    let plain = inner.is_some() || value.bytes().all(|byte| byte.is_ascii_graphic());
    Ok(if plain { value.to_owned() } else { format!("\"{value}\"") })
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Serialize for Parameter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// All of them as the kernel takes them.
pub(crate) fn line(parameters: &[Parameter]) -> String {
    parameters.iter().map(Parameter::to_string).collect::<Vec<_>>().join(" ")
}

/// The names of a module's parameters: those that `.modinfo` has, and those of the entries themselves, because one that is
/// made by `module_param_cb` may be in no `.modinfo` (Linux, include/linux/moduleparam.h).
pub(crate) fn declared(module: &Module) -> BTreeSet<String> {
    let told = ["parm", "parmtype"].into_iter().flat_map(|key| module.modinfo(key));
    let told = told.filter_map(|text| text.split_once(':')).map(|(name, _)| name);
    let symbols = module.object().symbols.iter();
    let entries = symbols.filter_map(|symbol| symbol.name.strip_prefix("__param_"));
    let entries =
        entries.filter(|name| !["str_", "arr_", "string_"].iter().any(|other| name.starts_with(other)));
    told.chain(entries).map(plain).collect()
}

/// Whether a module takes a parameter. (The kernel ignores one that it does not know.)
pub(crate) fn is_declared(parameter: &Parameter, declared: &BTreeSet<String>) -> bool {
    OF_ALL.contains(&parameter.name()) || declared.contains(&plain(parameter.name()))
}

/// `-` and `_` are one in names (Linux, kernel/params.c, `dash2underscore`).
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{RELEASE, module_with};

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let given = text.parse::<Parameter>().map(|parameter| parameter.to_string());
        assert_eq!(given.as_deref(), Ok(expect));
    }

    #[test]
    fn what_the_kernel_would_take_apart_is_quoted() {
        check("debug", "debug");
        check("replace=1", "replace=1");
        check("pids=1,2,3", "pids=1,2,3");
        check("name=", "name=");
        check("name=a=b", "name=a=b");
        check("name=a b", "name=\"a b\"");
        check("name=\"a b\"", "name=\"a b\"");
        check("name=à", "name=\"à\"");
        assert_eq!(line(&["a=1".parse().unwrap(), "b".parse().unwrap()]), "a=1 b");
        assert_eq!(line(&[]), "");
    }

    #[test]
    fn what_cannot_be_told_to_the_kernel_is_refused() {
        for text in [
            "", "=1", "--", "--x=1", "a b=1", "a\"=1", "a=1\nb=2", "a=\t", "a=\0", "a=x\"y", "a=\"",
            "a=\"\"\"", "é=1",
        ] {
            assert!(text.parse::<Parameter>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_module_names_its_parameters() {
        let bytes =
            module_with("x", RELEASE, true, "parm=one:the first\0parmtype=one:int\0parmtype=two_b:bool\0");
        let declared = declared(&Module::parse(&bytes).unwrap());
        let takes = |text: &str| is_declared(&text.parse().unwrap(), &declared);
        assert!(takes("one=1") && takes("two-b") && takes("dyndbg=+p"));
        assert!(!takes("three=1") && !takes("on=1"));
    }
}
