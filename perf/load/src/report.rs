//! The page and the charts that perf/results keeps of one run of everything.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::chart::{self, Group, Series};
use crate::comparison::{Measured, Order, Results};
use crate::everything::{Everything, IDLE};
use crate::machine;
use crate::outcome::Outcome;
use crate::plan::Scenario;
use crate::table;
use crate::verdict::{Spread, ratio};

/// Writes `page` and, beside it, its charts.
///
/// # Errors
/// If the files cannot be written.
pub fn write(page: &Path, everything: &Everything, order: &Order) -> Result<(), String> {
    let name = page.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let charts = charts(everything);
    let mut text = text(&name, everything, order);
    text.push_str("\n## Charts\n\n");
    for (what, svg) in charts {
        let file = format!("{name}-{what}.svg");
        put(&page.with_file_name(&file), &svg)?;
        let _ = writeln!(text, "![{what}]({file})\n");
    }
    put(page, &text)
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn text(name: &str, everything: &Everything, order: &Order) -> String {
    let Everything { results, idle, alone, published } = everything;
    let seconds = order.window.as_secs_f64();
    let mut text = format!(
        "# What does ringgate cost beside its peers? ({name})\n\n\
         - Machine: {}. Server on core {}, load and upstream (nginx) on core {}.\n\
         - {} rounds of {seconds} s, systems in alternating order; ECDSA P-256 unless it says RSA, X25519 unless it\n  \
         says X25519MLKEM768, TLS_AES_128_GCM_SHA256.\n",
        machine::describe(),
        order.cores.server,
        order.cores.load,
        order.rounds,
    );
    for (system, version) in &results.versions {
        let _ = writeln!(text, "- {system}: {version}");
    }
    text.push_str("\n```\nperf/compare --all\n```\n\n## At a glance\n\n");
    glance(&mut text, everything);
    let _ = write!(text, "\n## Every scenario\n\n```{}```\n", table::print(results, &timed()));
    let _ = write!(
        text,
        "\n## A handshake alone\n\nThe built-in page dials no upstream: what is left is TCP with the client, and TLS.\n\n```{}```\n",
        table::print(alone, &[Scenario::Handshake])
    );
    text.push_str("\n## Memory by idle connections\n\n```");
    for (connections, results) in idle {
        let _ = write!(text, "\n{connections} connections\n");
        text.push_str(&table::print(results, &[Scenario::Idle]));
    }
    text.push_str("```\n\n## Handshakes while certificates are published\n\n");
    text.push_str(
        "1,000 full handshakes with a request per second, open loop, while the files of other names are replaced.\n\n\
         | certificates per second | p50 µs | p99 µs, median (min–max) of the rounds | server CPU per operation, µs |\n\
         |---|---|---|---|\n",
    );
    for point in published {
        if let Measured::Refused(why) = &point.measured {
            let why: Vec<_> = why.iter().map(ToString::to_string).collect();
            let _ =
                writeln!(text, "| {} | refused: {} | - | - |", point.per_second, why.join("; "));
        }
        let Some(outcomes) = point.measured.rounds() else { continue };
        let latency = |at: usize| {
            Spread::of(outcomes.iter().map(|outcome| outcome.latency_micros[at] as f64))
        };
        let p50 = latency(0).map_or(0.0, |spread| spread.median);
        let p99 = latency(1).map_or_else(|| "-".to_owned(), |s| s.show(0));
        let cost = Spread::of(outcomes.iter().filter_map(Outcome::cost));
        let cost = cost.map_or_else(|| "-".to_owned(), |s| s.show(1));
        let _ = writeln!(text, "| {} | {p50:.0} | {p99} | {cost} |", point.per_second);
    }
    text
}

/// The rows that a reader looks for first: ringgate's figure, and its ratio to each peer.
fn glance(text: &mut String, everything: &Everything) {
    let Everything { results, idle, .. } = everything;
    let peers: Vec<&str> = results.versions.iter().skip(1).map(|(name, _)| name.as_str()).collect();
    let _ = writeln!(
        text,
        "| median of the rounds (min–max) | ringgate | over {} |",
        peers.join(" | over ")
    );
    let _ = writeln!(text, "|---|---|{}", "---|".repeat(peers.len()));
    let mut row = |title: String, results: &Results, scenario: Scenario| {
        let Some(ours) = rounds(results, scenario, 0) else { return };
        let cost = Spread::of(ours.iter().filter_map(Outcome::cost));
        let _ =
            write!(text, "| {title} | {} |", cost.map_or_else(|| "-".to_owned(), |s| s.show(2)));
        for at in 1..=peers.len() {
            let ratio = rounds(results, scenario, at).and_then(|theirs| ratio(ours, theirs));
            let _ = write!(text, " {} |", ratio.map_or_else(|| "-".to_owned(), |s| s.show(2)));
        }
        text.push('\n');
    };
    for scenario in Scenario::ALL {
        let title = format!("{}; {}", scenario.title(), scenario.unit().cost());
        row(title, results, scenario);
    }
    for (connections, results) in idle {
        if IDLE.last() == Some(connections) {
            let title = format!("{connections} idle connections; {}", Scenario::Idle.unit().cost());
            row(title, results, Scenario::Idle);
        }
    }
    let post_quantum =
        rounds(results, Scenario::PostQuantum, 0).zip(rounds(results, Scenario::Full, 0));
    if let Some(over) = post_quantum.and_then(|(with, without)| ratio(with, without)) {
        let _ = writeln!(text, "\nX25519MLKEM768 over our own X25519: {}.", over.show(2));
    }
    let resumed = rounds(results, Scenario::Resumed, 0).into_iter().flatten();
    if let Some(share) = Spread::of(resumed.filter_map(Outcome::resumed_share)) {
        let _ = writeln!(text, "Tickets that were accepted: {:.1} % at least.", share.min * 100.0);
    }
}

/// What the rounds of the system at this place gave.
fn rounds(results: &Results, scenario: Scenario, at: usize) -> Option<&[Outcome]> {
    results.of(scenario).get(at)?.measured.rounds()
}

/// All but idle connections, which are measured at several numbers of them.
fn timed() -> Vec<Scenario> {
    Scenario::ALL.into_iter().filter(|scenario| *scenario != Scenario::Idle).collect()
}

fn charts(everything: &Everything) -> Vec<(&'static str, String)> {
    let Everything { results, idle, published, .. } = everything;
    let cost = |outcomes: &[Outcome]| median(outcomes.iter().filter_map(Outcome::cost).collect());
    let rate = |outcomes: &[Outcome]| {
        // Of operations; what one core could do with them, for the load is slower than some systems.
        median(outcomes.iter().filter_map(Outcome::cost).map(|micros| 1e6 / micros).collect())
    };
    let group = |scenario: Scenario, heading: String, value: &dyn Fn(&[Outcome]) -> f64| Group {
        heading,
        bars: results
            .of(scenario)
            .iter()
            .filter_map(|cell| match &cell.measured {
                Measured::Rounds(outcomes) if !outcomes.is_empty() => {
                    Some((cell.system.clone(), value(outcomes)))
                }
                _ => None,
            })
            .collect(),
    };
    let timed = timed();
    let costs: Vec<Group> = timed
        .iter()
        .map(|scenario| {
            group(*scenario, format!("{}: {}", scenario.title(), scenario.unit().cost()), &cost)
        })
        .collect();
    let rates: Vec<Group> = timed
        .iter()
        .filter(|scenario| !matches!(scenario, Scenario::BulkDown | Scenario::BulkUp))
        .map(|scenario| group(*scenario, scenario.title().to_owned(), &rate))
        .collect();
    let memory: Vec<Series> = results
        .versions
        .iter()
        .enumerate()
        .map(|(at, (name, _))| Series {
            name: name.clone(),
            points: idle
                .iter()
                .filter_map(|(connections, results)| {
                    let outcomes = rounds(results, Scenario::Idle, at)?;
                    let mib = outcomes.iter().filter_map(|outcome| outcome.resident_bytes);
                    let mib = mib.map(|bytes| bytes as f64 / f64::from(1 << 20)).collect();
                    Some((*connections as f64, median(mib)))
                })
                .collect(),
        })
        .collect();
    let latency = |name: &str, at: usize| Series {
        name: name.to_owned(),
        points: published
            .iter()
            .filter_map(|point| {
                let outcomes = point.measured.rounds()?;
                let micros = outcomes.iter().map(|outcome| outcome.latency_micros[at] as f64);
                Some((f64::from(point.per_second), median(micros.collect())))
            })
            .collect(),
    };
    vec![
        ("cpu", chart::bars("Server CPU by system", &costs)),
        ("rate", chart::bars("Operations per second that one core has time for", &rates)),
        (
            "memory",
            chart::lines("Server memory by idle connections", "connections", "MiB", &memory),
        ),
        (
            "publishing",
            chart::lines(
                "Latency of handshakes while certificates are published",
                "certificates published per second",
                "µs",
                &[latency("p99", 1), latency("p50", 0)],
            ),
        ),
    ]
}

fn median(values: Vec<f64>) -> f64 {
    Spread::of(values).map_or(0.0, |spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::Cell;
    use crate::cores::Cores;
    use crate::publishing::Point;
    use crate::verdict::Refusal;
    use crate::watch::Used;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn outcome(scenario: Scenario, cpu_micros: u64) -> Outcome {
        let cpu = Duration::from_micros(cpu_micros);
        Outcome {
            scenario,
            seconds: 1.0,
            operations: 10,
            bytes: 10 << 10,
            full: 0,
            resumed: 10,
            latency_micros: [1, 2, 3],
            failures: BTreeMap::new(),
            used: Some(Used { wall: Duration::from_secs(1), cpu, foreign: None }),
            resident_bytes: Some(cpu_micros << 20),
            idle_bytes: Some(cpu_micros as f64),
        }
    }

    fn results(scenarios: &[Scenario]) -> Results {
        let systems = [("ours", 100), ("theirs", 400)];
        let cells = scenarios.iter().flat_map(|scenario| {
            systems.map(|(system, cpu_micros)| Cell {
                scenario: *scenario,
                system: system.into(),
                measured: Measured::Rounds(vec![outcome(*scenario, cpu_micros)]),
            })
        });
        let versions = systems.map(|(system, _)| (system.to_owned(), "1".to_owned()));
        Results { cells: cells.collect(), versions: versions.into() }
    }

    #[test]
    fn the_page_has_every_ratio_and_the_charts_lie_beside_it() {
        let dir = std::env::temp_dir().join(format!("ringgate-report-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let everything = Everything {
            results: results(&timed()),
            idle: IDLE.map(|count| (count, results(&[Scenario::Idle]))).into(),
            alone: results(&[Scenario::Handshake]),
            published: vec![
                Point {
                    per_second: 7,
                    measured: Measured::Rounds(vec![outcome(Scenario::Full, 100)]),
                },
                Point {
                    per_second: 70,
                    measured: Measured::Refused(vec![Refusal::NotResumed { share: 0.0 }]),
                },
            ],
        };
        let order = Order {
            scenarios: Vec::new(),
            systems: Vec::new(),
            rounds: 1,
            window: Duration::from_secs(1),
            cores: Cores { server: 0, load: 1 },
            rate: None,
            clients: None,
            bulk_bytes: 0,
            smoke: false,
            beside: None,
            peers: dir.clone(),
        };
        write(&dir.join("day.md"), &everything, &order).unwrap();
        let page = fs::read_to_string(dir.join("day.md")).unwrap();
        assert_eq!(page.matches("| 0.25 (0.25–0.25) |").count(), Scenario::ALL.len(), "{page}");
        assert!(page.contains("| 7 | 1 | 2 (2–2) | 10.0 (10.0–10.0) |"), "{page}");
        let refused = Refusal::NotResumed { share: 0.0 };
        assert!(page.contains(&format!("| 70 | refused: {refused} | - | - |")), "{page}");
        for chart in ["cpu", "rate", "memory", "publishing"] {
            let file = format!("day-{chart}.svg");
            assert!(page.contains(&format!("({file})")), "{page}");
            assert!(fs::read_to_string(dir.join(file)).unwrap().ends_with("</svg>\n"));
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
