//! One process of ringgate in the simulated world: the real control code from its start to its end.
//!
//! It starts as the product does: from the names to what the store knows of them, to the first snapshot, to
//! the keeper.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use ringgate::clock::Moment;
use ringgate::config::autocert::{
    Autocert, ChallengeKind, IssuerConfig, KeyType, TrustedCa, UntilIssued,
};
use ringgate::config::stapling::Stapling as StaplingSettings;
use ringgate::control::autocert::keeper::Command;
use ringgate::control::autocert::prepared::{PreparedAutocert, PreparedIssuer, stored_names};
use ringgate::control::autocert::simulated::{Answering, Exchange, Transport, Trouble};
use ringgate::control::autocert::status::Status;
use ringgate::control::certified::Certified;
use ringgate::control::issuing::Issuing;
use ringgate::control::precedence::{choices, choices_for};
use ringgate::control::publisher::Publisher;
use ringgate::control::staples::asking::Means;
use ringgate::control::staples::issuer::TrustStore;
use ringgate::control::stapling::{Occasion, Stapling};
use ringgate::name::{Pattern, ServerName};
use ringgate::snapshot::{Cell, CertificateChoice, EdgeSettings, KeyKinds, Routes, TicketKeys};
use ringgate::store::Store;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::ca::Ca;
use crate::life::{Deed, Fate, Life};
use crate::responder::Responder;
use crate::stapled::Stapled;
use crate::store::Shared;

/// A process that runs.
pub struct Node {
    pub number: u64,
    pub life: Arc<Life>,
    pub cell: Arc<Cell>,
    commands: UnboundedSender<Command>,
    questions: UnboundedSender<oneshot::Sender<Vec<StateOfStaple>>>,
    running: JoinHandle<()>,
}

/// A name, and what `ringgate certs` says of the staple of its certificate.
pub type StateOfStaple = (String, Option<String>);

/// Told of each publish: the node's cell.
pub type Published = Arc<dyn Fn(&Cell) + Send + Sync>;

/// Whom a process talks to.
pub struct Outside<'a> {
    pub cas: &'a [Arc<Ca>],
    pub responders: &'a [Arc<Responder>],
    pub stapled: &'a Arc<Stapled>,
}

/// How often what the clock brings about is looked for, where no certificate is about to end.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);

impl Node {
    /// Starts a process, which has this number. Within the runtime.
    pub fn start(
        number: u64,
        names: &[ServerName],
        store: &Shared,
        outside: &Outside<'_>,
        published: Published,
    ) -> Self {
        let Outside { cas, responders, stapled } = outside;
        let life = Arc::new(Life::default());
        let settings = settings(cas);
        let store: Arc<dyn Store> = Arc::new(store.seen_by(life.clone()));
        let names = stored_names(&*store, &settings, names.to_vec(), &mut Vec::new());
        let issuer = |(issuer, ca): (&IssuerConfig, &Arc<Ca>)| {
            let line = Line { ca: ca.clone(), life: life.clone() };
            let transport = Transport::simulated(Arc::new(line)).expect("a transport");
            let (issuer, trusted_roots) = (issuer.clone(), Vec::new());
            let mut issuer = PreparedIssuer { issuer, transport, trusted_roots, account: None };
            issuer.read_account(&*store);
            issuer
        };
        let issuers = settings.issuers.iter().zip(*cas).map(issuer).collect();
        let (responders, stapled) = (responders.to_vec(), Arc::clone(stapled));
        let line = LineToResponders { process: number, responders, stapled, life: life.clone() };
        let means = Means {
            transport: Transport::simulated(Arc::new(line)).expect("a transport"),
            store: store.clone(),
            trust: TrustStore::default(),
        };
        let prepared = PreparedAutocert { settings, store, issuers, names };
        let mut issuing = Issuing::new(Some(&prepared));
        let mut stapling = Stapling::simulated(means);
        adopt(&mut stapling, &issuing, Occasion::Beginning { threads: 1 });
        let publisher = Publisher::start(
            Arc::new(edge_settings()),
            chosen(&issuing, &stapling),
            Arc::new(Routes::default()),
            Vec::new(),
            TicketKeys::first(Duration::from_secs(43_200)).expect("ticket keys"),
        );
        issuing.assign(Some(&prepared), &publisher, true);
        stapling.start();
        let commands = issuing.commands().expect("a keeper").clone();
        let cell = publisher.cell();
        published(&cell);
        let (questions, asked) = mpsc::unbounded_channel();
        let plane = Plane { issuing, stapling, publisher, asked };
        let running = tokio::spawn(plane.run(life.clone(), published));
        Self { number, life, cell, commands, questions, running }
    }

