//! One turn for one name: lock it, look again, decide, act, store what came of it.

use std::sync::Arc;

use tracing::{debug, info, warn};

use crate::clock::Moment;
use crate::name::ServerName;
use crate::store::layout;

use super::account::cannot_store;
use super::blocking;
use super::budget::Counts;
use super::dossier::{self, Dossier};
use super::facts::{counts, facts, standings};
use super::held::Held;
use super::http_client::attended;
use super::issuers::Issuers;
use super::mutant::{Mutant, mutant};
use super::obtaining::Obtaining;
use super::plan::{Asked, Plan, Why, plan};
use super::verdict::{BUDGET, Failed, LOST};

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
    /// `at` which issuer, the last that was asked.
    Failed {
        at: usize,
        failed: Failed,
    },
    /// Nothing was asked of the CA: what must be kept could not be stored, and there is time.
    CannotStore(Failed),
}

/// A finished turn.
pub struct Turn {
    pub dossier: Dossier,
    pub outcome: Outcome,
    /// Whether the store took what it was given.
    pub storable: bool,
}

/// Takes one turn.
pub async fn take_turn(
    issuers: Arc<Issuers>,
    name: ServerName,
    dossier: Dossier,
    asked: Option<Asked>,
    seed: u64,
) -> Turn {
    attended(turn(&issuers, &name, dossier, asked, seed)).await
}

async fn turn(
    issuers: &Issuers,
    name: &ServerName,
    dossier: Dossier,
    asked: Option<Asked>,
    seed: u64,
) -> Turn {
    let lock = match Held::try_take(&issuers.store, layout::issue_lock(name.as_str())).await {
        Ok(Some(lock)) => Some(lock),
        Ok(None) if mutant(Mutant::LockIgnored) => None,
        Ok(None) => return Turn { dossier, outcome: Outcome::Busy, storable: true },
        // Without a store there is nobody to keep out either.
        Err(error) => {
            debug!(%name, %error, "no lock");
            None
        }
    };
    let before = dossier.clone();
    let storable = lock.is_some() || mutant(Mutant::LockIgnored);
    let mut locked =
        Locked { issuers, name, storable, dossier, lock, tried: Vec::new(), has_lost: false };
    let outcome = locked.work(asked, seed).await;
    let Locked { dossier, lock, storable, .. } = locked;
    let is_lost = lock.as_ref().is_some_and(Held::is_lost);
    if let Some(lock) = lock {
        lock.release().await;
    }
    if is_lost {
        // Whoever took the lock goes on with what is stored, and so does our next turn.
        return Turn { dossier: before, outcome: Outcome::Busy, storable: true };
    }
    Turn { dossier, outcome, storable }
}

struct Locked<'a> {
    issuers: &'a Issuers,
    name: &'a ServerName,
    dossier: Dossier,
    storable: bool,
    lock: Option<Held>,
    /// The issuers that were asked in this turn, in vain.
    tried: Vec<usize>,
    /// An answer was lost in this turn.
    has_lost: bool,
}

