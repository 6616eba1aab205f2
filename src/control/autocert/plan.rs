//! What to do next for a name: rest, ask for renewal information, order, resume, or wait for a person. Pure.

use std::fmt;
use std::time::Duration;

use crate::clock::Moment;
use crate::store::record::Renewal;

use super::failover::{Choice, Need, Obstacle, Standing, choose, patience, patience_of_young};
use super::mutant::{Mutant, mutant};
use super::renewal::{Basis, Validity, last_resort, not_again_before, renewed_at};

/// No longer pause between two questions for renewal information is ever stored (RFC 9773 §4.3.2).
const RENEWAL_ASKED_AFTER_AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// All that the decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Of the certificate that is served.
    pub validity: Option<Validity>,
    pub renewal: Option<&'a Renewal>,
    /// When renewal information is to be asked for; `None` where the issuer has none.
    pub ask_renewal_at: Option<Moment>,
    /// When it was obtained.
    pub obtained: Option<Moment>,
    pub revoked: bool,
    /// In the operator's order.
    pub issuers: &'a [Standing<'a>],
    /// An operator asked for a renewal now.
    pub asked: Option<Asked>,
    /// Whatever failed before is tried again now.
    pub at_once: bool,
    /// Private keys and order URLs can be stored before they are needed.
    pub storable: bool,
    /// For how long this process has looked after the name.
    pub up_for: Duration,
    /// Spreads names that have no certificate yet.
    pub seed: u64,
}

/// How an operator asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// What is due.
    Renew,
    /// Also if the certificate is not due.
    Force,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Rest {
        until: Moment,
        why: Why,
    },
    AskRenewal {
        why: Why,
    },
    /// `at` which issuer.
    Order {
        at: usize,
        why: Why,
    },
    /// An order that was begun, for the reason that made it.
    Resume {
        at: usize,
        why: Why,
    },
    /// Nothing but a person helps; it is tried again at `until` all the same.
    AskOperator {
        until: Moment,
    },
}

/// The reason of a plan, in words for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    NoCertificate,
    Expired,
    Revoked,
    Asked,
    Window,
    Lifetime,
    LastResort,
    NotDue,
    FailedBefore,
    Budget,
    CannotStore,
    RenewalInformation,
    NotYetValid,
    JustObtained,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "there is no certificate",
            Self::Expired => "the certificate has expired",
            Self::Revoked => "the certificate is revoked",
            Self::Asked => "an operator asked for it",
            Self::Window => "the issuer's renewal window",
            Self::Lifetime => "the last part of the lifetime",
            Self::LastResort => "the last tenth of the lifetime",
            Self::NotDue => "the certificate is not due",
            Self::FailedBefore => "a pause after failures",
            Self::Budget => "more orders would pass a limit of the issuer's",
            Self::CannotStore => "private key and order cannot be stored",
            Self::RenewalInformation => "renewal information is due",
            Self::JustObtained => "it was obtained a moment ago; check this machine's clock",
            Self::NotYetValid => "by this machine's clock the certificate is not valid yet",
        })
    }
}

/// Decides. The answer to the same facts at the same time is the same.
pub fn plan(facts: &Facts<'_>, now: Moment) -> Plan {
    let due = due(facts, now);
    if let Err((until, why)) = due {
        let is_known = facts.renewal.is_some() && mutant(Mutant::WindowAskedOnce);
        return match facts.ask_renewal_at.filter(|_| !is_known) {
            // By a clock that was set back the moment would never come.
            Some(at) if at <= now || at > now.plus(RENEWAL_ASKED_AFTER_AT_MOST) => {
                Plan::AskRenewal { why: Why::RenewalInformation }
            }
            Some(at) => Plan::Rest { until: until.min(at), why },
            None => Plan::Rest { until, why },
        };
    }
    let Ok(Due { why, since, horizon }) = due else { return Plan::AskOperator { until: now } };
    if let (Some(validity), Some(obtained)) = (&facts.validity, facts.obtained) {
        let again = not_again_before(validity, obtained);
        // Where the clock was set back since, the moment says nothing.
        let wanted = matches!(why, Why::Revoked | Why::Asked);
        let is_too_soon = obtained <= now && now < again && !wanted;
        if is_too_soon && !mutant(Mutant::JustObtainedForgotten) {
            return Plan::Rest { until: again, why: Why::JustObtained };
        }
    }
    let lasts = |held: &&Validity| !facts.revoked && now <= held.not_after;
    let need = Need {
        ends: facts.validity.as_ref().filter(lasts).map(|held| held.not_after),
        since,
        horizon,
        lifetime: facts.validity.map(|held| held.not_after.since(held.not_before)),
        at_once: facts.at_once,
        seed: facts.seed,
    };
    let at = match choose(facts.issuers, &need, now) {
        Choice::Ask { at } => at,
        Choice::Wait { until, why: Obstacle::Person } => return Plan::AskOperator { until },
        Choice::Wait { until, why } => {
            let why = if why == Obstacle::Budget { Why::Budget } else { Why::FailedBefore };
            return Plan::Rest { until, why };
        }
    };
    if facts.issuers.get(at).is_some_and(|one| one.begun.is_some()) {
        return Plan::Resume { at, why };
    }
    if let Some(validity) = &facts.validity
        && !facts.storable
        && !facts.revoked
    {
        let until = unstored_from(validity, facts.renewal, now.minus(facts.up_for));
        if now < until {
            return Plan::Rest { until, why: Why::CannotStore };
        }
    }
    Plan::Order { at, why }
}

