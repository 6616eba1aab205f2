//! Which certified key serves a name when several could. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::clock::Moment;
use crate::name::{Pattern, ServerName, parent_of};
use crate::snapshot::{CertificateChoice, KeyKind};

use super::certified::{Certified, Source};

/// For each pattern the best certified key on an elliptic curve and the best with RSA. Of equals the one
/// that comes first stays. What is not in force, or lacks the staple that it must have, is left out where
/// something better is there: the other kind of key, or a wildcard above an exact name. A leaf of the local CA
/// serves only where nothing else serves as well, whatever its kind of key. `outgoing` are those that something
/// took the place of: each serves only where nothing that is there serves as well.
pub fn choices(
    all: &[Arc<Certified>],
    outgoing: &[Arc<Certified>],
    now: Moment,
) -> HashMap<Pattern, CertificateChoice> {
    let mut best: HashMap<&Pattern, Best<'_>> = HashMap::with_capacity(all.len());
    for certified in all {
        for pattern in &certified.patterns {
            let place = best.entry(pattern).or_default().place(certified);
            if place.is_none_or(|standing| rank(certified, now) > rank(standing, now)) {
                *place = Some(certified);
            }
        }
    }
    let mut outgoing: Vec<&Certified> = outgoing.iter().map(Arc::as_ref).collect();
    // Of these, too, the best comes first, and whatever follows is no fitter.
    outgoing.sort_by_key(|certified| std::cmp::Reverse(rank(certified, now)));
    for certified in outgoing {
        for pattern in &certified.patterns {
            let best = best.entry(pattern).or_default();
            let place = best.place(certified);
            if place.is_none_or(|standing| fitness(certified, now) > fitness(standing, now)) {
                *place = Some(certified);
                best.is_outgoing = true;
            }
        }
    }
    let wildcards: HashMap<&str, &Best<'_>> = best
        .iter()
        .filter_map(|(pattern, best)| match pattern {
            Pattern::Wildcard(parent) => Some((parent.as_str(), best)),
            Pattern::Exact(_) | Pattern::Any => None,
        })
        .collect();
    let stands = |pattern: &Pattern, best: &Best<'_>| match pattern {
        Pattern::Exact(name) => {
            let above = parent_of(name.as_str()).and_then(|parent| wildcards.get(parent));
            above.is_none_or(|above| !above.serves_before(best, now))
        }
        Pattern::Wildcard(_) | Pattern::Any => true,
    };
    best.iter()
        .filter(|(pattern, best)| stands(pattern, best))
        .map(|(pattern, best)| ((*pattern).clone(), best.choice(now)))
        .collect()
}

/// What is to be served for these patterns alone, `None` where nothing is: costs little where few of many
/// certified keys have changed. `dressed` is a certified key with its staple.
pub fn choices_for(
    patterns: &HashSet<Pattern>,
    all: &[Arc<Certified>],
    outgoing: &[Arc<Certified>],
    dressed: impl Fn(&Arc<Certified>) -> Arc<Certified>,
    now: Moment,
) -> Vec<(Pattern, Option<CertificateChoice>)> {
    // With a wildcard, whether the exact names below it stand may change too.
    let below = |pattern: &Pattern| match pattern {
        Pattern::Exact(name) => parent_of(name.as_str())
            .and_then(|parent| ServerName::parse(parent).ok())
            .is_some_and(|parent| patterns.contains(&Pattern::Wildcard(parent))),
        Pattern::Wildcard(_) | Pattern::Any => false,
    };
    let has_wildcards = patterns.iter().any(|pattern| matches!(pattern, Pattern::Wildcard(_)));
    let mut affected = patterns.clone();
    if has_wildcards {
        let all = all.iter().flat_map(|certified| &certified.patterns);
        affected.extend(all.filter(|pattern| below(pattern)).cloned());
    }
    let parents: HashSet<&str> = affected
        .iter()
        .filter_map(|pattern| match pattern {
            Pattern::Exact(name) => parent_of(name.as_str()),
            Pattern::Wildcard(_) | Pattern::Any => None,
        })
        .collect();
    let concerns = |certified: &&Arc<Certified>| {
        certified.patterns.iter().any(|one| match one {
            Pattern::Wildcard(parent) if parents.contains(parent.as_str()) => true,
            one => affected.contains(one),
        })
    };
    let concerned: Vec<_> = all.iter().filter(concerns).map(&dressed).collect();
    let covering = Covering::of_fit(&concerned, now);
    let concerned: Vec<_> =
        concerned.iter().filter(|one| !is_covered(one, &covering)).cloned().collect();
    let outgoing: Vec<_> = outgoing.iter().filter(concerns).map(&dressed).collect();
    let mut chosen = choices(&concerned, &outgoing, now);
    affected.into_iter().map(|pattern| (pattern.clone(), chosen.remove(&pattern))).collect()
}

