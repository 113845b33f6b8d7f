//! Is the compiler the one that built the kernel?

use crate::error::CompileError;
use kmend_process::Command;

/// The first line of the compiler's `--version`, if it is the compiler that built the kernel.
///
/// Code generation differs between any two releases, so the version number must be the same to the last
/// digit; the packaging (the part in parentheses) may differ.
pub fn check(command: &str, wanted: &str) -> Result<String, CompileError> {
    let output = match Command::new(command).arg("--version").run() {
        Ok(output) => output,
        Err(error @ kmend_process::ProcessError::Start { .. }) => {
            let package = command.rsplit('/').next().unwrap_or(command).to_owned();
            let missing = kmend_refusal::Coded::code(&error) == kmend_refusal::Code::ToolMissing;
            return Err(if missing {
                CompileError::ToolMissing { program: command.to_owned(), package }
            } else {
                error.into()
            });
        }
        Err(error) => return Err(error.into()),
    };
    let found = output.text().lines().next().unwrap_or_default().to_owned();
    if version(&found).is_some() && version(&found) == version(wanted) {
        Ok(found)
    } else {
        Err(CompileError::CompilerDiffers { command: command.to_owned(), wanted: wanted.to_owned(), found })
    }
}

/// The compiler's kind and version number, such as `("gcc", "12.2.0")`.
fn version(text: &str) -> Option<(&'static str, String)> {
    let kind = if text.contains("clang") { "clang" } else { "gcc" };
    let mut depth = 0u32;
    let outside: String = text
        .chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            }
            false
        })
        .collect();
    let is_number = |word: &&str| {
        word.contains('.')
            && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    outside.split_whitespace().find(is_number).map(|word| (kind, word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_refusal::{Code, Coded};

    #[test]
    fn the_packaging_does_not_count_but_every_digit_does() {
        let debian = version("gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0");
        assert_eq!(debian, Some(("gcc", "12.2.0".to_owned())));
        assert_eq!(debian, version("x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14) 12.2.0"));
        assert_eq!(
            version("gcc (GCC) 11.4.1 20231218 (Red Hat 11.4.1-3)"),
            Some(("gcc", "11.4.1".to_owned()))
        );
        assert_ne!(debian, version("gcc-12 (Debian 12.3.0-1) 12.3.0"));
        assert_ne!(version("Debian clang version 12.2.0"), debian);
        assert_eq!(version("no version here"), None);
    }

    #[test]
    fn a_missing_compiler_names_its_package() {
        let error = check("gcc-0.0-none", "gcc 12.2.0").unwrap_err();
        assert_eq!(error.code(), Code::ToolMissing);
        assert!(error.to_string().contains("package gcc-0.0-none"), "{error}");
    }
}
