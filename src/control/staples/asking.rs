//! The staple of one certificate: what is at hand is judged, then its responders are asked.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Moment;
use crate::store::Store;

use super::super::addresses::Vouched;
use super::super::autocert::blocking;
use super::super::autocert::mutant::{Mutant, mutant};
use super::super::autocert::transport::Transport;
use super::super::certified::{Certified, Source};
use super::fetch::{self, Unanswered};
use super::issuer::TrustStore;
use super::plan::{Known, Use};
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

/// Responders that are asked about one certificate, each for up to half a minute: no leaf names more than two,
/// and one that does must not hold the place of others.
const TRIED: usize = 4;

/// What came of asking.
#[derive(Debug)]
pub enum Answer {
    /// Somebody else has stored a good one.
    Found(Staple),
    /// Also why it could not be stored, if so.
    Fetched(Staple, Option<io::Error>),
    Bad(Bad),
    Unanswered(Unanswered),
    /// There was no question to ask, for this reason.
    Unasked(String),
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

fn question(certified: &Certified, trust: &TrustStore) -> Result<Question, String> {
    let damaged = || "the certificate is damaged".to_owned();
    let leaf_der = certified.key.cert.first().ok_or_else(damaged)?;
    let (_, leaf) = X509Certificate::from_der(leaf_der).map_err(|_| damaged())?;
    let issuer_der = trust.issuer_of(certified).ok_or(
        "its issuer's certificate is not at hand; put it below the leaf in the chain's file",
    )?;
    let (_, issuer) = X509Certificate::from_der(&issuer_der).map_err(|_| damaged())?;
    let request = request(&leaf, &issuer)?.into();
    let mut responders = Pointers::of(&leaf).responders;
    responders.truncate(TRIED);
    Ok(Question { request, responders, issuer: issuer_der.to_vec() })
}

/// Asks the certificate's responders one after the other, unless another node has stored what is not due yet.
/// What is good is stored before it is returned; what is revoked is stored no more. Also returns whether a
/// responder answers only to POST.
pub async fn ask(
    means: &Means,
    certified: &Arc<Certified>,
    known: Known,
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
    let found = found.filter(|found| known.weigh(&found.good, Moment::now()) == Use::Staple);
    if let Some(found) = &found
        && known.is_enough(&found.good, seed, Moment::now())
    {
        return (Answer::Found(found.clone()), by_post);
    }
    let question = match question {
        Ok(question) => Arc::new(question),
        Err(why) => return (Answer::Unasked(why), by_post),
    };
    let mut last = Answer::Bad(Bad::Refused("it names no responder".into()));
    let mut by_post = by_post;
    for responder in &question.responders {
        let (answer, posted) =
            ask_one(means, certified, &question, responder, known, by_post).await;
        by_post |= posted;
        match answer {
            Answer::Fetched(staple, _) => {
                let unstored = match known.weigh(&staple.good, Moment::now()) {
                    Use::Staple => keep(means, certified, staple.der.clone()).await.err(),
                    Use::KeepStanding | Use::Refuse(_) => None,
                };
                return (Answer::Fetched(staple, unstored), by_post);
            }
            Answer::Bad(Bad::Revoked(revoked)) => {
                let (store, leaf) = (means.store.clone(), certified.clone());
                if let Err(error) = blocking(move || stored::remove(&*store, &leaf)).await {
                    tracing::warn!(
                        %error,
                        "the staple of {certified}, which is revoked, stays in the store; it is removed when its responder says so again"
                    );
                }
                return (Answer::Bad(Bad::Revoked(revoked)), by_post);
            }
            other => last = other,
        }
    }
    (found_instead(last, found), by_post)
}

/// Where no responder could say anything, what is stored is as good as it says, be it past its half.
fn found_instead(last: Answer, found: Option<Staple>) -> Answer {
    match (last, found) {
        (Answer::Unanswered(_) | Answer::Bad(Bad::TryLater(_)), Some(found)) => {
            Answer::Found(found)
        }
        (last, _) => last,
    }
}

async fn keep(means: &Means, certified: &Arc<Certified>, der: Vec<u8>) -> io::Result<()> {
    if mutant(Mutant::StapleNotStored) {
        return Ok(());
    }
    let (store, certified) = (means.store.clone(), certified.clone());
    blocking(move || stored::put(&*store, &certified, &der)).await
}

/// By GET where that is possible, for caches answer it; a final answer counts, and a good one that is fresh.
/// Anything else is asked again by POST, which goes to the responder itself.
async fn ask_one(
    means: &Means,
    certified: &Arc<Certified>,
    question: &Arc<Question>,
    responder: &str,
    known: Known,
    by_post: bool,
) -> (Answer, bool) {
    let vouched = vouched(certified);
    let judged = |der| judged(certified.clone(), question.clone(), der);
    let get = get_url(responder, &question.request).filter(|_| !by_post);
    let mut by_get = None;
    let asked_by_get = get.is_some();
    if let Some(url) = get
        && let Ok(der) = fetch::get(&means.transport, &url, vouched).await
    {
        match judged(der).await {
            Answer::Bad(Bad::Revoked(revoked)) => {
                return (Answer::Bad(Bad::Revoked(revoked)), false);
            }
            Answer::Fetched(staple, _) => {
                let seed = certified.identity().seed();
                if known.is_enough(&staple.good, seed, Moment::now()) {
                    return (Answer::Fetched(staple, None), false);
                }
                by_get = Some(staple);
            }
            _ => {}
        }
    }
    let by_post = match fetch::post(&means.transport, responder, &question.request, vouched).await {
        Ok(der) => judged(der).await,
        Err(unanswered) => Answer::Unanswered(unanswered),
    };
    let only_by_post = asked_by_get && by_get.is_none() && matches!(by_post, Answer::Fetched(..));
    (better(by_get, by_post), only_by_post)
}

/// Of a cache's answer and the responder's own: the one that lasts longer, or the only one that says anything.
fn better(by_get: Option<Staple>, by_post: Answer) -> Answer {
    match (by_get, by_post) {
        (Some(by_get), Answer::Fetched(by_post, _)) if by_get.good.until > by_post.good.until => {
            Answer::Fetched(by_get, None)
        }
        (Some(by_get), Answer::Unanswered(_) | Answer::Bad(Bad::TryLater(_))) => {
            Answer::Fetched(by_get, None)
        }
        (_, by_post) => by_post,
    }
}

/// Judges on the pool, for it verifies signatures.
async fn judged(certified: Arc<Certified>, question: Arc<Question>, der: Bytes) -> Answer {
    blocking(move || {
        let leaf = certified.key.cert.first().map(|leaf| leaf.as_ref()).unwrap_or_default();
        match judge(&der, leaf, &question.issuer, Moment::now()) {
            Ok(good) => Answer::Fetched(Staple { der: der.to_vec(), good }, None),
            Err(bad) => Answer::Bad(bad),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::super::super::certified::samples::{DAY, Issuer, NOW};
    use super::super::super::certified::{certify, samples::source};
    use super::super::super::staple::{attach, samples::staple};
    use super::super::samples::Authority;
    use super::*;

    #[test]
    fn of_the_many_responders_that_a_leaf_names_only_a_few_are_asked() {
        let urls: Vec<String> = (0..99).map(|number| format!("http://{number}.example/")).collect();
        let authority = Authority::new("many");
        let (chain, key) = authority.pair_naming("a.example", &urls);
        let certified = certify(chain.as_bytes(), key.as_bytes(), source()).unwrap();
        let question = question(&certified, &TrustStore::default()).unwrap();
        assert_eq!(question.responders, urls[..TRIED]);
    }

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

    fn unanswered() -> Answer {
        Answer::Unanswered(Unanswered {
            what: "nobody is there".into(),
            not_before: None,
            is_unresolved: false,
        })
    }

    fn good(for_days: u32) -> Staple {
        let good = Good { this_update: NOW, until: NOW.plus(for_days * DAY) };
        Staple { der: for_days.to_be_bytes().to_vec(), good }
    }

    #[test]
    fn a_caches_answer_counts_where_the_responder_has_none_that_lasts_longer() {
        let later = || Answer::Bad(Bad::TryLater("tryLater".into()));
        let refused = || Answer::Bad(Bad::Refused("unauthorized".into()));
        for (by_get, by_post, expected) in [
            (Some(good(1)), Answer::Fetched(good(2), None), Some(2)),
            (Some(good(2)), Answer::Fetched(good(1), None), Some(2)),
            (Some(good(1)), unanswered(), Some(1)),
            (Some(good(1)), later(), Some(1)),
            (Some(good(1)), refused(), None),
            (None, Answer::Fetched(good(1), None), Some(1)),
            (None, unanswered(), None),
        ] {
            let case = format!("{by_get:?} {by_post:?}");
            let found = match better(by_get, by_post) {
                Answer::Fetched(staple, _) => Some(staple),
                _ => None,
            };
            assert_eq!(found, expected.map(good), "{case}");
        }
    }

    #[test]
    fn what_is_stored_is_used_while_nobody_answers_and_not_against_an_answer() {
        let found = |last, found| match found_instead(last, found) {
            Answer::Found(staple) => Some(staple),
            _ => None,
        };
        let later = Answer::Bad(Bad::TryLater("tryLater".into()));
        let refused = Answer::Bad(Bad::Refused("unauthorized".into()));
        assert_eq!(found(unanswered(), Some(good(1))), Some(good(1)));
        assert_eq!(found(later, Some(good(1))), Some(good(1)));
        assert_eq!(found(refused, Some(good(1))), None);
        assert_eq!(found(unanswered(), None), None);
    }
}
