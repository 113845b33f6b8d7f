//! The tasks that hold a transition.

use crate::error::LiveError;
use crate::patches::LoadedPatch;
use crate::system::{System, folders_in, read, read_if_there};
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// `PF_KTHREAD` in the flags of /proc/PID/stat (Linux, include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Is called with the folders of a process and a task, their numbers, and the task's state.
type Visit<'a> = dyn FnMut(&Path, &Path, (u32, u32), i32) + 'a;

/// A task that is still in the old state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocker {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The thread's name, at most 15 bytes.
    pub comm: String,
    /// The process's command line, with spaces between the arguments; empty for a kernel thread.
    pub command_line: String,
    /// Whether it is a thread of the kernel, which no signal moves.
    pub kernel_thread: bool,
    /// 0 unpatched, 1 patched (/proc/PID/patch_state; of the consistency engine, what it is to leave).
    pub patch_state: i32,
    /// What it does in the kernel, innermost first; empty if it runs or the right to see it is missing.
    pub stack: Vec<String>,
    /// The innermost function of the livepatch, or replaced by it, on that stack.
    pub patched_function_on_stack: Option<String>,
    /// What it waits for: the kernel's function in which it sleeps (/proc/PID/wchan); `None` if it runs, or the right to
    /// see it is missing.
    pub waits_in: Option<String>,
    /// The state of the task as proc(5) names it: `R` runs, `S` sleeps, `D` sleeps where no signal wakes it, `T` stopped.
    pub task_state: Option<char>,
    /// What would free it.
    pub way_out: &'static str,
}

/// What frees a task, by what it is and does.
fn way_out(kernel_thread: bool, task_state: Option<char>, in_patched: bool) -> &'static str {
    match (kernel_thread, task_state) {
        (_, Some('R')) if !in_patched => {
            "nothing need be done: it runs, and is moved when it next leaves the kernel or sleeps elsewhere"
        }
        (true, _) if in_patched => {
            "no signal moves a kernel thread: it must leave that function, by getting what it waits for"
        }
        (true, _) => "no signal moves a kernel thread: it is moved when it runs; give it work, or wait",
        (false, Some('D')) => "no signal wakes it: it must get what it waits for, such as a device or a lock",
        (false, Some('T' | 't')) => "it is stopped: continue it with SIGCONT, or end its debugger",
        (false, _) => {
            "a signal moves it: the kernel sends one by itself after 15 s; `kmend signal --stop-cont` stops and continues it"
        }
    }
}

/// What frees a task for which the consistency engine waits: a model that switches threads wakes sleepers, one that
/// stops the machine does not (engine/tasks.c, engine/stop.c).
fn engine_way_out(kernel_thread: bool, task_state: Option<char>) -> &'static str {
    match (kernel_thread, task_state) {
        (true, _) => "it must leave that function, by getting what it waits for",
        (false, Some('T' | 't')) => "it is stopped: continue it with SIGCONT, or end its debugger",
        (false, Some('D')) => "no signal wakes it: it must get what it waits for, such as a device or a lock",
        (false, _) => {
            "it must leave that function: models that switch threads, such as hybrid, wake it by themselves; with others, wake it"
        }
    }
}

/// A line of the engine's: PID, command (which may have spaces), and the function, or something in parentheses.
fn parse_blocker(line: &str) -> Option<(u32, &str, &str)> {
    let (pid, rest) = line.split_once(' ')?;
    let at = if rest.ends_with(')') { rest.rfind(" (") } else { rest.rfind(' ') }?;
    let (comm, why) = rest.split_at(at);
    Some((pid.parse().ok()?, comm, why.trim_start()))
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.kernel_thread { "kernel thread" } else { "task" };
        write!(f, "{kind} {} ({})", self.tid, plain(&self.comm))?;
        match (&self.patched_function_on_stack, self.stack.first()) {
            (Some(function), _) => write!(f, " is in {function}"),
            (None, Some(top)) => write!(f, " is in {}", function_of(top)),
            (None, None) => Ok(()),
        }
    }
}

impl Blocker {
    /// The command line for a terminal: control characters, which a process may put there, are escaped.
    pub fn shown_command(&self) -> String {
        plain(&self.command_line)
    }
}

