//! What the kernel says has changed in directories (inotify), asked for when somebody looks.
//!
//! It is a hint: other machines' writes to a network file system, and links that lead elsewhere, are not seen.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Each costs the kernel about a KiB. In more directories than this a change is found by whoever goes
/// through them in turn.
const MOST_DIRECTORIES: usize = 4096;
/// Room for hundreds of events, each 16 bytes and a name.
const BUFFER_BYTES: usize = 32 * 1024;

/// Directories that the kernel watches for us.
pub struct Notices {
    inotify: OwnedFd,
    directories: HashMap<i32, PathBuf>,
    watched: HashMap<PathBuf, i32>,
}

/// What has happened since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// What was written, made, moved or removed.
    pub paths: Vec<PathBuf>,
    /// The kernel's queue was full, or a directory itself went: anything may have changed.
    pub anything: bool,
}

impl Notices {
    /// # Errors
    /// Where the system has no inotify for us, or none left.
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify, directories: HashMap::new(), watched: HashMap::new() })
    }

    /// Watches these directories and no others. One that cannot be watched is left out.
    pub fn follow<'a>(&mut self, directories: impl IntoIterator<Item = &'a Path>) {
        let mut next = HashMap::new();
        for directory in directories {
            if next.len() == MOST_DIRECTORIES {
                break;
            }
            if next.contains_key(directory) {
                continue;
            }
            // Also where it is watched already: under the same name may lie another directory.
            let what = WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            if let Ok(number) = inotify::add_watch(&self.inotify, directory, what) {
                next.insert(directory.to_owned(), number);
            }
        }
        let directories: HashMap<i32, PathBuf> =
            next.iter().map(|(path, number)| (*number, path.clone())).collect();
        for number in self.watched.values() {
            if !directories.contains_key(number) {
                // One that is gone is no longer watched anyway.
                let _ = inotify::remove_watch(&self.inotify, *number);
            }
        }
        (self.directories, self.watched) = (directories, next);
    }

    /// Takes what has happened since the last time; never waits.
    pub fn take(&mut self) -> Happened {
        let mut happened = Happened::default();
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    happened.anything = true;
                    break;
                }
            };
            let lost = ReadFlags::QUEUE_OVERFLOW | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
            happened.anything |= event.events().intersects(lost);
            if let Some(directory) = self.directories.get(&event.wd())
                && let Some(name) = event.file_name()
            {
                happened.paths.push(directory.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
        happened.paths.sort_unstable();
        happened.paths.dedup();
        happened
    }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn what_happens_in_a_directory_is_told_once_and_only_there() {
        let root = std::env::temp_dir().join(format!("ringgate-notices-{}", std::process::id()));
        let (one, two) = (root.join("one"), root.join("two"));
        file::create_directory(&one).unwrap();
        file::create_directory(&two).unwrap();
        let mut notices = Notices::new().unwrap();
        notices.follow([one.as_path(), Path::new("/nowhere"), &one]);
        assert_eq!(notices.take(), Happened::default());
        file::write(&one.join("a"), b"x", 0o600).unwrap();
        file::write(&two.join("b"), b"x", 0o600).unwrap();
        assert!(notices.take().paths.contains(&one.join("a")));
        assert_eq!(notices.take(), Happened::default());
        notices.follow([two.as_path()]);
        file::remove(&one.join("a")).unwrap();
        file::remove(&two.join("b")).unwrap();
        assert_eq!(notices.take().paths, [two.join("b")]);
        std::fs::remove_dir(&two).unwrap();
        assert!(notices.take().anything);
        let _ = std::fs::remove_dir_all(&root);
    }
}
