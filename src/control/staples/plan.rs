//! When a staple is fetched, refreshed and dropped, and when a list is looked into again. Pure.

use std::fmt;
use std::time::Duration;

use crate::clock::Moment;
use crate::store::record::{Attempts, Class, Failure};

use super::super::autocert::backoff;
use super::super::autocert::mutant::{Mutant, mutant};
use super::response::Good;

/// Responses of the same minute are refreshed over this part of their life, after its half.
const SPREAD: f64 = 0.1;
/// So much of its life before it expires a staple is served no more, for clients whose clocks are ahead ...
const DROPPED_BEFORE: u32 = 20;
/// ... at most this: few clocks are further off.
const DROPPED_BEFORE_AT_MOST: Duration = Duration::from_secs(3600);
/// A responder that answers with what is past its half already is asked again after a part of what is left ...
const PART_OF_REST: u32 = 4;
/// ... and no sooner than after this part of the whole life, at most a minute.
const APART: u32 = 20;
const APART_AT_MOST: Duration = Duration::from_secs(60);
/// Where what was fetched expires right away, another is not fetched sooner than this part of its life after it ...
const EXPIRED_APART: u32 = 8;
/// ... at most this: nor would the responder's next one last.
const EXPIRED_APART_AT_MOST: Duration = Duration::from_secs(20 * 60);
/// A responder whose answer must come is not believed that it wants to be left alone for longer than this.
const NOT_BEFORE_AT_MOST: Duration = Duration::from_secs(3600);
/// What has this lifetime is tried again often, whatever failed.
const BRIEF: Duration = Duration::ZERO;
/// How often an issuer's list is looked into ...
const LIST_EVERY: Duration = Duration::from_secs(24 * 3600);
/// ... up to so much sooner, so that lists of one moment part ways ...
const LIST_SPREAD: f64 = 0.1;
/// ... and where the next list comes sooner, then; but no more often than this.
const LIST_APART: Duration = Duration::from_secs(60);
/// What has expired and still says something is fetched anew no more often than this: its publisher is late.
const LIST_LATE: Duration = Duration::from_secs(3600);

/// All that the decision about one staple is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The one that is stapled.
    pub staple: Option<Good>,
    /// When it was fetched; `None` for one that was found.
    pub fetched: Option<Moment>,
    /// What was fetched before has expired, and its responder is left alone until then.
    pub not_before: Option<Moment>,
    /// A responder is named, and what it says can be checked.
    pub can_ask: bool,
    /// It is worth little without a staple, and may have one.
    pub must_staple: bool,
    pub attempts: &'a Attempts,
    /// Tells certificates from each other.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    Rest {
        until: Moment,
        why: Why,
    },
    Ask {
        why: Why,
    },
    /// It is served no more.
    Drop,
}

/// The reason of a plan, in words for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    NoStaple,
    HalfOfLife,
    NotDue,
    FailedBefore,
    ExpiredAtOnce,
    NobodyToAsk,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoStaple => "there is no staple",
            Self::HalfOfLife => "half of the staple's life is over",
            Self::NotDue => "the staple is not due",
            Self::FailedBefore => "a pause after failures",
            Self::ExpiredAtOnce => "a pause, for the responder's last answer expired right away",
            Self::NobodyToAsk => "there is nobody to ask",
        })
    }
}

