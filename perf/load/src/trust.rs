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
use crate::signatures::Signatures;

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
        let verifier = Arc::new(OneLeaf {
            webpki,
            leaf,
            verified: OnceLock::new(),
            signatures: Signatures::default(),
        });
        Ok(Self { provider, verifier })
    }

    /// Verifies the signatures of all handshakes since the last time; gives what is wrong with those that are.
    pub fn verify_signatures(&self) -> Vec<Error> {
        let OneLeaf { webpki, leaf, signatures, .. } = &*self.verifier;
        signatures.verify(|message, signed| webpki.verify_tls13_signature(message, leaf, signed))
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
/// handshake's own signature is verified every time, but later.
#[derive(Debug)]
struct OneLeaf {
    webpki: Arc<WebPkiServerVerifier>,
    leaf: CertificateDer<'static>,
    verified: OnceLock<ServerName<'static>>,
    signatures: Signatures,
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
        if *cert == self.leaf && self.signatures.keep(message, signed) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        self.webpki.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{CertifiedIssuer, KeyPair, PublicKeyData as _};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ClientConnection, ServerConfig, ServerConnection};

    use super::*;

    /// A server that shows the certificate of one key and signs with another, or with the same; and its clients.
    pub(crate) fn server(name: &str, right_key: bool) -> (Arc<ServerConfig>, Trust) {
        let key = || KeyPair::generate().unwrap();
        let params = |name: &str| rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let mut root = params("root.example");
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(root, key()).unwrap();
        let (leaf_key, other_key) = (key(), key());
        assert_ne!(leaf_key.der_bytes(), other_key.der_bytes());
        let leaf = params(name).signed_by(&leaf_key, &root).unwrap().der().clone();
        let signing_key = if right_key { &leaf_key } else { &other_key };
        let signing_key =
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let provider = provider(Group::X25519);
        let signing_key = provider.key_provider.load_private_key(signing_key).unwrap();
        let certified = rustls::sign::CertifiedKey::new(vec![leaf.clone()], signing_key);
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        (Arc::new(server), Trust::new(root.der().clone(), leaf, Group::X25519).unwrap())
    }

    /// Shakes hands in memory.
    fn wrong_signatures(right_key: bool) -> usize {
        let (server, trust) = server("app.example", right_key);
        let name = "app.example".try_into().unwrap();
        let mut client = ClientConnection::new(trust.client(false), name).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets().unwrap();
        }
        let wrong = trust.verify_signatures().len();
        assert_eq!(trust.verify_signatures().len(), 0, "they have been seen");
        wrong
    }

    #[test]
    fn a_signature_that_the_certificate_does_not_verify_is_found_in_the_end() {
        assert_eq!((wrong_signatures(true), wrong_signatures(false)), (0, 1));
    }
}
