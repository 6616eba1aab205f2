//! The staple of one certificate: what is at hand is judged, then its responders are asked.

use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Moment;
use crate::store::Store;

use super::super::addresses::Vouched;
use super::super::autocert::transport::Transport;
use super::super::certified::{Certified, Source};
use super::fetch::{self, Unanswered};
use super::issuer::TrustStore;
use super::plan::refreshed_at;
use super::pointers::Pointers;
use super::request::{get_url, request};
use super::response::{Bad, Good, judge, judge_unsigned};
use super::stored;

/// What asking takes.
#[derive(Clone)]
pub struct Means {
    pub transport: Transport,
    pub store: Arc<dyn Store>,
    pub trust: TrustStore,
}

/// A response that is worth stapling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staple {
    pub der: Vec<u8>,
    pub good: Good,
}

/// What came of asking.
#[derive(Debug)]
pub enum Answer {
    /// Somebody else has stored a good one.
    Found(Staple),
    Fetched(Staple),
    Bad(Bad),
    Unanswered(Unanswered),
}

/// Who vouches for the URLs in a certificate.
pub fn vouched(certified: &Certified) -> Vouched {
    match certified.source {
        Source::ByHand { .. } => Vouched::ByOperator,
        Source::Issued { .. } | Source::LocalCa => Vouched::ByIssuer,
    }
}

/// Without the network: the staple that an operator gave, or the one that is stored, whichever lasts longer;
/// and what is wrong with the operator's. Reads the store.
pub fn at_hand(
    certified: &Certified,
    store: &dyn Store,
    trust: &TrustStore,
    now: Moment,
) -> (Option<Staple>, Option<Bad>) {
    let stored = certified.named.responder.then(|| stored::read(store, certified)).flatten();
    weighed(certified, stored, || trust.issuer_of(certified), now)
}

/// The same with what the store holds. To find the issuer takes a signature's verification, which a start
/// cannot afford for every certificate: it is looked for only where there is something to judge.
fn weighed(
    certified: &Certified,
    stored: Option<Vec<u8>>,
    issuer: impl FnOnce() -> Option<CertificateDer<'static>>,
    now: Moment,
) -> (Option<Staple>, Option<Bad>) {
    let by_hand = certified.key.ocsp.as_ref();
    let Some(leaf) = certified.key.cert.first() else { return (None, None) };
    if by_hand.is_none() && stored.is_none() {
        return (None, None);
    }
    let issuer = issuer();
    let by_hand = by_hand.map(|der| {
        let good = match &issuer {
            Some(issuer) => judge(der, leaf, issuer, now),
            None => judge_unsigned(der, leaf, now),
        };
        good.map(|good| Staple { der: der.clone(), good })
    });
    let stored = stored.zip(issuer).and_then(|(der, issuer)| {
        let good = judge(&der, leaf, &issuer, now).ok()?;
        Some(Staple { der, good })
    });
    match (by_hand, stored) {
        // What the issuer has taken back is not saved by an older response.
        (Some(Err(revoked @ Bad::Revoked(_))), _) => (None, Some(revoked)),
        (Some(Err(bad)), stored) => (stored, Some(bad)),
        (Some(Ok(by_hand)), Some(stored)) if stored.good.until > by_hand.good.until => {
            (Some(stored), None)
        }
        (Some(Ok(by_hand)), _) => (Some(by_hand), None),
        (None, stored) => (stored, None),
    }
}

/// The question about one certificate.
struct Question {
    request: Bytes,
    responders: Vec<String>,
    issuer: Vec<u8>,
}

fn question(certified: &Certified, trust: &TrustStore) -> Result<Question, Bad> {
    let damaged = || Bad::Refused("the certificate is damaged".into());
    let leaf_der = certified.key.cert.first().ok_or_else(damaged)?;
    let (_, leaf) = X509Certificate::from_der(leaf_der).map_err(|_| damaged())?;
    let issuer_der = trust.issuer_of(certified).ok_or_else(|| {
        Bad::Refused(
            "its issuer's certificate is not at hand; put it below the leaf in the chain's file"
                .into(),
        )
    })?;
    let (_, issuer) = X509Certificate::from_der(&issuer_der).map_err(|_| damaged())?;
    let request = request(&leaf, &issuer).map_err(Bad::Refused)?.into();
    let responders = Pointers::of(&leaf).responders;
    Ok(Question { request, responders, issuer: issuer_der.to_vec() })
}

