//! What has been used of an issuer's limits, and what an order would use. Pure.
//!
//! Of each bucket only the moment is kept at which it is full again: that says how much is in it at any time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Moment;

pub use crate::store::record::Counts;

use super::limits_known::{Bucket, Limits};

/// Raised when an older ringgate could not understand what a newer one wrote.
const VERSION: u32 = 1;
/// Buckets kept of each kind. The account's limit keeps those in use to some thousands; those that are nearest
/// to full go first, and the object stays below a megabyte whatever the names are.
const MOST: usize = 900;
/// Clocks of nodes may differ by so much. A bucket that is full later than an empty one could be was written
/// by a clock that has been set back since, and says nothing.
const SKEW: Duration = Duration::from_secs(3600);

/// An order reaches its issuer after we have counted it, and the issuer gives back by its own count: whoever
/// must wait waits for as long beyond, or comes a second too soon.
const ARRIVES_WITHIN: Duration = Duration::from_secs(60);

/// What has been used, by what is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    version: u32,
    /// By the account's e-mail address.
    #[serde(default)]
    orders: BTreeMap<String, Moment>,
    /// By registered domain.
    #[serde(default)]
    domains: BTreeMap<String, Moment>,
    /// By exact set of names.
    #[serde(default)]
    names: BTreeMap<String, Moment>,
    /// Failed validations by name.
    #[serde(default)]
    failed: BTreeMap<String, Moment>,
    /// When it was last said that it will not suffice.
    #[serde(default)]
    pub warned: Option<Moment>,
}

impl Default for Budget {
    fn default() -> Self {
        let none = BTreeMap::new;
        let version = VERSION;
        Self {
            version,
            orders: none(),
            domains: none(),
            names: none(),
            failed: none(),
            warned: None,
        }
    }
}

/// An order as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    pub account: &'a str,
    pub domain: &'a str,
    pub name: &'a str,
    pub counts: Counts,
}

/// Why an order that was counted leads to no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vain {
    /// The issuer never had it.
    NotPlaced,
    /// It is over for a reason that the issuer does not count, or nobody can go on with it.
    Lost,
    /// It did not prove control of the name.
    Unproved,
}

impl Budget {
    /// Reads it; `None` if it is damaged or of a version to come.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|budget: &Self| budget.version == VERSION)
    }

    pub fn encode(&self) -> Vec<u8> {
        // Strings and numbers only: it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From when on the order may be placed; `now` if it may.
    pub fn free_at(&self, limits: &Limits, order: &Order<'_>, now: Moment) -> Moment {
        if order.counts == Counts::Exempt {
            return now;
        }
        let mut free = free_at(limits.same_names, self.names.get(order.name), now);
        free = free.max(free_at(limits.failed, self.failed.get(order.name), now));
        if order.counts == Counts::New {
            free = free.max(free_at(limits.orders, self.orders.get(order.account), now));
            if let Some(domain) = limits.domain {
                free = free.max(free_at(domain, self.domains.get(order.domain), now));
            }
        }
        free
    }

    /// Counts an order that is placed.
    pub fn take(&mut self, limits: &Limits, order: &Order<'_>, now: Moment) {
        if order.counts == Counts::New {
            change(&mut self.orders, order.account, |full| taken(limits.orders, full, now));
        }
        self.change_certificates(limits, order, |bucket, full| taken(bucket, full, now));
    }

    /// Takes back an order that was not placed.
    pub fn give_back(&mut self, limits: &Limits, order: &Order<'_>, now: Moment) {
        if order.counts == Counts::New {
            change(&mut self.orders, order.account, |full| given_back(limits.orders, full, now));
        }
        self.give_back_certificate(limits, order, now);
    }

    /// Takes back the certificate that an order did not lead to; the order itself has counted.
    pub fn give_back_certificate(&mut self, limits: &Limits, order: &Order<'_>, now: Moment) {
        self.change_certificates(limits, order, |bucket, full| given_back(bucket, full, now));
    }

    /// Counts a failed validation.
    pub fn fail(&mut self, limits: &Limits, order: &Order<'_>, now: Moment) {
        if order.counts != Counts::Exempt {
            change(&mut self.failed, order.name, |full| taken(limits.failed, full, now));
        }
    }

    fn change_certificates(
        &mut self,
        limits: &Limits,
        order: &Order<'_>,
        by: impl Fn(Bucket, Option<Moment>) -> Moment,
    ) {
        if order.counts == Counts::Exempt {
            return;
        }
        change(&mut self.names, order.name, |full| by(limits.same_names, full));
        if let (Counts::New, Some(domain)) = (order.counts, limits.domain) {
            change(&mut self.domains, order.domain, |full| by(domain, full));
        }
    }

    /// Takes in what was counted elsewhere: of each bucket what leaves less in it.
    pub fn merge(&mut self, other: &Self) {
        for (kind, theirs) in [
            (&mut self.orders, &other.orders),
            (&mut self.domains, &other.domains),
            (&mut self.names, &other.names),
            (&mut self.failed, &other.failed),
        ] {
            for (key, full) in theirs {
                change(kind, key, |ours| ours.map_or(*full, |ours| ours.max(*full)));
            }
        }
        self.warned = self.warned.max(other.warned);
    }

    /// Drops what says nothing: full buckets, and beyond a bound those nearest to full.
    pub fn tidy(&mut self, now: Moment) {
        for kind in [&mut self.orders, &mut self.domains, &mut self.names, &mut self.failed] {
            kind.retain(|_, full| *full > now);
            if kind.len() > MOST {
                let mut times: Vec<_> = kind.values().copied().collect();
                times.sort_unstable_by(|one, other| other.cmp(one));
                let last = times.get(MOST - 1).copied();
                kind.retain(|_, full| last.is_none_or(|last| *full >= last));
                while kind.len() > MOST {
                    kind.pop_last();
                }
            }
        }
    }
}

