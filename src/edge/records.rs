//! TLS records to plaintext and back, after the handshake. No I/O: bytes in, bytes out.
//!
//! The seam for other record layers (kernel TLS, extracted secrets): relay.rs and page.rs know only this
//! type.

use rustls::ProtocolVersion;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::limits::LONGEST_PENDING_BYTES;
use super::scratch::Filling;

/// A rustls connection, whichever part we play in it.
pub trait Unbuffered {
    type Data;

    fn process<'c, 'b>(&'c mut self, bytes: &'b mut [u8]) -> UnbufferedStatus<'c, 'b, Self::Data>;

    fn is_in_handshake(&self) -> bool;

    /// Whether there is something to encode, an alert for example.
    fn has_more_to_send(&self) -> bool;

    /// Whether a peer that wants to renegotiate has nothing more to expect.
    fn ends_on_renegotiation(&self) -> bool;
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;

    fn process<'c, 'b>(&'c mut self, bytes: &'b mut [u8]) -> UnbufferedStatus<'c, 'b, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn is_in_handshake(&self) -> bool {
        self.is_handshaking()
    }

    fn has_more_to_send(&self) -> bool {
        self.wants_write()
    }

    fn ends_on_renegotiation(&self) -> bool {
        self.protocol_version() == Some(ProtocolVersion::TLSv1_2)
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;

    fn process<'c, 'b>(&'c mut self, bytes: &'b mut [u8]) -> UnbufferedStatus<'c, 'b, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn is_in_handshake(&self) -> bool {
        self.is_handshaking()
    }

    fn has_more_to_send(&self) -> bool {
        self.wants_write()
    }

    /// A server that only offers it goes on when it is refused (RFC 5246 §7.4.1.1).
    fn ends_on_renegotiation(&self) -> bool {
        false
    }
}

/// The record layer of one established connection.
pub struct Records<C = UnbufferedServerConnection> {
    /// Boxed: a kilobyte that every future which is handed the record layer would have room for.
    tls: Box<C>,
    /// Received bytes that are not a whole record yet. Empty, and without memory, between messages.
    pending: Vec<u8>,
    /// Records that wait to leave together with the next ones: the TLS 1.3 ticket, key updates.
    held: Vec<u8>,
    /// Plaintext that turned up while something was written, or came with the end of the handshake.
    early: Vec<u8>,
    peer_finished: bool,
    /// rustls counts into bytes that it has been shown, and what failed does not show them again.
    failed: bool,
}

/// Whether the peer has more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    Open,
    /// close_notify was received; nothing after it counts.
    Finished,
}

/// What ends a record layer.
#[derive(Debug)]
pub enum RecordError {
    /// The peer broke the protocol. The alert that says so is in `held`.
    Peer(rustls::Error),
    /// TLS 1.2 alone has it, and we do not. The alert that says so is in `held`.
    Renegotiation,
    /// More bytes wait for the end of their message than any message needs.
    TooMuchPending,
    /// Our own areas were too small, or the keys are used up: a bug.
    Ours(&'static str),
    /// It had ended before.
    Over,
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Peer(error) => write!(f, "{error}"),
            Self::Renegotiation => f.write_str("it wants to renegotiate, which is refused"),
            Self::TooMuchPending => f.write_str("too many bytes wait for the end of their message"),
            Self::Ours(what) => f.write_str(what),
            Self::Over => f.write_str("the record layer has failed before"),
        }
    }
}

impl From<EncodeError> for RecordError {
    fn from(_: EncodeError) -> Self {
        Self::Ours("no room to encode a TLS message")
    }
}

impl From<EncryptError> for RecordError {
    fn from(_: EncryptError) -> Self {
        Self::Ours("no room to encrypt, or the traffic keys are used up")
    }
}

impl<C: Unbuffered> Records<C> {
    /// `pending` is what was received behind the handshake, `held` what may wait for the first response.
    pub fn new(tls: Box<C>, pending: Vec<u8>, held: Vec<u8>, peer_finished: bool) -> Self {
        Self { tls, pending, held, early: Vec::new(), peer_finished, failed: false }
    }

    pub fn tls(&self) -> &C {
        &self.tls
    }

    pub fn holds_something(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes that wait for the rest of their record: they must stand in front of the next ones received.
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Decrypts `input` in place, which starts with [`Records::pending`], and appends the plaintext to
    /// `plain`. Incomplete bytes at its end become the new pending.
    ///
    /// # Errors
    /// What ends the record layer: after that only `release` has something to say.
    pub fn open(&mut self, input: &mut [u8], plain: &mut Filling) -> Result<Incoming, RecordError> {
        self.unless_failed(|records| records.decrypt(input, plain))
    }

    fn unless_failed<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, RecordError>,
    ) -> Result<T, RecordError> {
        if self.failed {
            return Err(RecordError::Over);
        }
        let outcome = work(self);
        if outcome.is_err() {
            self.failed = true;
            self.pending = Vec::new();
        }
        outcome
    }

