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
    pub tls: Arc<TlsSettings>,
}

/// The routes of every listener.
pub struct Routes {
    /// By the port of the listener.
    by_port: Box<[(u16, NameMap<Arc<Route>>)]>,
}

impl Routes {
    pub fn new(by_port: impl IntoIterator<Item = (u16, NameMap<Arc<Route>>)>) -> Self {
        Self { by_port: by_port.into_iter().collect() }
    }

    /// The route for a normalised server name on the listener of `port`.
    pub fn lookup(&self, port: u16, name: &str) -> Option<&Arc<Route>> {
        let (_, routes) = self.by_port.iter().find(|(candidate, _)| *candidate == port)?;
        routes.lookup(name)
    }
}
