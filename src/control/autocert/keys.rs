//! Private keys and certificate requests: made, written as CertMagic writes them, read back.

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::PrivateKeyInfoRef;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use crate::config::autocert::KeyType;
use crate::name::ServerName;

/// A new private key as PEM: SEC1 for elliptic curves and PKCS#1 for RSA, which is what CertMagic writes.
/// `None` if the system's random source fails.
pub fn generate(key_type: KeyType) -> Option<String> {
    // Random private keys would make every certificate another one at each run of the same seed.
    #[cfg(feature = "simulation")]
    if let Some(scalar) = super::simulated::next_private_key() {
        return from_scalar(&scalar);
    }
    match key_type {
        KeyType::P256 | KeyType::P384 => {
            let (generating, signing) = match key_type {
                KeyType::P384 => (&PKCS_ECDSA_P384_SHA384, &ECDSA_P384_SHA384_FIXED_SIGNING),
                _ => (&PKCS_ECDSA_P256_SHA256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            };
            let pair = KeyPair::generate_for(generating).ok()?;
            let pair = EcdsaKeyPair::from_pkcs8(signing, &pair.serialize_der()).ok()?;
            let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().ok()?;
            Some(pem("EC PRIVATE KEY", der.as_ref()))
        }
        KeyType::Rsa2048 => {
            let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).ok()?;
            let der = pair.serialize_der();
            let info = PrivateKeyInfoRef::try_from(der.as_slice()).ok()?;
            Some(pem("RSA PRIVATE KEY", info.private_key.as_bytes()))
        }
    }
}

/// The P-256 private key with this scalar. `None` if it is none.
#[cfg(feature = "simulation")]
fn from_scalar(scalar: &[u8; 32]) -> Option<String> {
    use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
    let key = PrivateKey::from_private_key(&ECDH_P256, scalar).ok()?;
    let public_key = key.compute_public_key().ok()?;
    let signing = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_private_key_and_public_key(signing, scalar, public_key.as_ref());
    let pair = pair.ok()?;
    let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().ok()?;
    Some(pem("EC PRIVATE KEY", der.as_ref()))
}

/// The type of a private key, if it is one of those that we make.
pub fn type_of(private_key_pem: &str) -> Option<KeyType> {
    let key = KeyPair::from_pem(private_key_pem).ok()?;
    [
        (&PKCS_ECDSA_P256_SHA256, KeyType::P256),
        (&PKCS_ECDSA_P384_SHA384, KeyType::P384),
        (&PKCS_RSA_SHA256, KeyType::Rsa2048),
    ]
    .into_iter()
    .find_map(|(algorithm, key_type)| key.is_compatible(algorithm).then_some(key_type))
}

/// An ECDSA P-256 account key, from PEM in any form, as PKCS#8.
pub fn account_key_pkcs8(pem: &[u8]) -> Option<Vec<u8>> {
    let der = PrivateKeyDer::from_pem_slice(pem).ok()?;
    let pair =
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
            .ok()?;
    Some(pair.to_pkcs8v1().ok()?.as_ref().to_vec())
}

/// A certificate request for one name (RFC 2986), in DER; `None` for a private key that cannot be read.
pub fn request(private_key_pem: &str, name: &ServerName, must_staple: bool) -> Option<Vec<u8>> {
    let key = KeyPair::from_pem(private_key_pem).ok()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![alternative_name(name)?];
    if must_staple {
        // TLS feature (RFC 7633 §4): a SEQUENCE of the one INTEGER 5, status_request.
        let feature = vec![0x30, 0x03, 0x02, 0x01, 0x05];
        let oid = [1, 3, 6, 1, 5, 5, 7, 1, 24];
        params.custom_extensions.push(CustomExtension::from_oid_content(&oid, feature));
    }
    Some(params.serialize_request(&key).ok()?.der().to_vec())
}

/// The name as a subjectAltName has it.
pub fn alternative_name(name: &ServerName) -> Option<SanType> {
    match name.as_ip() {
        Some(address) => Some(SanType::IpAddress(address)),
        None => name.as_str().try_into().ok().map(SanType::DnsName),
    }
}

/// RFC 7468 §2.
pub fn pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_keys_are_written_as_certmagic_writes_them_and_read_back() {
        let name = ServerName::parse("a.example").unwrap();
        for (key_type, label) in [
            (KeyType::P256, "EC PRIVATE KEY"),
            (KeyType::P384, "EC PRIVATE KEY"),
            (KeyType::Rsa2048, "RSA PRIVATE KEY"),
        ] {
            let key = generate(key_type).unwrap();
            assert!(key.starts_with(&format!("-----BEGIN {label}-----\n")), "{key_type:?}");
            assert_eq!(type_of(&key), Some(key_type));
            let der = request(&key, &name, true).unwrap();
            assert!(der.windows(5).any(|bytes| bytes == [0x30, 3, 2, 1, 5]), "{key_type:?}");
            assert_eq!(account_key_pkcs8(key.as_bytes()).is_some(), key_type == KeyType::P256);
        }
        assert_eq!(type_of("nothing"), None);
        assert_eq!(request("nothing", &name, false), None);
    }

    #[test]
    fn an_account_key_survives_the_way_to_pkcs8_and_back() {
        let sec1 = generate(KeyType::P256).unwrap();
        let pkcs8 = account_key_pkcs8(sec1.as_bytes()).unwrap();
        let again = account_key_pkcs8(pem("PRIVATE KEY", &pkcs8).as_bytes()).unwrap();
        assert_eq!(pkcs8, again);
    }
}
