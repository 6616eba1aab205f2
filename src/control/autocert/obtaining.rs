//! One try at one issuer: by which challenge, in the place of which certificate, and what is kept of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::clock::Moment;
use crate::config::autocert::ChallengeKind;
use crate::name::ServerName;
use crate::store::record::{Attempts, Certificate, Class};

use super::ari;
use super::budget::Counts;
use super::ca::Ca;
use super::held::Held;
use super::http_client::last_answer;
use super::kinds;
use super::order::{Keeping, Ordering};
use super::stored::Known;
use super::trial;
use super::verdict::Failed;
use super::writes;

/// Where a CA has no renewal information it is not looked for again before.
const NO_RENEWAL_INFORMATION: Duration = Duration::from_secs(24 * 3600);

/// What one issuer and we know of a name, while its lock is held.
pub struct Obtaining<'a> {
    pub ca: &'a Arc<Ca>,
    pub name: &'a ServerName,
    pub known: &'a mut Known,
    /// How an order counts against the issuer's limits.
    pub counts: Counts,
    /// Its certificate is the one that serves, and is to be replaced.
    pub serves: bool,
    /// Whether the store takes what it is given.
    pub storable: &'a mut bool,
    pub lock: Option<&'a Held>,
}

impl Obtaining<'_> {
    /// Obtains a certificate and stores it.
    ///
    /// # Errors
    /// What the CA, or something between it and us, has against it.
    pub async fn obtain(&mut self) -> Result<(), Failed> {
        let (account, directory) = self.ca.account().await?;
        let has_renewal_information = directory.renewal_info.is_some();
        let replaced = self.known.certified.as_ref().filter(|_| self.serves);
        let replaces = replaced.and_then(|certified| {
            let held = self.known.record.certificate.as_ref();
            let is_ours = held.is_none_or(|held| held.is_of(account.id()));
            ari::identifier(certified.key.cert.first()?).filter(|_| is_ours)
        });
        let kinds = kinds::kinds(&self.ca.challenges, &self.known.record);
        let mut kinds = kinds.into_iter().peekable();
        let mut refused = Vec::new();
        while let Some(kind) = kinds.next() {
            if self.lock.is_some_and(Held::is_lost) {
                return Err(Failed::new(
                    Class::Unreachable,
                    "another node took the lock of this name",
                ));
            }
            if let Some(staging) = &self.ca.trial
                && trial::is_due(&self.known.record)
                && let Err(failed) = trial::try_out(staging, self.name, kind, self.lock).await
            {
                refused.push(failed);
                continue;
            }
            let mut ordering = Ordering {
                ca: self.ca,
                account: account.clone(),
                directory: directory.clone(),
                name: self.name,
                record: &mut self.known.record,
                counts: self.counts,
                keeping: if *self.storable { Keeping::Must } else { Keeping::Should },
                lock: self.lock,
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
                    self.known.take(self.name, certificate).map_err(|why| {
                        self.known.record.order = None;
                        // Whatever it is, another order gets the same.
                        Failed::refused(
                            format!("what the CA issued cannot be served: {why}"),
                            "see what the CA issues for this name and by which autocert_profile, or name another CA with autocert_ca",
                        )
                    })?;
                    let begun = self.known.record.order.take().map(|open| open.begun);
                    if let (Some(held), Some(certified)) =
                        (&mut self.known.record.certificate, &self.known.certified)
                    {
                        held.obtained = Some(obtained_at(begun, certified.not_after, now));
                    }
                    self.known.record.attempts = Attempts::default();
                    self.known.record.worked = Some(kind.as_str().into());
                    if let Err(error) = self.commit().await {
                        warn!(name = %self.name, %error, "the certificate is served from memory and stored as soon as it can be");
                    }
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

    /// Asks for renewal information.
    pub async fn ask_renewal(&mut self) {
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
                    if let Err(error) = self.commit().await {
                        debug!(name = %self.name, %error, "not stored");
                    }
                    return;
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

    /// Stores the record. Returns whether the store took it.
    pub async fn save(&mut self) -> bool {
        let saved = writes::save(&self.ca.store, self.lock, &self.known.record).await;
        if let Err(error) = &saved {
            // Once, until it has been stored.
            match self.known.unsettled {
                true => debug!(name = %self.name, %error, "still not stored"),
                false => warn!(name = %self.name, %error, "not stored"),
            }
        }
        *self.storable = saved.is_ok();
        // What the store has not taken is kept in memory and offered again.
        self.known.unsettled |= saved.is_err();
        *self.storable
    }

    /// Stores the record with its certificate.
    ///
    /// # Errors
    /// If it could not be stored: it is served from memory, and offered again.
    pub async fn commit(&mut self) -> io::Result<()> {
        let outcome = writes::commit(&self.ca.store, self.lock, self.known).await;
        *self.storable = outcome.is_ok();
        outcome
    }
}

/// When a certificate that came just now counts as obtained. One that ended while nobody fetched it is as old as its
/// order: the next one is not waited for as after one that is over the moment it is issued. Pure.
fn obtained_at(begun: Option<Moment>, ends: Moment, now: Moment) -> Moment {
    begun.filter(|begun| *begun < ends && ends < now).unwrap_or(now)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ended_before_it_was_fetched_is_as_old_as_its_order() {
        let at = Moment::from_unix_seconds;
        let (begun, now) = (Some(at(10)), at(100));
        assert_eq!(obtained_at(begun, at(50), now), at(10));
        assert_eq!(obtained_at(begun, at(150), now), now);
        // By a clock that is far ahead everything is over.
        assert_eq!(obtained_at(Some(at(99)), at(50), now), now);
        assert_eq!(obtained_at(None, at(50), now), now);
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
