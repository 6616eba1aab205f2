//! From what is known of a name to the facts that are decided from. Pure.

use crate::clock::Moment;
use crate::name::{Pattern, ServerName};
use crate::store::record::Attempts;

use super::dossier::Dossier;
use super::failover::Standing;
use super::issuers::Issuers;
use super::names::obstacle_at;
use super::plan::{Asked, Facts};

static NONE: Attempts = Attempts { failures: 0, validations: 0, last: None, since: None };

/// How each issuer stands to the name.
pub fn standings<'a>(
    name: &ServerName,
    dossier: &'a Dossier,
    issuers: &Issuers,
) -> Vec<Standing<'a>> {
    let pattern = Pattern::Exact(name.clone());
    let standing = |(known, ca): (&'a super::stored::Known, &std::sync::Arc<super::ca::Ca>)| {
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
            not_before: None,
            is_possible: obstacle_at(&pattern, &ca.issuer).is_none(),
        }
    };
    dossier.at.iter().zip(&issuers.all).map(standing).collect()
}

/// The facts about a name. `asked` by an operator; `at_once`: whatever failed before.
pub fn facts<'a>(
    dossier: &'a Dossier,
    issuers: &'a [Standing<'a>],
    asked: Option<Asked>,
    at_once: bool,
    storable: bool,
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
        seed,
    }
}
