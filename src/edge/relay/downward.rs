//! Upstream to client.

use std::cell::RefCell;
use std::io;

use crate::clock;
use crate::observe::names::{Reason, Side};
use crate::ring::{self, Buffer};

use super::super::ended::Ended;
use super::super::limits::{EAGER_LOOKS, TICKET_HELD};
use super::super::records::Incoming;
use super::super::scratch::{Filling, Scratch};
use super::super::transfer::send_all;
use super::super::upstream_tls::UpstreamRecords;
use super::bulk::Bulk;
use super::{
    Arrived, Moved, Relay, bad_record, bad_upstream_record, client_gone, send_some, upstream_gone,
};

impl Relay<'_> {
    pub(super) async fn downward(&self) -> Result<(), Ended> {
        let mut bulk = Bulk::default();
        let mut looks = EAGER_LOOKS;
        // What came in the same packet as the end of an upstream's handshake is no longer in its socket.
        let mut came_before = self.upstream_records.is_some();
        loop {
            // A variable of one turn of the loop: while it waits for an arrival a connection has no room for it.
            let Moved { rest, finished, failed } = if std::mem::take(&mut came_before) {
                self.seal(None, false, &mut bulk)?
            } else {
                let arrived = self.next_arrival(&mut bulk).await?;
                // What is waiting may be an end, and one that nobody made where it is ended from outside.
                if matches!(arrived, Arrived::Buffer(_)) {
                    self.touch();
                }
                let look = looks > 0;
                looks = looks.saturating_sub(1);
                match arrived {
                    Arrived::Buffer(buffer) => self.seal(Some(buffer), look, &mut bulk)?,
                    Arrived::Waiting => self.seal(None, true, &mut bulk)?,
                    Arrived::End => self.upstream_end()?,
                }
            };
            if !rest.is_empty() {
                bulk.held_up();
                // Boxed, here and below: nor has it room for what is rarely waited for.
                Box::pin(send_all(self.line.client(), rest)).await.map_err(client_gone)?;
                self.touch();
            }
            if let Some(ended) = failed {
                return Err(ended);
            }
            if finished {
                self.line.client().finish();
                // An end that came from outside is none of the upstream's making, and none for it to take.
                if self.line.interrupted().is_none() {
                    self.upstream_finished.set(true);
                    self.line.upstream_may_end();
                }
                self.touch();
                return Ok(());
            }
        }
    }

    /// The next arrival from upstream.
    async fn next_arrival(&self, bulk: &mut Bulk) -> Result<Arrived, Ended> {
        if self.records.borrow().holds_something() {
            return Box::pin(self.arrival_with_something_held(bulk)).await;
        }
        self.arrival(&self.upstream, bulk).await.map_err(upstream_gone)
    }

    /// What is held, the ticket for one, leaves with the next arrival, or alone if that takes long.
    async fn arrival_with_something_held(&self, bulk: &mut Bulk) -> Result<Arrived, Ended> {
        let mut receive = ring::receive_later(&self.upstream, self.worker.buffers());
        tokio::select! {
            biased;
            received = &mut receive => return self.arrival_after(received, bulk).await,
            () = ring::sleep_until(clock::steady() + TICKET_HELD) => {}
        }
        let released = self.release()?;
        send_all(self.line.client(), released.rest).await.map_err(client_gone)?;
        let received = receive.await;
        self.arrival_after(received, bulk).await
    }

    /// What this receive from upstream brought, or else the next one.
    async fn arrival_after(
        &self,
        received: io::Result<Option<Buffer>>,
        bulk: &mut Bulk,
    ) -> Result<Arrived, Ended> {
        match self.arrived(received, bulk).map_err(upstream_gone)? {
            Some(arrived) => Ok(arrived),
            None => self.arrival(&self.upstream, bulk).await.map_err(upstream_gone),
        }
    }

    /// Encrypts what arrived from upstream and sends it to the client. `look`: takes what else waits in
    /// the socket, so that it leaves in the same packets.
    fn seal(&self, buffer: Option<Buffer>, look: bool, bulk: &mut Bulk) -> Result<Moved, Ended> {
        let mut records = self.records.borrow_mut();
        let mut scratch = self.worker.scratch();
        let Scratch { input, plain, output } = &mut *scratch;
        output.clear();
        let (mut finished, mut failed) = (false, None);
        match (buffer, &self.upstream_records) {
            (Some(buffer), None) if !look && !bulk.is_on() => {
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
                let mut more = Ok(None);
                let look = look || bulk.is_on();
                if look {
                    let room = back.get_mut(..bulk.room() - arrived.len()).unwrap_or_default();
                    more = self.upstream.receive_now(room);
                }
                let received = more.as_ref().map_or(0, |more| more.unwrap_or(0));
                if look {
                    bulk.took(arrived.len() + received);
                }
                if received > 0 {
                    self.touch();
                }
                finished = matches!(more, Ok(Some(0)));
                failed = more.err();
                let bytes = input.get_mut(..before + received).unwrap_or_default();
                let bytes: &[u8] = match &mut upstream_records {
                    None => bytes,
                    Some(upstream_records) => {
                        plain.clear();
                        let opened = upstream_records.open(bytes, plain);
                        // TCP's end is told once more by the next receive, and judged there.
                        finished = opened.map_err(bad_upstream_record)? == Incoming::Finished;
                        if upstream_records.holds_something() {
                            // It waits for this answer, and perhaps the client for it.
                            self.answer_upstream(upstream_records, output)?;
                        }
                        plain.filled()
                    }
                };
                if !bytes.is_empty() {
                    records.seal(bytes, output).map_err(bad_record)?;
                }
            }
        }
        if finished && self.line.interrupted().is_some() {
            // Nobody may have made it. The next receive tells it once more, and there it is judged.
            finished = false;
        } else if finished && self.is_cut_short() {
            (finished, failed) = (false, Some(io::ErrorKind::ConnectionReset.into()));
        }
        if finished {
            records.seal_close(output).map_err(bad_record)?;
        }
        let moved = self.send_client(output.filled(), finished)?;
        Ok(Moved { failed: failed.map(upstream_gone), ..moved })
    }

    /// TCP ended. From an upstream that speaks TLS that is no end of what it had to say, and neither is it
    /// when we made it ourselves, or when a reset came before.
    fn upstream_end(&self) -> Result<Moved, Ended> {
        match self.line.interrupted() {
            Some(_) if self.is_quiet() => {}
            Some(reason) => return Err(Ended::new(Side::Ours, reason)),
            None if self.is_cut_short() => {
                return Err(Ended::new(Side::Upstream, Reason::UpstreamGone));
            }
            None if self.upstream_records.is_some() => {
                return Err(Ended::new(Side::Upstream, Reason::UpstreamTruncated));
            }
            None => {}
        }
        let mut scratch = self.worker.scratch();
        scratch.output.clear();
        self.records.borrow_mut().seal_close(&mut scratch.output).map_err(bad_record)?;
        self.send_client(scratch.output.filled(), true)
    }

    /// Whether the upstream was reset: a send to it has heard of that, and receives hear no more of it.
    fn is_cut_short(&self) -> bool {
        self.upstream_records.is_none() && self.upstream_deaf_since.get().is_some()
    }

    fn send_client(&self, sealed: &[u8], finished: bool) -> Result<Moved, Ended> {
        let sent = send_some(self.line.client(), sealed, finished).map_err(client_gone)?;
        let rest = sealed.get(sent..).unwrap_or_default().to_vec();
        Ok(Moved { rest, finished, failed: None })
    }

    /// Sends what is held.
    fn release(&self) -> Result<Moved, Ended> {
        let mut scratch = self.worker.scratch();
        scratch.output.clear();
        self.records.borrow_mut().release(&mut scratch.output).map_err(bad_record)?;
        self.send_client(scratch.output.filled(), false)
    }

    /// Sends the upstream what is held for it; where a record is on its way there, it leaves behind that.
    fn answer_upstream(
        &self,
        records: &mut UpstreamRecords,
        output: &mut Filling,
    ) -> Result<(), Ended> {
        if self.sending_upstream.get() || self.upstream_deaf_since.get().is_some() {
            return Ok(());
        }
        records.release(output).map_err(bad_upstream_record)?;
        match self.upstream.send_now(output.filled()) {
            // What does not fit leaves first of all that follows.
            Ok(sent) => records.hold(output.filled().get(sent..).unwrap_or_default()),
            // What it has said may still be read.
            Err(_) => self.upstream_is_deaf(),
        }
        output.clear();
        Ok(())
    }

    /// rustls's alert about a bad record, if the client takes it at once.
    pub(super) fn send_alert(&self) {
        // A client that does not take it does without.
        let _ = self.release();
    }

    /// The same towards the upstream.
    pub(super) fn send_alert_upstream(&self) {
        let Some(records) = &self.upstream_records else { return };
        let mut scratch = self.worker.scratch();
        scratch.output.clear();
        if records.borrow_mut().release(&mut scratch.output).is_ok() {
            let _ = self.upstream.send_now(scratch.output.filled());
        }
    }
}
