//! The directory that nodes and Caddy share, in memory: it fails, fills up, and is left by processes that die
//! over a write.
//!
//! An object is whole or not there, as `store/file.rs` promises; what a crash tears is the set of objects
//! that belong together. Locks follow `store/lock.rs` without its bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ringgate::clock::{Moment, steady};
use ringgate::control::autocert::simulated::look;
use ringgate::store::{Expect, Lock, Store, stale_after};

use crate::checker::Checker;
use crate::life::{Deed, Fate, Life};
use crate::stapled::Stapled;

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    #[default]
    Fine,
    /// Nothing can be added.
    Full,
    /// Nothing can be read either.
    Gone,
}

#[derive(Debug, Clone)]
struct Object {
    content: Vec<u8>,
    modified: Moment,
}

#[derive(Debug, Clone)]
struct LockFile {
    updated: Moment,
    holder: u64,
}

#[derive(Debug, Default)]
struct Tree {
    objects: BTreeMap<String, Object>,
    folders: BTreeMap<String, Moment>,
    locks: BTreeMap<String, LockFile>,
    taken: u64,
    disk: Disk,
}

/// The directory, whoever works in it.
#[derive(Clone)]
pub struct Shared {
    tree: Arc<Mutex<Tree>>,
    checker: Arc<Checker>,
    stapled: Arc<Stapled>,
}

impl Shared {
    pub fn new(checker: Arc<Checker>, stapled: Arc<Stapled>) -> Self {
        Self { tree: Arc::default(), checker, stapled }
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_disk(&self, disk: Disk) {
        self.tree().disk = disk;
    }

    pub fn disk(&self) -> Disk {
        self.tree().disk
    }

    /// Cuts the so-manieth record short, as a file system does that loses what it has promised to keep.
    pub fn cut_record(&self, number: u64) {
        let mut tree = self.tree();
        let is_record = |name: &&String| name.starts_with("ringgate/certificates/");
        let records: Vec<_> = tree.objects.keys().filter(is_record).cloned().collect();
        let Some(name) = records.get(number as usize % records.len().max(1)) else { return };
        if let Some(object) = tree.objects.get_mut(name) {
            let half = object.content.len() / 2;
            object.content.truncate(half);
            self.checker.cut(name);
        }
    }

    /// Every object, for whoever checks them.
    pub fn each(&self, mut look: impl FnMut(&str, &[u8])) {
        for (name, object) in &self.tree().objects {
            look(name, &object.content);
        }
    }

    /// The directory as one process sees it.
    pub fn seen_by(&self, life: Arc<Life>) -> Seen {
        Seen { shared: self.clone(), life }
    }
}

/// The directory in the hands of one process.
#[derive(Clone)]
pub struct Seen {
    shared: Shared,
    life: Arc<Life>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the simulated directory")
    }
}

fn failed(what: &str, name: &str) -> Error {
    Error::other(format!("cannot {what} {name}: Input/output error"))
}

impl Seen {
    fn reading(&self, name: &str) -> Result<MutexGuard<'_, Tree>> {
        let tree = self.shared.tree();
        if self.life.is_over() || tree.disk == Disk::Gone {
            return Err(failed("read", name));
        }
        Ok(tree)
    }

    /// Changes the tree, unless the process dies first or the disk refuses.
    fn writing<T>(&self, name: &str, adds: bool, change: impl FnOnce(&mut Tree) -> T) -> Result<T> {
        let fate = self.life.deed(Deed::Write);
        let mut tree = self.shared.tree();
        match (fate, tree.disk) {
            (Fate::Dead { has_effect: false }, _) | (_, Disk::Gone) => Err(failed("write", name)),
            (_, Disk::Full) if adds => {
                let what = format!("cannot write {name}: No space left on device");
                Err(Error::new(ErrorKind::StorageFull, what))
            }
            (Fate::Dead { .. }, _) => {
                change(&mut tree);
                Err(failed("write", name))
            }
            (Fate::Done, _) => Ok(change(&mut tree)),
        }
    }
}

