//! Those who connect anew at a given rate, and those whose connection stays.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::task::JoinHandle;

use crate::answers::{Answers, Nonces};
use crate::connection::{Connection, Destination};
use crate::failure::{Failure, Kind};
use crate::metrics::Metrics;
use crate::pacer::{Alarm, Pacer};
use crate::plan::Group;
use crate::run::seed;
use crate::scenario::{ask, exchange};

use super::Plan;
use super::served::Served;
use super::site::Site;

/// Clients that connect anew. With a handshake taking a millisecond or two, a thousand per second keep
/// a few of them busy; the others take what piles up when the machine is busy elsewhere.
const CLIENTS: usize = 64;
/// Connections that stay, per name: enough that two workers are likely to have some of them each.
const KEPT_PER_NAME: usize = 2;
/// How often such a connection asks. Its last request of a certificate's life comes long after the
/// renewal, and idle_timeout (10 minutes) is far away.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// For one connection with its request: what a person may wait for a page.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the first certificate of every name: several orders, each with pauses of Pebble's.
const ISSUANCE: Duration = Duration::from_secs(120);

/// What the clients share.
pub struct Shared {
    destinations: Vec<Destination>,
    next: Cell<usize>,
    pacer: Pacer,
    /// From when on nothing is due any more.
    end: Instant,
    config: Arc<ClientConfig>,
    answers: Rc<Answers>,
    nonces: Nonces,
    pub metrics: Metrics,
    kept_requests: Cell<u64>,
    kept_connections: Cell<usize>,
}

/// What the connections that stay came to.
pub struct Kept {
    /// Those that were whole to the end.
    pub connections: usize,
    pub requests: u64,
}

impl Shared {
    pub fn new(
        plan: &Plan,
        site: &Site,
        served: Served,
        names: &[&str],
        begun: Instant,
    ) -> Result<Self, String> {
        Ok(Self {
            destinations: names
                .iter()
                .map(|name| destination(site, name))
                .collect::<Result<_, _>>()?,
            next: Cell::new(0),
            pacer: Pacer::new(begun, plan.rate),
            end: begun + plan.window,
            config: served.client(),
            answers: site.scene().answers.clone(),
            nonces: Nonces::new(seed()),
            metrics: Metrics::default(),
            kept_requests: Cell::new(0),
            kept_connections: Cell::new(0),
        })
    }

    pub fn kept(&self) -> Kept {
        Kept { connections: self.kept_connections.get(), requests: self.kept_requests.get() }
    }

    /// Counts what failed, and says so at once: when it was tells which renewal it belongs to.
    fn failed(&self, who: &str, to: &Destination, failure: Failure) {
        eprintln!("{who}, {}: {failure}", to.name.to_str());
        self.metrics.failed(failure);
    }
}

fn destination(site: &Site, name: &str) -> Result<Destination, String> {
    let parsed = name.to_owned().try_into().map_err(|_| format!("{name} is no server name"))?;
    Ok(Destination { address: site.address(), name: parsed, group: Group::X25519 })
}

/// How many connections are to stay.
pub fn to_be_kept(names: usize) -> usize {
    names * KEPT_PER_NAME
}

/// Waits until every name is served: before that, handshakes are rightly refused.
pub async fn wait_for_certificates(
    site: &Site,
    served: &Served,
    names: &[&str],
) -> Result<(), String> {
    let deadline = Instant::now() + ISSUANCE;
    for name in names {
        let to = destination(site, name)?;
        while let Err(failure) = Connection::open(&to, served.client()).await {
            if Instant::now() > deadline {
                return Err(format!("no certificate for {name} after {ISSUANCE:?}: {failure}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

/// Starts those who connect anew; they end when all that was due is done.
pub fn start_anew(shared: &Rc<Shared>) -> Vec<JoinHandle<()>> {
    (0..CLIENTS).map(|_| tokio::task::spawn_local(connect_anew(shared.clone()))).collect()
}

/// Starts those who stay; they end when they are told.
pub fn start_kept(shared: &Rc<Shared>) -> Vec<JoinHandle<()>> {
    let names = shared.destinations.len();
    let number = to_be_kept(names);
    (0..number)
        .map(|number| tokio::task::spawn_local(stay(shared.clone(), number % names)))
        .collect()
}

/// Full handshake, request, response, close; again and again, to the names in turn.
async fn connect_anew(shared: Rc<Shared>) {
    let alarm = match Alarm::new() {
        Ok(alarm) => alarm,
        Err(error) => return shared.metrics.failed(Failure::new(Kind::Connect, error)),
    };
    loop {
        let due = shared.pacer.next();
        if due >= shared.end {
            return;
        }
        if let Err(error) = alarm.wait_until(due).await {
            return shared.metrics.failed(Failure::new(Kind::Timeout, error));
        }
        // Too much has failed already.
        if shared.metrics.has_ended() {
            return;
        }
        let turn = shared.next.replace(shared.next.get().wrapping_add(1));
        let to = &shared.destinations[turn % shared.destinations.len()];
        let nonce = shared.nonces.next();
        match in_time(exchange(to, shared.config.clone(), &shared.answers, nonce)).await {
            Ok(resumed) => {
                shared.metrics.done(Instant::now() - due);
                shared.metrics.shook_hands(resumed);
            }
            Err(failure) => shared.failed("a new connection", to, failure),
        }
    }
}

/// One connection that was there before all renewals and asks now and then until the end.
async fn stay(shared: Rc<Shared>, name: usize) {
    let to = &shared.destinations[name];
    let asked = async {
        let mut connection = in_time(Connection::open(to, shared.config.clone())).await?;
        while !shared.metrics.has_ended() {
            in_time(ask(&mut connection, &shared.answers, shared.nonces.next())).await?;
            shared.kept_requests.set(shared.kept_requests.get() + 1);
            tokio::select! {
                () = tokio::time::sleep(ASK_EVERY) => {}
                () = shared.metrics.until_end() => {}
            }
        }
        // Whole to the end only if it still answers, and ends as it should.
        in_time(ask(&mut connection, &shared.answers, shared.nonces.next())).await?;
        in_time(connection.finish()).await
    };
    match asked.await {
        Ok(()) => shared.kept_connections.set(shared.kept_connections.get() + 1),
        Err(failure) => shared.failed("a connection that was to stay", to, failure),
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Kind::Timeout, format!("after {PATIENCE:?}"))))
}
