//! The private key of a certificate: read from PEM, its kind, and whether it belongs to it.

use pkcs1::RsaPrivateKeyRef;
use pkcs8::PrivateKeyInfoRef;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use sec1::EcPrivateKey;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::snapshot::KeyKind;

use super::{Refused, Source, is_der};

/// RFC 5480 §2.1.1 and RFC 8017 appendix C name the algorithms and curves, RFC 8410 §3 Ed25519.
const EC_PUBLIC_KEY: Oid<'static> = oid!(1.2.840.10045.2.1);
const RSA_ENCRYPTION: Oid<'static> = oid!(1.2.840.113549.1.1.1);
const ED25519: Oid<'static> = oid!(1.3.101.112);
static CURVES: [(Oid<'static>, KeyKind); 3] = [
    (oid!(1.2.840.10045.3.1.7), KeyKind::EcdsaP256),
    (oid!(1.3.132.0.34), KeyKind::EcdsaP384),
    (oid!(1.3.132.0.35), KeyKind::EcdsaP521),
];
/// Below 2048 bits no public issuer signs and clients refuse (CA/Browser Forum baseline requirements
/// §6.1.5); above 8192 aws-lc-rs does not sign.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

pub(super) fn read_private_key(
    pem: &[u8],
    source: &Source,
) -> Result<PrivateKeyDer<'static>, Refused> {
    let file = source.private_key();
    // PKCS#8 says it in the label (RFC 7468 §11), the older formats in a header (RFC 1421 §4.6.1.1).
    if contains(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || contains(pem, b"Proc-Type: 4,ENCRYPTED")
    {
        return Err(Refused::new(
            format!("the private key is encrypted: {file}"),
            format!("decrypt it: openssl pkey -in {file} -out {file}.decrypted, and use that file"),
        ));
    }
    match PrivateKeyDer::pem_slice_iter(pem).next() {
        Some(Ok(key)) => Ok(key),
        Some(Err(error)) => Err(Refused::new(
            format!("{file} is no valid PEM: {error}"),
            "copy it again, from -----BEGIN to -----END",
        )),
        None if is_der(pem) => Err(Refused::new(
            format!("{file} holds no private key"),
            format!(
                "it looks like DER; convert it: openssl pkey -inform DER -in {file} -out {file}.pem"
            ),
        )),
        None => Err(Refused::new(
            format!("{file} holds no private key"),
            "it must hold one as -----BEGIN PRIVATE KEY-----, EC PRIVATE KEY or RSA PRIVATE KEY",
        )),
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// What the public key asks of a client; the error says what is wrong with it.
pub(super) fn key_kind(public: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, String> {
    let algorithm = &public.algorithm.algorithm;
    if *algorithm == EC_PUBLIC_KEY {
        let curve = public.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let known = CURVES.iter().find(|(oid, _)| Some(oid) == curve.as_ref());
        return known
            .map(|(_, kind)| *kind)
            .ok_or_else(|| "its elliptic curve is none of P-256, P-384 and P-521".into());
    }
    if *algorithm == ED25519 {
        return Ok(KeyKind::Ed25519);
    }
    match public.parsed() {
        Ok(PublicKey::RSA(rsa)) if *algorithm == RSA_ENCRYPTION => {
            let bits = bit_length(rsa.modulus);
            if RSA_BITS.contains(&bits) {
                Ok(KeyKind::Rsa)
            } else {
                Err(format!(
                    "its RSA key has {bits} bits, not {} to {}",
                    RSA_BITS.start(),
                    RSA_BITS.end()
                ))
            }
        }
        _ => Err("its public key is none of ECDSA, Ed25519 and RSA".into()),
    }
}

fn bit_length(big_endian: &[u8]) -> usize {
    let digits = without_zeros(big_endian);
    digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize)
}

/// A positive INTEGER without the zero that DER puts before a high first bit.
fn without_zeros(big_endian: &[u8]) -> &[u8] {
    let zeros = big_endian.iter().take_while(|byte| **byte == 0).count();
    big_endian.get(zeros..).unwrap_or_default()
}

pub(super) fn check_owner(
    key: &PrivateKeyDer<'_>,
    certificates: &[X509Certificate<'_>],
    source: &Source,
) -> Result<(), Refused> {
    let (chain, file) = (source.chain(), source.private_key());
    match owner(key, certificates) {
        Ok(Some(0)) => Ok(()),
        Ok(Some(position)) => Err(Refused::new(
            format!(
                "the chain is in the wrong order, the leaf must come first: {chain} has it as certificate {}",
                position + 1
            ),
            "move the leaf to the top, its issuer below it, and so on",
        )),
        Ok(None) => Err(Refused::new(
            format!("the private key does not belong to the certificate: {file} and {chain}"),
            "use the private key that the certificate was asked for with",
        )),
        Err(error) => Err(Refused::new(
            format!("the private key in {file} cannot be used: {error}"),
            "use an unencrypted PKCS#8, SEC1 or PKCS#1 private key",
        )),
    }
}

/// Which of the certificates the private key belongs to.
fn owner(
    key: &PrivateKeyDer<'_>,
    certificates: &[X509Certificate<'_>],
) -> Result<Option<usize>, rustls::Error> {
    let position = |half: &PublicHalf<'_>| {
        certificates.iter().position(|certificate| half.is_in(certificate.public_key()))
    };
    if let Some(found) = public_half(key).and_then(|half| position(&half)) {
        return Ok(Some(found));
    }
    // The file holds no public key, or holds it in another form than the certificate.
    let parsed = any_supported_type(key)?;
    Ok(parsed.public_key().and_then(|public| {
        let (_, public) = SubjectPublicKeyInfo::from_der(public.as_ref()).ok()?;
        position(&PublicHalf::Bits(&public.subject_public_key.data))
    }))
}

/// A public key as far as it tells one key from another.
enum PublicHalf<'a> {
    Rsa {
        modulus: &'a [u8],
        exponent: &'a [u8],
    },
    /// The content of a subjectPublicKey, such as the point of an elliptic curve (RFC 5480 §2.2).
    Bits(&'a [u8]),
}

impl PublicHalf<'_> {
    fn is_in(&self, public: &SubjectPublicKeyInfo<'_>) -> bool {
        match self {
            Self::Bits(bits) => *bits == &*public.subject_public_key.data,
            Self::Rsa { modulus, exponent } => matches!(
                public.parsed(),
                Ok(PublicKey::RSA(rsa))
                    if without_zeros(rsa.modulus) == *modulus && without_zeros(rsa.exponent) == *exponent
            ),
        }
    }
}

/// The public key that lies beside the private one: always in PKCS#1, as a rule in SEC1 (RFC 5915 §3).
fn public_half<'a>(key: &'a PrivateKeyDer<'_>) -> Option<PublicHalf<'a>> {
    match key {
        PrivateKeyDer::Pkcs1(key) => rsa_half(key.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(key) => ec_half(key.secret_sec1_der()),
        PrivateKeyDer::Pkcs8(key) => {
            let info = PrivateKeyInfoRef::try_from(key.secret_pkcs8_der()).ok()?;
            let inner = info.private_key.as_bytes();
            match info.algorithm.oid {
                pkcs1::ALGORITHM_OID => rsa_half(inner),
                sec1::ALGORITHM_OID => ec_half(inner),
                _ => info.public_key.and_then(|bits| bits.as_bytes()).map(PublicHalf::Bits),
            }
        }
        _ => None,
    }
}

fn rsa_half(der: &[u8]) -> Option<PublicHalf<'_>> {
    let key = RsaPrivateKeyRef::try_from(der).ok()?;
    Some(PublicHalf::Rsa {
        modulus: key.modulus.as_bytes(),
        exponent: key.public_exponent.as_bytes(),
    })
}

fn ec_half(der: &[u8]) -> Option<PublicHalf<'_>> {
    EcPrivateKey::try_from(der).ok()?.public_key.map(PublicHalf::Bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};

    #[test]
    fn the_public_key_beside_the_private_one_is_found_without_parsing() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let der = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            assert!(public_half(&der).is_some());
        }
    }
}
