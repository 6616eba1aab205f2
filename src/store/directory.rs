//! The store in a local directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::clock::Moment;

use super::lock::FileLock;
use super::{Expect, Lock, Store, file};

/// Private keys lie in most of them.
const MODE: u32 = 0o600;
/// A chain of ten RSA certificates is under 32 KiB; a record holds two keys and a chain.
const LONGEST_OBJECT: usize = 1 << 20;

/// A directory as a store. It is made when something is first put into it.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The path of an object that is about to be made, in a directory that is there.
    fn room_for(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        file::create_directory(path.parent().unwrap_or(Path::new(".")))?;
        Ok(path)
    }
}

impl Store for Directory {
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match file::read(&self.path(name), LONGEST_OBJECT) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&self, name: &str, content: &[u8], expect: Expect<'_>) -> io::Result<bool> {
        let path = self.room_for(name)?;
        match expect {
            Expect::Anything => file::write(&path, content, MODE).map(|()| true),
            Expect::Nothing => file::create(&path, content, MODE),
            Expect::Content(expected) => {
                // Between comparing and writing no other node of ours may write.
                let _held = file::hold(path.parent().unwrap_or(&self.root))?;
                if self.get(name)?.as_deref() != Some(expected) {
                    return Ok(false);
                }
                file::write(&path, content, MODE).map(|()| true)
            }
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        file::remove(&self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        file::rename(&self.path(from), &self.path(to))
    }

    fn modified(&self, name: &str) -> io::Result<Option<Moment>> {
        file::modified(&self.path(name))
    }

    fn list(&self, below: &str) -> io::Result<Vec<String>> {
        file::names(&self.path(below))
    }

    fn try_lock(
        &self,
        name: &str,
        now: Moment,
        begun: Instant,
    ) -> io::Result<Option<Box<dyn Lock>>> {
        let path = self.room_for(name)?;
        Ok(FileLock::try_take(path, now, begun)?.map(|lock| Box::new(lock) as Box<dyn Lock>))
    }
}

#[cfg(test)]
pub mod scratch {
    //! A store of a test's own, removed at its end.

    use super::*;

    #[derive(Debug)]
    pub struct ScratchStore(pub PathBuf);

    impl ScratchStore {
        pub fn new(name: &str) -> (Self, Directory) {
            let path =
                std::env::temp_dir().join(format!("ringgate-store-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            (Self(path.clone()), Directory::new(path))
        }
    }

    impl Drop for ScratchStore {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::scratch::ScratchStore;
    use super::*;

    #[test]
    fn what_is_put_is_got_and_listed() {
        let (_scratch, store) = ScratchStore::new("put");
        assert_eq!(store.get("a/b").unwrap(), None);
        assert_eq!(store.list("a").unwrap(), [""; 0]);
        assert!(store.put("a/b", b"1", Expect::Anything).unwrap());
        assert!(store.put("a/c", b"2", Expect::Nothing).unwrap());
        assert_eq!(store.get("a/b").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(store.list("a").unwrap(), ["b", "c"]);
        store.rename("a/c", "a/d").unwrap();
        store.remove("a/b").unwrap();
        assert_eq!(store.list("a").unwrap(), ["d"]);
        assert!(
            store.modified("a/d").unwrap().is_some() && store.modified("a/b").unwrap().is_none()
        );
    }

    #[test]
    fn a_put_that_finds_something_else_changes_nothing() {
        let (_scratch, store) = ScratchStore::new("conditional");
        assert!(!store.put("x", b"1", Expect::Content(b"0")).unwrap());
        assert!(store.put("x", b"1", Expect::Nothing).unwrap());
        assert!(!store.put("x", b"2", Expect::Nothing).unwrap());
        assert!(!store.put("x", b"2", Expect::Content(b"0")).unwrap());
        assert_eq!(store.get("x").unwrap().as_deref(), Some(&b"1"[..]));
        assert!(store.put("x", b"2", Expect::Content(b"1")).unwrap());
        assert_eq!(store.get("x").unwrap().as_deref(), Some(&b"2"[..]));
    }
}
