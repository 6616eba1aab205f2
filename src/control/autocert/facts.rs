//! From what is known of a name to the facts that are decided from. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::name::{Pattern, ServerName};
use crate::store::record::{Attempts, Certificate};

use super::budget::Counts;
use super::ca::Ca;
use super::domain::registered_domain;
use super::dossier::Dossier;
use super::failover::Standing;
use super::issuers::Issuers;
use super::limits_known::Limits;
use super::names::obstacle_at;
use super::plan::{Asked, Facts};
use super::stored::Known;

static NONE: Attempts = Attempts { failures: 0, validations: 0, last: None, since: None };

/// How each issuer stands to the name.
pub fn standings<'a>(
    name: &ServerName,
    dossier: &'a Dossier,
    issuers: &Issuers,
    now: Moment,
) -> Vec<Standing<'a>> {
    let pattern = Pattern::Exact(name.clone());
    let standing = |(at, (known, ca)): (usize, (&'a Known, &Arc<Ca>))| {
        let not_before = ca.ledger.as_ref().and_then(|ledger| {
            let domain = registered_domain(name);
            let counts = counts(dossier, at, ca, ledger.limits, now);
            ledger.not_before(&ca.order(name.as_str(), &domain, counts), now)
        });
        let attempts = &known.record.attempts;
        // What a person could mend is tried again at once when that person changed something.
        let mended = attempts
            .last
            .as_ref()
            .is_some_and(|last| last.remedy.is_some() && last.settings != ca.fingerprint);
        let order = known.record.order.as_ref().filter(|order| order.url.is_some());
        Standing {
            attempts: if mended { &NONE } else { attempts },
            begun: order.map(|order| order.begun),
            // What was placed has been counted.
            not_before: not_before.filter(|_| order.is_none()),
            is_possible: obstacle_at(&pattern, &ca.issuer).is_none(),
        }
    };
    dossier.at.iter().zip(&issuers.all).enumerate().map(standing).collect()
}

/// How an order for the name would count at this issuer, by what it has issued before.
pub fn counts(dossier: &Dossier, at: usize, ca: &Ca, limits: &Limits, now: Moment) -> Counts {
    counts_with(dossier, at, |held| ca.is_ours(held), limits, now)
}

fn counts_with(
    dossier: &Dossier,
    at: usize,
    is_ours: impl Fn(&Certificate) -> bool,
    limits: &Limits,
    now: Moment,
) -> Counts {
    let known = dossier.at.get(at);
    let certificate = known.and_then(|known| known.record.certificate.as_ref());
    // It is exempt by what it replaces, if it may say so (RFC 9773 §5).
    let is_exempt = certificate.is_some_and(|held| {
        let renewal = held.renewal.as_ref();
        let in_window = renewal.is_some_and(|window| window.start <= now && now < window.end);
        in_window && !held.replaces_refused && is_ours(held)
    });
    if is_exempt && dossier.serving_at() == Some(at) {
        return Counts::Exempt;
    }
    let issued = known.and_then(|known| known.certified.as_ref()).map(|one| one.not_before);
    match issued {
        Some(issued) if now.since(issued) < limits.renewal_within => Counts::Renewal,
        _ => Counts::New,
    }
}

/// The facts about a name. `asked` by an operator; `at_once`: whatever failed before.
pub fn facts<'a>(
    dossier: &'a Dossier,
    issuers: &'a [Standing<'a>],
    asked: Option<Asked>,
    at_once: bool,
    storable: bool,
    up_for: Duration,
    seed: u64,
) -> Facts<'a> {
    let serving = dossier.serving();
    let certificate = serving.and_then(|known| known.record.certificate.as_ref());
    // Whoever is configured no more is not asked for anything.
    let asks = dossier.serving_at().is_some();
    Facts {
        validity: serving.and_then(|known| known.validity()),
        renewal: certificate.and_then(|certificate| certificate.renewal.as_ref()),
        ask_renewal_at: certificate
            .filter(|_| asks)
            .map(|certificate| certificate.ask_renewal_at.unwrap_or(Moment::from_unix_seconds(0))),
        obtained: certificate.and_then(|certificate| certificate.obtained),
        revoked: certificate.is_some_and(|certificate| certificate.revoked),
        issuers,
        asked,
        at_once,
        storable,
        up_for,
        seed,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::PKCS_ECDSA_P256_SHA256;

    use super::super::super::certified::samples::{DAY, Issuer};
    use super::super::limits_known::limits_of;
    use super::*;
    use crate::config::autocert::LETS_ENCRYPT;
    use crate::store::record::Renewal;

    #[test]
    fn what_the_same_issuer_renews_counts_less_and_in_its_window_not_at_all() {
        let name = ServerName::parse("a.example").unwrap();
        let directories = [LETS_ENCRYPT, "https://ca.example/dir"];
        let mut dossier = Dossier::nothing(&name, directories.into_iter());
        let limits = limits_of(LETS_ENCRYPT).unwrap();
        let (chain, private_key) =
            Issuer::new("counts").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        let certificate = Certificate { chain, private_key, ..Certificate::default() };
        dossier.at[0].take(&name, certificate.clone()).unwrap();
        let begun = dossier.certified().unwrap().not_before;
        let due = begun.plus(60 * DAY);
        let count = |dossier: &Dossier, now| {
            counts_with(dossier, 0, |held| held.is_of("ours"), limits, now)
        };
        assert_eq!(count(&dossier, due), Counts::Renewal);
        assert_eq!(counts_with(&dossier, 1, |_| true, limits, due), Counts::New);
        assert_eq!(count(&dossier, begun.plus(121 * DAY)), Counts::New);
        let (start, end) = (due, due.plus(Duration::from_secs(3600)));
        let renewal = Renewal { id: "a.b".into(), start, end, selected: due, explanation: None };
        let windowed = Certificate { renewal: Some(renewal), ..certificate };
        dossier.at[0].take(&name, windowed.clone()).unwrap();
        for (now, expected) in [
            (due.minus(Duration::from_secs(1)), Counts::Renewal),
            (due, Counts::Exempt),
            (end, Counts::Renewal),
        ] {
            assert_eq!(count(&dossier, now), expected, "{now}");
        }
        for (account, replaces_refused, expected) in [
            ("ours", false, Counts::Exempt),
            ("ours", true, Counts::Renewal),
            ("another's", false, Counts::Renewal),
        ] {
            let held =
                Certificate { account: account.into(), replaces_refused, ..windowed.clone() };
            dossier.at[0].take(&name, held).unwrap();
            assert_eq!(count(&dossier, due), expected, "{account} {replaces_refused}");
        }
        // Another issuer's certificate is not one that this one could replace.
        let mut moved = Dossier::nothing(&name, directories.into_iter());
        moved.at[1].take(&name, windowed).unwrap();
        assert_eq!(count(&moved, due), Counts::New);
    }
}
