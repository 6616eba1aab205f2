//! Whether handshakes come so fast that it pays to wake up for several of their steps at once.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::limits::{PATIENCE_MOST, PATIENCE_SHARE};

/// Over how long ClientHellos are counted.
const SPAN: Duration = Duration::from_millis(10);

/// Those handshakes of one worker whose key exchange can be computed with others'. Whoever is refused, or brings
/// nothing to compute, is none of them, and makes nobody wait.
#[derive(Default)]
pub struct Rush {
    under_way: Cell<u32>,
    /// When the present span began, the ClientHellos in it, and those in the one before.
    span: Cell<Option<Instant>>,
    hellos: Cell<u32>,
    before: Cell<u32>,
}

/// A handshake under way, until it is dropped.
pub struct UnderWay<'r>(&'r Rush);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.update(|count| count - 1);
    }
}

/// How many completions the worker may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub completions: u32,
    /// For waits that begin before this.
    pub until: Instant,
}

impl Rush {
    /// A ClientHello is complete, and its handshake begins.
    pub fn begin(&self, now: Instant) -> UnderWay<'_> {
        match self.span.get() {
            Some(begun) if now < begun + SPAN => self.hellos.update(|count| count + 1),
            begun => {
                let is_next = begun.is_some_and(|begun| now < begun + 2 * SPAN);
                self.before.set(if is_next { self.hellos.get() } else { 0 });
                self.hellos.set(1);
                self.span.set(Some(now));
            }
        }
        self.under_way.update(|count| count + 1);
        UnderWay(self)
    }

    /// As many completions as are to be expected soon; no more than a quarter of the handshakes under way, so that the
    /// others move on meanwhile.
    pub fn patience(&self, now: Instant) -> Patience {
        let several = (self.lately() / PATIENCE_SHARE).min(self.under_way.get() / 4);
        Patience { completions: several.clamp(1, PATIENCE_MOST), until: now + SPAN }
    }

    /// Slow clients are under way for long, but did not come lately.
    fn lately(&self) -> u32 {
        self.hellos.get().max(self.before.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// What is waited for after so many hellos at this pace, of which so many are under way.
    fn after(hellos: usize, every: Duration, under_way: usize) -> u32 {
        let rush = Rush::default();
        let begun = clock::steady();
        let mut handshakes = std::collections::VecDeque::new();
        let mut now = begun;
        for _ in 0..hellos {
            handshakes.push_back(rush.begin(now));
            handshakes.truncate(under_way);
            now += every;
        }
        rush.patience(now).completions
    }

    #[test]
    fn several_are_waited_for_only_where_many_come() {
        let often = Duration::from_micros(250);
        assert_eq!(after(1000, often, 64), 4, "40 in 10 ms");
        assert_eq!(after(1000, often, 8), 2, "no more than are under way");
        assert_eq!(after(1000, often, 7), 1);
        assert_eq!(after(1000, often / 100, 1000), PATIENCE_MOST);
        assert_eq!(after(1000, often * 2, 1000), 2, "20 in 10 ms");
        assert_eq!(after(1000, often * 4, 1000), 1, "10 in 10 ms");
        assert_eq!(after(1000, Duration::from_millis(5), 1000), 1, "slow clients");
        assert_eq!(after(1, often, 1000), 1, "the first of them");
    }

    #[test]
    fn a_rush_is_over_when_none_came_for_a_while() {
        let rush = Rush::default();
        let begun = clock::steady();
        let _under_way: Vec<_> = (0..200).map(|_| rush.begin(begun)).collect();
        let _next = rush.begin(begun + SPAN);
        assert_eq!(rush.patience(begun + SPAN).completions, PATIENCE_MOST);
        let _last = rush.begin(begun + 4 * SPAN);
        assert_eq!(rush.patience(begun + 4 * SPAN).completions, 1);
    }

    #[test]
    fn what_has_ended_is_not_under_way() {
        let rush = Rush::default();
        let begun = clock::steady();
        (0..100).for_each(|_| drop(rush.begin(begun)));
        assert_eq!(rush.patience(begun).completions, 1);
    }
}
