//! Who waits for which responder, and how many are asked at once. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use http::Uri;

use crate::clock::Moment;

use super::super::certified::{Certified, Identity};
use super::pointers::Pointers;
use super::told::{Telling, Told};

/// Questions to one responder at once: eighty in a second at a usual round trip, so that a million take hours
/// and nobody notices a burst.
const AT_ONCE_EACH: usize = 4;
/// Questions to all of them at once.
const AT_ONCE: usize = 32;

/// Every responder that has been asked for.
#[derive(Default)]
pub struct Responders {
    by_place: BTreeMap<Arc<str>, Responder>,
    at_work: usize,
    /// Whose turn was last: the next one's comes first, so that a few that never answer leave the others room.
    last: Arc<str>,
}

#[derive(Default)]
struct Responder {
    /// Those whose staple ends first come first.
    waiting: BTreeSet<(Moment, Identity)>,
    at_work: usize,
    by_post: bool,
    /// The last complaint about its not answering, so that it is told once for all certificates.
    said: Option<String>,
    told_silent: Told,
    told: Told,
}

impl Responder {
    fn has_room(&self) -> bool {
        // One that does not answer keeps no more than one place from those that do.
        let at_once = if self.said.is_some() { 1 } else { AT_ONCE_EACH };
        self.at_work < at_once && !self.waiting.is_empty()
    }
}

/// Host and port of a responder's URL.
fn place_of(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    let authority = uri.as_ref().and_then(Uri::authority);
    authority.map_or_else(|| url.to_owned(), |authority| authority.as_str().to_ascii_lowercase())
}

impl Responders {
    /// Where the first responder that a leaf names is; empty if it names none. All who share it have one copy.
    pub fn place_of(&mut self, certified: &Certified) -> Arc<str> {
        let leaf = certified.key.cert.first();
        let responders = leaf.map(|leaf| Pointers::of_der(leaf).responders).unwrap_or_default();
        responders.first().map(|url| self.shared(&place_of(url))).unwrap_or_default()
    }

    fn shared(&mut self, place: &str) -> Arc<str> {
        if let Some((known, _)) = self.by_place.get_key_value(place) {
            return known.clone();
        }
        let place: Arc<str> = place.into();
        self.by_place.insert(place.clone(), Responder::default());
        place
    }

    /// Lets go of those that nobody names any more.
    pub fn forget_unused(&mut self) {
        self.by_place.retain(|place, responder| {
            Arc::strong_count(place) > 1 || responder.at_work > 0 || !responder.waiting.is_empty()
        });
    }

    /// Puts one into the queue of this responder, by when it needs an answer.
    pub fn wait(&mut self, place: &str, by: Moment, who: Identity) {
        let place = self.shared(place);
        self.by_place.entry(place).or_default().waiting.insert((by, who));
    }

    /// Those that are asked now, each with its responder and whether by POST: one of each responder in turn.
    pub fn start(&mut self) -> Vec<(Identity, Arc<str>, bool)> {
        let mut started = Vec::new();
        loop {
            let after = (Bound::Excluded(&*self.last), Bound::Unbounded);
            let later = self.by_place.range::<str, _>(after).chain(&self.by_place);
            let next = later.clone().find(|(_, responder)| responder.has_room());
            let Some(place) = next.map(|(place, _)| place.clone()) else { return started };
            let Some(responder) = self.by_place.get_mut(&place) else { return started };
            if self.at_work >= AT_ONCE {
                return started;
            }
            if let Some((_, who)) = responder.waiting.pop_first() {
                responder.at_work += 1;
                self.at_work += 1;
                started.push((who, place.clone(), responder.by_post));
            }
            self.last = place;
        }
    }

    /// Takes out all that wait for a responder that cannot be asked now.
    pub fn give_up(&mut self, place: &str) -> Vec<Identity> {
        let waiting = self.by_place.get_mut(place).map(|one| std::mem::take(&mut one.waiting));
        waiting.unwrap_or_default().into_iter().map(|(_, who)| who).collect()
    }

    /// One question is answered, or given up.
    pub fn finish(&mut self, place: &str, by_post: bool) {
        self.at_work = self.at_work.saturating_sub(1);
        if let Some(responder) = self.by_place.get_mut(place) {
            responder.at_work = responder.at_work.saturating_sub(1);
            responder.by_post |= by_post;
        }
    }

    /// A responder did not answer. Returns what to do with that news, if it is any: one with several addresses
    /// may fail at each of them in turn.
    pub fn is_silent(&mut self, place: &str, what: &str, now: Moment) -> Telling {
        let Some(responder) = self.by_place.get_mut(place) else { return Telling::Tell };
        match responder.said.replace(what.to_owned()) {
            Some(before) if before == what => Telling::Silent,
            _ => responder.told_silent.one_more_at(now),
        }
    }

