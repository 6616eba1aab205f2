//! A private key of P-256 for rustls: signs with a nonce that was made ahead where it is lent one, and as aws-lc
//! does where it is not.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use pkcs8::PrivateKeyInfoRef;
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use sec1::EcPrivateKey;

use super::lend::{Slot, lend};
use super::{Ifma, Nonce, ecdsa};

thread_local! {
    static NONCE: Slot<Nonce> = const { RefCell::new(None) };
}

/// Runs `work`, in which a [`P256Key`] may sign, with this nonce. If nothing was signed the nonce is gone all
/// the same: none outlives the call for which it was made.
pub fn with_nonce<T>(nonce: Option<Nonce>, work: impl FnOnce() -> T) -> T {
    lend(&NONCE, nonce, work).0
}

/// Implements rustls's `SigningKey`.
pub struct P256Key(Arc<Both>);

/// The same key twice.
struct Both {
    ours: ecdsa::SigningKey,
    aws_lc: Arc<dyn SigningKey>,
}

impl P256Key {
    /// `aws_lc` is the same key, parsed by aws-lc, and the caller knows that its curve is P-256. `None` where we cannot
    /// read it, or the processor lacks the instructions.
    pub fn new(der: &PrivateKeyDer<'_>, aws_lc: Arc<dyn SigningKey>) -> Option<Self> {
        let ours = ecdsa::SigningKey::new(Ifma::detect()?, scalar(der)?)?;
        Some(Self(Arc::new(Both { ours, aws_lc })))
    }
}

/// The private scalar, big-endian (RFC 5915 §3: as long as the order is).
fn scalar<'a>(der: &'a PrivateKeyDer<'_>) -> Option<&'a [u8; 32]> {
    let sec1 = match der {
        PrivateKeyDer::Sec1(key) => key.secret_sec1_der(),
        PrivateKeyDer::Pkcs8(key) => {
            PrivateKeyInfoRef::try_from(key.secret_pkcs8_der()).ok()?.private_key.as_bytes()
        }
        _ => return None,
    };
    EcPrivateKey::try_from(sec1).ok()?.private_key.try_into().ok()
}

impl SigningKey for P256Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(P256Signer(self.0.clone())) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl fmt::Debug for P256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Key")
    }
}

struct P256Signer(Arc<Both>);

impl Signer for P256Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let ahead = NONCE.take().and_then(|nonce| {
            let digest = digest(&SHA256, message);
            self.0.ours.sign(nonce, digest.as_ref().try_into().ok()?)
        });
        match ahead {
            Some(signature) => Ok(signature.to_der()),
            None => self
                .0
                .aws_lc
                .choose_scheme(&[self.scheme()])
                .ok_or_else(|| Error::General("the private key does not sign with P-256".into()))?
                .sign(message),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl fmt::Debug for P256Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256Signer")
    }
}

#[cfg(test)]
mod tests {
    use super::super::nonces;
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use rcgen::{KeyPair, PublicKeyData};
    use rustls::crypto::aws_lc_rs::sign::any_supported_type;

    #[test]
    fn signs_once_with_a_nonce_and_then_without() {
        let pair = KeyPair::generate().unwrap();
        let der = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let Some(key) = P256Key::new(&der, any_supported_type(&der).unwrap()) else {
            assert!(Ifma::detect().is_none(), "rcgen's keys are read");
            return;
        };
        let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        let signs = |message: &[u8]| {
            let signature = signer.sign(message).unwrap();
            let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.der_bytes());
            public.verify(message, &signature).unwrap();
            signature
        };
        let [nonce, other, third, ..] = Ifma::detect().and_then(nonces).unwrap();
        with_nonce(Some(nonce), || {
            signs(b"message");
            assert!(NONCE.take().is_none(), "it was used");
            signs(b"message");
        });
        with_nonce(Some(other), || ());
        assert!(NONCE.take().is_none(), "it is gone");
        let panics = || with_nonce(Some(third), || panic!("as a bug would"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert!(NONCE.take().is_none(), "it is gone too");
        signs(b"another");
    }

    #[test]
    fn a_key_of_another_curve_is_left_to_aws_lc() {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let der = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        assert!(P256Key::new(&der, any_supported_type(&der).unwrap()).is_none());
    }
}
