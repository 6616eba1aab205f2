//! What the control thread does, event by event; each ends with a publish or with nothing changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::clock::{self, Moment};
use crate::config::Config;
use crate::config::problem::Problem;
use crate::name::Pattern;
use crate::observe::flood::shortened;
use crate::snapshot::{Cell, CertificateChoice, TicketKeys};

use super::certified::Certified;
use super::inventory::news;
use super::local_ca::renewal_due;
use super::looking::Looking;
use super::precedence::{choices, choices_for};
use super::prepare::{Mode, Prepared, prepare};
use super::publisher::Publisher;
use super::reload;
use super::resolver::Resolver;
use super::tickets::Rotation;
use super::upstreams::{Slots, names, resolved};

/// How often certificates are looked at: often enough for leaves of a week and for a clock that jumped.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often certificates by hand that have expired or soon will are warned of.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The control plane's state.
pub struct Plane {
    config: Config,
    ports: Vec<u16>,
    threads: usize,
    prepared: Arc<Prepared>,
    resolver: Resolver,
    slots: Slots,
    publisher: Publisher,
    rotation: Rotation,
    next_look: Instant,
    looking: Looking,
    warned: Moment,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    RotateTickets,
    LookAtCertificates,
    LookAtFiles,
    PublishFiles,
    /// A name resolved to other addresses.
    PublishUpstreams,
}

impl Plane {
    /// Builds the first snapshot. Upstreams with names are not resolved yet.
    ///
    /// # Errors
    /// If the system's random source fails.
    pub fn start(
        config: Config,
        ports: Vec<u16>,
        threads: usize,
        prepared: Prepared,
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let now = clock::steady();
        let (resolver, mut slots) = (Resolver::default(), Slots::default());
        let publisher = Publisher::start(
            prepared.settings.clone(),
            all_choices(&prepared, Moment::now()),
            prepared.routes.clone(),
            resolved(&prepared.upstreams, &resolver, &mut slots),
            TicketKeys::first(config.ticket_rotation)?,
        );
        Ok(Self {
            rotation: Rotation::new(now, config.ticket_rotation),
            config,
            ports,
            threads,
            looking: Looking::new(&prepared.inventory, now),
            prepared: Arc::new(prepared),
            resolver,
            slots,
            publisher,
            next_look: now + LOOK_EVERY,
            warned: Moment::now(),
        })
    }

    /// Where the edge reads.
    pub fn cell(&self) -> Arc<Cell> {
        self.publisher.cell()
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Waits until every upstream's name has been asked for once, as long as that is worth waiting for.
    pub async fn resolve_upstreams(&mut self) {
        self.resolver.want(names(&self.prepared.upstreams), clock::steady());
        self.resolver.settle().await;
        self.publish_upstreams();
    }

    /// Waits for the next thing to do. May be dropped and called again.
    pub async fn next(&mut self) -> Due {
        let (when, due) = self.next_by_the_clock();
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(when.into()) => due,
            () = self.resolver.changed() => Due::PublishUpstreams,
            () = self.looking.ended() => Due::PublishFiles,
        }
    }

    fn next_by_the_clock(&self) -> (Instant, Due) {
        let mut next = (self.rotation.due(), Due::RotateTickets);
        for other in
            [(self.next_look, Due::LookAtCertificates), (self.looking.due(), Due::LookAtFiles)]
        {
            if other.0 < next.0 {
                next = other;
            }
        }
        next
    }

    /// Does what is due.
    pub async fn act(&mut self, due: Due) {
        match due {
            Due::RotateTickets => self.rotate_tickets(),
            Due::LookAtCertificates => self.look_at_certificates().await,
            Due::LookAtFiles => self.looking.begin(
                &self.prepared.inventory,
                self.threads,
                Moment::now(),
                clock::steady(),
            ),
            Due::PublishFiles => self.publish_files(),
            Due::PublishUpstreams => self.publish_upstreams(),
        }
    }

    /// Puts `next` into force, all of it or nothing.
    ///
    /// # Errors
    /// The problems that kept the configuration before in force.
    pub async fn reload(&mut self, next: Config) -> Result<(), Vec<Problem>> {
        let (config, kept) = reload::merge(&self.config, next);
        for key in kept {
            warn!(key, "{key} has changed, which needs a restart; the running one is kept");
        }
        let prepared = {
            let (config, ports, threads) = (config.clone(), self.ports.clone(), self.threads);
            let previous = self.prepared.clone();
            blocking(move || {
                prepare(&config, &ports, Some(&previous), Mode::Serve, threads, Moment::now())
            })
            .await?
        };
        for warning in &prepared.warnings {
            warn!("{warning}");
        }
        // New names are resolved before routes to them are published.
        self.resolver.want(names(&prepared.upstreams), clock::steady());
        self.resolver.settle().await;
        let changed = self.publisher.configuration(
            prepared.settings.clone(),
            all_choices(&prepared, Moment::now()),
            prepared.routes.clone(),
            resolved(&prepared.upstreams, &self.resolver, &mut self.slots),
        );
        self.rotation.every(config.ticket_rotation);
        info!(
            routes = config.routes.len(),
            certificates = prepared.by_hand.len() + prepared.local.len(),
            names_changed = changed,
            "configuration reloaded"
        );
        self.prepared = Arc::new(prepared);
        self.config = config;
        self.looking.replaced();
        Ok(())
    }

