//! The rustls `ServerConfig`s of one worker, one per distinct settings, and why they are as they are.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use rustls::crypto::aws_lc_rs::{cipher_suite as suites, kx_group as aws_lc};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, SupportedKxGroup};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ProtocolVersion, ServerConfig, SupportedCipherSuite, Tls13CipherSuite};

use crate::crypto::hkdf;
use crate::crypto::lend::{Slot, lend};
use crate::snapshot::{Cell, TlsSettings};

use super::exchange;
use super::limits::CONFIGS;
use super::ticketer::Ticketer;

/// Cipher suites in our order. AES-128-GCM-SHA256 first: most clients offer AES-256-GCM-SHA384 first, and
/// SHA-384 alone is a quarter of the server's CPU per handshake where the processor has no SHA-512
/// instructions (DESIGN measurements).
fn cipher_suites() -> [SupportedCipherSuite; 9] {
    [
        SupportedCipherSuite::Tls13(&TLS13_AES_128_GCM_SHA256),
        suites::TLS13_AES_256_GCM_SHA384,
        SupportedCipherSuite::Tls13(&TLS13_CHACHA20_POLY1305_SHA256),
        suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ]
}

static TLS13_AES_128_GCM_SHA256: LazyLock<Tls13CipherSuite> =
    LazyLock::new(|| with_our_hkdf(suites::TLS13_AES_128_GCM_SHA256));
static TLS13_CHACHA20_POLY1305_SHA256: LazyLock<Tls13CipherSuite> =
    LazyLock::new(|| with_our_hkdf(suites::TLS13_CHACHA20_POLY1305_SHA256));

#[expect(clippy::expect_used, reason = "called with suites of TLS 1.3")]
fn with_our_hkdf(suite: SupportedCipherSuite) -> Tls13CipherSuite {
    let Tls13CipherSuite { common, hkdf_provider, aead_alg, .. } =
        suite.tls13().expect("a suite of TLS 1.3");
    Tls13CipherSuite {
        common: CipherSuiteCommon { ..*common },
        hkdf_provider: if hkdf::is_fast() { hkdf::HKDF_SHA256 } else { *hkdf_provider },
        aead_alg: *aead_alg,
        quic: None,
    }
}

/// The protocol of an issuer's validation (RFC 8737 §6.2).
pub const ACME_TLS_1: &[u8] = b"acme-tls/1";

/// Key exchange groups in our order: post-quantum where the client has it, else the cheapest.
const GROUPS: [&dyn SupportedKxGroup; 4] =
    [exchange::X25519MLKEM768, exchange::X25519, aws_lc::SECP256R1, aws_lc::SECP384R1];

/// A worker's `ServerConfig`s. They belong to the worker so that no two cores count references to the
/// same one.
pub struct Configs {
    cell: Arc<Cell>,
    built: RefCell<Vec<Built>>,
    validation: RefCell<Option<Arc<ServerConfig>>>,
}

struct Built {
    settings: Arc<TlsSettings>,
    /// The second puts ChaCha20 first.
    configs: [Arc<ServerConfig>; 2],
}

impl Configs {
    /// `cell` is where the ticket keys are found.
    pub fn new(cell: Arc<Cell>) -> Self {
        Self { cell, built: RefCell::default(), validation: RefCell::default() }
    }

    /// The config for these settings. Built when a worker first meets them; routes with equal settings
    /// share one `Arc`, so finding it again compares pointers.
    ///
    /// # Errors
    /// If the settings leave nothing to negotiate; the configuration check does not let that through.
    pub fn get(
        &self,
        settings: &Arc<TlsSettings>,
        chacha20_first: bool,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let [ours, chacha20] = {
            let mut built = self.built.borrow_mut();
            match built.iter().find(|built| Arc::ptr_eq(&built.settings, settings)) {
                Some(found) => found.configs.clone(),
                None => {
                    let configs =
                        [build(settings, false, &self.cell)?, build(settings, true, &self.cell)?];
                    if built.len() >= CONFIGS {
                        built.clear();
                    }
                    built.push(Built { settings: settings.clone(), configs: configs.clone() });
                    configs
                }
            }
        };
        Ok(if chacha20_first { chacha20 } else { ours })
    }

    /// The config for an issuer's validations: its one protocol, and nothing that could be resumed.
    ///
    /// # Errors
    /// Never with the versions that are built in.
    pub fn validation(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        if let Some(built) = self.validation.borrow().as_ref() {
            return Ok(built.clone());
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(rustls::ALL_VERSIONS)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Chosen));
        config.alpn_protocols = vec![ACME_TLS_1.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.cert_compressors = Vec::new();
        let config = Arc::new(config);
        *self.validation.borrow_mut() = Some(config.clone());
        Ok(config)
    }
}

fn build(
    settings: &TlsSettings,
    chacha20_first: bool,
    cell: &Arc<Cell>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = match &settings.cipher_suites {
        Some(names) => names.iter().filter_map(|name| suite(*name)).collect(),
        None => cipher_suites().to_vec(),
    };
    // Who wrote an order down gets that order.
    if chacha20_first && settings.cipher_suites.is_none() {
        provider.cipher_suites.sort_by_key(|suite| !is_chacha20(suite.suite()));
    }
    provider.kx_groups = match &settings.groups {
        Some(names) => names
            .iter()
            .filter_map(|name| GROUPS.into_iter().find(|group| group.name() == *name))
            .collect(),
        None => GROUPS.to_vec(),
    };
    let versions: &[_] = if settings.min_version == ProtocolVersion::TLSv1_3 {
        &[&rustls::version::TLS13]
    } else {
        rustls::ALL_VERSIONS
    };
    let versions: Vec<_> =
        versions.iter().copied().filter(|version| offers(&provider, version.version)).collect();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Chosen));
    config.alpn_protocols = settings.alpn.clone();
    config.ignore_client_order = true;
    config.ticketer = Arc::new(Ticketer::new(cell.clone()));
    // The default is a mutexed map of 256 entries; tickets carry all of it instead.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One ticket, not two: 3 µs per handshake (DESIGN measurements), and clients use one.
    config.send_tls13_tickets = 1;
    // Early data can be replayed by anyone who saw it (RFC 8446 §8); never.
    config.max_early_data_size = 0;
    config.cert_compressors = Vec::new();
    Ok(Arc::new(config))
}

fn suite(name: CipherSuite) -> Option<SupportedCipherSuite> {
    cipher_suites().into_iter().find(|suite| suite.suite() == name)
}

fn offers(provider: &CryptoProvider, version: ProtocolVersion) -> bool {
    provider.cipher_suites.iter().any(|suite| suite.version().version == version)
}

fn is_chacha20(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

thread_local! {
    static CHOSEN: Slot<Arc<CertifiedKey>> = const { RefCell::new(None) };
}

/// Runs `work`, in which rustls will ask for a certificate, with this certified key as the answer. A
/// config is shared by all connections of a worker and rustls asks without saying for which; but it asks
/// during a call, and a worker is one thread.
///
/// The certified key is moved in and back out: all workers share it, and counting it costs a contended
/// cache line each time.
pub fn with_certified_key<T>(
    certified_key: Arc<CertifiedKey>,
    work: impl FnOnce() -> T,
) -> (T, Option<Arc<CertifiedKey>>) {
    lend(&CHOSEN, Some(certified_key), work)
}

#[derive(Debug)]
struct Chosen;

impl ResolvesServerCert for Chosen {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        CHOSEN.with_borrow(Clone::clone)
    }
}
