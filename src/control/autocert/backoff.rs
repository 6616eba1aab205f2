//! When to try again after failures. Pure.

use std::time::Duration;

use crate::clock::Moment;
use crate::store::record::{Attempts, Class};

use super::mutant::{Mutant, mutant};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}
const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// Asking a CA that does not answer costs it and us nothing, and most outages are short; after an hour of
/// them it is asked twice an hour, then every four hours, for as long as it takes.
const UNREACHABLE: [Duration; 8] = [
    seconds(5),  // 5 s
    seconds(15), // 20 s after the first failure
    seconds(45), // 1 min
    minutes(3),  // 4 min
    minutes(10), // 14 min
    minutes(30), // 45 min
    hours(1),    // 2 h
    hours(4),    // 6 h, and so on
];
/// Let's Encrypt allows 5 failed validations per name and hour, one more every 12 minutes. The first
/// attempt may have cost two, one per challenge; later ones cost one each: by the fourth, after half an hour,
/// two have been given back. The first pause is short, for a DNS record that was about to appear.
const VALIDATION: [Duration; 8] = [
    seconds(10), // 10 s
    minutes(5),  // 5 min after the first failure
    minutes(20), // 25 min
    hours(1),    // 1.5 h
    hours(2),    // 3.5 h
    hours(4),    // 7.5 h
    hours(8),    // 16 h
    hours(12), // 28 h, and so on: at most two a day, of the 1,152 in a row before Let's Encrypt pauses a name
];
/// A limit that names no end. Let's Encrypt always names one; its slowest bucket gives one back in 34 hours.
const LIMITED: [Duration; 4] = [minutes(15), hours(1), hours(4), hours(12)];
/// Nothing but a person helps. Now and then it is tried all the same, for the person may have helped
/// where we cannot see it: within a day, its tenth more included.
const OPERATOR: [Duration; 4] = [minutes(10), hours(1), hours(6), hours(20)];

/// However little of the lifetime is left, a CA is not asked more often than this.
const SHORTEST: Duration = seconds(5);
/// A validation that fails is not tried again sooner because time runs out: the pace at which Let's Encrypt
/// gives failed validations of a name back ...
const VALIDATION_SHORTEST: Duration = minutes(12);
/// ... and this part of the lifetime for certificates of hours and minutes, whose CA has other limits.
const VALIDATION_PART: u32 = 100;
/// Retries take place while they can still help: at least so many before what is served expires, or before
/// the window closes in which a renewal is exempt from the CA's limits.
const TRIES_LEFT: u32 = 8;
/// What lives shorter is renewed within hours, and a CA that issues for two hours between two outages has to
/// be asked in them: no pause of our own is longer, whatever failed.
pub const SHORT: Duration = hours(10 * 24);
pub const LONGEST_OF_SHORT: Duration = minutes(75);
/// No `Retry-After` is believed beyond this: a week is Let's Encrypt's longest limit.
const LONGEST_RETRY_AFTER: Duration = hours(7 * 24);

/// When the next attempt is due. `horizon` is the moment by which a success is wanted, if there is one, and
/// `lifetime` that of what is served until then; `seed` spreads the names that failed at the same moment.
pub fn due(
    attempts: &Attempts,
    horizon: Option<Moment>,
    lifetime: Option<Duration>,
    seed: u64,
    now: Moment,
) -> Moment {
    let Some(last) = &attempts.last else { return now };
    let at = last.at;
    let steps: &[Duration] = match last.class {
        Class::Validation if mutant(Mutant::ValidationHurried) => &UNREACHABLE,
        Class::Unreachable => &UNREACHABLE,
        Class::Validation => &VALIDATION,
        Class::Limited => &LIMITED,
        Class::Operator => &OPERATOR,
    };
    let step = (attempts.failures.max(1) as usize - 1).min(steps.len() - 1);
    let mut delay = steps.get(step).copied().unwrap_or(SHORTEST);
    // Up to a tenth more.
    delay += delay.mul_f64(fraction(seed, u64::from(attempts.failures)) / 10.0);
    if mutant(Mutant::BackoffUnbounded) {
        delay *= 1 << attempts.failures.saturating_sub(steps.len() as u32).min(10);
    } else if let (Some(horizon), Some(shortest)) = (horizon, shortest(last.class, lifetime)) {
        delay = delay.min((horizon.since(at) / TRIES_LEFT).max(shortest));
    }
    if lifetime.is_some_and(|lifetime| lifetime < SHORT) && !mutant(Mutant::BackoffUnbounded) {
        delay = delay.min(LONGEST_OF_SHORT);
    }
    let mut due = at.plus(delay.max(Duration::from_secs(1)));
    if let Some(asked) = last.not_before
        && !mutant(Mutant::RetryAfterIgnored)
    {
        due = due.max(asked.min(at.plus(LONGEST_RETRY_AFTER)));
    }
    // By a clock that was set back the failure is yet to come. A pause that began at each look would
    // never end.
    let is_to_come = at > now.plus(due.since(at)) && !mutant(Mutant::PauseByWrongClock);
    if is_to_come { now } else { due }
}

/// The shortest pause that what expires soon may have after such a failure; `None`: time that runs out
/// makes neither a person nor an issuer's limit any faster.
fn shortest(class: Class, lifetime: Option<Duration>) -> Option<Duration> {
    match class {
        Class::Unreachable => Some(SHORTEST),
        Class::Validation => Some(lifetime.map_or(VALIDATION_SHORTEST, |lifetime| {
            (lifetime / VALIDATION_PART).clamp(SHORTEST, VALIDATION_SHORTEST)
        })),
        Class::Limited | Class::Operator => None,
    }
}

