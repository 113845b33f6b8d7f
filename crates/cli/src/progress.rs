//! One line a stage with its time, on a terminal only.

use crate::output;
use crate::style::{DIM, paint};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// The progress of one command.
pub(crate) struct Progress {
    terminal: bool,
    stage: Option<Running>,
}

struct Running {
    name: String,
    detail: String,
    since: Instant,
    bar: ProgressBar,
    measured: bool,
}

impl Progress {
    /// Progress on standard error if that is a terminal, else none.
    pub(crate) fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), stage: None }
    }

    /// A stage begins; the one before it is over.
    pub(crate) fn begin(&mut self, name: &str) {
        self.end(None);
        if !self.terminal {
            return;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(spinner());
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(TICK);
        self.stage = Some(Running {
            name: name.to_owned(),
            detail: String::new(),
            since: Instant::now(),
            bar,
            measured: false,
        });
    }

    /// The running stage's name, if there is a terminal to show it on.
    pub(crate) fn stage(&self) -> Option<&str> {
        self.stage.as_ref().map(|stage| stage.name.as_str())
    }

    /// What the running stage is at.
    pub(crate) fn detail(&mut self, text: &str) {
        if let Some(stage) = &mut self.stage {
            text.clone_into(&mut stage.detail);
            stage.bar.set_message(text.to_owned());
        }
    }

    /// How many of how many bytes the running stage has done.
    pub(crate) fn bytes(&mut self, done: u64, total: u64) {
        if let Some(stage) = &mut self.stage {
            if !stage.measured {
                stage.measured = true;
                stage.bar.set_style(bar());
            }
            stage.bar.set_length(total);
            stage.bar.set_position(done);
        }
    }

    /// The running stage is over. `time` is what it took, if the stage measured that itself.
    pub(crate) fn end(&mut self, time: Option<Duration>) {
        if let Some(stage) = self.stage.take() {
            stage.bar.finish_and_clear();
            let time = time.unwrap_or_else(|| stage.since.elapsed());
            let mut line = format!("{:<10} {:>8.2} s", stage.name, time.as_secs_f64());
            if !stage.detail.is_empty() {
                line = format!("{line}  {}", paint(DIM, &stage.detail));
            }
            output::say(&format!("{line}\n"));
        }
    }
}

impl Drop for Progress {
    /// A stage that did not come to its end leaves no line: the reasons say where it stopped.
    fn drop(&mut self) {
        if let Some(stage) = self.stage.take() {
            stage.bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressStyle {
    // The template is a constant without unknown keys; should it be refused, the default one is as good.
    ProgressStyle::with_template("{prefix:<10} {elapsed:>8} {spinner} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bar() -> ProgressStyle {
    ProgressStyle::with_template(
        "{prefix:<10} {elapsed:>8} [{bar:28}] {bytes} of {total_bytes}, {bytes_per_sec} {wide_msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}
