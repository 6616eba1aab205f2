//! Which endpoint is next: turns, open connections, and who is skipped after a failure. Told the time.
//!
//! Every worker counts for itself: sharing the counts would cost a contended cache line per connection,
//! and SO_REUSEPORT gives each worker an even part of all connections anyway.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::snapshot::{Endpoint, EndpointSlot, Policy, Upstream, UpstreamId};

use super::limits::{ENDPOINTS_TRIED, LONGEST_SKIP, SHORTEST_SKIP};

/// What one worker knows of its upstreams.
pub struct Balance {
    /// By [`EndpointSlot`].
    loads: RefCell<Vec<Load>>,
    /// By [`UpstreamId`]: where the next round starts. A reload may give an id to another upstream,
    /// whose round then starts somewhere.
    turns: RefCell<Vec<usize>>,
    first_turn: usize,
}

/// What a worker knows of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    open: u32,
    failures: u32,
    /// Not tried before this moment, unless there is nothing else.
    skipped_until: Option<Instant>,
}

impl Load {
    fn is_skipped(&self, now: Instant) -> bool {
        self.skipped_until.is_some_and(|until| now < until)
    }
}

/// The endpoints that one dial has tried, at most [`ENDPOINTS_TRIED`].
#[derive(Default)]
pub struct Tried([Option<EndpointSlot>; ENDPOINTS_TRIED]);

impl Tried {
    fn none(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    fn contains(&self, slot: EndpointSlot) -> bool {
        self.0.contains(&Some(slot))
    }

    /// Whether there was room for one more.
    fn add(&mut self, slot: EndpointSlot) -> bool {
        self.0.iter_mut().find(|place| place.is_none()).is_some_and(|place| {
            *place = Some(slot);
            true
        })
    }
}

impl Balance {
    /// `first_turn` differs between workers, so that they do not all begin with the same endpoint.
    pub fn new(first_turn: usize) -> Self {
        Self { loads: RefCell::default(), turns: RefCell::default(), first_turn }
    }

    /// The next endpoint to try; `None` if all have been tried, or enough of them. One that failed is skipped for a while;
    /// when its time is over, one connection tries it and the others go on skipping it meanwhile. If
    /// all are skipped, the one whose time is over first is tried: better than not trying.
    ///
    /// The connection counts from now on, until its place is dropped: many that are under way to an
    /// endpoint that does not answer must not look like none.
    pub fn pick<'u>(
        &self,
        id: UpstreamId,
        upstream: &'u Upstream,
        tried: &mut Tried,
        now: Instant,
    ) -> Option<(&'u Endpoint, Place<'_>)> {
        let turn = match tried.none() {
            true => self.take_turn(id),
            false => self.turn(id),
        };
        let count = upstream.endpoints.len();
        let in_turn = || {
            let (before, from) = upstream.endpoints.split_at(turn.checked_rem(count).unwrap_or(0));
            from.iter().chain(before).filter(|endpoint| !tried.contains(endpoint.slot))
        };
        let ready = || in_turn().filter(|endpoint| !self.load(endpoint.slot).is_skipped(now));
        let picked = match upstream.policy {
            Policy::RoundRobin => ready().next(),
            // Of equals the first in turn.
            Policy::LeastConnections => {
                ready().min_by_key(|endpoint| self.load(endpoint.slot).open)
            }
        };
        let picked = picked
            .or_else(|| in_turn().min_by_key(|endpoint| self.load(endpoint.slot).skipped_until))?;
        if !tried.add(picked.slot) {
            return None;
        }
        self.change(picked.slot, |load| {
            load.open += 1;
            if load.skipped_until.is_some() {
                load.skipped_until = Some(now + skip(load.failures));
            }
        });
        Some((picked, Place { balance: self, slot: picked.slot }))
    }

    /// The endpoint does not do what it is there for. Returns for how long it is skipped, if that is
    /// news.
    pub fn failed(&self, slot: EndpointSlot, now: Instant) -> Option<Duration> {
        self.change(slot, |load| {
            load.failures = load.failures.saturating_add(1);
            let pause = skip(load.failures);
            load.skipped_until = Some(now + pause);
            (load.failures == 1).then_some(pause)
        })
        .flatten()
    }

    /// The endpoint has taken a connection.
    pub fn succeeded(&self, slot: EndpointSlot) {
        self.change(slot, |load| *load = Load { open: load.open, ..Load::default() });
    }

    fn take_turn(&self, id: UpstreamId) -> usize {
        let at = id.0 as usize;
        let mut turns = self.turns.borrow_mut();
        if turns.len() <= at {
            turns.resize(at + 1, self.first_turn);
        }
        turns.get_mut(at).map_or(0, |turn| {
            let taken = *turn;
            *turn = taken.wrapping_add(1);
            taken
        })
    }

    /// The turn that was taken last.
    fn turn(&self, id: UpstreamId) -> usize {
        let turns = self.turns.borrow();
        turns.get(id.0 as usize).map_or(0, |next| next.wrapping_sub(1))
    }

    fn load(&self, slot: EndpointSlot) -> Load {
        self.loads.borrow().get(slot.0 as usize).copied().unwrap_or_default()
    }

