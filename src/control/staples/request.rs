//! The question to a responder: RFC 6960 §4.1 in the form of RFC 5019. Pure.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::asn1::{Null, ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{CertId, OcspRequest, Request, TbsRequest};
use x509_parser::prelude::X509Certificate;

const ID_SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const ID_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
/// RFC 5019 §5: what is no longer than that is asked by GET, which caches answer.
const LONGEST_GET: usize = 255;

/// The question about this leaf, in DER. SHA-1 names issuers here and protects nothing: responders of
/// RFC 5019 §2.1.1 know no other. There is no nonce, for a staple is everybody's.
///
/// # Errors
/// Why this leaf cannot be asked about.
pub fn request(
    leaf: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> Result<Vec<u8>, String> {
    let damaged = |error: der::Error| format!("it cannot be asked about: {error}");
    let serial = leaf.tbs_certificate.raw_serial();
    let integer = der::asn1::IntRef::new(serial).map_err(damaged)?.to_der().map_err(damaged)?;
    let hash = |bytes: &[u8]| {
        OctetString::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()).map_err(damaged)
    };
    let id = CertId {
        hash_algorithm: AlgorithmIdentifierOwned { oid: ID_SHA1, parameters: Some(Null.into()) },
        issuer_name_hash: hash(leaf.issuer().as_raw())?,
        issuer_key_hash: hash(&issuer.public_key().subject_public_key.data)?,
        serial_number: SerialNumber::from_der(&integer).map_err(damaged)?,
    };
    let request_list = vec![Request { req_cert: id, single_request_extensions: None }];
    let tbs_request = TbsRequest { request_list, ..TbsRequest::default() };
    OcspRequest { tbs_request, optional_signature: None }.to_der().map_err(damaged)
}

/// Whether an identifier in a response means this leaf (RFC 6960 §4.1.1).
pub fn means(id: &CertId, leaf: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let algorithm = match id.hash_algorithm.oid {
        ID_SHA1 => &SHA1_FOR_LEGACY_USE_ONLY,
        ID_SHA256 => &SHA256,
        _ => return false,
    };
    let is_of =
        |hash: &OctetString, bytes: &[u8]| hash.as_bytes() == digest(algorithm, bytes).as_ref();
    is_of(&id.issuer_name_hash, leaf.issuer().as_raw())
        && is_of(&id.issuer_key_hash, &issuer.public_key().subject_public_key.data)
        && is_serial(&id.serial_number, leaf)
}

/// Whether the number is the leaf's.
pub fn is_serial(number: &SerialNumber, leaf: &X509Certificate<'_>) -> bool {
    let own = leaf.tbs_certificate.raw_serial();
    // Both without the zero that DER puts before a high first bit.
    let bare = |bytes: &'_ [u8]| {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        bytes.get(zeros..).unwrap_or_default().to_vec()
    };
    bare(number.as_bytes()) == bare(own)
}

/// The URL that asks by GET, if the question is short enough for it.
pub fn get_url(responder: &str, request: &[u8]) -> Option<String> {
    let mut encoded = String::new();
    for letter in STANDARD.encode(request).chars() {
        // RFC 6960 appendix A.1: base64, then URL encoding.
        match letter {
            '+' => encoded.push_str("%2B"),
            '/' => encoded.push_str("%2F"),
            '=' => encoded.push_str("%3D"),
            letter => encoded.push(letter),
        }
    }
    let is_plain = !responder.contains(['?', '#']);
    let url = format!("{}/{encoded}", responder.trim_end_matches('/'));
    (is_plain && url.len() <= LONGEST_GET).then_some(url)
}
