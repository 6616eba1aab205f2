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
    /// Where a worker keeps what it knows of the endpoint. No other address, and none with other TLS
    /// settings, ever has the same; and the endpoint has no other, whatever upstreams it belongs to.
    pub slot: EndpointSlot,
    pub address: EndpointAddress,
    /// Encrypts what is sent there again.
    pub tls: Option<Arc<UpstreamTls>>,
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        let id = |endpoint: &Self| endpoint.tls.as_ref().map(|tls| tls.id);
        id(self) == id(other) && self.slot == other.slot && self.address == other.address
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

/// How an upstream is verified and what it is shown.
#[derive(Debug)]
pub struct UpstreamTls {
    /// Tells these settings from others, the same for the same ones across reloads.
    pub id: u64,
    /// The same without the name: workers keep a rustls config for each.
    pub credentials: u64,
    pub server_name: ServerName<'static>,
    /// `None`: whatever it shows is believed.
    pub roots: Option<Arc<RootCertStore>>,
    /// For an upstream that asks for a client certificate.
    pub certified_key: Option<Arc<CertifiedKey>>,
}
