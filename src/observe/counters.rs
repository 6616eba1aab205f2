//! Per-worker counters, and the bounded channel on which workers report to the control plane.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::names::{Reason, Side};

/// Reports that may wait for the control plane; one more is dropped and counted.
const REPORTS: usize = 1024;

/// One number that one worker writes and the control plane reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Each counter has a single writer, so this is a plain load and store, no locked
    /// instruction.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one worker, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    pub accepted: Counter,
    /// Connections open now.
    pub open: Counter,
    pub full_handshakes: Counter,
    pub resumed_handshakes: Counter,
    /// ClientHellos that were complete.
    pub hellos: Counter,
    /// Handshakes whose key exchange was computed together with others', and in how many computations.
    pub computed_together: Counter,
    pub computations: Counter,
    /// Times that accepting paused for want of descriptors or room.
    pub accept_pauses: Counter,
    /// Receives that found no buffer free and waited for readability instead.
    pub out_of_buffers: Counter,
    /// Requests that a plain listener answered.
    pub redirects: Counter,
    /// Times that an endpoint began to be skipped.
    pub endpoints_skipped: Counter,
    pub reports_dropped: Counter,
    ended: [Counter; Reason::ALL.len()],
}

impl Counters {
    pub fn ended(&self, reason: Reason) -> &Counter {
        // The discriminants count up from 0, one per element.
        &self.ended[reason as usize]
    }
}

/// A connection that ended before its time, as a worker tells the control plane.
#[derive(Clone, Debug)]
pub struct Report {
    pub side: Side,
    pub reason: Reason,
    pub client: Option<SocketAddr>,
    pub server_name: Option<Box<str>>,
    pub route: Option<Arc<str>>,
    pub detail: Option<Box<str>>,
}

/// A worker's end of the channel.
#[derive(Clone)]
pub struct Reporter {
    sender: mpsc::Sender<Report>,
    /// Also what no operator has to know of: somebody reads the log at that level.
    all: bool,
}

impl Reporter {
    /// The channel: many reporters, one receiver. `all`: also reports that do not concern the operator.
    pub fn channel(all: bool) -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(REPORTS);
        (Self { sender, all }, receiver)
    }

    /// Reports, or drops the report and counts that: the edge never waits.
    pub fn report(&self, counters: &Counters, reason: Reason, report: impl FnOnce() -> Report) {
        // Clients that leave without a word are legion, and each report wakes the control plane.
        if !self.all && !reason.concerns_operator() {
            return;
        }
        match self.sender.try_reserve() {
            Ok(place) => place.send(report()),
            Err(_) => counters.reports_dropped.add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_report_channel_drops_and_counts() {
        let (reporter, mut receiver) = Reporter::channel(true);
        let counters = Counters::default();
        let report = || Report {
            side: Side::Client,
            reason: Reason::NotTls,
            client: None,
            server_name: None,
            route: None,
            detail: None,
        };
        for _ in 0..REPORTS + 3 {
            reporter.report(&counters, Reason::NotTls, report);
        }
        assert_eq!(counters.reports_dropped.get(), 3);
        assert!(receiver.try_recv().is_ok());
        reporter.report(&counters, Reason::NotTls, report);
        assert_eq!(counters.reports_dropped.get(), 3);
    }

    #[test]
    fn every_reason_has_a_counter_and_a_label_of_its_own() {
        let counters = Counters::default();
        let mut labels: Vec<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(at, *reason as usize);
            counters.ended(*reason).add(1);
        }
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
