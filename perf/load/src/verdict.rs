//! Whether outcomes may be compared, and the figures that come of it. Pure.

use std::fmt;

use crate::outcome::Outcome;
use crate::plan::Scenario;

/// The share of a window in which something else may run on the server's core: the kernel's own threads and
/// interrupts do. A process that is busy takes far more; those that were refused here took 11 to 45 %
/// (perf/results/what-does-ringgate-cost-beside-its-peers.md).
const FOREIGN_SHARE: f64 = 0.04;
/// /proc/stat counts in ticks of 10 ms, one of which may be wrong at each end.
const TICKS_SECONDS: f64 = 0.02;

/// The share of handshakes that must resume. All should: every client has a ticket before the window
/// opens. One in a hundred covers ticket keys that rotate.
const RESUMED_SHARE: f64 = 0.99;

/// Why an outcome may not be compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// Operations failed: how many, and the first in words.
    Failed {
        kind: String,
        times: u64,
        first: String,
    },
    NotResumed {
        share: f64,
    },
    /// Something else ran on the server's core.
    Foreign {
        share: f64,
    },
    /// Nothing was done, or nothing is known of what it cost.
    Nothing,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { kind, times, first } => write!(f, "{kind}, {times} times: {first}"),
            Self::NotResumed { share } => {
                write!(f, "only {:.1} % of the handshakes resumed", share * 100.0)
            }
            Self::Foreign { share } => write!(
                f,
                "something else ran on the server's core for {:.1} % of the time",
                share * 100.0
            ),
            Self::Nothing => f.write_str("no operation succeeded, or its cost is unknown"),
        }
    }
}

impl Refusal {
    /// Whether another try may go better: the machine was at fault, not the system.
    pub fn is_noise(&self) -> bool {
        matches!(self, Self::Foreign { .. })
    }
}

/// Everything that is wrong with an outcome; what is wrong with the system comes first.
pub fn judge(outcome: &Outcome) -> Vec<Refusal> {
    let mut refusals: Vec<_> = outcome
        .failures
        .iter()
        .map(|(kind, failed)| Refusal::Failed {
            kind: kind.to_string(),
            times: failed.times,
            first: failed.first.clone(),
        })
        .collect();
    if let (Scenario::Resumed, Some(share)) = (outcome.scenario, outcome.resumed_share())
        && share < RESUMED_SHARE
    {
        refusals.push(Refusal::NotResumed { share });
    }
    if refusals.is_empty() && outcome.cost().is_none() {
        refusals.push(Refusal::Nothing);
    }
    // Memory does not depend on who else runs.
    if let (Some(share), Some(used)) = (outcome.foreign_share(), outcome.used)
        && outcome.scenario != Scenario::Idle
        && share > FOREIGN_SHARE + TICKS_SECONDS / used.wall.as_secs_f64()
    {
        refusals.push(Refusal::Foreign { share });
    }
    refusals
}

/// Of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Nothing of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        };
        Some(Self { min, median, max })
    }

    /// The median, and from where to where.
    pub fn show(self, digits: usize) -> String {
        let Self { min, median, max } = self;
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

/// What `a` costs in terms of `b`, round by round: a machine that is slow for a while is slow for both.
pub fn ratio(a: &[Outcome], b: &[Outcome]) -> Option<Spread> {
    let costs = a.iter().zip(b).filter_map(|(a, b)| a.cost().zip(b.cost()));
    Spread::of(costs.filter(|(_, b)| *b > 0.0).map(|(a, b)| a / b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;
    use crate::metrics::Failed;
    use crate::watch::Used;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn outcome(scenario: Scenario, cpu_micros: u64) -> Outcome {
        Outcome {
            scenario,
            seconds: 1.0,
            operations: 10,
            bytes: 0,
            full: 0,
            resumed: 10,
            latency_micros: [1, 2, 3],
            failures: BTreeMap::new(),
            used: Some(Used {
                wall: Duration::from_secs(1),
                cpu: Duration::from_micros(cpu_micros),
                foreign: Some(Duration::ZERO),
            }),
            resident_bytes: None,
            idle_bytes: None,
        }
    }

    #[test]
    fn a_clean_outcome_may_be_compared() {
        assert_eq!(judge(&outcome(Scenario::Resumed, 1_000)), []);
        assert_eq!(outcome(Scenario::Resumed, 1_000).cost(), Some(100.0));
    }

    #[test]
    fn one_failure_is_enough_to_refuse() {
        let mut failed = outcome(Scenario::Full, 1_000);
        failed.failures.insert(Kind::Content, Failed { times: 1, first: "byte 0".into() });
        assert_eq!(judge(&failed)[0].to_string(), "content, 1 times: byte 0");
        assert!(!judge(&failed)[0].is_noise());
    }

    #[test]
    fn too_few_resumed_handshakes_refuse_only_where_they_are_measured() {
        for (scenario, full, refused) in [
            (Scenario::Resumed, 0, false),
            (Scenario::Resumed, 1, true),
            (Scenario::Full, 10, false),
        ] {
            let mut outcome = outcome(scenario, 1_000);
            outcome.full = full;
            let not_resumed = |r: &Refusal| matches!(r, Refusal::NotResumed { .. });
            assert_eq!(judge(&outcome).iter().any(not_resumed), refused, "{scenario:?} {full}");
        }
    }

    #[test]
    fn another_process_on_the_core_refuses_and_ticks_do_not() {
        for (millis, refused) in [(0, false), (55, false), (70, true)] {
            let mut outcome = outcome(Scenario::Full, 1_000);
            if let Some(used) = &mut outcome.used {
                used.foreign = Some(Duration::from_millis(millis));
            }
            assert_eq!(judge(&outcome).iter().any(Refusal::is_noise), refused, "{millis}");
        }
    }

    #[test]
    fn nothing_done_is_no_figure() {
        let mut nothing = outcome(Scenario::Full, 1_000);
        nothing.operations = 0;
        assert_eq!(judge(&nothing), [Refusal::Nothing]);
    }

    #[test]
    fn ratios_are_taken_within_rounds() {
        let ours = [100, 200, 150].map(|cpu| outcome(Scenario::Full, cpu));
        let theirs = [200, 400, 250].map(|cpu| outcome(Scenario::Full, cpu));
        let spread = ratio(&ours, &theirs).unwrap();
        assert_eq!(spread, Spread { min: 0.5, median: 0.5, max: 0.6 });
        assert_eq!(Spread::of([3.0, 1.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of([]), None);
    }
}
