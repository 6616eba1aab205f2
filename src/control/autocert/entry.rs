//! What the keeper knows of one name, and when it looks again.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::{Moment, rfc3339};
use crate::name::ServerName;

use super::attempt::facts;
use super::ca::Ca;
use super::plan::{Asked, Plan, Why, plan};
use super::status::Status;
use super::stored::Known;

/// How long a name waits whose files could not be settled, or that the store did not take.
pub const SETTLE_PAUSE: Duration = Duration::from_secs(60);

/// Where the outcome goes that an operator waits for.
pub type Reply = oneshot::Sender<Result<String, String>>;

/// One name.
pub struct Entry {
    pub known: Known,
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
    pub fn new(name: &ServerName, known: Known) -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_str().as_bytes());
        let seed = hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self {
            known,
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

    pub fn plan(&self, ca: &Ca, now: Moment) -> Plan {
        plan(&facts(&self.known, ca, self.asked, self.storable, self.seed), now)
    }

    /// Whether there is something to do now. An operator who asked gets an answer in any case.
    pub fn needs_turn(&self, ca: &Ca, now: Moment) -> bool {
        let planned = matches!(
            self.plan(ca, now),
            Plan::Order { .. } | Plan::Resume { .. } | Plan::AskRenewal { .. }
        );
        planned || self.known.unsettled || !self.storable || !self.waiting.is_empty()
    }

    /// Sets when to decide again.
    pub fn decide(&mut self, ca: &Ca, now: Moment) {
        let wake = match self.plan(ca, now) {
            Plan::Rest { until, .. } | Plan::AskOperator { until } => until,
            Plan::Order { .. } | Plan::Resume { .. } | Plan::AskRenewal { .. } => now,
        };
        let soon = if self.known.unsettled && self.wake.unix_seconds() == 0 {
            now
        } else {
            now.plus(SETTLE_PAUSE)
        };
        let restless = self.known.unsettled || !self.storable;
        self.wake = match () {
            () if !self.waiting.is_empty() => now,
            () if restless && wake > soon => soon,
            () => wake,
        };
    }

    pub fn answer(&mut self, said: Result<String, String>) {
        for reply in self.turn_waiting.drain(..) {
            let _ = reply.send(said.clone());
        }
    }

    pub fn status(&self, name: &ServerName, ca: &Ca, now: Moment) -> Status {
        let mut status = Status {
            name: name.to_string(),
            served: if self.known.certified.is_some() { "issued" } else { "none" }.into(),
            issuer: Some(ca.settings.ca.clone()),
            ..Status::default()
        };
        let (next, at) = match self.plan(ca, now) {
            _ if self.at_work => ("being obtained".to_owned(), None),
            Plan::Rest { until, why: Why::NotDue } => ("renewal".to_owned(), Some(until)),
            Plan::Rest { until, why } => (format!("try again: {why}"), Some(until)),
            Plan::AskOperator { until } => {
                ("your help is needed; tried again".to_owned(), Some(until))
            }
            Plan::Order { why } | Plan::Resume { why } => (format!("order: {why}"), Some(now)),
            Plan::AskRenewal { .. } => ("ask for renewal information".to_owned(), Some(now)),
        };
        status.next = Some(next);
        status.next_at = at.map(rfc3339);
        if let Some(last) = &self.known.record.attempts.last {
            status.set_error(&last.what, last.remedy.as_deref(), last.at);
        }
        status
    }
}
