//! What is known of one name at every issuer, and which certificate of it serves.

use std::io;
use std::sync::Arc;

use crate::name::ServerName;
use crate::store::Store;
use crate::store::record::{Attempts, Certificate, Failure, OpenOrder, Record};

use super::super::certified::Certified;
use super::stored::{self, Known};

#[derive(Clone, Debug)]
pub struct Dossier {
    /// At the configured issuers, in their order.
    pub at: Vec<Known>,
    /// The certificate of an issuer that is configured no more: it serves until it is due.
    pub former: Option<Known>,
}

impl Dossier {
    /// A name that nobody has issued for.
    pub fn nothing<'a>(name: &ServerName, directories: impl Iterator<Item = &'a str>) -> Self {
        let nothing = |directory| Known::nothing(Record::new(name.as_str(), directory));
        Self { at: directories.map(nothing).collect(), former: None }
    }

    /// What counts for serving and renewal: of all certificates the one that was issued last, and of two of
    /// the same moment that of the issuer that comes first.
    pub fn serving(&self) -> Option<&Known> {
        let mut all = self.at.iter().chain(&self.former);
        let issued = |known: &Known| known.certified.as_ref().map(|one| one.not_before);
        let latest = self.at.iter().chain(&self.former).filter_map(issued).max()?;
        all.find(|known| issued(known) == Some(latest))
    }

    /// At which configured issuer it was obtained.
    pub fn serving_at(&self) -> Option<usize> {
        let serving = self.serving()?;
        self.at.iter().position(|known| std::ptr::eq(known, serving))
    }

    pub fn serving_mut(&mut self) -> Option<&mut Known> {
        match self.serving_at() {
            Some(at) => self.at.get_mut(at),
            None => self.former.as_mut(),
        }
    }

    pub fn certified(&self) -> Option<&Arc<Certified>> {
        self.serving().and_then(|known| known.certified.as_ref())
    }

    /// Whether the store or CertMagic's files do not hold all of this yet.
    pub fn is_unsettled(&self) -> bool {
        self.at.iter().any(|known| known.unsettled)
    }

    /// The last failure since the certificate was obtained, whoever's. One of the same second came before it: an
    /// issuer that refuses sends us to the next one, which may issue within that second.
    pub fn last_failure_since(&self) -> Option<&Failure> {
        let obtained = self.serving().and_then(|known| known.record.certificate.as_ref()?.obtained);
        let serving_at = self.serving_at();
        let failures = self.failures().filter(|(at, last)| {
            // A success forgets the failures of its issuer, whatever the clock showed then.
            serving_at == Some(*at) || obtained.is_none_or(|at| last.at > at)
        });
        failures.map(|(_, last)| last).max_by_key(|last| last.at)
    }

    /// The last failure, be it older than the certificate: what a pause is for, though the clock was ahead
    /// when the certificate was obtained.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.failures().map(|(_, last)| last).max_by_key(|last| last.at)
    }

    /// The last failure at each configured issuer that has one, with its place in their order.
    fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> {
        let at = self.at.iter().enumerate();
        at.filter_map(|(at, known)| Some((at, known.record.attempts.last.as_ref()?)))
    }
}

/// Reads what the store knows of a name at these issuers.
///
/// # Errors
/// If the store cannot be read.
pub fn read<'a>(
    store: &dyn Store,
    name: &ServerName,
    directories: impl Iterator<Item = &'a str>,
) -> io::Result<Vec<Known>> {
    read_again(store, name, directories.map(|directory| (directory, None)))
}

/// Reads it again, at each issuer with the certificate that is held from there.
///
/// # Errors
/// If the store cannot be read.
pub fn read_again<'a>(
    store: &dyn Store,
    name: &ServerName,
    held: impl Iterator<Item = (&'a str, Option<&'a Arc<Certified>>)>,
) -> io::Result<Vec<Known>> {
    held.map(|(directory, held)| stored::read_again(store, directory, name, held)).collect()
}

