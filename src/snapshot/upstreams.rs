//! Upstreams as the edge sees them: endpoints that the control plane resolved.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;

/// One upstream: every endpoint that a route's `to` came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its addresses as written, as reports name it.
    pub name: Arc<str>,
    pub policy: Policy,
    /// Empty until a name has resolved once.
    pub endpoints: Box<[Arc<Endpoint>]>,
}

/// How an endpoint is picked of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    RoundRobin,
    /// The one with the fewest connections of the worker that picks.
    LeastConnections,
}

/// One address to connect to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where a worker keeps what it knows of the address. No other address ever has the same, and the
    /// address has no other, whatever upstreams it belongs to.
    pub slot: EndpointSlot,
    pub address: EndpointAddress,
    /// Encrypts what is sent there again.
    pub tls: Option<Arc<UpstreamTls>>,
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_tls && self.slot == other.slot && self.address == other.address
    }
}

impl Eq for Endpoint {}

/// Counts up from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSlot(pub u32);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How an upstream is verified and what it is shown. Workers build rustls configs from it and know it by
/// its address in memory, so equal ones stay one `Arc` across reloads.
#[derive(Debug)]
pub struct UpstreamTls {
    pub server_name: ServerName<'static>,
    /// `None`: whatever it shows is believed.
    pub roots: Option<Arc<RootCertStore>>,
    /// For an upstream that asks for a client certificate.
    pub certified_key: Option<Arc<CertifiedKey>>,
}