/// Whether one is issued for nothing but names that certificates by hand cover: those serve them.
fn is_covered(certified: &Certified, covering: &Covering<'_>) -> bool {
    matches!(certified.source, Source::Issued { .. })
        && certified.patterns.iter().all(|pattern| covering.covers(pattern))
}

/// Which certified keys name what, for asking about many patterns.
pub struct Index<'a> {
    by_pattern: HashMap<&'a Pattern, Vec<&'a Arc<Certified>>>,
}

impl<'a> Index<'a> {
    pub fn new(all: &'a [Arc<Certified>]) -> Self {
        let mut by_pattern: HashMap<&Pattern, Vec<&Arc<Certified>>> = HashMap::new();
        for certified in all {
            for pattern in &certified.patterns {
                by_pattern.entry(pattern).or_default().push(certified);
            }
        }
        Self { by_pattern }
    }

    /// The one that serves most clients that ask for a name of this pattern.
    pub fn serving(&self, pattern: &Pattern, now: Moment) -> Option<&'a Arc<Certified>> {
        let wildcard = match pattern {
            Pattern::Exact(name) => parent_of(name.as_str())
                .and_then(|parent| ServerName::parse(parent).ok())
                .map(Pattern::Wildcard),
            Pattern::Wildcard(_) | Pattern::Any => None,
        };
        let covering = [Some(pattern), wildcard.as_ref()].into_iter().flatten();
        let covering: Vec<_> = covering
            .filter_map(|pattern| self.by_pattern.get(pattern))
            .flatten()
            .copied()
            .collect();
        // Of equals the first one, as above.
        let best = |locals: bool| {
            let those = covering.iter().rev().copied();
            let those = those.filter(|one| matches!(one.source, Source::LocalCa) == locals);
            those.max_by_key(|certified| {
                let (valid, source, common, until) = rank(certified, now);
                (valid, source, certified.kind != KeyKind::Rsa, common, until)
            })
        };
        match (best(false), best(true)) {
            (Some(other), Some(local)) => {
                let wins = fitness(other, now).serves_before_local(fitness(local, now));
                Some(if wins { other } else { local })
            }
            (other, local) => other.or(local),
        }
    }
}

#[derive(Default)]
struct Best<'a> {
    elliptic: Option<&'a Certified>,
    rsa: Option<&'a Certified>,
    /// Of the local CA.
    local: Option<&'a Certified>,
    /// One of them serves on although something took its place.
    is_outgoing: bool,
}

/// How well a certified key would serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    NotInForce,
    /// Clients that look refuse it.
    Revoked,
    /// Clients that know must-staple refuse it (RFC 7633 §4.3.1), others do not.
    LacksStaple,
    Fit,
}

impl Fitness {
    /// Whether one of an issuer's serves and not one of the local CA's, which most clients do not trust at all: fewer
    /// refuse what is revoked.
    fn serves_before_local(self, local: Self) -> bool {
        self == Self::Revoked || self >= local
    }
}

fn fitness(certified: &Certified, now: Moment) -> Fitness {
    match () {
        () if !certified.is_valid(now) => Fitness::NotInForce,
        () if certified.is_revoked => Fitness::Revoked,
        () if certified.lacks_staple() => Fitness::LacksStaple,
        () => Fitness::Fit,
    }
}

fn fittest<const N: usize>(of: [Option<&Certified>; N], now: Moment) -> Option<Fitness> {
    of.into_iter().flatten().map(|certified| fitness(certified, now)).max()
}