fn change(
    kind: &mut BTreeMap<String, Moment>,
    key: &str,
    by: impl FnOnce(Option<Moment>) -> Moment,
) {
    let full = by(kind.get(key).copied());
    kind.insert(key.to_owned(), full);
}

/// The time after which an empty bucket is full.
fn span(bucket: Bucket) -> Duration {
    bucket.refill * bucket.capacity
}

/// When a bucket is full, as far as that can be believed.
fn believed(bucket: Bucket, full: Option<Moment>, now: Moment) -> Moment {
    let empty = now.plus(span(bucket));
    match full {
        Some(full) if full > empty.plus(SKEW) => now,
        Some(full) => full.clamp(now, empty),
        None => now,
    }
}

fn free_at(bucket: Bucket, full: Option<&Moment>, now: Moment) -> Moment {
    let full = believed(bucket, full.copied(), now);
    let free = full.minus(bucket.refill * (bucket.capacity - 1));
    if free > now { free.plus(ARRIVES_WITHIN) } else { now }
}

fn taken(bucket: Bucket, full: Option<Moment>, now: Moment) -> Moment {
    let full = believed(bucket, full, now).plus(bucket.refill);
    full.min(now.plus(span(bucket)))
}

fn given_back(bucket: Bucket, full: Option<Moment>, now: Moment) -> Moment {
    believed(bucket, full, now).minus(bucket.refill).max(now)
}

