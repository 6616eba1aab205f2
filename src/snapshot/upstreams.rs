//! Upstreams as the edge sees them: addresses that were resolved by the control plane.

use std::net::SocketAddr;
use std::sync::Arc;

/// One upstream: the endpoints that its address resolved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The address as written, as reports name it.
    pub address: Arc<str>,
    /// In the order to try them; empty until the name has resolved once.
    pub endpoints: Box<[SocketAddr]>,
}
