//! A lock of the store that is held while work goes on, its holder shown to be alive.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::warn;

use crate::clock::Moment;
use crate::store::{Lock, Store};

use super::blocking;

/// Twice within the ten seconds after which a lock is anyone's, with room for a slow disk.
const BEAT: Duration = Duration::from_secs(4);

/// A held lock. Released by [`Held::release`]; dropped without, it goes stale by itself.
pub struct Held {
    lock: Arc<Mutex<Box<dyn Lock>>>,
    lost: Arc<AtomicBool>,
    beating: JoinHandle<()>,
}

impl Held {
    /// Takes the lock, unless somebody who is alive holds it.
    ///
    /// # Errors
    /// If the store cannot hold a lock at all.
    pub async fn try_take(store: &Arc<dyn Store>, name: String) -> io::Result<Option<Self>> {
        let store = store.clone();
        let taken = blocking(move || store.try_lock(&name, Moment::now())).await?;
        Ok(taken.map(|lock| {
            let lock = Arc::new(Mutex::new(lock));
            let lost = Arc::new(AtomicBool::new(false));
            let beating = tokio::spawn(beat(lock.clone(), lost.clone()));
            Self { lock, lost, beating }
        }))
    }

    /// Whether somebody else took it: we were too slow to show that we are alive.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// As if somebody else had taken it.
    #[cfg(test)]
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    pub async fn release(self) {
        self.beating.abort();
        let lock = self.lock.clone();
        let released =
            blocking(move || lock.lock().unwrap_or_else(PoisonError::into_inner).release()).await;
        if let Err(error) = released {
            warn!(%error, "a lock is not released; it is anyone's in ten seconds");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

async fn beat(lock: Arc<Mutex<Box<dyn Lock>>>, lost: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(BEAT).await;
        let lock = lock.clone();
        let extended = blocking(move || {
            lock.lock().unwrap_or_else(PoisonError::into_inner).extend(Moment::now())
        });
        match extended.await {
            Ok(true) => {}
            Ok(false) => return lost.store(true, Ordering::Relaxed),
            // A disk that is full for a moment; others will tell if it lasts.
            Err(error) => warn!(%error, "a lock is not extended"),
        }
    }
}
