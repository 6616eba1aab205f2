//! One turn for one name: lock it, look again, decide, act, store what came of it.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::clock::Moment;
use crate::config::autocert::ChallengeKind;
use crate::name::ServerName;
use crate::store::layout;
use crate::store::record::{Attempts, Certificate, Class, OpenOrder};

use super::account::cannot_store;
use super::ari;
use super::blocking;
use super::ca::Ca;
use super::held::Held;
use super::http_client::{attended, last_answer};
use super::kinds;
use super::mutant::{Mutant, mutant};
use super::order::Ordering;
use super::plan::{Asked, Facts, Plan, Why, plan};
use super::stored::{self, Known};
use super::verdict::Failed;
use super::writes;

/// Where a CA has no renewal information it is not looked for again before.
const NO_RENEWAL_INFORMATION: Duration = Duration::from_secs(24 * 3600);

/// What came of a turn.
#[derive(Debug)]
pub enum Outcome {
    /// Somebody else is at work on the name.
    Busy,
    /// Nothing was due any more, or only something small.
    Nothing,
    Obtained {
        why: Why,
        renewed: bool,
    },
    Failed(Failed),
    /// Nothing was asked of the CA: what must be kept could not be stored, and there is time.
    CannotStore(Failed),
}

/// A finished turn.
pub struct Turn {
    pub known: Known,
    pub outcome: Outcome,
    /// Whether the store took what it was given.
    pub storable: bool,
}

/// The facts that decisions about a name are made from.
pub fn facts<'a>(
    known: &'a Known,
    ca: &Ca,
    asked: Option<Asked>,
    storable: bool,
    seed: u64,
) -> Facts<'a> {
    static NONE: Attempts = Attempts { failures: 0, validations: 0, last: None };
    // What a person could mend is tried again at once when that person changed something.
    let mended = known
        .record
        .attempts
        .last
        .as_ref()
        .is_some_and(|last| last.remedy.is_some() && last.settings != ca.fingerprint);
    let certificate = known.record.certificate.as_ref();
    Facts {
        validity: known.validity(),
        renewal: certificate.and_then(|certificate| certificate.renewal.as_ref()),
        ask_renewal_at: certificate
            .map(|certificate| certificate.ask_renewal_at.unwrap_or(Moment::from_unix_seconds(0))),
        obtained: certificate.and_then(|certificate| certificate.obtained),
        revoked: certificate.is_some_and(|certificate| certificate.revoked),
        open_order: known.record.order.as_ref().is_some_and(|order| order.url.is_some()),
        attempts: if mended { &NONE } else { &known.record.attempts },
        asked,
        storable,
        seed,
    }
}

/// The failure of a turn whose challenges all failed: what the CA said of each, and what it needs. It is
/// judged by the last one.
fn unproved(refused: Vec<Failed>, possible: &[ChallengeKind]) -> Failed {
    let needs = match possible {
        [ChallengeKind::TlsAlpn01] => {
            "the CA must reach address as port 443 of this name (http_redirect_addr, reached as port 80, would do too)"
        }
        [ChallengeKind::Http01] => "the CA must reach http_redirect_addr as port 80 of this name",
        _ => {
            "the CA must reach address as port 443 of this name, or http_redirect_addr as its port 80"
        }
    };
    let mut words: Vec<_> = refused.iter().map(|failed| failed.what.as_str()).collect();
    words.push(needs);
    let what = words.join("; ");
    match refused.into_iter().next_back() {
        Some(last) => Failed { what, ..last },
        None => Failed::new(Class::Validation, what),
    }
}

/// Takes one turn.
pub async fn take_turn(
    ca: Arc<Ca>,
    name: ServerName,
    known: Known,
    asked: Option<Asked>,
    seed: u64,
) -> Turn {
    attended(turn(&ca, &name, known, asked, seed)).await
}

