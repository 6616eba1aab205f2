//! The only caller of publish: builds the next snapshot from what changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::sign::CertifiedKey;

use crate::name::{Pattern, ServerName};
use crate::snapshot::{
    Cell, CertificateChoice, Certificates, ChallengeAnswer, Challenges, EdgeSettings, Routes,
    Snapshot, TicketKeys, Upstream,
};

/// Holds the snapshot in force and what it was built from. Clones publish to the same cell: the answer to a
/// challenge waits for nothing else that the control plane does.
#[derive(Clone)]
pub struct Publisher {
    cell: Arc<Cell>,
    /// Held for one publish at a time, on the control thread only.
    in_force: Arc<Mutex<InForce>>,
}

struct InForce {
    snapshot: Snapshot,
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
        let snapshot = Snapshot {
            settings,
            certificates: Arc::new(Certificates::build(entries)),
            routes,
            upstreams: upstreams.into(),
            ticket_keys: Arc::new(ticket_keys),
            challenges: Arc::new(Challenges::default()),
        };
        Self {
            cell: Arc::new(Cell::new(snapshot.clone())),
            in_force: Arc::new(Mutex::new(InForce { snapshot, choices })),
        }
    }

    /// Where the edge reads.
    pub fn cell(&self) -> Arc<Cell> {
        self.cell.clone()
    }

    pub fn current(&self) -> Snapshot {
        self.in_force().snapshot.clone()
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
        let mut next = self.in_force();
        let changed = next.replace_choices(choices);
        next.snapshot.settings = settings;
        next.snapshot.routes = routes;
        next.snapshot.upstreams = upstreams.into();
        self.publish(&next);
        changed
    }

    /// Publishes the certificates that differ. Returns for how many patterns they do.
    pub fn certificates(&mut self, choices: HashMap<Pattern, CertificateChoice>) -> usize {
        let mut next = self.in_force();
        let changed = next.replace_choices(choices);
        if changed > 0 {
            self.publish(&next);
        }
        changed
    }

    /// Publishes another choice for each of these patterns, or none.
    pub fn some_certificates(&mut self, changes: Vec<(Pattern, Option<CertificateChoice>)>) {
        let borrowed = changes.iter().map(|(pattern, choice)| (pattern, choice.clone()));
        let mut next = self.in_force();
        next.snapshot.certificates = Arc::new(next.snapshot.certificates.changed(borrowed));
        for (pattern, choice) in changes {
            match choice {
                Some(choice) => next.choices.insert(pattern, choice),
                None => next.choices.remove(&pattern),
            };
        }
        self.publish(&next);
    }

    /// Publishes another choice for one pattern, or none.
    pub fn certificate(&mut self, pattern: Pattern, choice: Option<CertificateChoice>) {
        self.some_certificates(vec![(pattern, choice)]);
    }

    /// Publishes another staple for a certified key, or none, wherever that key is served. Costs what its names
    /// cost, however many others there are.
    pub fn restaple(
        &mut self,
        patterns: &[Pattern],
        before: &Arc<CertifiedKey>,
        after: &Arc<CertifiedKey>,
    ) {
        let mut changes = Vec::new();
        {
            let next = self.in_force();
            for pattern in patterns {
                let Some(standing) = next.choices.get(pattern) else { continue };
                let mut choice = standing.clone();
                let elliptic = choice.elliptic.as_mut().map(|(_, key)| key);
                let mut is_served = false;
                for key in elliptic.into_iter().chain(choice.rsa.as_mut()) {
                    if Arc::ptr_eq(key, before) {
                        *key = after.clone();
                        is_served = true;
                    }
                }
                if is_served {
                    changes.push((pattern.clone(), Some(choice)));
                }
            }
        }
        if !changes.is_empty() {
            self.some_certificates(changes);
        }
    }

    /// Publishes new addresses of upstreams, if they are new.
    pub fn upstreams(&mut self, upstreams: Vec<Arc<Upstream>>) {
        let mut next = self.in_force();
        if *next.snapshot.upstreams != *upstreams {
            next.snapshot.upstreams = upstreams.into();
            self.publish(&next);
        }
    }

    /// Publishes new ticket keys.
    pub fn ticket_keys(&mut self, keys: TicketKeys) {
        let mut next = self.in_force();
        next.snapshot.ticket_keys = Arc::new(keys);
        self.publish(&next);
    }

    /// Publishes the answer to a challenge for a name, or that there is none any more.
    pub fn challenge(&self, name: &ServerName, answer: Option<ChallengeAnswer>) {
        let mut next = self.in_force();
        next.snapshot.challenges = Arc::new(next.snapshot.challenges.with(name, answer));
        self.publish(&next);
    }

    /// Publishes the answers to challenges that other nodes have placed, in place of those before.
    pub fn challenges_elsewhere<'a>(
        &self,
        answers: impl IntoIterator<Item = (&'a ServerName, ChallengeAnswer)>,
    ) {
        let mut next = self.in_force();
        next.snapshot.challenges = Arc::new(next.snapshot.challenges.with_elsewhere(answers));
        self.publish(&next);
    }

    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, next: &InForce) {
        // The snapshot before is released here, on the control thread, unless a worker reads it still.
        drop(self.cell.publish(next.snapshot.clone()));
    }
}

impl InForce {
    fn replace_choices(&mut self, next: HashMap<Pattern, CertificateChoice>) -> usize {
        let changes = super::precedence::changes(&self.choices, &next);
        if !changes.is_empty() {
            let changes = changes.iter().map(|(pattern, choice)| (pattern, choice.clone()));
            self.snapshot.certificates = Arc::new(self.snapshot.certificates.changed(changes));
        }
        self.choices = next;
        changes.len()
    }
}