impl<'a> Best<'a> {
    /// Where the best of its kind stands.
    fn place(&mut self, certified: &Certified) -> &mut Option<&'a Certified> {
        match certified.source {
            Source::LocalCa => &mut self.local,
            _ if certified.kind == KeyKind::Rsa => &mut self.rsa,
            _ => &mut self.elliptic,
        }
    }

    fn fitness(&self, now: Moment) -> Fitness {
        let serving = match self.local(now) {
            Some(local) => Some(fitness(local, now)),
            None => fittest([self.elliptic, self.rsa], now),
        };
        serving.unwrap_or(Fitness::NotInForce)
    }

    /// The local CA's, where nothing else serves as well: not even an RSA key, though a client that could
    /// verify both would be given the elliptic one.
    fn local(&self, now: Moment) -> Option<&'a Certified> {
        let others = fittest([self.elliptic, self.rsa], now);
        self.local.filter(|local| {
            !others.is_some_and(|others| others.serves_before_local(fitness(local, now)))
        })
    }

    /// Whether this wildcard serves a name below it, and not what is for that name alone.
    fn serves_before(&self, exact: &Self, now: Moment) -> bool {
        let (ours, theirs) = (self.fitness(now), exact.fitness(now));
        match (self.local(now).is_some(), exact.local(now).is_some()) {
            (false, true) => ours.serves_before_local(theirs),
            (true, false) => !theirs.serves_before_local(ours),
            _ => ours > theirs || (ours == theirs && exact.is_outgoing),
        }
    }

    fn choice(&self, now: Moment) -> CertificateChoice {
        if let Some(local) = self.local(now) {
            return CertificateChoice {
                elliptic: Some((local.kind, local.key.clone())),
                rsa: None,
            };
        }
        // A client that could verify both would be given the elliptic one, be it over or not.
        let best = self.fitness(now);
        let stands = |certified: &&Certified| fitness(certified, now) == best;
        CertificateChoice {
            elliptic: self
                .elliptic
                .filter(stands)
                .map(|certified| (certified.kind, certified.key.clone())),
            rsa: self.rsa.filter(stands).map(|certified| certified.key.clone()),
        }
    }
}

/// The greater one is served: in force, not revoked and with the staple that it must have before not, by hand before
/// an issuer's before the local CA's, a curve that every client knows before others, then the one that lasts
/// longer. (Certificates found in the system's directories will stand between by hand and issued.)
///
/// So a valid leaf of the local CA would beat an expired one by hand. That seldom arises, since the local
/// CA issues only for names that nothing by hand covers.
fn rank(certified: &Certified, now: Moment) -> (Fitness, u8, bool, Moment) {
    let by_hand = match certified.source {
        Source::ByHand { .. } => 2,
        Source::Issued { .. } => 1,
        Source::LocalCa => 0,
    };
    // Browsers verify neither Ed25519 nor P-521.
    let common = !matches!(certified.kind, KeyKind::Ed25519 | KeyKind::EcdsaP521);
    (fitness(certified, now), by_hand, common, certified.not_after)
}

/// The patterns whose choice differs, with the new one; `None` where there is none any more.
pub fn changes(
    old: &HashMap<Pattern, CertificateChoice>,
    new: &HashMap<Pattern, CertificateChoice>,
) -> Vec<(Pattern, Option<CertificateChoice>)> {
    let set = new
        .iter()
        .filter(|(pattern, choice)| {
            !old.get(pattern).is_some_and(|standing| same(standing, choice))
        })
        .map(|(pattern, choice)| (pattern.clone(), Some(choice.clone())));
    let removed = old.keys().filter(|pattern| !new.contains_key(pattern));
    set.chain(removed.map(|pattern| (pattern.clone(), None))).collect()
}

/// Whether both are the very same certified keys; a private key that was parsed stays so.
fn same(one: &CertificateChoice, other: &CertificateChoice) -> bool {
    let elliptic = match (&one.elliptic, &other.elliptic) {
        (Some((_, one)), Some((_, other))) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    };
    let rsa = match (&one.rsa, &other.rsa) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    };
    elliptic && rsa
}

