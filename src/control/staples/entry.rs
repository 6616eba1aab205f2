//! What the keeper knows of one certificate's staple.

use std::sync::Arc;

use crate::clock::Moment;
use crate::store::record::{Attempts, Class, Failure};

use super::super::certified::Certified;
use super::plan::{Facts, Known, Plan, asked_again_at, dropped_at, plan};
use super::response::{Bad, Good};
use super::state::State;

/// One certificate.
pub struct Entry {
    pub certified: Arc<Certified>,
    pub good: Option<Good>,
    pub fetched: Option<Moment>,
    pub state: State,
    /// Where its first responder is; empty if it names none.
    pub place: Arc<str>,
    /// When to decide again; `None` while it waits for its responder or for the answer.
    pub due: Option<Moment>,
    /// Few of many have any.
    trouble: Option<Box<Trouble>>,
}

/// What has gone wrong.
#[derive(Default, PartialEq)]
struct Trouble {
    attempts: Attempts,
    /// Its last staple has expired, and the responder is left alone until then.
    not_before: Option<Moment>,
    /// As of when its issuer has said that it is revoked, whatever it says since.
    revoked: Option<Moment>,
    /// The last complaint, so that it is told once.
    said: Option<String>,
}

static NO_FAILURES: Attempts = Attempts { failures: 0, validations: 0, last: None, since: None };

impl Entry {
    /// `place` is where its first responder is.
    pub fn new(
        certified: Arc<Certified>,
        place: Arc<str>,
        good: Option<Good>,
        state: State,
    ) -> Self {
        let mut entry =
            Self { good, fetched: None, place, due: None, trouble: None, certified, state };
        if let State::Revoked(revoked) = entry.state {
            entry.trouble().revoked = Some(revoked.as_of);
        }
        entry
    }

    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    fn attempts(&self) -> &Attempts {
        self.trouble.as_ref().map_or(&NO_FAILURES, |trouble| &trouble.attempts)
    }

    /// What failed last.
    pub fn last_failure(&self) -> Option<&str> {
        self.attempts().last.as_ref().map(|last| last.what.as_str())
    }

    fn forgive(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.attempts = Attempts::default();
            trouble.not_before = None;
        }
        self.tidy();
    }

    /// A complaint about it. Returns whether it is news.
    pub fn complain(&mut self, what: &str) -> bool {
        self.trouble().said.replace(what.to_owned()).as_deref() != Some(what)
    }

    /// There is nothing to complain about. Returns whether there was.
    pub fn hush(&mut self) -> bool {
        let said = self.trouble.as_mut().and_then(|trouble| trouble.said.take());
        self.tidy();
        said.is_some()
    }

    fn tidy(&mut self) {
        self.trouble.take_if(|trouble| **trouble == Trouble::default());
    }

    /// An operator has reloaded.
    pub fn again(&mut self) {
        self.hush();
        self.forgive();
    }

    pub fn plan(&self, now: Moment) -> Plan {
        let facts = Facts {
            staple: self.good,
            fetched: self.fetched,
            not_before: self.trouble.as_ref().and_then(|trouble| trouble.not_before),
            can_ask: !self.place.is_empty(),
            must_staple: self.certified.named.must_staple && !self.is_revoked(),
            attempts: self.attempts(),
            seed: self.certified.identity().seed(),
        };
        plan(&facts, now)
    }

    pub fn known(&self) -> Known {
        let revoked = self.trouble.as_ref().and_then(|trouble| trouble.revoked);
        Known { standing: self.good, revoked }
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
        self.forgive();
        self.state = State::Good { until: good.until };
    }

    /// Takes that nobody has anything better than what stands.
    pub fn keep_standing(&mut self, now: Moment) {
        self.fetched = Some(now);
        self.forgive();
    }

    /// Counts a failure. What stands is served on, unless the certificate is revoked.
    pub fn fail(&mut self, class: Class, what: &str, not_before: Option<Moment>, now: Moment) {
        let (what, settings) = (what.to_owned(), String::new());
        if self.good.is_none() && !self.is_revoked() {
            self.state = State::Refused(what.clone());
        }
        self.trouble().attempts.count(Failure {
            at: now,
            class,
            what,
            remedy: None,
            not_before,
            settings,
        });
    }

    /// Takes that the staple has expired, for this reason.
    pub fn expire(&mut self, why: String) {
        if let (Some(good), Some(fetched)) = (self.good, self.fetched) {
            self.trouble().not_before = Some(asked_again_at(&good, fetched));
        }
        self.drop_staple(State::Refused(why));
    }

    /// Takes that there is nothing to staple, for this reason. Returns whether something was.
    pub fn drop_staple(&mut self, state: State) -> bool {
        if let State::Revoked(revoked) = &state {
            let trouble = self.trouble();
            trouble.revoked = trouble.revoked.max(Some(revoked.as_of));
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
