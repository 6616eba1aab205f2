//! Who waits for which responder, and how many are asked at once. Pure.

use std::collections::{BTreeSet, HashMap};

use http::Uri;

use crate::clock::Moment;

use super::super::certified::Identity;

/// Questions to one responder at once: eighty in a second at a usual round trip, so that a million take hours
/// and nobody notices a burst.
const AT_ONCE_EACH: usize = 4;
/// Questions to all of them at once.
const AT_ONCE: usize = 32;
/// Complaints about one responder that are told apart before there are only more of them.
const TOLD: usize = 10;

/// Every responder that has been asked for.
#[derive(Default)]
pub struct Responders {
    by_place: HashMap<String, Responder>,
    at_work: usize,
}

#[derive(Default)]
struct Responder {
    /// Those whose staple ends first come first.
    waiting: BTreeSet<(Moment, Identity)>,
    at_work: usize,
    by_post: bool,
    /// The last complaint about its not answering, so that it is told once for all certificates.
    said: Option<String>,
    told: usize,
}

/// Whether and how a complaint is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Tell,
    /// The last one before silence.
    TellThereAreMore,
    Silent,
}

/// Host and port of a responder's URL.
pub fn place_of(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    let authority = uri.as_ref().and_then(Uri::authority);
    authority.map_or_else(|| url.to_owned(), |authority| authority.as_str().to_ascii_lowercase())
}

impl Responders {
    /// Puts one into the queue of this responder, by when it needs an answer.
    pub fn wait(&mut self, place: &str, by: Moment, who: Identity) {
        if !self.by_place.contains_key(place) {
            self.by_place.insert(place.to_owned(), Responder::default());
        }
        if let Some(responder) = self.by_place.get_mut(place) {
            responder.waiting.insert((by, who));
        }
    }

    /// Those that are asked now, each with its responder and whether by POST.
    pub fn start(&mut self) -> Vec<(Identity, String, bool)> {
        let mut started = Vec::new();
        for (place, responder) in &mut self.by_place {
            while responder.at_work < AT_ONCE_EACH
                && self.at_work < AT_ONCE
                && let Some((_, who)) = responder.waiting.pop_first()
            {
                responder.at_work += 1;
                self.at_work += 1;
                started.push((who, place.clone(), responder.by_post));
            }
        }
        started
    }

    /// One question is answered, or given up.
    pub fn finish(&mut self, place: &str, by_post: bool) {
        self.at_work = self.at_work.saturating_sub(1);
        if let Some(responder) = self.by_place.get_mut(place) {
            responder.at_work = responder.at_work.saturating_sub(1);
            responder.by_post |= by_post;
        }
    }

    /// A responder did not answer. Returns whether that is news.
    pub fn is_silent(&mut self, place: &str, what: &str) -> bool {
        let Some(responder) = self.by_place.get_mut(place) else { return true };
        responder.said.replace(what.to_owned()).as_deref() != Some(what)
    }

    /// A responder answered, and may be complained about again. Returns whether it had been silent.
    pub fn answers(&mut self, place: &str) -> bool {
        self.by_place.get_mut(place).is_some_and(|responder| responder.said.take().is_some())
    }

    /// What to do with a complaint about one certificate.
    pub fn telling(&mut self, place: &str) -> Telling {
        let Some(responder) = self.by_place.get_mut(place) else { return Telling::Tell };
        responder.told += 1;
        match responder.told {
            told if told < TOLD => Telling::Tell,
            TOLD => Telling::TellThereAreMore,
            _ => Telling::Silent,
        }
    }

    /// An operator has reloaded, and is told everything again.
    pub fn tell_again(&mut self) {
        for responder in self.by_place.values_mut() {
            responder.told = 0;
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
        assert_eq!(responders.start(), [(identity(15), "a.example".to_owned(), true)]);
    }

    #[test]
    fn one_that_hangs_keeps_no_other_waiting_and_all_together_are_bounded() {
        let mut responders = Responders::default();
        for number in 0..8 {
            responders.wait("hangs.example", at(0), identity(number));
        }
        assert_eq!(responders.start().len(), AT_ONCE_EACH);
        responders.wait("other.example", at(9), identity(9));
        assert_eq!(responders.start(), [(identity(9), "other.example".to_owned(), false)]);
        for place in 0..20 {
            for number in 0..4 {
                responders.wait(&place.to_string(), at(0), identity(100 + number));
            }
        }
        assert_eq!(responders.start().len(), AT_ONCE - AT_ONCE_EACH - 1);
    }

    #[test]
    fn an_outage_is_told_once_for_all_and_complaints_come_to_an_end() {
        let mut responders = Responders::default();
        responders.wait("a.example", at(0), identity(1));
        assert!(responders.is_silent("a.example", "down"));
        assert!(!responders.is_silent("a.example", "down"));
        assert!(responders.is_silent("a.example", "still down"));
        assert!(responders.answers("a.example") && !responders.answers("a.example"));
        let told: Vec<_> = (0..TOLD + 5).map(|_| responders.telling("a.example")).collect();
        assert_eq!(told.iter().filter(|one| **one == Telling::Tell).count(), TOLD - 1);
        assert_eq!(told[TOLD - 1..TOLD + 1], [Telling::TellThereAreMore, Telling::Silent]);
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
