//! The life of one process: it may end at any exchange and any write, and whatever it does after that has
//! no effect.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What a process does that others notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Exchange,
    Write,
}

/// Where a process is to die: at the so-manieth deed of this kind, before or after it has its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    pub deed: Deed,
    pub after: u32,
    pub has_effect: bool,
}

/// What becomes of a deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    /// The process is dead; the deed may have had its effect.
    Dead {
        has_effect: bool,
    },
}

/// One process.
#[derive(Debug, Default)]
pub struct Life {
    dead: AtomicBool,
    death: Mutex<Option<Death>>,
    died: Notify,
}

impl Life {
    pub fn is_over(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn end(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.died.notify_one();
    }

    /// Waits for the end.
    pub async fn over(self: Arc<Self>) {
        while !self.is_over() {
            self.died.notified().await;
        }
    }

    pub fn is_to_die(&self, death: Death) {
        *self.death.lock().unwrap_or_else(PoisonError::into_inner) = Some(death);
    }

    /// Does a deed, or dies over it.
    pub fn deed(&self, deed: Deed) -> Fate {
        if self.is_over() {
            return Fate::Dead { has_effect: false };
        }
        let mut death = self.death.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *death {
            Some(at) if at.deed == deed && at.after == 0 => {
                let has_effect = at.has_effect;
                *death = None;
                drop(death);
                self.end();
                Fate::Dead { has_effect }
            }
            Some(at) if at.deed == deed => {
                at.after -= 1;
                Fate::Done
            }
            _ => Fate::Done,
        }
    }
}