async fn turn(ca: &Ca, name: &ServerName, known: Known, asked: Option<Asked>, seed: u64) -> Turn {
    let lock = match Held::try_take(&ca.store, layout::issue_lock(name.as_str())).await {
        Ok(Some(lock)) => Some(lock),
        Ok(None) if mutant(Mutant::LockIgnored) => None,
        Ok(None) => return Turn { known, outcome: Outcome::Busy, storable: true },
        // Without a store there is nobody to keep out either.
        Err(error) => {
            debug!(%name, %error, "no lock");
            None
        }
    };
    let before = known.clone();
    let storable = lock.is_some() || mutant(Mutant::LockIgnored);
    let mut locked = Locked { ca, name, storable, known, lock };
    let outcome = locked.work(asked, seed).await;
    let Locked { known, lock, storable, .. } = locked;
    let is_lost = lock.as_ref().is_some_and(Held::is_lost);
    if let Some(lock) = lock {
        lock.release().await;
    }
    if is_lost {
        // Whoever took the lock goes on with what is stored, and so does our next turn.
        return Turn { known: before, outcome: Outcome::Busy, storable: true };
    }
    Turn { known, outcome, storable }
}

struct Locked<'a> {
    ca: &'a Ca,
    name: &'a ServerName,
    known: Known,
    storable: bool,
    lock: Option<Held>,
}

