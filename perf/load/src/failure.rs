//! Why an operation does not count, by kind.

use std::fmt;

/// The kinds that a report tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No TCP connection.
    Connect,
    /// No TLS connection, for another reason than the certificate.
    Handshake,
    /// The certificate does not verify, or is not the one that the server was given.
    Certificate,
    /// Version, suite, group or kind of handshake are not what the scenario measures.
    Negotiated,
    /// The connection ended before the response did.
    Closed,
    /// The response is no valid HTTP, has another status, or not the length that belongs to it.
    Response,
    /// The response is not what the real upstream answers.
    Content,
    /// Nothing happened for too long.
    Timeout,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Certificate => "certificate",
            Self::Negotiated => "negotiated parameters",
            Self::Closed => "closed early",
            Self::Response => "response",
            Self::Content => "content",
            Self::Timeout => "timeout",
        })
    }
}

/// One failed operation.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    /// What exactly, for a person; the report shows the first of each kind.
    pub detail: String,
}

impl Failure {
    pub fn new(kind: Kind, detail: impl fmt::Display) -> Self {
        Self { kind, detail: detail.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.detail)
    }
}
