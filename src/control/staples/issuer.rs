//! Finds the certificate of a leaf's issuer: in the chain it came with, or among the system's roots.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::certified::Certified;
use super::signed::is_signed_by;

/// Roots by their subject.
#[derive(Clone, Default)]
pub struct TrustStore {
    roots: Arc<HashMap<Vec<u8>, Vec<CertificateDer<'static>>>>,
}

impl TrustStore {
    /// The system's roots and those of `more`, which is PEM. Reads files.
    pub fn load(more: &[u8]) -> Self {
        let system = rustls_native_certs::load_native_certs().certs;
        let more = CertificateDer::pem_slice_iter(more).flatten();
        Self::of(system.into_iter().chain(more))
    }

    pub fn of(roots: impl Iterator<Item = CertificateDer<'static>>) -> Self {
        let mut by_subject: HashMap<_, Vec<_>> = HashMap::new();
        for root in roots {
            let subject =
                X509Certificate::from_der(&root).map(|(_, root)| root.subject().as_raw().to_vec());
            if let Ok(subject) = subject {
                by_subject.entry(subject).or_default().push(root);
            }
        }
        Self { roots: Arc::new(by_subject) }
    }

    pub fn roots(&self) -> impl Iterator<Item = CertificateDer<'static>> {
        self.roots.values().flatten().cloned()
    }

    /// The certificate whose private key has signed this leaf, if it is at hand.
    pub fn issuer_of(&self, certified: &Certified) -> Option<CertificateDer<'static>> {
        let chain = &certified.key.cert;
        let leaf_der = chain.first()?;
        let (_, leaf) = X509Certificate::from_der(leaf_der).ok()?;
        let from_chain = chain.get(1).cloned();
        let unsent = certified.unsent_issuer.map(CertificateDer::from);
        let trusted = self.roots.get(leaf.issuer().as_raw()).into_iter().flatten().cloned();
        let candidates = from_chain.into_iter().chain(unsent).chain(trusted);
        let has_signed = |issuer: &CertificateDer<'_>| {
            X509Certificate::from_der(issuer)
                .is_ok_and(|(_, issuer)| is_signed_by(leaf_der, issuer.public_key()))
        };
        candidates.map(CertificateDer::into_owned).find(has_signed)
    }
}
