//! What the guest says on its second serial port.
//!
//! Every line begins with `KMEND-NONCE `, with a nonce of this one boot, so that nothing that a command prints
//! can be taken for it:
//!
//! ```text
//! ready TAINT RELEASE      the guest is up
//! begin N                  step N starts
//! out N SIZE               SIZE bytes of output follow, as they are, then a newline
//! packed N SIZE            the same, but the output is packed with gzip
//! end N STATUS             step N ended
//! outcome done TAINT       all steps are done
//! outcome stopped TAINT    a step that must succeed did not
//! ```
//!
//! `outcome` must come exactly once and last. Steps come in order, each once. TAINT is
//! /proc/sys/kernel/tainted.

use kmend_kernel::Packing;
use serde::Serialize;
use std::time::Duration;

/// The longest line and the largest output that are accepted, in bytes. /proc/kallsyms has 7 to 14 MB.
const LONGEST_LINE: usize = 4096;
const LARGEST_OUTPUT: usize = 64 << 20;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepOutcome {
    /// The step's name.
    pub name: String,
    /// Its exit status.
    pub status: i32,
    /// What it printed, on both outputs.
    #[serde(serialize_with = "as_text")]
    pub output: Vec<u8>,
    /// How long it took, seen from outside.
    pub time: Duration,
}

impl StepOutcome {
    /// The output as text; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

fn as_text<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

/// The one word at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Stopped,
}

/// What a guest said, once it said all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub outcome: Outcome,
    pub release: String,
    /// From the power button to `ready`.
    pub boot: Duration,
    /// The kernel's taint flags at `ready` and at the outcome.
    pub taint: (u64, u64),
    pub steps: Vec<StepOutcome>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Booting,
    /// Between two steps: the next one's number.
    Between(usize),
    /// In step N since that time.
    Running(usize, Duration),
    /// Reading the output of step N.
    Output {
        step: usize,
        since: Duration,
        size: usize,
        packed: bool,
    },
    /// The output is read.
    Printed {
        step: usize,
        since: Duration,
        output: Vec<u8>,
    },
    Over(Outcome),
}

/// Takes bytes in as they come.
#[derive(Debug, Clone)]
pub(crate) struct Protocol {
    marker: String,
    names: Vec<String>,
    state: State,
    pending: Vec<u8>,
    boot: Option<Duration>,
    release: String,
    taint: (u64, u64),
    steps: Vec<StepOutcome>,
}

impl Protocol {
    /// For a guest with this nonce and these steps.
    pub(crate) fn new(nonce: &str, names: Vec<String>) -> Self {
        Self {
            marker: format!("KMEND-{nonce} "),
            names,
            state: State::Booting,
            pending: Vec::new(),
            boot: None,
            release: String::new(),
            taint: (0, 0),
            steps: Vec::new(),
        }
    }

    /// Whether the guest is up.
    pub(crate) fn is_up(&self) -> bool {
        self.boot.is_some()
    }

    /// The step that runs.
    pub(crate) fn running(&self) -> Option<String> {
        match &self.state {
            State::Running(step, _) | State::Output { step, .. } | State::Printed { step, .. } => {
                self.names.get(*step).cloned()
            }
            State::Booting | State::Between(_) | State::Over(_) => None,
        }
    }

    /// Takes bytes in that came at a time since the power button. The error says what was not in order.
    pub(crate) fn push(&mut self, bytes: &[u8], now: Duration) -> Result<(), String> {
        self.pending.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(length) = self.next_piece(taken)? {
            let piece = self.pending[taken..taken + length].to_vec();
            taken += length + 1;
            self.piece(piece, now)?;
        }
        self.pending.drain(..taken);
        Ok(())
    }

