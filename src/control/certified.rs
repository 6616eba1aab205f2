//! From the bytes of a chain and a private key to a checked certified key, or the words why not.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use pkcs1::RsaPrivateKeyRef;
use pkcs8::PrivateKeyInfoRef;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sec1::EcPrivateKey;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate, X509Name};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::clock::Moment;
use crate::name::{Pattern, ServerName};
use crate::snapshot::{KeyKind, LazyPrivateKey};
use crate::store::layout::fnv1a;

use super::staples::pointers::{Named, Pointers};

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
/// How long before its end a certificate is warned of: a week leaves time to ask a person for a new one.
const WARN_BEFORE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where a certified key comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Two files that an operator named; one and the same if it holds both.
    ByHand {
        cert: PathBuf,
        key: PathBuf,
    },
    LocalCa,
    /// An ACME issuer, by its directory URL.
    Issued {
        issuer: Arc<str>,
    },
}

impl Source {
    fn chain(&self) -> String {
        match self {
            Self::ByHand { cert, .. } => cert.display().to_string(),
            Self::LocalCa => "the local CA's leaf".into(),
            Self::Issued { issuer } => format!("the certificate from {issuer}"),
        }
    }

    fn private_key(&self) -> String {
        match self {
            Self::ByHand { key, .. } => key.display().to_string(),
            Self::LocalCa => "the local CA's leaf".into(),
            Self::Issued { issuer } => format!("the certificate from {issuer}"),
        }
    }
}

/// A chain with its private key and what it is good for. With another staple it is the same but for its key, so
/// all else is shared.
#[derive(Clone, Debug)]
pub struct Certified {
    pub key: Arc<CertifiedKey>,
    pub(super) about: Arc<About>,
}

impl Deref for Certified {
    type Target = About;

    fn deref(&self) -> &About {
        &self.about
    }
}

/// What does not change with the staple.
#[derive(Clone, Debug)]
pub struct About {
    pub kind: KeyKind,
    /// The leaf's DNS names and IP addresses, sorted; at least one.
    pub patterns: Vec<Pattern>,
    pub not_before: Moment,
    pub not_after: Moment,
    pub source: Source,
    /// What an operator should know though it is served; kept, so that a reload says it again.
    pub notes: Vec<Note>,
    /// Whom the leaf names for asking about its revocation.
    pub named: Named,
    /// The root that follows the leaf in its file and is not sent.
    pub unsent_issuer: Option<&'static [u8]>,
    /// Of the chain's PEM: CertMagic names staples by it.
    pub chain_hash: u32,
    /// Of the bytes that it was made from.
    digest: [u8; 32],
}

impl Certified {
    /// What tells it from all others; the same for the same bytes.
    pub fn identity(&self) -> Identity {
        Identity(self.digest)
    }

    /// Whether a client with a right clock accepts the leaf's dates (RFC 5280 §4.1.2.5).
    pub fn is_valid(&self, now: Moment) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether it says that it is worth nothing without a staple (RFC 7633) and has none.
    pub fn lacks_staple(&self) -> bool {
        self.named.must_staple && self.key.ocsp.is_none()
    }

    /// Whether certifying these bytes would make the same certified key.
    pub fn is_from(&self, chain_pem: &[u8], key_pem: &[u8]) -> bool {
        self.digest == digest_of(chain_pem, key_pem)
    }

    /// What is to be said of the dates: over, not begun, or over within a week.
    pub fn note_of_dates(&self, now: Moment) -> Option<Note> {
        let About { not_before, not_after, .. } = &**self;
        let (chain, names) = (self.source.chain(), self.names());
        if now > *not_after {
            Some(Note::new(
                format!(
                    "{chain} HAS EXPIRED on {not_after} and is served all the same, for {names}"
                ),
                "replace it",
            ))
        } else if now < *not_before {
            Some(Note::new(
                format!(
                    "{chain} IS NOT VALID before {not_before} and is served all the same, for {names}"
                ),
                "check the machine's clock, or use it later",
            ))
        } else if not_after.since(now) < WARN_BEFORE {
            Some(Note::new(format!("{chain} expires on {not_after}, for {names}"), "replace it"))
        } else {
            None
        }
    }

    fn names(&self) -> String {
        let first = self.patterns.first().map(ToString::to_string).unwrap_or_default();
        match self.patterns.len() {
            0 | 1 => first,
            more => format!("{first} and {} more", more - 1),
        }
    }
}

