//! What the keeper knows of one issuer's list of revoked certificates.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;

use crate::clock::Moment;
use crate::store::record::{Attempts, Class, Failure};

use super::super::autocert::backoff;
use super::super::certified::{Certified, Identity, Source};

pub struct WatchedList {
    /// Ours that name it.
    pub members: HashMap<Identity, Arc<Certified>>,
    /// Of the list that all of them were looked up in.
    pub etag: Option<HeaderValue>,
    pub next_update: Option<Moment>,
    pub due: Moment,
    pub at_work: bool,
    /// Spreads lists of one moment.
    pub seed: u64,
    attempts: Attempts,
    said: Option<String>,
}

impl WatchedList {
    pub fn due_at(due: Moment) -> Self {
        Self {
            members: HashMap::new(),
            etag: None,
            next_update: None,
            due,
            at_work: false,
            seed: 0,
            attempts: Attempts::default(),
            said: None,
        }
    }

    /// Adds one that has not been looked up yet. What an issuer has just issued is not in its list either, so
    /// it waits for the next look; what an operator has put there may be.
    pub fn add(&mut self, certified: Arc<Certified>, now: Moment) {
        if matches!(certified.source, Source::ByHand { .. }) && !self.at_work {
            self.due = now;
        }
        self.seed ^= certified.identity().seed();
        self.etag = None;
        self.members.insert(certified.identity(), certified);
    }

    /// An operator has reloaded.
    pub fn again(&mut self, now: Moment) {
        self.due = now;
        self.attempts = Attempts::default();
        self.said = None;
    }

    /// It was looked into. Returns whether a complaint is over.
    pub fn succeed(&mut self, again: Moment) -> bool {
        self.due = again;
        self.attempts = Attempts::default();
        self.said.take().is_some()
    }

    /// It could not be looked into. Returns whether that is news.
    pub fn fail(
        &mut self,
        class: Class,
        what: &str,
        not_before: Option<Moment>,
        now: Moment,
    ) -> bool {
        let settings = String::new();
        let failure =
            Failure { at: now, class, what: what.to_owned(), remedy: None, not_before, settings };
        self.attempts.count(failure);
        self.due = backoff::due(&self.attempts, None, None, self.seed, now);
        self.said.replace(what.to_owned()).as_deref() != Some(what)
    }
}