    fn decrypt(&mut self, input: &mut [u8], plain: &mut Filling) -> Result<Incoming, RecordError> {
        let mut rest = input;
        if !plain.push(&std::mem::take(&mut self.early)) {
            return Err(RecordError::Ours("no room for decrypted bytes"));
        }
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process(rest);
            let mut more = true;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(RecordError::Peer)?;
                        discard += record.discard;
                        if !plain.push(record.payload) {
                            return Err(RecordError::Ours("no room for decrypted bytes"));
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    encode(&mut self.held, |room| message.encode(room))?;
                    // In TLS 1.2 no_renegotiation is all that is ever answered (RFC 5246 §7.2.2). Whoever asked waits
                    // for it, and would wait for the next message to leave with it.
                    if self.tls.ends_on_renegotiation() {
                        return Err(RecordError::Renegotiation);
                    }
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.peer_finished = true;
                    more = false;
                }
                Ok(_) => more = false,
                Err(error) => {
                    encode_alert(&mut *self.tls, &mut self.held);
                    return Err(RecordError::Peer(error));
                }
            }
            rest = rest.get_mut(discard..).unwrap_or_default();
            if !more {
                break;
            }
        }
        if self.peer_finished {
            self.pending = Vec::new();
            return Ok(Incoming::Finished);
        }
        if rest.len() > LONGEST_PENDING_BYTES {
            return Err(RecordError::TooMuchPending);
        }
        // An empty slice makes an empty vector, which owns no memory.
        self.pending = rest.to_vec();
        Ok(Incoming::Open)
    }

    /// Whether close_notify has been received.
    pub fn peer_finished(&self) -> bool {
        self.peer_finished
    }

    /// Appends what is held and `plain`, encrypted, to `out`.
    pub fn seal(&mut self, plain: &[u8], out: &mut Filling) -> Result<(), RecordError> {
        self.unless_failed(|records| records.write(out, Sealing::Plain(plain)))
    }

    /// Appends what is held and a close_notify to `out`: nothing may be sealed after it.
    pub fn seal_close(&mut self, out: &mut Filling) -> Result<(), RecordError> {
        self.unless_failed(|records| records.write(out, Sealing::Close))
    }

    /// Holds bytes that were released and could not be sent.
    pub fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Moves what is held to `out`.
    pub fn release(&mut self, out: &mut Filling) -> Result<(), RecordError> {
        if !out.push(&std::mem::take(&mut self.held)) {
            return Err(RecordError::Ours("no room for held records"));
        }
        Ok(())
    }

    fn write(&mut self, out: &mut Filling, sealing: Sealing<'_>) -> Result<(), RecordError> {
        loop {
            // The pending bytes must be shown again even to write: rustls counts into them.
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process(&mut self.pending);
            let mut written = None;
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    if !out.push(&std::mem::take(&mut self.held)) {
                        return Err(RecordError::Ours("no room for held records"));
                    }
                    written = Some(out.write(|room| match sealing {
                        Sealing::Plain(plain) => traffic.encrypt(plain, room),
                        Sealing::Close => traffic.queue_close_notify(room),
                    }));
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    encode(&mut self.held, |room| message.encode(room))?;
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_finished = true,
                // Only before the first `open`, which leaves neither plaintext nor whole records behind.
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(RecordError::Peer)?;
                        discard += record.discard;
                        self.early.extend_from_slice(record.payload);
                    }
                }
                Ok(_) => return Err(RecordError::Ours("cannot write in this state")),
                Err(error) => return Err(RecordError::Peer(error)),
            }
            self.pending.drain(..discard.min(self.pending.len()));
            if let Some(written) = written {
                return Ok(written?);
            }
        }
    }
}

/// After an error rustls has an alert to send; it is appended to `to`.
pub fn encode_alert<C: Unbuffered>(tls: &mut C, to: &mut Vec<u8>) {
    // Alert and perhaps what was queued before it. Not once more: with nothing to send rustls looks at what it
    // was shown, by its own count of bytes, and is shown none here.
    while tls.has_more_to_send() {
        match tls.process(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                if encode(to, |room| message.encode(room)).is_err() {
                    return;
                }
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
            _ => return,
        }
    }
}

#[derive(Clone, Copy)]
enum Sealing<'a> {
    Plain(&'a [u8]),
    Close,
}

/// Appends a message to a vector, making the room it asks for.
pub fn encode(
    to: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), EncodeError> {
    let before = to.len();
    let mut room = 512;
    loop {
        to.resize(before + room, 0);
        match write(to.get_mut(before..).unwrap_or_default()) {
            Ok(written) => {
                to.truncate(before + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(error) => {
                to.truncate(before);
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
mod tests;
