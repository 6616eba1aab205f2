//! Locks that CertMagic understands: a file with the time at which its holder was last alive.
//!
//! CertMagic reads an empty lock file for two seconds before it gives up on it, and one that is no JSON
//! makes it drop the name until it is restarted. So the file appears with its content in place, and the
//! heart-beat overwrites it without a moment in which it is shorter.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::{self, Moment, from_rfc3339, rfc3339};

use super::{Lock, file};

/// A lock whose holder has not been alive for longer is anyone's: twice CertMagic's heart-beat of five
/// seconds, which is CertMagic's rule too.
const STALE_AFTER: Duration = Duration::from_secs(10);
/// A holder's heart-beat takes as long on its way to the disk as our question took: once for the beat under way,
/// once for the one before it, and once for what differs between two nodes.
const QUESTIONS_SPARED: u32 = 3;
/// CertMagic's mode: whoever shares the directory may look.
const MODE: u32 = 0o644;
const LONGEST_LOCK: usize = 4096;

/// Tells the locks of one process apart.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// The content of a lock file. CertMagic's fields, and who holds it, which CertMagic passes over.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    created: String,
    updated: String,
    #[serde(default)]
    holder: String,
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// How long a holder may be silent, who is asked about by a question that took so long. On a disk that takes seconds
/// for everything nobody can show within ten that it is alive, and nodes would take the lock from each other for
/// as long as that lasts. Pure.
pub fn stale_after(took: Duration) -> Duration {
    STALE_AFTER.saturating_add(took.saturating_mul(QUESTIONS_SPARED))
}

/// What a lock file says of its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Alive,
    Gone,
}

/// Judges a lock file by its content and the time of its last change. Pure.
fn judge(content: &[u8], modified: Moment, now: Moment, stale_after: Duration) -> Holder {
    let said = serde_json::from_slice::<Content>(content).ok();
    let said = said.and_then(|content| from_rfc3339(&content.updated));
    // CertMagic truncates before it writes, so an empty file is only stale when it stays so.
    let last = said.unwrap_or(modified);
    // A clock ahead of ours by more than that is wrong, and would otherwise block the name for long.
    let alive = now.since(last) <= stale_after && last.since(now) <= stale_after;
    if alive { Holder::Alive } else { Holder::Gone }
}

/// A lock file of ours.
pub struct FileLock {
    path: PathBuf,
    created: String,
    holder: String,
}

