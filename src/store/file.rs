//! The disk: files that are whole after a crash, read within a bound.
//!
//! Errors name the path and what was tried. Nothing here decides what is stored.
#![expect(clippy::disallowed_methods, reason = "the one file that reads and writes files")]

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Moment;

use super::failpoint;

/// Ours alone: private keys lie below.
const DIRECTORY_MODE: u32 = 0o700;

/// Tells this process from every other one that has ever worked on a shared directory. Its number does not:
/// in containers all of them are 1.
pub fn process_name() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let mut random = [0; 8];
        // Without random bytes there are no private keys to store either.
        let _ = aws_lc_rs::rand::fill(&mut random);
        format!("{:x}-{:016x}", std::process::id(), u64::from_ne_bytes(random))
    });
    &NAME
}

/// Tells temporary files of one process apart.
static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// Replaces the file, or makes it, with exactly this mode. After a crash it holds either what it held
/// before or all of `content`.
///
/// # Errors
/// Says the path. The file is as it was, unless only the last sync of its directory failed.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace(path, mode, |file| file.write_all(content))
}

fn replace(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let context = |error| explain("write", path, error);
    let directory = directory_of(path);
    let temporary = temporary_in(directory);
    failpoint::pass();
    let written = write_temporary(&temporary, mode, fill).and_then(|()| {
        failpoint::pass();
        fs::rename(&temporary, path)
    });
    if let Err(error) = written {
        // The first error is the one to report; a leftover is only untidy.
        let _ = fs::remove_file(&temporary);
        return Err(context(error));
    }
    failpoint::pass();
    sync_directory(directory).map_err(context)
}

/// Not named after the file, whose name may already be as long as a name may be.
fn temporary_in(directory: &Path) -> PathBuf {
    let number = TEMPORARY.fetch_add(1, Ordering::Relaxed);
    directory.join(format!(".ringgate-{}-{number}.tmp", process_name()))
}

/// Makes a file with all of its content in place at once, if there is none. Returns whether it did.
///
/// # Errors
/// Says the path.
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let temporary = temporary_in(directory_of(path));
    failpoint::pass();
    let linked = write_temporary(&temporary, mode, |file| file.write_all(content))
        .and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_directory(directory_of(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
    .map_err(|error| explain("create", path, error))
}

/// Writes over the beginning of a file in place: whoever reads it meanwhile sees neither an empty nor a
/// shorter one.
///
/// # Errors
/// Says the path.
pub fn overwrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let written = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.write_all_at(content, 0)?;
        file.sync_data()
    });
    written.map_err(|error| explain("write", path, error))
}

/// Gives a file another name in the same directory.
///
/// # Errors
/// Says the path.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    failpoint::pass();
    fs::rename(from, to)
        .and_then(|()| sync_directory(directory_of(to)))
        .map_err(|error| explain("rename", from, error))
}

/// Sets the mode of what was made under another name and puts it in place.
///
/// # Errors
/// Says the path.
pub fn put_in_place(from: &Path, to: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(from, Permissions::from_mode(mode))
        .and_then(|()| fs::rename(from, to))
        .map_err(|error| explain("make", to, error))
}

/// When a file last changed; `None` if there is none.
///
/// # Errors
/// Says the path.
pub fn modified(path: &Path) -> io::Result<Option<Moment>> {
    match fs::metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(time) => Ok(Some(Moment::from_system(time))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(explain("look at", path, error)),
    }
}

/// The names of everything in a directory but temporary files of ours, sorted; none if it is not there.
///
/// # Errors
/// Says the path.
pub fn names(directory: &Path) -> io::Result<Vec<String>> {
    let context = |error| explain("list", directory, error);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(context)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none that the layout knows.
        names.extend(entry.map_err(context)?.file_name().into_string());
    }
    names.retain(|name| !name.starts_with(".ringgate-"));
    names.sort_unstable();
    Ok(names)
}

fn write_temporary(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode & 0o700).open(path)?;
    fill(&mut file)?;
    // Set once more, since the umask took from the mode above.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Makes the directory and those above it that are missing, each for our user alone (0700). One that is
/// there already keeps its mode.
///
/// # Errors
/// Says the path.
pub fn create_directory(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = directory_of(path);
    create_directory(above)?;
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => sync_directory(above),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|error| explain("create", path, error))
}