/// Asks the certificate's responders one after the other, unless another node has stored what is not due yet.
/// What is good is stored before it is returned; what is revoked is stored no more. Also returns whether a
/// responder answers only to POST.
pub async fn ask(
    means: &Means,
    certified: &Arc<Certified>,
    standing: Option<Good>,
    by_post: bool,
) -> (Answer, bool) {
    let seed = certified.identity().seed();
    let prepared = {
        let (means, certified) = (means.clone(), certified.clone());
        blocking(move || {
            let found = at_hand(&certified, &*means.store, &means.trust, Moment::now()).0;
            (question(&certified, &means.trust), found)
        })
        .await
    };
    let (question, found) = prepared;
    let now = Moment::now();
    let is_new = |good: &Good| standing.is_none_or(|standing| good.until > standing.until);
    if let Some(found) = found
        && is_new(&found.good)
        && refreshed_at(&found.good, None, seed) > now
    {
        return (Answer::Found(found), by_post);
    }
    let question = match question {
        Ok(question) => question,
        Err(bad) => return (Answer::Bad(bad), by_post),
    };
    let mut last = Answer::Bad(Bad::Refused("it names no responder".into()));
    let mut by_post = by_post;
    for responder in &question.responders {
        let (answer, posted) = ask_one(means, certified, &question, responder, by_post).await;
        by_post |= posted;
        match answer {
            Answer::Fetched(staple) => {
                let kept = keep(means, certified, staple.der.clone()).await;
                if let Err(error) = kept {
                    tracing::warn!(%error, "the staple of {certified} is served and not stored");
                }
                return (Answer::Fetched(staple), by_post);
            }
            Answer::Bad(Bad::Revoked(revoked)) => {
                let (store, certified) = (means.store.clone(), certified.clone());
                // One that stays there is judged again before it is ever served, and dropped at its end.
                let _ = blocking(move || stored::remove(&*store, &certified)).await;
                return (Answer::Bad(Bad::Revoked(revoked)), by_post);
            }
            other => last = other,
        }
    }
    (last, by_post)
}

async fn keep(means: &Means, certified: &Arc<Certified>, der: Vec<u8>) -> std::io::Result<()> {
    let (store, certified) = (means.store.clone(), certified.clone());
    blocking(move || stored::put(&*store, &certified, &der)).await
}

/// By GET where that is possible, for caches answer it; a good or final answer counts, anything else is asked
/// again by POST, which goes to the responder itself.
async fn ask_one(
    means: &Means,
    certified: &Certified,
    question: &Question,
    responder: &str,
    by_post: bool,
) -> (Answer, bool) {
    let vouched = vouched(certified);
    let leaf = certified.key.cert.first().map(|leaf| leaf.as_ref()).unwrap_or_default();
    let judged = |der: Bytes| match judge(&der, leaf, &question.issuer, Moment::now()) {
        Ok(good) => Answer::Fetched(Staple { der: der.to_vec(), good }),
        Err(bad) => Answer::Bad(bad),
    };
    let get = get_url(responder, &question.request).filter(|_| !by_post);
    let asked_by_get = get.is_some();
    if let Some(url) = get
        && let Ok(der) = fetch::get(&means.transport, &url, vouched).await
    {
        let answer = judged(der);
        if matches!(answer, Answer::Fetched(_) | Answer::Bad(Bad::Revoked(_))) {
            return (answer, false);
        }
    }
    let answer = match fetch::post(&means.transport, responder, &question.request, vouched).await {
        Ok(der) => judged(der),
        Err(unanswered) => Answer::Unanswered(unanswered),
    };
    let only_by_post = asked_by_get && matches!(answer, Answer::Fetched(_));
    (answer, only_by_post)
}

/// Runs work that touches the store or verifies signatures on the pool of blocking threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and so is whoever waits for this.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::certified::samples::{DAY, Issuer, NOW};
    use super::super::super::staple::{attach, samples::staple};
    use super::*;

    #[test]
    fn an_issuer_is_looked_for_only_where_there_is_something_to_judge() {
        let mut certified = Issuer::new("at-hand").certified(&["a.example"], NOW.plus(DAY));
        let never = || unreachable!("a signature is verified for nothing");
        assert_eq!(weighed(&certified, None, never, NOW), (None, None));
        for by_hand in [false, true] {
            let mut is_asked = false;
            let stored = (!by_hand).then(|| staple(0));
            attach(&mut certified, by_hand.then(|| staple(0)));
            let found = weighed(
                &certified,
                stored,
                || {
                    is_asked = true;
                    None
                },
                NOW,
            );
            assert!(is_asked);
            assert_eq!((found.0, found.1.is_some()), (None, by_hand));
        }
    }
}
