//! Whether an issuer's limits will suffice for the certificates that become due. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::clock::Moment;

use super::budget::{Budget, Counts, Order};
use super::limits_known::Limits;

/// So far is looked ahead: weeks in which a person can name another CA, or get a wildcard by hand.
pub const AHEAD: Duration = Duration::from_secs(35 * 24 * 3600);
/// A name without a certificate that waits for longer is one too many.
const WAIT_OF_NEW: Duration = Duration::from_secs(24 * 3600);

/// A certificate that will be ordered.
#[derive(Clone, Debug)]
pub struct Needed {
    pub due: Moment,
    /// When the one before ends; `None` if there is none.
    pub ends: Option<Moment>,
    pub name: String,
    pub domain: String,
    pub account: String,
    pub counts: Counts,
}

/// A certificate that cannot be ordered in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    pub name: String,
    /// When it could be ordered.
    pub free: Moment,
}

/// Plays the orders through, each as soon as there is room for it, and returns those that would come too late.
pub fn too_late(
    budget: &Budget,
    limits: &Limits,
    mut needed: Vec<Needed>,
    now: Moment,
) -> Vec<Late> {
    let mut budget = budget.clone();
    needed.retain(|one| one.counts != Counts::Exempt && one.due <= now.plus(AHEAD));
    needed.sort_unstable_by(|one, other| (one.due, &one.name).cmp(&(other.due, &other.name)));
    // Those that wait for the same bucket wait in a queue, of which the first alone is looked at.
    let mut queues: BTreeMap<String, VecDeque<Needed>> = BTreeMap::new();
    for one in needed {
        let key = if one.counts == Counts::New { &one.domain } else { &one.name };
        queues.entry(key.clone()).or_default().push_back(one);
    }
    let mut next: BinaryHeap<_> = queues.keys().map(|key| Reverse((now, key.clone()))).collect();
    let mut late = Vec::new();
    while let Some(Reverse((time, key))) = next.pop() {
        let Some(queue) = queues.get_mut(&key) else { continue };
        let Some(one) = queue.front() else { continue };
        if one.due > time {
            next.push(Reverse((one.due, key)));
            continue;
        }
        let Needed { due, ends, name, domain, account, counts } = one;
        let order = Order { account, domain, name, counts: *counts };
        let free = budget.free_at(limits, &order, time);
        if free <= time {
            budget.take(limits, &order, time);
            queue.pop_front();
            next.push(Reverse((time, key)));
        } else if free > ends.unwrap_or((*due).max(now).plus(WAIT_OF_NEW)) {
            // It is left to the issuer, and to a person; the others go on.
            late.push(Late { name: name.clone(), free });
            queue.pop_front();
            next.push(Reverse((time, key)));
        } else {
            next.push(Reverse((free, key)));
        }
    }
    late
}

#[cfg(test)]
mod tests {
    use super::super::limits_known::limits_of;
    use super::*;
    use crate::config::autocert::LETS_ENCRYPT;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn limits() -> &'static Limits {
        limits_of(LETS_ENCRYPT).unwrap()
    }

    fn needed(number: u32, counts: Counts) -> Needed {
        Needed {
            due: NOW.plus(14 * DAY),
            ends: Some(NOW.plus(44 * DAY)),
            name: format!("n{number}.example.com"),
            domain: "example.com".into(),
            account: String::new(),
            counts,
        }
    }

    fn late(count: u32, counts: Counts) -> usize {
        let needed = (0..count).map(|number| needed(number, counts)).collect();
        too_late(&Budget::default(), limits(), needed, NOW).len()
    }

    #[test]
    fn orders_of_one_domain_that_thirty_days_do_not_suffice_for_are_named_weeks_ahead() {
        // 50 at once, and 50 in each of the weeks that are left.
        assert_eq!(late(260, Counts::New), 0);
        assert_eq!(late(300, Counts::New), 300 - 50 - 30 * 50 / 7);
        assert_eq!(late(300, Counts::Renewal), 0);
        assert_eq!(late(300, Counts::Exempt), 0);
    }

    #[test]
    fn new_names_that_wait_for_more_than_a_day_are_named_and_far_ones_are_not() {
        let new = |number| Needed { due: NOW, ends: None, ..needed(number, Counts::New) };
        let found = too_late(&Budget::default(), limits(), (0..60).map(new).collect(), NOW);
        assert_eq!(found.len(), 60 - 50 - 7);
        assert!(found.iter().all(|late| late.free > NOW.plus(DAY)), "{found:?}");
        let far = |number| Needed { due: NOW.plus(60 * DAY), ..needed(number, Counts::New) };
        assert_eq!(too_late(&Budget::default(), limits(), (0..600).map(far).collect(), NOW), []);
    }

    #[test]
    fn what_is_used_already_counts() {
        let mut budget = Budget::default();
        let one = needed(1, Counts::Renewal);
        let order = Order { account: "", domain: &one.domain, name: &one.name, counts: one.counts };
        for _ in 0..5 {
            budget.take(limits(), &order, NOW);
        }
        let soon = Needed { due: NOW, ends: Some(NOW.plus(DAY)), ..one.clone() };
        assert_eq!(too_late(&budget, limits(), vec![soon], NOW).len(), 1);
        assert_eq!(too_late(&budget, limits(), vec![one], NOW), []);
    }
}