/// Takes in what the store says now: it counts, unless it could not take what we know.
pub fn take_in(known: &mut Known, found: Known) {
    let since = |known: &Known| known.certified.as_ref().map(|one| one.not_before);
    let is_later = since(&found) > since(known);
    let is_same = since(&found) == since(known);
    let is_ours = known.unsettled && known.is_obtained();
    let failed = |known: &Known| known.record.attempts.last.as_ref().map(|last| last.at);
    // What failed last the store has not taken, nor what became of the order then.
    let is_behind = failed(known) > failed(&found);
    let is_overtaken = failed(&found) > failed(known);
    let is_news = !is_behind || is_begun_later(found.record.order.as_ref(), &known.record.attempts);
    if is_later || (is_same && !is_ours) {
        let before = std::mem::replace(known, found).record;
        // Our failures count all the same.
        if is_same && is_behind {
            if !is_news {
                known.record.order = before.order;
            }
            known.record.attempts = before.attempts;
            known.unsettled = true;
        }
        return;
    }
    // And so do those of another node.
    if is_same && is_overtaken {
        known.record.attempts = found.record.attempts;
    }
    // Somebody emptied the store, or it did not take what we know: it is offered again.
    known.unsettled = true;
    let held = known.record.certificate.as_mut();
    if let (Some(held), Some(found)) = (held, &found.record.certificate) {
        // Revoked while we had something that the store had not taken.
        held.revoked |= found.revoked && found.chain == held.chain;
    }
    let held = known.record.certificate.as_ref();
    if known.record.order.is_none() {
        let open = found.record.order;
        known.record.order = open.filter(|open| is_news && is_unfinished(open, held));
    }
}

/// Whether an order was begun after the last of these failures, so that it is another than the one that failed. Pure.
fn is_begun_later(open: Option<&OpenOrder>, attempts: &Attempts) -> bool {
    let last = attempts.last.as_ref();
    open.is_some_and(|open| last.is_none_or(|last| open.begun > last.at))
}

