//! Standard output and standard error.

use crate::failure::Failure;
use crate::style;
use kmend_build::RefusalReport;
use kmend_explain::visible;
use kmend_refusal::Code;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

/// Where a command's result goes.
pub(crate) struct Output {
    json: bool,
    /// The reader went away; what else there is to say is nobody's concern.
    closed: bool,
}

/// The version of the shape of what `--json` prints (docs/json.md). It grows when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// What `--json` prints of a command that did what it was asked.
#[derive(Serialize)]
struct Document<'a, T> {
    schema: u32,
    #[serde(flatten)]
    value: &'a T,
}

/// What `--json` prints of a command that did not do what it was asked.
#[derive(Serialize)]
struct Reasons<'a> {
    schema: u32,
    refusals: &'a [RefusalReport],
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        Output { json, closed: false }
    }

    /// Prints a result: its value with the version of its shape if JSON is asked for, else its text.
    pub(crate) fn document<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json { self.value(&Document { schema: SCHEMA, value }) } else { self.text(&text(value)) }
    }

    /// Prints a value as JSON that has a version of its own: the report of a build.
    pub(crate) fn value<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new(Code::Internal, "", error.to_string()))?;
        text.push('\n');
        self.text(&text)
    }

    /// Prints a text as it is. Colours are left out where the stream takes none.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        let safe = if self.json { Cow::Borrowed(text) } else { Cow::Owned(harmless(text)) };
        let mut stream = anstream::stdout();
        match stream.write_all(safe.as_bytes()).and_then(|()| stream.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::new(Code::Io, "standard output", error.to_string())),
            Ok(()) => Ok(()),
        }
    }

    /// Whether JSON is asked for: reasons that the result itself holds are then not printed again.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints all the reasons of a failure.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        let document = Reasons { schema: SCHEMA, refusals: failure.reasons() };
        // That it cannot be printed may be the very reason.
        if !self.json || self.value(&document).is_err() {
            reasons(failure.reasons());
        }
    }
}

/// Prints reasons to standard error.
pub(crate) fn reasons(reasons: &[RefusalReport]) {
    let texts: Vec<String> = reasons.iter().map(style::reason).collect();
    say(&texts.join("\n"));
}

/// Prints a text to standard error.
pub(crate) fn say(text: &str) {
    // There is nowhere left to report that standard error is closed.
    let _ = anstream::stderr().write_all(harmless(text).as_bytes());
}

/// A text with its lines and colours, and nothing else that a terminal obeys: names come from files of others.
fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['\n', '\x1b']) {
        let (before, here) = rest.split_at(at);
        safe.push_str(&visible(before));
        // The character itself is one byte.
        let (kept, after) = here.split_at(colour(here).max(1));
        if kept == "\x1b" {
            safe.push_str(&visible(kept));
        } else {
            safe.push_str(kept);
        }
        rest = after;
    }
    safe.push_str(&visible(rest));
    safe
}

/// The length of the sequence that sets a colour (ECMA-48, 8.3.117, SGR) at a text's beginning; 0 if none is there.
fn colour(text: &str) -> usize {
    let Some(parameters) = text.strip_prefix("\x1b[") else { return 0 };
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';');
    let set = end.filter(|end| parameters.get(*end..).is_some_and(|rest| rest.starts_with('m')));
    set.map_or(0, |end| "\x1b[".len() + end + 1)
}

/// Asks on the terminal; nothing if nobody is there to answer.
pub(crate) fn ask(question: &str) -> Option<String> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return None;
    }
    say(question);
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok()?;
    Some(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_colours_stay_and_what_else_a_terminal_obeys_does_not() {
        assert_eq!(harmless("a\n\x1b[1;31mb\x1b[0m\tc\n"), "a\n\x1b[1;31mb\x1b[0m\tc\n");
        assert_eq!(
            harmless("\x1b]0;title\x07 \x1b[2J\r\u{9b}m"),
            "\\u{1b}]0;title\\u{7} \\u{1b}[2J\\r\\u{9b}m"
        );
        assert_eq!(harmless("\x1b[1;"), "\\u{1b}[1;");
        assert_eq!(harmless("\x1b"), "\\u{1b}");
    }
}