impl FileLock {
    /// Takes the lock unless its holder is alive. `begun` is when somebody asked for it, by the steady clock.
    pub fn try_take(path: PathBuf, now: Moment, begun: Instant) -> io::Result<Option<Self>> {
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        let holder = format!("ringgate-{}-{number}", file::process_name());
        let lock = Self { path, created: rfc3339(now), holder };
        if file::create(&lock.path, &lock.content(now).bytes(), MODE)? {
            return Ok(Some(lock));
        }
        // Of several of us only one may clear a stale lock away; CertMagic does not ask.
        let _held = file::hold(lock.path.parent().unwrap_or(Path::new(".")))?;
        if let Some(modified) = file::modified(&lock.path)? {
            let content = match file::read(&lock.path, LONGEST_LOCK) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                content => content?,
            };
            let took = clock::steady().saturating_duration_since(begun);
            if judge(&content, modified, now, stale_after(took)) == Holder::Alive {
                return Ok(None);
            }
            file::remove(&lock.path)?;
        }
        Ok(file::create(&lock.path, &lock.content(now).bytes(), MODE)?.then_some(lock))
    }

    fn content(&self, updated: Moment) -> Content {
        Content {
            created: self.created.clone(),
            updated: rfc3339(updated),
            holder: self.holder.clone(),
        }
    }

    fn is_ours(&self) -> io::Result<bool> {
        match file::read(&self.path, LONGEST_LOCK) {
            Ok(content) => {
                let content = serde_json::from_slice::<Content>(&content);
                Ok(content.is_ok_and(|content| content.holder == self.holder))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Lock for FileLock {
    fn extend(&mut self, now: Moment) -> io::Result<bool> {
        if !self.is_ours()? {
            return Ok(false);
        }
        // Of the same length always: nothing of an older content is left behind it.
        file::overwrite(&self.path, &self.content(now).bytes()).map(|()| true)
    }

    fn release(&mut self) -> io::Result<()> {
        if self.is_ours()? { file::remove(&self.path) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::scratch::ScratchStore;
    use super::super::{Expect, Store};
    use super::*;
    use crate::clock::steady;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);

    fn after(seconds: u64) -> Moment {
        NOW.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn on_a_slow_disk_a_holder_may_be_silent_for_longer() {
        let (_scratch, store) = ScratchStore::new("lock-slow");
        let mut held = store.try_lock("locks/a.lock", NOW, steady()).unwrap().expect("free");
        let slow = steady().checked_sub(Duration::from_secs(19)).unwrap();
        assert!(store.try_lock("locks/a.lock", after(60), slow).unwrap().is_none());
        assert!(held.extend(after(60)).unwrap());
        assert!(store.try_lock("locks/a.lock", after(130), slow).unwrap().is_some());
        assert!(!held.extend(after(131)).unwrap());
    }

    #[test]
    fn only_one_holds_a_lock_until_it_lets_go_or_dies() {
        let (_scratch, store) = ScratchStore::new("lock");
        let mut first = store.try_lock("locks/a.lock", NOW, steady()).unwrap().expect("free");
        assert!(store.try_lock("locks/a.lock", after(9), steady()).unwrap().is_none());
        assert!(first.extend(after(9)).unwrap());
        assert!(store.try_lock("locks/a.lock", after(19), steady()).unwrap().is_none());
        first.release().unwrap();
        let mut second =
            store.try_lock("locks/a.lock", after(19), steady()).unwrap().expect("released");
        let mut third =
            store.try_lock("locks/a.lock", after(30), steady()).unwrap().expect("stale");
        assert!(!second.extend(after(30)).unwrap());
        second.release().unwrap();
        assert!(third.extend(after(31)).unwrap());
    }

    #[test]
    fn the_file_is_one_that_certmagic_reads() {
        let (_scratch, store) = ScratchStore::new("lock-content");
        let mut lock = store.try_lock("locks/a.lock", NOW, steady()).unwrap().expect("free");
        let read = || store.get("locks/a.lock").unwrap().unwrap();
        let before = read();
        lock.extend(after(5)).unwrap();
        let (text, before) = (String::from_utf8(read()).unwrap(), before.len());
        assert_eq!(text.len(), before);
        assert!(text.starts_with(
            "{\"created\":\"2027-01-15T08:00:00Z\",\"updated\":\"2027-01-15T08:00:05Z\""
        ));
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn what_certmagic_left_behind_is_judged_as_it_judges() {
        let with = |updated: Moment| {
            format!("{{\"created\":\"2020-01-01T00:00:00Z\",\"updated\":\"{}\"}}", rfc3339(updated))
        };
        for (content, modified, expected) in [
            (with(NOW), NOW, Holder::Alive),
            (with(NOW).replace('Z', ".123456789Z"), NOW, Holder::Alive),
            (with(NOW.minus(Duration::from_secs(11))), NOW, Holder::Gone),
            (with(after(3600)), NOW, Holder::Gone),
            (String::new(), NOW.minus(Duration::from_secs(1)), Holder::Alive),
            (String::new(), NOW.minus(Duration::from_secs(11)), Holder::Gone),
            ("\0\0\0".to_owned(), NOW.minus(Duration::from_secs(60)), Holder::Gone),
        ] {
            assert_eq!(
                judge(content.as_bytes(), modified, NOW, STALE_AFTER),
                expected,
                "{content}"
            );
        }
    }

    #[test]
    fn an_unreadable_lock_of_a_crash_is_cleared_away() {
        let (_scratch, store) = ScratchStore::new("lock-garbage");
        store.put("locks/a.lock", b"\0\0\0", Expect::Anything).unwrap();
        let later = Moment::now().plus(Duration::from_secs(11));
        assert!(store.try_lock("locks/a.lock", Moment::now(), steady()).unwrap().is_none());
        assert!(store.try_lock("locks/a.lock", later, steady()).unwrap().is_some());
    }
}