    fn change<T>(&self, slot: EndpointSlot, change: impl FnOnce(&mut Load) -> T) -> Option<T> {
        let at = slot.0 as usize;
        let mut loads = self.loads.borrow_mut();
        if loads.len() <= at {
            loads.resize(at + 1, Load::default());
        }
        loads.get_mut(at).map(change)
    }
}

fn skip(failures: u32) -> Duration {
    // Doubled each time; five doublings exceed the longest.
    let doublings = failures.saturating_sub(1).min(5);
    (SHORTEST_SKIP * (1 << doublings)).min(LONGEST_SKIP)
}

/// A connection's place at an endpoint.
pub struct Place<'b> {
    balance: &'b Balance,
    slot: EndpointSlot,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.balance.change(self.slot, |load| load.open = load.open.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::snapshot::EndpointAddress;

    const ID: UpstreamId = UpstreamId(3);

    fn upstream(policy: Policy, count: u32) -> Upstream {
        let endpoint = |slot| {
            let address = EndpointAddress::Ip(([10, 0, 0, 1], slot as u16).into());
            Arc::new(Endpoint { slot: EndpointSlot(slot), address, tls: None })
        };
        Upstream { name: "u".into(), policy, endpoints: (0..count).map(endpoint).collect() }
    }

    fn first(balance: &Balance, upstream: &Upstream, now: Instant) -> u32 {
        balance.pick(ID, upstream, &mut Tried::default(), now).unwrap().0.slot.0
    }

    #[test]
    fn turns_go_round() {
        let (balance, upstream) = (Balance::new(1), upstream(Policy::RoundRobin, 3));
        let now = clock::steady();
        let picked: Vec<_> = (0..6).map(|_| first(&balance, &upstream, now)).collect();
        assert_eq!(picked, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_dial_tries_every_endpoint_once() {
        let now = clock::steady();
        for policy in [Policy::RoundRobin, Policy::LeastConnections] {
            let (balance, upstream) = (Balance::new(2), upstream(policy, 3));
            let mut tried = Tried::default();
            let mut picked = Vec::new();
            while let Some((endpoint, _)) = balance.pick(ID, &upstream, &mut tried, now) {
                picked.push(endpoint.slot.0);
                balance.failed(endpoint.slot, now);
            }
            assert_eq!(picked, [2, 0, 1], "{policy:?}");
        }
        let nobody = upstream(Policy::RoundRobin, 0);
        assert!(Balance::new(5).pick(ID, &nobody, &mut Tried::default(), now).is_none());
    }

    #[test]
    fn the_fewest_connections_win_and_ended_ones_count_no_more() {
        let (balance, upstream) = (Balance::new(0), upstream(Policy::LeastConnections, 2));
        let now = clock::steady();
        let mut places = Vec::new();
        for expected in [0, 1, 0, 1] {
            let picked = balance.pick(ID, &upstream, &mut Tried::default(), now).unwrap();
            assert_eq!(picked.0.slot.0, expected);
            places.push(picked.1);
        }
        // Those on the first endpoint end.
        drop(places.swap_remove(2));
        drop(places.swap_remove(0));
        assert_eq!([0, 0].map(|_| first(&balance, &upstream, now)), [0, 0]);
    }

    #[test]
    fn a_failed_endpoint_is_skipped_then_tried_by_one_connection() {
        let (balance, upstream) = (Balance::new(0), upstream(Policy::RoundRobin, 2));
        let start = clock::steady();
        assert_eq!(balance.failed(EndpointSlot(0), start), Some(SHORTEST_SKIP));
        assert_eq!([0; 4].map(|_| first(&balance, &upstream, start)), [1; 4]);

        let later = start + SHORTEST_SKIP;
        let picked = [0; 4].map(|_| first(&balance, &upstream, later));
        assert_eq!(picked.iter().filter(|slot| **slot == 0).count(), 1, "{picked:?}");
        // It failed again: skipped for longer, and no news.
        assert_eq!(balance.failed(EndpointSlot(0), later), None);
        assert_eq!([0; 4].map(|_| first(&balance, &upstream, later + SHORTEST_SKIP)), [1; 4]);
        let again = later + 2 * SHORTEST_SKIP;
        assert!([0; 2].map(|_| first(&balance, &upstream, again)).contains(&0));
        balance.succeeded(EndpointSlot(0));
        assert_eq!(balance.failed(EndpointSlot(0), again), Some(SHORTEST_SKIP));
    }

    #[test]
    fn when_all_are_skipped_the_one_that_is_over_first_is_tried() {
        let (balance, upstream) = (Balance::new(0), upstream(Policy::RoundRobin, 2));
        let start = clock::steady();
        balance.failed(EndpointSlot(1), start);
        balance.failed(EndpointSlot(0), start + Duration::from_millis(10));
        assert_eq!(first(&balance, &upstream, start + Duration::from_millis(20)), 1);
    }

    #[test]
    fn skipping_is_bounded() {
        assert_eq!([1, 2, 3].map(skip), [1, 2, 4].map(|times| SHORTEST_SKIP * times));
        assert_eq!([7, u32::MAX].map(skip), [LONGEST_SKIP; 2]);
    }
}
