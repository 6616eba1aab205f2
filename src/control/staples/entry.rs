//! What the keeper knows of one certificate's staple.

use std::sync::Arc;

use crate::clock::Moment;
use crate::store::record::{Attempts, Class, Failure};

use super::super::certified::Certified;
use super::plan::{Facts, Known, Plan, dropped_at, plan};
use super::pointers::Pointers;
use super::responders::place_of;
use super::response::{Bad, Good};
use super::state::State;

/// One certificate.
pub struct Entry {
    pub certified: Arc<Certified>,
    pub good: Option<Good>,
    pub fetched: Option<Moment>,
    pub attempts: Attempts,
    pub state: State,
    /// As of when its issuer has said that it is revoked, whatever it says since.
    pub revoked: Option<Moment>,
    /// Where its first responder is; empty if it names none.
    pub place: String,
    /// When to decide again; `None` while it waits for its responder or for the answer.
    pub due: Option<Moment>,
    /// The last complaint, so that it is told once.
    pub said: Option<String>,
}

impl Entry {
    pub fn new(certified: Arc<Certified>, good: Option<Good>, state: State) -> Self {
        let leaf = certified.key.cert.first();
        let responders = leaf.map(|leaf| Pointers::of_der(leaf).responders).unwrap_or_default();
        Self {
            good,
            fetched: None,
            attempts: Attempts::default(),
            revoked: match state {
                State::Revoked(revoked) => Some(revoked.as_of),
                _ => None,
            },
            state,
            place: responders.first().map(|url| place_of(url)).unwrap_or_default(),
            due: None,
            said: None,
            certified,
        }
    }

    pub fn plan(&self, now: Moment) -> Plan {
        let facts = Facts {
            staple: self.good,
            fetched: self.fetched,
            can_ask: !self.place.is_empty(),
            must_staple: self.certified.named.must_staple && !self.is_revoked(),
            attempts: &self.attempts,
            seed: self.certified.identity().seed(),
        };
        plan(&facts, now)
    }

    pub fn known(&self) -> Known {
        Known { standing: self.good, revoked: self.revoked }
    }

    fn is_revoked(&self) -> bool {
        matches!(self.state, State::Revoked(_))
    }

    /// By when an answer is wanted: those that cannot be served without one come first.
    pub fn wanted_by(&self) -> Moment {
        match &self.good {
            Some(good) => dropped_at(good),
            None if self.certified.named.must_staple => Moment::from_unix_seconds(0),
            None => Moment::from_unix_seconds(i64::MAX),
        }
    }

    /// Takes a good response.
    pub fn take(&mut self, good: Good, fetched: Option<Moment>) {
        self.good = Some(good);
        self.fetched = fetched;
        self.attempts = Attempts::default();
        self.state = State::Good { until: good.until };
    }

    /// Takes that nobody has anything better than what stands.
    pub fn keep_standing(&mut self, now: Moment) {
        self.fetched = Some(now);
        self.attempts = Attempts::default();
    }

    /// Counts a failure. What stands is served on, unless the certificate is revoked.
    pub fn fail(&mut self, class: Class, what: &str, not_before: Option<Moment>, now: Moment) {
        let (what, settings) = (what.to_owned(), String::new());
        if self.good.is_none() && !self.is_revoked() {
            self.state = State::Refused(what.clone());
        }
        self.attempts.count(Failure { at: now, class, what, remedy: None, not_before, settings });
    }

    /// Takes that there is nothing to staple, for this reason. Returns whether something was.
    pub fn drop_staple(&mut self, state: State) -> bool {
        if let State::Revoked(revoked) = &state {
            self.revoked = self.revoked.max(Some(revoked.as_of));
        }
        self.state = state;
        self.fetched = None;
        self.good.take().is_some()
    }
}

/// How patiently a responder is asked again after such an answer, and in what words it is told of.
pub fn judged(bad: &Bad) -> (Class, String) {
    match bad {
        Bad::TryLater(what) => (Class::Unreachable, what.clone()),
        Bad::Refused(what) => (Class::Operator, what.clone()),
        Bad::Revoked(revoked) => {
            (Class::Operator, format!("the certificate is REVOKED since {}", revoked.at))
        }
    }
}
