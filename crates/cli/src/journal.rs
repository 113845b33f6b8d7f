//! The one place that tells the journal what commands did to the running system.

use crate::failure::{End, Failure};
use kmend_live::{Event, Priority, System};

/// A command changed a livepatch: `done` says to what.
pub(crate) fn changed(command: &'static str, livepatch: &str, done: &str) {
    let message = format!("livepatch {livepatch} {done}");
    let event = Event {
        message,
        priority: Priority::Notice,
        command,
        livepatches: vec![livepatch.to_owned()],
        codes: Vec::new(),
    };
    System::running().journal(&event);
}

/// A command that was to change the running system did not, or not all of it. That there was nothing to do is no event.
pub(crate) fn failed(command: &'static str, failure: &Failure) {
    let priority = match failure.end() {
        End::Failed => Priority::Error,
        End::Refused => Priority::Warning,
        End::Done | End::Nothing => return,
    };
    let lines = failure.reasons().iter().flat_map(|reason| {
        let refusal = &reason.refusal;
        let subject =
            if refusal.subject.is_empty() { String::new() } else { format!("{}: ", refusal.subject) };
        let first = format!("{command}: {subject}{} ({}: {})", refusal.why, refusal.code, reason.title);
        std::iter::once(first).chain(refusal.details.iter().map(|line| format!("  {line}")))
    });
    let message = lines.collect::<Vec<_>>().join("\n");
    let codes = failure.reasons().iter().map(|reason| reason.refusal.code).collect();
    System::running().journal(&Event { message, priority, command, livepatches: Vec::new(), codes });
}
