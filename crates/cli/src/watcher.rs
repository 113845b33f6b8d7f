//! Waiting for a transition: a progress line with the tasks that are left, and what Ctrl-C does.

use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use kmend_live::{Decision, Waiting};
use kmend_refusal::Code;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shows a wait, and ends it when the user wants it ended.
pub(crate) struct Watcher {
    stage: &'static str,
    progress: Progress,
    interrupted: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Watcher {
    /// From now on a signal ends the wait and not the command: what the kernel is at goes on, and is to be told. A
    /// second Ctrl-C, at the question that the first one leads to, ends the command.
    pub(crate) fn new(stage: &'static str) -> Result<Watcher, Failure> {
        let (interrupted, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        flag::register_conditional_default(SIGINT, Arc::clone(&interrupted))
            .and_then(|_| flag::register(SIGINT, Arc::clone(&interrupted)))
            .and_then(|_| flag::register(SIGTERM, Arc::clone(&ended)))
            .and_then(|_| flag::register(SIGHUP, Arc::clone(&ended)))
            .map_err(|error| Failure::new(Code::Internal, "signals", error.to_string()))?;
        let mut progress = Progress::new();
        progress.begin(stage);
        Ok(Watcher { stage, progress, interrupted, ended })
    }

    /// Shows how a transition stands, and says what to do.
    pub(crate) fn look(&mut self, waiting: &Waiting<'_>) -> Decision {
        self.progress.detail(&left(waiting));
        if self.ended.load(Ordering::Relaxed) {
            return Decision::Leave;
        }
        if !self.interrupted.load(Ordering::Relaxed) {
            return Decision::Wait;
        }
        // The line of progress is not to be drawn over the question.
        self.progress = Progress::new();
        let decision = ask(waiting);
        self.interrupted.store(false, Ordering::Relaxed);
        self.progress.begin(self.stage);
        decision
    }
}

fn left(waiting: &Waiting<'_>) -> String {
    match waiting.tasks {
        None => format!("{}: waiting for all tasks", waiting.name),
        Some(1) => format!("{}: 1 task left", waiting.name),
        Some(tasks) => format!("{}: {tasks} tasks left", waiting.name),
    }
}

fn ask(waiting: &Waiting<'_>) -> Decision {
    let left = left(waiting);
    let answer =
        output::ask(&format!("\n{left}\n(r)everse the transition, (w)ait on, or (l)eave it as it is? "));
    match answer.as_deref() {
        Some("r" | "reverse") => Decision::Reverse,
        Some("w" | "wait") => Decision::Wait,
        _ => Decision::Leave,
    }
}
