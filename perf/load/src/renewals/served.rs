//! Every certificate that clients are shown: verified in full each time, its dates too, and remembered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::plan::Group;
use crate::trust::provider;

/// What has been served so far, and the verifier that sees it.
#[derive(Clone, Debug)]
pub struct Served(Arc<Witness>);

#[derive(Debug)]
struct Witness {
    webpki: Arc<WebPkiServerVerifier>,
    /// By its bytes.
    seen: Mutex<HashMap<Vec<u8>, Sighting>>,
}

/// One certificate.
#[derive(Clone, Debug)]
struct Sighting {
    name: String,
    serial: Vec<u8>,
    not_after: i64,
    handshakes: u64,
    least_seconds_left: i64,
}

/// What a name was served with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// Distinct serial numbers: one more than renewals.
    pub certificates: usize,
    pub handshakes: u64,
    /// The shortest life that a certificate had left when it was shown.
    pub least_seconds_left: i64,
}

impl Served {
    /// Nothing yet; only what chains to `root` will be good.
    pub fn new(root: CertificateDer<'static>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add(root).map_err(|error| format!("the root is no root: {error}"))?;
        let provider = provider(Group::X25519);
        let webpki = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(Witness { webpki, seen: Mutex::default() })))
    }

    /// The configuration of clients that never resume: a resumed handshake shows no certificate.
    pub fn client(&self) -> Arc<ClientConfig> {
        let mut config = ClientConfig::builder_with_provider(provider(Group::X25519))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the suite is one of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(self.0.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// What each name was served with.
    pub fn by_name(&self) -> BTreeMap<String, Name> {
        let seen = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut serials: Vec<_> = seen.values().map(|one| (&one.name, &one.serial)).collect();
        serials.sort_unstable();
        serials.dedup();
        let mut names = BTreeMap::<String, Name>::new();
        for sighting in seen.values() {
            let name = names.entry(sighting.name.clone()).or_insert_with(|| Name {
                least_seconds_left: sighting.least_seconds_left,
                ..Name::default()
            });
            name.handshakes += sighting.handshakes;
            name.least_seconds_left = name.least_seconds_left.min(sighting.least_seconds_left);
        }
        for (name, _) in serials {
            names.entry(name.clone()).or_default().certificates += 1;
        }
        names
    }
}

impl Witness {
    fn remember(&self, leaf: &CertificateDer<'_>, name: &str, now: UnixTime) -> Option<()> {
        let now = i64::try_from(now.as_secs()).ok()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains_key(leaf.as_ref()) {
            let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
            let sighting = Sighting {
                name: name.to_owned(),
                serial: parsed.raw_serial().to_vec(),
                not_after: parsed.validity().not_after.timestamp(),
                handshakes: 0,
                least_seconds_left: i64::MAX,
            };
            seen.insert(leaf.to_vec(), sighting);
        }
        let sighting = seen.get_mut(leaf.as_ref())?;
        sighting.handshakes += 1;
        sighting.least_seconds_left = sighting.least_seconds_left.min(sighting.not_after - now);
        Some(())
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // No shortcut for bytes that were seen before: they may have expired since.
        let verified = self.webpki.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        self.remember(leaf, &name.to_str(), now).ok_or(CertificateError::BadEncoding)?;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::*;

    /// 1 January 2030, where the test's certificates end.
    const END: u64 = 1_893_456_000;

    fn root() -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        (root, Issuer::new(params, key))
    }

    fn leaf(issuer: &Issuer<'static, KeyPair>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = date_time_ymd(2030, 1, 1);
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    fn show(served: &Served, leaf: &CertificateDer<'_>, name: &str, at: u64) -> Result<(), Error> {
        let name = ServerName::try_from(name).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at));
        served.0.verify_server_cert(leaf, &[], &name, &[], now).map(|_| ())
    }

    #[test]
    fn a_certificate_that_was_good_before_is_refused_past_its_end() {
        let (root, issuer) = root();
        let served = Served::new(root).unwrap();
        let leaf = leaf(&issuer);
        show(&served, &leaf, "a.example", END - 60).unwrap();
        show(&served, &leaf, "a.example", END - 7).unwrap();
        assert!(show(&served, &leaf, "a.example", END + 1).is_err());
        let name = Name { certificates: 1, handshakes: 2, least_seconds_left: 7 };
        assert_eq!(served.by_name(), BTreeMap::from([("a.example".to_owned(), name)]));
    }

    #[test]
    fn every_serial_number_counts_once_and_strangers_do_not() {
        let (root_of_ours, ours) = root();
        let served = Served::new(root_of_ours).unwrap();
        let (first, second, strange) = (leaf(&ours), leaf(&ours), leaf(&root().1));
        for certificate in [&first, &second, &first] {
            show(&served, certificate, "a.example", END - 60).unwrap();
        }
        assert!(show(&served, &strange, "a.example", END - 60).is_err());
        assert!(show(&served, &first, "b.example", END - 60).is_err());
        let name = Name { certificates: 2, handshakes: 3, least_seconds_left: 60 };
        assert_eq!(served.by_name(), BTreeMap::from([("a.example".to_owned(), name)]));
    }
}
