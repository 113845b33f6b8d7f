//! Work that several threads share.

use anyhow::{Result, anyhow};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does the work for each item, begun in their order, so many at a time; what came of them, in that order. The work is told the
/// item's number, from 0.
pub(crate) fn several<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(usize, &T) -> R + Sync,
) -> Result<Vec<R>> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let share = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { break };
            let result = work(number, item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(share)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker ended unexpectedly")))
    })?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let late_first = |number: usize, item: &u64| {
            thread::sleep(Duration::from_millis(*item));
            (number, item * 2)
        };
        for threads in [0, 1, 3] {
            assert_eq!(
                several(threads, &[20, 0, 5, 1], late_first).unwrap(),
                [(0, 40), (1, 0), (2, 10), (3, 2)]
            );
        }
        assert!(several(2, &[1, 2], |_, item| assert!(*item == 1)).is_err());
    }
}
