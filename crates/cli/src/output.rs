//! Standard output and standard error.

use crate::failure::Failure;
use crate::style;
use kmend_build::RefusalReport;
use kmend_refusal::Code;
use serde::Serialize;
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

    /// Prints a result: its value if JSON is asked for, else its text.
    pub(crate) fn result<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            return self.text(&text(value));
        }
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new(Code::Internal, "", error.to_string()))?;
        text.push('\n');
        self.text(&text)
    }

    /// Prints a result with the version of its shape: what is no list, and has no version of its own.
    pub(crate) fn document<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        self.result(&Document { schema: SCHEMA, value }, |document| text(document.value))
    }

    /// Prints a text as it is. Colours are left out where the stream takes none.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        let mut stream = anstream::stdout();
        match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
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
        // If not even this can be printed, the exit code alone tells.
        let _ = self.result(&Reasons { schema: SCHEMA, refusals: failure.reasons() }, |_| String::new());
        if !self.json {
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
    let _ = anstream::stderr().write_all(text.as_bytes());
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
