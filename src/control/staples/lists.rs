//! One look into an issuer's list of revoked certificates, for all of ours that name it.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Moment;

use super::super::addresses::Vouched;
use super::super::autocert::blocking;
use super::super::certified::{Certified, Identity};
use super::asking::{Means, vouched};
use super::crl::look_up;
use super::fetch::{self, Unanswered};
use super::issuer::TrustStore;
use super::pointers::Pointers;
use super::response::Revoked;

/// What a look found.
#[derive(Debug)]
pub enum Looked {
    /// The list is the one that was looked into before.
    Same,
    New {
        etag: Option<Tag>,
        found: Found,
    },
    /// Why the list says nothing.
    Refused(String),
    Unanswered(Unanswered),
}

/// What a list is named by where it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub url: String,
    pub value: HeaderValue,
}

/// URLs that are tried for one list, each for minutes perhaps.
const TRIED: usize = 4;

/// Fetches the list unless it is still the one of this tag, and looks all of these up in it: from the first of
/// the points' URLs that has one which says something.
pub async fn look(
    means: &Means,
    points: &[Vec<String>],
    known: Option<&Tag>,
    members: Vec<Arc<Certified>>,
) -> Looked {
    let members = Arc::new(members);
    let (mut first, mut tried) = (None, 0);
    for point in points {
        for url in point.iter().take(TRIED - tried) {
            tried += 1;
            let looked = look_at(means, point, url, known, members.clone()).await;
            if matches!(looked, Looked::Same | Looked::New { .. }) {
                return looked;
            }
            first.get_or_insert(looked);
        }
    }
    first.unwrap_or_else(|| Looked::Refused("it has no URL".into()))
}

async fn look_at(
    means: &Means,
    point: &[String],
    url: &str,
    known: Option<&Tag>,
    members: Arc<Vec<Arc<Certified>>>,
) -> Looked {
    // One that an operator set by hand vouches for the URL that others name too.
    let is_by_operator = members.iter().any(|member| vouched(member) == Vouched::ByOperator);
    let by = if is_by_operator { Vouched::ByOperator } else { Vouched::ByIssuer };
    let known = known.filter(|known| known.url == url).map(|known| &known.value);
    let fetched = match fetch::list(&means.transport, url, known, by).await {
        Ok(Some(fetched)) => fetched,
        Ok(None) => return Looked::Same,
        Err(unanswered) => return Looked::Unanswered(unanswered),
    };
    let (trust, point) = (means.trust.clone(), point.to_vec());
    let looked = blocking(move || {
        let names: Vec<&str> = point.iter().map(String::as_str).collect();
        look_all_up(&fetched.der, &names, &members, &trust, Moment::now())
            .map(|found| (fetched.etag, found))
    })
    .await;
    match looked {
        Ok((etag, found)) => {
            let etag = etag.map(|value| Tag { url: url.to_owned(), value });
            Looked::New { etag, found }
        }
        Err(why) => Looked::Refused(why),
    }
}

/// What a list says of those that it was asked about.
#[derive(Debug, Default)]
pub struct Found {
    pub next_update: Option<Moment>,
    pub revoked: Vec<(Identity, Revoked)>,
    /// Those that it would name if they were revoked, and does not, with the time at which that was so. An expired list
    /// says nothing of what is not in it, and none of certificates that are over (RFC 5280 §3.3).
    pub good_as_of: HashMap<Identity, Moment>,
    /// Why it says nothing of some of them, where it names none.
    pub refused: Option<String>,
}

fn look_all_up(
    der: &[u8],
    point: &[&str],
    members: &[Arc<Certified>],
    trust: &TrustStore,
    now: Moment,
) -> Result<Found, String> {
    let (by_issuer, has_orphans) = by_issuer(members, |member| trust.issuer_of(member));
    let mut refused = has_orphans.then(|| "its issuer's certificate is not at hand".to_owned());
    let mut all = Found::default();
    for (issuer, members) in by_issuer {
        let serials: Vec<Vec<u8>> = members.iter().filter_map(|member| serial(member)).collect();
        let wanted = serials.iter().map(Vec::as_slice);
        match look_up(der, point, &issuer, wanted, now) {
            Ok(listed) => {
                all.next_update = listed.next_update;
                let is_current = listed.next_update.is_none_or(|next| next > now);
                // By members: the same leaf may lie in two files.
                for member in members {
                    let Some(serial) = serial(member) else { continue };
                    match listed.revoked.get(&serial) {
                        Some(why) => all.revoked.push((member.identity(), *why)),
                        None if is_current && member.is_valid(now) && names(member, point) => {
                            all.good_as_of.insert(member.identity(), listed.this_update);
                        }
                        None => {}
                    }
                }
            }
            Err(why) => refused = Some(why),
        }
    }
    match refused.filter(|_| all.revoked.is_empty()) {
        Some(why) if all.good_as_of.is_empty() => Err(why),
        refused => Ok(Found { refused, ..all }),
    }
}

