//! A private key that is parsed when it first signs.
//!
//! Parsing costs tens of microseconds (more for RSA), so a million of them are not parsed at start-up.
//! Two workers that need the same private key first may both parse it; neither waits for the other.

use std::fmt;
use std::sync::Arc;

use once_cell::race::OnceBox;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use crate::crypto::P256Key;

use super::KeyKind;

/// Implements rustls's `SigningKey` over the DER of a private key that was checked when it was loaded.
pub struct LazyPrivateKey {
    kind: KeyKind,
    der: PrivateKeyDer<'static>,
    parsed: OnceBox<Arc<dyn SigningKey>>,
}

impl LazyPrivateKey {
    pub fn new(kind: KeyKind, der: PrivateKeyDer<'static>) -> Self {
        Self { kind, der, parsed: OnceBox::new() }
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Parses now if nobody has yet.
    ///
    /// # Errors
    /// What aws-lc-rs says of a private key that it cannot use.
    pub fn parse(&self) -> Result<&Arc<dyn SigningKey>, rustls::Error> {
        self.parsed.get_or_try_init(|| {
            let parsed = rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.der)?;
            let ours = (self.kind == KeyKind::EcdsaP256)
                .then(|| P256Key::new(&self.der, parsed.clone()))
                .flatten();
            Ok(Box::new(ours.map_or(parsed, |ours| Arc::new(ours))))
        })
    }
}

impl SigningKey for LazyPrivateKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.parse().ok()?.choose_scheme(offered)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.kind {
            KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
                SignatureAlgorithm::ECDSA
            }
            KeyKind::Ed25519 => SignatureAlgorithm::ED25519,
            KeyKind::Rsa => SignatureAlgorithm::RSA,
        }
    }
}

impl fmt::Debug for LazyPrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyPrivateKey").field("kind", &self.kind).finish_non_exhaustive()
    }
}