    /// The length of the line or output that begins at `start`, if it and its newline are there.
    fn next_piece(&self, start: usize) -> Result<Option<usize>, String> {
        let pending = &self.pending[start..];
        if let State::Output { size, .. } = self.state {
            return match pending.get(size) {
                None => Ok(None),
                Some(b'\n') => Ok(Some(size)),
                Some(_) => Err("an output is longer than the guest said".into()),
            };
        }
        match pending.iter().take(LONGEST_LINE).position(|&byte| byte == b'\n') {
            None if pending.len() >= LONGEST_LINE => Err("the guest wrote an endless line".into()),
            found => Ok(found),
        }
    }

    fn piece(&mut self, piece: Vec<u8>, now: Duration) -> Result<(), String> {
        if let State::Output { step, since, packed, .. } = self.state {
            let output = if packed { Packing::Gzip.unpack(&piece)? } else { piece };
            self.state = State::Printed { step, since, output };
            return Ok(());
        }
        let line = String::from_utf8_lossy(&piece).trim_end_matches('\r').to_owned();
        let Some(words) = line.strip_prefix(&self.marker).map(str::to_owned) else {
            // Firmware and the driver's probe may write before the guest's init does.
            let early = self.state == State::Booting;
            return if early { Ok(()) } else { Err(format!("the guest wrote `{line}`")) };
        };
        self.state = self.next_state(&words, now).ok_or_else(|| format!("the guest said `{words}`"))?;
        Ok(())
    }

