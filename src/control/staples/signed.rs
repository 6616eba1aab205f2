//! Something that an issuer has signed (a certificate, a list, a response) and whether it has. Pure.

use der::asn1::BitStringRef;
use der::{AnyRef, Decode, Encode, Sequence};
use rustls::crypto::aws_lc_rs::default_provider;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Certificate and CertificateList (RFC 5280 §4.1, §5.1), as far as their signature goes.
#[derive(Sequence)]
pub struct Signed<'a> {
    pub content: AnyRef<'a>,
    pub algorithm: AnyRef<'a>,
    pub signature: BitStringRef<'a>,
}

#[derive(Sequence)]
struct PublicKey<'a> {
    algorithm: AnyRef<'a>,
    key: BitStringRef<'a>,
}

impl<'a> Signed<'a> {
    /// `None` for what is not of this form.
    pub fn read(der: &'a [u8]) -> Option<Self> {
        Self::from_der(der).ok()
    }

    /// Whether the holder of this key has signed it, in a way that TLS allows too: no SHA-1.
    pub fn is_by(&self, signer: &SubjectPublicKeyInfo<'_>) -> bool {
        let (Ok(content), Ok(signer)) = (self.content.to_der(), PublicKey::from_der(signer.raw))
        else {
            return false;
        };
        let (Some(signature), Some(key)) = (self.signature.as_bytes(), signer.key.as_bytes())
        else {
            return false;
        };
        default_provider().signature_verification_algorithms.all.iter().any(|known| {
            known.signature_alg_id().as_ref() == self.algorithm.value()
                && known.public_key_alg_id().as_ref() == signer.algorithm.value()
                && known.verify_signature(key, &content, signature).is_ok()
        })
    }
}

/// Whether a certificate in DER was signed by the holder of this key.
pub fn is_signed_by(certificate: &[u8], signer: &SubjectPublicKeyInfo<'_>) -> bool {
    Signed::read(certificate).is_some_and(|certificate| certificate.is_by(signer))
}