    /// Ends the process where it stands.
    pub fn stop(self) {
        self.life.end();
        self.running.abort();
    }

    /// What `ringgate certs` would say.
    pub async fn statuses(&self) -> Vec<Status> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Status(reply));
        answer.await.unwrap_or_default()
    }

    /// What it would say of staples.
    pub async fn states_of_staples(&self) -> Vec<StateOfStaple> {
        let (reply, answer) = oneshot::channel();
        let _ = self.questions.send(reply);
        answer.await.unwrap_or_default()
    }
}

/// What `control/plane.rs` does about certificates and staples.
struct Plane {
    issuing: Issuing,
    stapling: Stapling,
    publisher: Publisher,
    asked: UnboundedReceiver<oneshot::Sender<Vec<StateOfStaple>>>,
}

impl Plane {
    async fn run(mut self, life: Arc<Life>, published: Published) {
        let cell = self.publisher.cell();
        loop {
            let look = self.pause();
            tokio::select! {
                biased;
                () = self.issuing.changed() => {
                    if life.is_over() {
                        return;
                    }
                    self.publish_issued();
                }
                () = self.stapling.changed() => {
                    if life.is_over() {
                        return;
                    }
                    self.publish_staple();
                }
                Some(reply) = self.asked.recv() => {
                    let _ = reply.send(self.states_of_staples());
                    continue;
                }
                () = tokio::time::sleep(look) => {
                    self.stapling.prune(Moment::now());
                    self.publish_certificates();
                }
            }
            published(&cell);
        }
    }

    /// The product looks each minute. Until something ends that serves on for another, it would find nothing.
    fn pause(&self) -> Duration {
        let now = Moment::now();
        let ends = self.stapling.outgoing().iter().map(|one| one.not_after).min();
        let ends = ends.map(|ends| ends.since(now) + Duration::from_secs(1));
        ends.map_or(LOOK_EVERY, |ends| ends.min(LOOK_EVERY))
    }

    fn publish_certificates(&mut self) {
        self.stapling.prune(Moment::now());
        drop(self.stapling.freed());
        self.publisher.certificates(chosen(&self.issuing, &self.stapling));
    }

    fn publish_issued(&mut self) {
        if let Some((before, after)) = self.issuing.take() {
            self.stapling.succeed(before.as_slice(), &[after], Moment::now());
        }
        adopt(&mut self.stapling, &self.issuing, Occasion::Change);
        self.stapling.start();
        self.publish_certificates();
    }

    fn publish_staple(&mut self) {
        let now = Moment::now();
        let changes = self.stapling.take(now);
        for (before, after) in changes.restapled {
            self.publisher.restaple(&after.patterns, &before.key, &after.key);
        }
        let mut patterns = changes.patterns;
        patterns.extend(self.stapling.freed());
        if !patterns.is_empty() {
            let stapling = &self.stapling;
            let dressed = |one: &Arc<Certified>| stapling.dress(one);
            let all = all(&self.issuing);
            let chosen = choices_for(&patterns, &all, stapling.outgoing(), dressed, now);
            self.publisher.some_certificates(chosen);
        }
        self.issuing.are_revoked(&changes.revoked);
    }

    fn states_of_staples(&self) -> Vec<StateOfStaple> {
        let states = self.stapling.states();
        let issued = self.issuing.issued().iter();
        issued
            .map(|(name, one)| (name.as_str().to_owned(), states.get(&one.identity()).cloned()))
            .collect()
    }
}

/// The leaf that is served for a name, and what is stapled to it.
pub fn served(cell: &Cell, name: &ServerName) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    cell.read(|snapshot| {
        let choice = snapshot.certificates.lookup(name.as_str())?;
        let (_, certified) = choice.choose(KeyKinds::ALL)?;
        Some((certified.cert.first()?.to_vec(), certified.ocsp.clone()))
    })
}