/// Decides. The answer to the same facts at the same time is the same.
pub fn plan(facts: &Facts<'_>, now: Moment) -> Plan {
    let ends = facts.staple.map(|staple| dropped_at(&staple));
    let ends = ends.filter(|_| !mutant(Mutant::StapleKeptPastEnd));
    if ends.is_some_and(|ends| ends <= now) {
        return Plan::Drop;
    }
    let rest =
        |until: Moment, why| Plan::Rest { until: ends.map_or(until, |ends| until.min(ends)), why };
    if !facts.can_ask {
        return rest(FAR, Why::NobodyToAsk);
    }
    let why = match &facts.staple {
        None => {
            // By a clock that was set back it may be far ahead.
            let latest = now.plus(EXPIRED_APART_AT_MOST);
            if let Some(until) = facts.not_before.filter(|at| now < *at && *at <= latest) {
                return rest(until, Why::ExpiredAtOnce);
            }
            Why::NoStaple
        }
        Some(staple) => {
            // By a clock that was set back it is yet to be fetched.
            let fetched = facts.fetched.filter(|fetched| *fetched <= now);
            let at = refreshed_at(staple, fetched, facts.seed);
            if now < at {
                return rest(at, Why::NotDue);
            }
            Why::HalfOfLife
        }
    };
    let retry = retried_at(facts, ends, now);
    if retry > now {
        return rest(retry, Why::FailedBefore);
    }
    Plan::Ask { why }
}

/// When a responder is asked again that had nothing good to say. Where a staple will end, or must come, every
/// refusal may be over in a minute as an outage may: it is asked again within the hour, or a little later if
/// it asked for that, and in time for what it says to be of use.
fn retried_at(facts: &Facts<'_>, ends: Option<Moment>, now: Moment) -> Moment {
    let is_wanted = facts.staple.is_some() || facts.must_staple;
    let Some(last) = facts.attempts.last.as_ref().filter(|_| is_wanted) else {
        return backoff::due(facts.attempts, ends, None, facts.seed, now);
    };
    if mutant(Mutant::StapleBackoffForgotten) {
        return last.at.plus(APART_AT_MOST);
    }
    let longest = ends.map_or(NOT_BEFORE_AT_MOST, |ends| ends.since(last.at) / PART_OF_REST);
    let latest = last.at.plus(longest.max(APART_AT_MOST));
    let not_before = last.not_before.map(|asked| asked.min(latest));
    let last = Failure { class: Class::Unreachable, not_before, ..last.clone() };
    let attempts = Attempts { last: Some(last), ..facts.attempts.clone() };
    backoff::due(&attempts, ends, Some(BRIEF), facts.seed, now)
}

/// There is nothing to wait for.
const FAR: Moment = Moment::from_unix_seconds(i64::MAX);

/// What is known before somebody is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub standing: Option<Good>,
    /// As of when the issuer has said that the certificate is revoked.
    pub revoked: Option<Moment>,
}

/// What to do with a response that says that the certificate is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    Staple,
    /// What stands lasts as long.
    KeepStanding,
    Refuse(String),
}

impl Known {
    /// Weighs a good response. A cache, or whoever sits between, may answer with one of days ago.
    pub fn weigh(&self, good: &Good, now: Moment) -> Use {
        match self {
            Self { revoked: Some(revoked), .. } if good.this_update <= *revoked => {
                Use::Refuse(format!(
                    "it is from {}, and since then the issuer has said that the certificate is REVOKED",
                    good.this_update
                ))
            }
            _ if dropped_at(good) <= now => {
                Use::Refuse(format!("it expires already, on {}", good.until))
            }
            Self { standing: Some(standing), .. } if good.until <= standing.until => {
                Use::KeepStanding
            }
            _ => Use::Staple,
        }
    }

    /// Whether nobody need be asked further when a cache or another node has this one.
    pub fn is_enough(&self, good: &Good, seed: u64, now: Moment) -> bool {
        self.weigh(good, now) == Use::Staple && refreshed_at(good, None, seed) > now
    }
}

