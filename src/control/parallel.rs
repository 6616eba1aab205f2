//! Work on many items by several threads, the outcomes in the order of the items.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Runs `work` on every item; the outcomes are in the order of the items.
pub fn in_parallel<I: Sync, O: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> O + Sync,
) -> Vec<O> {
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut done = Vec::new();
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(item) = items.get(at)
        {
            done.push((at, work(item)));
        }
        done
    };
    let mut outcomes = thread::scope(|scope| {
        // This thread is one of them; where the system gives no more threads it does all the work.
        let others: Vec<_> = (1..threads.min(items.len()))
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, take_turns).ok())
            .collect();
        let mut outcomes = take_turns();
        for other in others {
            match other.join() {
                Ok(done) => outcomes.extend(done),
                Err(panicked) => std::panic::resume_unwind(panicked),
            }
        }
        outcomes
    });
    outcomes.sort_unstable_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}