/// The names that certificates by hand cover, for asking about many routes.
pub struct Covering<'a> {
    exact: HashSet<&'a str>,
    /// The wildcards' parents.
    wildcards: HashSet<&'a str>,
}

impl<'a> Covering<'a> {
    pub fn new(all: &'a [Arc<Certified>]) -> Self {
        Self::of(all.iter())
    }

    /// The same for some of them.
    pub fn of(all: impl Iterator<Item = &'a Arc<Certified>>) -> Self {
        let mut covering = Self { exact: HashSet::new(), wildcards: HashSet::new() };
        let by_hand = all.filter(|one| matches!(one.source, Source::ByHand { .. }));
        for pattern in by_hand.flat_map(|certified| &certified.patterns) {
            match pattern {
                Pattern::Exact(name) => covering.exact.insert(name.as_str()),
                Pattern::Wildcard(parent) => covering.wildcards.insert(parent.as_str()),
                Pattern::Any => false,
            };
        }
        covering
    }

    /// The same for those that are in force, not revoked, and lack no staple.
    pub fn of_fit(all: &'a [Arc<Certified>], now: Moment) -> Self {
        Self::of(all.iter().filter(|certified| fitness(certified, now) == Fitness::Fit))
    }

    /// Whether one of them covers every name of the pattern, be it valid or expired. Nothing covers `*`,
    /// for no certificate can.
    pub fn covers(&self, pattern: &Pattern) -> bool {
        match pattern {
            Pattern::Exact(name) => {
                self.exact.contains(name.as_str())
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
    use std::slice::from_ref;

    use super::super::certified::samples::{DAY, Issuer, NOW};
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    /// By hand or not, its kind, and in how many days it expires.
    fn certified(
        issuer: &Issuer,
        names: &[&str],
        by_hand: bool,
        kind: KeyKind,
        days: i32,
    ) -> Arc<Certified> {
        let span = DAY * days.unsigned_abs();
        let not_after = if days < 0 { NOW.minus(span) } else { NOW.plus(span) };
        let mut certified = issuer.certified(names, not_after);
        Arc::make_mut(&mut certified.about).kind = kind;
        if !by_hand {
            Arc::make_mut(&mut certified.about).source = Source::LocalCa;
        }
        Arc::new(certified)
    }

    #[test]
    fn what_is_over_gives_way_to_what_is_in_force() {
        let issuer = Issuer::new("over");
        let over = NOW.minus(DAY);
        let wildcard = Arc::new(issuer.certified(&["*.example.com"], NOW.plus(DAY)));
        let exact = Arc::new(issuer.certified(&["www.example.com"], over));
        let alone = Arc::new(issuer.certified(&["example.org"], over));
        let all = [wildcard.clone(), exact.clone(), alone];
        let chosen = choices(&all, &[], NOW);
        let has = |text: &str| chosen.contains_key(&pattern(text));
        assert!(has("*.example.com") && !has("www.example.com") && has("example.org"));
        // Before it was over, the exact one stood; and so it does when the wildcard goes.
        assert!(choices(&all, &[], over.minus(DAY)).contains_key(&pattern("www.example.com")));
        assert!(choices(&all[1..], &[], NOW).contains_key(&pattern("www.example.com")));
        // Of a change of the wildcard alone, the exact name below it hears too.
        let patterns = HashSet::from([pattern("*.example.com")]);
        for (all, stands) in [(&all[..], false), (&all[1..], true)] {
            let changed = choices_for(&patterns, all, &[], Arc::clone, NOW);
            let www = changed.iter().find(|(one, _)| *one == pattern("www.example.com")).unwrap();
            assert_eq!((changed.len(), www.1.is_some()), (2, stands));
        }
    }

    /// `lacks`: it must have a staple, and has none.
    fn made(issuer: &Issuer, names: &[&str], lacks: bool, days: u32) -> Arc<Certified> {
        let mut certified = issuer.certified(names, NOW.plus(days * DAY));
        Arc::make_mut(&mut certified.about).named.must_staple = lacks;
        Arc::new(certified)
    }

    #[test]
    fn what_lacks_the_staple_that_it_must_have_serves_only_where_nothing_else_does() {
        let issuer = Issuer::new("must-staple");
        let make = |names: &[&str], lacks, days| made(&issuer, names, lacks, days);
        let lacking = make(&["a.example"], true, 60);
        let shorter = make(&["a.example"], false, 1);
        let shown = |all: &[Arc<Certified>], name: &str| {
            let chosen = choices(all, &[], NOW);
            chosen.get(&pattern(name)).and_then(|choice| Some(choice.elliptic.clone()?.1))
        };
        let is = |shown: Option<Arc<_>>, one: &Arc<Certified>| {
            shown.is_some_and(|shown| Arc::ptr_eq(&shown, &one.key))
        };
        assert!(is(shown(&[lacking.clone(), shorter.clone()], "a.example"), &shorter));
        assert!(is(shown(from_ref(&lacking), "a.example"), &lacking));
        let over = Arc::new(issuer.certified(&["a.example"], NOW.minus(DAY)));
        assert!(is(shown(&[over, lacking.clone()], "a.example"), &lacking));
        // A wildcard that serves well is better too, and with the staple it is as good as any.
        let wildcard = make(&["*.example"], false, 1);
        assert!(shown(&[lacking.clone(), wildcard.clone()], "a.example").is_none());
        let mut stapled = (*lacking).clone();
        super::super::staple::attach(&mut stapled, Some(vec![0]));
        let stapled = Arc::new(stapled);
        assert!(is(shown(&[stapled.clone(), wildcard, shorter], "a.example"), &stapled));
        assert!(Covering::of_fit(&[stapled], NOW).covers(&pattern("a.example")));
        assert!(!Covering::of_fit(&[lacking], NOW).covers(&pattern("a.example")));
    }

    #[test]
    fn what_is_revoked_gives_way_to_what_is_not_however_long_it_would_last() {
        let issuer = Issuer::new("revoked");
        let mut revoked = issuer.certified(&["a.example"], NOW.plus(300 * DAY));
        revoked.is_revoked = true;
        let revoked = Arc::new(revoked);
        let served = |other: &Arc<Certified>| {
            let chosen = choices(&[revoked.clone(), other.clone()], &[], NOW);
            let choice = chosen.get(&pattern("a.example"))?;
            Some(Arc::ptr_eq(&choice.elliptic.as_ref()?.1, &other.key))
        };
        let by_hand = |name| certified(&issuer, &[name], true, KeyKind::EcdsaP256, 90);
        assert_eq!(served(&by_hand("a.example")), Some(true));
        assert_eq!(served(&by_hand("*.example")), None, "the wildcard serves it");
        let over = certified(&issuer, &["a.example"], true, KeyKind::EcdsaP256, -1);
        assert_eq!(served(&over), Some(false));
        for local in ["a.example", "*.example"] {
            let local = certified(&issuer, &[local], false, KeyKind::EcdsaP256, 7);
            assert_eq!(served(&local), Some(false));
            let all = [revoked.clone(), local];
            let listed = Index::new(&all).serving(&pattern("a.example"), NOW).expect("one");
            assert!(Arc::ptr_eq(listed, &revoked));
        }
        let mut revoked = issuer.certified(&["*.example"], NOW.plus(300 * DAY));
        revoked.is_revoked = true;
        let local = certified(&issuer, &["a.example"], false, KeyKind::EcdsaP256, 7);
        let chosen = choices(&[Arc::new(revoked), local], &[], NOW);
        assert!(!chosen.contains_key(&pattern("a.example")), "the wildcard serves it");
    }

    #[test]
    fn what_is_outgoing_serves_only_where_nothing_serves_as_well() {
        let issuer = Issuer::new("outgoing-rank");
        let make = |names: &[&str], lacks, days| made(&issuer, names, lacks, days);
        let lacking = make(&["a.example"], true, 90);
        let outgoing = [make(&["a.example"], false, 200), make(&["a.example"], false, 398)];
        let patterns = HashSet::from([pattern("a.example")]);
        let served = |all: &[Arc<Certified>]| {
            let chosen = choices(all, &outgoing, NOW).remove(&pattern("a.example"));
            let some = choices_for(&patterns, all, &outgoing, Arc::clone, NOW).remove(0).1;
            let key = |choice: CertificateChoice| choice.elliptic.unwrap().1;
            let (one, other) = (chosen.map(key), some.map(key));
            assert_eq!(one.as_ref().map(Arc::as_ptr), other.as_ref().map(Arc::as_ptr));
            one
        };
        let is = |all: &[Arc<Certified>], one: &Arc<Certified>| {
            served(all).is_some_and(|key| Arc::ptr_eq(&key, &one.key))
        };
        assert!(is(from_ref(&lacking), &outgoing[1]), "of two the better one");
        let soon_over = make(&["a.example"], false, 1);
        assert!(is(&[lacking.clone(), soon_over.clone()], &soon_over), "whatever lasts longer");
        let wildcard = make(&["*.example"], false, 1);
        assert!(served(&[lacking, wildcard]).is_none(), "a wildcard that is there");
    }

    #[test]
    fn of_some_patterns_too_issued_ones_give_way_to_those_by_hand_that_cover_them() {
        let issuer = Issuer::new("covered");
        let wildcard = Arc::new(issuer.certified(&["*.example"], NOW.plus(DAY)));
        let mut issued = issuer.certified(&["a.example"], NOW.plus(60 * DAY));
        Arc::make_mut(&mut issued.about).source =
            Source::Issued { issuer: "https://ca.example/dir".into() };
        let all = [wildcard, Arc::new(issued)];
        let patterns = HashSet::from([pattern("a.example")]);
        let some = |all| choices_for(&patterns, all, &[], Arc::clone, NOW).remove(0).1;
        assert!(some(&all).is_none() && some(&all[1..]).is_some());
    }

    #[test]
    fn the_best_certified_key_is_chosen_in_any_order() {
        use KeyKind::{EcdsaP256 as P256, EcdsaP384 as P384, EcdsaP521 as P521, Ed25519};
        let issuer = Issuer::new("precedence");
        let make = |(by_hand, kind, days)| certified(&issuer, &["a.example"], by_hand, kind, days);
        for (better, worse, why) in [
            ((true, P256, 20), (true, P384, 10), "lasts longer"),
            ((true, P256, 10), (false, P256, 20), "by hand"),
            ((true, P256, 10), (true, P256, -1), "in force"),
            ((true, P256, -1), (true, P256, -2), "expired later"),
            ((false, P256, 7), (true, P256, -1), "valid"),
            ((true, P256, 10), (true, Ed25519, 20), "known to clients"),
            ((true, P384, 10), (true, P521, 20), "known to clients"),
            ((true, Ed25519, 10), (true, P256, -1), "in force"),
        ] {
            let (better, worse) = (make(better), make(worse));
            for all in [[better.clone(), worse.clone()], [worse, better.clone()]] {
                let choice = &choices(&all, &[], NOW)[&pattern("a.example")];
                assert!(Arc::ptr_eq(&choice.elliptic.as_ref().unwrap().1, &better.key), "{why}");
            }
        }
    }

    #[test]
    fn a_leaf_of_the_local_ca_gives_way_to_every_other_that_serves_as_well() {
        use KeyKind::{EcdsaP256, Rsa};
        let issuer = Issuer::new("local");
        let local = certified(&issuer, &["a.example"], false, EcdsaP256, 7);
        let rsa = certified(&issuer, &["a.example"], true, Rsa, 60);
        let wildcard = certified(&issuer, &["*.example"], true, EcdsaP256, 60);
        let patterns = HashSet::from([pattern("a.example")]);
        let chosen = |all: &[Arc<Certified>], outgoing: &[Arc<Certified>], at: Moment| {
            let some = choices_for(&patterns, all, outgoing, Arc::clone, at).remove(0).1;
            let one = choices(all, outgoing, at).remove(&pattern("a.example"));
            assert_eq!(one.is_some(), some.is_some());
            assert!(one.iter().zip(&some).all(|(one, some)| same(one, some)));
            one
        };
        for (all, outgoing) in
            [(vec![local.clone(), rsa.clone()], vec![]), (vec![rsa.clone()], vec![local.clone()])]
        {
            let choice = chosen(&all, &outgoing, NOW).expect("a choice");
            assert!(
                choice.elliptic.is_none() && Arc::ptr_eq(choice.rsa.as_ref().unwrap(), &rsa.key)
            );
        }
        assert!(chosen(&[local.clone(), wildcard.clone()], &[], NOW).is_none());
        let over = NOW.plus(DAY * 90);
        let later = certified(&issuer, &["a.example"], false, EcdsaP256, 97);
        for other in [rsa, wildcard, local] {
            let choice = chosen(&[other, later.clone()], &[], over).expect("a choice");
            assert!(choice.rsa.is_none());
            assert!(Arc::ptr_eq(&choice.elliptic.unwrap().1, &later.key));
        }
    }

    #[test]
    fn equals_stay_in_order_and_rsa_stands_beside() {
        let issuer = Issuer::new("beside");
        let make = |kind| certified(&issuer, &["a.example", "*.b.example"], true, kind, 10);
        let all = [KeyKind::EcdsaP256, KeyKind::EcdsaP256, KeyKind::Rsa, KeyKind::Rsa].map(make);
        let choices = choices(&all, &[], NOW);
        assert_eq!(choices.len(), 2);
        for choice in choices.values() {
            assert!(Arc::ptr_eq(&choice.elliptic.as_ref().unwrap().1, &all[0].key));
            assert!(Arc::ptr_eq(choice.rsa.as_ref().unwrap(), &all[2].key));
        }
    }

    #[test]
    fn changes_are_what_differs() {
        let issuer = Issuer::new("changes");
        let make = |name: &str, kind| certified(&issuer, &[name], true, kind, 10);
        let (kept, removed) =
            (make("kept.example", KeyKind::EcdsaP256), make("removed.example", KeyKind::EcdsaP256));
        let rsa = make("kept.example", KeyKind::Rsa);
        let old = choices(&[kept.clone(), removed], &[], NOW);
        assert!(changes(&old, &old).is_empty());
        let new = choices(&[kept.clone(), make("new.example", KeyKind::EcdsaP256)], &[], NOW);
        let mut found: Vec<_> = changes(&old, &new)
            .into_iter()
            .map(|(pattern, choice)| (pattern.to_string(), choice.is_some()))
            .collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [("new.example".to_owned(), true), ("removed.example".to_owned(), false)]
        );
        let with_rsa = choices(&[kept, rsa, make("new.example", KeyKind::EcdsaP256)], &[], NOW);
        assert_eq!(changes(&new, &with_rsa).len(), 2);
    }

    #[test]
    fn choices_for_some_patterns_are_those_among_all() {
        let issuer = Issuer::new("some");
        let make = |names: &[&str], days| certified(&issuer, names, true, KeyKind::EcdsaP256, days);
        let all = [
            make(&["a.example", "b.example"], 10),
            make(&["a.example"], 20),
            make(&["b.example", "c.example"], 30),
        ];
        let every = choices(&all, &[], NOW);
        let wanted = HashSet::from([pattern("a.example"), pattern("gone.example")]);
        let mut some = choices_for(&wanted, &all, &[], Arc::clone, NOW);
        some.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(some.len(), 2);
        assert!(same(some[0].1.as_ref().unwrap(), &every[&pattern("a.example")]));
        assert!(some[1].1.is_none());
    }

    #[test]
    fn what_by_hand_covers_the_local_ca_need_not() {
        let issuer = Issuer::new("covers");
        let all = [
            certified(
                &issuer,
                &["a.example", "*.b.example", "10.0.0.1"],
                true,
                KeyKind::EcdsaP256,
                -1,
            ),
            certified(&issuer, &["local.example"], false, KeyKind::EcdsaP256, 7),
        ];
        let covering = Covering::new(&all);
        for (name, covered) in [
            ("a.example", true),
            ("x.b.example", true),
            ("*.b.example", true),
            ("10.0.0.1", true),
            ("b.example", false),
            ("*.a.example", false),
            ("x.a.example", false),
            ("x.y.b.example", false),
            ("local.example", false),
            ("10.0.0.2", false),
            ("*", false),
        ] {
            assert_eq!(covering.covers(&pattern(name)), covered, "{name}");
        }
    }
}
