//! A client and a server in memory, with our settings: what several benches measure parts of.

#![allow(dead_code, reason = "each bench uses its part")]

pub mod relayed;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate::edge::bench::{
    Ahead, Configs, Engine, Reading, Wanted, read_hello, with_certified_key,
};
use ringgate::observe::counters::Counters;
use ringgate::snapshot::{
    Cell, Certificates, EdgeSettings, KeyKind, LazyPrivateKey, NameMap, Routes, Snapshot,
    TicketKeys, TlsSettings,
};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, ServerConfig};

/// A server's configuration, and what its clients trust.
pub struct Pair {
    kind: KeyKind,
    config: Arc<ServerConfig>,
    certified_key: Arc<CertifiedKey>,
    roots: RootCertStore,
}

/// Both ends after a handshake.
pub struct Handshaken {
    pub client: ClientConnection,
    pub server: UnbufferedServerConnection,
    /// Received by the server behind the handshake.
    pub pending: Vec<u8>,
    /// Time that the server spent.
    pub spent: Duration,
}

impl Pair {
    pub fn new(kind: KeyKind) -> Self {
        let key = match kind {
            KeyKind::Rsa => rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256),
            _ => rcgen::KeyPair::generate(),
        }
        .expect("a private key");
        let params = rcgen::CertificateParams::new(vec!["app.example".into()]).expect("a name");
        let leaf = params.self_signed(&key).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(leaf.der().clone()).expect("a root");
        let der = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
        let private_key = LazyPrivateKey::new(kind, der);
        private_key.parse().expect("a private key that can be used");
        let settings = EdgeSettings {
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            default_server_name: None,
            accept_proxy: Box::default(),
        };
        let cell = Cell::new(Snapshot {
            settings: Arc::new(settings),
            certificates: Arc::new(Certificates::empty()),
            routes: Arc::new(Routes::new([], NameMap::empty())),
            upstreams: Vec::new().into(),
            ticket_keys: Arc::new(TicketKeys::first(Duration::from_secs(3600)).expect("random")),
            challenges: Arc::default(),
        });
        let tls = Arc::new(TlsSettings {
            min_version: ProtocolVersion::TLSv1_2,
            cipher_suites: None,
            groups: None,
            alpn: Vec::new(),
        });
        Self {
            kind,
            config: Configs::new(Arc::new(cell)).get(&tls, false).expect("a config"),
            certified_key: Arc::new(CertifiedKey::new(
                vec![leaf.der().clone()],
                Arc::new(private_key),
            )),
            roots,
        }
    }

    /// A client that offers one group, with tickets of its own.
    pub fn client(&self, group: &'static dyn SupportedKxGroup) -> Arc<ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups = vec![group];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(32);
        Arc::new(config)
    }

    /// One handshake.
    pub fn handshake(&self, client: &Arc<ClientConfig>) -> Handshaken {
        self.finish(hello(client), Ahead::default())
    }

    /// Handshakes whose public-key operations are computed together; the time that the server spent on all.
    pub fn together(&self, engine: &mut Engine, clients: &[Arc<ClientConfig>]) -> Duration {
        let greeted: Vec<_> = clients.iter().map(hello).collect();
        let begun = Instant::now();
        let groups = &self.config.crypto_provider().kx_groups;
        let wanted: Vec<_> = greeted
            .iter()
            .map(|(_, hello)| match read_hello(hello) {
                Reading::Hello(hello) => Wanted {
                    peer: hello.x25519_share(groups).expect("a share"),
                    signs: self.kind == KeyKind::EcdsaP256 && !hello.offers_to_resume,
                },
                _ => panic!("a whole hello"),
            })
            .collect();
        let ahead = engine.compute(&wanted, &Counters::default());
        let spent = begun.elapsed();
        let each = greeted.into_iter().zip(ahead);
        spent + each.map(|(greeted, ahead)| self.finish(greeted, ahead).spent).sum::<Duration>()
    }

    fn finish(
        &self,
        (mut client, mut pending): (ClientConnection, Vec<u8>),
        ahead: Ahead,
    ) -> Handshaken {
        let mut ahead = Some(ahead);
        let mut spent = Duration::ZERO;
        let begun = Instant::now();
        black_box(read_hello(&pending));
        let mut server = UnbufferedServerConnection::new(self.config.clone()).expect("a server");
        spent += begun.elapsed();
        loop {
            let begun = Instant::now();
            let (to_client, done) = ahead.take().unwrap_or_default().lend(|| {
                let certified_key = self.certified_key.clone();
                with_certified_key(certified_key, || advance(&mut server, &mut pending)).0
            });
            spent += begun.elapsed();
            let mut rest = to_client.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).expect("bytes");
                client.process_new_packets().expect("a valid answer");
            }
            while client.wants_write() {
                client.write_tls(&mut pending).expect("bytes");
            }
            if done {
                return Handshaken { client, server, pending, spent };
            }
        }
    }
}

/// A client that has written its ClientHello.
pub fn hello(config: &Arc<ClientConfig>) -> (ClientConnection, Vec<u8>) {
    let name = ServerName::try_from("app.example").expect("a name");
    let mut client = ClientConnection::new(config.clone(), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    (client, bytes)
}

fn advance(server: &mut UnbufferedServerConnection, input: &mut Vec<u8>) -> (Vec<u8>, bool) {
    let mut output = vec![0; 16 * 1024];
    let (mut written, mut consumed) = (0, 0);
    let done = loop {
        let UnbufferedStatus { discard, state, .. } =
            server.process_tls_records(&mut input[consumed..]);
        consumed += discard;
        match state.expect("a valid client") {
            ConnectionState::EncodeTlsData(mut message) => {
                written += message.encode(&mut output[written..]).expect("room");
            }
            ConnectionState::TransmitTlsData(transmit) => transmit.done(),
            ConnectionState::WriteTraffic(_) => break true,
            _ => break false,
        }
    };
    input.drain(..consumed);
    output.truncate(written);
    (output, done)
}