/// Reads a regular file of at most `most_bytes`.
///
/// # Errors
/// Says the path. The kind is `NotFound` if there is no such file.
pub fn read(path: &Path, most_bytes: usize) -> io::Result<Vec<u8>> {
    read_bounded(path, most_bytes).map_err(|error| explain("read", path, error))
}

fn read_bounded(path: &Path, most_bytes: usize) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content =
        Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0).min(most_bytes));
    // Not trusting the length above: the file may grow while it is read.
    File::open(path)?.take(most_bytes as u64 + 1).read_to_end(&mut content)?;
    if content.len() > most_bytes {
        return Err(io::Error::other(format!("it is larger than {most_bytes} bytes")));
    }
    Ok(content)
}

/// What lies in a directory, by name.
pub struct Listed {
    /// All but directories.
    pub files: Vec<PathBuf>,
    pub directories: Vec<PathBuf>,
}

/// What lies in a directory, sorted. Links are followed, and one that leads nowhere is among the files,
/// for whoever reads it to say so.
///
/// # Errors
/// Says the path.
pub fn list(directory: &Path) -> io::Result<Listed> {
    let context = |error| explain("list", directory, error);
    let mut listed = Listed { files: Vec::new(), directories: Vec::new() };
    for entry in fs::read_dir(directory).map_err(context)? {
        let entry = entry.map_err(context)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(context)?);
        // Only links are looked at: one call of the kernel for each file counts among a million.
        if kind.is_dir() || (kind.is_symlink() && path.is_dir()) {
            listed.directories.push(path);
        } else {
            listed.files.push(path);
        }
    }
    // As bytes: comparing paths part by part took a tenth of the time of loading a hundred thousand names.
    for paths in [&mut listed.files, &mut listed.directories] {
        paths.sort_unstable_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
    }
    Ok(listed)
}

/// What tells a file from another one under its name, and from itself before it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Another one after a swap of links and after a rename.
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Moves with every write, and nobody can set it back as `touch -d` sets the time above.
    changed: (i64, i64),
}

impl Stamp {
    /// In seconds since 1970 by the clock of the file system, when it was last changed.
    pub fn changed_seconds(&self) -> i64 {
        self.changed.0
    }
}

/// The stamp of what a path leads to.
///
/// # Errors
/// Says the path. The kind is `NotFound` if there is nothing.
pub fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = fs::metadata(path).map_err(|error| explain("look at", path, error))?;
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Whether the path leads to a directory.
pub fn is_directory(path: &Path) -> bool {
    path.is_dir()
}

