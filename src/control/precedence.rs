//! Pure: which certified keys serve a name when several could.
//!
//! Valid beats expired, then by hand beats the local CA, then the one that lasts longer. The local CA's
//! certificates are made only for names that nothing by hand covers, so the second rule decides only while
//! a reload takes one over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::clock::Moment;
use crate::name::{Pattern, ServerName, parent_of};
use crate::snapshot::{CertificateChoice, KeyKind};

use super::certified::{Certified, Source};

/// For every pattern the certified keys that serve it.
pub fn choices(all: &[Arc<Certified>], now: Moment) -> HashMap<Pattern, CertificateChoice> {
    let mut best: HashMap<(&Pattern, bool), &Arc<Certified>> = HashMap::new();
    for certified in all {
        let is_rsa = certified.kind == KeyKind::Rsa;
        for pattern in &certified.patterns {
            best.entry((pattern, is_rsa))
                .and_modify(|best| {
                    // Not for equal ones: the first stays.
                    if rank(certified, now) > rank(best, now) {
                        *best = certified;
                    }
                })
                .or_insert(certified);
        }
    }
    let mut choices: HashMap<Pattern, CertificateChoice> = HashMap::new();
    for ((pattern, is_rsa), certified) in best {
        let choice = choices.entry(pattern.clone()).or_default();
        if is_rsa {
            choice.rsa = Some(certified.key.clone());
        } else {
            choice.elliptic = Some((certified.kind, certified.key.clone()));
        }
    }
    choices
}

fn rank(certified: &Certified, now: Moment) -> impl PartialOrd {
    let by_hand = certified.source != Source::LocalCa;
    (certified.is_valid_at(now), by_hand, certified.not_after)
}

/// The patterns whose choice differs, with what serves them next.
pub fn changes(
    before: &HashMap<Pattern, CertificateChoice>,
    next: &HashMap<Pattern, CertificateChoice>,
) -> Vec<(Pattern, Option<CertificateChoice>)> {
    let gone = before.keys().filter(|pattern| !next.contains_key(pattern));
    let gone = gone.map(|pattern| (pattern.clone(), None));
    let new = next
        .iter()
        .filter(|(pattern, choice)| !before.get(pattern).is_some_and(|before| same(before, choice)))
        .map(|(pattern, choice)| (pattern.clone(), Some(choice.clone())));
    gone.chain(new).collect()
}

fn same(a: &CertificateChoice, b: &CertificateChoice) -> bool {
    let same_key = |a: Option<&Arc<_>>, b: Option<&Arc<_>>| match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    };
    same_key(a.elliptic.as_ref().map(|(_, key)| key), b.elliptic.as_ref().map(|(_, key)| key))
        && same_key(a.rsa.as_ref(), b.rsa.as_ref())
}

/// What a set of certified keys covers.
pub struct Covering<'a> {
    exact: HashSet<&'a ServerName>,
    /// By their parent.
    wildcards: HashSet<&'a str>,
}

impl<'a> Covering<'a> {
    pub fn new(all: &'a [Arc<Certified>]) -> Self {
        let mut covering = Self { exact: HashSet::new(), wildcards: HashSet::new() };
        for pattern in all.iter().flat_map(|certified| &certified.patterns) {
            match pattern {
                Pattern::Exact(name) => drop(covering.exact.insert(name)),
                Pattern::Wildcard(parent) => drop(covering.wildcards.insert(parent.as_str())),
                Pattern::Any => {}
            }
        }
        covering
    }

    /// Whether every name that `pattern` covers has a certificate among them.
    pub fn covers(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exact(name) => {
                self.exact.contains(name)
                    || parent_of(name.as_str())
                        .is_some_and(|parent| self.wildcards.contains(parent))
            }
            Pattern::Wildcard(parent) => self.wildcards.contains(parent.as_str()),
            Pattern::Any => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::certified::certify;
    use std::time::Duration;

    fn certified(names: &[&str], lasts_days: i64, source: Source) -> Arc<Certified> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = time::OffsetDateTime::from_unix_timestamp(0).unwrap();
        params.not_after = params.not_before + time::Duration::days(lasts_days);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Arc::new(certify(pem.as_bytes(), key.serialize_pem().as_bytes(), source).unwrap().0)
    }

    fn by_hand() -> Source {
        Source::ByHand { cert: "c".into(), key: "k".into() }
    }

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn valid_beats_by_hand_beats_later() {
        let local = certified(&["a.example"], 30, Source::LocalCa);
        let short = certified(&["a.example"], 10, by_hand());
        let long = certified(&["a.example"], 20, by_hand());
        let all = [local.clone(), short.clone(), long.clone()];
        for (day, expected) in [(5, &long), (15, &long), (25, &local), (40, &long)] {
            let now = Moment::from_unix_seconds(0).plus(DAY * day);
            let choices = choices(&all, now);
            let (_, key) = choices[&Pattern::parse("a.example").unwrap()].elliptic.clone().unwrap();
            assert!(Arc::ptr_eq(&key, &expected.key), "on day {day}");
        }
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let now = Moment::from_unix_seconds(1);
        let (a, b) = (
            certified(&["a.example", "*.a.example"], 10, by_hand()),
            certified(&["b.example"], 10, by_hand()),
        );
        let new_b = certified(&["b.example"], 20, by_hand());
        let before = choices(&[a.clone(), b], now);
        assert!(changes(&before, &before).is_empty());
        let changed = changes(&before, &choices(&[a.clone(), new_b], now));
        assert_eq!(changed.len(), 1);
        assert!(changed[0].0.to_string() == "b.example" && changed[0].1.is_some());
        let gone = changes(&before, &choices(&[a], now));
        assert!(gone.len() == 1 && gone[0].1.is_none());
    }

    #[test]
    fn a_wildcard_covers_names_and_itself_but_no_catch_all() {
        let all = [certified(&["a.example", "*.b.example"], 10, by_hand())];
        let covering = Covering::new(&all);
        let covers = |text| covering.covers(&Pattern::parse(text).unwrap());
        assert!(covers("a.example") && covers("x.b.example") && covers("*.b.example"));
        assert!(!covers("b.example") && !covers("*.a.example") && !covers("*"));
    }
}
