//! `kmend signal`

use crate::failure::{End, Failure};
use crate::journal;
use crate::output::Output;
use crate::style::{GREEN, paint};
use clap::Args;
use kmend_live::{Signaller, System};
use serde::Serialize;

/// Nudge the tasks that hold a transition
///
/// Kernels from 4.15 to 5.0 have a file by which they are asked to signal them; it has no effect but that they leave the
/// kernel for a moment. Newer ones do the same by themselves every 15 s, and cannot be asked: then there is nothing to do.
///
/// --stop-cont stops and continues the processes that you name. Their parents can see it, a shell may report it, and a few
/// system calls end with EINTR (signal(7), "Interruption of system calls by stop signals"): name only processes that bear
/// it.
///
/// kmend's consistency engine takes no orders about signals: its models that switch threads wake sleepers by themselves.
///
/// Needs root. Exit codes: 0 done, 3 there is nothing to do, 2 refused, 1 failed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SendSignal {
    /// The livepatch's name; the one in transition if not given
    #[arg(value_name = "NAME", value_parser = crate::arguments::loaded_name)]
    name: Option<String>,
    /// Processes to stop and continue, as `kmend blocking` shows them
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    stop_cont: Vec<u32>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:
  kmend signal
  kmend signal --stop-cont 4711";

#[derive(Serialize)]
struct Signalled {
    dry_run: bool,
    livepatch: String,
    /// Who signals all tasks; `None` if processes were named.
    kernel: Option<Signaller>,
    /// The processes that were stopped and continued.
    stopped_and_continued: Vec<u32>,
}

impl SendSignal {
    /// Whether nothing is to be changed.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let system = System::running();
        let livepatch = system.require_transition(self.name.as_deref())?.name;
        system.can_signal(&livepatch)?;
        let mut signalled =
            Signalled { dry_run: self.dry_run, livepatch, kernel: None, stopped_and_continued: Vec::new() };
        if self.dry_run {
            signalled.stopped_and_continued.clone_from(&self.stop_cont);
        } else if self.stop_cont.is_empty() {
            signalled.kernel = Some(system.signal(&signalled.livepatch)?);
        } else {
            for pid in &self.stop_cont {
                system.stop_and_continue(&signalled.livepatch, *pid)?;
                signalled.stopped_and_continued.push(*pid);
            }
        }
        let nothing = signalled.kernel == Some(Signaller::ByItself);
        if !self.dry_run && !nothing {
            journal::changed("signal", &signalled.livepatch, "signalled");
        }
        output.document(&signalled, text)?;
        Ok(if nothing { End::Nothing } else { End::Done })
    }
}

fn text(signalled: &Signalled) -> String {
    let name = &signalled.livepatch;
    let pids: Vec<String> = signalled.stopped_and_continued.iter().map(u32::to_string).collect();
    match (signalled.dry_run, signalled.kernel, pids.is_empty()) {
        (true, _, true) => format!("would ask the kernel to signal the tasks that hold {name}\n"),
        (true, _, false) => format!("would stop and continue {}\n", pids.join(", ")),
        (_, Some(Signaller::ByItself), _) => {
            format!("{name}: this kernel signals the tasks by itself every 15 s, and cannot be asked to\n")
        }
        (_, Some(Signaller::Asked), _) => {
            format!("{} the tasks that hold {name}\n", paint(GREEN, "signalled"))
        }
        (_, None, _) => format!("{} {}\n", paint(GREEN, "stopped and continued"), pids.join(", ")),
    }
}
