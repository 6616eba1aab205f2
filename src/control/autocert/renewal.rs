//! When a certificate is renewed: from its lifetime, the issuer's renewal information and a spread that is
//! stable per certificate. Pure.

use std::time::Duration;

use crate::clock::Moment;
use crate::store::record::Renewal;

use super::backoff::fraction;
use super::mutant::{Mutant, mutant};

/// Without renewal information a third of the lifetime is left for trying (what Let's Encrypt advises) ...
const LEFT: u32 = 3;
/// ... and a half where a third would be a matter of hours.
const LEFT_OF_SHORT: u32 = 2;
const SHORT: Duration = Duration::from_secs(10 * 24 * 3600);
/// Certificates of the same minute are renewed over this part of their lifetime: four and a half days
/// for one of 90.
const SPREAD: u32 = 20;
/// However late the issuer's window is, or whatever cannot be stored: with this part of the lifetime left
/// a certificate is renewed.
const LAST_RESORT: u32 = 10;
/// A certificate that is due the moment it is there (by a clock that is wrong, or a CA that says so) is not
/// replaced before this part of its lifetime, at most a day and a half, has passed: Let's Encrypt issues five
/// at once for the same names, and one more every 34 hours.
const APART: u32 = 4;
const APART_AT_MOST: Duration = Duration::from_secs(36 * 3600);
/// The time is chosen from this first part of the issuer's window, so that retries fall within it too: an
/// order inside the window is exempt from Let's Encrypt's limits. RFC 9773 §4.2 would have all of it.
const CHOSEN_FROM: f64 = 0.75;

/// The dates of a certificate, and a number that tells it from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Moment,
    pub not_after: Moment,
    pub seed: u64,
}

/// Why a renewal takes place when it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The issuer's renewal information.
    Window,
    /// The lifetime.
    Lifetime,
    /// The issuer's window would come too late.
    LastResort,
}

/// When the certificate is renewed.
pub fn renewed_at(validity: &Validity, renewal: Option<&Renewal>) -> (Moment, Basis) {
    let last = last_resort(validity);
    match renewal.map(|renewal| renewal.selected) {
        Some(selected) if selected <= last || mutant(Mutant::WindowTrusted) => {
            (selected, Basis::Window)
        }
        // When it is over there is nothing to renew: whoever says so says nothing.
        Some(selected) if selected >= validity.not_after => {
            (by_lifetime(validity), Basis::Lifetime)
        }
        Some(_) => (last, Basis::LastResort),
        None => (by_lifetime(validity), Basis::Lifetime),
    }
}

fn by_lifetime(validity: &Validity) -> Moment {
    let life = validity.not_after.since(validity.not_before);
    let is_short = life < SHORT && !mutant(Mutant::ThirdOfShort);
    let left = life / if is_short { LEFT_OF_SHORT } else { LEFT };
    let spread = (life / SPREAD).mul_f64(fraction(validity.seed, 0));
    validity.not_after.minus(left + spread)
}

/// Before when a certificate that was obtained at this moment is not renewed.
pub fn not_again_before(validity: &Validity, obtained: Moment) -> Moment {
    let life = validity.not_after.since(validity.not_before);
    obtained.plus((life / APART).min(APART_AT_MOST))
}

/// From when on a certificate is renewed whatever else is the case.
pub fn last_resort(validity: &Validity) -> Moment {
    let life = validity.not_after.since(validity.not_before);
    validity.not_after.minus(life / LAST_RESORT)
}

/// The time within a window at which this certificate is renewed; the same for the same window. `None` for
/// a window that is none (RFC 9773 §4.2: the end must be after the start).
pub fn select(start: Moment, end: Moment, seed: u64) -> Option<Moment> {
    // CertMagic stores zero times, of the year 1, for what it does not know.
    if end <= start || start.unix_seconds() <= 0 {
        return None;
    }
    let turn =
        start.unix_seconds().unsigned_abs() ^ end.unix_seconds().unsigned_abs().rotate_left(32);
    Some(start.plus(end.since(start).mul_f64(CHOSEN_FROM * fraction(seed, turn))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn validity(life: Duration, seed: u64) -> Validity {
        Validity { not_before: NOW, not_after: NOW.plus(life), seed }
    }

    #[test]
    fn lifetimes_of_all_kinds_leave_time_to_try() {
        for (life, earliest, latest) in [
            (90 * DAY, 55 * DAY, 60 * DAY),
            (45 * DAY, 27 * DAY, 30 * DAY),
            (6 * DAY, 2 * DAY, 3 * DAY),
            (Duration::from_secs(120), Duration::from_secs(53), Duration::from_secs(60)),
        ] {
            let mut found = Vec::new();
            for seed in 0..100 {
                let (at, basis) = renewed_at(&validity(life, seed), None);
                assert_eq!(basis, Basis::Lifetime);
                assert!(
                    (earliest..=latest).contains(&at.since(NOW)),
                    "{life:?} {:?}",
                    at.since(NOW)
                );
                found.push(at);
            }
            found.sort_unstable();
            found.dedup();
            assert!(found.len() > 5, "{life:?}: no spread");
        }
    }

    #[test]
    fn the_issuers_window_counts_unless_it_is_too_late() {
        let validity = validity(90 * DAY, 3);
        let renewal = |selected| Renewal {
            id: String::new(),
            start: selected,
            end: selected,
            selected,
            explanation: None,
        };
        let in_time = renewal(NOW.plus(70 * DAY));
        assert_eq!(renewed_at(&validity, Some(&in_time)), (in_time.selected, Basis::Window));
        let revoked = renewal(NOW.minus(DAY));
        assert_eq!(renewed_at(&validity, Some(&revoked)), (revoked.selected, Basis::Window));
        let late = renewal(NOW.plus(89 * DAY));
        assert_eq!(renewed_at(&validity, Some(&late)), (NOW.plus(81 * DAY), Basis::LastResort));
        let beyond = renewal(NOW.plus(90 * DAY));
        assert_eq!(renewed_at(&validity, Some(&beyond)), renewed_at(&validity, None));
    }

    proptest! {
        #[test]
        fn a_renewal_falls_into_the_lifetime(life in 1u64..400_000_000, seed in any::<u64>()) {
            let validity = validity(Duration::from_secs(life), seed);
            let (at, _) = renewed_at(&validity, None);
            prop_assert!(validity.not_before <= at && at <= validity.not_after);
            prop_assert!(at <= last_resort(&validity));
        }

        #[test]
        fn the_chosen_time_lies_in_the_window(start in 1i64..4_000_000_000, length in 1i64..10_000_000, seed in any::<u64>()) {
            let (start, end) = (Moment::from_unix_seconds(start), Moment::from_unix_seconds(start + length));
            let chosen = select(start, end, seed).unwrap();
            prop_assert!(start <= chosen && chosen < end);
            prop_assert_eq!(select(start, end, seed), Some(chosen));
            prop_assert_eq!(select(end, start, seed), None);
        }
    }
}
