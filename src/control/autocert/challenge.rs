//! The answers that prove control of a name to an issuer.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use crate::config::autocert::ChallengeKind;
use crate::name::ServerName;
use crate::snapshot::{ChallengeAnswer, KeyKind, LazyPrivateKey};

use super::keys::alternative_name;

/// The answer to one challenge. `None` if the random source fails.
pub fn answer(
    kind: ChallengeKind,
    name: &ServerName,
    token: &str,
    key_authorization: &str,
) -> Option<ChallengeAnswer> {
    Some(match kind {
        ChallengeKind::TlsAlpn01 => {
            let digest = digest(&SHA256, key_authorization.as_bytes());
            ChallengeAnswer::TlsAlpn01(tls_alpn_certificate(name, digest.as_ref())?)
        }
        ChallengeKind::Http01 => ChallengeAnswer::Http01 {
            token: token.into(),
            key_authorization: key_authorization.into(),
        },
    })
}

/// The certificate that answers TLS-ALPN-01 (RFC 8737 §3): self-signed, exactly the one name, and the
/// digest of the key authorization in a critical extension. `None` if the random source fails.
fn tls_alpn_certificate(name: &ServerName, digest: &[u8]) -> Option<Arc<CertifiedKey>> {
    let key = KeyPair::generate().ok()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![alternative_name(name)?];
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let certificate = params.self_signed(&key).ok()?;
    let private_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let private_key = LazyPrivateKey::new(KeyKind::EcdsaP256, private_key);
    Some(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], Arc::new(private_key))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509Certificate};

    /// As strict as Boulder's validation, which is stricter than Pebble's.
    #[test]
    fn the_certificate_is_what_boulder_asks_for() {
        let name = ServerName::parse("a.example").unwrap();
        let digest = [7u8; 32];
        let certified = tls_alpn_certificate(&name, &digest).unwrap();
        assert_eq!(certified.cert.len(), 1);
        let (_, leaf) = X509Certificate::from_der(&certified.cert[0]).unwrap();
        assert_eq!(leaf.subject().as_raw(), leaf.issuer().as_raw());
        let signed = leaf.tbs_certificate.as_ref();
        aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1,
            &leaf.public_key().subject_public_key.data,
        )
        .verify(signed, &leaf.signature_value.data)
        .unwrap();
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        // Exactly one dNSName and the bytes that encode it.
        assert_eq!(san.value.general_names.len(), 1);
        let raw = leaf.extensions().iter().find(|e| e.oid.to_id_string() == "2.5.29.17").unwrap();
        assert_eq!(raw.value, b"\x30\x0b\x82\x09a.example");
        let identifier = "1.3.6.1.5.5.7.1.31";
        let found: Vec<_> =
            leaf.extensions().iter().filter(|e| e.oid.to_id_string() == identifier).collect();
        assert_eq!(found.len(), 1);
        assert!(found[0].critical);
        assert_eq!(found[0].value, [&[0x04, 0x20][..], &digest].concat());
        let mut oids: Vec<_> = leaf.extensions().iter().map(|e| e.oid.to_id_string()).collect();
        oids.sort();
        oids.dedup();
        assert_eq!(oids.len(), leaf.extensions().len(), "an extension stands there twice");
    }
}
