//! TLS towards upstreams: the rustls `ClientConfig`s of one worker, and the handshake.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionMemoryCache, Resumption, UnbufferedClientConnection, WebPkiServerVerifier,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::ring::Socket;
use crate::snapshot::UpstreamTls;

use super::handshake::{Step, advance};
use super::limits::{CLIENT_CONFIGS, LONGEST_PENDING_BYTES, UPSTREAM_SESSIONS};
use super::records::Records;
use super::transfer::{receive_into, send_all};
use super::worker::Worker;

/// The record layer of an upstream.
pub type UpstreamRecords = Records<UnbufferedClientConnection>;

/// A worker's `ClientConfig`s. Each has its own sessions to resume, so that no two workers wait for each
/// other: the lock inside rustls's store is only ever taken by one thread.
#[derive(Default)]
pub struct ClientConfigs {
    built: RefCell<Vec<Built>>,
}

struct Built {
    credentials: u64,
    alpn: Option<Vec<u8>>,
    config: Arc<ClientConfig>,
}

impl ClientConfigs {
    /// The config for these settings and the protocol that the client negotiated: the bytes are relayed
    /// as they are, so the upstream must speak the same.
    ///
    /// # Errors
    /// What rustls says of roots that verify nothing; preparing the configuration does not let that
    /// through.
    pub fn get(
        &self,
        settings: &UpstreamTls,
        alpn: Option<&[u8]>,
    ) -> Result<Arc<ClientConfig>, String> {
        let mut built = self.built.borrow_mut();
        let same = |built: &&Built| {
            built.credentials == settings.credentials && built.alpn.as_deref() == alpn
        };
        if let Some(found) = built.iter().find(same) {
            return Ok(found.config.clone());
        }
        let config = Arc::new(build(settings, alpn)?);
        if built.len() >= CLIENT_CONFIGS {
            built.clear();
        }
        let (credentials, alpn) = (settings.credentials, alpn.map(<[u8]>::to_vec));
        built.push(Built { credentials, alpn, config: config.clone() });
        Ok(config)
    }
}

/// What rustls reckons with when it is told how many sessions to keep.
const TICKETS_PER_UPSTREAM: usize = 8;

fn build(settings: &UpstreamTls, alpn: Option<&[u8]>) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match &settings.roots {
        Some(roots) => WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| error.to_string())?,
        None => Arc::new(BelievesAnyone { provider: provider.clone() }),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &settings.certified_key {
        Some(key) => builder
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(key)))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    let sessions = ClientSessionMemoryCache::new(UPSTREAM_SESSIONS * TICKETS_PER_UPSTREAM);
    config.resumption = Resumption::store(Arc::new(sessions));
    Ok(config)
}

/// For `tls_skip_verify`: any certificate will do, but who shows it must own its private key.
#[derive(Debug)]
struct BelievesAnyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for BelievesAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why an upstream's handshake came to nothing.
#[derive(Debug)]
pub enum HandshakeError {
    Io(io::Error),
    Tls(rustls::Error),
    /// It speaks another protocol than the client.
    Protocol {
        asked: String,
    },
    TooMuch,
}

impl HandshakeError {
    /// What the system said, if it was the system.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl HandshakeError {
    /// Whether the two only have no application protocol in common.
    pub fn is_about_protocols(&self) -> bool {
        match self {
            Self::Protocol { .. } => true,
            Self::Tls(error) => matches!(
                error,
                rustls::Error::NoApplicationProtocol
                    | rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
            ),
            Self::Io(_) | Self::TooMuch => false,
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "{error}"),
            Self::Protocol { asked } => {
                write!(f, "it does not speak {asked}, which the client has negotiated")
            }
            Self::TooMuch => f.write_str("its handshake is longer than any real one"),
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Shakes hands as the client of an upstream. The line's deadline ends its waits.
pub async fn shake_hands(
    worker: &Worker,
    socket: &Socket,
    config: Arc<ClientConfig>,
    settings: &UpstreamTls,
    alpn: Option<&[u8]>,
) -> Result<UpstreamRecords, HandshakeError> {
    let tls = UnbufferedClientConnection::new(config, settings.server_name.clone());
    let mut tls = Box::new(tls.map_err(HandshakeError::Tls)?);
    let (mut input, mut output) = (Vec::new(), Vec::new());
    let peer_finished = loop {
        let step = advance(&mut *tls, &mut input, &mut output);
        if !output.is_empty() {
            let sent = send_all(socket, std::mem::take(&mut output)).await;
            // Of an alert nobody waits for the outcome.
            if !matches!(step, Step::Failed(_)) {
                sent?;
            }
        }
        match step {
            Step::Blocked => {}
            Step::Done { peer_finished } => break peer_finished,
            Step::Failed(error) => return Err(HandshakeError::Tls(error)),
        }
        if input.len() > LONGEST_PENDING_BYTES {
            return Err(HandshakeError::TooMuch);
        }
        if receive_into(socket, worker, &mut input).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    // One that knows no ALPN speaks HTTP/1.1 if it speaks HTTP at all (RFC 7301 leaves that open).
    if let Some(asked) = alpn
        && asked != b"http/1.1"
        && tls.alpn_protocol().is_none()
    {
        return Err(HandshakeError::Protocol { asked: String::from_utf8_lossy(asked).into() });
    }
    Ok(Records::new(tls, input, Vec::new(), peer_finished))
}
