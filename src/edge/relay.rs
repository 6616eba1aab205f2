//! Moves bytes both ways until both directions are done; no buffer is kept when one is quiet.
//!
//! A direction reads only when what it read before has been taken by the other socket: that is the
//! back-pressure. It waits in one of two ways. Calm: for a small buffer that the kernel picks when bytes
//! arrive. In bulk, after a read that filled one: for readability, and then takes up to 64 KiB at once
//! into the worker's scratch memory. Neither holds memory while it waits.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::Duration;

use crate::clock;
use crate::observe::names::{Reason, Side};
use crate::ring::{self, Buffer, Socket};

use super::dial::Dialled;
use super::ended::{Answer, Ended};
use super::limits::{
    AFTER_UPSTREAM_FINISHED, BULK_BYTES, BULK_ENDS_BELOW_BYTES, EAGER_LOOKS, TICKET_HELD,
};
use super::line::{Line, Stage};
use super::records::{Incoming, RecordError, Records};
use super::scratch::{Filling, Scratch};
use super::upstream_tls::UpstreamRecords;
use super::worker::Worker;

/// Relays between the client's record layer and a connected upstream until both directions are done.
pub async fn relay(
    line: &Line,
    worker: &Worker,
    idle_timeout: Duration,
    records: Records,
    Dialled { socket: upstream, records: upstream_records, place: _place }: Dialled<'_>,
) -> Result<(), Ended> {
    line.enter(Stage::Relaying, clock::steady() + idle_timeout);
    let relay = Relay {
        line,
        worker,
        upstream,
        idle_timeout,
        records: RefCell::new(records),
        upstream_records: upstream_records.map(RefCell::new),
        upstream_finished: Cell::new(false),
        first_end: RefCell::new(None),
    };
    tokio::join!(relay.end_both(relay.upward()), relay.end_both(relay.downward()));
    match (relay.first_end.take(), line.interrupted()) {
        (_, Some(reason)) if !relay.upstream_finished.get() => Err(Ended::new(Side::Ours, reason)),
        (Some(ended), _) => Err(ended),
        (None, _) => Ok(()),
    }
}

/// Sends all of `bytes`: at once what fits, the rest as the peer takes it.
pub async fn send_all(socket: &Socket, mut bytes: Vec<u8>) -> io::Result<()> {
    let mut sent = socket.send_now(&bytes)?;
    while sent < bytes.len() {
        let (more, back) = ring::send(socket, bytes, sent).await;
        bytes = back;
        match more? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            more => sent += more,
        }
    }
    Ok(())
}

/// What one read became.
struct Moved {
    /// What the other socket did not take.
    rest: Vec<u8>,
    /// This direction has reached its end.
    finished: bool,
}

/// What arrived, and where it lies.
enum Arrived {
    /// In a buffer that the kernel picked.
    Buffer(Buffer),
    /// Still in the socket: to be taken in bulk.
    Waiting,
    /// With the upstream's record layer.
    Pending,
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
    upstream_finished: Cell<bool>,
    first_end: RefCell<Option<Ended>>,
}

