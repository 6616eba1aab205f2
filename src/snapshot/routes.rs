//! Server name and listener port to route.

use std::sync::Arc;

use super::{NameMap, TlsSettings};

/// Where an upstream stands in [`super::Snapshot::upstreams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub u32);

/// What a route's connections are relayed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Upstream(UpstreamId),
    /// The built-in page that shows what was negotiated.
    Page,
}

/// One route as the edge needs it.
#[derive(Debug)]
pub struct Route {
    /// The route's `from`, as reports name it.
    pub from: Arc<str>,
    pub target: Target,
    /// The PROXY header that the upstream is sent first.
    pub send_proxy: Option<ProxyVersion>,
    pub tls: Arc<TlsSettings>,
}

/// The versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// The routes of every listener.
#[derive(Default)]
pub struct Routes {
    /// By the port of the listener.
    by_port: Box<[(u16, NameMap<Arc<Route>>)]>,
    /// The port that clients reach a name's route on with https.
    public_ports: NameMap<u16>,
}

impl Routes {
    pub fn new(
        by_port: impl IntoIterator<Item = (u16, NameMap<Arc<Route>>)>,
        public_ports: NameMap<u16>,
    ) -> Self {
        Self { by_port: by_port.into_iter().collect(), public_ports }
    }

    /// Where a plain listener sends clients that ask for a normalised server name; `None` if no route
    /// covers it.
    pub fn public_port(&self, name: &str) -> Option<u16> {
        self.public_ports.lookup(name).copied()
    }

    /// The route for a normalised server name on the listener of `port`.
    pub fn lookup(&self, port: u16, name: &str) -> Option<&Arc<Route>> {
        let (_, routes) = self.by_port.iter().find(|(candidate, _)| *candidate == port)?;
        routes.lookup(name)
    }
}
