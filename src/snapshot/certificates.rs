//! Server name to certified key, and which of a name's certified keys a client can use.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::NameMap;

/// What a certified key signs with: what a client must support to be served by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    EcdsaP256,
    EcdsaP384,
    EcdsaP521,
    Ed25519,
    Rsa,
}

/// A set of [`KeyKind`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyKinds(u8);

impl KeyKinds {
    pub const ALL: Self = Self(u8::MAX);

    pub fn insert(&mut self, kind: KeyKind) {
        self.0 |= 1 << kind as u8;
    }

    pub fn remove(&mut self, kind: KeyKind) {
        self.0 &= !(1 << kind as u8);
    }

    pub fn contains(self, kind: KeyKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// The certified keys of one name: at most one that signs with an elliptic curve, preferred for it is
/// many times cheaper, and at most one that signs with RSA.
#[derive(Clone, Default)]
pub struct CertificateChoice {
    pub elliptic: Option<(KeyKind, Arc<CertifiedKey>)>,
    pub rsa: Option<Arc<CertifiedKey>>,
}

impl CertificateChoice {
    /// The certified key for a client that can verify `supported`, and its kind. A client that supports none of them
    /// gets the first there is: rustls then says so with the alert that fits.
    pub fn choose(&self, supported: KeyKinds) -> Option<(KeyKind, &Arc<CertifiedKey>)> {
        let elliptic = self.elliptic.as_ref().map(|(kind, certified)| (*kind, certified));
        let rsa = self.rsa.as_ref().map(|certified| (KeyKind::Rsa, certified));
        let can_verify = |(kind, _): &(KeyKind, _)| supported.contains(*kind);
        elliptic.filter(can_verify).or(rsa.filter(can_verify)).or(elliptic).or(rsa)
    }
}

/// The certificate index: server name to its certified keys.
pub type Certificates = NameMap<CertificateChoice>;