impl Locked<'_> {
    async fn work(&mut self, asked: Option<Asked>, seed: u64) -> Outcome {
        match self.decide_and_act(asked, seed).await {
            Ok(outcome) => outcome,
            Err(failed) => {
                let failure = failed.at(Moment::now(), &self.ca.fingerprint);
                self.known.record.attempts.count(failure);
                self.save().await;
                Outcome::Failed(failed)
            }
        }
    }

    async fn decide_and_act(&mut self, asked: Option<Asked>, seed: u64) -> Result<Outcome, Failed> {
        self.look_again().await?;
        if self.known.unsettled {
            self.commit().await;
        }
        // A revoked certificate that another node has replaced is not asked to be replaced again.
        let decided = plan(&facts(&self.known, self.ca, asked, true, seed), Moment::now());
        let why = match decided {
            Plan::Rest { .. } | Plan::AskOperator { .. } => return Ok(Outcome::Nothing),
            Plan::AskRenewal { .. } => {
                self.ask_renewal().await;
                return Ok(Outcome::Nothing);
            }
            Plan::Order { why } | Plan::Resume { why } => why,
        };
        // Shows whether the store takes what must be stored before the order is placed.
        if !self.save().await {
            let decided = plan(&facts(&self.known, self.ca, asked, false, seed), Moment::now());
            if !matches!(decided, Plan::Order { .. } | Plan::Resume { .. }) {
                return Ok(Outcome::CannotStore(Failed::operator(
                    "private key and order cannot be stored",
                    "autocert_dir must be ringgate's to write, with space left",
                )));
            }
            warn!(name = %self.name, "ordering although nothing can be stored, for there is no certificate that will do");
        }
        let renewed = self.known.certified.is_some();
        self.obtain().await?;
        Ok(Outcome::Obtained { why, renewed })
    }

    /// What the store says now counts, unless it could not take what we know.
    async fn look_again(&mut self) -> Result<(), Failed> {
        let (store, issuer, name) =
            (self.ca.store.clone(), self.ca.settings.ca.clone(), self.name.clone());
        let read = blocking(move || stored::read(&*store, &issuer, &name)).await;
        match read {
            Ok(found) => {
                let since = |known: &Known| known.certified.as_ref().map(|one| one.not_before);
                let is_later = since(&found) > since(&self.known);
                let is_same = since(&found) == since(&self.known);
                let is_ours = self.known.unsettled && self.known.is_obtained();
                if is_later || (is_same && !is_ours) {
                    let before = std::mem::replace(&mut self.known, found);
                    let since = |attempts: &Attempts| attempts.last.as_ref().map(|last| last.at);
                    let (before, attempts) =
                        (before.record.attempts, &mut self.known.record.attempts);
                    // What the store has not taken of our failures counts all the same.
                    if is_same && since(&before) > since(attempts) {
                        *attempts = before;
                    }
                } else {
                    // Somebody emptied the store, or it did not take what we know: it is offered again.
                    self.known.unsettled = true;
                    let held = self.known.record.certificate.as_mut();
                    if let (Some(held), Some(found)) = (held, &found.record.certificate) {
                        // Revoked while we had something that the store had not taken.
                        held.revoked |= found.revoked && found.chain == held.chain;
                    }
                    let held = self.known.record.certificate.as_ref();
                    if self.known.record.order.is_none() {
                        let open = found.record.order;
                        self.known.record.order = open.filter(|open| is_unfinished(open, held));
                    }
                }
                Ok(())
            }
            Err(_) if self.known.certified.is_some() => {
                self.storable = false;
                Ok(())
            }
            Err(error) => Err(cannot_store(&error)),
        }
    }

    async fn obtain(&mut self) -> Result<(), Failed> {
        let (account, directory) = self.ca.account().await?;
        let has_renewal_information = directory.renewal_info.is_some();
        let replaces = self.known.certified.as_ref().and_then(|certified| {
            let by = self.known.record.certificate.as_ref().map(|one| one.account.as_str());
            // Another account's certificate cannot be replaced (RFC 9773 §5).
            let ours = by.is_none_or(|by| by.is_empty() || by == account.id());
            ari::identifier(certified.key.cert.first()?).filter(|_| ours)
        });
        let kinds = kinds::kinds(&self.ca.challenges, &self.known.record);
        let mut kinds = kinds.into_iter().peekable();
        let mut refused = Vec::new();
        while let Some(kind) = kinds.next() {
            if self.lock.as_ref().is_some_and(Held::is_lost) {
                return Err(Failed::new(
                    Class::Unreachable,
                    "another node took the lock of this name",
                ));
            }
            let mut ordering = Ordering {
                ca: self.ca,
                account: account.clone(),
                directory: directory.clone(),
                name: self.name,
                record: &mut self.known.record,
                must_store: self.storable,
                lock: self.lock.as_ref(),
            };
            match ordering.certificate(kind, replaces.as_deref()).await {
                Ok(certificate) if self.holds(&certificate) => {
                    self.known.record.order = None;
                    return Err(Failed::new(
                        Class::Unreachable,
                        "the open order was that of the certificate we have; another is placed",
                    ));
                }
                Ok(mut certificate) => {
                    let now = Moment::now();
                    let pause = if has_renewal_information {
                        Duration::ZERO
                    } else {
                        NO_RENEWAL_INFORMATION
                    };
                    certificate.ask_renewal_at = Some(now.plus(pause));
                    certificate.obtained = Some(now);
                    self.known.take(self.name, certificate).map_err(|why| {
                        self.known.record.order = None;
                        // Whatever it is, another order gets the same.
                        Failed::operator(
                            format!("what the CA issued cannot be served: {why}"),
                            "see what the CA issues for this name and by which autocert_profile, or name another CA with autocert_ca",
                        )
                    })?;
                    self.known.record.order = None;
                    self.known.record.attempts = Attempts::default();
                    self.known.record.worked = Some(kind.as_str().into());
                    self.commit().await;
                    return Ok(());
                }
                Err(failed) if failed.is("accountDoesNotExist") => {
                    self.ca.account_is_forgotten().await;
                    return Err(failed);
                }
                Err(failed) if last_answer().status == 404 => {
                    self.ca.directory_is_stale().await;
                    return Err(failed);
                }
                // Another challenge may do where this one does not.
                Err(failed) if failed.class == Class::Validation => {
                    if let Some(next) = kinds.peek() {
                        info!(name = %self.name, error = failed.what, next = next.as_str(), "the next challenge is tried");
                    }
                    refused.push(failed);
                }
                Err(failed) => return Err(failed),
            }
        }
        Err(unproved(refused, &self.ca.challenges))
    }

    /// Whether it is the certificate that is to be replaced.
    fn holds(&self, certificate: &Certificate) -> bool {
        self.known.record.certificate.as_ref().is_some_and(|held| held.chain == certificate.chain)
    }

    async fn ask_renewal(&mut self) {
        let now = Moment::now();
        let later = now.plus(NO_RENEWAL_INFORMATION);
        let directory = match self.ca.http.directory() {
            Some(directory) => directory,
            None => match self.ca.account().await {
                Ok((_, directory)) => directory,
                Err(failed) => {
                    debug!(name = %self.name, %failed, "no renewal information");
                    self.set_ask_renewal(now.plus(ari::AFTER_FAILURE));
                    return;
                }
            },
        };
        let (validity, certified) = (self.known.validity(), self.known.certified.clone());
        let id = certified.and_then(|certified| ari::identifier(certified.key.cert.first()?));
        let (Some(id), Some(validity)) = (id, validity) else {
            self.set_ask_renewal(later);
            return;
        };
        let before = self.known.record.certificate.as_ref().and_then(|one| one.renewal.clone());
        let asked =
            ari::ask(&self.ca.http, &directory, &id, validity.seed, before.as_ref(), now).await;
        match asked {
            None => self.set_ask_renewal(later),
            Some(asked) => {
                if let Some(why) = asked.failure {
                    debug!(name = %self.name, why, "no renewal information");
                }
                let news = asked.renewal != before;
                if let Some(certificate) = &mut self.known.record.certificate {
                    certificate.renewal = asked.renewal;
                }
                self.set_ask_renewal(asked.ask_again);
                if news {
                    return self.commit().await;
                }
            }
        }
        self.save().await;
    }

    fn set_ask_renewal(&mut self, at: Moment) {
        if let Some(certificate) = &mut self.known.record.certificate {
            certificate.ask_renewal_at = Some(at);
        }
    }

    async fn save(&mut self) -> bool {
        let saved = writes::save(&self.ca.store, self.lock.as_ref(), &self.known.record).await;
        if let Err(error) = &saved {
            warn!(name = %self.name, %error, "not stored");
        }
        self.storable = saved.is_ok();
        // What the store has not taken is kept in memory and offered again.
        self.known.unsettled |= saved.is_err();
        self.storable
    }

    async fn commit(&mut self) {
        let lock = self.lock.as_ref();
        let outcome = writes::commit(&self.ca.store, lock, &mut self.known).await;
        self.storable = outcome.is_ok();
        if let Err(error) = outcome {
            warn!(name = %self.name, %error, "the certificate is served from memory and stored as soon as it can be");
        }
    }
}

