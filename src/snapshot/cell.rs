//! The atomic pointer to the current snapshot; the one file that names `arc_swap`.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Snapshot;

/// Where the control plane publishes and the edge reads.
pub struct Cell {
    current: ArcSwap<Snapshot>,
}

impl Cell {
    pub fn new(first: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(first) }
    }

    /// Lends the current snapshot. Not async, and no borrow can leave: nobody can wait while holding
    /// one, so a long-lived connection pins nothing. Wait-free; writes no cache line that another
    /// worker reads.
    pub fn read<T>(&self, take: impl FnOnce(&Snapshot) -> T) -> T {
        take(&self.current.load())
    }

    /// Makes `next` the current snapshot. Returns the one before it, so that its release happens on
    /// the caller's thread and not on a worker's. Called by `control::publisher` only.
    pub fn publish(&self, next: Snapshot) -> Arc<Snapshot> {
        self.current.swap(Arc::new(next))
    }
}
