//! The configured issuers, in the order to ask them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::config::autocert::Autocert;
use crate::store::Store;

use super::super::publisher::Publisher;
use super::ca::Ca;
use super::prepared::PreparedAutocert;

pub struct Issuers {
    pub settings: Autocert,
    pub store: Arc<dyn Store>,
    pub publisher: Publisher,
    /// At least one.
    pub all: Vec<Arc<Ca>>,
    begun: Instant,
}

impl Issuers {
    /// `has_http_listener`: HTTP-01 can be answered. `former` are those that were asked before, if any.
    pub fn new(
        prepared: &PreparedAutocert,
        publisher: &Publisher,
        has_http_listener: bool,
        former: Option<&Self>,
    ) -> Self {
        let PreparedAutocert { settings, store, .. } = prepared;
        let new = |issuer| Arc::new(Ca::new(issuer, settings, store, publisher, has_http_listener));
        Self {
            settings: settings.clone(),
            store: store.clone(),
            publisher: publisher.clone(),
            all: prepared.issuers.iter().map(new).collect(),
            begun: former.map_or_else(clock::steady, |former| former.begun),
        }
    }

    /// For how long this process has looked after certificates.
    pub fn up_for(&self) -> Duration {
        clock::steady().duration_since(self.begun)
    }

    pub fn directories(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|ca| ca.issuer.directory.as_str())
    }

    /// The one with this directory URL.
    pub fn of(&self, directory: &str) -> Option<&Arc<Ca>> {
        self.all.iter().find(|ca| ca.issuer.directory == directory)
    }

    /// Whether these are the same issuers in the same order, with the same store.
    pub fn are_those_of(&self, other: &Self) -> bool {
        self.settings.dir == other.settings.dir && self.directories().eq(other.directories())
    }

    /// Whether nothing has changed that they were made from.
    pub fn are_from(&self, prepared: &PreparedAutocert) -> bool {
        // A file of roots may have been mended under the same name.
        let roots = self.all.iter().map(|ca| &ca.trusted_roots);
        self.settings == prepared.settings
            && roots.eq(prepared.issuers.iter().map(|issuer| &issuer.trusted_roots))
    }
}