/// A number from 0 to below 1 that is always the same for the same seed and turn.
pub fn fraction(seed: u64, turn: u64) -> f64 {
    if mutant(Mutant::NoJitter) {
        return 0.0;
    }
    // The finalizer of SplitMix64: neighbouring inputs share no pattern.
    let mut mixed = seed.wrapping_add(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::Failure;
    use proptest::prelude::*;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);

    fn failed(class: Class, failures: u32, not_before: Option<Moment>) -> Attempts {
        let (what, settings) = (String::new(), String::new());
        let last = Failure { at: NOW, class, what, remedy: None, not_before, settings };
        Attempts { failures, last: Some(last), ..Attempts::default() }
    }

    fn delay(class: Class, failures: u32) -> Duration {
        due(&failed(class, failures, None), None, None, 7, NOW).since(NOW)
    }

    #[test]
    fn pauses_grow_to_hours_and_end_never() {
        assert_eq!(due(&Attempts::default(), None, None, 7, NOW), NOW);
        for class in [Class::Unreachable, Class::Validation, Class::Limited, Class::Operator] {
            let mut before = Duration::ZERO;
            for failures in 1..8 {
                let now = delay(class, failures);
                assert!(now >= before.mul_f64(0.9), "{class:?} {failures}");
                before = now;
            }
            assert!(
                delay(class, 8) >= hours(4) && delay(class, u32::MAX) <= hours(27),
                "{class:?}"
            );
        }
        assert!(delay(Class::Validation, 1) < seconds(12));
    }

    #[test]
    fn what_expires_soon_is_tried_more_often() {
        let by = |class: Class, horizon: Duration, lifetime: Option<Duration>| {
            let horizon = Some(NOW.plus(horizon));
            due(&failed(class, 6, None), horizon, lifetime, 7, NOW).since(NOW)
        };
        assert_eq!(by(Class::Unreachable, seconds(80), None), seconds(10));
        assert_eq!(by(Class::Unreachable, hours(2), None), minutes(15));
        assert_eq!(by(Class::Unreachable, Duration::ZERO, None), SHORTEST);
        // A failed validation counts against the issuer's limits ...
        for lifetime in [None, Some(hours(90 * 24))] {
            assert_eq!(by(Class::Validation, Duration::ZERO, lifetime), minutes(12));
        }
        assert_eq!(by(Class::Validation, hours(8), None), hours(1));
        assert_eq!(by(Class::Validation, Duration::ZERO, Some(hours(1))), seconds(36));
        assert_eq!(by(Class::Validation, Duration::ZERO, Some(seconds(60))), SHORTEST);
        // ... and neither a limit nor a person gets any faster.
        assert!(by(Class::Limited, Duration::ZERO, None) >= hours(12));
        assert!(by(Class::Operator, Duration::ZERO, None) >= hours(20));
    }

    #[test]
    fn what_lives_for_days_is_tried_within_two_hours_and_anything_within_a_day() {
        for class in [Class::Unreachable, Class::Validation, Class::Limited, Class::Operator] {
            for failures in [1, 5, 100] {
                let pause = |lifetime, asked| {
                    let attempts = failed(class, failures, asked);
                    due(&attempts, None, Some(lifetime), 7, NOW).since(NOW)
                };
                assert!(pause(hours(160), None) < hours(2), "{class:?} {failures}");
                assert!(pause(hours(90 * 24), None) < hours(24), "{class:?} {failures}");
                // The issuer's word is another matter.
                assert_eq!(pause(hours(160), Some(NOW.plus(hours(30)))), hours(30));
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_delays_an_attempt_by_a_pause_and_not_for_ever() {
        for class in [Class::Unreachable, Class::Validation, Class::Limited, Class::Operator] {
            for not_before in [None, Some(NOW.plus(hours(30)))] {
                let attempts = failed(class, 4, not_before);
                let pause = due(&attempts, None, None, 7, NOW).since(NOW);
                for back in [seconds(5), minutes(10), hours(3), hours(40 * 24)] {
                    let begun = NOW.minus(back);
                    let mut now = begun;
                    while due(&attempts, None, None, 7, now) > now {
                        now = now.plus(seconds(30));
                        assert!(now.since(begun) <= 2 * pause + seconds(30), "{class:?} {back:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_the_issuer_asks_for_is_obeyed_within_reason() {
        let until = |asked: Duration| {
            due(&failed(Class::Unreachable, 1, Some(NOW.plus(asked))), Some(NOW), None, 7, NOW)
                .since(NOW)
        };
        assert_eq!(until(hours(30)), hours(30));
        assert_eq!(until(hours(10_000)), LONGEST_RETRY_AFTER);
        assert_eq!(until(Duration::ZERO), SHORTEST);
    }

    proptest! {
        #[test]
        fn the_next_attempt_is_never_in_the_past_and_never_far(
            failures in 0u32..100, ago in -1_000_000i64..1_000_000, horizon in proptest::option::of(0i64..100_000_000),
            class in 0usize..4, seed in any::<u64>(),
        ) {
            let class = [Class::Unreachable, Class::Validation, Class::Limited, Class::Operator][class];
            let attempts = failed(class, failures, None);
            let now = Moment::from_unix_seconds(NOW.unix_seconds() + ago);
            let horizon = horizon.map(Moment::from_unix_seconds);
            let due = due(&attempts, horizon, None, seed, now);
            let at = attempts.last.unwrap().at;
            prop_assert!(due > at || due == now);
            prop_assert!(due.since(now) <= 2 * hours(27));
        }

        #[test]
        fn fractions_are_fractions(seed in any::<u64>(), turn in any::<u64>()) {
            prop_assert!((0.0..1.0).contains(&fraction(seed, turn)));
        }
    }
}
