//! Which issuer is asked for a name: the first that neither stays down nor refuses for good. Pure.
//!
//! Whoever was given up is asked first again whenever a certificate is next due and its back-off is over, so
//! names go back to it without an order more than they need.

use std::cmp::Reverse;
use std::time::Duration;

use crate::clock::Moment;
use crate::store::record::{Attempts, Class};

use super::backoff;

/// Where nothing else is at stake than time, an issuer that cannot be asked has three tries (at once, after
/// 5 and after about 20 seconds) before the next one is asked: a restart of a private CA takes less.
const DOWN_FOR: Duration = Duration::from_secs(25);
/// While a certificate is in force an issuer is waited for during this part of the time that was left when
/// the renewal became due: three quarters remain for the next issuer, and for what a person has to mend.
const WAITED_PART: u32 = 4;
/// And for no longer than this, so that every issuer is asked within a day, or within two hours where
/// certificates live for days: who knows for how long the next one can be reached. Without proof of control it is
/// always waited for as long: a name that one CA cannot see is seldom seen by another, and each try counts against
/// that one's limits too. But a firewall may keep out one CA alone.
const WAITED_AT_MOST: Duration = Duration::from_secs(20 * 3600);
/// A process that lives for less is one of many that die, where certificates live for days. Shorter than the two hours
/// within which the next issuer is asked, by the time that an order takes.
const YOUNG_FOR: Duration = Duration::from_secs(110 * 60);
/// If nobody issues for a name it is thought over again after this; the configuration says who could.
const NOBODY: Duration = Duration::from_secs(3600);

/// How one issuer stands to a name.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    pub attempts: &'a Attempts,
    /// When an order was begun here that is not finished.
    pub begun: Option<Moment>,
    /// By what we know of its limits, before when no order is placed here.
    pub not_before: Option<Moment>,
    /// Whether it issues for names of this kind at all.
    pub is_possible: bool,
}

/// What a certificate is needed for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Until when what is served will do; `None`: nothing does.
    pub ends: Option<Moment>,
    /// Since when a certificate is due.
    pub since: Moment,
    /// By when it is wanted, and how long what is served lives: for back-off.
    pub horizon: Option<Moment>,
    pub lifetime: Option<Duration>,
    /// An operator asked: whatever failed before is tried again.
    pub at_once: bool,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Ask { at: usize },
    Wait { until: Moment, why: Obstacle },
}

/// Why nobody is asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// A pause after failures.
    Failed,
    /// Every issuer refuses until a person does something.
    Person,
    /// A limit of the issuer's would be passed.
    Budget,
}

