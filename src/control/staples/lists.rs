//! One look into an issuer's list of revoked certificates, for all of ours that name it.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Moment;

use super::super::addresses::Vouched;
use super::super::certified::{Certified, Identity};
use super::asking::{Means, blocking, vouched};
use super::crl::look_up;
use super::fetch::{self, Unanswered};
use super::issuer::TrustStore;
use super::response::Revoked;

/// What a look found.
#[derive(Debug)]
pub enum Looked {
    /// The list is the one that was looked into before.
    Same,
    New {
        etag: Option<HeaderValue>,
        next_update: Option<Moment>,
        revoked: Vec<(Identity, Revoked)>,
    },
    /// Why the list says nothing.
    Refused(String),
    Unanswered(Unanswered),
}

/// Fetches the list unless it is still the one of this tag, and looks all of these up in it.
pub async fn look(
    means: &Means,
    url: &str,
    known: Option<&HeaderValue>,
    members: Vec<Arc<Certified>>,
) -> Looked {
    // One that an operator set by hand vouches for the URL that others name too.
    let is_by_operator = members.iter().any(|member| vouched(member) == Vouched::ByOperator);
    let by = if is_by_operator { Vouched::ByOperator } else { Vouched::ByIssuer };
    let fetched = match fetch::list(&means.transport, url, known, by).await {
        Ok(Some(fetched)) => fetched,
        Ok(None) => return Looked::Same,
        Err(unanswered) => return Looked::Unanswered(unanswered),
    };
    let (trust, url) = (means.trust.clone(), url.to_owned());
    let looked = blocking(move || {
        look_all_up(&fetched.der, &url, &members, &trust, Moment::now())
            .map(|(next_update, revoked)| (fetched.etag, next_update, revoked))
    })
    .await;
    match looked {
        Ok((etag, next_update, revoked)) => Looked::New { etag, next_update, revoked },
        Err(why) => Looked::Refused(why),
    }
}

type Found = (Option<Moment>, Vec<(Identity, Revoked)>);

fn look_all_up(
    der: &[u8],
    url: &str,
    members: &[Arc<Certified>],
    trust: &TrustStore,
    now: Moment,
) -> Result<Found, String> {
    // Those of one issuer share its certificate, so it is verified once for all of them.
    let mut by_issuer: HashMap<&[u8], Vec<&Arc<Certified>>> = HashMap::new();
    for member in members {
        let above = member.key.cert.get(1).map(|issuer| issuer.as_ref());
        let above = above.or(member.unsent_issuer).unwrap_or_default();
        by_issuer.entry(above).or_default().push(member);
    }
    let (mut next_update, mut revoked) = (None, Vec::new());
    let mut refused = None;
    for (above, members) in by_issuer {
        // Without a certificate above them they may be of different issuers.
        let parts: Vec<&[&Arc<Certified>]> = match above.is_empty() {
            true => members.chunks(1).collect(),
            false => vec![&members],
        };
        for part in parts {
            let issuer = part.first().and_then(|first| trust.issuer_of(first));
            let Some(issuer) = issuer else {
                refused = Some("its issuer's certificate is not at hand".to_owned());
                continue;
            };
            let serials: HashMap<Vec<u8>, Identity> = part
                .iter()
                .filter_map(|member| Some((serial(member)?, member.identity())))
                .collect();
            let wanted = serials.keys().map(Vec::as_slice);
            match look_up(der, url, &issuer, wanted, now) {
                Ok(listed) => {
                    next_update = listed.next_update;
                    let found = listed.revoked.into_iter();
                    revoked.extend(
                        found.filter_map(|(serial, why)| Some((*serials.get(&serial)?, why))),
                    );
                }
                Err(why) => refused = Some(why),
            }
        }
    }
    match refused {
        Some(why) if revoked.is_empty() => Err(why),
        _ => Ok((next_update, revoked)),
    }
}

fn serial(certified: &Certified) -> Option<Vec<u8>> {
    let (_, leaf) = X509Certificate::from_der(certified.key.cert.first()?).ok()?;
    Some(leaf.tbs_certificate.raw_serial().to_vec())
}
