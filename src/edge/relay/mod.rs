//! Moves bytes both ways until both directions are done; no buffer is kept when one is quiet.
//!
//! A direction reads only when what it read before has been taken by the other socket: that is the
//! back-pressure. It waits in one of two ways. Calm: for a small buffer that the kernel picks when bytes
//! arrive. In bulk, after a read that filled one: for readability, and then takes up to 64 KiB at once, twice that where
//! the other side keeps up, into the worker's scratch memory. Neither holds memory while it waits.
//!
//! Whoever was cut short must be able to tell. The client's stream ends with close_notify only if the
//! upstream ended its own, or when nothing was under way; the upstream is reset unless the client ended.

mod bulk;
mod downward;
mod upward;

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use crate::clock;
use crate::observe::names::{Reason, Side};
use crate::ring::{self, Buffer, Socket};

use super::dial::Dialled;
use super::ended::Ended;
use super::limits::{AFTER_UPSTREAM_FINISHED, QUIET};
use super::line::{Line, Stage};
use super::records::{RecordError, Records};
use super::upstream_tls::UpstreamRecords;
use super::worker::Worker;
use bulk::Bulk;

/// Relays between the client's record layer and a connected upstream until both directions are done.
///
/// Not an `async fn`: that keeps room for its arguments twice, and idle connections are made of this.
pub fn relay<'a>(
    line: &'a Line,
    worker: &'a Worker,
    idle_timeout: Duration,
    records: Records,
    Dialled { socket: upstream, records: upstream_records, place }: Dialled<'a>,
) -> impl Future<Output = Result<(), Ended>> + use<'a> {
    let now = clock::steady();
    line.enter(Stage::Relaying, now + idle_timeout);
    if upstream_records.is_some() {
        // There an end without close_notify is no end.
        line.upstream_may_end();
    }
    let relay = Relay {
        line,
        worker,
        upstream,
        idle_timeout,
        records: RefCell::new(records),
        upstream_records: upstream_records.map(RefCell::new),
        upstream_finished: Cell::new(false),
        upstream_deaf_since: Cell::new(None),
        sending_upstream: Cell::new(false),
        cut_short: Cell::new(false),
        moved: Cell::new(now),
        first_end: RefCell::new(None),
    };
    async move {
        let _counted = &place;
        tokio::join!(async { relay.note(relay.upward().await) }, async {
            relay.note(relay.downward().await);
        });
        if relay.cut_short.get() {
            line.cut_upstream();
        }
        match (relay.first_end.take(), line.interrupted()) {
            (Some(ended), _) => Err(ended),
            (None, Some(why)) if !relay.upstream_finished.get() => Err(Ended::new(Side::Ours, why)),
            (None, _) => Ok(()),
        }
    }
}

/// What one read became.
#[derive(Default)]
struct Moved {
    /// What the other socket did not take.
    rest: Vec<u8>,
    /// This direction has reached its end.
    finished: bool,
    /// This direction ends when the rest is out: the system has told so, and tells it only once.
    failed: Option<Ended>,
}

/// What arrived, and where it lies.
enum Arrived {
    /// In a buffer that the kernel picked.
    Buffer(Buffer),
    /// Still in the socket: to be taken in bulk.
    Waiting,
    /// The end of the stream.
    End,
}

struct Relay<'a> {
    line: &'a Line,
    worker: &'a Worker,
    upstream: Socket,
    idle_timeout: Duration,
    records: RefCell<Records>,
    /// Of an upstream that speaks TLS.
    upstream_records: Option<RefCell<Box<UpstreamRecords>>>,
    /// All of the response is out, with its end.
    upstream_finished: Cell<bool>,
    /// The upstream takes nothing more; what it has said already may still be read.
    upstream_deaf_since: Cell<Option<Instant>>,
    /// A record is on its way to the upstream, and not all of it has been taken.
    sending_upstream: Cell<bool>,
    /// The client was interrupted before it had ended what it says to the upstream.
    cut_short: Cell<bool>,
    /// When bytes moved last.
    moved: Cell<Instant>,
    first_end: RefCell<Option<Ended>>,
}