/// Whether a member leads to this distribution point, so that a list of it would name it.
fn names(member: &Certified, point: &[&str]) -> bool {
    let leaf = member.key.cert.first();
    let points = leaf.map(|leaf| Pointers::of_der(leaf).crls).unwrap_or_default();
    points.iter().flatten().any(|url| point.contains(&url.as_str()))
}

type ByIssuer<'a> = HashMap<CertificateDer<'static>, Vec<&'a Arc<Certified>>>;

/// The members of each issuer, so that the list is verified and gone through once for all of them; and whether
/// some have none at hand. Those with the same certificate above them share its issuer, which is looked for
/// once; those with none above them are of different issuers, maybe.
fn by_issuer<'a>(
    members: &'a [Arc<Certified>],
    issuer_of: impl Fn(&Certified) -> Option<CertificateDer<'static>>,
) -> (ByIssuer<'a>, bool) {
    let mut above: HashMap<&[u8], Vec<&Arc<Certified>>> = HashMap::new();
    for member in members {
        let next = member.key.cert.get(1).map(|issuer| issuer.as_ref());
        above.entry(next.or(member.unsent_issuer).unwrap_or_default()).or_default().push(member);
    }
    let (mut by_issuer, mut has_orphans) = (ByIssuer::new(), false);
    for (above, members) in above {
        let parts: Vec<&[&Arc<Certified>]> = match above.is_empty() {
            true => members.chunks(1).collect(),
            false => vec![&members],
        };
        for part in parts {
            match part.first().and_then(|first| issuer_of(first)) {
                Some(issuer) => by_issuer.entry(issuer).or_default().extend(part),
                None => has_orphans = true,
            }
        }
    }
    (by_issuer, has_orphans)
}

fn serial(certified: &Certified) -> Option<Vec<u8>> {
    let (_, leaf) = X509Certificate::from_der(certified.key.cert.first()?).ok()?;
    Some(leaf.tbs_certificate.raw_serial().to_vec())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::super::super::autocert::transport::Transport;
    use super::super::super::certified::samples::{DAY, Issuer, NOW};
    use super::*;
    use crate::store::directory::scratch::ScratchStore;

    #[test]
    fn a_list_is_gone_through_once_for_all_of_an_issuer_with_or_without_a_chain() {
        let issuer = Issuer::new("by-issuer");
        let intermediate = CertificateDer::from(issuer.intermediate.der().to_vec());
        let make = |chained: bool, number: usize| {
            let mut one = issuer.certified(&[&format!("n{number}.example")], NOW.plus(DAY));
            if chained {
                let mut key = (*one.key).clone();
                key.cert.push(intermediate.clone());
                one.key = Arc::new(key);
            }
            Arc::new(one)
        };
        let members: Vec<_> = (0..20).map(|number| make(number < 10, number)).collect();
        let asked = Cell::new(0);
        let issuer_of = |_: &Certified| {
            asked.set(asked.get() + 1);
            Some(intermediate.clone())
        };
        let (found, has_orphans) = by_issuer(&members, issuer_of);
        assert!(!has_orphans);
        assert_eq!(found.len(), 1);
        assert_eq!(found[&intermediate].len(), 20);
        // Each without a chain may be of an issuer of its own.
        assert_eq!(asked.get(), 1 + 10);
        let (found, has_orphans) = by_issuer(&members, |_| None);
        assert!(found.is_empty() && has_orphans);
    }

    #[tokio::test]
    async fn the_urls_of_all_points_are_tried_in_turn_and_no_more_than_a_few() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let (path, mut paths) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 1024];
                let read = stream.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                path.send(head.split(' ').nth(1).unwrap_or_default().to_owned()).unwrap();
                let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        });
        let (_scratch, store) = ScratchStore::new("lists-turn");
        let transport = Transport::over(rustls::RootCertStore::empty(), None).unwrap();
        let trust = TrustStore::of(std::iter::empty());
        let means = Means { transport, store: Arc::new(store), trust };
        let member = Issuer::new("lists").certified(&["a.example"], NOW.plus(DAY));
        let point = |numbers: &[u8]| -> Vec<String> {
            numbers.iter().map(|number| format!("http://{place}/{number}")).collect()
        };
        let points = [point(&[1, 2]), point(&[3, 4, 5])];
        let looked = look(&means, &points, None, vec![Arc::new(member)]).await;
        assert!(matches!(looked, Looked::Unanswered(_)), "{looked:?}");
        let mut asked = Vec::new();
        while let Ok(path) = paths.try_recv() {
            asked.push(path);
        }
        assert_eq!(asked, ["/1", "/2", "/3", "/4"]);
    }
}
