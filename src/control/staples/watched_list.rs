//! What the keeper knows of one issuer's list of revoked certificates.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Moment;
use crate::store::record::{Attempts, Class, Failure};

use super::super::autocert::backoff;
use super::super::certified::{Certified, Identity, Source};
use super::lists::{Found, Tag};
use super::response::Revoked;

pub struct WatchedList {
    /// Ours that name it.
    pub members: HashMap<Identity, Arc<Certified>>,
    /// The distribution points that the first of them named, each with its URLs.
    pub points: Vec<Vec<String>>,
    /// Of the list that all of them were looked up in.
    pub etag: Option<Tag>,
    pub next_update: Option<Moment>,
    pub due: Moment,
    pub at_work: bool,
    /// Somebody was added while it was being looked into, and was not looked up.
    changed: bool,
    /// Members that it named when it was looked into last.
    revoked: HashMap<Identity, Revoked>,
    /// Spreads lists of one moment.
    pub seed: u64,
    attempts: Attempts,
    said: Option<String>,
}

impl WatchedList {
    pub fn due_at(due: Moment, points: Vec<Vec<String>>) -> Self {
        Self {
            members: HashMap::new(),
            points,
            etag: None,
            next_update: None,
            due,
            at_work: false,
            changed: false,
            revoked: HashMap::new(),
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
        self.changed |= self.at_work;
        self.members.insert(certified.identity(), certified);
    }

    pub fn remove(&mut self, identity: &Identity) {
        self.members.remove(identity);
        self.revoked.remove(identity);
    }

    /// It begins to be looked into.
    pub fn begin(&mut self) {
        self.at_work = true;
        self.changed = false;
    }

    /// Takes what another list says. Returns those that were named and are good by now: a hold was lifted (RFC 5280
    /// §5.3.1). What a cache has of before that lifts nothing.
    pub fn is_new(&mut self, etag: Option<Tag>, found: Found) -> Vec<Arc<Certified>> {
        (self.etag, self.next_update) = (etag, found.next_update);
        let before = std::mem::replace(&mut self.revoked, found.revoked.into_iter().collect());
        let mut lifted = Vec::new();
        for (identity, why) in before {
            let Some(member) = self.members.get(&identity) else { continue };
            match found.good_as_of.get(&identity) {
                Some(as_of) if *as_of > why.as_of => lifted.push(member.clone()),
                _ => {
                    // One that names it still may be older than the one that did.
                    let known = self.revoked.entry(identity).or_insert(why);
                    known.as_of = known.as_of.max(why.as_of);
                }
            }
        }
        lifted
    }

    /// Those that it names: said again at each look, for whoever heard it may not have been able to do
    /// anything about it.
    pub fn named(&self) -> Vec<(Arc<Certified>, Revoked)> {
        let named = self.revoked.iter();
        named
            .filter_map(|(identity, revoked)| Some((self.members.get(identity)?.clone(), *revoked)))
            .collect()
    }

    /// A list that is still the one that was looked into says nothing more once it has expired. Whoever
    /// serves it has no other, so the next look does not ask for another.
    pub fn is_over(&mut self, now: Moment) -> bool {
        let is_over = self.next_update.is_some_and(|next| next <= now);
        if is_over {
            self.etag = None;
        }
        is_over
    }

    /// Ends a look. Whoever was added meanwhile is looked up at once.
    pub fn end(&mut self, now: Moment) {
        self.at_work = false;
        if std::mem::take(&mut self.changed) {
            self.etag = None;
            self.due = now;
        }
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

#[cfg(test)]
mod tests {
    use super::super::super::certified::samples::{DAY, Issuer, NOW};
    use super::*;

    fn certified(name: &str) -> Arc<Certified> {
        Arc::new(Issuer::new("watched-list").certified(&[name], NOW.plus(DAY)))
    }

    fn tag() -> Option<Tag> {
        Some(Tag { url: String::new(), value: http::HeaderValue::from_static("tag") })
    }

    #[test]
    fn whoever_is_added_during_a_look_is_looked_up_right_after_it() {
        let mut list = WatchedList::due_at(NOW, Vec::new());
        list.add(certified("a.example"), NOW);
        for is_added in [false, true] {
            list.begin();
            if is_added {
                list.add(certified("b.example"), NOW);
            }
            list.is_new(tag(), Found::default());
            list.succeed(NOW.plus(DAY));
            list.end(NOW);
            assert_eq!(list.due == NOW, is_added);
            assert_eq!(list.etag.is_none(), is_added);
        }
    }

    #[test]
    fn those_that_it_names_are_named_again_until_they_are_gone() {
        let mut list = WatchedList::due_at(NOW, Vec::new());
        let (one, other) = (certified("a.example"), certified("b.example"));
        let revoked = Revoked { at: NOW, as_of: NOW, key_compromise: true };
        list.add(one.clone(), NOW);
        list.add(other, NOW);
        let named_as_of = |as_of| {
            let revoked = vec![(one.identity(), Revoked { as_of, ..revoked })];
            Found { revoked, ..Found::default() }
        };
        let names_it = || named_as_of(NOW);
        assert!(list.is_new(tag(), names_it()).is_empty());
        for _ in 0..2 {
            assert!(matches!(list.named().as_slice(), [(named, why)]
                if named.identity() == one.identity() && *why == revoked));
        }
        // A hold that was lifted is told once; an older list lifts none, nor does one that says nothing of it.
        let good = |as_of| {
            let good_as_of = HashMap::from([(one.identity(), as_of)]);
            Found { good_as_of, ..Found::default() }
        };
        for (found, lifted, named) in [
            (good(NOW), 0, 1),
            (Found::default(), 0, 1),
            (good(NOW.plus(DAY)), 1, 0),
            (good(NOW.plus(DAY)), 0, 0),
            (names_it(), 0, 1),
            (named_as_of(NOW.plus(2 * DAY)), 0, 1),
            (names_it(), 0, 1),
            (good(NOW.plus(DAY)), 0, 1),
        ] {
            assert_eq!(list.is_new(tag(), found).len(), lifted);
            assert_eq!(list.named().len(), named);
        }
        list.remove(&one.identity());
        assert!(list.named().is_empty());
    }

    #[test]
    fn an_expired_list_that_is_still_the_same_one_is_complained_of_once_and_less_and_less_often() {
        let mut list = WatchedList::due_at(NOW, Vec::new());
        list.is_new(tag(), Found { next_update: Some(NOW.plus(DAY)), ..Found::default() });
        assert!(!list.is_over(NOW));
        assert!(list.etag.is_some());
        let (mut now, mut pauses) = (NOW.plus(DAY), Vec::new());
        for turn in 0..4 {
            assert!(list.is_over(now) && list.etag.is_none());
            assert_eq!(list.fail(Class::Operator, "it has expired", None, now), turn == 0);
            pauses.push(list.due.since(now));
            now = list.due;
        }
        assert!(pauses.is_sorted() && pauses[3] > DAY / 2, "{pauses:?}");
    }
}
