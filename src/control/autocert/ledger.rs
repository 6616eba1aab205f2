//! What has been used of one issuer's limits, kept in the store for all nodes and restarts.
//!
//! What cannot be stored is counted in memory: an order is worth more than its entry.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, warn};

use crate::clock::Moment;
use crate::store::{Expect, Store, layout};

use super::blocking;
use super::budget::{Budget, Order, Vain};
use super::limits_known::{Limits, limits_of};
use super::mutant::{Mutant, mutant};

/// How often a change is tried that another node was faster with: each try loses only to one that won.
const TRIES: usize = 16;

pub struct Ledger {
    pub limits: &'static Limits,
    object: String,
    store: Arc<dyn Store>,
    known: Mutex<Known>,
}

/// What this node knows of it.
#[derive(Default)]
struct Known {
    /// As it was last seen or changed.
    budget: Budget,
    /// How many changes the store has not taken, and how many of those it holds by now: it took a later one.
    unstored: u64,
    made_good: u64,
}

impl Known {
    /// What the store holds is not all.
    fn is_unstored(&self) -> bool {
        self.unstored > self.made_good
    }
}

impl Ledger {
    /// `None` for an issuer whose limits are not known.
    pub fn of(directory: &str, store: &Arc<dyn Store>) -> Option<Self> {
        let limits = limits_of(directory).filter(|_| !mutant(Mutant::BudgetForgotten))?;
        Some(Self::with(limits, &layout::issuer_key(directory), store))
    }

    fn with(limits: &'static Limits, issuer_key: &str, store: &Arc<dyn Store>) -> Self {
        let (object, store) = (layout::budget(issuer_key), store.clone());
        Self { limits, object, store, known: Mutex::default() }
    }

    /// What is used now, by the store if it can be read.
    pub async fn current(&self) -> Budget {
        let (store, object) = (self.store.clone(), self.object.clone());
        if let Ok(found) = blocking(move || store.get(&object)).await {
            let budget = self.read(found.as_deref());
            self.lock().budget = budget;
        }
        self.known()
    }

    /// As far as this node knows.
    fn known(&self) -> Budget {
        self.lock().budget.clone()
    }

    /// When such an order may be placed, as far as this node knows; `None`: now.
    pub fn not_before(&self, order: &Order<'_>, now: Moment) -> Option<Moment> {
        Some(self.lock().budget.free_at(self.limits, order, now)).filter(|free| *free > now)
    }

    /// Counts an order that is about to be placed, if there is room for it.
    ///
    /// # Errors
    /// When there is.
    pub async fn take(&self, order: &Order<'_>, now: Moment) -> Result<(), Moment> {
        self.change(
            |budget| match budget.free_at(self.limits, order, now) {
                free if free > now => Err(free),
                _ => {
                    budget.take(self.limits, order, now);
                    Ok(())
                }
            },
            now,
        )
        .await
    }

    /// Takes back of an order that was in vain what the issuer does not count, and counts its failed validation.
    pub async fn in_vain(&self, order: &Order<'_>, vain: Vain, now: Moment) {
        let limits = self.limits;
        let settle = |budget: &mut Budget| {
            match vain {
                Vain::NotPlaced => budget.give_back(limits, order, now),
                Vain::Lost => budget.give_back_certificate(limits, order, now),
                Vain::Unproved => {
                    budget.fail(limits, order, now);
                    budget.give_back_certificate(limits, order, now);
                }
            }
            Ok(())
        };
        // It refuses nothing.
        let _ = self.change(settle, now).await;
    }

    /// Notes that it has been said that the limits will not suffice.
    ///
    /// # Errors
    /// If it was said since `last`, by another node or before a restart.
    pub async fn warn(&self, last: Moment, now: Moment) -> Result<(), Moment> {
        self.change(
            |budget| match budget.warned {
                Some(warned) if last < warned && warned <= now => Err(warned),
                _ => {
                    budget.warned = Some(now);
                    Ok(())
                }
            },
            now,
        )
        .await
    }

