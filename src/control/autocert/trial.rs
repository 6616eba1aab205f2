//! Tries a name out at an issuer's staging environment before the issuer itself is asked once more.
//!
//! Failures there count against no limit of the issuer's; the certificate is thrown away.

use tracing::{info, warn};

use crate::config::autocert::ChallengeKind;
use crate::name::ServerName;
use crate::store::record::Record;

use super::budget::Counts;
use super::ca::Ca;
use super::held::Held;
use super::order::{Keeping, Ordering};
use super::verdict::Failed;

/// So many turns in which the name was not proved make the next one a trial first. The first failure is
/// often a DNS record that was about to appear, and Let's Encrypt allows five in an hour.
const AFTER: u32 = 2;
/// After every fourth failure the issuer is asked without one: its staging environment may see less than it does, and
/// no certificate may expire because of that.
const LEFT_OUT_EVERY: u32 = 4;

/// Whether the issuer is not to be asked before a trial succeeds. An order that it has accepted goes on. Pure.
pub fn is_due(record: &Record) -> bool {
    let is_open = record.order.as_ref().is_some_and(|order| order.url.is_some());
    let is_left_out = record.attempts.failures.is_multiple_of(LEFT_OUT_EVERY);
    record.attempts.validations >= AFTER && !is_left_out && !is_open
}

/// Tries the name out.
///
/// # Errors
/// If control of the name is not proved. Whatever else happens says nothing about the name.
pub async fn try_out(
    staging: &Ca,
    name: &ServerName,
    kind: ChallengeKind,
    lock: Option<&Held>,
) -> Result<(), Failed> {
    let issuer = &staging.issuer.directory;
    info!(%name, issuer, challenge = kind.as_str(), "trying the name out before the CA is asked again");
    match order(staging, name, kind, lock).await {
        Ok(()) => {
            info!(%name, issuer, "the trial succeeded; the CA is asked");
            Ok(())
        }
        Err(failed) if failed.is_about_name() => {
            Err(Failed { what: format!("tried out at {issuer}: {}", failed.what), ..failed })
        }
        Err(failed) => {
            if failed.is("accountDoesNotExist") {
                staging.account_is_forgotten().await;
            }
            warn!(%name, issuer, error = %failed, "the name cannot be tried out; the CA is asked all the same");
            Ok(())
        }
    }
}

async fn order(
    staging: &Ca,
    name: &ServerName,
    kind: ChallengeKind,
    lock: Option<&Held>,
) -> Result<(), Failed> {
    let (account, directory) = staging.account().await?;
    let mut record = Record::new(name.as_str(), &staging.issuer.directory);
    let mut ordering = Ordering {
        ca: staging,
        account,
        directory,
        name,
        record: &mut record,
        counts: Counts::New,
        keeping: Keeping::Not,
        lock,
    };
    ordering.certificate(kind, None).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::store::record::{Class, Failure, OpenOrder};

    #[test]
    fn the_issuer_is_asked_once_in_four_times_whatever_trials_say() {
        let mut record = Record::new("a.example", "https://ca.example/dir");
        let mut asked = Vec::new();
        for nth in 1..=12 {
            if !is_due(&record) {
                asked.push(nth);
            }
            let (what, settings) = (String::new(), String::new());
            let (at, class) = (Moment::from_unix_seconds(1), Class::Validation);
            let failure = Failure { at, class, what, remedy: None, not_before: None, settings };
            record.attempts.count(failure);
        }
        assert_eq!(asked, [1, 2, 5, 9]);
    }

    #[test]
    fn two_turns_without_proof_make_a_trial_due_unless_an_order_is_open() {
        let mut record = Record::new("a.example", "https://ca.example/dir");
        for (class, due) in [
            (Class::Validation, false),
            (Class::Unreachable, false),
            (Class::Validation, true),
            (Class::Unreachable, true),
        ] {
            let (what, settings) = (String::new(), String::new());
            let at = Moment::from_unix_seconds(1);
            let failure = Failure { at, class, what, remedy: None, not_before: None, settings };
            record.attempts.count(failure);
            assert_eq!(is_due(&record), due, "{class:?}");
        }
        let (private_key, url) = (String::new(), Some("https://ca.example/order/1".to_owned()));
        let begun = Moment::from_unix_seconds(1);
        record.order = Some(OpenOrder { private_key, url, begun, challenge: None, counts: None });
        assert!(!is_due(&record));
    }
}
