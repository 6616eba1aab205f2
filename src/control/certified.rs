//! From PEM to a checked certified key, or to words for why it cannot be one.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use pkcs8::der::Decode;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::clock::Moment;
use crate::name::{Pattern, ServerName};
use crate::snapshot::{KeyKind, LazyPrivateKey};

/// Larger than any chain or private key.
pub const LARGEST_PEM_BYTES: usize = 1024 * 1024;

/// RSA below this is refused by clients (RFC 8446 leaves it to them; browsers ask for 2048).
const SMALLEST_RSA_BITS: usize = 2048;

/// Where a certified key came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    ByHand { cert: PathBuf, key: PathBuf },
    LocalCa,
}

/// A certified key that was checked, with what deciding about it needs.
#[derive(Debug)]
pub struct Certified {
    pub key: Arc<CertifiedKey>,
    /// The private key as it stands in the file, to know it again.
    pub private_key_der: Arc<[u8]>,
    pub kind: KeyKind,
    pub patterns: Vec<Pattern>,
    pub not_before: Moment,
    pub not_after: Moment,
    pub source: Source,
}

impl Certified {
    /// The leaf's DER.
    pub fn leaf(&self) -> &[u8] {
        self.key.cert.first().map(|leaf| leaf.as_ref()).unwrap_or_default()
    }

    pub fn is_valid_at(&self, now: Moment) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

/// Why something cannot be served, or what was left out of it: for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    pub what: String,
    pub remedy: String,
}

fn remark(what: impl Into<String>, remedy: impl Into<String>) -> Remark {
    Remark { what: what.into(), remedy: remedy.into() }
}

/// Checks a chain (leaf first) and its private key.
///
/// # Errors
/// Why it cannot be served: not PEM, a private key that is encrypted or belongs to another leaf, a chain
/// in the wrong order, a leaf without names. An expired leaf is no error: it may be all there is.
pub fn certify(
    chain_pem: &[u8],
    key_pem: &[u8],
    source: Source,
) -> Result<(Certified, Vec<Remark>), Remark> {
    let chain = read_chain(chain_pem)?;
    let private_key = read_private_key(key_pem)?;
    let parsed = chain.iter().enumerate().map(|(at, der)| parse(at, der));
    let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    let Some((leaf, issuers)) = parsed.split_first() else {
        return Err(remark("holds no certificate", "put the certificate in it, leaf first"));
    };
    let kind = kind_of(leaf)?;
    match belongs(&private_key, kind, leaf) {
        Some(true) => {}
        Some(false)
            if issuers.iter().any(|issuer| {
                kind_of(issuer).is_ok_and(|kind| belongs(&private_key, kind, issuer) == Some(true))
            }) =>
        {
            return Err(remark("the chain is in the wrong order", "put the leaf first"));
        }
        Some(false) => {
            return Err(remark(
                "the private key does not belong to the certificate",
                "use the private key that the certificate was requested with",
            ));
        }
        None => {
            return Err(remark(
                "the private key cannot be used",
                "write an unencrypted PKCS#8, SEC1 or PKCS#1 key",
            ));
        }
    }
    let mut remarks = Vec::new();
    let sent = check_order(&parsed, &mut remarks)?;
    let patterns = patterns_of(leaf)?;
    let (not_before, not_after) = (
        Moment::from_unix_seconds(leaf.validity().not_before.timestamp()),
        Moment::from_unix_seconds(leaf.validity().not_after.timestamp()),
    );
    drop(parsed);

    let mut certs = Vec::with_capacity(sent);
    for (at, der) in chain.into_iter().take(sent).enumerate() {
        certs.push(if at == 0 { exact(&der) } else { intern(&der) });
    }
    let private_key_der: Arc<[u8]> = private_key.secret_der().into();
    let lazy = LazyPrivateKey::new(kind, private_key);
    let certified = Certified {
        key: Arc::new(CertifiedKey::new(certs, Arc::new(lazy))),
        private_key_der,
        kind,
        patterns,
        not_before,
        not_after,
        source,
    };
    Ok((certified, remarks))
}

fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Remark> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => {
            Err(remark("holds no certificate", "put the certificate in it as PEM, leaf first"))
        }
        Err(error) => Err(remark(format!("is damaged PEM: {error}"), "copy it again, whole")),
    }
}

fn read_private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Remark> {
    let has = |text: &str| pem.windows(text.len()).any(|window| window == text.as_bytes());
    if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(remark(
            "the private key is encrypted, and nobody is there at night to type its password",
            "decrypt it with 'openssl pkey -in KEY -out PLAIN', readable by ringgate alone",
        ));
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        remark(
            format!("the private key file holds no private key that is understood ({error})"),
            "write it as PEM: PKCS#8, SEC1 or PKCS#1",
        )
    })
}

fn parse<'d>(at: usize, der: &'d CertificateDer<'static>) -> Result<X509Certificate<'d>, Remark> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => {
            let what = format!("certificate {} of the chain is damaged", at + 1);
            Err(remark(what, "copy it again, whole"))
        }
    }
}

