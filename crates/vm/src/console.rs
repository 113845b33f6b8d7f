//! What the lines of a kernel's console mean.
//!
//! The texts are those of Linux 6.12: kernel/panic.c (`__warn`, `panic`), arch/x86/kernel/dumpstack.c (`die`),
//! arch/x86/mm/fault.c, kernel/watchdog.c, kernel/hung_task.c, kernel/rcu/tree_stall.h, lib/bug.c. They are
//! older than 5.10 unless noted.

use serde::Serialize;
use std::collections::VecDeque;
use std::fmt;

/// Lines of the console that are kept.
const KEPT_LINES: usize = 400;
/// Lines that an error shows.
const TAIL_LINES: usize = 40;

/// A kind of complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The kernel stopped for good.
    Panic,
    /// A fault or BUG() in the kernel: the task was killed.
    Oops,
    /// WARN(), or a debugging check that does not kill.
    Warning,
    /// A processor does not get on.
    Lockup,
    /// A task waits for too long.
    HungTask,
}

/// A complaint of the guest's kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// The line that says so.
    pub line: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Panic => "the guest's kernel panicked",
            FaultKind::Oops => "the guest's kernel oopsed",
            FaultKind::Warning => "the guest's kernel warned",
            FaultKind::Lockup => "a processor of the guest is locked up",
            FaultKind::HungTask => "a task of the guest hangs",
        };
        write!(f, "{kind} (`{}`)", self.line)
    }
}

/// How messages begin that are faults by themselves.
const BEGINNINGS: [(&str, FaultKind); 13] = [
    ("Kernel panic - not syncing", FaultKind::Panic),
    ("watchdog: BUG: soft lockup", FaultKind::Lockup),
    ("watchdog: Watchdog detected hard LOCKUP", FaultKind::Lockup),
    ("BUG: workqueue lockup", FaultKind::Lockup),
    // "scheduling while atomic", "sleeping function called", "Bad page state", "unable to handle page fault".
    ("BUG: ", FaultKind::Oops),
    ("kernel BUG at ", FaultKind::Oops),
    ("Oops: ", FaultKind::Oops),
    ("general protection fault", FaultKind::Oops),
    ("invalid opcode: ", FaultKind::Oops),
    ("stack guard page was hit", FaultKind::Oops),
    ("WARNING: ", FaultKind::Warning),
    ("UBSAN: ", FaultKind::Warning),
    ("refcount_t: ", FaultKind::Warning),
];

/// What a line of the console complains of, if it does.
pub(crate) fn classify(line: &str) -> Option<Fault> {
    let message = strip_prefix(line);
    let by_beginning = BEGINNINGS.iter().find(|(text, _)| message.starts_with(text)).map(|&(_, kind)| kind);
    let kind = by_beginning.or_else(|| classify_whole(message))?;
    Some(Fault { kind, line: message.trim_end().to_owned() })
}

/// Messages that begin with a name.
fn classify_whole(message: &str) -> Option<FaultKind> {
    if message.starts_with("INFO: task ") && message.contains(" blocked for more than ") {
        return Some(FaultKind::HungTask);
    }
    // "rcu: INFO: rcu_sched self-detected stall on CPU", "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"
    if message.starts_with("rcu: INFO: ") && message.contains("detected") && message.contains("stall") {
        return Some(FaultKind::Lockup);
    }
    // 6.5 and later: "watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3".
    (message.starts_with("watchdog: CPU") && message.contains("hard LOCKUP")).then_some(FaultKind::Lockup)
}

/// The message without `[   12.345678] ` and, with CONFIG_PRINTK_CALLER, `[    T1] `.
fn strip_prefix(line: &str) -> &str {
    let mut rest = line;
    for _ in 0..2 {
        let inner = rest.strip_prefix('[').and_then(|text| text.split_once(']'));
        let Some((stamp, after)) = inner else { break };
        if !stamp.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '.' | 'T' | 'C')) {
            break;
        }
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    rest
}

/// The end of a console.
#[derive(Debug, Default)]
pub(crate) struct Console {
    lines: VecDeque<String>,
    /// How many lines ago the first complaint came, itself included.
    complaint: Option<usize>,
}