/// Whether an order that was found is not the one that the certificate we hold came from: had we stored the
/// certificate, the order would be gone. Pure.
fn is_unfinished(open: &OpenOrder, held: Option<&Certificate>) -> bool {
    held.is_none_or(|held| held.private_key != open.private_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_order_does_not_come_back_to_life_after_a_commit_that_failed() {
        let order = |key: &str| OpenOrder {
            private_key: key.into(),
            url: Some("https://ca.example/order/1".into()),
            begun: Moment::from_unix_seconds(1),
            challenge: None,
        };
        let held = Certificate { private_key: "one".into(), ..Certificate::default() };
        assert!(!is_unfinished(&order("one"), Some(&held)));
        assert!(is_unfinished(&order("two"), Some(&held)));
        assert!(is_unfinished(&order("one"), None));
    }

    #[test]
    fn what_each_challenge_met_is_said_and_what_is_needed() {
        let refused =
            ["tls-alpn-01: x", "http-01: y"].map(|what| Failed::new(Class::Validation, what));
        let both = [ChallengeKind::TlsAlpn01, ChallengeKind::Http01];
        let said = unproved(refused.to_vec(), &both).what;
        assert!(
            said.starts_with("tls-alpn-01: x; http-01: y; the CA must reach address"),
            "{said}"
        );
        for (possible, expected) in [
            (&both[..1], "(http_redirect_addr, reached as port 80, would do too)"),
            (&both[1..], "the CA must reach http_redirect_addr as port 80 of this name"),
        ] {
            let said = unproved(refused[..1].to_vec(), possible).what;
            assert!(said.ends_with(expected), "{said}");
        }
    }
}
