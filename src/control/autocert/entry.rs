//! What the keeper knows of one name, and when it looks again.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::{Moment, rfc3339};
use crate::name::ServerName;

use super::dossier::Dossier;
use super::events::Event;
use super::facts::{facts, standings};
use super::issuers::Issuers;
use super::plan::{Asked, Plan, Why, plan};
use super::status::Status;
use super::verdict::Failed;

/// How long a name waits whose files could not be settled, or that the store did not take.
pub const SETTLE_PAUSE: Duration = Duration::from_secs(60);

/// Where the outcome goes that an operator waits for.
pub type Reply = oneshot::Sender<Result<String, String>>;

/// One name.
pub struct Entry {
    pub name: ServerName,
    pub dossier: Dossier,
    /// When to decide again.
    pub wake: Moment,
    pub at_work: bool,
    pub storable: bool,
    /// An operator asked, and waits: for the next turn, and for the one that is being taken.
    pub asked: Option<Asked>,
    pub waiting: Vec<Reply>,
    pub turn_asked: Option<Asked>,
    pub turn_waiting: Vec<Reply>,
    /// That a certificate is being obtained has been said, and the turn that does it has not been had yet.
    pub is_told: bool,
    /// Likewise that another node is at work on the name.
    pub is_busy_told: bool,
    /// The last failure that was for a person, so that it is said once.
    pub said: Option<String>,
    pub seed: u64,
}

impl Entry {
    pub fn new(name: &ServerName, dossier: Dossier) -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_str().as_bytes());
        let seed = hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self {
            name: name.clone(),
            dossier,
            wake: Moment::from_unix_seconds(0),
            at_work: false,
            storable: true,
            asked: None,
            waiting: Vec::new(),
            turn_asked: None,
            turn_waiting: Vec::new(),
            is_told: false,
            is_busy_told: false,
            said: None,
            seed,
        }
    }

    pub fn plan(&self, issuers: &Issuers, now: Moment) -> Plan {
        let standings = standings(&self.name, &self.dossier, issuers, now);
        let Self { dossier, asked, storable, seed, .. } = self;
        let up_for = issuers.up_for();
        plan(&facts(dossier, &standings, *asked, asked.is_some(), *storable, up_for, *seed), now)
    }

    /// Whether there is something to do now. An operator who asked gets an answer in any case.
    pub fn needs_turn(&self, issuers: &Issuers, now: Moment) -> bool {
        let planned = matches!(
            self.plan(issuers, now),
            Plan::Order { .. } | Plan::Resume { .. } | Plan::AskRenewal { .. }
        );
        planned || self.dossier.is_unsettled() || !self.storable || !self.waiting.is_empty()
    }

    /// Until when nothing is planned.
    fn rests_until(&self, issuers: &Issuers, now: Moment) -> Moment {
        match self.plan(issuers, now) {
            Plan::Rest { until, .. } | Plan::AskOperator { until } => until,
            Plan::Order { .. } | Plan::Resume { .. } | Plan::AskRenewal { .. } => now,
        }
    }

    /// Sets when to decide again.
    pub fn decide(&mut self, issuers: &Issuers, now: Moment) {
        let wake = self.rests_until(issuers, now);
        let soon = if self.dossier.is_unsettled() && self.wake.unix_seconds() == 0 {
            now
        } else {
            now.plus(SETTLE_PAUSE)
        };
        let restless = self.dossier.is_unsettled() || !self.storable;
        self.wake = match () {
            () if !self.waiting.is_empty() => now,
            () if restless && wake > soon => soon,
            () => wake,
        };
    }

    /// What is told of a turn that failed.
    pub fn fail(&mut self, failed: &Failed, issuers: &Issuers, now: Moment) -> Event {
        let repeated = self.said.as_deref() == Some(&failed.what);
        self.said = Some(failed.what.clone());
        self.answer(Err(failed.to_string()));
        self.decide(issuers, now);
        let (what, remedy) = (failed.what.clone(), failed.remedy().map(str::to_owned));
        let retry_at = Some(self.rests_until(issuers, now));
        Event::Failed { what, remedy, retry_at, repeated }
    }

    pub fn answer(&mut self, said: Result<String, String>) {
        for reply in self.turn_waiting.drain(..) {
            let _ = reply.send(said.clone());
        }
    }

    pub fn status(&self, issuers: &Issuers, now: Moment) -> Status {
        let planned = self.plan(issuers, now);
        let serving = self.dossier.serving().map(|known| known.record.issuer.as_str());
        // Without a certificate, who is asked for one.
        let asked = match planned {
            Plan::Order { at, .. } | Plan::Resume { at, .. } => at,
            _ => 0,
        };
        let issuer = serving.or_else(|| issuers.directories().nth(asked));
        let mut status = Status {
            name: self.name.to_string(),
            served: if self.dossier.certified().is_some() { "issued" } else { "none" }.into(),
            issuer: issuer.map(str::to_owned),
            ..Status::default()
        };
        let (next, at) = match planned {
            _ if self.at_work => ("being obtained".to_owned(), None),
            Plan::Rest { until, why: Why::NotDue } => ("renewal".to_owned(), Some(until)),
            Plan::Rest { until, why } => (format!("try again: {why}"), Some(until)),
            Plan::AskOperator { until } => {
                ("your help is needed; tried again".to_owned(), Some(until))
            }
            Plan::Order { why, .. } | Plan::Resume { why, .. } => {
                (format!("order: {why}"), Some(now))
            }
            Plan::AskRenewal { .. } => ("ask for renewal information".to_owned(), Some(now)),
        };
        status.next = Some(next);
        status.next_at = at.map(rfc3339);
        let last = match planned {
            Plan::AskOperator { .. } | Plan::Rest { why: Why::FailedBefore, .. } => {
                self.dossier.last_failure()
            }
            _ => self.dossier.last_failure_since(),
        };
        if let Some(last) = last {
            status.set_error(&last.what, last.remedy.as_deref(), last.at);
        }
        status
    }
}