fn all(issuing: &Issuing) -> Vec<Arc<Certified>> {
    issuing.issued().values().cloned().collect()
}

fn adopt(stapling: &mut Stapling, issuing: &Issuing, occasion: Occasion) {
    let settings = StaplingSettings {
        dir: "/simulated".into(),
        http_proxy: None,
        https_proxy: None,
        notes: Vec::new(),
    };
    stapling.adopt(Some(&settings), b"", &all(issuing), occasion, Moment::now());
}

fn chosen(issuing: &Issuing, stapling: &Stapling) -> HashMap<Pattern, CertificateChoice> {
    let outgoing = stapling.dress_all(stapling.outgoing().to_vec());
    choices(&stapling.dress_all(all(issuing)), &outgoing, Moment::now())
}

fn settings(cas: &[Arc<Ca>]) -> Autocert {
    let issuer = |ca: &Arc<Ca>| IssuerConfig {
        directory: ca.directory_url(),
        email: None,
        external_account: None,
        trusted_ca: TrustedCa::None,
        profile: None,
        test_directory: None,
    };
    Autocert {
        issuers: cas.iter().map(issuer).collect(),
        must_staple: false,
        dir: "/simulated".into(),
        hosts: Vec::new(),
        key_type: KeyType::P256,
        challenges: vec![ChallengeKind::TlsAlpn01, ChallengeKind::Http01],
        until_issued: UntilIssued::Reject,
        hook: None,
        proxy: None,
        on_kubernetes: false,
    }
}

fn edge_settings() -> EdgeSettings {
    let timeout = Duration::from_secs(10);
    EdgeSettings {
        handshake_timeout: timeout,
        connect_timeout: timeout,
        idle_timeout: timeout,
        default_server_name: None,
        accept_proxy: Box::default(),
    }
}

/// One exchange of a process, which may die over it: then there is no answer.
async fn exchanged(
    life: Arc<Life>,
    answering: impl Future<Output = Result<Response<Bytes>, Trouble>>,
) -> Result<Response<Bytes>, Trouble> {
    let fate = life.deed(Deed::Exchange);
    if fate == (Fate::Dead { has_effect: false }) {
        std::future::pending::<()>().await;
    }
    let answer = answering.await;
    if fate != Fate::Done || life.is_over() {
        std::future::pending::<()>().await;
    }
    answer
}

/// The way from one process to the CA.
struct Line {
    ca: Arc<Ca>,
    life: Arc<Life>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulated CA")
    }
}

impl Exchange for Line {
    fn exchange(&self, request: Request<Bytes>) -> Answering {
        let (ca, life) = (self.ca.clone(), self.life.clone());
        Box::pin(exchanged(life, ca.exchange(request)))
    }
}

/// The way from one process to all responders.
struct LineToResponders {
    process: u64,
    responders: Vec<Arc<Responder>>,
    stapled: Arc<Stapled>,
    life: Arc<Life>,
}

impl std::fmt::Debug for LineToResponders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulated responders")
    }
}

impl Exchange for LineToResponders {
    fn exchange(&self, request: Request<Bytes>) -> Answering {
        // By the names that `signing.rs` puts into certificates.
        let host = request.uri().host().unwrap_or_default();
        let number = host.strip_prefix("ocsp").and_then(|rest| rest.strip_suffix(".sim"));
        let at = number.and_then(|number| number.parse::<usize>().ok()?.checked_sub(1));
        let responder = at.and_then(|at| self.responders.get(at)).cloned();
        let (process, stapled, life) = (self.process, self.stapled.clone(), self.life.clone());
        Box::pin(async move {
            let Some(responder) = responder else { return Err(Trouble::new("no such responder")) };
            let answer = exchanged(life, responder.exchange(process, request)).await;
            if let Ok(answer) = &answer {
                stapled.answered(process, answer.body());
            }
            answer
        })
    }
}

/// The cells of the processes that run, by node, for the CA's validations.
pub type Cells = Arc<Mutex<Vec<Option<Arc<Cell>>>>>;