/// A chain with its private key, by the bytes of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity([u8; 32]);

impl Identity {
    /// A number that differs from one to the next.
    pub fn seed(&self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

/// Its file, its names and its end, for the log.
impl fmt::Display for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} until {}", self.source.chain(), self.names(), self.not_after)
    }
}

/// Something that an operator should know of a certified key that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub what: String,
    pub remedy: String,
}

impl Note {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Why a chain and a private key cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub what: String,
    pub remedy: String,
}

impl Refused {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Checks a chain and its private key: the key belongs to the leaf, the leaf comes first and each next
/// certificate issued the one before, the leaf names something. Dates are not judged here, since an
/// expired certificate is served if it is all there is.
///
/// The private key is compared, not parsed, wherever its file holds the public key too. So one whose
/// secret part alone is damaged is found when it first signs.
///
/// # Errors
/// The first thing that keeps it from being served, naming the file.
pub fn certify(chain_pem: &[u8], key_pem: &[u8], source: Source) -> Result<Certified, Refused> {
    let ders = read_certificates(chain_pem, &source)?;
    let certificates = parse_certificates(&ders, &source)?;
    let (Some(leaf), Some(leaf_der)) = (certificates.first(), ders.first()) else {
        return Err(no_certificate(chain_pem, &source));
    };
    let key = read_private_key(key_pem, &source)?;
    let kind = key_kind(leaf.public_key()).map_err(|what| {
        Refused::new(
            format!("{}: {what}", source.chain()),
            "issue it with an ECDSA P-256 or an RSA private key",
        )
    })?;
    check_owner(&key, &certificates, &source)?;

    let mut notes = Vec::new();
    let issuers = check_order(&certificates, &source, &mut notes)?;
    let patterns = read_names(leaf, &source, &mut notes)?;

    let mut chain = Vec::with_capacity(1 + issuers.len());
    chain.push(CertificateDer::from(leaf_der.to_vec()));
    chain.extend(issuers.iter().map(|der| CertificateDer::from(intern(der))));
    let validity = leaf.validity();
    let unsent = certificates.get(1).filter(|_| issuers.is_empty());
    let key = Arc::new(CertifiedKey::new(chain, Arc::new(LazyPrivateKey::new(kind, key))));
    let about = About {
        kind,
        patterns,
        not_before: Moment::from_unix_seconds(validity.not_before.timestamp()),
        not_after: Moment::from_unix_seconds(validity.not_after.timestamp()),
        source,
        notes,
        named: Pointers::of(leaf).named(),
        unsent_issuer: unsent.map(|root| intern(root.as_raw())),
        chain_hash: fnv1a(chain_pem),
        digest: digest_of(chain_pem, key_pem),
    };
    Ok(Certified { key, about: Arc::new(about) })
}

fn digest_of(chain_pem: &[u8], key_pem: &[u8]) -> [u8; 32] {
    let mut context = digest::Context::new(&SHA256);
    // The length keeps what is moved from one file to the other from looking the same.
    context.update(&chain_pem.len().to_be_bytes());
    context.update(chain_pem);
    context.update(key_pem);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

fn read_certificates(pem: &[u8], source: &Source) -> Result<Vec<Vec<u8>>, Refused> {
    let mut ders = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section {
            Ok((SectionKind::Certificate, der)) => ders.push(der),
            Ok(_) => {}
            Err(error) => {
                return Err(Refused::new(
                    format!("{} is no valid PEM: {error}", source.chain()),
                    "copy it again, from -----BEGIN to -----END",
                ));
            }
        }
    }
    Ok(ders)
}

fn parse_certificates<'a>(
    ders: &'a [Vec<u8>],
    source: &Source,
) -> Result<Vec<X509Certificate<'a>>, Refused> {
    let parse = |(index, der): (usize, &'a Vec<u8>)| match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err((index, "bytes follow its end".to_owned())),
        Err(error) => Err((index, error.to_string())),
    };
    ders.iter().enumerate().map(parse).collect::<Result<_, _>>().map_err(|(index, why)| {
        Refused::new(
            format!("certificate {} in {} is damaged: {why}", index + 1, source.chain()),
            "copy it again from where it was issued",
        )
    })
}

