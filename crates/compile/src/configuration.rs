//! The generated forms of a configuration: `auto.conf` for make, `autoconf.h` for the compiler.
//!
//! Kconfig would make them too, but it also asks this machine's tools (is pahole there, are gcc plugins,
//! which rustc) and changes the configuration accordingly: BTF options vanish where pahole is missing, and
//! with them code. Written from the `.config` that the kernel was built with, they cannot differ from it.
//! Formats: scripts/kconfig/confdata.c, `conf_write_autoconf` of Linux 6.1.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Options that reach no object of the kernel's code: keys and salts that a distribution sets for the one
/// build that it signs. Debian's `/boot/config` has them, its headers do not.
const OF_ONE_BUILD: &[&str] = &[
    "CONFIG_BUILD_SALT",
    "CONFIG_MODULE_SIG_ALL",
    "CONFIG_MODULE_SIG_KEY",
    "CONFIG_SYSTEM_TRUSTED_KEYS",
    "CONFIG_SYSTEM_REVOCATION_KEYS",
];

/// The options that are set, by name with `CONFIG_`, with their value as `.config` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration(BTreeMap<String, String>);

impl Configuration {
    /// Reads a `.config` or an `auto.conf`.
    pub fn parse(text: &str) -> Self {
        let options = text.lines().filter_map(|line| {
            let (name, value) = line.trim_end().split_once('=')?;
            (name.starts_with("CONFIG_") && value != "n").then(|| (name.to_owned(), value.to_owned()))
        });
        Self(options.collect())
    }

    /// Whether nothing is set: then it is no kernel's configuration.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `include/config/auto.conf`. Strings are written without quotes, as since Linux 5.17 (commit
    /// 129ab0d2d9f3); before it they kept them.
    pub fn auto_conf(&self, quoted: bool) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            let value = if quoted { value.clone() } else { unquote(value) };
            let _ = writeln!(text, "{name}={value}");
        }
        text
    }

    /// `include/generated/autoconf.h`.
    pub fn autoconf_header(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            let _ = match value.as_str() {
                "y" => writeln!(text, "#define {name} 1"),
                "m" => writeln!(text, "#define {name}_MODULE 1"),
                value => writeln!(text, "#define {name} {value}"),
            };
        }
        text
    }

    /// The names of the options that are set in one and not the other, or set differently.
    ///
    /// Quotes are not compared: an `auto.conf` has none. Nor are options that no object depends on.
    pub fn differences(&self, other: &Configuration) -> Vec<String> {
        let differs =
            |name: &&String| self.0.get(*name).map(|v| unquote(v)) != other.0.get(*name).map(|v| unquote(v));
        let mut names: Vec<String> = self.0.keys().chain(other.0.keys()).filter(differs).cloned().collect();
        names.retain(|name| !OF_ONE_BUILD.contains(&name.as_str()));
        names.sort();
        names.dedup();
        names
    }
}

/// A string option's value without its quotes and escapes; any other value as it is.
fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# comment\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"x y\"\nCONFIG_E=0x10\nCONFIG_F=12\n";

    #[test]
    fn both_forms_are_as_kconfig_writes_them() {
        let configuration = Configuration::parse(CONFIG);
        assert_eq!(
            configuration.auto_conf(false),
            "CONFIG_A=y\nCONFIG_B=m\nCONFIG_D=x y\nCONFIG_E=0x10\nCONFIG_F=12\n"
        );
        assert!(configuration.auto_conf(true).contains("CONFIG_D=\"x y\"\n"));
        assert_eq!(
            configuration.autoconf_header(),
            "#define CONFIG_A 1\n#define CONFIG_B_MODULE 1\n#define CONFIG_D \"x y\"\n#define CONFIG_E 0x10\n#define CONFIG_F 12\n"
        );
    }

    #[test]
    fn differences_name_the_options_and_ignore_quotes() {
        let shipped = Configuration::parse(CONFIG);
        let auto = Configuration::parse(&shipped.auto_conf(false));
        assert_eq!(shipped.differences(&auto), Vec::<String>::new());
        let other = Configuration::parse(&CONFIG.replace("CONFIG_B=m", "CONFIG_G=y"));
        assert_eq!(shipped.differences(&other), ["CONFIG_B", "CONFIG_G"]);
        let signed = Configuration::parse(&format!("{CONFIG}CONFIG_BUILD_SALT=\"6.1\"\n"));
        assert_eq!(shipped.differences(&signed), Vec::<String>::new());
    }
}
