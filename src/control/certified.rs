//! From the bytes of a chain and a private key to a checked certified key, or the words why not.

mod chain;
mod names;
mod private_key;
#[cfg(test)]
pub(super) mod samples;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use crate::clock::Moment;
use crate::name::Pattern;
use crate::snapshot::{KeyKind, LazyPrivateKey};
use crate::store::layout::fnv1a;

use self::chain::{check_order, intern, no_certificate, parse_certificates, read_certificates};
use self::names::read_names;
use self::private_key::{check_owner, key_kind, read_private_key};
use super::staples::pointers::{Named, Pointers};

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

/// A chain with its private key and what it is good for. With another staple, or revoked, it is the same but for
/// these, so all else is shared.
#[derive(Clone, Debug)]
pub struct Certified {
    pub key: Arc<CertifiedKey>,
    /// Its issuer is known to have revoked it.
    pub is_revoked: bool,
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
    Ok(Certified { key, is_revoked: false, about: Arc::new(about) })
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

/// Whether a file that was expected to be PEM begins like DER: a SEQUENCE with a length of two bytes.
fn is_der(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x30, 0x82])
}
