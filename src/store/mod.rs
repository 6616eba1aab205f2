//! What survives a restart.

pub mod directory;
mod failpoint;
pub mod file;
pub mod layout;
mod lock;
pub mod notices;
pub mod record;

use std::fmt;
use std::io;
use std::time::Instant;

use crate::clock::Moment;

pub use lock::stale_after;

/// What a conditional put expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect<'a> {
    Anything,
    /// Nothing of that name.
    Nothing,
    /// Exactly this content.
    Content(&'a [u8]),
}

/// Where certificates, accounts and orders are kept, shared with other nodes and with CertMagic. Names are
/// relative, with `/` between their parts; each object is whole after a crash. Every call may block.
pub trait Store: Send + Sync + fmt::Debug {
    /// The object's content, or `None` if there is none.
    fn get(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Stores an object for our user alone. Returns whether what was expected was found; otherwise nothing
    /// is changed.
    fn put(&self, name: &str, content: &[u8], expect: Expect<'_>) -> io::Result<bool>;

    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives an object another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// When the object last changed.
    fn modified(&self, name: &str) -> io::Result<Option<Moment>>;

    /// The names directly below this one, sorted; none if there is no such name.
    fn list(&self, below: &str) -> io::Result<Vec<String>>;

    /// Takes the lock of this name, unless somebody who is alive holds it. `begun` is when it was asked for, by the
    /// steady clock: the longer the store takes to tell, the longer its holder may be silent.
    fn try_lock(
        &self,
        name: &str,
        now: Moment,
        begun: Instant,
    ) -> io::Result<Option<Box<dyn Lock>>>;
}

/// A lock that is held; others take it when it has not been extended for ten seconds, or longer on a slow store.
pub trait Lock: Send {
    /// Says that the holder is alive. `false`: somebody else has taken it.
    fn extend(&mut self, now: Moment) -> io::Result<bool>;

    /// Lets go of it, if it is still ours.
    fn release(&mut self) -> io::Result<()>;
}