fn no_certificate(pem: &[u8], source: &Source) -> Refused {
    let chain = source.chain();
    let remedy = if is_der(pem) {
        format!(
            "it looks like DER; convert it: openssl x509 -inform DER -in {chain} -out {chain}.pem"
        )
    } else {
        "it must hold the leaf as -----BEGIN CERTIFICATE-----, then its intermediates".into()
    };
    Refused::new(format!("{chain} holds no certificate"), remedy)
}

fn read_private_key(pem: &[u8], source: &Source) -> Result<PrivateKeyDer<'static>, Refused> {
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

/// Whether a file that was expected to be PEM begins like DER: a SEQUENCE with a length of two bytes.
fn is_der(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x30, 0x82])
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// What the public key asks of a client; the error says what is wrong with it.
fn key_kind(public: &SubjectPublicKeyInfo<'_>) -> Result<KeyKind, String> {
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

fn check_owner(
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

/// Checks that each certificate issued the one before it. Returns the DER of those to send after the
/// leaf: all but a root, which a client has or does not trust (RFC 8446 §4.4.2).
fn check_order<'a>(
    certificates: &[X509Certificate<'a>],
    source: &Source,
    notes: &mut Vec<Note>,
) -> Result<Vec<&'a [u8]>, Refused> {
    let mut send = Vec::new();
    for (index, pair) in certificates.windows(2).enumerate() {
        let [below, above] = pair else { continue };
        let position = index + 2;
        if !issued(above, below) || is_self_signed(below) {
            return Err(Refused::new(
                format!(
                    "certificate {position} in {} ({}) did not issue the one before it ({})",
                    source.chain(),
                    above.subject(),
                    below.subject()
                ),
                "remove it, or put the chain in order: the leaf, its issuer, the issuer of that",
            ));
        }
        if is_self_signed(above) {
            notes.push(Note::new(
                format!(
                    "certificate {position} in {} ({}) is a root and is not sent",
                    source.chain(),
                    above.subject()
                ),
                "remove it, as clients use their own copy",
            ));
        } else {
            send.push(above.as_raw());
        }
    }
    Ok(send)
}

/// Whether names and, where both have them, key identifiers say that `issuer` issued `certificate`
/// (RFC 5280 §4.2.1.1). The signature is for clients to check.
fn issued(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    let identifiers = authority_identifier(certificate).zip(subject_identifier(issuer));
    same_name(certificate.issuer(), issuer.subject()) && identifiers.is_none_or(|(of, by)| of == by)
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    issued(certificate, certificate)
}

/// Names are equal also if their strings are of different types (RFC 5280 §7.1).
fn same_name(one: &X509Name<'_>, other: &X509Name<'_>) -> bool {
    one.as_raw() == other.as_raw() || one.to_string() == other.to_string()
}

fn authority_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => {
            identifier.key_identifier.as_ref().map(|identifier| identifier.0)
        }
        _ => None,
    })
}

fn subject_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
        _ => None,
    })
}

/// The leaf's names. The common name is none of them, as no client looks at it (RFC 9525 §2).
fn read_names(
    leaf: &X509Certificate<'_>,
    source: &Source,
    notes: &mut Vec<Note>,
) -> Result<Vec<Pattern>, Refused> {
    let chain = source.chain();
    let remedy = "issue it with its names as subjectAltName, for example DNS:www.example.com";
    let names = match leaf.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) => {
            return Err(Refused::new(
                format!(
                    "the leaf in {chain} has no subjectAltName, and clients ignore its common name"
                ),
                remedy,
            ));
        }
        Err(error) => {
            return Err(Refused::new(
                format!("the leaf in {chain} has a damaged subjectAltName: {error}"),
                remedy,
            ));
        }
    };
    let mut patterns = Vec::with_capacity(names.len());
    for name in names {
        match pattern_of(name) {
            Some(Ok(pattern)) => patterns.push(pattern),
            Some(Err(text)) => notes.push(Note::new(
                format!("the leaf in {chain} names {text:?}, which no client can match"),
                "leave it out when the certificate is next issued",
            )),
            None => {}
        }
    }
    patterns.sort_unstable();
    patterns.dedup();
    patterns.shrink_to_fit();
    if patterns.is_empty() {
        return Err(Refused::new(
            format!("the leaf in {chain} names neither a DNS name nor an IP address"),
            remedy,
        ));
    }
    Ok(patterns)
}

