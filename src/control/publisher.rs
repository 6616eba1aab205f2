//! The only caller of publish: builds the next snapshot from what changed.

use std::collections::HashMap;
use std::sync::Arc;

use crate::name::Pattern;
use crate::snapshot::{
    Cell, CertificateChoice, Certificates, EdgeSettings, Routes, Snapshot, TicketKeys, Upstream,
};

/// Holds the snapshot in force and what it was built from.
pub struct Publisher {
    cell: Arc<Cell>,
    current: Snapshot,
    choices: HashMap<Pattern, CertificateChoice>,
}

impl Publisher {
    /// Builds the first snapshot.
    pub fn start(
        settings: Arc<EdgeSettings>,
        choices: HashMap<Pattern, CertificateChoice>,
        routes: Arc<Routes>,
        upstreams: Vec<Arc<Upstream>>,
        ticket_keys: TicketKeys,
    ) -> Self {
        let entries = choices.iter().map(|(pattern, choice)| (pattern.clone(), choice.clone()));
        let current = Snapshot {
            settings,
            certificates: Arc::new(Certificates::build(entries)),
            routes,
            upstreams: upstreams.into(),
            ticket_keys: Arc::new(ticket_keys),
        };
        Self { cell: Arc::new(Cell::new(current.clone())), current, choices }
    }

    /// Where the edge reads.
    pub fn cell(&self) -> Arc<Cell> {
        self.cell.clone()
    }

    pub fn current(&self) -> &Snapshot {
        &self.current
    }

    /// Publishes a new configuration at once: certificates, routes, upstreams and settings together.
    /// Returns for how many patterns the certificate changed.
    pub fn configuration(
        &mut self,
        settings: Arc<EdgeSettings>,
        choices: HashMap<Pattern, CertificateChoice>,
        routes: Arc<Routes>,
        upstreams: Vec<Arc<Upstream>>,
    ) -> usize {
        let changed = self.replace_choices(choices);
        self.current.settings = settings;
        self.current.routes = routes;
        self.current.upstreams = upstreams.into();
        self.publish();
        changed
    }

    /// Publishes the certificates that differ. Returns for how many patterns they do.
    pub fn certificates(&mut self, choices: HashMap<Pattern, CertificateChoice>) -> usize {
        let changed = self.replace_choices(choices);
        if changed > 0 {
            self.publish();
        }
        changed
    }

    /// Publishes another choice for each of these patterns, or none.
    pub fn some_certificates(&mut self, changes: Vec<(Pattern, Option<CertificateChoice>)>) {
        let borrowed = changes.iter().map(|(pattern, choice)| (pattern, choice.clone()));
        self.current.certificates = Arc::new(self.current.certificates.changed(borrowed));
        for (pattern, choice) in changes {
            match choice {
                Some(choice) => self.choices.insert(pattern, choice),
                None => self.choices.remove(&pattern),
            };
        }
        self.publish();
    }

    /// Publishes another choice for one pattern, or none.
    pub fn certificate(&mut self, pattern: Pattern, choice: Option<CertificateChoice>) {
        self.current.certificates =
            Arc::new(self.current.certificates.changed([(&pattern, choice.clone())]));
        match choice {
            Some(choice) => self.choices.insert(pattern, choice),
            None => self.choices.remove(&pattern),
        };
        self.publish();
    }

    /// Publishes new addresses of upstreams, if they are new.
    pub fn upstreams(&mut self, upstreams: Vec<Arc<Upstream>>) {
        if *self.current.upstreams != *upstreams {
            self.current.upstreams = upstreams.into();
            self.publish();
        }
    }

    /// Publishes new ticket keys.
    pub fn ticket_keys(&mut self, keys: TicketKeys) {
        self.current.ticket_keys = Arc::new(keys);
        self.publish();
    }

    fn replace_choices(&mut self, next: HashMap<Pattern, CertificateChoice>) -> usize {
        let changes = super::precedence::changes(&self.choices, &next);
        if !changes.is_empty() {
            let changes = changes.iter().map(|(pattern, choice)| (pattern, choice.clone()));
            self.current.certificates = Arc::new(self.current.certificates.changed(changes));
        }
        self.choices = next;
        changes.len()
    }

    fn publish(&self) {
        // The snapshot before is released here, on the control thread, unless a worker reads it still.
        drop(self.cell.publish(self.current.clone()));
    }
}