/// Removes a file; one that is not there is removed already.
///
/// # Errors
/// Says the path.
pub fn remove(path: &Path) -> io::Result<()> {
    failpoint::pass();
    match fs::remove_file(path) {
        Ok(()) => sync_directory(directory_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
    .map_err(|error| explain("remove", path, error))
}

/// Keeps other processes out of a directory, as far as they ask, until the answer is dropped. Waits for
/// the one that is in it.
///
/// # Errors
/// Says the path.
pub fn hold(directory: &Path) -> io::Result<Held> {
    let held = File::open(directory).and_then(|file| file.lock().map(|()| Held { _file: file }));
    held.map_err(|error| explain("lock", directory, error))
}

/// A directory that is held; see [`hold`].
pub struct Held {
    /// The kernel lets go when this is closed, also if we crash.
    _file: File,
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn explain(verb: &str, path: &Path, error: io::Error) -> io::Error {
    let text = error.to_string();
    // The number says nothing that the words do not.
    let words = text.split(" (os error ").next().unwrap_or(&text);
    io::Error::new(error.kind(), format!("cannot {verb} {}: {words}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("ringgate-file-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            create_directory(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_written_is_read_with_the_mode_that_was_asked_for() {
        let scratch = Scratch::new("write");
        let path = scratch.0.join("a");
        for (content, wanted) in [(&b"one"[..], 0o600), (b"two", 0o644)] {
            write(&path, content, wanted).unwrap();
            assert_eq!((read(&path, 3).unwrap(), mode(&path)), (content.to_vec(), wanted));
        }
        assert_eq!(list(&scratch.0).unwrap().files, [path]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_temporary_file() {
        let scratch = Scratch::new("failed");
        let path = scratch.0.join("a");
        write(&path, b"old", 0o600).unwrap();
        let error = replace(&path, 0o600, |file| {
            file.write_all(b"half of the ne")?;
            Err(io::Error::from_raw_os_error(28)) // ENOSPC
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot write {}: No space left on device", path.display())
        );
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(&path, 100).unwrap(), b"old");
        assert_eq!(list(&scratch.0).unwrap().files, [path]);

        let taken = scratch.0.join("directory");
        create_directory(&taken).unwrap();
        assert!(write(&taken, b"x", 0o600).is_err());
        assert!(write(&scratch.0.join("missing/a"), b"x", 0o600).is_err());
        assert_eq!(list(&scratch.0).unwrap().files.len(), 1);
    }

    #[test]
    fn directories_are_for_our_user_alone() {
        let scratch = Scratch::new("directories");
        let deep = scratch.0.join("a/b");
        create_directory(&deep).unwrap();
        create_directory(&deep).unwrap();
        assert_eq!((mode(&deep), mode(&scratch.0.join("a"))), (0o700, 0o700));
        let file = scratch.0.join("file");
        write(&file, b"", 0o600).unwrap();
        let error = create_directory(&file.join("c")).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot create {}", file.display())), "{error}");
    }

    #[test]
    fn reading_has_a_bound_and_its_errors_name_the_path() {
        let scratch = Scratch::new("read");
        let path = scratch.0.join("a");
        write(&path, b"1234", 0o600).unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"1234");
        let larger = read(&path, 3).unwrap_err().to_string();
        assert_eq!(larger, format!("cannot read {}: it is larger than 3 bytes", path.display()));
        let missing = read(&scratch.0.join("b"), 3).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().contains("/b: No such file"), "{missing}");
        assert_eq!(read(&scratch.0, 3).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert!(read(Path::new("/dev/null"), 3).is_err());
    }

    #[test]
    fn lists_are_sorted_and_tell_files_from_directories() {
        let scratch = Scratch::new("list");
        for name in ["b", "a", "c"] {
            write(&scratch.0.join(name), b"", 0o600).unwrap();
        }
        create_directory(&scratch.0.join("0")).unwrap();
        std::os::unix::fs::symlink("0", scratch.0.join("1")).unwrap();
        std::os::unix::fs::symlink("nowhere", scratch.0.join("d")).unwrap();
        let listed = list(&scratch.0).unwrap();
        let names = |paths: &[PathBuf]| -> Vec<_> {
            paths.iter().map(|path| path.file_name().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&listed.files), ["a", "b", "c", "d"]);
        assert_eq!(names(&listed.directories), ["0", "1"]);
        remove(&scratch.0.join("a")).unwrap();
        remove(&scratch.0.join("a")).unwrap();
        assert_eq!(list(&scratch.0).unwrap().files.len(), 3);
        let missing = list(&scratch.0.join("e")).err().unwrap().to_string();
        assert!(missing.contains("cannot list"), "{missing}");
    }

    #[test]
    fn a_stamp_tells_every_way_of_changing_a_file() {
        let scratch = Scratch::new("stamp");
        let (path, link) = (scratch.0.join("a"), scratch.0.join("link"));
        write(&path, b"one", 0o600).unwrap();
        std::os::unix::fs::symlink("a", &link).unwrap();
        let first = stamp(&path).unwrap();
        assert_eq!((stamp(&link).unwrap(), stamp(&path).unwrap()), (first, first));
        write(&path, b"two", 0o600).unwrap();
        let renamed = stamp(&path).unwrap();
        assert_ne!(renamed, first);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(2).unwrap();
        let shortened = stamp(&path).unwrap();
        assert_ne!(shortened, renamed);
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_ne!(stamp(&path).unwrap(), shortened);
        write(&scratch.0.join("b"), b"", 0o600).unwrap();
        let other = scratch.0.join("other");
        std::os::unix::fs::symlink("b", &other).unwrap();
        fs::rename(&other, &link).unwrap();
        assert_eq!(stamp(&link).unwrap(), stamp(&scratch.0.join("b")).unwrap());
        assert_eq!(stamp(&scratch.0.join("c")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_held_directory_is_let_go_when_dropped() {
        let scratch = Scratch::new("hold");
        drop(hold(&scratch.0).unwrap());
        let held = hold(&scratch.0).unwrap();
        let second = File::open(&scratch.0).unwrap();
        assert!(second.try_lock().is_err());
        drop(held);
        assert!(second.try_lock().is_ok());
    }
}
