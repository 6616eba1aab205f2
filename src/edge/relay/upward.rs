//! Client to upstream.

use std::cell::RefCell;

use crate::clock;
use crate::observe::names::{Reason, Side};
use crate::ring::Buffer;

use super::super::ended::Ended;
use super::super::limits::DEAF_UPSTREAM;
use super::super::records::{Incoming, RecordError};
use super::super::scratch::{Filling, Scratch};
use super::super::transfer::send_all;
use super::bulk::Bulk;
use super::{Arrived, Moved, Relay, bad_record, bad_upstream_record, client_gone, send_some};

impl Relay<'_> {
    pub(super) async fn upward(&self) -> Result<(), Ended> {
        let mut bulk = Bulk::default();
        // Records may have come in the same packet as the end of the handshake.
        let mut came_before = true;
        loop {
            // A variable of one turn of the loop: while it waits for an arrival a connection has no room for it.
            let Moved { rest, finished, .. } = if std::mem::take(&mut came_before) {
                self.open(None)?
            } else {
                let client = self.line.client();
                let arrived = self.arrival(client, &mut bulk).await.map_err(client_gone)?;
                // What is waiting may be an end, and one that nobody made where it is ended from outside: a quiet
                // connection stays one.
                if matches!(arrived, Arrived::Buffer(_)) {
                    self.touch();
                }
                if self.is_done_listening() {
                    return Ok(());
                }
                match arrived {
                    Arrived::Buffer(buffer) => self.open(Some(buffer))?,
                    Arrived::Waiting => self.open_bulk(&mut bulk)?,
                    // TCP ended without close_notify (RFC 8446 §6.1). With all of the response out, many do.
                    Arrived::End if self.upstream_finished.get() => {
                        Moved { finished: true, ..Moved::default() }
                    }
                    // Nobody has said that this was all, and the upstream will be told when the client has been.
                    Arrived::End if self.line.interrupted().is_some() => {
                        self.cut_short.set(true);
                        return Ok(());
                    }
                    Arrived::End => return Err(Ended::new(Side::Client, Reason::Truncated)),
                }
            };
            if !rest.is_empty() {
                bulk.held_up();
                // Boxed, here and below: nor has it room for what is rarely waited for.
                Box::pin(self.send_upstream_all(rest)).await;
                if let Some(held) = self.held_for_upstream()? {
                    Box::pin(self.send_upstream_all(held)).await;
                }
                self.touch();
            }
            if finished {
                return self.finish_upstream().await;
            }
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
    fn open_bulk(&self, bulk: &mut Bulk) -> Result<Moved, Ended> {
        let mut records = self.records.borrow_mut();
        let mut scratch = self.worker.scratch();
        let Scratch { input, plain, output } = &mut *scratch;
        plain.clear();
        let pending = records.pending().len();
        let (front, back) = input.split_at_mut_checked(pending).unwrap_or_default();
        front.copy_from_slice(records.pending());
        let room = back.get_mut(..bulk.room()).unwrap_or_default();
        let received = self.line.client().receive_now(room).map_err(client_gone)?.unwrap_or(0);
        if received > 0 {
            self.touch();
        }
        // The end of the stream too: the next receive tells it once more.
        bulk.took(received);
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
        if self.upstream_deaf_since.get().is_some() {
            return Ok(Moved { finished, ..Moved::default() });
        }
        let bytes = match &self.upstream_records {
            Some(records) if !plain.is_empty() => {
                output.clear();
                records.borrow_mut().seal(plain, output).map_err(bad_upstream_record)?;
                output.filled()
            }
            _ => plain,
        };
        // Of a TLS upstream the close_notify follows, not the end of TCP.
        let last = finished && self.upstream_records.is_none();
        match send_some(&self.upstream, bytes, last) {
            Ok(sent) => {
                let rest = bytes.get(sent..).unwrap_or_default().to_vec();
                Ok(Moved { rest, finished, failed: None })
            }
            Err(_) => {
                self.upstream_is_deaf();
                Ok(Moved { finished, ..Moved::default() })
            }
        }
    }

    /// Sends all of these bytes, and nothing in between.
    async fn send_upstream_all(&self, bytes: Vec<u8>) {
        self.sending_upstream.set(true);
        if send_all(&self.upstream, bytes).await.is_err() {
            self.upstream_is_deaf();
        }
        self.sending_upstream.set(false);
    }

    /// An answer of the record layer that came up while a record was being sent.
    fn held_for_upstream(&self) -> Result<Option<Vec<u8>>, Ended> {
        let records = self.upstream_records.as_ref().map(RefCell::borrow_mut);
        let Some(mut records) = records.filter(|records| records.holds_something()) else {
            return Ok(None);
        };
        let mut scratch = self.worker.scratch();
        scratch.output.clear();
        records.release(&mut scratch.output).map_err(bad_upstream_record)?;
        Ok(Some(scratch.output.filled().to_vec()))
    }

    fn is_done_listening(&self) -> bool {
        self.upstream_deaf_since
            .get()
            .is_some_and(|since| clock::steady().duration_since(since) >= DEAF_UPSTREAM)
    }

    /// Tells the upstream that the client is done.
    async fn finish_upstream(&self) -> Result<(), Ended> {
        self.line.upstream_may_end();
        if self.upstream_deaf_since.get().is_some() {
            return Ok(());
        }
        if let Some(records) = &self.upstream_records {
            let close = {
                let mut scratch = self.worker.scratch();
                scratch.output.clear();
                let sealed = records.borrow_mut().seal_close(&mut scratch.output);
                sealed.map_err(bad_upstream_record)?;
                scratch.output.filled().to_vec()
            };
            Box::pin(self.send_upstream_all(close)).await;
            // Nothing may be sent behind it.
            self.sending_upstream.set(true);
            if self.upstream_deaf_since.get().is_some() {
                return Ok(());
            }
        }
        // With both directions done its socket is closed at once, which tells it the same.
        if !self.upstream_finished.get() {
            self.upstream.finish();
        }
        Ok(())
    }
}
