//! What a run of renewals came to, and whether that is good enough. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::failure::Kind;
use crate::metrics::Failed;

use super::Plan;
use super::clients::to_be_kept;
use super::served::Name;

/// The part of the handshakes due that must have been made, or the load was not the one said.
const DONE_SHARE: f64 = 0.99;

pub struct Report {
    pub plan: Plan,
    /// Until the last of what was due was done.
    pub seconds: f64,
    /// Full ones, with a request that was answered.
    pub handshakes: u64,
    /// Half, 99 %, 99.9 % and all of them took no longer, counted from when they were due.
    pub latency_micros: [u64; 4],
    /// Connections that were whole to the end, and what they asked.
    pub kept_connections: usize,
    pub kept_requests: u64,
    pub failures: BTreeMap<Kind, Failed>,
    pub names: BTreeMap<String, Name>,
    /// By Pebble.
    pub issued: usize,
    /// By ringgate, as it says; attempts of its that failed are tried again and no client's concern.
    pub obtained: usize,
    pub failed_attempts: usize,
    /// Of ringgate.
    pub cpu: Duration,
    /// Before and after.
    pub resident_bytes: [u64; 2],
}

impl Report {
    /// What is not as it should be; nothing if no client noticed a renewal, and there were some.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<_> = self
            .failures
            .iter()
            .map(|(kind, failed)| format!("{kind}: {} times, first {}", failed.times, failed.first))
            .collect();
        let due = self.plan.window.as_secs_f64() * self.plan.rate;
        if (self.handshakes as f64) < DONE_SHARE * due {
            faults.push(format!("{} handshakes of {due:.0}: the load was less", self.handshakes));
        }
        let to_be_kept = to_be_kept(self.names.len());
        if self.kept_connections < to_be_kept {
            faults.push(format!("{} of {to_be_kept} connections stayed", self.kept_connections));
        }
        for (name, seen) in &self.names {
            if seen.certificates < 2 {
                faults.push(format!("{name}: no renewal was seen"));
            }
        }
        faults
    }

    pub fn print(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "certificates of {} s, {} handshakes per second for {:.1} minutes\n",
            self.plan.validity.as_secs(),
            self.plan.rate,
            self.seconds / 60.0
        );
        let _ = writeln!(
            text,
            "{:<12}{:>14}{:>14}{:>26}",
            "name", "certificates", "handshakes", "shortest life left, s"
        );
        for (name, seen) in &self.names {
            let Name { certificates, handshakes, least_seconds_left } = seen;
            let _ = writeln!(
                text,
                "{name:<12}{certificates:>14}{handshakes:>14}{least_seconds_left:>26}"
            );
        }
        let [p50, p99, p999, longest] = self.latency_micros;
        let [before, after] = self.resident_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
        let failed: u64 = self.failures.values().map(|failed| failed.times).sum();
        let _ = writeln!(
            text,
            "\nhandshakes         {}, {:.1} per second; {failed} failures\n\
             from due to closed p50 {p50} µs, p99 {p99} µs, p99.9 {p999} µs, longest {longest} µs\n\
             kept connections   {} whole to the end, {} requests on them\n\
             issued             {} by Pebble; {} obtained, {} attempts failed by ringgate's log\n\
             ringgate           {:.1} % of a core; {before:.1} MiB before, {after:.1} MiB after",
            self.handshakes,
            self.handshakes as f64 / self.seconds,
            self.kept_connections,
            self.kept_requests,
            self.issued,
            self.obtained,
            self.failed_attempts,
            100.0 * self.cpu.as_secs_f64() / self.seconds,
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        let seen = Name { certificates: 2, handshakes: 600, least_seconds_left: 10 };
        Report {
            plan: Plan {
                window: Duration::from_secs(60),
                rate: 10.0,
                validity: Duration::from_secs(30),
                peers: "peers".into(),
                bin: "bin".into(),
            },
            seconds: 60.0,
            handshakes: 600,
            latency_micros: [1, 2, 3, 4],
            kept_connections: to_be_kept(1),
            kept_requests: 24,
            failures: BTreeMap::new(),
            names: BTreeMap::from([("a.example".to_owned(), seen)]),
            issued: 2,
            obtained: 2,
            failed_attempts: 0,
            cpu: Duration::from_secs(6),
            resident_bytes: [1 << 20; 2],
        }
    }

    #[test]
    fn each_fault_is_named() {
        assert_eq!(good().faults(), [""; 0]);
        let failed = Failed { times: 3, first: "expired".to_owned() };
        let unrenewed = Name { certificates: 1, handshakes: 600, least_seconds_left: 10 };
        for (report, says) in [
            (Report { failures: [(Kind::Certificate, failed)].into(), ..good() }, "expired"),
            (Report { handshakes: 500, ..good() }, "the load was less"),
            (Report { kept_connections: to_be_kept(1) - 1, ..good() }, "stayed"),
            (
                Report { names: [("a.example".to_owned(), unrenewed)].into(), ..good() },
                "no renewal",
            ),
        ] {
            let faults = report.faults();
            assert!(faults.len() == 1 && faults[0].contains(says), "{says}: {faults:?}");
        }
    }
}