/// Chooses among the issuers, which are in the operator's order.
pub fn choose(standings: &[Standing<'_>], need: &Need, now: Moment) -> Choice {
    let mut order: Vec<_> =
        standings.iter().enumerate().filter(|(_, one)| one.is_possible).collect();
    // An order that was begun goes on before another is placed elsewhere: one certificate is enough.
    order.sort_by_key(|(_, one)| Reverse(one.begun));
    let mut soonest: Option<(Moment, Obstacle)> = None;
    let mut only_persons = true;
    for (nth, (at, one)) in order.iter().enumerate() {
        let (retry, why) = retry(one, need, now);
        if need.at_once || retry <= now {
            return Choice::Ask { at: *at };
        }
        only_persons &= why == Obstacle::Person;
        if soonest.is_none_or(|(before, _)| retry < before) {
            soonest = Some((retry, why));
        }
        let given_up = given_up(one, need, retry, now);
        if given_up > now && nth + 1 < order.len() {
            only_persons = false;
            soonest = soonest.map(|(before, why)| (before.min(given_up), why));
            break;
        }
    }
    match soonest {
        Some((until, Obstacle::Person)) if !only_persons => {
            Choice::Wait { until, why: Obstacle::Failed }
        }
        Some((until, why)) => Choice::Wait { until, why },
        None => Choice::Wait { until: now.plus(NOBODY), why: Obstacle::Person },
    }
}

/// When this issuer may be asked (again), and what it is that keeps us.
fn retry(one: &Standing<'_>, need: &Need, now: Moment) -> (Moment, Obstacle) {
    let failed = backoff::due(one.attempts, need.horizon, need.lifetime, need.seed, now);
    let budget = one.not_before.unwrap_or(now);
    if budget > failed {
        return (budget, Obstacle::Budget);
    }
    match one.attempts.last.as_ref().map(|last| last.class) {
        Some(Class::Operator) => (failed, Obstacle::Person),
        _ => (failed, Obstacle::Failed),
    }
}

/// Until when a renewal that became due at `since` waits for what cannot be had now, where the certificate is in
/// force until `ends`.
pub fn patience(since: Moment, ends: Moment, lifetime: Option<Duration>) -> Moment {
    waited(since, ends, waited_at_most(lifetime))
}

/// Likewise of a process that has only begun to look after it: no process of so short a life does what it could not
/// remember.
pub fn patience_of_young(begun: Moment, ends: Moment, lifetime: Option<Duration>) -> Moment {
    waited(begun, ends, at_most(lifetime, YOUNG_FOR))
}

fn waited(since: Moment, ends: Moment, at_most: Duration) -> Moment {
    since.plus((ends.since(since) / WAITED_PART).min(at_most))
}

fn waited_at_most(lifetime: Option<Duration>) -> Duration {
    at_most(lifetime, backoff::LONGEST_OF_SHORT)
}

/// `of_short`: where certificates live for days.
fn at_most(lifetime: Option<Duration>, of_short: Duration) -> Duration {
    match lifetime {
        Some(lifetime) if lifetime < backoff::SHORT => of_short,
        _ => WAITED_AT_MOST,
    }
}

/// From when on the issuer is not waited for any more.
fn given_up(one: &Standing<'_>, need: &Need, retry: Moment, now: Moment) -> Moment {
    let last = one.attempts.last.as_ref();
    let since = one.attempts.since.or(last.map(|last| last.at)).unwrap_or(now);
    // By a clock that was set back the failures are yet to come.
    if since > now {
        return now;
    }
    let patience = need.ends.map_or(since, |ends| patience(need.since, ends, need.lifetime));
    let waited = patience.max(since.plus(DOWN_FOR));
    match last.map(|last| last.class) {
        Some(Class::Operator) => now,
        Some(Class::Validation) => waited.max(since.plus(waited_at_most(need.lifetime))),
        Some(Class::Unreachable) => waited,
        // It says itself that waiting is no use.
        Some(Class::Limited) | None if retry > waited => now,
        Some(Class::Limited) | None => waited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::Failure;
    use proptest::prelude::*;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    static NONE: Attempts = Attempts { failures: 0, validations: 0, last: None, since: None };

    fn failing(class: Class, for_so_long: Duration, not_before: Option<Moment>) -> Attempts {
        let (what, settings) = (String::new(), String::new());
        let last = Failure { at: NOW, class, what, remedy: None, not_before, settings };
        let since = Some(NOW.minus(for_so_long));
        Attempts { failures: 3, validations: 0, last: Some(last), since }
    }

    fn standing(attempts: &Attempts) -> Standing<'_> {
        Standing { attempts, begun: None, not_before: None, is_possible: true }
    }

    /// A renewal that became due so long ago, of a certificate with 30 days left then.
    fn renewal(due_for: Duration) -> Need {
        let since = NOW.minus(due_for);
        let (ends, lifetime) = (Some(since.plus(30 * DAY)), Some(90 * DAY));
        Need { ends, since, horizon: ends, lifetime, at_once: false, seed: 7 }
    }

    fn of_days(due_for: Duration) -> Need {
        let since = NOW.minus(due_for);
        let (ends, lifetime) = (Some(since.plus(3 * DAY)), Some(6 * DAY));
        Need { ends, lifetime, horizon: ends, ..renewal(due_for) }
    }

    fn new_name() -> Need {
        Need { ends: None, since: NOW, horizon: None, lifetime: None, at_once: false, seed: 7 }
    }

    #[test]
    fn the_next_issuer_is_asked_when_the_first_is_down_for_long_or_refuses() {
        use Class::*;
        let seconds = Duration::from_secs;
        let week = Some(NOW.plus(7 * DAY));
        for (what, attempts, need, asked) in [
            ("new, down for a moment", failing(Unreachable, seconds(10), None), new_name(), None),
            ("new, down", failing(Unreachable, seconds(25), None), new_name(), Some(1)),
            ("renewal, down", failing(Unreachable, 19 * HOUR, None), renewal(19 * HOUR), None),
            (
                "renewal, down for long",
                failing(Unreachable, 20 * HOUR, None),
                renewal(20 * HOUR),
                Some(1),
            ),
            ("of days, down", failing(Unreachable, HOUR, None), of_days(HOUR), None),
            ("of days, unproved", failing(Validation, 2 * HOUR, None), of_days(2 * HOUR), Some(1)),
            (
                "late renewal, down now",
                failing(Unreachable, seconds(5), None),
                renewal(20 * DAY),
                None,
            ),
            (
                "late renewal, down",
                failing(Unreachable, seconds(30), None),
                renewal(20 * DAY),
                Some(1),
            ),
            ("refused", failing(Operator, seconds(0), None), renewal(seconds(0)), Some(1)),
            ("new, limited for a week", failing(Limited, seconds(0), week), new_name(), Some(1)),
            (
                "renewal, limited for an hour",
                failing(Limited, seconds(0), Some(NOW.plus(HOUR))),
                renewal(HOUR),
                None,
            ),
            (
                "renewal, limited for a week",
                failing(Limited, seconds(0), week),
                renewal(2 * DAY),
                Some(1),
            ),
            ("new, unproved", failing(Validation, HOUR, None), new_name(), None),
            ("new, unproved for a day", failing(Validation, DAY, None), new_name(), Some(1)),
        ] {
            let found = choose(&[standing(&attempts), standing(&NONE)], &need, NOW);
            match (found, asked) {
                (Choice::Ask { at }, Some(asked)) => assert_eq!(at, asked, "{what}"),
                (Choice::Wait { until, .. }, None) => assert!(until > NOW, "{what}"),
                _ => panic!("{what}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_first_is_asked_again_as_soon_as_its_pause_is_over() {
        for class in [Class::Unreachable, Class::Operator, Class::Validation, Class::Limited] {
            let attempts = failing(class, 3 * DAY, None);
            let both = [standing(&attempts), standing(&NONE)];
            let later = NOW.plus(60 * DAY);
            let need = Need { ends: Some(later.plus(30 * DAY)), since: later, ..new_name() };
            assert_eq!(choose(&both, &need, later), Choice::Ask { at: 0 }, "{class:?}");
        }
    }

    #[test]
    fn an_order_that_was_begun_goes_on_where_it_was_begun_unless_that_issuer_is_given_up() {
        let (down, refused) =
            (failing(Class::Unreachable, HOUR, None), failing(Class::Operator, HOUR, None));
        let begun = |attempts, ago| Standing { begun: Some(NOW.minus(ago)), ..standing(attempts) };
        let ask = |all: &[Standing<'_>]| choose(all, &new_name(), NOW);
        assert_eq!(ask(&[standing(&NONE), begun(&NONE, HOUR)]), Choice::Ask { at: 1 });
        assert_eq!(ask(&[begun(&NONE, DAY), begun(&NONE, HOUR)]), Choice::Ask { at: 1 });
        assert_eq!(ask(&[begun(&down, HOUR), standing(&NONE)]), Choice::Ask { at: 1 });
        assert_eq!(ask(&[standing(&NONE), begun(&refused, HOUR)]), Choice::Ask { at: 0 });
    }

    #[test]
    fn what_a_limit_makes_wait_too_long_goes_to_the_next_and_the_wait_says_why() {
        let spent = |wait| Standing { not_before: Some(NOW.plus(wait)), ..standing(&NONE) };
        let alone = choose(&[spent(DAY)], &new_name(), NOW);
        assert_eq!(alone, Choice::Wait { until: NOW.plus(DAY), why: Obstacle::Budget });
        let both = |wait, need: &Need| choose(&[spent(wait), standing(&NONE)], need, NOW);
        assert_eq!(both(DAY, &new_name()), Choice::Ask { at: 1 });
        assert_eq!(both(9 * DAY, &renewal(HOUR)), Choice::Ask { at: 1 });
        let waits = both(10 * HOUR, &renewal(HOUR));
        assert_eq!(waits, Choice::Wait { until: NOW.plus(10 * HOUR), why: Obstacle::Budget });
        let asked = Need { at_once: true, ..new_name() };
        assert_eq!(both(DAY, &asked), Choice::Ask { at: 0 });
    }

    #[test]
    fn a_person_is_needed_only_if_every_issuer_refuses() {
        let (refused, down) =
            (failing(Class::Operator, HOUR, None), failing(Class::Unreachable, HOUR, None));
        let why = |all: &[Standing<'_>]| match choose(all, &new_name(), NOW) {
            Choice::Wait { why, .. } => why,
            Choice::Ask { at } => panic!("{at}"),
        };
        assert_eq!(why(&[standing(&refused), standing(&refused)]), Obstacle::Person);
        assert_eq!(why(&[standing(&refused), standing(&down)]), Obstacle::Failed);
        let impossible = Standing { is_possible: false, ..standing(&NONE) };
        assert_eq!(why(&[impossible, standing(&refused)]), Obstacle::Person);
        assert_eq!(why(&[impossible]), Obstacle::Person);
    }

    proptest! {
        #[test]
        fn whoever_is_asked_may_be_and_a_wait_ends_in_the_future(
            all in proptest::collection::vec(
                (0usize..5, 0u64..3_000_000, proptest::option::of(0u64..3_000_000), any::<bool>(), any::<bool>()), 1..5),
            ends in proptest::option::of(0u64..10_000_000), due in 0u64..1_000_000, seed in any::<u64>(),
        ) {
            let seconds = Duration::from_secs;
            let classes = [Class::Unreachable, Class::Validation, Class::Limited, Class::Operator];
            let attempts: Vec<_> = all.iter().map(|(class, ago, wait, ..)| match classes.get(*class) {
                Some(class) => failing(*class, seconds(*ago), wait.map(|wait| NOW.plus(seconds(wait)))),
                None => Attempts::default(),
            }).collect();
            let standings: Vec<_> = all.iter().zip(&attempts).map(|((_, _, wait, begun, possible), attempts)| Standing {
                begun: begun.then_some(NOW),
                not_before: wait.map(|wait| NOW.plus(seconds(wait))),
                is_possible: *possible,
                attempts,
            }).collect();
            let ends = ends.map(|ends| NOW.plus(seconds(ends)));
            let need = Need { ends, since: NOW.minus(seconds(due)), horizon: ends, lifetime: None, at_once: false, seed };
            match choose(&standings, &need, NOW) {
                Choice::Ask { at } => {
                    prop_assert!(standings[at].is_possible);
                    prop_assert!(standings[at].not_before.is_none_or(|at| at <= NOW));
                }
                Choice::Wait { until, why } => {
                    prop_assert!(until > NOW);
                    // Nothing but more time is needed to get on.
                    let then = choose(&standings, &need, until);
                    prop_assert_ne!(then, Choice::Wait { until, why });
                }
            }
        }
    }
}