fn kind_of(certificate: &X509Certificate<'_>) -> Result<KeyKind, Remark> {
    const P256: &str = "1.2.840.10045.3.1.7";
    const P384: &str = "1.3.132.0.34";
    const P521: &str = "1.3.132.0.35";
    const ED25519: &str = "1.3.101.112";
    let spki = certificate.public_key();
    let algorithm = spki.algorithm.algorithm.to_id_string();
    let unusable = |what: String| {
        Err(remark(what, "use ECDSA P-256, P-384 or P-521, Ed25519, or RSA of 2048 bits or more"))
    };
    match spki.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < SMALLEST_RSA_BITS => {
            unusable(format!("the RSA key has only {} bits, which clients refuse", rsa.key_size()))
        }
        Ok(PublicKey::RSA(_)) => Ok(KeyKind::Rsa),
        Ok(PublicKey::EC(_)) => {
            let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            match curve.map(|oid| oid.to_id_string()).as_deref() {
                Some(P256) => Ok(KeyKind::EcdsaP256),
                Some(P384) => Ok(KeyKind::EcdsaP384),
                Some(P521) => Ok(KeyKind::EcdsaP521),
                other => unusable(format!("its curve {} is not supported", other.unwrap_or("?"))),
            }
        }
        _ if algorithm == ED25519 => Ok(KeyKind::Ed25519),
        _ => unusable(format!("its kind of public key ({algorithm}) is not supported")),
    }
}

/// Whether the private key belongs to the certificate; `None` if it cannot be used at all.
///
/// Most private key files hold the public key too: comparing that costs a microsecond, computing it a
/// hundred. A file that lies about its public key is found out at the first handshake, and harms nobody
/// but its owner.
fn belongs(
    private_key: &PrivateKeyDer<'_>,
    kind: KeyKind,
    certificate: &X509Certificate<'_>,
) -> Option<bool> {
    let public = certificate.public_key().subject_public_key.data.as_ref();
    match has_public_key(private_key, kind, public) {
        Some(has) => Some(has),
        None => {
            let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(private_key).ok()?;
            let spki = signing.public_key()?;
            Some(spki.as_ref() == certificate.public_key().raw)
        }
    }
}

/// Whether the private key's file names this public key (as a subjectPublicKey holds it); `None` if it
/// names none.
fn has_public_key(private_key: &PrivateKeyDer<'_>, kind: KeyKind, public: &[u8]) -> Option<bool> {
    let inner: &[u8] = match private_key {
        PrivateKeyDer::Pkcs8(der) => {
            pkcs8::PrivateKeyInfoRef::from_der(der.secret_pkcs8_der()).ok()?.private_key.as_bytes()
        }
        PrivateKeyDer::Sec1(der) => der.secret_sec1_der(),
        PrivateKeyDer::Pkcs1(der) => der.secret_pkcs1_der(),
        _ => return None,
    };
    match kind {
        KeyKind::Ed25519 => None,
        KeyKind::Rsa => {
            let held = pkcs1::RsaPrivateKeyRef::from_der(inner).ok()?;
            Some(held.public_key() == pkcs1::RsaPublicKeyRef::from_der(public).ok()?)
        }
        KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => {
            Some(sec1::EcPrivateKey::from_der(inner).ok()?.public_key? == public)
        }
    }
}

/// Checks that each certificate was issued by the next. Returns how many are sent: a self-signed root at
/// the end is not, for clients have it or do not trust it.
fn check_order(chain: &[X509Certificate<'_>], remarks: &mut Vec<Remark>) -> Result<usize, Remark> {
    let mut sent = chain.len();
    if let [_, .., last] = chain
        && last.issuer().as_raw() == last.subject().as_raw()
    {
        sent -= 1;
        let what = "its chain ends with a self-signed root, which is not sent";
        remarks.push(remark(what, "leave it out of the file: clients have it or do not trust it"));
    }
    for (at, (issued, issuer)) in chain.iter().zip(chain.iter().skip(1)).enumerate() {
        if issued.issuer().as_raw() != issuer.subject().as_raw() || !key_ids_match(issued, issuer) {
            return Err(remark(
                format!("certificate {} of its chain did not issue certificate {}", at + 2, at + 1),
                "write the leaf, then its issuer, then that one's issuer",
            ));
        }
    }
    Ok(sent)
}

/// Authority and subject key identifier (RFC 5280 §4.2.1.1), where both are there.
fn key_ids_match(issued: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let authority = issued.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    });
    let subject = issuer.iter_extensions().find_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    !matches!((authority, subject), (Some(a), Some(s)) if a != s)
}

