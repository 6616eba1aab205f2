//! Why a connection ended, and the one mapping to what the client is told.

use crate::observe::names::{Reason, Side};

/// The end of a connection that did not go its full way.
#[derive(Debug)]
pub struct Ended {
    pub side: Side,
    pub reason: Reason,
    /// What the system or rustls said, for the log.
    pub detail: Option<Box<str>>,
}

/// TLS alerts that we send without rustls (RFC 8446 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    IllegalParameter = 47,
    DecodeError = 50,
    InternalError = 80,
    UnrecognizedName = 112,
}

/// What the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A fatal alert in the clear, before the handshake has keys.
    Alert(Alert),
    /// A plain HTTP response, for the person who typed http://.
    PlainHttp400,
    /// TCP closes without close_notify, so that no client takes it for the end of a response.
    Close,
}

impl Ended {
    pub fn new(side: Side, reason: Reason) -> Self {
        Self { side, reason, detail: None }
    }

    pub fn because(side: Side, reason: Reason, detail: impl ToString) -> Self {
        Self { side, reason, detail: Some(detail.to_string().into()) }
    }

    /// The only place that knows alert, status and kind of close.
    pub fn answer(&self) -> Answer {
        match self.reason {
            Reason::UnknownServerName | Reason::NoCertificate | Reason::NoChallenge => {
                Answer::Alert(Alert::UnrecognizedName)
            }
            Reason::Failed => Answer::Alert(Alert::InternalError),
            Reason::HelloMalformed => Answer::Alert(Alert::DecodeError),
            Reason::HelloTooLong => Answer::Alert(Alert::IllegalParameter),
            Reason::PlainHttp => Answer::PlainHttp400,
            // For HandshakeFailed and BadRecord rustls has written the alert.
            _ => Answer::Close,
        }
    }
}

impl Alert {
    /// The alert as a plaintext record (RFC 8446 §5.1, §6).
    pub fn record(self) -> [u8; 7] {
        const ALERT: u8 = 21;
        const FATAL: u8 = 2;
        [ALERT, 3, 3, 0, 2, FATAL, self as u8]
    }
}

/// The whole answer to plain HTTP on a TLS port.
pub const PLAIN_HTTP_400: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
Content-Type: text/plain\r\n\
Content-Length: 59\r\n\
Connection: close\r\n\
\r\n\
This port speaks TLS, not plain HTTP: use https:// instead\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_http_answer_has_the_length_it_says() {
        let text = std::str::from_utf8(PLAIN_HTTP_400).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
    }
}