impl Tree {
    fn put(&mut self, name: &str, content: &[u8]) {
        let modified = Moment::now();
        if !self.objects.contains_key(name) {
            self.touch_above(name, modified);
        }
        self.objects.insert(name.to_owned(), Object { content: content.to_vec(), modified });
    }

    fn touch_above(&mut self, name: &str, now: Moment) {
        let mut below = name;
        while let Some((folder, _)) = below.rsplit_once('/') {
            let is_new = self.folders.insert(folder.to_owned(), now).is_none();
            if !is_new {
                break;
            }
            below = folder;
        }
    }
}

fn is_challenge(name: &str) -> bool {
    name.contains("/challenge_tokens/")
}

impl Store for Seen {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.reading(name)?.objects.get(name).map(|object| object.content.clone()))
    }

    fn put(&self, name: &str, content: &[u8], expect: Expect<'_>) -> Result<bool> {
        let (checker, stapled) = (&self.shared.checker, &self.shared.stapled);
        let stored = self.writing(name, true, |tree| {
            let there = tree.objects.get(name).map(|object| object.content.as_slice());
            let fits = match expect {
                Expect::Anything => true,
                Expect::Nothing => there.is_none(),
                Expect::Content(expected) => there == Some(expected),
            };
            if fits {
                tree.put(name, content);
                checker.stored(name, content);
                stapled.stored(name, Some(content));
            }
            fits
        })?;
        if is_challenge(name) {
            look();
        }
        Ok(stored)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.writing(name, false, |tree| {
            if tree.objects.remove(name).is_some() {
                self.shared.stapled.stored(name, None);
                tree.touch_above(name, Moment::now());
            }
        })?;
        if is_challenge(name) {
            look();
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.writing(from, true, |tree| {
            if let Some(object) = tree.objects.remove(from) {
                tree.touch_above(to, Moment::now());
                tree.objects.insert(to.to_owned(), object);
            }
        })
    }

    fn modified(&self, name: &str) -> Result<Option<Moment>> {
        let tree = self.reading(name)?;
        let object = tree.objects.get(name).map(|object| object.modified);
        Ok(object.or_else(|| tree.folders.get(name).copied()))
    }

    fn list(&self, below: &str) -> Result<Vec<String>> {
        let tree = self.reading(below)?;
        let prefix = format!("{below}/");
        let mut names: Vec<String> = tree
            .objects
            .range(prefix.clone()..)
            .take_while(|(name, _)| name.starts_with(&prefix))
            .filter_map(|(name, _)| name.get(prefix.len()..)?.split('/').next().map(str::to_owned))
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn try_lock(&self, name: &str, now: Moment, begun: Instant) -> Result<Option<Box<dyn Lock>>> {
        let stale_after = stale_after(steady().saturating_duration_since(begun));
        let holder = self.writing(name, true, |tree| {
            let is_alive = tree.locks.get(name).is_some_and(|lock| {
                now.since(lock.updated) <= stale_after && lock.updated.since(now) <= stale_after
            });
            (!is_alive).then(|| {
                tree.taken += 1;
                let holder = tree.taken;
                tree.locks.insert(name.to_owned(), LockFile { updated: now, holder });
                holder
            })
        })?;
        let lock = |holder| HeldLock { seen: self.clone(), name: name.to_owned(), holder };
        Ok(holder.map(|holder| Box::new(lock(holder)) as Box<dyn Lock>))
    }
}

struct HeldLock {
    seen: Seen,
    name: String,
    holder: u64,
}

impl Lock for HeldLock {
    fn extend(&mut self, now: Moment) -> Result<bool> {
        self.seen.writing(&self.name, false, |tree| match tree.locks.get_mut(&self.name) {
            Some(lock) if lock.holder == self.holder => {
                lock.updated = now;
                true
            }
            _ => false,
        })
    }

    fn release(&mut self) -> Result<()> {
        self.seen.writing(&self.name, false, |tree| {
            if tree.locks.get(&self.name).is_some_and(|lock| lock.holder == self.holder) {
                tree.locks.remove(&self.name);
            }
        })
    }
}
