//! How far a step over many units is, and how long it will yet take.

use crate::target::Progress;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How often progress is told.
const INTERVAL: Duration = Duration::from_millis(200);
/// An estimate is made from so many units on.
const FEWEST: usize = 8;

/// A count that tells itself as it grows.
pub struct Estimate<'a> {
    done: &'static str,
    total: usize,
    progress: Progress<'a>,
    since: Instant,
    state: Mutex<(usize, Instant)>,
}

impl<'a> Estimate<'a> {
    /// Counts to `total`; `done` is what happens to each unit.
    pub fn new(done: &'static str, total: usize, progress: Progress<'a>) -> Self {
        let since = Instant::now();
        if total > 0 {
            progress(&line(done, 0, total, Duration::ZERO));
        }
        Self { done, total, progress, since, state: Mutex::new((0, since)) }
    }

    /// One unit is done.
    pub fn one_more(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        if state.0 == self.total || state.1.elapsed() > INTERVAL {
            state.1 = Instant::now();
            (self.progress)(&line(self.done, state.0, self.total, self.since.elapsed()));
        }
    }
}

fn line(done: &str, count: usize, total: usize, time: Duration) -> String {
    let units = if total == 1 { "unit" } else { "units" };
    let so_far = format!("{done} {count} of {total} {units}");
    if count < FEWEST || count >= total {
        return so_far;
    }
    let each = time / u32::try_from(count).unwrap_or(u32::MAX);
    let left = each.saturating_mul(u32::try_from(total - count).unwrap_or(u32::MAX)).as_secs_f64();
    format!("{so_far}, about {} left", span(left))
}

fn span(seconds: f64) -> String {
    if seconds < 100.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_pace_so_far() {
        assert_eq!(line("preprocessed", 0, 1, Duration::ZERO), "preprocessed 0 of 1 unit");
        let at = |count| line("compiled", count, 500, Duration::from_secs(10));
        assert_eq!(at(100), "compiled 100 of 500 units, about 40 s left");
        assert_eq!(at(10), "compiled 10 of 500 units, about 8 min left");
        assert_eq!(at(500), "compiled 500 of 500 units");
    }
}