/// `None` for a kind of name that is not for servers, `Err` for one that is written wrong.
fn pattern_of(name: &GeneralName<'_>) -> Option<Result<Pattern, String>> {
    match name {
        GeneralName::DNSName(text) => Some(match Pattern::parse(text) {
            // An address as a DNS name matches nothing, and a bare * neither (RFC 9525 §6.3).
            Ok(Pattern::Exact(name)) if name.as_ip().is_some() => Err((*text).to_owned()),
            Ok(Pattern::Any) | Err(_) => Err((*text).to_owned()),
            Ok(pattern) => Ok(pattern),
        }),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(match address {
                Ok(address) => Ok(Pattern::Exact(ServerName::from_ip(address))),
                Err(_) => Err(format!("an IP address of {} bytes", bytes.len())),
            })
        }
        _ => None,
    }
}

/// The one copy of an intermediate that all chains share.
///
/// It is never freed. That is bounded: only files of the operator get here, after all checks, and they
/// name the few intermediates of their issuers however many leaves there are.
fn intern(der: &[u8]) -> &'static [u8] {
    static INTERMEDIATES: LazyLock<Mutex<HashSet<&'static [u8]>>> = LazyLock::new(Mutex::default);
    let mut known = INTERMEDIATES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = known.get(der) {
        return shared;
    }
    let shared: &'static [u8] = Box::leak(Box::from(der));
    known.insert(shared);
    shared
}