impl Console {
    /// Takes a line in and says what it complains of.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Option<Fault> {
        let text: String =
            String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control() || *c == '\t').collect();
        let fault = classify(&text);
        if self.lines.len() == KEPT_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(text);
        self.complaint = match self.complaint {
            Some(lines) => Some(lines + 1),
            None => fault.is_some().then_some(1),
        };
        fault
    }

    /// The last lines, for an error; or, where the first complaint is further back, the lines from there on:
    /// how an oops begins says more than how its trace ends.
    pub(crate) fn tail(&self) -> String {
        let shown = self.complaint.unwrap_or(0).max(TAIL_LINES);
        let skipped = self.lines.len().saturating_sub(shown);
        self.lines.iter().skip(skipped).take(TAIL_LINES).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// All lines that were kept.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expect: Option<FaultKind>) {
        assert_eq!(classify(line).map(|fault| fault.kind), expect, "{line}");
    }

    #[test]
    fn complaints_are_recognised() {
        check(
            "[    3.141592] WARNING: CPU: 1 PID: 83 at fs/proc/cmdline.c:12 x+0x1/0x2",
            Some(FaultKind::Warning),
        );
        check("[    3.1][   T83] WARNING: fs/proc/cmdline.c:12 at x+0x1, CPU#1", Some(FaultKind::Warning));
        check("BUG: kernel NULL pointer dereference, address: 0000000000000010", Some(FaultKind::Oops));
        check("[   12.000001] BUG: unable to handle page fault for address: ffffc900", Some(FaultKind::Oops));
        check("[   12.000001] Oops: 0002 [#1] PREEMPT SMP NOPTI", Some(FaultKind::Oops));
        check("[   12.000001] kernel BUG at mm/slub.c:435!", Some(FaultKind::Oops));
        check(
            "[   12.000001] general protection fault, probably for non-canonical address",
            Some(FaultKind::Oops),
        );
        check("[   12.000001] Kernel panic - not syncing: Fatal exception", Some(FaultKind::Panic));
        check(
            "[   44.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [cat:83]",
            Some(FaultKind::Lockup),
        );
        check("[   44.0] rcu: INFO: rcu_preempt self-detected stall on CPU", Some(FaultKind::Lockup));
        check("[   44.0] rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", Some(FaultKind::Lockup));
        check("[   44.0] watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3", Some(FaultKind::Lockup));
        check("[  240.0] INFO: task cat:83 blocked for more than 120 seconds.", Some(FaultKind::HungTask));
    }

    #[test]
    fn harmless_lines_are_not() {
        check("", None);
        check("[    0.000000] Linux version 6.1.0 (gcc) #1 SMP", None);
        check("[    0.1] rcu: INFO: not a problem", None);
        check(
            "[    0.2] x: module verification failed: signature and/or required key missing - tainting kernel",
            None,
        );
        check("[    0.3] debug: BUG: is only a word here", None);
        check("[    0.4] Spectre V2 : WARNING: Unprivileged eBPF is enabled", None);
        check("[    0.5] traps: init[1] general protection fault ip:0", None);
        check("[    0.6] livepatch: 'x': patching complete", None);
        check("[odd] WARNING: not a stamp", None);
    }

    #[test]
    fn the_tail_is_bounded_and_printable() {
        let mut console = Console::default();
        for n in 0..1000 {
            assert_eq!(console.push(format!("line {n}\r\x1b").as_bytes()), None);
        }
        let tail = console.tail();
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.starts_with("line 960\n") && tail.ends_with("line 999"), "{tail}");
        assert_eq!(console.into_lines().len(), KEPT_LINES);
    }

    #[test]
    fn the_tail_begins_at_the_complaint_if_that_is_far_back() {
        let mut console = Console::default();
        console.push(b"before");
        assert!(console.push(b"WARNING: CPU: 0").is_some());
        for n in 0..TAIL_LINES * 2 {
            console.push(format!("trace {n}").as_bytes());
        }
        let tail = console.tail();
        assert!(tail.starts_with("WARNING: CPU: 0\ntrace 0\n"), "{tail}");
        assert_eq!(tail.lines().count(), TAIL_LINES);
    }
}
