//! Writes of a name's state under its lock, and none once somebody else holds it.

use std::io;
use std::sync::Arc;

use crate::clock::Moment;
use crate::store::Store;
use crate::store::record::{Attempts, Record};

use super::blocking;
use super::held::Held;
use super::mutant::{Mutant, mutant};
use super::stored::{self, Known};

/// Stores the record. Without a lock there was no store to take it in.
///
/// # Errors
/// If it could not be stored, or the lock is lost.
pub async fn save(store: &Arc<dyn Store>, lock: Option<&Held>, record: &Record) -> io::Result<()> {
    check(lock)?;
    let (store, mut record) = (store.clone(), record.clone());
    if mutant(Mutant::BackoffForgotten) {
        record.attempts = Attempts::default();
    }
    blocking(move || stored::save(&*store, &record)).await
}

/// Stores the record of a new certificate; CertMagic's files follow.
///
/// # Errors
/// If the record could not be stored, or the lock is lost.
pub async fn commit(
    store: &Arc<dyn Store>,
    lock: Option<&Held>,
    known: &mut Known,
) -> io::Result<()> {
    check(lock)?;
    if mutant(Mutant::NotStored) {
        return Ok(());
    }
    let (store, mut changed) = (store.clone(), known.clone());
    let (changed, outcome) = blocking(move || {
        let outcome = stored::commit(&*store, &mut changed, Moment::now());
        (changed, outcome)
    })
    .await;
    *known = changed;
    outcome
}

fn check(lock: Option<&Held>) -> io::Result<()> {
    match lock {
        Some(lock) if lock.is_lost() => {
            Err(io::Error::other("another node took the lock of this name"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::directory::scratch::ScratchStore;
    use crate::store::layout;

    #[tokio::test]
    async fn whoever_lost_the_lock_writes_nothing_over_the_new_holders_record() {
        let (_scratch, store) = ScratchStore::new("writes-lost");
        let store: Arc<dyn Store> = Arc::new(store);
        let lock = Held::try_take(&store, layout::issue_lock("a.example")).await.unwrap().unwrap();
        let mut record = Record::new("a.example", "https://ca.example/dir");
        save(&store, Some(&lock), &record).await.unwrap();
        record.worked = Some("theirs".into());
        save(&store, None, &record).await.unwrap();
        lock.lose();
        let mut known = Known::nothing(Record::new("a.example", "https://ca.example/dir"));
        assert!(save(&store, Some(&lock), &known.record).await.is_err());
        assert!(commit(&store, Some(&lock), &mut known).await.is_err());
        let stored = store.get(&layout::record("ca.example-dir", "a.example")).unwrap().unwrap();
        assert_eq!(Record::decode(&stored), Some(record));
        lock.release().await;
    }
}