#[cfg(test)]
pub(super) mod samples {
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa,
        KeyPair, SignatureAlgorithm,
    };

    use super::*;
    use crate::store::file;

    pub const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);
    pub const DAY: Duration = Duration::from_secs(24 * 3600);

    /// An issuer of test certificates: a root and an intermediate.
    pub struct Issuer {
        pub root: CertifiedIssuer<'static, KeyPair>,
        pub intermediate: CertifiedIssuer<'static, KeyPair>,
    }

    impl Issuer {
        pub fn new(name: &str) -> Self {
            let params = |kind| {
                let mut params = CertificateParams::default();
                params.distinguished_name = DistinguishedName::new();
                params.distinguished_name.push(DnType::CommonName, format!("{name} {kind}"));
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.use_authority_key_identifier_extension = true;
                params
            };
            let root =
                CertifiedIssuer::self_signed(params("root"), KeyPair::generate().unwrap()).unwrap();
            let key = KeyPair::generate().unwrap();
            let intermediate =
                CertifiedIssuer::signed_by(params("intermediate"), key, &root).unwrap();
            Self { root, intermediate }
        }

        /// A leaf for these names, valid from 30 days before [`NOW`] to `not_after`, as PEM.
        pub fn leaf(&self, names: &[&str], key: &KeyPair, not_after: Moment) -> String {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let mut params = CertificateParams::new(names).unwrap();
            params.use_authority_key_identifier_extension = true;
            params.not_before = date(NOW.minus(30 * DAY));
            params.not_after = date(not_after);
            params.signed_by(key, &self.intermediate).unwrap().pem()
        }

        /// Chain and private key.
        pub fn pair(
            &self,
            names: &[&str],
            algorithm: &'static SignatureAlgorithm,
        ) -> (String, String) {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let chain = self.leaf(names, &key, NOW.plus(60 * DAY)) + &self.intermediate.pem();
            (chain, key.serialize_pem())
        }

        /// A certified key on P-256 by hand.
        pub fn certified(&self, names: &[&str], not_after: Moment) -> Certified {
            let key = KeyPair::generate().unwrap();
            certified(&self.leaf(names, &key, not_after), &key.serialize_pem()).unwrap()
        }
    }

    pub fn certified(chain: &str, key: &str) -> Result<Certified, Refused> {
        certify(chain.as_bytes(), key.as_bytes(), source())
    }

    pub fn source() -> Source {
        Source::ByHand { cert: "/etc/a.crt".into(), key: "/etc/a.key".into() }
    }

    pub fn date(moment: Moment) -> time::OffsetDateTime {
        time::OffsetDateTime::from_unix_timestamp(moment.unix_seconds()).unwrap()
    }

    /// An identity of its own for each number.
    pub fn identity(number: u8) -> Identity {
        Identity([number; 32])
    }

    /// A directory of one test, removed at its end.
    pub struct Scratch(pub PathBuf);

    impl Scratch {
        /// `name` is for whoever finds a leftover; two of the same name are two directories.
        pub fn new(name: &str) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(format!("ringgate-{process}-{number}-{name}"));
            let _ = std::fs::remove_dir_all(&path);
            file::create_directory(&path).unwrap();
            Self(path)
        }

        pub fn write(&self, name: &str, content: &str) -> PathBuf {
            let path = self.0.join(name);
            file::write(&path, content.as_bytes(), 0o600).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// What openssl makes of `input`, which stands for `IN` in the arguments.
    pub fn openssl(input: &str, arguments: &str) -> String {
        let scratch = Scratch::new(&format!("openssl-{:?}", std::thread::current().id()));
        let file = scratch.write("in", input).display().to_string();
        let arguments = arguments.split(' ').map(|word| if word == "IN" { &file } else { word });
        let output = Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;
    use proptest::prelude::*;
    use rcgen::{
        KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512,
        PKCS_ED25519, PKCS_RSA_SHA256,
    };

    /// A leaf and its private key in one text.
    fn self_signed_by_openssl(new_key: &str) -> String {
        let names = "-subj /CN=x -addext subjectAltName=DNS:a.example";
        openssl("", &format!("req -x509 -nodes {names} {new_key} -keyout - -out -"))
    }

    fn refused(chain: &str, key: &str) -> String {
        certified(chain, key).expect_err("it is refused").to_string()
    }

    #[test]
    fn every_kind_and_form_of_private_key_is_recognised_and_signs() {
        let issuer = Issuer::new("kinds");
        let without_and_compressed =
            ["ec -in IN", "ec -in IN -no_public", "ec -in IN -conv_form compressed"];
        let cases: [(_, _, &[&str]); 5] = [
            (&PKCS_ECDSA_P256_SHA256, KeyKind::EcdsaP256, &without_and_compressed),
            (&PKCS_ECDSA_P384_SHA384, KeyKind::EcdsaP384, &["ec -in IN"]),
            (&PKCS_ECDSA_P521_SHA512, KeyKind::EcdsaP521, &["ec -in IN"]),
            (&PKCS_ED25519, KeyKind::Ed25519, &[]),
            (&PKCS_RSA_SHA256, KeyKind::Rsa, &["rsa -in IN -traditional"]),
        ];
        let mut pairs = Vec::new();
        for (algorithm, kind, forms) in cases {
            let (chain, key) = issuer.pair(&["a.example"], algorithm);
            let forms = forms.iter().map(|form| openssl(&key, form)).chain([key.clone()]);
            pairs.extend(forms.map(|key| (chain.clone(), key, kind)));
        }
        // openssl writes an Ed25519 private key without the public one.
        let both = self_signed_by_openssl("-newkey ed25519");
        pairs.push((both.clone(), both, KeyKind::Ed25519));
        for (chain, key, kind) in pairs {
            let certified = certified(&chain, &key)
                .unwrap_or_else(|refused| panic!("{kind:?}: {refused}\n{key}"));
            assert_eq!((certified.kind, certified.notes.len()), (kind, 0));
            let all = [
                rustls::SignatureScheme::ECDSA_NISTP256_SHA256,
                rustls::SignatureScheme::ECDSA_NISTP384_SHA384,
                rustls::SignatureScheme::ECDSA_NISTP521_SHA512,
                rustls::SignatureScheme::ED25519,
                rustls::SignatureScheme::RSA_PSS_SHA256,
            ];
            let signer = certified.key.key.choose_scheme(&all).expect("the private key parses");
            assert!(!signer.sign(b"message").unwrap().is_empty());
        }
    }

    #[test]
    fn the_public_key_beside_the_private_one_is_found_without_parsing() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let der = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            assert!(public_half(&der).is_some());
        }
    }

    #[test]
    fn the_chain_is_sent_without_its_root_and_intermediates_share_their_bytes() {
        let issuer = Issuer::new("chain");
        let (chain, key) = issuer.pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        let with_root = chain.clone() + &issuer.root.pem();
        let certified_with_root = certified(&with_root, &key).unwrap();
        let plain = certified(&chain, &key).unwrap();
        assert_eq!(certified_with_root.key.cert, plain.key.cert);
        assert_eq!(plain.key.cert.len(), 2);
        assert!(std::ptr::eq(plain.key.cert[1].as_ref(), certified_with_root.key.cert[1].as_ref()));
        assert_eq!(
            certified_with_root.notes[0].to_string(),
            "certificate 3 in /etc/a.crt (CN=chain root) is a root and is not sent; remove it, as clients use their own copy"
        );
        assert!(plain.notes.is_empty());
        assert!(
            plain.is_from(chain.as_bytes(), key.as_bytes())
                && !plain.is_from(with_root.as_bytes(), key.as_bytes())
        );
    }

    #[test]
    fn a_self_signed_leaf_is_served() {
        let key = KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let leaf = params.self_signed(&key).unwrap().pem();
        assert_eq!(certified(&leaf, &key.serialize_pem()).unwrap().key.cert.len(), 1);
    }

    #[test]
    fn chain_and_key_may_share_a_file() {
        let (chain, key) = Issuer::new("shared").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        for both in [chain.clone() + &key, key + &chain] {
            assert_eq!(certified(&both, &both).unwrap().key.cert.len(), 2);
        }
    }

    #[test]
    fn a_chain_in_the_wrong_order_or_with_strangers_is_refused() {
        let issuer = Issuer::new("order");
        let stranger = Issuer::new("stranger");
        // One of the same name, but with another key.
        let renewed = Issuer::new("order");
        let key = KeyPair::generate().unwrap();
        let leaf = issuer.leaf(&["a.example"], &key, NOW);
        let key = key.serialize_pem();
        let (above, root) = (issuer.intermediate.pem(), issuer.root.pem());
        assert_eq!(
            refused(&(above.clone() + &leaf), &key),
            "the chain is in the wrong order, the leaf must come first: /etc/a.crt has it as certificate 2; \
             move the leaf to the top, its issuer below it, and so on"
        );
        for (chain, position) in [
            ([&leaf, &root, &above], 2),
            ([&leaf, &above, &stranger.intermediate.pem()], 3),
            ([&leaf, &stranger.root.pem(), &above], 2),
            ([&leaf, &above, &leaf], 3),
            ([&leaf, &renewed.intermediate.pem(), &root], 2),
            ([&leaf, &leaf, &above], 2),
        ] {
            let chain: String = chain.into_iter().map(String::as_str).collect();
            let words = refused(&chain, &key);
            assert!(
                words.starts_with(&format!("certificate {position} in /etc/a.crt (CN=")),
                "{words}"
            );
            assert!(words.contains("did not issue the one before it"), "{words}");
        }
        let after_root = [leaf, above.clone(), root, above].concat();
        assert!(refused(&after_root, &key).contains("certificate 4 in"));
    }

    #[test]
    fn a_private_key_of_another_certificate_is_refused_naming_both_files() {
        let issuer = Issuer::new("owner");
        let (chain, _) = issuer.pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519, &PKCS_RSA_SHA256] {
            let (_, other) = issuer.pair(&["a.example"], algorithm);
            let words = refused(&chain, &other);
            assert!(
                words.starts_with(
                    "the private key does not belong to the certificate: /etc/a.key and /etc/a.crt"
                ),
                "{words}"
            );
        }
    }

    #[test]
    fn an_encrypted_private_key_is_refused_with_those_words() {
        let issuer = Issuer::new("encrypted");
        let (chain, ec) = issuer.pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        let pkcs8 = openssl(&ec, "pkey -in IN -aes256 -passout pass:secret");
        let traditional = openssl(&ec, "ec -in IN -aes256 -passout pass:secret");
        for key in [pkcs8, traditional] {
            assert_eq!(
                refused(&chain, &key),
                "the private key is encrypted: /etc/a.key; decrypt it: \
                 openssl pkey -in /etc/a.key -out /etc/a.key.decrypted, and use that file"
            );
        }
    }

    #[test]
    fn files_of_other_kinds_are_refused_in_words() {
        let (chain, key) = Issuer::new("files").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        for (cert, private_key, expected) in [
            ("", &*key, "/etc/a.crt holds no certificate; it must"),
            ("hello\n", &key, "/etc/a.crt holds no certificate; it must"),
            (&key, &key, "/etc/a.crt holds no certificate; it must"),
            ("0\u{2}", &key, "/etc/a.crt holds no certificate; it must"),
            (&chain[..200], &key, "/etc/a.crt is no valid PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &key,
                "certificate 1 in /etc/a.crt is damaged",
            ),
            (&chain, "", "/etc/a.key holds no private key; it must"),
            (&chain, &chain, "/etc/a.key holds no private key; it must"),
            (&chain, &key[..100], "/etc/a.key is no valid PEM"),
            (
                &chain,
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "the private key in /etc/a.key cannot be used",
            ),
        ] {
            let words = refused(cert, private_key);
            assert!(words.starts_with(expected), "{words}");
        }
        let der = certify(&[0x30, 0x82, 1, 2], key.as_bytes(), source()).unwrap_err();
        assert!(der.remedy.contains("openssl x509 -inform DER -in /etc/a.crt"), "{der}");
    }

    #[test]
    fn weak_and_unknown_keys_are_refused() {
        for (new, expected) in [
            ("-newkey rsa:1024", "/etc/a.crt: its RSA key has 1024 bits, not 2048 to 8192"),
            ("-newkey ec -pkeyopt ec_paramgen_curve:secp256k1", "its elliptic curve is none of"),
            ("-newkey ed448", "its public key is none of"),
        ] {
            let both = self_signed_by_openssl(new);
            let words = refused(&both, &both);
            assert!(words.contains(expected), "{words}");
        }
    }

    #[test]
    fn names_come_from_the_subject_alternative_name_alone() {
        let issuer = Issuer::new("names");
        let key = KeyPair::generate().unwrap();
        let names = ["b.Example", "*.a.example", "127.0.0.1", "::1", "b.example"];
        let leaf = issuer.leaf(&names, &key, NOW);
        let key_pem = key.serialize_pem();
        let served = certified(&leaf, &key_pem).unwrap();
        let mut expected: Vec<_> = ["b.example", "*.a.example", "127.0.0.1", "::1"]
            .map(|text| Pattern::parse(text).unwrap())
            .into();
        expected.sort_unstable();
        assert_eq!(served.patterns, expected);

        let without = issuer.leaf(&[], &key, NOW);
        assert!(
            refused(&without, &key_pem)
                .contains("has no subjectAltName, and clients ignore its common name")
        );
        let odd = issuer.leaf(&["*", "a b", "w*.example", "good.example"], &key, NOW);
        let odd = certified(&odd, &key_pem).unwrap();
        assert_eq!((odd.patterns.len(), odd.notes.len()), (1, 3));
        assert!(
            odd.notes[1].what.contains("\"a b\", which no client can match"),
            "{}",
            odd.notes[1]
        );
        let useless = issuer.leaf(&["*"], &key, NOW);
        assert!(refused(&useless, &key_pem).contains("names neither a DNS name nor an IP address"));
    }

    #[test]
    fn dates_are_noted_and_do_not_refuse() {
        let issuer = Issuer::new("dates");
        let begins = NOW.minus(30 * DAY);
        for (not_after, now, valid, expected) in [
            (NOW.plus(30 * DAY), NOW, true, None),
            (NOW.plus(7 * DAY), NOW, true, None),
            (
                NOW.plus(6 * DAY),
                NOW,
                true,
                Some("expires on 2027-01-21 08:00:00 UTC, for a.example and 1 more; replace it"),
            ),
            (NOW, NOW, true, Some("expires on")),
            (
                NOW,
                NOW.plus(Duration::from_secs(1)),
                false,
                Some("HAS EXPIRED on 2027-01-15 08:00:00 UTC and is served"),
            ),
            (NOW.plus(30 * DAY), begins.minus(DAY), false, Some("IS NOT VALID before 2026-12-16")),
            (NOW.plus(30 * DAY), begins, true, None),
        ] {
            let certified = issuer.certified(&["a.example", "b.example"], not_after);
            assert_eq!(certified.is_valid(now), valid);
            let note = certified.note_of_dates(now).map(|note| note.to_string());
            match expected {
                Some(expected) => {
                    assert!(note.as_ref().is_some_and(|note| note.contains(expected)), "{note:?}")
                }
                None => assert_eq!(note, None),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn bytes_of_any_kind_never_panic(chain in any::<Vec<u8>>(), key in any::<Vec<u8>>()) {
            prop_assert!(certify(&chain, &key, source()).is_err());
        }

        #[test]
        fn a_changed_file_never_panics(at in any::<prop::sample::Index>(), to in b'A'..=b'Z', in_chain in any::<bool>()) {
            static PAIR: LazyLock<(String, String)> =
                LazyLock::new(|| Issuer::new("changed").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256));
            let (mut chain, mut key) = (PAIR.0.clone().into_bytes(), PAIR.1.clone().into_bytes());
            let file = if in_chain { &mut chain } else { &mut key };
            let at = at.index(file.len());
            file[at] = to;
            let _ = certify(&chain, &key, source());
        }
    }
}
