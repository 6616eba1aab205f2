//! How clients trust: one suite, one group, one certificate, and tickets of their own.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use crate::plan::Group;

/// The one cipher suite that clients offer: what every system's best configuration prefers.
pub const CIPHER_SUITE: CipherSuite = CipherSuite::TLS13_AES_128_GCM_SHA256;

/// Makes client configurations that trust one root and one leaf.
pub struct Trust {
    provider: Arc<CryptoProvider>,
    verifier: Arc<OneLeaf>,
}

impl Trust {
    /// Trusts `leaf` alone, once it verifies against `root`.
    pub fn new(
        root: CertificateDer<'static>,
        leaf: CertificateDer<'static>,
        group: Group,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add(root).map_err(|error| format!("the root is no root: {error}"))?;
        let provider = provider(group);
        let webpki = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(|error| error.to_string())?;
        let verifier = Arc::new(OneLeaf { webpki, leaf, verified: OnceLock::new() });
        Ok(Self { provider, verifier })
    }

    /// The configuration of one client. Each has its own: a shared one would hand the ticket of one
    /// simulated client to another, and with many at once most would find none.
    pub fn client(&self, resumes: bool) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the suite is one of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_no_client_auth();
        config.resumption =
            if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
        Arc::new(config)
    }
}

/// The provider with that one suite, and one group.
pub fn provider(group: Group) -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![match group {
        Group::X25519 => kx_group::X25519,
        Group::X25519Mlkem768 => kx_group::X25519MLKEM768,
    }];
    Arc::new(provider)
}

/// Verifies a chain in full the first time it is shown, and the same bytes after that by comparing them:
/// the check of the CA's signature would double what the load generator spends on a handshake. The
/// handshake's own signature is verified every time.
#[derive(Debug)]
struct OneLeaf {
    webpki: Arc<WebPkiServerVerifier>,
    leaf: CertificateDer<'static>,
    verified: OnceLock<ServerName<'static>>,
}

impl ServerCertVerifier for OneLeaf {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let expected = *leaf == self.leaf;
        if expected && self.verified.get().is_some_and(|verified| verified == name) {
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.webpki.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        if !expected {
            // Another certificate costs another signature: figures would not compare.
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let _ = self.verified.set(name.to_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
