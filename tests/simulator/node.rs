//! One process of ringgate in the simulated world: the real control code from its start to its end.
//!
//! It starts as the product does: from the names to what the store knows of them, to the first snapshot, to
//! the keeper.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use ringgate::clock::Moment;
use ringgate::config::autocert::{
    Autocert, ChallengeKind, IssuerConfig, KeyType, TrustedCa, UntilIssued,
};
use ringgate::control::autocert::keeper::Command;
use ringgate::control::autocert::prepared::{PreparedAutocert, PreparedIssuer, stored_names};
use ringgate::control::autocert::simulated::{Answering, Exchange, Transport, Trouble};
use ringgate::control::autocert::status::Status;
use ringgate::control::issuing::Issuing;
use ringgate::control::precedence::choices;
use ringgate::control::publisher::Publisher;
use ringgate::name::{Pattern, ServerName};
use ringgate::snapshot::{Cell, CertificateChoice, EdgeSettings, KeyKinds, Routes, TicketKeys};
use ringgate::store::Store;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::ca::Ca;
use crate::life::{Deed, Fate, Life};
use crate::store::Shared;

/// A process that runs.
pub struct Node {
    pub life: Arc<Life>,
    pub cell: Arc<Cell>,
    commands: UnboundedSender<Command>,
    running: JoinHandle<()>,
}

/// Told of each publish: the node's cell.
pub type Published = Arc<dyn Fn(&Cell) + Send + Sync>;

impl Node {
    /// Starts a process. Within the runtime.
    pub fn start(
        names: &[ServerName],
        store: &Shared,
        cas: &[Arc<Ca>],
        published: Published,
    ) -> Self {
        let life = Arc::new(Life::default());
        let settings = settings(cas);
        let store: Arc<dyn Store> = Arc::new(store.seen_by(life.clone()));
        let names = stored_names(&*store, &settings, names.to_vec(), &mut Vec::new());
        let issuer = |(issuer, ca): (&IssuerConfig, &Arc<Ca>)| {
            let line = Line { ca: ca.clone(), life: life.clone() };
            let transport = Transport::simulated(Arc::new(line)).expect("a transport");
            PreparedIssuer { issuer: issuer.clone(), transport, trusted_roots: Vec::new() }
        };
        let issuers = settings.issuers.iter().zip(cas).map(issuer).collect();
        let prepared = PreparedAutocert { settings, store, issuers, names };
        let mut issuing = Issuing::new(Some(&prepared));
        let mut publisher = Publisher::start(
            Arc::new(edge_settings()),
            chosen(&issuing),
            Arc::new(Routes::default()),
            Vec::new(),
            TicketKeys::first(std::time::Duration::from_secs(43_200)).expect("ticket keys"),
        );
        issuing.assign(Some(&prepared), &publisher, true);
        let commands = issuing.commands().expect("a keeper").clone();
        let cell = publisher.cell();
        published(&cell);
        let running = tokio::spawn({
            let (cell, life) = (cell.clone(), life.clone());
            async move {
                loop {
                    issuing.changed().await;
                    if life.is_over() {
                        return;
                    }
                    publisher.certificates(chosen(&issuing));
                    published(&cell);
                }
            }
        });
        Self { life, cell, commands, running }
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
}

/// The leaf that is served for a name.
pub fn served(cell: &Cell, name: &ServerName) -> Option<Vec<u8>> {
    cell.read(|snapshot| {
        let choice = snapshot.certificates.lookup(name.as_str())?;
        let certified = choice.choose(KeyKinds::ALL)?;
        Some(certified.cert.first()?.to_vec())
    })
}

fn chosen(issuing: &Issuing) -> HashMap<Pattern, CertificateChoice> {
    let all: Vec<_> = issuing.issued().values().cloned().collect();
    choices(&all, &[], Moment::now())
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
    let timeout = std::time::Duration::from_secs(10);
    EdgeSettings {
        handshake_timeout: timeout,
        connect_timeout: timeout,
        idle_timeout: timeout,
        default_server_name: None,
        accept_proxy: Box::default(),
    }
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
        Box::pin(async move {
            let fate = life.deed(Deed::Exchange);
            if fate == (Fate::Dead { has_effect: false }) {
                std::future::pending::<()>().await;
            }
            let answer: Result<_, Trouble> = ca.exchange(request).await;
            if fate != Fate::Done || life.is_over() {
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

/// The cells of the processes that run, by node, for the CA's validations.
pub type Cells = Arc<Mutex<Vec<Option<Arc<Cell>>>>>;