/// From when on a certificate that is valid is renewed though nothing can be stored. An order whose private key or
/// URL is lost with a crash is an order too many, so the store is waited for, but as for an issuer that is down:
/// who knows for how long the CA issues. A process that has `begun` since may be one of many that die: each would
/// order anew, and soon more than the issuer allows for the same names.
fn unstored_from(validity: &Validity, renewal: Option<&Renewal>, begun: Moment) -> Moment {
    let (due, _) = renewed_at(validity, renewal);
    let (ends, lifetime) = (validity.not_after, validity.not_after.since(validity.not_before));
    let waited = patience(due, ends, Some(lifetime)).min(last_resort(validity));
    waited.max(patience_of_young(begun, ends, Some(lifetime)))
}

/// Why a certificate is due.
struct Due {
    why: Why,
    since: Moment,
    /// By when it is wanted.
    horizon: Option<Moment>,
}

/// Why a new certificate is due now, or until when and why it is not.
fn due(facts: &Facts<'_>, now: Moment) -> Result<Due, (Moment, Why)> {
    let at_once = |why, horizon| Ok(Due { why, since: now, horizon });
    let Some(validity) = &facts.validity else { return at_once(Why::NoCertificate, None) };
    let by_end = Some(validity.not_after);
    if facts.revoked {
        return at_once(Why::Revoked, None);
    }
    if now > validity.not_after {
        return at_once(Why::Expired, None);
    }
    if facts.asked == Some(Asked::Force) {
        return at_once(Why::Asked, by_end);
    }
    let (at, basis) = renewed_at(validity, facts.renewal);
    if now < at {
        let why = if now < validity.not_before { Why::NotYetValid } else { Why::NotDue };
        return Err((at, why));
    }
    let (why, horizon) = match basis {
        Basis::Lifetime => (Why::Lifetime, by_end),
        Basis::LastResort => (Why::LastResort, by_end),
        // While the window lasts the order is exempt from limits: retries belong into it.
        Basis::Window => {
            let end = facts.renewal.map(|renewal| renewal.end).filter(|end| *end > now);
            (Why::Window, end.or(by_end))
        }
    };
    Ok(Due { why, since: at, horizon })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{Attempts, Class, Failure};
    use proptest::prelude::*;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn validity(begun_days_ago: u32, days: u32) -> Validity {
        let not_before = NOW.minus(begun_days_ago * DAY);
        Validity { not_before, not_after: not_before.plus(days * DAY), seed: 5 }
    }

    fn renewal(from: i64, to: i64) -> Renewal {
        let at = |hours: i64| Moment::from_unix_seconds(NOW.unix_seconds() + hours * 3600);
        Renewal {
            id: "a.b".into(),
            start: at(from),
            end: at(to),
            selected: at(from),
            explanation: None,
        }
    }

    fn failed(class: Class, failures: u32, ago: Duration) -> Attempts {
        let (what, settings) = (String::new(), String::new());
        let (at, remedy) = (NOW.minus(ago), None);
        let last = Failure { at, class, what, remedy, not_before: None, settings };
        Attempts { failures, last: Some(last), ..Attempts::default() }
    }

    fn alone(attempts: &Attempts) -> [Standing<'_>; 1] {
        [Standing { attempts, begun: None, not_before: None, is_possible: true }]
    }

    fn facts<'a>(validity: Option<Validity>, issuers: &'a [Standing<'a>]) -> Facts<'a> {
        Facts {
            validity,
            renewal: None,
            ask_renewal_at: None,
            obtained: None,
            revoked: false,
            issuers,
            asked: None,
            at_once: false,
            storable: true,
            up_for: DAY,
            seed: 9,
        }
    }

    #[test]
    fn each_situation_has_its_plan_and_reason() {
        let none = Attempts::default();
        let unreachable = failed(Class::Unreachable, 3, Duration::from_secs(10));
        let operator = failed(Class::Operator, 1, Duration::from_secs(10));
        let (none, unreachable, operator) = (alone(&none), alone(&unreachable), alone(&operator));
        let begun = [Standing { begun: Some(NOW), ..none[0] }];
        let (fresh, old) = (Some(validity(1, 90)), Some(validity(70, 90)));
        let (in_window, before_window) = (renewal(-1, 40), renewal(20, 40));
        let long_in_window = renewal(-2, 40);
        let base = facts(fresh, &none);
        let of_days = facts(Some(validity(1, 6)), &none);
        let minute = Duration::from_secs(60);
        let ending = Validity { not_after: NOW.plus(minute * 59), ..validity(85, 90) };
        let young = Facts { storable: false, up_for: minute, ..base };
        let cases: [(&str, Facts<'_>, Plan); 20] = [
            ("new", facts(None, &none), Plan::Order { at: 0, why: Why::NoCertificate }),
            ("old", facts(old, &none), Plan::Order { at: 0, why: Why::Lifetime }),
            (
                "over",
                facts(Some(validity(91, 90)), &none),
                Plan::Order { at: 0, why: Why::Expired },
            ),
            ("revoked", Facts { revoked: true, ..base }, Plan::Order { at: 0, why: Why::Revoked }),
            ("begun", facts(None, &begun), Plan::Resume { at: 0, why: Why::NoCertificate }),
            (
                "forced",
                Facts { asked: Some(Asked::Force), ..base },
                Plan::Order { at: 0, why: Why::Asked },
            ),
            (
                "in the window",
                Facts { renewal: Some(&in_window), ..base },
                Plan::Order { at: 0, why: Why::Window },
            ),
            (
                "before the window, old or not",
                Facts { renewal: Some(&before_window), ..facts(old, &none) },
                Plan::Rest { until: before_window.selected, why: Why::NotDue },
            ),
            (
                "ask the issuer",
                Facts { ask_renewal_at: Some(NOW), ..base },
                Plan::AskRenewal { why: Why::RenewalInformation },
            ),
            (
                "ask the issuer later",
                Facts { ask_renewal_at: Some(NOW.plus(DAY)), ..base },
                Plan::Rest { until: NOW.plus(DAY), why: Why::NotDue },
            ),
            (
                "failed and asked for",
                Facts { asked: Some(Asked::Renew), at_once: true, ..facts(None, &unreachable) },
                Plan::Order { at: 0, why: Why::NoCertificate },
            ),
            (
                "cannot store",
                Facts { storable: false, renewal: Some(&in_window), ..base },
                Plan::Rest {
                    until: in_window.selected.plus(Duration::from_secs(20 * 3600)),
                    why: Why::CannotStore,
                },
            ),
            (
                "cannot store and waited for a day",
                Facts { storable: false, ..facts(old, &none) },
                Plan::Order { at: 0, why: Why::Lifetime },
            ),
            (
                "cannot store, and certificates live for days",
                Facts { storable: false, renewal: Some(&in_window), ..of_days },
                Plan::Rest {
                    until: in_window.selected.plus(Duration::from_secs(75 * 60)),
                    why: Why::CannotStore,
                },
            ),
            (
                "cannot store and waited for hours",
                Facts { storable: false, renewal: Some(&long_in_window), ..of_days },
                Plan::Order { at: 0, why: Why::Window },
            ),
            (
                "cannot store and has just begun",
                Facts { renewal: Some(&long_in_window), ..young },
                Plan::Rest {
                    until: NOW.minus(minute).plus(Duration::from_secs(20 * 3600)),
                    why: Why::CannotStore,
                },
            ),
            (
                "cannot store and has just begun, and certificates live for days",
                Facts { renewal: Some(&long_in_window), validity: of_days.validity, ..young },
                Plan::Rest { until: NOW.plus(minute * 109), why: Why::CannotStore },
            ),
            (
                "cannot store and has just begun, and little is left",
                Facts { validity: Some(ending), ..young },
                Plan::Rest { until: NOW.plus(minute * 14), why: Why::CannotStore },
            ),
            (
                "cannot store and is revoked",
                Facts { storable: false, revoked: true, ..base },
                Plan::Order { at: 0, why: Why::Revoked },
            ),
            (
                "not asked again though not due",
                Facts { asked: Some(Asked::Renew), ..base },
                Plan::Rest { until: renewed_at(&validity(1, 90), None).0, why: Why::NotDue },
            ),
        ];
        for (what, facts, expected) in cases {
            assert_eq!(plan(&facts, NOW), expected, "{what}");
        }
        let Plan::Rest { until, why: Why::FailedBefore } = plan(&facts(None, &unreachable), NOW)
        else {
            panic!()
        };
        assert!(until > NOW);
        assert!(matches!(plan(&facts(None, &operator), NOW), Plan::AskOperator { .. }));
    }

    #[test]
    fn what_is_due_the_moment_it_is_there_is_not_ordered_over_and_over() {
        let none = Attempts::default();
        let none = alone(&none);
        let past = renewal(-48, -24);
        let incident = Facts { renewal: Some(&past), ..facts(Some(validity(1, 90)), &none) };
        let just = Facts { obtained: Some(NOW.minus(DAY / 24)), ..incident };
        let again = NOW.minus(DAY / 24).plus(DAY * 3 / 2);
        assert_eq!(plan(&just, NOW), Plan::Rest { until: again, why: Why::JustObtained });
        assert_eq!(plan(&just, again), Plan::Order { at: 0, why: Why::Window });
        // By a clock that is a year ahead everything has expired.
        let ahead =
            Facts { obtained: Some(NOW.plus(364 * DAY)), ..facts(Some(validity(1, 90)), &none) };
        assert!(matches!(
            plan(&ahead, NOW.plus(364 * DAY)),
            Plan::Rest { why: Why::JustObtained, .. }
        ));
        assert!(matches!(
            plan(&ahead, NOW.plus(100 * DAY)),
            Plan::Order { at: 0, why: Why::Expired }
        ));
        let revoked = Facts { revoked: true, ..just };
        assert_eq!(plan(&revoked, NOW), Plan::Order { at: 0, why: Why::Revoked });
    }

    #[test]
    fn a_clock_that_jumps_by_days_breaks_nothing() {
        let none = Attempts::default();
        let none = alone(&none);
        let fresh = facts(Some(validity(1, 90)), &none);
        let early = plan(&fresh, NOW.minus(5 * DAY));
        assert!(matches!(early, Plan::Rest { why: Why::NotYetValid, .. }), "{early:?}");
        assert_eq!(plan(&fresh, NOW.plus(300 * DAY)), Plan::Order { at: 0, why: Why::Expired });
        // What lies in the future of a clock that was set back is no pause.
        let ahead = failed(Class::Unreachable, 1, Duration::ZERO);
        let ahead = alone(&ahead);
        let ordered = Plan::Order { at: 0, why: Why::NoCertificate };
        assert_eq!(plan(&facts(None, &ahead), NOW.minus(9 * DAY)), ordered);
        let asked = Facts { ask_renewal_at: Some(NOW.plus(2 * DAY)), ..fresh };
        assert_eq!(plan(&asked, NOW), Plan::AskRenewal { why: Why::RenewalInformation });
    }

    proptest! {
        #[test]
        fn a_rest_ends_in_the_future_and_every_plan_is_stable(
            begun in 0u32..200, days in 1u32..200, failures in 0u32..20, ago in 0u64..1_000_000,
            class in 0usize..4, revoked in any::<bool>(), open in any::<bool>(), storable in any::<bool>(),
            has in any::<bool>(), ask in proptest::option::of(-100_000i64..100_000), seed in any::<u64>(),
            window in proptest::option::of((-1000i64..1000, -1000i64..1000)),
        ) {
            let class = [Class::Unreachable, Class::Validation, Class::Limited, Class::Operator][class];
            let attempts = failed(class, failures, Duration::from_secs(ago));
            let window = window.map(|(from, to)| renewal(from, to));
            let issuers = [Standing { begun: open.then_some(NOW), ..alone(&attempts)[0] }];
            let facts = Facts {
                validity: has.then(|| validity(begun, days)),
                renewal: window.as_ref(),
                ask_renewal_at: ask.map(|seconds| Moment::from_unix_seconds(NOW.unix_seconds() + seconds)),
                obtained: None, revoked, issuers: &issuers, asked: None, at_once: false, storable, up_for: DAY, seed,
            };
            let decided = plan(&facts, NOW);
            if let Plan::Rest { until, .. } | Plan::AskOperator { until } = decided {
                prop_assert!(until > NOW);
                // Nothing but more time is needed to get on.
                prop_assert_ne!(plan(&facts, until), decided);
            }
            prop_assert_eq!(plan(&facts, NOW), decided);
            if let Plan::Order { .. } | Plan::Resume { .. } = decided {
                prop_assert!(facts.validity.is_none_or(|held| revoked || NOW >= renewed_at(&held, facts.renewal).0));
            }
        }
    }
}
