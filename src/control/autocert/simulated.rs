//! What a simulator takes the place of: the CA at the other end of an exchange, the disk's pace, random
//! private keys, and whatever tells a task to look.
//!
//! All of it belongs to one thread, as the simulated clock does.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::Notify;

pub use super::keys::{generate, request};
pub use super::mutant::{ALL as MUTANTS, Mutant, release as release_mutant};
pub use super::transport::{Transport, Trouble};

/// Nothing changes unsaid, so that a look is for what is forgotten to be said.
pub const BETWEEN_LOOKS: Duration = Duration::from_secs(24 * 3600);

/// A CA that answers in the same process.
pub trait Exchange: Send + Sync + fmt::Debug {
    fn exchange(&self, request: Request<Bytes>) -> Answering;
}

/// An answer on its way.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Trouble>> + Send>>;

thread_local! {
    static LOOK: RefCell<Arc<Notify>> = RefCell::default();
    static DISK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static PRIVATE_KEYS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes every task look now.
pub fn look() {
    LOOK.with_borrow(|look| look.notify_waiters());
}

/// Waits for as long, or until there is something to look at.
pub(super) async fn pause(span: Duration) {
    let look = LOOK.with_borrow(Arc::clone);
    tokio::select! {
        biased;
        () = look.notified() => {}
        () = tokio::time::sleep(span) => {}
    }
}

/// From here on work with the store takes so long.
pub fn set_disk(pause: Duration) {
    DISK.set(pause);
}

/// Waits for the disk; whoever else is ready goes first in any case.
pub(super) async fn disk() {
    match DISK.get() {
        Duration::ZERO => tokio::task::yield_now().await,
        pause => tokio::time::sleep(pause).await,
    }
}

/// From here on this thread's private keys follow from `seed`; with `None` they are random.
pub fn set_private_keys(seed: Option<u64>) {
    PRIVATE_KEYS.set(seed);
}

/// The scalar of the next private key, if it is not to be random.
pub(super) fn next_private_key() -> Option<[u8; 32]> {
    let seed = PRIVATE_KEYS.get()?;
    PRIVATE_KEYS.set(Some(seed.wrapping_add(1)));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &seed.to_be_bytes());
    // A digest that is zero or beyond the group's order is not to be expected.
    digest.as_ref().first_chunk().copied()
}
