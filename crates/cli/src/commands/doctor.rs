//! `kmend doctor`

use crate::failure::{End, Failure};
use crate::output::Output;
use crate::style::{BOLD, GREEN, RED, YELLOW, paint};
use clap::{Args, ValueEnum};
use kmend_doctor::{Diagnosis, Finding, Group, Machine, Purpose, Verdict};
use std::fmt::Write;

/// Tell what this machine can do, and what is missing
///
/// Looks at what it takes to load livepatches into the kernel that runs, to build them, and to prove them in a virtual
/// machine. Each line is `ok`, `missing` (it cannot be done without), or `note` (it can, or it is not known), with what to do
/// about it. Nothing is changed.
///
/// Few machines are for all three: --for names what this one is for.
///
/// Needs no root, but loading does. Exit codes: 0 nothing is missing, 1 something is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// What the machine is for; all three if not given
    #[arg(long = "for", value_name = "PURPOSE", value_delimiter = ',')]
    purposes: Vec<For>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum For {
    /// Loading livepatches
    Load,
    /// Building them
    Build,
    /// Proving them in virtual machines
    Prove,
}

const EXAMPLES: &str = "\
Examples:
  kmend doctor
  kmend doctor --for load
  kmend doctor --for build,prove --json | jq -r '.groups[].packages[]'";

impl Doctor {
    pub(crate) fn run(&self, output: &mut Output) -> Result<End, Failure> {
        let purposes = if self.purposes.is_empty() {
            Purpose::ALL.to_vec()
        } else {
            self.purposes.iter().map(|purpose| purpose.purpose()).collect()
        };
        let diagnosis = Machine::here().examine(&purposes);
        output.document(&diagnosis, text)?;
        Ok(if diagnosis.is_ready() { End::Done } else { End::Failed })
    }
}

impl For {
    fn purpose(self) -> Purpose {
        match self {
            For::Load => Purpose::Load,
            For::Build => Purpose::Build,
            For::Prove => Purpose::Prove,
        }
    }
}

fn text(diagnosis: &Diagnosis) -> String {
    diagnosis.groups.iter().map(group).collect::<Vec<_>>().join("\n")
}

fn group(group: &Group) -> String {
    let title = match group.purpose {
        Purpose::Load => "to load livepatches here",
        Purpose::Build => "to build livepatches",
        Purpose::Prove => "to prove livepatches in virtual machines",
    };
    let ready = if group.ready { paint(GREEN, "ready") } else { paint(RED, "something is missing") };
    let mut text = format!("{}: {ready}\n", paint(BOLD, title));
    for finding in &group.findings {
        add(&mut text, finding);
    }
    if !group.packages.is_empty() {
        let packages: Vec<&str> = group.packages.iter().map(String::as_str).collect();
        let _ = writeln!(text, "  all that is missing here:\n    apt-get install {}", packages.join(" "));
    }
    text
}

fn add(text: &mut String, finding: &Finding) {
    let (style, word) = match finding.verdict {
        Verdict::Ok => (GREEN, "ok"),
        Verdict::Note => (YELLOW, "note"),
        Verdict::Missing => (RED, "missing"),
    };
    // The padding belongs inside of the colour: escape sequences have no width.
    let word = paint(style, format!("{word:<7}"));
    let mut lines = finding.found.lines();
    let _ = writeln!(text, "  {word} {:<20} {}", finding.what, lines.next().unwrap_or_default());
    for line in lines {
        let _ = writeln!(text, "          {line}");
    }
    if let Some(way_out) = &finding.way_out {
        let _ = writeln!(text, "          way out: {way_out}");
    }
}