    /// A responder answered, and may be complained about again. Returns whether it had been silent.
    pub fn answers(&mut self, place: &str) -> bool {
        self.by_place.get_mut(place).is_some_and(|responder| responder.said.take().is_some())
    }

    /// What to do with a complaint about one certificate.
    pub fn telling(&mut self, place: &str) -> Telling {
        let Some(responder) = self.by_place.get_mut(place) else { return Telling::Tell };
        responder.told.one_more()
    }

    /// An operator has reloaded, and is told everything again.
    pub fn tell_again(&mut self) {
        for responder in self.by_place.values_mut() {
            responder.told = Told::default();
            responder.told_silent = Told::default();
            responder.said = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::certified::samples::identity;
    use super::*;

    fn at(seconds: i64) -> Moment {
        Moment::from_unix_seconds(seconds)
    }

    #[test]
    fn a_responder_is_asked_by_few_at_once_and_by_the_most_pressing_first() {
        let mut responders = Responders::default();
        for number in 0..20 {
            responders.wait("a.example", at(100 - i64::from(number)), identity(number));
        }
        let started: Vec<_> = responders.start().into_iter().map(|(who, ..)| who).collect();
        assert_eq!(started, [19, 18, 17, 16].map(identity));
        assert_eq!(responders.start(), []);
        responders.finish("a.example", true);
        // What it has taught counts for whoever comes next.
        assert_eq!(responders.start(), [(identity(15), "a.example".into(), true)]);
    }

    #[test]
    fn one_that_hangs_keeps_no_other_waiting_and_all_together_are_bounded() {
        let mut responders = Responders::default();
        for number in 0..8 {
            responders.wait("hangs.example", at(0), identity(number));
        }
        assert_eq!(responders.start().len(), AT_ONCE_EACH);
        responders.wait("other.example", at(9), identity(9));
        assert_eq!(responders.start(), [(identity(9), "other.example".into(), false)]);
        for place in 0..20 {
            for number in 0..4 {
                responders.wait(&place.to_string(), at(0), identity(100 + number));
            }
        }
        assert_eq!(responders.start().len(), AT_ONCE - AT_ONCE_EACH - 1);
    }

    #[test]
    fn those_that_never_answer_leave_room_for_one_that_does() {
        let mut responders = Responders::default();
        let place = |number: u8| format!("{number:02}.example");
        for number in 0..20 {
            for who in 0..9 {
                responders.wait(&place(number), at(0), identity(who));
            }
        }
        // At first each in turn has one, until all places are taken.
        let places: Vec<_> = responders.start().into_iter().map(|(_, place, _)| place).collect();
        assert_eq!(places.len(), AT_ONCE);
        assert!((0..20).all(|number| places.contains(&place(number).into())));
        // Known to be silent, each keeps one; what is free goes to whoever answers.
        for dead in &places {
            responders.finish(dead, false);
        }
        for number in 0..19 {
            responders.is_silent(&place(number), "down", at(0));
        }
        let started = responders.start();
        let of = |one: &str| started.iter().filter(|(_, place, _)| **place == *one).count();
        assert_eq!(of(&place(19)), AT_ONCE_EACH);
        assert!((0..19).all(|number| of(&place(number)) == 1));
        assert_eq!(
            responders.give_up(&place(3)).len(),
            9 - 1 - places.iter().filter(|one| ***one == place(3)).count()
        );
        assert_eq!(responders.give_up(&place(3)), []);
    }

    #[test]
    fn an_outage_is_told_once_for_all_and_complaints_come_to_an_end() {
        let mut responders = Responders::default();
        responders.wait("a.example", at(0), identity(1));
        let mut silent = |what: &str| responders.is_silent("a.example", what, at(0));
        assert_eq!(silent("down"), Telling::Tell);
        assert_eq!(silent("down"), Telling::Silent);
        assert_eq!(silent("still down"), Telling::Tell);
        let by_turns = (0..99).map(|turn| silent(["::1 is down", "127.0.0.1 is down"][turn % 2]));
        assert_eq!(by_turns.last(), Some(Telling::Silent));
        assert!(responders.answers("a.example") && !responders.answers("a.example"));
        let told = (0..99).map(|_| responders.telling("a.example"));
        assert_eq!(told.last(), Some(Telling::Silent));
        responders.tell_again();
        assert_eq!(responders.telling("a.example"), Telling::Tell);
    }

    #[test]
    fn a_place_is_host_and_port() {
        assert_eq!(place_of("http://OCSP.example/a"), "ocsp.example");
        assert_eq!(place_of("http://ocsp.example:81"), "ocsp.example:81");
        assert_eq!(place_of("no url at all"), "no url at all");
    }
}