/// When a staple is refreshed: after half of its life, a little later for some than for others.
pub fn refreshed_at(staple: &Good, fetched: Option<Moment>, seed: u64) -> Moment {
    let life = staple.until.since(staple.this_update);
    let turn = staple.this_update.unix_seconds().unsigned_abs();
    let part = match () {
        () if mutant(Mutant::StaplesInStep) => 0.5,
        () if mutant(Mutant::StapleRefreshedLate) => 0.97,
        () => 0.5 + SPREAD * backoff::fraction(seed, turn),
    };
    let usual = staple.this_update.plus(life.mul_f64(part));
    let apart = (life / APART).min(APART_AT_MOST);
    match fetched {
        Some(fetched) if usual < fetched.plus(apart) => {
            let rest = staple.until.since(fetched) / PART_OF_REST;
            usual.max(fetched.plus(rest.max(apart)))
        }
        _ => usual,
    }
}

/// When a staple is served no more though nothing took its place.
pub fn dropped_at(staple: &Good) -> Moment {
    let life = staple.until.since(staple.this_update);
    staple
        .until
        .minus((life / DROPPED_BEFORE).min(DROPPED_BEFORE_AT_MOST).max(Duration::from_secs(1)))
}

/// When a responder is asked again whose response expired that was fetched then: soon, but not once a second where
/// all of its responses expire a second later.
pub fn asked_again_at(expired: &Good, fetched: Moment) -> Moment {
    let life = expired.until.since(expired.this_update);
    fetched.plus((life / EXPIRED_APART).min(EXPIRED_APART_AT_MOST))
}

/// When a list that said this is looked into again.
pub fn list_again_at(next_update: Option<Moment>, seed: u64, now: Moment) -> Moment {
    let turn = now.unix_seconds().unsigned_abs();
    let daily = now.plus(LIST_EVERY.mul_f64(1.0 - LIST_SPREAD * backoff::fraction(seed, turn)));
    let next = next_update.map_or(daily, |next| match next <= now {
        true => now.plus(LIST_LATE),
        false => next.max(now.plus(LIST_APART)),
    });
    daily.min(next)
}

