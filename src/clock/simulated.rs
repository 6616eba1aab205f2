//! A clock that the simulator turns: calendar time is a beginning, tokio's paused time since, and the jumps
//! that this machine's clock has made.
//!
//! It belongs to one thread, as everything that is simulated does.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::Moment;

#[derive(Clone, Copy)]
struct Clock {
    started: tokio::time::Instant,
    begun: Moment,
    /// By how much the machine's clock is ahead of the true time.
    ahead_seconds: i64,
}

thread_local! {
    static CLOCK: Cell<Option<Clock>> = const { Cell::new(None) };
}

/// From here on this thread's time is the simulation's, and it is this moment. Within a paused runtime.
pub fn begin(begun: Moment) {
    let started = tokio::time::Instant::now();
    CLOCK.set(Some(Clock { started, begun, ahead_seconds: 0 }));
}

/// Sets how far the machine's clock is ahead of the true time.
pub fn set_ahead(ahead_seconds: i64) {
    CLOCK.set(CLOCK.get().map(|clock| Clock { ahead_seconds, ..clock }));
}

/// How far it is.
pub fn ahead() -> i64 {
    CLOCK.get().map_or(0, |clock| clock.ahead_seconds)
}

/// Whether this thread is simulated.
pub fn is_on() -> bool {
    CLOCK.get().is_some()
}

/// The true time, which CAs and clients go by.
pub fn true_time() -> Moment {
    since_beginning().map_or(Moment::from_unix_seconds(0), |(begun, since)| begun.plus(since))
}

fn since_beginning() -> Option<(Moment, Duration)> {
    let Clock { started, begun, .. } = CLOCK.get()?;
    Some((begun, tokio::time::Instant::now().duration_since(started)))
}

/// What the machine's clock shows, if this thread is simulated.
pub(super) fn now() -> Option<Moment> {
    let (begun, since) = since_beginning()?;
    let ahead_seconds = CLOCK.get().map_or(0, |clock| clock.ahead_seconds);
    let shown = begun.plus(since).unix_seconds().saturating_add(ahead_seconds);
    Some(Moment::from_unix_seconds(shown))
}

pub(super) fn steady() -> Option<Instant> {
    is_on().then(|| tokio::time::Instant::now().into_std())
}
