//! Drives rustls from the ClientHello to the end of the handshake, inside the line's deadline.

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ProtocolVersion, ServerConfig};

use crate::observe::names::{Reason, Side};

use super::ahead::Ahead;
use super::ended::Ended;
use super::limits::LONGEST_PENDING_BYTES;
use super::line::Line;
use super::records::{Records, Unbuffered, encode, encode_alert};
use super::tls::with_certified_key;
use super::transfer::{receive_into, send_all};
use super::worker::Worker;

/// Shakes hands with a client whose first bytes are `input`. `ahead` is what is computed of it already. Nothing
/// is kept of the handshake but the record layer.
pub async fn handshake(
    line: &Line,
    worker: &Worker,
    config: Arc<ServerConfig>,
    certified_key: Arc<CertifiedKey>,
    ahead: Ahead,
    mut input: Vec<u8>,
) -> Result<Records, Ended> {
    let failed =
        |error: rustls::Error| Ended::because(Side::Client, Reason::HandshakeFailed, error);
    let mut tls = Box::new(UnbufferedServerConnection::new(config).map_err(failed)?);
    let mut output = Vec::new();
    let (mut certified_key, mut ahead) = (Some(certified_key), Some(ahead));
    loop {
        let mut turn = || advance(&mut *tls, &mut input, &mut output);
        let step = match certified_key.take() {
            Some(chosen) => {
                let ahead = ahead.take().unwrap_or_default();
                let (step, back) = ahead.lend(|| with_certified_key(chosen, turn));
                certified_key = back;
                step
            }
            None => turn(),
        };
        match step {
            Step::Blocked => {}
            Step::Done { peer_finished } => {
                let held = if tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
                    // Only the ticket: it can wait for the first response bytes.
                    output
                } else {
                    // The server's Finished: the client waits for it.
                    send_all(line.client(), output).await.map_err(gone)?;
                    Vec::new()
                };
                return Ok(Records::new(tls, input, held, peer_finished));
            }
            Step::Failed(error) => {
                // The alert. A client that does not take it at once does without.
                let _ = line.client().send_now(&output);
                let reason = if tls.is_handshaking() {
                    Reason::HandshakeFailed
                } else {
                    // The record behind the client's Finished.
                    Reason::BadRecord
                };
                return Err(Ended::because(Side::Client, reason, error));
            }
        }
        if !output.is_empty() {
            send_all(line.client(), std::mem::take(&mut output)).await.map_err(gone)?;
        }
        receive(line, worker, &mut input).await?;
        if input.len() > LONGEST_PENDING_BYTES {
            return Err(Ended::because(Side::Client, Reason::HandshakeFailed, "too many bytes"));
        }
    }
}

/// Waits for more bytes from a client that is not done with its hello or handshake.
pub async fn receive(line: &Line, worker: &Worker, input: &mut Vec<u8>) -> Result<(), Ended> {
    match receive_into(line.client(), worker, input).await {
        Ok(0) => Err(match line.interrupted() {
            Some(reason) => Ended::new(Side::Ours, reason),
            None if input.is_empty() => Ended::new(Side::Client, Reason::ClosedBeforeHello),
            None => Ended::new(Side::Client, Reason::ClientGone),
        }),
        Ok(_) => Ok(()),
        Err(error) => Err(gone(error)),
    }
}

fn gone(error: std::io::Error) -> Ended {
    Ended::because(Side::Client, Reason::ClientGone, error)
}

/// How far a turn came.
pub enum Step {
    /// `output` must be sent and more input received.
    Blocked,
    Done {
        peer_finished: bool,
    },
    /// `output` holds the alert.
    Failed(rustls::Error),
}

/// One turn without I/O: consumes what it can of `input`, appends what must be sent to `output`.
pub fn advance<C: Unbuffered>(tls: &mut C, input: &mut Vec<u8>, output: &mut Vec<u8>) -> Step {
    let mut consumed = 0;
    let step = loop {
        let rest = input.get_mut(consumed..).unwrap_or_default();
        let UnbufferedStatus { discard, state, .. } = tls.process(rest);
        consumed += discard;
        match state {
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                if encode(output, |room| message.encode(room)).is_err() {
                    break Step::Failed(rustls::Error::General("cannot encode".into()));
                }
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
            Ok(ConnectionState::BlockedHandshake) => break Step::Blocked,
            // Application data may stand behind the client's Finished: it stays in rustls and in
            // `input` until the relay asks.
            Ok(ConnectionState::WriteTraffic(_) | ConnectionState::ReadTraffic(_)) => {
                break Step::Done { peer_finished: false };
            }
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                break if tls.is_in_handshake() {
                    Step::Failed(rustls::Error::HandshakeNotComplete)
                } else {
                    Step::Done { peer_finished: true }
                };
            }
            Ok(_) => {
                break Step::Failed(rustls::Error::General("early data was not offered".into()));
            }
            Err(error) => {
                encode_alert(tls, output);
                break Step::Failed(error);
            }
        }
    };
    input.drain(..consumed.min(input.len()));
    step
}
