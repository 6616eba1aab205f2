//! The one thing both planes share: an immutable picture of what the edge serves.

mod cell;
mod certificates;
mod challenges;
mod name_map;
mod private_key;
mod routes;
mod settings;
mod short_name;
mod ticket_keys;
mod upstreams;

use std::sync::Arc;

pub use cell::Cell;
pub use certificates::{CertificateChoice, Certificates, KeyKind, KeyKinds};
pub use challenges::{ChallengeAnswer, Challenges, validated_name};
pub use name_map::NameMap;
pub use private_key::LazyPrivateKey;
pub use routes::{ProxyVersion, Route, Routes, Target, UpstreamId};
pub use settings::{EdgeSettings, TlsSettings};
pub use ticket_keys::{TicketKey, TicketKeys};
pub use upstreams::{Endpoint, EndpointAddress, EndpointSlot, Policy, Upstream, UpstreamTls};

/// What the edge serves now. Every part is shared with the next snapshot unless it changed, so a
/// publish costs what changed, not what exists.
#[derive(Clone)]
pub struct Snapshot {
    pub settings: Arc<EdgeSettings>,
    pub certificates: Arc<Certificates>,
    pub routes: Arc<Routes>,
    /// Indexed by [`UpstreamId`].
    pub upstreams: Arc<[Arc<Upstream>]>,
    pub ticket_keys: Arc<TicketKeys>,
    /// What an issuer may ask for now.
    pub challenges: Arc<Challenges>,
}
