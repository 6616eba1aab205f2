//! How long an order waits for the CA, and what it asks again. Pure.

use std::time::Duration;

use crate::clock::Moment;
use crate::store::record::Class;

use super::verdict::Failed;

/// How soon the state of an order is asked for first, and how far apart later.
pub const FIRST: Duration = Duration::from_millis(150);
const LONGEST: Duration = Duration::from_secs(5);
/// How long one validation or one signature is waited for. What takes longer is resumed later.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// Whether the same question may get another answer in a moment.
pub fn may_pass(failed: &Failed, status: u16) -> bool {
    failed.class == Class::Unreachable && status != 404 && !failed.is("accountDoesNotExist")
}

/// The next pause of our own.
pub fn longer(pause: Duration) -> Duration {
    (pause * 3 / 2).min(LONGEST)
}

/// How long to wait: as long as the CA asks for (RFC 8555 §7.5.1), and by a time that is past or by a clock
/// that is wrong no shorter than we would.
pub fn pause(own: Duration, asked: Option<Moment>, now: Moment) -> Duration {
    asked.map_or(Duration::ZERO, |at| at.since(now)).max(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);

    #[test]
    fn the_ca_is_asked_no_faster_for_a_retry_after_that_is_past() {
        let mut own = FIRST;
        let mut waited = Duration::ZERO;
        let mut polls = 0;
        while waited < TIMEOUT {
            own = longer(own);
            waited += pause(own, Some(NOW.minus(Duration::from_secs(polls))), NOW);
            polls += 1;
            assert!(polls < 40, "{waited:?}");
        }
        let asked = Duration::from_secs(30);
        assert_eq!(pause(FIRST, Some(NOW.plus(asked)), NOW), asked);
        assert_eq!(pause(FIRST, None, NOW), FIRST);
    }

    #[test]
    fn a_bad_answer_is_asked_again_and_one_with_a_meaning_is_not() {
        let failed = |class, kind: Option<&str>| {
            let mut failed = Failed::new(class, "");
            failed.kind = kind.map(str::to_owned);
            failed
        };
        for (class, kind, status, again) in [
            (Class::Unreachable, None, 0, true),
            (Class::Unreachable, None, 502, true),
            (Class::Unreachable, Some("serverInternal"), 500, true),
            (Class::Unreachable, Some("badNonce"), 400, true),
            (Class::Unreachable, Some("accountDoesNotExist"), 400, false),
            (Class::Unreachable, None, 404, false),
            (Class::Validation, Some("connection"), 400, false),
            (Class::Limited, Some("rateLimited"), 429, false),
            (Class::Operator, Some("caa"), 403, false),
        ] {
            assert_eq!(may_pass(&failed(class, kind), status), again, "{kind:?} {status}");
        }
    }
}