impl Locked<'_> {
    async fn work(&mut self, asked: Option<Asked>, seed: u64) -> Outcome {
        if let Err(failed) = self.look_again().await {
            // That is nobody's fault, and keeps us from all of them.
            for at in 0..self.dossier.at.len() {
                self.count(at, &failed).await;
            }
            return Outcome::Failed { at: 0, failed };
        }
        for ca in &self.issuers.all {
            ca.know_account().await;
        }
        for at in 0..self.dossier.at.len() {
            if let Some(mut one) = self.at(at).filter(|one| one.known.unsettled)
                && let Err(error) = one.commit().await
            {
                debug!(name = %self.name, %error, "still not stored");
            }
        }
        let mut outcome = Outcome::Nothing;
        loop {
            let (at, why) = match self.decide(asked, seed, true) {
                Plan::Rest { .. } | Plan::AskOperator { .. } => return outcome,
                Plan::AskRenewal { .. } => {
                    if let Some(at) = self.dossier.serving_at()
                        && let Some(mut one) = self.at(at)
                    {
                        one.ask_renewal().await;
                    }
                    return outcome;
                }
                Plan::Order { at, why } | Plan::Resume { at, why } => (at, why),
            };
            // In one turn each issuer has one try.
            if self.tried.contains(&at) {
                return outcome;
            }
            if let Err(cannot) = self.can_keep(at, asked, seed).await {
                return cannot;
            }
            self.say_who_is_passed_over(at);
            let renewed = self.dossier.serving().is_some();
            let Some(mut one) = self.at(at) else { return outcome };
            match one.obtain().await {
                Ok(()) => {
                    self.forget_other_orders(at).await;
                    return Outcome::Obtained { why, renewed };
                }
                // Asked for again at once, but once: the next turn may be more than an hour away, and whoever breaks
                // off may be about to again.
                Err(failed) if failed.is(LOST) && !self.has_lost => {
                    debug!(name = %self.name, error = failed.what, "asking again for an answer that was lost");
                    self.has_lost = true;
                    outcome = Outcome::Failed { at, failed };
                }
                Err(failed) => {
                    // What we kept ourselves from is no failure of the issuer's.
                    if !failed.is(BUDGET) {
                        self.count(at, &failed).await;
                    }
                    self.tried.push(at);
                    outcome = Outcome::Failed { at, failed };
                }
            }
        }
    }

    /// A revoked certificate that another node has replaced is not asked to be replaced again.
    fn decide(&self, asked: Option<Asked>, seed: u64, storable: bool) -> Plan {
        let now = Moment::now();
        let issuers = standings(self.name, &self.dossier, self.issuers, now);
        // What an operator asks for makes up for failures of before, not for those of this turn.
        let at_once = asked.is_some() && self.tried.is_empty();
        let up_for = self.issuers.up_for();
        plan(&facts(&self.dossier, &issuers, asked, at_once, storable, up_for, seed), now)
    }

    /// Shows whether the store takes what must be stored before the order is placed.
    async fn can_keep(
        &mut self,
        at: usize,
        asked: Option<Asked>,
        seed: u64,
    ) -> Result<(), Outcome> {
        let Some(mut one) = self.at(at) else { return Ok(()) };
        if one.save().await {
            return Ok(());
        }
        let decided = self.decide(asked, seed, false);
        if !matches!(decided, Plan::Order { .. } | Plan::Resume { .. }) {
            return Err(Outcome::CannotStore(Failed::operator(
                "private key and order cannot be stored",
                "autocert_dir must be ringgate's to write, with space left",
            )));
        }
        warn!(name = %self.name, "ordering although nothing can be stored, for a certificate cannot wait longer");
        Ok(())
    }

    fn say_who_is_passed_over(&self, asked: usize) {
        let Some(before) = asked.checked_sub(1) else { return };
        let last = self.dossier.at.get(before).and_then(|one| one.record.attempts.last.as_ref());
        let error = last.map_or("a limit of the issuer's", |last| &last.what);
        let mut issuers = self.issuers.directories().skip(before);
        let (before, next) = (issuers.next(), issuers.next());
        info!(name = %self.name, issuer = next, instead_of = before, error, "the next issuer is asked");
    }

    fn at(&mut self, at: usize) -> Option<Obtaining<'_>> {
        let serves = self.dossier.serving_at() == Some(at);
        let ca = self.issuers.all.get(at)?;
        let limits = ca.ledger.as_ref().map(|ledger| ledger.limits);
        let counts = limits
            .map_or(Counts::New, |limits| counts(&self.dossier, at, ca, limits, Moment::now()));
        Some(Obtaining {
            ca,
            counts,
            name: self.name,
            known: self.dossier.at.get_mut(at)?,
            serves,
            storable: &mut self.storable,
            lock: self.lock.as_ref(),
        })
    }

    /// Counts and stores a failure at an issuer.
    async fn count(&mut self, at: usize, failed: &Failed) {
        if let Some(mut one) = self.at(at) {
            let failure = failed.at(Moment::now(), &one.ca.fingerprint);
            one.known.record.attempts.count(failure);
            one.save().await;
        }
    }

    /// One certificate is enough: what was begun elsewhere is not gone on with.
    async fn forget_other_orders(&mut self, obtained_at: usize) {
        for at in (0..self.dossier.at.len()).filter(|at| *at != obtained_at) {
            if let Some(mut one) = self.at(at)
                && one.known.record.order.take().is_some()
            {
                one.save().await;
            }
        }
    }

    /// What the store says now counts, unless it could not take what we know.
    async fn look_again(&mut self) -> Result<(), Failed> {
        let (store, name) = (self.issuers.store.clone(), self.name.clone());
        let held = self.dossier.at.iter().map(|known| known.certified.clone());
        let held: Vec<_> = self.issuers.directories().map(str::to_owned).zip(held).collect();
        let read = blocking(move || {
            let held = held.iter().map(|(directory, held)| (directory.as_str(), held.as_ref()));
            dossier::read_again(&*store, &name, held)
        });
        match read.await {
            Ok(found) => {
                for (known, found) in self.dossier.at.iter_mut().zip(found) {
                    dossier::take_in(known, found);
                }
                Ok(())
            }
            Err(_) if self.dossier.certified().is_some() => {
                self.storable = false;
                Ok(())
            }
            Err(error) => Err(cannot_store(&error)),
        }
    }
}