/// A text of another process, without characters that a terminal would obey.
fn plain(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

impl System {
    /// The livepatch in transition. With a name it must be that one.
    pub fn require_transition(&self, name: Option<&str>) -> Result<LoadedPatch, LiveError> {
        let found = match name {
            None => self.in_transition()?,
            Some(name) => match self.patch(name)? {
                None => return Err(LiveError::NotLoaded(name.to_owned())),
                Some(patch) => Some(patch).filter(|patch| patch.transition),
            },
        };
        found.ok_or_else(|| LiveError::NoTransition(name.map(str::to_owned)))
    }

    /// The tasks that hold the transition of a livepatch; none if it is in no transition. Idle tasks hold
    /// transitions too, but are not visible.
    pub fn blocking(&self, name: &str) -> Result<Vec<Blocker>, LiveError> {
        let Some(patch) = self.patch(name)? else { return Err(LiveError::NotLoaded(name.to_owned())) };
        if !patch.transition {
            return Ok(Vec::new());
        }
        if patch.engine.is_some() {
            return self.blocking_engine(&patch);
        }
        let mut blockers = Vec::new();
        self.each_in_old_state(patch.enabled, &mut |process, task, ids, patch_state| {
            blockers.push(read_blocker(process, task, ids, patch_state, &patch));
        })?;
        Ok(blockers)
    }

    /// How many tasks hold the transition of a livepatch.
    pub(crate) fn count_blocking(&self, name: &str) -> Result<usize, LiveError> {
        let Some(patch) = self.patch(name)?.filter(|patch| patch.transition) else { return Ok(0) };
        if patch.engine.is_some() {
            let found = self.engine_patch(name)?;
            return Ok(found.map_or(0, |patch| patch.blocking.len()));
        }
        let mut count = 0;
        self.each_in_old_state(patch.enabled, &mut |_, _, _, _| count += 1)?;
        Ok(count)
    }

    /// The tasks that the engine names: the first of those that hold its transition.
    fn blocking_engine(&self, patch: &LoadedPatch) -> Result<Vec<Blocker>, LiveError> {
        let lines = self.engine_patch(&patch.name)?.map(|patch| patch.blocking).unwrap_or_default();
        let blocker = |line: &String| {
            let (tid, comm, why) = parse_blocker(line)?;
            let task = self.path(&format!("proc/{tid}"));
            let status = read(&task.join("status")).unwrap_or_default();
            let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
            let pid = group.and_then(|text| text.trim().parse().ok()).unwrap_or(tid);
            let process = self.path(&format!("proc/{pid}"));
            let mut blocker = read_blocker(&process, &task, (pid, tid), i32::from(!patch.enabled), patch);
            if blocker.comm.is_empty() {
                comm.clone_into(&mut blocker.comm);
            }
            if !why.starts_with('(') {
                blocker.patched_function_on_stack = Some(why.to_owned());
            }
            blocker.way_out = engine_way_out(blocker.kernel_thread, blocker.task_state);
            Some(blocker)
        };
        Ok(lines.iter().filter_map(blocker).collect())
    }

    /// Visits every task that has yet to leave its state: the process's folder, the task's, their numbers, the state.
    fn each_in_old_state(&self, target: bool, visit: &mut Visit<'_>) -> Result<(), LiveError> {
        let processes = self.path("proc");
        for pid in numbers_in(&processes)? {
            let process = processes.join(pid.to_string());
            for tid in numbers_in(&process.join("task"))? {
                let task = process.join("task").join(tid.to_string());
                if let Some(patch_state) = state_to_leave(&task, target)? {
                    visit(&process, &task, (pid, tid), patch_state);
                }
            }
        }
        Ok(())
    }
}

/// The folders in procfs that are numbers, in order.
fn numbers_in(folder: &Path) -> Result<Vec<u32>, LiveError> {
    let mut numbers: Vec<u32> = folders_in(folder)?.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The state of a task that has yet to leave it; `None` if it has, or is gone.
fn state_to_leave(task: &Path, target: bool) -> Result<Option<i32>, LiveError> {
    let path = task.join("patch_state");
    let Some(text) = read_if_there(&path)? else { return Ok(None) };
    match text.parse::<i32>() {
        Ok(-1) => Ok(None),
        Ok(state) if state == i32::from(target) => Ok(None),
        Ok(state) => Ok(Some(state)),
        Err(_) => Err(LiveError::SysfsFormat { path, found: text }),
    }
}

/// All there is to see of a task; a task that goes meanwhile has less.
fn read_blocker(
    process: &Path,
    task: &Path,
    (pid, tid): (u32, u32),
    patch_state: i32,
    patch: &LoadedPatch,
) -> Blocker {
    let text = |path: &Path| read(path).unwrap_or_default();
    let command_line = text(&process.join("cmdline"));
    let words: Vec<&str> = command_line.split('\0').filter(|word| !word.is_empty()).collect();
    let stack = parse_stack(&text(&task.join("stack")));
    let stat = text(&task.join("stat"));
    let kernel_thread = flags(&stat).is_some_and(|flags| flags & KERNEL_THREAD != 0);
    let task_state = state_of(&stat);
    let patched = stack.iter().find(|frame| concerns(frame, patch)).map(|frame| function_of(frame));
    let waits_in = Some(text(&task.join("wchan"))).filter(|function| !matches!(function.as_str(), "" | "0"));
    Blocker {
        pid,
        tid,
        comm: text(&task.join("comm")),
        command_line: words.join(" "),
        kernel_thread,
        patch_state,
        way_out: way_out(kernel_thread, task_state, patched.is_some()),
        patched_function_on_stack: patched,
        waits_in,
        task_state,
        stack,
    }
}

/// The state in /proc/PID/stat: the third field (proc(5)); the second, the name, may hold anything.
pub(crate) fn state_of(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The flags in /proc/PID/stat: the ninth field (proc(5)); the second, the name, may hold anything.
fn flags(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(6)?.parse().ok()
}

/// The frames in /proc/PID/stack: `[<0>] function+0x1/0x20 [module]`.
fn parse_stack(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split_once("] ").map_or(line, |(_, frame)| frame).trim().to_owned())
        .filter(|frame| !frame.is_empty())
        .collect()
}

/// The function of a frame.
fn function_of(frame: &str) -> String {
    frame.split(['+', ' ']).next().unwrap_or(frame).to_owned()
}

/// Whether a frame is of a replaced function or of the livepatch's own code.
fn concerns(frame: &str, patch: &LoadedPatch) -> bool {
    if frame.ends_with(&format!("[{}]", patch.name)) {
        return true;
    }
    let function = function_of(frame);
    patch.objects.iter().flat_map(|object| &object.functions).any(|patched| patched.name == function)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    fn stalled() -> Fake {
        let fake = Fake::new();
        fake.patch("livepatch_x", true, true);
        fake.folder("sys/kernel/livepatch/livepatch_x/vmlinux/slow_read,1");
        fake.task(7, 7, "kworker/0:1 (x)", KERNEL_THREAD, "0\n", "[<0>] worker_thread+0x52/0x3a0\n");
        fake.task(83, 83, "cat", 0, "1\n", "");
        let stack = "[<0>] schedule_timeout+0x10/0x20\n[<0>] slow_read+0x1a/0x30\n[<0>] vfs_read+0x1/0x2\n";
        fake.task(83, 84, "cat", 0, "0\n", stack);
        fake.write("proc/83/task/84/wchan", "schedule_timeout");
        fake.write("proc/7/task/7/wchan", "0");
        fake.write("proc/83/cmdline", "cat\0/proc/slow file\0");
        fake.task(90, 90, "done", 0, "-1\n", "");
        fake
    }

    #[test]
    fn the_tasks_in_the_old_state_are_named_with_what_they_do() {
        let blockers = stalled().system().blocking("livepatch_x").unwrap();
        assert_eq!(blockers.len(), 2);
        assert!(blockers[0].kernel_thread && blockers[0].comm == "kworker/0:1 (x)");
        assert_eq!(blockers[0].patched_function_on_stack, None);
        assert_eq!(blockers[0].to_string(), "kernel thread 7 (kworker/0:1 (x)) is in worker_thread");
        let cat = &blockers[1];
        assert_eq!((cat.pid, cat.tid, cat.patch_state, cat.kernel_thread), (83, 84, 0, false));
        assert_eq!(cat.command_line, "cat /proc/slow file");
        assert_eq!(cat.stack.len(), 3);
        assert_eq!(cat.patched_function_on_stack.as_deref(), Some("slow_read"));
        assert_eq!(cat.to_string(), "task 84 (cat) is in slow_read");
        assert_eq!((cat.waits_in.as_deref(), cat.task_state), (Some("schedule_timeout"), Some('S')));
        assert!(
            cat.way_out.starts_with("a signal moves it")
                && blockers[0].way_out.starts_with("no signal moves a")
        );
    }

    #[test]
    fn while_it_is_disabled_the_new_code_is_what_must_be_left() {
        let fake = stalled();
        fake.patch("livepatch_x", false, true);
        fake.write("proc/83/task/83/stack", "[<0>] new_read+0x1/0x2 [livepatch_x]\n");
        let blockers = fake.system().blocking("livepatch_x").unwrap();
        assert_eq!(blockers.len(), 1);
        assert_eq!(blockers[0].patched_function_on_stack.as_deref(), Some("new_read"));
    }

    #[test]
    fn nothing_holds_what_is_in_no_transition() {
        let fake = stalled();
        fake.patch("livepatch_x", true, false);
        assert_eq!(fake.system().blocking("livepatch_x").unwrap(), []);
        assert!(matches!(fake.system().blocking("other"), Err(LiveError::NotLoaded(_))));
    }

    #[test]
    fn the_engines_lines_are_taken_apart() {
        assert_eq!(parse_blocker("17 cat do_it"), Some((17, "cat", "do_it")));
        let spaced = parse_blocker("18 Web (a) b (has not left the kernel)");
        assert_eq!(spaced, Some((18, "Web (a) b", "(has not left the kernel)")));
        for bad in ["", "17", "x cat do_it", "17 cat", "17 )"] {
            assert_eq!(parse_blocker(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_tasks_that_the_engine_names_are_shown_with_what_they_do() {
        let fake = Fake::new();
        fake.engine_patch("fix", true, true);
        fake.write("sys/kernel/kmend/fix/blocking", "84 cat do_it\n99 gone (unreliable stack)\n");
        fake.write("proc/84/status", "Name:\tcat\nTgid:\t83\n");
        fake.write("proc/84/stat", "84 (cat) S 2 0 0 0 -1 0 0 0\n");
        fake.write("proc/84/comm", "cat\n");
        fake.write("proc/83/cmdline", "cat\0/proc/slow\0");
        let blockers = fake.system().blocking("fix").unwrap();
        assert_eq!((blockers[0].pid, blockers[0].tid), (83, 84));
        assert_eq!(blockers[0].to_string(), "task 84 (cat) is in do_it");
        assert_eq!(blockers[0].command_line, "cat /proc/slow");
        assert!(blockers[0].way_out.contains("wake it by themselves"));
        assert_eq!((blockers[1].comm.as_str(), blockers[1].patch_state), ("gone", 0));
        assert_eq!(fake.system().count_blocking("fix").unwrap(), 2);
    }

    #[test]
    fn what_frees_a_task_depends_on_what_it_does() {
        assert!(way_out(false, Some('D'), true).starts_with("no signal wakes it"));
        assert!(way_out(false, Some('T'), false).contains("SIGCONT"));
        assert!(way_out(true, Some('S'), true).contains("must leave that function"));
        assert!(way_out(false, Some('R'), false).contains("nothing need be done"));
        assert!(way_out(false, None, false).starts_with("a signal moves it"));
    }

    #[test]
    fn the_livepatch_in_transition_need_not_be_named() {
        let fake = stalled();
        fake.patch("livepatch_a", true, false);
        assert_eq!(fake.system().in_transition().unwrap().unwrap().name, "livepatch_x");
        fake.patch("livepatch_x", true, false);
        assert_eq!(fake.system().in_transition().unwrap(), None);
    }

    #[test]
    fn a_state_that_is_no_number_is_an_error() {
        let fake = stalled();
        fake.write("proc/90/task/90/patch_state", "maybe\n");
        assert!(matches!(fake.system().blocking("livepatch_x"), Err(LiveError::SysfsFormat { .. })));
    }
}