    fn rotate_tickets(&mut self) {
        let now = clock::steady();
        match self.publisher.current().ticket_keys.rotated(self.rotation.period()) {
            Ok(keys) => {
                self.publisher.ticket_keys(keys);
                info!("ticket keys rotated");
            }
            Err(_) => error!("ticket keys are not rotated: the system's random source failed"),
        }
        self.rotation.rotated(now);
    }

    fn publish_upstreams(&mut self) {
        let upstreams = resolved(&self.prepared.upstreams, &self.resolver, &mut self.slots);
        self.publisher.upstreams(upstreams);
    }

    /// Publishes what has changed in the operator's files, with no reload.
    fn publish_files(&mut self) {
        let Some((inventory, changes)) = self.looking.take(&self.prepared.inventory) else {
            return;
        };
        let now = Moment::now();
        let (patterns, news) = news(&self.prepared.inventory, &inventory, &changes, now);
        // Between two events nobody else has it.
        let Some(prepared) = Arc::get_mut(&mut self.prepared) else { return };
        prepared.by_hand = inventory.certified();
        prepared.inventory = inventory;
        if !patterns.is_empty() {
            let chosen = choices_for(&patterns, &all_certified(&self.prepared), now);
            self.publisher.some_certificates(chosen);
        }
        for line in shortened(&news.good, |_| "certificates") {
            info!("certificate files changed: {line}");
        }
        for line in shortened(&news.warnings, |_| "certificates") {
            warn!("certificate files changed: {line}");
        }
    }

    /// Renews the local CA's leaves that are due, and warns of what nobody renews.
    async fn look_at_certificates(&mut self) {
        let now = Moment::now();
        self.next_look = clock::steady() + LOOK_EVERY;
        if now.since(self.warned) >= WARN_EVERY {
            self.warned = now;
            warn_of_expiry(&self.prepared.by_hand, now);
        }
        let due = |leaf: &Arc<Certified>| renewal_due(leaf.not_before, leaf.not_after, now);
        if !self.prepared.local.iter().any(due) {
            return;
        }
        let (config, ports, threads) = (self.config.clone(), self.ports.clone(), self.threads);
        let previous = self.prepared.clone();
        let renewed =
            blocking(move || prepare(&config, &ports, Some(&previous), Mode::Renew, threads, now))
                .await;
        match renewed {
            // Only the leaves are new.
            Ok(renewed) => {
                let mut next = Prepared { local: renewed.local, ..self.prepared_again() };
                next.local_ca = renewed.local_ca;
                let changed = self.publisher.certificates(all_choices(&next, now));
                info!(names = changed, "the local CA's certificates renewed");
                self.prepared = Arc::new(next);
            }
            Err(problems) => {
                for problem in problems {
                    error!("the local CA's certificates are not renewed: {problem}");
                }
            }
        }
    }

    fn prepared_again(&self) -> Prepared {
        let Prepared { settings, inventory, by_hand, local_names, routes, upstreams, .. } =
            &*self.prepared;
        let Prepared { tls_settings, .. } = &*self.prepared;
        Prepared {
            settings: settings.clone(),
            inventory: inventory.clone(),
            by_hand: by_hand.clone(),
            local_names: local_names.clone(),
            local: Vec::new(),
            local_ca: None,
            routes: routes.clone(),
            upstreams: upstreams.clone(),
            tls_settings: tls_settings.clone(),
            warnings: Vec::new(),
        }
    }
}

/// Runs work that reads disks or computes on the pool, whose threads have this thread's low priority.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn all_choices(prepared: &Prepared, now: Moment) -> HashMap<Pattern, CertificateChoice> {
    choices(&all_certified(prepared), now)
}

fn all_certified(prepared: &Prepared) -> Vec<Arc<Certified>> {
    prepared.by_hand.iter().chain(&prepared.local).cloned().collect()
}

fn warn_of_expiry(certified: &[Arc<Certified>], now: Moment) {
    let notes: Vec<_> = certified.iter().filter_map(|one| one.note_of_dates(now)).collect();
    for note in shortened(&notes, |_| "certificates") {
        warn!("{note}");
    }
}
