//! The edge's settings, as they arrive in the snapshot.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

use crate::name::ServerName;

/// What holds for every connection.
#[derive(Clone, Debug)]
pub struct EdgeSettings {
    /// From the accept to the end of the handshake.
    pub handshake_timeout: Duration,
    /// To connect to one endpoint.
    pub connect_timeout: Duration,
    /// A connection that moved no byte for this long is ended.
    pub idle_timeout: Duration,
    /// Whose certificate and route serve an absent or unknown server name.
    pub default_server_name: Option<ServerName>,
    /// The networks from which every connection begins with a PROXY header.
    pub accept_proxy: Box<[IpNet]>,
}

impl EdgeSettings {
    /// Whether a connection from here must begin with a PROXY header.
    pub fn expects_proxy_header(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.accept_proxy.iter().any(|network| network.contains(&from))
    }
}

/// What belongs to a rustls `ServerConfig`; routes with equal settings share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// TLS 1.2 or 1.3.
    pub min_version: ProtocolVersion,
    /// In server order; `None`: ours.
    pub cipher_suites: Option<Vec<CipherSuite>>,
    /// In server order; `None`: ours.
    pub groups: Option<Vec<NamedGroup>>,
    /// Application protocols on offer, in server order (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}
