//! A look at the certificate files on the pool, which nothing waits for: a mount that hangs must keep neither a
//! signal nor a renewal waiting.

use std::time::Instant;

use tokio::task::JoinHandle;

use crate::clock::Moment;

use super::inventory::{Change, Inventory};
use super::watch::{LOOK_EVERY, Watch};

/// At most one look at a time, and the watch between two.
pub struct Looking {
    /// Lent to the look that is under way.
    watch: Option<Watch>,
    running: Option<JoinHandle<Done>>,
    done: Option<Looked>,
    due: Instant,
}

struct Done {
    watch: Watch,
    looked: Looked,
}

/// What a look has found.
pub struct Looked {
    /// What it began with.
    of: Inventory,
    /// What there is now and what became of items; `None` if nothing has changed.
    pub found: Option<(Inventory, Vec<Change>)>,
}

impl Looking {
    pub fn new(inventory: &Inventory, now: Instant) -> Self {
        let watch = Some(Watch::new(inventory));
        Self { watch, running: None, done: None, due: now + LOOK_EVERY }
    }

    /// When to begin the next look.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Begins a look, unless the one before is still under way.
    pub fn begin(&mut self, inventory: &Inventory, threads: usize, now: Moment, steady: Instant) {
        self.due = steady + LOOK_EVERY;
        if inventory.holdings.is_empty() {
            return;
        }
        let Some(mut watch) = self.watch.take() else { return };
        let of = inventory.clone();
        self.running = Some(tokio::task::spawn_blocking(move || {
            let found = watch.look(&of, threads, now);
            Done { watch, looked: Looked { of, found } }
        }));
    }

    /// Waits until a look has ended; for ever if none is under way. May be dropped and called again.
    pub async fn ended(&mut self) {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let outcome = running.await;
        self.running = None;
        match outcome {
            Ok(Done { watch, looked }) => {
                self.watch = Some(watch);
                self.done = Some(looked);
            }
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// What the look that has ended found. Nothing if `current` is not what it began with: a reload was
    /// faster, and the next look finds what that did not.
    pub fn take(&mut self, current: &Inventory) -> Option<(Inventory, Vec<Change>)> {
        let looked = self.done.take()?;
        if looked.of.is_same(current) {
            return looked.found;
        }
        if let Some(watch) = &mut self.watch {
            watch.distrust();
        }
        None
    }

    /// Another inventory is in force.
    pub fn replaced(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.follow_anew();
        }
    }
}
