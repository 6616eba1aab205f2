//! Results as a person reads them.

use std::fmt::Write;

use crate::comparison::{Measured, Results};
use crate::outcome::Outcome;
use crate::plan::{Scenario, Unit};
use crate::verdict::{Spread, ratio};

/// All scenarios, a table each.
pub fn print(results: &Results, scenarios: &[Scenario]) -> String {
    scenarios.iter().map(|scenario| table(results, *scenario)).collect()
}

fn table(results: &Results, scenario: Scenario) -> String {
    let cells = results.of(scenario);
    let (mut refusals, mut rows, mut compared) = (Vec::new(), Vec::new(), Vec::new());
    for cell in cells {
        match &cell.measured {
            Measured::Rounds(outcomes) => {
                rows.push(row(&cell.system, scenario, outcomes));
                compared.push((cell.system.as_str(), outcomes.as_slice()));
            }
            Measured::Lacks(what) => rows.push(vec![cell.system.clone(), format!("lacks {what}")]),
            Measured::Refused(why) => {
                rows.push(vec![cell.system.clone(), "refused".to_owned()]);
                refusals.extend(why.iter().map(|why| format!("{}: {why}", cell.system)));
            }
        }
    }
    let mut text =
        format!("\n{}: {}\n{}\n", scenario.name(), scenario.title(), scenario.unit().cost());
    let mut heading = vec!["", "min", "median", "max", rate_heading(scenario.unit())];
    if scenario.unit() == Unit::Operation {
        heading.extend(["p50 µs", "p99 µs", "p99.9 µs"]);
    }
    if scenario == Scenario::Resumed {
        heading.push("resumed");
    }
    align(&mut text, heading.iter().map(ToString::to_string).collect(), &rows);
    if !refusals.is_empty() {
        // A ratio to what is broken, or beside what was disturbed, says nothing.
        for refusal in refusals {
            let _ = writeln!(text, "refused: {refusal}");
        }
        text.push_str("no ratios\n");
        return text;
    }
    if compared.len() > 1 {
        ratios(&mut text, &compared);
    }
    text
}

fn rate_heading(unit: Unit) -> &'static str {
    match unit {
        Unit::Operation => "per s",
        Unit::Kib => "MiB/s",
        Unit::Connection => "connections",
    }
}

fn row(system: &str, scenario: Scenario, outcomes: &[Outcome]) -> Vec<String> {
    let middle = |values: Vec<f64>| Spread::of(values).map_or(0.0, |spread| spread.median);
    let cost = Spread::of(outcomes.iter().filter_map(Outcome::cost));
    let mut row = vec![system.to_owned()];
    row.extend(match cost {
        Some(Spread { min, median, max }) => [min, median, max].map(|cost| format!("{cost:.2}")),
        None => ["-"; 3].map(str::to_owned),
    });
    row.push(format!("{:.0}", middle(outcomes.iter().map(Outcome::rate).collect())));
    if scenario.unit() == Unit::Operation {
        for at in 0..3 {
            let latencies = outcomes.iter().map(|outcome| outcome.latency_micros[at] as f64);
            row.push(format!("{:.0}", middle(latencies.collect())));
        }
    }
    if scenario == Scenario::Resumed {
        let shares = outcomes.iter().filter_map(Outcome::resumed_share);
        row.push(format!("{:.1} %", middle(shares.collect()) * 100.0));
    }
    row
}

/// What the system of the row costs in terms of that of the column.
fn ratios(text: &mut String, compared: &[(&str, &[Outcome])]) {
    text.push_str("row over column, median of the rounds (min–max)\n");
    let heading: Vec<String> =
        [""].into_iter().chain(compared.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    let rows: Vec<Vec<String>> = compared
        .iter()
        .map(|(name, ours)| {
            let ratios = compared.iter().map(|(other, theirs)| match ratio(ours, theirs) {
                _ if name == other => "1".to_owned(),
                Some(Spread { min, median, max }) => format!("{median:.2} ({min:.2}–{max:.2})"),
                None => "-".to_owned(),
            });
            [(*name).to_owned()].into_iter().chain(ratios).collect()
        })
        .collect();
    align(text, heading, &rows);
}

/// The first column to the left, the others to the right.
fn align(text: &mut String, heading: Vec<String>, rows: &[Vec<String>]) {
    let lines: Vec<_> = [&heading].into_iter().chain(rows).collect();
    let columns = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| lines.iter().filter_map(|line| line.get(at)).map(|c| c.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    for line in lines {
        let mut out = String::new();
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = match at {
                0 => write!(out, "{cell:<width$}"),
                _ => write!(out, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "  {}", out.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::Cell;
    use crate::verdict::Refusal;

    fn cell(system: &str, measured: Measured) -> Cell {
        Cell { scenario: Scenario::Full, system: system.into(), measured }
    }

    #[test]
    fn beside_a_refused_system_no_ratio_is_printed() {
        let refused = Measured::Refused(vec![Refusal::NotResumed { share: 0.0 }]);
        let mut results = Results {
            cells: vec![
                cell("ours", Measured::Rounds(Vec::new())),
                cell("theirs", Measured::Rounds(Vec::new())),
            ],
            versions: Vec::new(),
        };
        assert!(print(&results, &[Scenario::Full]).contains("row over column"));
        results.cells.push(cell("broken", refused));
        let text = print(&results, &[Scenario::Full]);
        assert!(text.contains("refused: broken: only 0.0 %"), "{text}");
        assert!(text.contains("no ratios") && !text.contains("row over column"), "{text}");
    }
}
