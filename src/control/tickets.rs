//! When ticket keys rotate. Pure.

use std::time::{Duration, Instant};

/// The rhythm of the rotation.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    last: Instant,
    every: Duration,
}

impl Rotation {
    pub fn new(now: Instant, every: Duration) -> Self {
        Self { last: now, every }
    }

    /// When the next rotation is due.
    pub fn due(&self) -> Instant {
        self.last + self.every
    }

    /// The same rhythm with another period, from the last rotation on.
    pub fn every(&mut self, every: Duration) {
        self.every = every;
    }

    /// A rotation has taken place.
    pub fn rotated(&mut self, now: Instant) {
        self.last = now;
    }

    pub fn period(&self) -> Duration {
        self.every
    }
}
