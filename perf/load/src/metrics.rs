//! What the clients of a run count.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use crate::failure::{Failure, Kind};

/// Failures after which a run ends early: the system is broken, and more of it says nothing new.
const ENOUGH_FAILURES: u64 = 20;

/// How often a kind of failure came, and the first of them in words.
#[derive(Clone, Debug)]
pub struct Failed {
    pub times: u64,
    pub first: String,
}

/// Counts of one run. Successes count inside the window only, failures always.
pub struct Metrics {
    counting: Cell<bool>,
    ended: Cell<bool>,
    end: Notify,
    pub operations: Cell<u64>,
    pub bytes: Cell<u64>,
    pub resumed: Cell<u64>,
    pub full: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
    failures: RefCell<BTreeMap<Kind, Failed>>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a microsecond to two minutes, longer than any wait of a client, with three digits.
        let latency = Histogram::new_with_bounds(1, 120_000_000, 3);
        Self {
            counting: Cell::new(false),
            ended: Cell::new(false),
            end: Notify::new(),
            operations: Cell::new(0),
            bytes: Cell::new(0),
            resumed: Cell::new(0),
            full: Cell::new(0),
            latency: RefCell::new(latency.expect("bounds in order")),
            failures: RefCell::default(),
        }
    }
}

impl Metrics {
    /// Opens or closes the window.
    pub fn count(&self, counting: bool) {
        self.counting.set(counting);
    }

    /// Tells the clients to begin nothing new.
    pub fn end(&self) {
        self.ended.set(true);
        self.end.notify_waiters();
    }

    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Waits until the run is told to end.
    pub async fn until_end(&self) {
        let end = self.end.notified();
        if !self.ended.get() {
            end.await;
        }
    }

    pub fn done(&self, took: Duration) {
        if self.counting.get() {
            self.operations.set(self.operations.get() + 1);
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.latency.borrow_mut().saturating_record(took);
        }
    }

    pub fn moved(&self, bytes: usize) {
        if self.counting.get() {
            self.bytes.set(self.bytes.get() + bytes as u64);
        }
    }

    pub fn shook_hands(&self, resumed: bool) {
        if self.counting.get() {
            let counter = if resumed { &self.resumed } else { &self.full };
            counter.set(counter.get() + 1);
        }
    }

    pub fn failed(&self, failure: Failure) {
        let mut failures = self.failures.borrow_mut();
        failures
            .entry(failure.kind)
            .or_insert_with(|| Failed { times: 0, first: failure.detail })
            .times += 1;
        if failures.values().map(|failed| failed.times).sum::<u64>() >= ENOUGH_FAILURES {
            drop(failures);
            self.end();
        }
    }

    pub fn failures(&self) -> BTreeMap<Kind, Failed> {
        self.failures.borrow().clone()
    }

    /// The latency below which this share of the operations stayed, in microseconds.
    pub fn latency_micros(&self, share: f64) -> u64 {
        self.latency.borrow().value_at_quantile(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_counts_but_failures_always_do() {
        let metrics = Metrics::default();
        metrics.done(Duration::from_micros(900));
        metrics.count(true);
        metrics.done(Duration::from_micros(100));
        metrics.count(false);
        metrics.done(Duration::from_micros(900));
        metrics.failed(Failure::new(Kind::Content, "first"));
        metrics.failed(Failure::new(Kind::Content, "second"));
        assert_eq!(metrics.operations.get(), 1);
        assert_eq!(metrics.latency_micros(0.999), 100);
        let failures = metrics.failures();
        let failed = &failures[&Kind::Content];
        assert_eq!((failed.times, failed.first.as_str()), (2, "first"));
        assert!(!metrics.has_ended());
    }

    #[test]
    fn a_broken_system_ends_the_run_early() {
        let metrics = Metrics::default();
        (0..ENOUGH_FAILURES).for_each(|_| metrics.failed(Failure::new(Kind::Connect, "refused")));
        assert!(metrics.has_ended());
    }
}
