//! How much memory a program takes at its peak, as the kernel counts it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often the program is looked at. Its peak is kept by the kernel, so only one that is reached in the last
/// moments before its end is missed.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs something that starts a program of this name as a child of this process, and says how many KiB that took.
pub(super) fn peak_of<T>(program: &str, run: impl FnOnce() -> T) -> (T, u64) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !over.load(Ordering::Relaxed) {
                peak = children().filter_map(|child| peak_now(child, program)).fold(peak, u64::max);
                thread::sleep(PAUSE);
            }
            peak
        });
        let value = run();
        over.store(true, Ordering::Relaxed);
        (value, watch.join().unwrap_or_default())
    })
}

/// The children of all threads of this process (proc(5), `/proc/PID/task/TID/children`).
fn children() -> impl Iterator<Item = u32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads.flat_map(|thread| {
        let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>()
    })
}

/// `VmHWM` of a process of this name (proc(5), `/proc/PID/status`), in KiB.
fn peak_now(process: u32, program: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let field = |name: &str| Some(status.lines().find_map(|line| line.strip_prefix(name))?.trim());
    if field("Name:")? != program {
        return None;
    }
    field("VmHWM:")?.strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmend_process::Command;

    #[test]
    fn a_childs_memory_is_seen() {
        let (result, peak) = peak_of("sleep", || Command::new("sleep").arg("0.2").run());
        result.unwrap();
        assert!((100..100_000).contains(&peak), "{peak} KiB");
    }
}