    /// Changes what is stored, or what is in memory if the store has it not. A refusal changes nothing.
    async fn change(
        &self,
        change: impl Fn(&mut Budget) -> Result<(), Moment>,
        now: Moment,
    ) -> Result<(), Moment> {
        let tries = if mutant(Mutant::BudgetUnstored) { 0 } else { TRIES };
        for _ in 0..tries {
            let unstored = self.lock().unstored;
            let (store, object) = (self.store.clone(), self.object.clone());
            let found = match blocking(move || store.get(&object)).await {
                Ok(found) => found,
                Err(error) => {
                    debug!(object = self.object, %error, "counted in memory");
                    break;
                }
            };
            let mut budget = self.read(found.as_deref());
            let changed = change(&mut budget);
            budget.tidy(now);
            self.lock().budget.clone_from(&budget);
            changed?;
            let (store, object) = (self.store.clone(), self.object.clone());
            let stored = blocking(move || {
                let expected = found.as_deref().map_or(Expect::Nothing, Expect::Content);
                store.put(&object, &budget.encode(), expected)
            });
            match stored.await {
                Ok(true) => {
                    let mut known = self.lock();
                    known.made_good = known.made_good.max(unstored);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => {
                    debug!(object = self.object, %error, "counted in memory");
                    self.lock().unstored += 1;
                    return Ok(());
                }
            }
        }
        let mut budget = self.known();
        change(&mut budget)?;
        let mut known = self.lock();
        known.budget = budget;
        known.unstored += 1;
        Ok(())
    }

    /// What the store holds, and what it has not taken.
    fn read(&self, found: Option<&[u8]>) -> Budget {
        let found = found.map(|found| {
            Budget::decode(found).unwrap_or_else(|| {
                let object = &self.object;
                warn!(
                    object,
                    "what was used of the CA's limits is damaged; it counts as nothing used"
                );
                Budget::default()
            })
        });
        let mut budget = found.unwrap_or_default();
        let known = self.lock();
        if known.is_unstored() {
            budget.merge(&known.budget);
        }
        budget
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::super::budget::Counts;
    use super::*;
    use crate::config::autocert::LETS_ENCRYPT;
    use crate::store::Lock;
    use crate::store::directory::Directory;
    use crate::store::directory::scratch::ScratchStore;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);
    const ORDER: Order<'_> =
        Order { account: "", domain: "a.example", name: "a.example", counts: Counts::New };

    #[tokio::test]
    async fn nodes_share_what_is_left_and_a_restart_finds_it() {
        let (_scratch, store) = ScratchStore::new("ledger");
        let store: Arc<dyn Store> = Arc::new(store);
        let node = || Ledger::of(LETS_ENCRYPT, &store).unwrap();
        let (one, other) = (node(), node());
        for _ in 0..2 {
            one.take(&ORDER, NOW).await.unwrap();
            other.take(&ORDER, NOW).await.unwrap();
        }
        one.take(&ORDER, NOW).await.unwrap();
        let free = one.not_before(&ORDER, NOW).unwrap();
        assert!(free > NOW.plus(one.limits.same_names.refill));
        // What another node has used is found out when an order is to be placed.
        assert_eq!(other.not_before(&ORDER, NOW), None);
        assert_eq!(other.take(&ORDER, NOW).await, Err(free));
        assert_eq!(other.not_before(&ORDER, NOW), Some(free));
        assert_eq!(node().take(&ORDER, NOW).await, Err(free));
        assert_eq!(node().current().await, one.current().await);
        assert_ne!(node().current().await, Budget::default());
        other.in_vain(&ORDER, Vain::NotPlaced, NOW).await;
        node().take(&ORDER, NOW).await.unwrap();
        node().in_vain(&ORDER, Vain::Unproved, NOW).await;
        node().take(&ORDER, NOW).await.unwrap();
        assert_eq!(node().take(&ORDER, NOW).await, Err(free));
        node().in_vain(&ORDER, Vain::Lost, NOW).await;
        node().take(&ORDER, NOW).await.unwrap();
        assert!(Ledger::of("https://ca.example/dir", &store).is_none());
    }

    #[tokio::test]
    async fn concurrent_orders_are_all_counted() {
        let (_scratch, store) = ScratchStore::new("ledger-race");
        let store: Arc<dyn Store> = Arc::new(store);
        let mut orders = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let node = Ledger::of(LETS_ENCRYPT, &store).unwrap();
            orders.spawn(async move { node.take(&ORDER, NOW).await.is_ok() });
        }
        let placed = orders.join_all().await.into_iter().filter(|placed| *placed).count();
        assert_eq!(placed, 5);
    }