impl Relay<'_> {
    /// Runs a direction; if it fails, the other one has to end too.
    async fn end_both(&self, direction: impl Future<Output = Result<(), Ended>>) {
        let Err(ended) = direction.await else { return };
        // The other direction ends because of this one: what it has to say of that is no news, and
        // must not turn an end that lets the last bytes through into a reset.
        if self.first_end.borrow().is_some() {
            return;
        }
        match ended.reason {
            Reason::BadRecord => self.send_alert(),
            Reason::UpstreamBadRecord => self.send_alert_upstream(),
            _ => {}
        }
        match ended.answer() {
            Answer::Reset => self.line.abort(),
            _ => self.line.break_off(),
        }
        // Once all of the response is out, how the client goes is its own affair.
        if !self.upstream_finished.get() {
            *self.first_end.borrow_mut() = Some(ended);
        }
    }

    /// Client to upstream.
    async fn upward(&self) -> Result<(), Ended> {
        let mut bulk = false;
        // Records may have come in the same packet as the end of the handshake.
        let mut moved = self.open(None)?;
        loop {
            if !moved.rest.is_empty() {
                send_all(&self.upstream, moved.rest).await.map_err(upstream_gone)?;
                self.touch();
            }
            if moved.finished {
                self.finish_upstream().await?;
                return Ok(());
            }
            let arrived = self.arrival(self.line.client(), &mut bulk).await.map_err(client_gone)?;
            self.touch();
            moved = match arrived {
                Arrived::Buffer(buffer) => self.open(Some(buffer))?,
                Arrived::Waiting | Arrived::Pending => self.open_bulk(&mut bulk)?,
                Arrived::End => self.client_end()?,
            };
        }
    }

    /// Upstream to client.
    async fn downward(&self) -> Result<(), Ended> {
        let mut bulk = false;
        let mut looks = EAGER_LOOKS;
        let mut arrived = match self.has_upstream_pending() {
            // It came in the same packet as the end of the upstream's handshake.
            true => Arrived::Pending,
            false => self.next_arrival(&mut bulk).await?,
        };
        loop {
            self.touch();
            let look = looks > 0;
            looks = looks.saturating_sub(1);
            let moved = match arrived {
                Arrived::Buffer(buffer) => self.seal(Some(buffer), look, &mut bulk)?,
                Arrived::Waiting => self.seal(None, true, &mut bulk)?,
                Arrived::Pending => self.seal(None, false, &mut bulk)?,
                Arrived::End => self.upstream_end()?,
            };
            if !moved.rest.is_empty() {
                send_all(self.line.client(), moved.rest).await.map_err(client_gone)?;
                self.touch();
            }
            if moved.finished {
                self.line.client().finish();
                self.upstream_finished.set(self.line.interrupted().is_none());
                self.touch();
                return Ok(());
            }
            arrived = self.next_arrival(&mut bulk).await?;
        }
    }

    /// Waits until something arrives on `socket`.
    async fn arrival(&self, socket: &Socket, bulk: &mut bool) -> io::Result<Arrived> {
        if *bulk {
            ring::readable(socket).await?;
            return Ok(Arrived::Waiting);
        }
        let received = ring::receive(socket, self.worker.buffers()).await;
        self.received(received, bulk)
    }

    fn received(
        &self,
        received: io::Result<Option<Buffer>>,
        bulk: &mut bool,
    ) -> io::Result<Arrived> {
        match received {
            Ok(Some(buffer)) => {
                *bulk = buffer.is_full();
                Ok(Arrived::Buffer(buffer))
            }
            Ok(None) => Ok(Arrived::End),
            Err(error) if self.worker.out_of_buffers(&error) => {
                *bulk = true;
                Ok(Arrived::Waiting)
            }
            Err(error) => Err(error),
        }
    }

    /// Decrypts what arrived in a buffer, or what was left by the handshake, and sends it upstream.
    fn open(&self, buffer: Option<Buffer>) -> Result<Moved, Ended> {
        let mut records = self.records.borrow_mut();
        let mut scratch = self.worker.scratch();
        let Scratch { input, plain, output } = &mut *scratch;
        plain.clear();
        let opened = match buffer {
            // The usual case: whole records, decrypted where the kernel put them.
            Some(mut buffer) if records.pending().is_empty() => records.open(&mut buffer, plain),
            buffer => {
                let arrived = buffer.as_deref().unwrap_or_default();
                let len = records.pending().len() + arrived.len();
                let (front, back) = input
                    .get_mut(..len)
                    .and_then(|area| area.split_at_mut_checked(records.pending().len()))
                    .unwrap_or_default();
                front.copy_from_slice(records.pending());
                back.copy_from_slice(arrived);
                records.open(input.get_mut(..len).unwrap_or_default(), plain)
            }
        };
        self.send_upstream(opened, plain.filled(), output)
    }

    /// Takes what waits in the client's socket, decrypts it and sends it upstream.
    fn open_bulk(&self, bulk: &mut bool) -> Result<Moved, Ended> {
        let mut records = self.records.borrow_mut();
        let mut scratch = self.worker.scratch();
        let Scratch { input, plain, output } = &mut *scratch;
        plain.clear();
        let pending = records.pending().len();
        let (front, back) = input.split_at_mut_checked(pending).unwrap_or_default();
        front.copy_from_slice(records.pending());
        let room = back.get_mut(..BULK_BYTES).unwrap_or_default();
        let received = match self.line.client().receive_now(room).map_err(client_gone)? {
            None => return Ok(Moved { rest: Vec::new(), finished: false }),
            Some(0) => return self.client_end(),
            Some(received) => received,
        };
        *bulk = received >= BULK_ENDS_BELOW_BYTES;
        let opened = records.open(input.get_mut(..pending + received).unwrap_or_default(), plain);
        self.send_upstream(opened, plain.filled(), output)
    }

    fn send_upstream(
        &self,
        opened: Result<Incoming, RecordError>,
        plain: &[u8],
        output: &mut Filling,
    ) -> Result<Moved, Ended> {
        let finished = opened.map_err(bad_record)? == Incoming::Finished;
        let bytes = match &self.upstream_records {
            Some(records) if !plain.is_empty() => {
                output.clear();
                records.borrow_mut().seal(plain, output).map_err(bad_upstream_record)?;
                output.filled()
            }
            _ => plain,
        };
        let sent = send_some(&self.upstream, bytes).map_err(upstream_gone)?;
        Ok(Moved { rest: bytes.get(sent..).unwrap_or_default().to_vec(), finished })
    }

    /// Tells the upstream that the client is done.
    async fn finish_upstream(&self) -> Result<(), Ended> {
        if let Some(records) = &self.upstream_records {
            let close = {
                let mut scratch = self.worker.scratch();
                scratch.output.clear();
                let sealed = records.borrow_mut().seal_close(&mut scratch.output);
                sealed.map_err(bad_upstream_record)?;
                scratch.output.filled().to_vec()
            };
            send_all(&self.upstream, close).await.map_err(upstream_gone)?;
        }
        self.upstream.finish();
        Ok(())
    }

    /// TCP ended without close_notify (RFC 8446 §6.1).
    fn client_end(&self) -> Result<Moved, Ended> {
        if self.line.interrupted().is_some() || self.upstream_finished.get() {
            return Ok(Moved { rest: Vec::new(), finished: true });
        }
        // What was sent may be cut short, and the upstream must not take it for all.
        Err(Ended::new(Side::Client, Reason::Truncated))
    }

    /// Encrypts what arrived from upstream and sends it to the client. `look`: takes what else waits in
    /// the socket, so that it leaves in the same packets.
    fn seal(&self, buffer: Option<Buffer>, look: bool, bulk: &mut bool) -> Result<Moved, Ended> {
        let mut records = self.records.borrow_mut();
        let mut scratch = self.worker.scratch();
        let Scratch { input, plain, output } = &mut *scratch;
        output.clear();
        let mut finished = false;
        match (buffer, &self.upstream_records) {
            (Some(buffer), None) if !look && !*bulk => {
                records.seal(&buffer, output).map_err(bad_record)?;
            }
            (buffer, upstream_records) => {
                let mut upstream_records = upstream_records.as_ref().map(RefCell::borrow_mut);
                let pending = upstream_records.as_ref().map(|records| records.pending());
                let pending = pending.unwrap_or_default();
                let arrived = buffer.as_deref().unwrap_or_default();
                let before = pending.len() + arrived.len();
                let (front, back) = input.split_at_mut_checked(before).unwrap_or_default();
                let (first, second) = front.split_at_mut_checked(pending.len()).unwrap_or_default();
                first.copy_from_slice(pending);
                second.copy_from_slice(arrived);
                let mut more = None;
                if look || *bulk {
                    let room = back.get_mut(..BULK_BYTES - arrived.len()).unwrap_or_default();
                    more = self.upstream.receive_now(room).map_err(upstream_gone)?;
                    *bulk = arrived.len() + more.unwrap_or(0) >= BULK_ENDS_BELOW_BYTES;
                }
                let bytes = input.get_mut(..before + more.unwrap_or(0)).unwrap_or_default();
                finished = more == Some(0);
                let bytes: &[u8] = match &mut upstream_records {
                    None => bytes,
                    Some(upstream_records) => {
                        plain.clear();
                        let opened = upstream_records.open(bytes, plain);
                        let closed = opened.map_err(bad_upstream_record)? == Incoming::Finished;
                        // TCP's end is told once more by the next receive, and judged there.
                        *bulk &= !finished;
                        finished = closed;
                        plain.filled()
                    }
                };
                if !bytes.is_empty() {
                    records.seal(bytes, output).map_err(bad_record)?;
                }
            }
        }
        if finished {
            records.seal_close(output).map_err(bad_record)?;
        }
        self.send_client(output.filled(), finished)
    }

    /// TCP ended. From an upstream that speaks TLS that is no end of what it had to say.
    fn upstream_end(&self) -> Result<Moved, Ended> {
        match &self.upstream_records {
            Some(_) if self.line.interrupted().is_none() => {
                Err(Ended::new(Side::Upstream, Reason::UpstreamTruncated))
            }
            _ => self.seal_end(),
        }
    }

    fn has_upstream_pending(&self) -> bool {
        self.upstream_records.as_ref().is_some_and(|records| !records.borrow().pending().is_empty())
    }

    /// The upstream is done: the client gets what is held and a close_notify.
    fn seal_end(&self) -> Result<Moved, Ended> {
        let mut scratch = self.worker.scratch();
        scratch.output.clear();
        self.records.borrow_mut().seal_close(&mut scratch.output).map_err(bad_record)?;
        self.send_client(scratch.output.filled(), true)
    }

    fn send_client(&self, sealed: &[u8], finished: bool) -> Result<Moved, Ended> {
        let sent = send_some(self.line.client(), sealed).map_err(client_gone)?;
        Ok(Moved { rest: sealed.get(sent..).unwrap_or_default().to_vec(), finished })
    }

    /// The next arrival from upstream. What is held, the ticket for one, leaves with it, or alone if it
    /// takes long.
    async fn next_arrival(&self, bulk: &mut bool) -> Result<Arrived, Ended> {
        if !self.records.borrow().holds_something() {
            return self.arrival(&self.upstream, bulk).await.map_err(upstream_gone);
        }
        let mut receive = ring::receive(&self.upstream, self.worker.buffers());
        tokio::select! {
            biased;
            received = &mut receive => {
                return self.received(received, bulk).map_err(upstream_gone);
            }
            () = tokio::time::sleep(TICKET_HELD) => {}
        }
        let moved = self.release()?;
        send_all(self.line.client(), moved.rest).await.map_err(client_gone)?;
        self.received(receive.await, bulk).map_err(upstream_gone)
    }

    /// Sends what is held.
    fn release(&self) -> Result<Moved, Ended> {
        let mut scratch = self.worker.scratch();
        scratch.output.clear();
        self.records.borrow_mut().release(&mut scratch.output).map_err(bad_record)?;
        self.send_client(scratch.output.filled(), false)
    }

    /// rustls's alert about a bad record, if the client takes it at once.
    fn send_alert(&self) {
        // A client that does not take it does without.
        let _ = self.release();
    }

    /// The same towards the upstream.
    fn send_alert_upstream(&self) {
        let Some(records) = &self.upstream_records else { return };
        let mut scratch = self.worker.scratch();
        scratch.output.clear();
        if records.borrow_mut().release(&mut scratch.output).is_ok() {
            let _ = self.upstream.send_now(scratch.output.filled());
        }
    }

    fn touch(&self) {
        let timeout = if self.upstream_finished.get() {
            AFTER_UPSTREAM_FINISHED.min(self.idle_timeout)
        } else {
            self.idle_timeout
        };
        self.line.touch(clock::steady(), timeout);
    }
}

fn send_some(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() { Ok(0) } else { socket.send_now(bytes) }
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
