//! What the control thread does, event by event; each ends with a publish or with nothing changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::clock::{self, Moment};
use crate::config::Config;
use crate::config::problem::Problem;
use crate::name::Pattern;
use crate::snapshot::{Cell, CertificateChoice, TicketKeys, Upstream};

use super::certified::Certified;
use super::local_ca::renewal_due;
use super::precedence::choices;
use super::prepare::{Mode, Prepared, prepare};
use super::publisher::Publisher;
use super::reload;
use super::tickets::Rotation;
use super::upstreams::{RESOLVE_EVERY, Resolved, literal, resolve};

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
    resolved: Resolved,
    publisher: Publisher,
    rotation: Rotation,
    next_look: Instant,
    next_resolve: Instant,
    warned: Moment,
}

/// What became due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    RotateTickets,
    LookAtCertificates,
    Resolve,
}

impl Plane {
    /// Builds the first snapshot. Upstreams with names are resolved by the first [`Plane::act`].
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
        let resolved = literals(&prepared);
        let publisher = Publisher::start(
            prepared.settings.clone(),
            all_choices(&prepared, Moment::now()),
            prepared.routes.clone(),
            endpoints(&prepared, &resolved),
            TicketKeys::first(config.ticket_rotation)?,
        );
        Ok(Self {
            rotation: Rotation::new(now, config.ticket_rotation),
            config,
            ports,
            threads,
            prepared: Arc::new(prepared),
            resolved,
            publisher,
            next_look: now + LOOK_EVERY,
            next_resolve: now,
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

    /// The next thing to do and when. Pure.
    pub fn next(&self) -> (Instant, Due) {
        let mut next = (self.rotation.due(), Due::RotateTickets);
        for other in [(self.next_look, Due::LookAtCertificates), (self.next_resolve, Due::Resolve)]
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
            Due::Resolve => self.resolve().await,
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
        self.resolved = resolve(prepared.upstreams.clone(), &self.resolved).await;
        self.next_resolve = clock::steady() + RESOLVE_EVERY;
        let changed = self.publisher.configuration(
            prepared.settings.clone(),
            all_choices(&prepared, Moment::now()),
            prepared.routes.clone(),
            endpoints(&prepared, &self.resolved),
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

    async fn resolve(&mut self) {
        self.resolved = resolve(self.prepared.upstreams.clone(), &self.resolved).await;
        self.publisher.upstreams(endpoints(&self.prepared, &self.resolved));
        self.next_resolve = clock::steady() + RESOLVE_EVERY;
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
            blocking(move || prepare(&config, &ports, Some(&previous), Mode::Serve, threads, now))
                .await;
        match renewed {
            // Only the leaves are taken: certificates by hand change with a reload.
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
        let Prepared { settings, by_hand, local_names, routes, upstreams, tls_settings, .. } =
            &*self.prepared;
        Prepared {
            settings: settings.clone(),
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
    let all: Vec<_> = prepared.by_hand.iter().chain(&prepared.local).cloned().collect();
    choices(&all, now)
}

fn literals(prepared: &Prepared) -> Resolved {
    prepared
        .upstreams
        .iter()
        .filter_map(|address| Some((address.clone(), vec![literal(address)?])))
        .collect()
}

fn endpoints(prepared: &Prepared, resolved: &Resolved) -> Vec<Arc<Upstream>> {
    prepared
        .upstreams
        .iter()
        .map(|address| {
            Arc::new(Upstream {
                address: address.to_string().into(),
                endpoints: resolved.get(address).cloned().unwrap_or_default().into(),
            })
        })
        .collect()
}

fn warn_of_expiry(certified: &[Arc<Certified>], now: Moment) {
    for note in certified.iter().filter_map(|certified| certified.note_of_dates(now)) {
        warn!("{note}");
    }
}