    #[tokio::test]
    async fn damaged_it_begins_anew_and_without_a_store_it_counts_in_memory() {
        let (_scratch, store) = ScratchStore::new("ledger-damaged");
        let store: Arc<dyn Store> = Arc::new(store);
        let object = layout::budget(&layout::issuer_key(LETS_ENCRYPT));
        store.put(&object, b"\0\0", Expect::Anything).unwrap();
        let node = Ledger::of(LETS_ENCRYPT, &store).unwrap();
        node.take(&ORDER, NOW).await.unwrap();
        assert!(Budget::decode(&store.get(&object).unwrap().unwrap()).is_some());
        let (_scratch, store) = ScratchStore::new("ledger-none");
        let store: Arc<dyn Store> = Arc::new(store);
        // An object in the place of a folder.
        store.put("ringgate", b"x", Expect::Anything).unwrap();
        let node = Ledger::of(LETS_ENCRYPT, &store).unwrap();
        for _ in 0..5 {
            node.take(&ORDER, NOW).await.unwrap();
        }
        assert!(node.take(&ORDER, NOW).await.is_err());
    }

    /// A disk that is full when it is told so: it can be read.
    #[derive(Debug)]
    struct Filling(Directory, AtomicBool);

    impl Store for Filling {
        fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
            self.0.get(name)
        }

        fn list(&self, folder: &str) -> io::Result<Vec<String>> {
            self.0.list(folder)
        }

        fn put(&self, name: &str, content: &[u8], expect: Expect<'_>) -> io::Result<bool> {
            match self.1.load(Ordering::Relaxed) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => self.0.put(name, content, expect),
            }
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.0.rename(from, to)
        }

        fn modified(&self, name: &str) -> io::Result<Option<Moment>> {
            self.0.modified(name)
        }

        fn try_lock(
            &self,
            name: &str,
            now: Moment,
            begun: Instant,
        ) -> io::Result<Option<Box<dyn Lock>>> {
            self.0.try_lock(name, now, begun)
        }
    }

    #[tokio::test]
    async fn what_a_full_disk_has_not_taken_counts_and_is_stored_later() {
        let (_scratch, store) = ScratchStore::new("ledger-full");
        let filling = Arc::new(Filling(store, AtomicBool::new(false)));
        let store: Arc<dyn Store> = filling.clone();
        let node = || Ledger::of(LETS_ENCRYPT, &store).unwrap();
        let (one, another) = (node(), node());
        one.take(&ORDER, NOW).await.unwrap();
        filling.1.store(true, Ordering::Relaxed);
        for _ in 0..3 {
            one.take(&ORDER, NOW).await.unwrap();
        }
        assert_ne!(one.current().await, node().current().await);
        filling.1.store(false, Ordering::Relaxed);
        // Meanwhile nobody else could know.
        another.take(&Order { name: "b.a.example", ..ORDER }, NOW).await.unwrap();
        one.take(&ORDER, NOW).await.unwrap();
        assert!(one.take(&ORDER, NOW).await.is_err());
        assert!(node().take(&ORDER, NOW).await.is_err());
        assert_eq!(one.current().await, node().current().await);
    }

    #[tokio::test]
    async fn a_warning_is_said_once_whoever_says_it() {
        let (_scratch, store) = ScratchStore::new("ledger-warned");
        let store: Arc<dyn Store> = Arc::new(store);
        let week = std::time::Duration::from_secs(7 * 24 * 3600);
        let warn = |now: Moment| {
            let node = Ledger::of(LETS_ENCRYPT, &store).unwrap();
            async move { node.warn(now.minus(week), now).await.is_ok() }
        };
        assert!(warn(NOW).await && !warn(NOW).await);
        assert!(!warn(NOW.plus(week / 2)).await && warn(NOW.plus(week)).await);
    }
}