/// Whether an order that was found is not the one that the certificate we hold came from: had we stored the
/// certificate, the order would be gone. Pure.
fn is_unfinished(open: &OpenOrder, held: Option<&Certificate>) -> bool {
    held.is_none_or(|held| held.private_key != open.private_key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::PKCS_ECDSA_P256_SHA256;

    use super::super::super::certified::samples::{Issuer, NOW};
    use super::*;
    use crate::clock::Moment;
    use crate::store::record::Class;

    fn failure(at: Moment, class: Class) -> Failure {
        let (what, settings) = (String::new(), String::new());
        Failure { at, class, what, remedy: None, not_before: None, settings }
    }

    fn order(private_key: &str, url: Option<&str>, begun: Moment) -> OpenOrder {
        let (private_key, url) = (private_key.into(), url.map(str::to_owned));
        OpenOrder { private_key, url, begun, challenge: None, counts: None }
    }

    #[test]
    fn a_finished_order_does_not_come_back_to_life_after_a_commit_that_failed() {
        let order = |key| order(key, Some("https://ca.example/order/1"), NOW);
        let held = Certificate { private_key: "one".into(), ..Certificate::default() };
        assert!(!is_unfinished(&order("one"), Some(&held)));
        assert!(is_unfinished(&order("two"), Some(&held)));
        assert!(is_unfinished(&order("one"), None));
    }

    #[test]
    fn an_order_that_failed_and_one_of_which_the_store_knows_nothing_are_as_memory_has_them() {
        let seconds = |seconds| NOW.plus(Duration::from_secs(seconds));
        let order = |url, begun| order("key", url, seconds(begun));
        let known = |order: Option<OpenOrder>, failed: Option<u64>| {
            let mut known = Known::nothing(Record::new("a.example", "https://ca/dir"));
            known.record.order = order;
            if let Some(failed) = failed {
                known.record.attempts.count(failure(seconds(failed), Class::Validation));
            }
            known
        };
        let placed = || Some(order(Some("https://ca/order/1"), 1));
        for (ours, failed, found, stored, expected) in [
            // It failed, and the store did not take that.
            (None, Some(2), placed(), None, None),
            // It was placed, and the store took neither its URL nor what failed then.
            (placed(), Some(2), Some(order(None, 1)), None, placed()),
            // Another node placed one since.
            (None, Some(2), Some(order(Some("theirs"), 3)), None, Some(order(Some("theirs"), 3))),
            // What the store knows is newer.
            (None, Some(2), placed(), Some(4), placed()),
            (placed(), None, None, Some(4), None),
        ] {
            let mut known_before = known(ours, failed);
            let unsettled = failed > stored;
            take_in(&mut known_before, known(found, stored));
            assert_eq!(known_before.record.order, expected);
            assert_eq!(known_before.unsettled, unsettled);
        }
    }

    #[test]
    fn another_nodes_failure_counts_though_what_we_hold_is_not_settled() {
        let name = ServerName::parse("a.example").unwrap();
        let (chain, private_key) =
            Issuer::new("dossier-failures").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        let obtained = Some(NOW);
        let certificate = Certificate { chain, private_key, obtained, ..Certificate::default() };
        let with = |failed: Option<u64>, unsettled| {
            let mut known = Known::nothing(Record::new("a.example", "https://ca/dir"));
            known.take(&name, certificate.clone()).unwrap();
            known.unsettled = unsettled;
            if let Some(seconds) = failed {
                let at = NOW.plus(Duration::from_secs(seconds));
                known.record.attempts.count(failure(at, Class::Validation));
            }
            known
        };
        for (ours, theirs, counted) in
            [(None, Some(1), Some(1)), (Some(2), Some(1), Some(2)), (Some(1), None, Some(1))]
        {
            for unsettled in [false, true] {
                let mut known = with(ours, unsettled);
                take_in(&mut known, with(theirs, false));
                let last = known.record.attempts.last.map(|last| last.at.since(NOW).as_secs());
                assert_eq!(last, counted, "{ours:?} {theirs:?} {unsettled}");
            }
        }
    }

    #[test]
    fn the_first_of_those_issued_last_serves_and_older_failures_are_not_told() {
        let name = ServerName::parse("a.example").unwrap();
        let directories = ["https://one/dir", "https://two/dir"];
        let mut dossier = Dossier::nothing(&name, directories.into_iter());
        assert!(dossier.serving().is_none() && dossier.certified().is_none());
        let (chain, private_key) =
            Issuer::new("dossier").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        let certificate = |obtained| Certificate {
            chain: chain.clone(),
            private_key: private_key.clone(),
            obtained,
            ..Certificate::default()
        };
        let mut former = Known::nothing(Record::new("a.example", "https://old/dir"));
        former.take(&name, certificate(None)).unwrap();
        dossier.former = Some(former);
        assert_eq!(dossier.serving_at(), None);
        assert_eq!(dossier.serving().unwrap().record.issuer, "https://old/dir");
        dossier.at[1].take(&name, certificate(Some(NOW))).unwrap();
        assert_eq!(dossier.serving_at(), Some(1));
        let second = Duration::from_secs(1);
        let (at, later) = (NOW.minus(second), NOW.plus(second));
        let failure = |at| failure(at, Class::Unreachable);
        for at in [at, NOW] {
            dossier.at[0].record.attempts.count(failure(at));
            assert_eq!(dossier.last_failure_since(), None);
            assert_eq!(dossier.last_failure().map(|last| last.at), Some(at));
        }
        dossier.at[0].record.attempts.count(failure(later));
        assert_eq!(dossier.last_failure_since().map(|last| last.at), Some(later));
        // By a clock that was set back since, one of the issuer that serves seems older.
        dossier.at[0].record.attempts = Attempts::default();
        dossier.at[1].record.attempts.count(failure(at));
        assert_eq!(dossier.last_failure_since().map(|last| last.at), Some(at));
    }
}
