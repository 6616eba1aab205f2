//! A lock of the store that is held while work goes on, its holder shown to be alive.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::warn;

use crate::clock::{self, Moment};
use crate::store::{Lock, Store};

use super::verdict::Failed;
use super::{blocking, disk};

/// Twice within the ten seconds after which a lock is anyone's.
const BEAT: Duration = Duration::from_secs(4);

/// How often a lock that somebody else holds is looked at again: CertMagic's own pace.
const LOCK_POLL: Duration = Duration::from_secs(1);
/// An order waits two minutes for its validation and two for its chain, and a CA may take its time over each
/// request: whoever holds a lock for longer is at work on nothing.
const TAKE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// A lock whose holder died is anyone's before that.
const TOLD_AFTER: Duration = Duration::from_secs(15);

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
        let begun = clock::steady();
        let taken = blocking(move || store.try_lock(&name, Moment::now(), begun)).await?;
        Ok(taken.map(|lock| {
            let lock = Arc::new(Mutex::new(lock));
            let lost = Arc::new(AtomicBool::new(false));
            let beating = tokio::spawn(beat(lock.clone(), lost.clone()));
            Self { lock, lost, beating }
        }))
    }

    /// Takes the lock when whoever holds it lets go.
    ///
    /// # Errors
    /// If the store cannot hold a lock at all, or it is held too long.
    pub async fn take(store: &Arc<dyn Store>, name: String) -> Result<Self, Failed> {
        Self::take_within(store, name, TAKE_TIMEOUT).await
    }

    async fn take_within(
        store: &Arc<dyn Store>,
        name: String,
        timeout: Duration,
    ) -> Result<Self, Failed> {
        let begun = clock::steady();
        let mut is_told = false;
        loop {
            if let Some(lock) = Self::try_take(store, name.clone()).await.map_err(disk)? {
                return Ok(lock);
            }
            let waited = clock::steady().duration_since(begun);
            if waited >= timeout {
                let seconds = timeout.as_secs();
                return Err(Failed::mendable(
                    format!("somebody else has held the lock {name} for {seconds} s"),
                    "see what another node with this autocert_dir is doing",
                ));
            }
            if waited >= TOLD_AFTER && !std::mem::replace(&mut is_told, true) {
                warn!(lock = name, "waiting for a lock that somebody else holds");
            }
            tokio::time::sleep(LOCK_POLL.min(timeout)).await;
        }
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
            warn!(%error, "a lock is not released; it is soon anyone's");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::directory::scratch::ScratchStore;

    #[tokio::test]
    async fn a_lock_that_is_not_let_go_is_not_waited_for_without_end() {
        let (_scratch, store) = ScratchStore::new("held-deadline");
        let store: Arc<dyn Store> = Arc::new(store);
        let held = Held::take(&store, "one".into()).await.unwrap();
        let soon = Duration::from_millis(50);
        let failed = Held::take_within(&store, "one".into(), soon).await.err().unwrap();
        assert!(failed.what.contains("the lock one"), "{failed}");
        held.release().await;
        Held::take_within(&store, "one".into(), soon).await.unwrap().release().await;
    }
}
