//! Every reason for which a connection ends or is worth a report, once, with its label and what it means to an operator.

/// Which side caused the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Upstream,
    Ours,
}

/// Why a connection ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Reason {
    ClosedBeforeHello,
    NoProxyHeader,
    BadProxyHeader,
    NotTls,
    PlainHttp,
    BadRequest,
    HelloTooLong,
    HelloMalformed,
    UnknownServerName,
    NoCertificate,
    NoChallenge,
    HandshakeFailed,
    HandshakeTimeout,
    ClientGone,
    Truncated,
    BadRecord,
    Unresolved,
    ConnectRefused,
    ConnectTimeout,
    EndpointSkipped,
    UpstreamHandshake,
    UpstreamGone,
    UpstreamTruncated,
    UpstreamBadRecord,
    Idle,
    Drained,
    OutOfDescriptors,
    AcceptingPauses,
    Failed,
}

impl Reason {
    pub const ALL: [Self; 29] = [
        Self::ClosedBeforeHello,
        Self::NoProxyHeader,
        Self::BadProxyHeader,
        Self::NotTls,
        Self::PlainHttp,
        Self::BadRequest,
        Self::HelloTooLong,
        Self::HelloMalformed,
        Self::UnknownServerName,
        Self::NoCertificate,
        Self::NoChallenge,
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::ClientGone,
        Self::Truncated,
        Self::BadRecord,
        Self::Unresolved,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::EndpointSkipped,
        Self::UpstreamHandshake,
        Self::UpstreamGone,
        Self::UpstreamTruncated,
        Self::UpstreamBadRecord,
        Self::Idle,
        Self::Drained,
        Self::OutOfDescriptors,
        Self::AcceptingPauses,
        Self::Failed,
    ];

    /// The label in metrics and the `reason` field in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::ClosedBeforeHello => "closed_before_hello",
            Self::NoProxyHeader => "no_proxy_header",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::NotTls => "not_tls",
            Self::PlainHttp => "plain_http",
            Self::BadRequest => "bad_request",
            Self::HelloTooLong => "hello_too_long",
            Self::HelloMalformed => "hello_malformed",
            Self::UnknownServerName => "unknown_server_name",
            Self::NoCertificate => "no_certificate",
            Self::NoChallenge => "no_challenge",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::ClientGone => "client_gone",
            Self::Truncated => "truncated",
            Self::BadRecord => "bad_record",
            Self::Unresolved => "unresolved",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::EndpointSkipped => "endpoint_skipped",
            Self::UpstreamHandshake => "upstream_handshake",
            Self::UpstreamGone => "upstream_gone",
            Self::UpstreamTruncated => "upstream_truncated",
            Self::UpstreamBadRecord => "upstream_bad_record",
            Self::Idle => "idle",
            Self::Drained => "drained",
            Self::OutOfDescriptors => "out_of_descriptors",
            Self::AcceptingPauses => "accepting_pauses",
            Self::Failed => "failed",
        }
    }

    /// What happened, for a person.
    pub fn help(self) -> &'static str {
        match self {
            Self::ClosedBeforeHello => "the client left before it sent a ClientHello",
            Self::NoProxyHeader => {
                "a connection from an accept_proxy network did not begin with a PROXY header"
            }
            Self::BadProxyHeader => {
                "a PROXY header from an accept_proxy network is malformed or too long"
            }
            Self::NotTls => "the client does not speak TLS",
            Self::PlainHttp => "the client spoke plain HTTP to the TLS port",
            Self::BadRequest => "the request to the plain listener is malformed or too long",
            Self::HelloTooLong => "the ClientHello is larger than any real one",
            Self::HelloMalformed => "the ClientHello is malformed",
            Self::UnknownServerName => "no route covers the server name",
            Self::NoCertificate => "a route covers the server name, but no certificate does",
            Self::NoChallenge => "a validation for a name that no order of ours is open for",
            Self::HandshakeFailed => "the TLS handshake failed",
            Self::HandshakeTimeout => {
                "the handshake, or the request to the plain listener, took longer than handshake_timeout"
            }
            Self::ClientGone => "the client reset the connection",
            Self::Truncated => "the client closed TCP without closing TLS",
            Self::BadRecord => "the client sent a TLS record that is not valid",
            Self::Unresolved => "the upstream's name has not resolved yet",
            Self::ConnectRefused => "the upstream does not accept connections",
            Self::ConnectTimeout => "the upstream did not accept within connect_timeout",
            Self::EndpointSkipped => {
                "an endpoint failed and is skipped for a while; another one serves"
            }
            Self::UpstreamHandshake => {
                "the TLS handshake with the upstream failed, or it could not be verified"
            }
            Self::UpstreamGone => "the upstream reset the connection",
            Self::UpstreamTruncated => "the upstream closed TCP without closing TLS",
            Self::UpstreamBadRecord => "the upstream sent a TLS record that is not valid",
            Self::Idle => "no byte moved for idle_timeout",
            Self::Drained => "the connection was still open at shutdown_timeout",
            Self::OutOfDescriptors => "no file descriptor was left for the upstream connection",
            Self::AcceptingPauses => {
                "no further connection can be served now, new ones wait; raise the limit of open files (systemd: LimitNOFILE)"
            }
            Self::Failed => "a system call failed that should not",
        }
    }

    /// Whether an operator can do something about it: these are logged as warnings, others as debug.
    pub fn concerns_operator(self) -> bool {
        matches!(
            self,
            Self::NoCertificate
                | Self::Unresolved
                | Self::ConnectRefused
                | Self::ConnectTimeout
                | Self::EndpointSkipped
                | Self::UpstreamHandshake
                | Self::NoProxyHeader
                | Self::BadProxyHeader
                | Self::OutOfDescriptors
                | Self::AcceptingPauses
                | Self::Failed
        )
    }
}