/// The names in the subjectAltName extension (RFC 6125 §6.4.4: the common name counts no more).
fn patterns_of(leaf: &X509Certificate<'_>) -> Result<Vec<Pattern>, Remark> {
    let names = leaf.subject_alternative_name().ok().flatten();
    let mut patterns = Vec::new();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => patterns.extend(Pattern::parse(name).ok()),
            GeneralName::IPAddress(bytes) => {
                let address = match bytes.len() {
                    4 => <[u8; 4]>::try_from(*bytes).ok().map(std::net::IpAddr::from),
                    16 => <[u8; 16]>::try_from(*bytes).ok().map(std::net::IpAddr::from),
                    _ => None,
                };
                patterns.extend(address.map(|ip| Pattern::Exact(ServerName::from_ip(ip))));
            }
            _ => {}
        }
    }
    // A lone "*" is no name that a certificate can have.
    patterns.retain(|pattern| *pattern != Pattern::Any);
    patterns.sort_unstable();
    patterns.dedup();
    if patterns.is_empty() {
        return Err(remark(
            "the certificate names no DNS name or IP address (subjectAltName)",
            "have it issued again with the names it is for",
        ));
    }
    Ok(patterns)
}

/// A copy that owns no spare memory.
fn exact(der: &CertificateDer<'_>) -> CertificateDer<'static> {
    CertificateDer::from(der.as_ref().to_vec())
}

/// The same issuer certificate as every other chain has it: a hundred thousand chains of one CA share one
/// or two. They are kept for the life of the process; a CA has a handful of intermediates and only the
/// operator's own files lead here, so that is bounded.
fn intern(der: &CertificateDer<'_>) -> CertificateDer<'static> {
    static KNOWN: Mutex<Option<HashSet<&'static [u8]>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let shared: &'static [u8] = match known.get(der.as_ref()) {
        Some(shared) => shared,
        None => {
            let shared: &'static [u8] = Box::leak(der.as_ref().into());
            known.insert(shared);
            shared
        }
    };
    CertificateDer::from(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    struct Ca {
        pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca(name: &str, by: Option<&Ca>) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = match by {
            Some(by) => params.signed_by(&key, &by.issuer),
            None => params.self_signed(&key),
        };
        Ca { pem: certificate.unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    fn leaf(by: &Ca, names: &[&str], key: &KeyPair) -> String {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        CertificateParams::new(names).unwrap().signed_by(key, &by.issuer).unwrap().pem()
    }

    fn check(chain: &str, key: &str) -> Result<(Certified, Vec<Remark>), String> {
        certify(chain.as_bytes(), key.as_bytes(), Source::LocalCa).map_err(|remark| remark.what)
    }

    #[test]
    fn a_chain_is_checked_and_its_root_left_out() {
        let root = ca("root", None);
        let middle = ca("middle", Some(&root));
        let key = KeyPair::generate().unwrap();
        let leaf = leaf(&middle, &["a.example", "*.a.example", "10.0.0.1"], &key);
        let key = key.serialize_pem();
        let whole = [leaf.as_str(), &middle.pem, &root.pem].concat();
        let (certified, remarks) = check(&whole, &key).unwrap();
        assert_eq!((certified.key.cert.len(), remarks.len()), (2, 1));
        assert_eq!(certified.kind, KeyKind::EcdsaP256);
        let names: Vec<_> = certified.patterns.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        let swapped = [middle.pem.as_str(), &leaf].concat();
        assert!(check(&swapped, &key).unwrap_err().contains("wrong order"));
        let gap = [leaf.as_str(), &root.pem].concat();
        assert!(check(&gap, &key).unwrap_err().contains("did not issue"));
        // Chains of one CA share its bytes.
        let (again, _) = check(&whole, &key).unwrap();
        assert_eq!(certified.key.cert[1].as_ref().as_ptr(), again.key.cert[1].as_ref().as_ptr());
    }

    #[test]
    fn what_cannot_be_served_is_refused_in_words() {
        let root = ca("root", None);
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let good = leaf(&root, &["a.example"], &key);
        let nameless = leaf(&root, &[], &key);
        let (key, other) = (key.serialize_pem(), other.serialize_pem());
        for (chain, private_key, expected) in [
            ("", key.as_str(), "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, "damaged"),
            (&good, &other, "does not belong"),
            (&good, "", "no private key"),
            (&good, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "encrypted"),
            (&nameless, &key, "names no DNS name"),
        ] {
            let what = check(chain, private_key).unwrap_err();
            assert!(what.contains(expected), "{expected}: {what}");
        }
    }

    #[test]
    fn the_public_key_is_compared_without_parsing_for_every_common_form() {
        for kind in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_RSA_SHA256,
        ] {
            let root = ca("root", None);
            let key = KeyPair::generate_for(kind).unwrap();
            let pem = leaf(&root, &["a.example"], &key);
            let (certified, _) = check(&pem, &key.serialize_pem()).unwrap();
            let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let (_, parsed) = X509Certificate::from_der(certified.leaf()).unwrap();
            let public = &parsed.public_key().subject_public_key.data;
            let held = has_public_key(&der, certified.kind, public) == Some(true);
            assert_eq!(held, certified.kind != KeyKind::Ed25519, "{:?}", certified.kind);
        }
    }
}
