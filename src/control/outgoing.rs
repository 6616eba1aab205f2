//! What is served on until the one that takes its place has the staple that it must have. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use crate::name::Pattern;

use super::certified::{Certified, Identity};

/// Certificates that are no longer there and still serve, as they were before anything was stapled to them.
#[derive(Default)]
pub struct Outgoing {
    kept: Vec<Arc<Certified>>,
    /// Of those that are there, the ones that must be stapled.
    must_staple: Vec<Arc<Certified>>,
}

impl Outgoing {
    pub fn kept(&self) -> &[Arc<Certified>] {
        &self.kept
    }

    /// Takes every certificate that there is. One that is there again is no longer outgoing.
    pub fn adopt(&mut self, all: &[Arc<Certified>]) {
        self.must_staple = all.iter().filter(|one| one.named.must_staple).cloned().collect();
        if !self.kept.is_empty() {
            let there: HashSet<Identity> = all.iter().map(|one| one.identity()).collect();
            self.kept.retain(|old| !there.contains(&old.identity()));
        }
    }

    /// Keeps of `before` what serves well where something of `after` waits for its staple. Returns those that
    /// wait and those that are kept for them.
    pub fn keep(
        &mut self,
        before: &[Arc<Certified>],
        after: &[Arc<Certified>],
        lacks: impl Fn(&Arc<Certified>) -> bool,
        serves: impl Fn(&Arc<Certified>) -> bool,
    ) -> Vec<(Arc<Certified>, Arc<Certified>)> {
        let waiting: Vec<_> = after.iter().filter(|one| lacks(one)).collect();
        if waiting.is_empty() {
            return Vec::new();
        }
        let lacking: HashSet<&Pattern> = waiting.iter().flat_map(|one| &one.patterns).collect();
        let mut stays: HashSet<Identity> =
            after.iter().chain(&self.kept).map(|one| one.identity()).collect();
        let mut begun = Vec::new();
        for old in before {
            let shared = old.patterns.iter().find(|pattern| lacking.contains(pattern));
            let Some(shared) = shared.filter(|_| serves(old)) else { continue };
            if stays.insert(old.identity()) {
                self.kept.push(old.clone());
                let for_whom = waiting.iter().find(|one| one.patterns.contains(shared));
                begun.extend(for_whom.map(|new| ((*new).clone(), old.clone())));
            }
        }
        begun
    }

    /// Lets go of those that nobody needs any more, for what took their place has its staple, and of those
    /// that serve well no longer. Returns them. Costs nothing where nothing is kept.
    pub fn prune(
        &mut self,
        lacks: impl Fn(&Arc<Certified>) -> bool,
        serves: impl Fn(&Arc<Certified>) -> bool,
    ) -> Vec<Arc<Certified>> {
        if self.kept.is_empty() {
            return Vec::new();
        }
        let waiting = self.must_staple.iter().filter(|one| lacks(one));
        let lacking: HashSet<&Pattern> = waiting.flat_map(|one| &one.patterns).collect();
        let is_needed = |old: &Arc<Certified>| {
            serves(old) && old.patterns.iter().any(|pattern| lacking.contains(pattern))
        };
        let (kept, gone) = std::mem::take(&mut self.kept).into_iter().partition(is_needed);
        self.kept = kept;
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::super::certified::samples::{DAY, Issuer, NOW};
    use super::*;

    #[test]
    fn one_is_kept_while_it_serves_well_and_its_successor_waits() {
        let issuer = Issuer::new("outgoing");
        let make = |names: &[&str]| issuer.certified(names, NOW.plus(DAY));
        let old = Arc::new(make(&["a.example", "b.example"]));
        let mut new = make(&["a.example"]);
        Arc::make_mut(&mut new.about).named.must_staple = true;
        let (new, other) = (Arc::new(new), Arc::new(make(&["c.example"])));
        let (yes, no) = (|_: &Arc<Certified>| true, |_: &Arc<Certified>| false);
        let lacks = |one: &Arc<Certified>| one.named.must_staple;
        let before = [old.clone(), other];
        let keeping = || {
            let mut outgoing = Outgoing::default();
            let begun = outgoing.keep(&before, from_ref(&new), lacks, yes);
            assert!(matches!(begun.as_slice(), [(one, other)]
                if Arc::ptr_eq(one, &new) && Arc::ptr_eq(other, &old)));
            outgoing.adopt(from_ref(&new));
            outgoing
        };
        let mut outgoing = keeping();
        // Once is enough, however often it is said.
        assert!(outgoing.keep(&before, from_ref(&new), lacks, yes).is_empty());
        assert!(outgoing.prune(lacks, yes).is_empty());
        assert_eq!(outgoing.kept().len(), 1);
        assert_eq!(outgoing.prune(no, yes).len(), 1, "its successor has its staple");
        assert_eq!(keeping().prune(lacks, no).len(), 1, "it has ended, or is revoked");
        let mut outgoing = keeping();
        outgoing.adopt(&[new.clone(), old.clone()]);
        assert!(outgoing.kept().is_empty(), "it is there again");
        assert!(Outgoing::default().keep(&before, from_ref(&new), lacks, no).is_empty());
        assert!(Outgoing::default().keep(&before, from_ref(&new), no, yes).is_empty());
    }
}