#[cfg(test)]
mod tests {
    use super::super::limits_known::limits_of;
    use super::*;
    use crate::config::autocert::LETS_ENCRYPT;
    use proptest::prelude::*;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn limits() -> &'static Limits {
        limits_of(LETS_ENCRYPT).unwrap()
    }

    fn order(name: &str, counts: Counts) -> Order<'_> {
        Order { account: "a@b", domain: "example.com", name, counts }
    }

    /// How many such orders may be placed at once.
    fn placed_at_once(
        mut budget: Budget,
        names: impl Iterator<Item = String>,
        counts: Counts,
    ) -> usize {
        let mut placed = 0;
        for name in names {
            if budget.free_at(limits(), &order(&name, counts), NOW) > NOW {
                break;
            }
            budget.take(limits(), &order(&name, counts), NOW);
            placed += 1;
        }
        placed
    }

    #[test]
    fn each_limit_is_reached_and_renewals_count_for_the_same_names_alone() {
        let many = || (0..1000).map(|number| format!("n{number}.example.com"));
        let same = || (0..1000).map(|_| "a.example.com".to_owned());
        let full = Budget::default;
        assert_eq!(placed_at_once(full(), many(), Counts::New), 50);
        assert_eq!(placed_at_once(full(), many(), Counts::Renewal), 1000);
        assert_eq!(placed_at_once(full(), same(), Counts::Renewal), 5);
        assert_eq!(placed_at_once(full(), same(), Counts::Exempt), 1000);
        let mut budget = full();
        for number in 0..400 {
            let (name, domain) = (format!("d{number}.example"), format!("d{number}.example"));
            let order = Order { account: "a@b", domain: &domain, name: &name, counts: Counts::New };
            let is_free = budget.free_at(limits(), &order, NOW) == NOW;
            assert_eq!(is_free, number < 300, "{number}");
            budget.take(limits(), &order, NOW);
        }
    }

    #[test]
    fn what_is_empty_refills_one_by_one() {
        let mut budget = Budget::default();
        let order = order("a.example.com", Counts::Renewal);
        for _ in 0..5 {
            budget.take(limits(), &order, NOW);
        }
        let refill = limits().same_names.refill;
        let then = NOW.plus(refill).plus(ARRIVES_WITHIN);
        assert_eq!(budget.free_at(limits(), &order, NOW), then);
        assert_eq!(budget.free_at(limits(), &order, then), then);
        budget.take(limits(), &order, then);
        // The next is given back by the issuer's clock all the same.
        assert_eq!(budget.free_at(limits(), &order, then), then.plus(refill));
        // By a clock that was set back by a year nothing is known.
        let before = NOW.minus(9000 * HOUR);
        assert_eq!(budget.free_at(limits(), &order, before), before);
        let earlier = then.minus(HOUR / 2);
        let again = earlier.plus(refill).plus(ARRIVES_WITHIN);
        assert_eq!(budget.free_at(limits(), &order, earlier), again);
    }

    #[test]
    fn five_failures_in_an_hour_are_waited_out_and_cost_no_certificate() {
        let mut budget = Budget::default();
        let order = order("a.example.com", Counts::New);
        for _ in 0..5 {
            assert_eq!(budget.free_at(limits(), &order, NOW), NOW);
            budget.take(limits(), &order, NOW);
            budget.fail(limits(), &order, NOW);
            budget.give_back_certificate(limits(), &order, NOW);
        }
        let free = NOW.plus(limits().failed.refill).plus(ARRIVES_WITHIN);
        assert_eq!(budget.free_at(limits(), &order, NOW), free);
        let later = NOW.plus(HOUR);
        assert_eq!(budget.free_at(limits(), &order, later), later);
        budget.tidy(NOW);
        assert_eq!((budget.names.len(), budget.domains.len(), budget.failed.len()), (0, 0, 1));
        budget.tidy(later);
        assert_eq!(budget, Budget::default());
    }

    #[test]
    fn damaged_ones_are_none_and_their_size_is_bounded() {
        assert_eq!(Budget::decode(b"{\"version\":2}"), None);
        assert_eq!(Budget::decode(b"\0\0"), None);
        let mut budget = Budget::default();
        for number in 0..3 * MOST {
            let name = format!("{number:0>250}");
            let order = Order { account: &name, domain: &name, name: &name, counts: Counts::New };
            for _ in 0..=number % 3 {
                budget.take(limits(), &order, NOW);
            }
            budget.fail(limits(), &order, NOW);
        }
        budget.tidy(NOW);
        assert_eq!(budget.names.len(), MOST);
        // The fullest went first.
        let refill = limits().same_names.refill;
        assert!(budget.names.values().all(|full| *full == NOW.plus(refill * 3)));
        assert!(budget.encode().len() < 1 << 20, "{}", budget.encode().len());
        assert_eq!(Budget::decode(&budget.encode()), Some(budget));
    }

    proptest! {
        #[test]
        fn nothing_is_placed_beyond_the_limits(steps in proptest::collection::vec((0u64..20_000, 0usize..3, any::<bool>()), 1..300)) {
            let names = ["a.example.com", "b.example.com", "c.example.com"];
            let (mut budget, mut now) = (Budget::default(), NOW);
            let mut placed: Vec<(Moment, usize)> = Vec::new();
            for (pause, name, fails) in steps {
                now = now.plus(Duration::from_secs(pause));
                let order = order(names[name], Counts::New);
                let free = budget.free_at(limits(), &order, now);
                prop_assert!(free >= now && free <= now.plus(ARRIVES_WITHIN).plus(Duration::from_secs(7 * 24 * 3600)));
                if free == now {
                    budget.take(limits(), &order, now);
                    if fails {
                        budget.give_back_certificate(limits(), &order, now);
                    } else {
                        placed.push((now, name));
                    }
                    budget.tidy(now);
                }
            }
            // Within any span a bucket gives what it holds and what it regains.
            let refill = limits().same_names.refill;
            for (at, (from, name)) in placed.iter().enumerate() {
                let mut count = 0u32;
                for (to, other) in &placed[at..] {
                    count += u32::from(other == name);
                    let regained = (to.since(*from).as_secs() / refill.as_secs()) as u32;
                    prop_assert!(count <= 5 + regained);
                }
            }
        }

        #[test]
        fn damaged_budgets_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Budget::decode(&bytes), None);
        }
    }
}
