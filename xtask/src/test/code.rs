//! What cargo says of the code.

use super::Count;
use crate::{built, narrate};

/// Rounds of each parser's test on damaged input: more than a test run while working does, and still short.
const FUZZ_ROUNDS: &str = "10000";

/// Whether cargo passes with these arguments.
pub(super) fn passes(arguments: &[&str]) -> Count {
    let command = built::cargo(arguments);
    narrate::command(&command.line());
    let result = command.watch(&mut |line| println!("{line}"));
    if let Err(error) = &result {
        println!("error: {error}");
    }
    Count::one(result.is_ok())
}

/// No warning in any target.
pub(super) fn lints() -> Count {
    passes(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"])
}

/// No warning in the documentation.
pub(super) fn documentation() -> Count {
    let command =
        built::cargo(&["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings");
    narrate::command(&command.line());
    let result = command.watch(&mut |line| println!("{line}"));
    if let Err(error) = &result {
        println!("error: {error}");
    }
    Count::one(result.is_ok())
}

/// The tests of all crates, with a short run of the parsers on damaged input.
pub(super) fn tests() -> Count {
    let command =
        built::cargo(&["test", "--workspace", "--no-fail-fast"]).env("KMEND_FUZZ_ROUNDS", FUZZ_ROUNDS);
    narrate::command(&command.line());
    let mut count = Count::default();
    let ended = command.watch(&mut |line| {
        if let Some(more) = result_of(line) {
            count.passed += more.passed;
            count.failed += more.failed;
        } else if !line.ends_with(" ... ok") && !line.trim().is_empty() && !line.starts_with("running ") {
            println!("{line}");
        }
    });
    // A program that does not compile, or is killed, fails without a count.
    if ended.is_err() && count.failed == 0 {
        count.failed = 1;
    }
    count
}

/// The numbers in `test result: ok. 3 passed; 0 failed; …`.
fn result_of(line: &str) -> Option<Count> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        let part = numbers.split("; ").find_map(|part| part.strip_suffix(word))?;
        part.trim().parse().ok()
    };
    Some(Count { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted() {
        let line = "test result: FAILED. 12 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.5s";
        assert_eq!(result_of(line), Some(Count { passed: 12, failed: 1 }));
        assert_eq!(result_of("test x ... ok"), None);
    }
}