/// When a list is looked into that was to be at `due`, by a clock that was set back since: one that lies
/// further ahead than the usual pause, at once.
pub fn list_due_at_last(due: Moment, now: Moment) -> Moment {
    if due > now.plus(LIST_EVERY) { now } else { due }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn staple(begun: Duration, life: Duration) -> Good {
        let this_update = NOW.minus(begun);
        Good { this_update, until: this_update.plus(life) }
    }

    fn failed(ago: Duration) -> Attempts {
        let (at, what, settings) = (NOW.minus(ago), String::new(), String::new());
        let class = Class::Unreachable;
        let last = Failure { at, class, what, remedy: None, not_before: None, settings };
        Attempts { failures: 6, last: Some(last), ..Attempts::default() }
    }

    #[test]
    fn each_situation_has_its_plan_and_reason() {
        let (none, failed) = (Attempts::default(), failed(HOUR / 60));
        let base = Facts {
            staple: None,
            fetched: None,
            not_before: None,
            can_ask: true,
            must_staple: false,
            attempts: &none,
            seed: 7,
        };
        let with = |begun, life| Facts { staple: Some(staple(begun, life)), ..base };
        let day = 24 * HOUR;
        let pause =
            |from| Facts { not_before: Some(asked_again_at(&staple(day, day), from)), ..base };
        let cases: [(&str, Facts<'_>, Option<Plan>, Option<Why>); 10] = [
            ("new", base, Some(Plan::Ask { why: Why::NoStaple }), None),
            ("expired at once", pause(NOW.minus(HOUR / 4)), None, Some(Why::ExpiredAtOnce)),
            (
                "expired a while ago",
                pause(NOW.minus(HOUR / 3)),
                Some(Plan::Ask { why: Why::NoStaple }),
                None,
            ),
            (
                "expired by a wrong clock",
                pause(NOW.plus(day)),
                Some(Plan::Ask { why: Why::NoStaple }),
                None,
            ),
            ("failed", Facts { attempts: &failed, ..base }, None, Some(Why::FailedBefore)),
            ("fresh", with(HOUR, 7 * day), None, Some(Why::NotDue)),
            ("old", with(5 * day, 7 * day), Some(Plan::Ask { why: Why::HalfOfLife }), None),
            ("over", with(7 * day - HOUR, 7 * day), Some(Plan::Drop), None),
            ("nobody", Facts { can_ask: false, ..base }, None, Some(Why::NobodyToAsk)),
            (
                "outage",
                Facts { attempts: &failed, ..with(5 * day, 7 * day) },
                None,
                Some(Why::FailedBefore),
            ),
        ];
        for (what, facts, plan_expected, why_expected) in cases {
            let planned = plan(&facts, NOW);
            if let Some(expected) = plan_expected {
                assert_eq!(planned, expected, "{what}");
            }
            if let Some(expected) = why_expected {
                assert!(
                    matches!(planned, Plan::Rest { why, until } if why == expected && until > NOW),
                    "{what}: {planned:?}"
                );
            }
        }
    }

    #[test]
    fn staples_of_one_moment_are_refreshed_over_a_tenth_of_their_life() {
        let staple = staple(Duration::ZERO, 100 * HOUR);
        let mut found: Vec<_> =
            (0..100).map(|seed| refreshed_at(&staple, None, seed).since(NOW)).collect();
        found.sort_unstable();
        assert!(found[0] >= 50 * HOUR && found[99] <= 60 * HOUR);
        assert!(found[99] - found[0] > 8 * HOUR);
    }

    #[test]
    fn a_responder_that_answers_with_old_responses_is_not_asked_all_the_time() {
        let mut asked = 0;
        let old = staple(90 * HOUR, 100 * HOUR);
        let mut now = NOW;
        let mut fetched = None;
        while now < dropped_at(&old) {
            if refreshed_at(&old, fetched, 3) <= now {
                fetched = Some(now);
                asked += 1;
            }
            now = now.plus(Duration::from_secs(30));
        }
        assert!((3..40).contains(&asked), "{asked}");
    }

    #[test]
    fn what_was_fetched_by_a_clock_that_was_ahead_is_refreshed_after_half_of_its_life() {
        let day = 24 * HOUR;
        let staple = staple(Duration::ZERO, 7 * day);
        let none = Attempts::default();
        let fetched = Some(NOW.plus(6 * day));
        let facts = Facts {
            staple: Some(staple),
            fetched,
            not_before: None,
            can_ask: true,
            must_staple: false,
            attempts: &none,
            seed: 7,
        };
        let usual = refreshed_at(&staple, None, 7);
        assert!(refreshed_at(&staple, fetched, 7) > usual.plus(2 * day));
        assert_eq!(plan(&facts, NOW), Plan::Rest { until: usual, why: Why::NotDue });
    }

    #[test]
    fn a_responder_that_refuses_or_asks_for_patience_is_asked_again_while_it_is_of_use() {
        let day = 24 * HOUR;
        let standing = staple(4 * day, 7 * day);
        let left = dropped_at(&standing).since(NOW);
        let week = Some(NOW.plus(7 * day));
        let until = |staple, must_staple, class, not_before| {
            let (what, settings) = (String::new(), String::new());
            let last = Failure { at: NOW, class, what, remedy: None, not_before, settings };
            let attempts = Attempts { failures: 9, last: Some(last), ..Attempts::default() };
            let facts = Facts {
                staple,
                fetched: None,
                not_before: None,
                can_ask: true,
                must_staple,
                attempts: &attempts,
                seed: 7,
            };
            match plan(&facts, NOW.plus(Duration::from_secs(1))) {
                Plan::Rest { until, why: Why::FailedBefore } => until.since(NOW),
                other => unreachable!("{other:?}"),
            }
        };
        for class in [Class::Operator, Class::Unreachable] {
            let pause = until(Some(standing), false, class, None);
            assert!(pause <= 5 * HOUR / 4, "{class:?} {pause:?}");
            assert_eq!(until(Some(standing), false, class, week), left / PART_OF_REST);
            assert!(until(None, true, class, week) <= 5 * HOUR / 4);
            // With nothing to lose there is time.
            assert_eq!(until(None, false, class, week), 7 * day);
        }
        assert!(until(None, false, Class::Operator, None) > 12 * HOUR);
    }

    #[test]
    fn an_older_response_takes_no_newer_ones_place() {
        let (old, new) = (staple(4 * HOUR, 9 * HOUR), staple(2 * HOUR, 9 * HOUR));
        let over = staple(9 * HOUR, 9 * HOUR);
        let stands = |good| Known { standing: Some(good), revoked: None };
        let revoked = |ago| Known { standing: None, revoked: Some(NOW.minus(ago)) };
        let (nothing, refuse) = (Known::default(), Use::Refuse(String::new()));
        for (known, good, expected, is_enough) in [
            (nothing, new, Use::Staple, true),
            (nothing, over, refuse.clone(), false),
            (stands(old), new, Use::Staple, true),
            (stands(new), old, Use::KeepStanding, false),
            (stands(new), new, Use::KeepStanding, false),
            (revoked(3 * HOUR), old, refuse.clone(), false),
            (revoked(2 * HOUR), new, refuse, false),
            (revoked(3 * HOUR), new, Use::Staple, true),
            (nothing, staple(6 * HOUR, 9 * HOUR), Use::Staple, false),
        ] {
            let found = known.weigh(&good, NOW);
            let is_same = std::mem::discriminant(&found) == std::mem::discriminant(&expected);
            assert!(is_same, "{known:?} {good:?} {found:?}");
            assert_eq!(known.is_enough(&good, 7, NOW), is_enough, "{known:?} {good:?}");
        }
    }

    #[test]
    fn no_list_waits_until_a_wrong_time_comes_again() {
        for (ahead, expected) in [(0, 0), (23, 23), (24, 24), (25, 0), (24 * 365, 0)] {
            let due = list_due_at_last(NOW.plus(ahead * HOUR), NOW);
            assert_eq!(due.since(NOW), expected * HOUR, "{ahead}");
        }
    }

    proptest! {
        #[test]
        fn a_staple_is_refreshed_before_it_is_dropped_and_dropped_before_it_expires(
            begun in 0u64..10_000_000, life in 2u64..10_000_000, seed in any::<u64>(),
        ) {
            let staple = staple(Duration::from_secs(begun), Duration::from_secs(life));
            prop_assert!(dropped_at(&staple) < staple.until);
            prop_assert!(refreshed_at(&staple, None, seed) <= dropped_at(&staple));
        }

        #[test]
        fn a_plan_to_rest_ends_in_the_future(
            begun in 0u64..10_000_000, life in 2u64..10_000_000, seed in any::<u64>(),
            ago in 0u64..10_000_000, has_failed in any::<bool>(), can_ask in any::<bool>(),
            must_staple in any::<bool>(),
        ) {
            let attempts = if has_failed { failed(Duration::from_secs(ago)) } else { Attempts::default() };
            let staple = Some(staple(Duration::from_secs(begun), Duration::from_secs(life)));
            let facts = Facts {
                staple, fetched: None, not_before: None, can_ask, must_staple, attempts: &attempts, seed,
            };
            if let Plan::Rest { until, .. } = plan(&facts, NOW) {
                prop_assert!(until > NOW);
            }
        }

        #[test]
        fn a_list_is_looked_into_once_a_day_or_when_the_next_one_comes(
            next in proptest::option::of(-10_000i64..10_000_000), seed in any::<u64>(),
        ) {
            let next = next.map(|seconds| Moment::from_unix_seconds(NOW.unix_seconds() + seconds));
            let again = list_again_at(next, seed, NOW);
            prop_assert!(again >= NOW.plus(LIST_APART) && again <= NOW.plus(LIST_EVERY));
            prop_assert!(next.is_none_or(|next| next > NOW) || again == NOW.plus(LIST_LATE));
        }
    }
}