    /// The state after a line, if the line is in order.
    fn next_state(&mut self, words: &str, now: Duration) -> Option<State> {
        let (verb, rest) = words.split_once(' ')?;
        match (self.state.clone(), verb) {
            (State::Booting, "ready") => {
                let (taint, release) = rest.split_once(' ')?;
                self.taint.0 = taint.parse().ok()?;
                release.clone_into(&mut self.release);
                self.boot = Some(now);
                Some(State::Between(0))
            }
            (State::Between(step), "begin") => {
                (rest == step.to_string() && step < self.names.len()).then_some(State::Running(step, now))
            }
            (State::Running(step, since), "out" | "packed") => {
                let size = rest.strip_prefix(&format!("{step} "))?.parse().ok()?;
                (size <= LARGEST_OUTPUT).then_some(State::Output {
                    step,
                    since,
                    size,
                    packed: verb == "packed",
                })
            }
            (State::Printed { step, since, output }, "end") => {
                let status = rest.strip_prefix(&format!("{step} "))?.parse().ok()?;
                let name = self.names.get(step)?.clone();
                self.steps.push(StepOutcome { name, status, output, time: now.saturating_sub(since) });
                Some(State::Between(step + 1))
            }
            (State::Between(step), "outcome") => {
                let (word, taint) = rest.split_once(' ')?;
                self.taint.1 = taint.parse().ok()?;
                match word {
                    "done" if step == self.names.len() => Some(State::Over(Outcome::Done)),
                    "stopped" if step > 0 => Some(State::Over(Outcome::Stopped)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What the guest said, if it came to an outcome.
    pub(crate) fn finish(self) -> Result<Said, String> {
        let State::Over(outcome) = self.state else {
            return Err("the guest ended without an outcome".into());
        };
        if !self.pending.is_empty() {
            return Err("the guest wrote more after its outcome".into());
        }
        let boot = self.boot.unwrap_or_default();
        Ok(Said { outcome, release: self.release, boot, taint: self.taint, steps: self.steps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(names: &[&str], text: &[u8]) -> Result<Said, String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut whole = Protocol::new("n1", names.clone());
        let result = whole.push(text, Duration::from_secs(1)).and_then(|()| whole.finish());
        let mut bytewise = Protocol::new("n1", names);
        let mut each = Ok(());
        for byte in text {
            each = each.and_then(|()| bytewise.push(&[*byte], Duration::from_secs(1)));
        }
        assert_eq!(result, each.and_then(|()| bytewise.finish()), "cut into bytes it means the same");
        result
    }

    #[track_caller]
    fn check_refused(names: &[&str], text: &str, expect: &str) {
        let error = said(names, text.as_bytes()).unwrap_err();
        assert!(error.contains(expect), "{error}");
    }

    const READY: &str = "KMEND-n1 ready 0 6.1.0-test\n";

    #[test]
    fn a_whole_conversation_is_read() {
        let text = format!(
            "noise of the firmware\n{READY}KMEND-n1 begin 0\nKMEND-n1 out 0 11\ntwo\nlines\n\n\nKMEND-n1 end 0 3\n\
             KMEND-n1 outcome done 32768\n"
        );
        let said = said(&["show"], text.as_bytes()).unwrap();
        assert_eq!(
            (said.outcome, said.release.as_str(), said.taint),
            (Outcome::Done, "6.1.0-test", (0, 32768))
        );
        assert_eq!(said.steps.len(), 1);
        assert_eq!((said.steps[0].status, said.steps[0].text().as_str()), (3, "two\nlines\n\n"));
    }

    #[test]
    fn output_may_look_like_the_protocol() {
        let trick = "KMEND-n1 outcome done 0\n";
        let text = format!(
            "{READY}KMEND-n1 begin 0\nKMEND-n1 out 0 {}\n{trick}\nKMEND-n1 end 0 0\nKMEND-n1 outcome done 0\n",
            trick.len()
        );
        assert_eq!(said(&["x"], text.as_bytes()).unwrap().steps[0].text(), trick);
    }

    #[test]
    fn a_missing_outcome_is_a_failure() {
        check_refused(&[], READY, "without an outcome");
        check_refused(&[], "", "without an outcome");
        check_refused(
            &["x"],
            &format!("{READY}KMEND-n1 begin 0\nKMEND-n1 out 0 10\nabc"),
            "without an outcome",
        );
        check_refused(&[], &format!("{READY}KMEND-n1 outcome done 0"), "without an outcome");
    }

    #[test]
    fn a_doubled_outcome_is_a_failure() {
        check_refused(
            &[],
            &format!("{READY}KMEND-n1 outcome done 0\nKMEND-n1 outcome done 0\n"),
            "outcome done 0",
        );
        check_refused(&[], &format!("{READY}KMEND-n1 outcome done 0\nKMEND-n1"), "after its outcome");
    }

    #[test]
    fn a_step_that_is_skipped_doubled_or_unknown_is_a_failure() {
        check_refused(&["x"], &format!("{READY}KMEND-n1 outcome done 0\n"), "outcome done");
        check_refused(&["x", "y"], &format!("{READY}KMEND-n1 begin 1\n"), "begin 1");
        check_refused(&[], &format!("{READY}KMEND-n1 begin 0\n"), "begin 0");
        check_refused(&["x"], &format!("{READY}KMEND-n1 begin 0\nKMEND-n1 end 0 0\n"), "end 0");
        check_refused(&["x"], &format!("{READY}KMEND-n1 begin 0\nKMEND-n1 out 0 2\nabcd\n"), "longer");
        check_refused(&["x"], &format!("{READY}KMEND-n1 begin 0\nKMEND-n1 out 0 99999999999\n"), "out 0");
        check_refused(&[], &format!("{READY}KMEND-n2 outcome done 0\n"), "KMEND-n2");
        check_refused(&[], &format!("{READY}{}\n", "x".repeat(LONGEST_LINE)), "endless");
    }

    #[test]
    fn stopping_needs_a_step_that_ended() {
        let text = format!(
            "{READY}KMEND-n1 begin 0\nKMEND-n1 out 0 0\n\nKMEND-n1 end 0 1\nKMEND-n1 outcome stopped 0\n"
        );
        assert_eq!(said(&["x", "y"], text.as_bytes()).unwrap().outcome, Outcome::Stopped);
        check_refused(&["x"], &format!("{READY}KMEND-n1 outcome stopped 0\n"), "stopped");
    }

    #[test]
    fn packed_output_is_unpacked_or_refused() {
        let text = format!("{READY}KMEND-n1 begin 0\nKMEND-n1 packed 0 3\nabc\n");
        assert!(said(&["x"], text.as_bytes()).unwrap_err().contains("gzip"));
    }
}