impl Relay<'_> {
    /// A direction has ended; if it failed, the other one has to end too.
    fn note(&self, outcome: Result<(), Ended>) {
        let Err(ended) = outcome else { return };
        // The other direction ends because of this one: what it has to say of that is no news.
        if self.first_end.borrow().is_some() {
            return;
        }
        match ended.reason {
            Reason::BadRecord => self.send_alert(),
            Reason::UpstreamBadRecord => self.send_alert_upstream(),
            _ => {}
        }
        match ended.side {
            Side::Upstream if self.line.interrupted().is_none() => self.upstream_is_gone(),
            _ => self.line.cut(),
        }
        // Once all of the response is out, how the client goes is its own affair.
        if !self.upstream_finished.get() {
            let ended = self.line.interrupted().map_or(ended, |why| Ended::new(Side::Ours, why));
            *self.first_end.borrow_mut() = Some(ended);
        }
    }

    /// The upstream broke off. What it has said is on its way to a client that may still be sending, and
    /// closing a socket with unread bytes resets it, which would take the answer along: so the client gets
    /// its end (of TCP, without close_notify), and what it goes on sending is thrown away for a while.
    fn upstream_is_gone(&self) {
        self.line.cut_upstream();
        self.upstream_is_deaf();
        self.line.client().finish();
        self.line.enter(Stage::Closing, clock::steady() + AFTER_UPSTREAM_FINISHED);
    }

    /// The upstream takes no more. It may have answered before it heard all (a 413, say), so its answer is
    /// still read; what the client goes on sending is thrown away meanwhile, for a client that sends does
    /// not read.
    fn upstream_is_deaf(&self) {
        if self.upstream_deaf_since.get().is_none() {
            self.upstream_deaf_since.set(Some(clock::steady()));
        }
    }

    /// Waits until something arrives on `socket`.
    async fn arrival(&self, socket: &Socket, bulk: &mut Bulk) -> io::Result<Arrived> {
        loop {
            if bulk.is_on() {
                ring::readable(socket).await?;
                return Ok(Arrived::Waiting);
            }
            let received = ring::receive_later(socket, self.worker.buffers()).await;
            if let Some(arrived) = self.arrived(received, bulk)? {
                return Ok(arrived);
            }
        }
    }

    /// What a receive into a buffer brought. `None`: there was no buffer, and what arrives is to be taken in
    /// bulk.
    fn arrived(
        &self,
        received: io::Result<Option<Buffer>>,
        bulk: &mut Bulk,
    ) -> io::Result<Option<Arrived>> {
        match received {
            Ok(Some(buffer)) => {
                bulk.received_buffer(buffer.is_full());
                Ok(Some(Arrived::Buffer(buffer)))
            }
            Ok(None) => Ok(Some(Arrived::End)),
            // That says nothing of bytes: the kernel looks for a buffer first.
            Err(error) if self.worker.out_of_buffers(&error) => {
                bulk.begin();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a connection that is being ended from outside was between two messages, as far as one that
    /// does not know its protocol can tell.
    fn is_quiet(&self) -> bool {
        self.line.interrupted() == Some(Reason::Idle)
            || clock::steady().duration_since(self.moved.get()) >= QUIET
    }

    fn touch(&self) {
        let timeout = if self.upstream_finished.get() {
            AFTER_UPSTREAM_FINISHED.min(self.idle_timeout)
        } else {
            self.idle_timeout
        };
        let now = clock::of_turn();
        self.moved.set(now);
        self.line.touch(now, timeout);
    }
}

/// Sends what fits now. With `last`, the bytes wait for the end that follows and leave with it.
fn send_some(socket: &Socket, bytes: &[u8], last: bool) -> io::Result<usize> {
    match (bytes.is_empty(), last) {
        (true, _) => Ok(0),
        (false, true) => socket.send_last_now(bytes),
        (false, false) => socket.send_now(bytes),
    }
}

fn client_gone(error: io::Error) -> Ended {
    Ended::because(Side::Client, Reason::ClientGone, error)
}

fn upstream_gone(error: io::Error) -> Ended {
    Ended::because(Side::Upstream, Reason::UpstreamGone, error)
}

fn bad_record(error: RecordError) -> Ended {
    match error {
        RecordError::Ours(_) => Ended::because(Side::Ours, Reason::Failed, error),
        _ => Ended::because(Side::Client, Reason::BadRecord, error),
    }
}

fn bad_upstream_record(error: RecordError) -> Ended {
    match error {
        RecordError::Ours(_) => Ended::because(Side::Ours, Reason::Failed, error),
        _ => Ended::because(Side::Upstream, Reason::UpstreamBadRecord, error),
    }
}
