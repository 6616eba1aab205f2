//! Results as a program reads them.

use serde_json::{Value, json};

use crate::comparison::{Measured, Results};
use crate::outcome::Outcome;

/// One window.
pub fn outcome(outcome: &Outcome) -> Value {
    let [p50, p99, p999] = outcome.latency_micros;
    let failures = outcome.failures.iter().map(|(kind, failed)| {
        json!({ "kind": kind.to_string(), "times": failed.times, "first": failed.first })
    });
    json!({
        "scenario": outcome.scenario.name(),
        "cost": outcome.cost(),
        "cost_unit": outcome.scenario.unit().cost(),
        "rate": outcome.rate(),
        "seconds": outcome.seconds,
        "operations": outcome.operations,
        "bytes": outcome.bytes,
        "full_handshakes": outcome.full,
        "resumed_handshakes": outcome.resumed,
        "resumed_share": outcome.resumed_share(),
        "latency_micros": { "p50": p50, "p99": p99, "p99.9": p999 },
        "failures": failures.collect::<Vec<_>>(),
        "server_cpu_seconds": outcome.used.map(|used| used.cpu.as_secs_f64()),
        "foreign_share": outcome.foreign_share(),
        "resident_bytes": outcome.resident_bytes,
        "idle_bytes_per_connection": outcome.idle_bytes,
    })
}

/// A comparison: every window of every system, and what was refused.
pub fn results(results: &Results) -> Value {
    let cells = results.cells.iter().map(|cell| {
        let (rounds, refused, lacks) = match &cell.measured {
            Measured::Rounds(outcomes) => (outcomes.iter().map(outcome).collect(), None, None),
            Measured::Refused(why) => {
                let why: Vec<_> = why.iter().map(ToString::to_string).collect();
                (Vec::new(), Some(why), None)
            }
            Measured::Lacks(what) => (Vec::new(), None, Some(what)),
        };
        json!({
            "scenario": cell.scenario.name(),
            "system": cell.system,
            "rounds": rounds,
            "refused": refused,
            "lacks": lacks,
        })
    });
    let versions = results
        .versions
        .iter()
        .map(|(name, version)| json!({ "system": name, "version": version }));
    json!({ "versions": versions.collect::<Vec<_>>(), "cells": cells.collect::<Vec<_>>() })
}
