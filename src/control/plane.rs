//! What the control thread does, event by event; each ends with a publish or with nothing changed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::clock::{self, Moment};
use crate::config::Config;
use crate::config::problem::Problem;
use crate::name::Pattern;
use crate::observe::flood::shortened;
use crate::snapshot::{Cell, CertificateChoice, TicketKeys};

use super::admin::Admin;
use super::answers::answer;
use super::certified::Certified;
use super::inventory::news;
use super::issuing::{Issuing, NamesChange};
use super::local_ca::renewal_due;
use super::looking::Looking;
use super::precedence::{Covering, choices, choices_for};
use super::prepare::{Mode, Prepared, prepare};
use super::publisher::Publisher;
use super::reload;
use super::resolver::Resolver;
use super::stapling::{Occasion, Stapling};
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
    issuing: Issuing,
    stapling: Stapling,
    admin: Option<Admin>,
    /// That the socket is not to be had was said.
    lacks_admin: bool,
    rotation: Rotation,
    next_look: Instant,
    looking: Looking,
    looked: Moment,
    warned: Moment,
    /// What was said of renewals the last time.
    said: Vec<String>,
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
    /// A certificate was obtained.
    PublishCertificates,
    /// Something is known of a staple.
    PublishStaple,
    /// Somebody asks at the admin socket.
    Answer,
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
        let issuing = Issuing::new(prepared.autocert.as_deref());
        let mut stapling = Stapling::default();
        let occasion = Occasion::Beginning { threads };
        adopt(&mut stapling, &config, &prepared, &issuing, occasion, Moment::now());
        let publisher = Publisher::start(
            prepared.settings.clone(),
            all_choices(&prepared, &issuing, &stapling, Moment::now()),
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
            issuing,
            stapling,
            admin: None,
            lacks_admin: false,
            next_look: now + LOOK_EVERY,
            looked: Moment::now(),
            warned: Moment::now(),
            said: Vec::new(),
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
            () = self.issuing.changed() => Due::PublishCertificates,
            () = self.stapling.changed() => Due::PublishStaple,
            () = asked(&mut self.admin) => Due::Answer,
        }
    }

    /// Opens the admin socket, unless there is one already. Without it everything but `ringgate certs` works.
    /// Within the runtime.
    pub fn open_admin(&mut self) {
        if self.admin.as_ref().is_some_and(|admin| !admin.is_gone()) {
            return;
        }
        match Admin::open(&self.config.data_dir) {
            Ok(admin) => {
                self.admin = Some(admin);
                self.lacks_admin = false;
            }
            // Tried again at each look: the other one may be draining.
            Err(error) => {
                if !std::mem::replace(&mut self.lacks_admin, true) {
                    warn!(%error, "no admin socket; 'ringgate certs' cannot ask this process");
                }
            }
        }
    }

    /// Answers nobody any more: whoever takes over opens a socket of its own.
    pub fn close_admin(&mut self) {
        self.admin = None;
    }

    fn answer(&mut self) {
        if let Some(asked) = self.admin.as_mut().and_then(Admin::take) {
            let mut all = all_certified(&self.prepared, &self.issuing);
            all.extend_from_slice(self.stapling.outgoing());
            let all = self.stapling.dress_all(all);
            answer(asked, self.issuing.commands().cloned(), all, self.stapling.states());
        }
    }

    /// Begins to obtain certificates, if that is configured. Within the runtime.
    pub fn start_issuing(&mut self) {
        let has_plain_listener = self.config.http_redirect_addr.is_some();
        let autocert = self.prepared.autocert.as_deref();
        self.issuing.assign(autocert, &self.publisher, has_plain_listener);
        self.stapling.start();
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
            Due::PublishCertificates => self.publish_issued(),
            Due::PublishStaple => self.publish_staple(),
            Due::Answer => self.answer(),
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
        let now = Moment::now();
        let before = all_certified(&self.prepared, &self.issuing);
        self.issuing.adopt(prepared.autocert.as_deref());
        let after = all_certified(&prepared, &self.issuing);
        let occasion = Occasion::Beginning { threads: self.threads };
        self.stapling.succeed(&before, &after, now);
        adopt(&mut self.stapling, &config, &prepared, &self.issuing, occasion, now);
        let changed = self.publisher.configuration(
            prepared.settings.clone(),
            all_choices(&prepared, &self.issuing, &self.stapling, now),
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
        self.start_issuing();
        self.open_admin();
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

    fn publish_certificates(&mut self, now: Moment) -> usize {
        self.stapling.prune(now);
        drop(self.stapling.freed());
        let chosen = all_choices(&self.prepared, &self.issuing, &self.stapling, now);
        self.publisher.certificates(chosen)
    }

    /// Chooses anew what serves these names and those that something serves no more.
    fn publish_patterns(&mut self, mut patterns: HashSet<Pattern>, now: Moment) {
        patterns.extend(self.stapling.freed());
        if !patterns.is_empty() {
            let all = all_certified(&self.prepared, &self.issuing);
            let stapling = &self.stapling;
            let dressed = |one: &Arc<Certified>| stapling.dress(one);
            let chosen = choices_for(&patterns, &all, stapling.outgoing(), dressed, now);
            self.publisher.some_certificates(chosen);
        }
    }

    /// Tells the stapling what certificates there are.
    fn adopt(&mut self, now: Moment) {
        let Self { stapling, config, prepared, issuing, .. } = self;
        adopt(stapling, config, prepared, issuing, Occasion::Change, now);
        self.stapling.start();
    }

    fn publish_issued(&mut self) {
        let now = Moment::now();
        if let Some((before, after)) = self.issuing.take() {
            self.stapling.succeed(before.as_slice(), &[after], now);
        }
        self.adopt(now);
        self.publish_certificates(now);
    }

    fn publish_staple(&mut self) {
        let now = Moment::now();
        let changes = self.stapling.take(now);
        for (before, after) in changes.restapled {
            self.publisher.restaple(&after.patterns, &before.key, &after.key);
        }
        self.publish_patterns(changes.patterns, now);
        self.issuing.are_revoked(&changes.revoked);
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
        let by_hand = inventory.certified(|one| self.stapling.serves_well(one, now));
        let (patterns, news) = news(&self.prepared.inventory, &inventory, &changes, &by_hand, now);
        // Between two events nobody else has it.
        let Some(prepared) = Arc::get_mut(&mut self.prepared) else { return };
        prepared.inventory = inventory;
        self.publish_by_hand(by_hand, patterns, now);
        if self.prepared.inventory.has_gone() {
            // What is new has been judged only now: it may not serve as well as what is gone.
            self.next_look = clock::steady();
        }
        for line in shortened(&news.good, |_| "certificates") {
            info!("certificate files changed: {line}");
        }
        for line in shortened(&news.warnings, |_| "certificates") {
            warn!("certificate files changed: {line}");
        }
    }

    /// Serves these by hand from now on, and chooses anew for `patterns` and what comes or goes with them.
    fn publish_by_hand(
        &mut self,
        by_hand: Vec<Arc<Certified>>,
        mut patterns: HashSet<Pattern>,
        now: Moment,
    ) {
        let Some(prepared) = Arc::get_mut(&mut self.prepared) else { return };
        let before = std::mem::replace(&mut prepared.by_hand, by_hand);
        patterns.extend(not_among(&before, &prepared.by_hand));
        patterns.extend(not_among(&prepared.by_hand, &before));
        self.stapling.succeed(&before, &self.prepared.by_hand, now);
        self.adopt(now);
        if !self.issuing.issued().is_empty() {
            // A wildcard among them may win over names that are issued.
            self.publish_certificates(now);
        } else {
            self.publish_patterns(patterns, now);
        }
    }

    /// Renews the local CA's leaves that are due, and warns of what nobody renews.
    async fn look_at_certificates(&mut self) {
        let now = Moment::now();
        self.next_look = clock::steady() + LOOK_EVERY;
        if self.admin.is_none() {
            self.open_admin();
        }
        // Also if it was warned of at a time that is yet to come.
        if now.since(self.warned) >= WARN_EVERY || now < self.warned {
            self.warned = now;
            warn_of_expiry(&self.prepared.by_hand, now);
        }
        let looked = std::mem::replace(&mut self.looked, now);
        if self.prepared.inventory.has_gone() {
            // What has taken the place of what was removed may serve no longer, or well at last.
            let serves_well = |one: &Arc<Certified>| self.stapling.serves_well(one, now);
            let by_hand = self.prepared.inventory.certified(serves_well);
            let before = &self.prepared.by_hand;
            let same = |(one, other): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(one, other);
            if by_hand.len() != before.len() || !by_hand.iter().zip(before).all(same) {
                self.publish_by_hand(by_hand, HashSet::new(), now);
            }
        }
        // What serves on for another may have ended meanwhile.
        self.stapling.prune(now);
        self.publish_patterns(HashSet::new(), now);
        if !self.issuing.issued().is_empty() || self.dates_were_passed(looked, now) {
            // One has ended or begun, and another takes its place.
            self.publish_certificates(now);
        }
        self.look_when_a_date_passes(now);
        let due = |leaf: &Arc<Certified>| renewal_due(leaf.not_before, leaf.not_after, now);
        let change = self.issuing.change_due(&self.config, &self.prepared.by_hand, now);
        let are_due = self.prepared.local.iter().any(due);
        if !are_due && change.is_none() {
            return;
        }
        let (config, ports, threads) = (self.config.clone(), self.ports.clone(), self.threads);
        let previous = self.prepared.clone();
        let renewed =
            blocking(move || prepare(&config, &ports, Some(&previous), Mode::Renew, threads, now))
                .await;
        match renewed {
            Ok(renewed) => {
                self.say_once(&renewed.warnings, |line| warn!("{line}"));
                // Between two events nobody else has it.
                let Some(prepared) = Arc::get_mut(&mut self.prepared) else { return };
                // It stays what it was where the change cannot be prepared, and a warning has said why.
                let which = |prepared: &Prepared| prepared.autocert.as_ref().map(Arc::as_ptr);
                let change = change.filter(|_| which(&renewed) != which(prepared));
                if change.is_some() || are_due {
                    prepared.local = renewed.local;
                    prepared.local_ca = renewed.local_ca;
                }
                match change {
                    Some(NamesChange::TakeOver) => {
                        info!("certificates by hand end soon: autocert takes their names over");
                    }
                    Some(NamesChange::LetGo) => {
                        info!(
                            "certificates by hand cover names that autocert kept: it lets go of them"
                        );
                    }
                    None => {}
                }
                if change.is_some() {
                    prepared.autocert = renewed.autocert;
                    self.issuing.adopt(self.prepared.autocert.as_deref());
                    self.start_issuing();
                    self.adopt(now);
                }
                let changed = self.publish_certificates(now);
                if are_due {
                    info!(names = changed, "the local CA's certificates renewed");
                }
            }
            Err(problems) => {
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                self.say_once(&lines, |line| {
                    error!("certificates by hand near their end and the local CA's are not renewed: {line}");
                });
            }
        }
    }

    /// Says the lines that were not said the last time: it looks every minute.
    fn say_once(&mut self, lines: &[String], say: impl Fn(&str)) {
        for line in lines.iter().filter(|line| !self.said.contains(line)) {
            say(line);
        }
        self.said = lines.to_vec();
    }

    /// Looks again as soon as a certificate by hand ends or begins: another may be there to take its place.
    fn look_when_a_date_passes(&mut self, now: Moment) {
        let dates = self.prepared.by_hand.iter().flat_map(|one| [one.not_before, one.not_after]);
        if let Some(next) = dates.filter(|date| *date >= now).min() {
            // One is in force through its last second (RFC 5280 §4.1.2.5).
            let passed = next.since(now) + Duration::from_secs(1);
            self.next_look = self.next_look.min(clock::steady() + passed);
        }
    }

    /// Whether a certificate by hand has ended or begun between two looks; also when the clock was set back.
    fn dates_were_passed(&self, looked: Moment, now: Moment) -> bool {
        let passed = |date: Moment| (looked < date) != (now < date);
        let over = |date: Moment| (looked <= date) != (now <= date);
        self.prepared.by_hand.iter().any(|one| passed(one.not_before) || over(one.not_after))
    }
}

/// The patterns of those of `one` that are not in `other`.
fn not_among(one: &[Arc<Certified>], other: &[Arc<Certified>]) -> Vec<Pattern> {
    let others: HashSet<_> = other.iter().map(Arc::as_ptr).collect();
    let only = one.iter().filter(|one| !others.contains(&Arc::as_ptr(one)));
    only.flat_map(|one| one.patterns.iter().cloned()).collect()
}

/// Runs work that reads disks or computes on the pool, whose threads have this thread's low priority.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

async fn asked(admin: &mut Option<Admin>) {
    match admin {
        Some(admin) => admin.asked().await,
        None => std::future::pending().await,
    }
}

fn all_choices(
    prepared: &Prepared,
    issuing: &Issuing,
    stapling: &Stapling,
    now: Moment,
) -> HashMap<Pattern, CertificateChoice> {
    let by_hand = stapling.dress_all(prepared.by_hand.clone());
    let covering = Covering::of_fit(&by_hand, now);
    // An exact name is found before a wildcard, and one by hand wins, exact or wildcard.
    let issued = issuing.issued().iter();
    let issued = issued.filter(|(name, _)| !covering.covers(&Pattern::Exact((*name).clone())));
    let issued = issued.map(|(_, certified)| certified.clone());
    let issued = stapling.dress_all(issued.collect());
    let all: Vec<_> = by_hand.iter().chain(&issued).chain(&prepared.local).cloned().collect();
    choices(&all, &stapling.dress_all(stapling.outgoing().to_vec()), now)
}

/// Tells the stapling of every certificate that it may be about.
fn adopt(
    stapling: &mut Stapling,
    config: &Config,
    prepared: &Prepared,
    issuing: &Issuing,
    occasion: Occasion,
    now: Moment,
) {
    let issued = issuing.issued().values();
    let all: Vec<_> = prepared.by_hand.iter().chain(issued).cloned().collect();
    // What is trusted when talking to a CA is trusted as an issuer too.
    let issuers = prepared.autocert.iter().flat_map(|autocert| &autocert.issuers);
    let pems: Vec<&[u8]> = issuers.map(|issuer| issuer.trusted_roots.as_slice()).collect();
    let roots = pems.join(&b'\n');
    stapling.adopt(config.stapling.as_ref(), &roots, &all, occasion, now);
}

/// Every certificate that there is, in the order of precedence.
fn all_certified(prepared: &Prepared, issuing: &Issuing) -> Vec<Arc<Certified>> {
    let issued = issuing.issued().values();
    prepared.by_hand.iter().chain(issued).chain(&prepared.local).cloned().collect()
}

fn warn_of_expiry(certified: &[Arc<Certified>], now: Moment) {
    let notes: Vec<_> = certified.iter().filter_map(|one| one.note_of_dates(now)).collect();
    for note in shortened(&notes, |_| "certificates") {
        warn!("{note}");
    }
}
