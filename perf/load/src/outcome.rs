//! What one measured window gave.

use std::collections::BTreeMap;

use crate::failure::Kind;
use crate::metrics::Failed;
use crate::plan::{Scenario, Unit};
use crate::watch::Used;

#[derive(Clone, Debug)]
pub struct Outcome {
    pub scenario: Scenario,
    pub seconds: f64,
    pub operations: u64,
    /// Content moved.
    pub bytes: u64,
    pub full: u64,
    pub resumed: u64,
    /// Latency below which half, 99 % and 99.9 % of the operations stayed, in microseconds.
    pub latency_micros: [u64; 3],
    pub failures: BTreeMap<Kind, Failed>,
    /// Without a process to watch, nothing is known of it.
    pub used: Option<Used>,
    pub resident_bytes: Option<u64>,
    /// Growth of the server's memory by one idle connection.
    pub idle_bytes: Option<f64>,
}

impl Outcome {
    /// The figure that systems are compared by, in the unit of the scenario.
    pub fn cost(&self) -> Option<f64> {
        let divisor = match self.scenario.unit() {
            Unit::Connection => return self.idle_bytes.map(|bytes| bytes / 1024.0),
            Unit::Operation => self.operations as f64,
            Unit::Kib => self.bytes as f64 / 1024.0,
        };
        let micros = self.used?.cpu.as_secs_f64() * 1e6;
        (divisor > 0.0).then(|| micros / divisor)
    }

    /// Operations, or MiB, per second; for idle connections how many stood.
    pub fn rate(&self) -> f64 {
        match self.scenario.unit() {
            Unit::Connection => self.operations as f64,
            Unit::Operation => self.operations as f64 / self.seconds,
            Unit::Kib => self.bytes as f64 / f64::from(1 << 20) / self.seconds,
        }
    }

    /// The share of handshakes that resumed; nothing where there were none.
    pub fn resumed_share(&self) -> Option<f64> {
        let all = self.full + self.resumed;
        (all > 0).then(|| self.resumed as f64 / all as f64)
    }

    /// The share of the window in which something else ran on the server's core.
    pub fn foreign_share(&self) -> Option<f64> {
        let used = self.used?;
        Some(used.foreign?.as_secs_f64() / used.wall.as_secs_f64())
    }
}
