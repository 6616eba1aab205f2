//! The local CA: an issuer of our own for names that nothing else covers, kept in the store.
//!
//! `root.crt` and `root.key` are made once and never overwritten silently, since people have installed the
//! root in their trust stores. Leaves lie in `leaves/`; losing one costs nothing.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Moment;
use crate::name::Pattern;
use crate::store::file;

use super::certified::{Certified, Source, certify};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Installing a root in trust stores is work for people, so it is asked of them once in ten years.
const ROOT_LIFE: Duration = Duration::from_secs(3650 * DAY.as_secs());
/// A root with less life left is replaced: well over a leaf's life, so that no leaf outlives its root.
const ROOT_REPLACED_BEFORE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// Leaves are renewed without anyone's help, and what is lost with a machine is soon worthless.
const LEAF_LIFE: Duration = Duration::from_secs(7 * DAY.as_secs());
/// Clients whose clock is late by no more than this accept what was just issued.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
/// A certificate is due when one part in so many of its life is left (what Let's Encrypt recommends).
const LEFT_WHEN_DUE: u32 = 3;
/// RFC 5280 §4.1.2.2 allows 20 octets; 16 at random never repeat.
const SERIAL_BYTES: usize = 16;
/// Of ours none has a tenth of it.
const LONGEST_FILE: usize = 64 * 1024;
/// File names end at 255 bytes on Linux; a name that could exceed it with its ending is hashed.
const LONGEST_STEM: usize = 240;

const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;

/// When a certificate with these dates should be renewed.
pub fn due_at(not_before: Moment, not_after: Moment) -> Moment {
    not_after.minus(not_after.since(not_before) / LEFT_WHEN_DUE)
}

/// Whether a certificate should be renewed: a third of its life is left, or it has not begun since the
/// clock was set back.
pub fn renewal_due(not_before: Moment, not_after: Moment, now: Moment) -> bool {
    now >= due_at(not_before, not_after) || now < not_before
}

/// Why the local CA cannot be used or cannot issue.
#[derive(Debug)]
pub struct Unusable {
    pub what: String,
    pub remedy: String,
}

impl Unusable {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    fn disk(error: &io::Error) -> Self {
        Self::new(error.to_string(), "the directory must be ringgate's to read and write")
    }

    fn random() -> Self {
        Self::new("the system's random source failed", "restart ringgate")
    }

    fn internal(error: impl fmt::Display) -> Self {
        Self::new(
            format!("a certificate cannot be made: {error}"),
            "report this as a bug of ringgate",
        )
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Unusable {}

/// The local CA, with its root.
pub struct LocalCa {
    leaves: PathBuf,
    root_path: PathBuf,
    root_pem: String,
    root_not_after: Moment,
    /// The subject in DER.
    root_name: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl LocalCa {
    /// Whether one was made in `directory`.
    pub fn is_in(directory: &Path) -> bool {
        root_files(directory).0.exists()
    }

    /// Opens the local CA in `directory`, making it if nothing is there. A root at the end of its life is
    /// replaced, the old one kept beside it. Also returns warnings.
    ///
    /// # Errors
    /// If the disk fails, or a file of the root is damaged or its private key missing: then nothing is changed.
    pub fn open(directory: &Path, now: Moment) -> Result<(Self, Vec<String>), Unusable> {
        file::create_directory(directory).map_err(|error| Unusable::disk(&error))?;
        // `run` and `trust` may be started at the same time, and only one may make the root.
        let _held = file::hold(directory).map_err(|error| Unusable::disk(&error))?;
        let mut warnings = Vec::new();
        let ca = match Self::read(directory)? {
            None => {
                let (_, key_path) = root_files(directory);
                let key = match file::read(&key_path, LONGEST_FILE) {
                    // Clients that trust a root of this private key go on trusting the new one.
                    Ok(pem) => read_private_key(&pem)
                        .ok_or_else(|| damaged(directory, &key_path, "is damaged"))?,
                    Err(_) => new_private_key()?,
                };
                make_root(directory, &key, now)?;
                Self::reread(directory)?
            }
            Some(old) if old.root_not_after.since(now) < ROOT_REPLACED_BEFORE => {
                let kept = old.keep_aside(directory)?;
                make_root(directory, &new_private_key()?, now)?;
                let new = Self::reread(directory)?;
                warnings.push(format!(
                    "the local CA's root was valid until {} and is replaced; install {} (ringgate trust --install), remove {}",
                    old.root_not_after,
                    new.root_path.display(),
                    kept.display()
                ));
                new
            }
            Some(ca) => ca,
        };
        Ok((ca, warnings))
    }

    fn reread(directory: &Path) -> Result<Self, Unusable> {
        Self::read(directory)?
            .ok_or_else(|| Unusable::new("the root that was just made is gone", "try again"))
    }

    fn read(directory: &Path) -> Result<Option<Self>, Unusable> {
        let (root_path, key_path) = root_files(directory);
        let either = |path| match file::read(path, LONGEST_FILE) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Unusable::disk(&error)),
        };
        let (root, key) = match (either(&root_path)?, either(&key_path)?) {
            (Some(root), Some(key)) => (root, key),
            // A private key alone is what a crash leaves behind while the root is made.
            (None, _) => return Ok(None),
            (Some(_), None) => return Err(damaged(directory, &key_path, "is missing")),
        };
        let key =
            read_private_key(&key).ok_or_else(|| damaged(directory, &key_path, "is damaged"))?;
        let damage = || damaged(directory, &root_path, "is damaged");
        let root_pem = String::from_utf8(root).map_err(|_| damage())?;
        let der = CertificateDer::from_pem_slice(root_pem.as_bytes()).map_err(|_| damage())?;
        let (_, root) = X509Certificate::from_der(&der).map_err(|_| damage())?;
        if *root.public_key().subject_public_key.data != *key.der_bytes() {
            return Err(damaged(directory, &root_path, "does not belong to root.key"));
        }
        let root_not_after = Moment::from_unix_seconds(root.validity().not_after.timestamp());
        let root_name = root.subject().as_raw().to_vec();
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| damage())?;
        let leaves = directory.join("leaves");
        Ok(Some(Self { leaves, root_path, root_pem, root_not_after, root_name, issuer }))
    }

    /// Copies the root and its private key to names of their own.
    fn keep_aside(&self, directory: &Path) -> Result<PathBuf, Unusable> {
        let (root_path, key_path) = root_files(directory);
        let until = self.root_not_after.to_string();
        let until = until.split(' ').next().unwrap_or(&until);
        let aside = directory.join(format!("root-{until}.crt"));
        let copy = |from: &Path, to: &Path, mode| {
            file::read(from, LONGEST_FILE)
                .and_then(|content| file::write(to, &content, mode))
                .map_err(|error| Unusable::disk(&error))
        };
        copy(&root_path, &aside, PUBLIC)?;
        copy(&key_path, &directory.join(format!("root-{until}.key")), PRIVATE)?;
        Ok(aside)
    }

    /// The root for clients to trust, as PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Where the root lies.
    pub fn root_path(&self) -> &Path {
        &self.root_path
    }

    /// Tells this root from others, short enough for a file name; its common name ends in it.
    pub fn fingerprint(&self) -> String {
        fingerprint_of(self.issuer.key())
    }

    /// The leaf for a pattern: the stored one unless it is due, else a new one, which is then stored. One
    /// that could not be stored is returned with a warning.
    ///
    /// # Errors
    /// If no certificate can name the pattern, or the system's random source fails.
    pub fn leaf(
        &self,
        pattern: &Pattern,
        now: Moment,
    ) -> Result<(Arc<Certified>, Option<String>), Unusable> {
        let path = self.leaves.join(file_name(pattern));
        if let Some(stored) = self.stored_leaf(&path, pattern, now) {
            return Ok((Arc::new(stored), None));
        }
        let pem = self.issue(pattern, now)?;
        let leaf =
            certify(pem.as_bytes(), pem.as_bytes(), Source::LocalCa).map_err(Unusable::internal)?;
        let stored = file::create_directory(&self.leaves)
            .and_then(|()| file::write(&path, pem.as_bytes(), PRIVATE));
        let warning = stored.err().map(|error| {
            format!("the local CA's leaf for {pattern} is served but not stored: {error}; a restart issues another")
        });
        Ok((Arc::new(leaf), warning))
    }

    /// `None` for whatever reason: a new one is as good.
    fn stored_leaf(&self, path: &Path, pattern: &Pattern, now: Moment) -> Option<Certified> {
        let pem = file::read(path, LONGEST_FILE).ok()?;
        let leaf = certify(&pem, &pem, Source::LocalCa).ok()?;
        let wanted = leaf.patterns == std::slice::from_ref(pattern)
            && !renewal_due(leaf.not_before, leaf.not_after, now)
            && self.has_signed(leaf.key.cert.first()?);
        wanted.then_some(leaf)
    }

    fn has_signed(&self, leaf: &CertificateDer<'_>) -> bool {
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return false };
        let root = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.issuer.key().der_bytes());
        leaf.issuer().as_raw() == self.root_name
            && root.verify(leaf.tbs_certificate.as_ref(), &leaf.signature_value.data).is_ok()
    }

    /// A new leaf and its private key as PEM. The root is not sent, so the chain is the leaf alone.
    fn issue(&self, pattern: &Pattern, now: Moment) -> Result<String, Unusable> {
        let mut params = params(now, now.plus(LEAF_LIFE).min(self.root_not_after))?;
        params.subject_alt_names = vec![alternative_name(pattern)?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = new_private_key()?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(Unusable::internal)?;
        Ok(leaf.pem() + &key.serialize_pem())
    }
}

fn root_files(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("root.crt"), directory.join("root.key"))
}

fn damaged(directory: &Path, path: &Path, how: &str) -> Unusable {
    let (root, key) = root_files(directory);
    Unusable::new(
        format!("{} {how}", path.display()),
        format!(
            "restore {0} and {1} from a copy, or remove both: then a new root is made, which clients must be told to trust",
            root.display(),
            key.display()
        ),
    )
}

/// The private key is stored before the root: a root is only ever seen with its private key.
fn make_root(directory: &Path, key: &KeyPair, now: Moment) -> Result<(), Unusable> {
    let mut params = params(now, now.plus(ROOT_LIFE))?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Ringgate local CA {}", fingerprint_of(key)));
    // No CA below this one (RFC 5280 §4.2.1.9).
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(key).map_err(Unusable::internal)?;
    let (root_path, key_path) = root_files(directory);
    file::write(&key_path, key.serialize_pem().as_bytes(), PRIVATE)
        .and_then(|()| file::write(&root_path, root.pem().as_bytes(), PUBLIC))
        .map_err(|error| Unusable::disk(&error))
}

/// What root and leaf have in common: a random serial number and dates.
fn params(now: Moment, not_after: Moment) -> Result<CertificateParams, Unusable> {
    let date = |moment: Moment| {
        OffsetDateTime::from_unix_timestamp(moment.unix_seconds()).map_err(|_| {
            Unusable::new(format!("the machine's clock says {moment}"), "set the clock")
        })
    };
    let mut serial = [0; SERIAL_BYTES];
    rand::fill(&mut serial).map_err(|_| Unusable::random())?;
    // Positive and of full length (RFC 5280 §4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = date(now.minus(CLOCK_SKEW))?;
    params.not_after = date(not_after)?;
    Ok(params)
}

fn read_private_key(pem: &[u8]) -> Option<KeyPair> {
    let key = KeyPair::from_pem(std::str::from_utf8(pem).ok()?).ok()?;
    Some(key).filter(|key| key.algorithm() == &PKCS_ECDSA_P256_SHA256)
}

fn new_private_key() -> Result<KeyPair, Unusable> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| Unusable::random())
}

fn alternative_name(pattern: &Pattern) -> Result<SanType, Unusable> {
    if let Pattern::Exact(name) = pattern
        && let Some(address) = name.as_ip()
    {
        return Ok(SanType::IpAddress(address));
    }
    if *pattern == Pattern::Any {
        return Err(Unusable::new("no certificate can name *", "write a route for each name"));
    }
    pattern.to_string().try_into().map(SanType::DnsName).map_err(Unusable::internal)
}

/// The first eight digits of the public key's SHA-256: enough to tell the roots of one team apart.
fn fingerprint_of(key: &KeyPair) -> String {
    hex(&digest(&SHA256, key.der_bytes()).as_ref()[..4])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// No name contains a slash. A name that itself begins with `_wildcard.` would take turns with the wildcard
/// in one file, which costs an issue at each start and nothing else.
fn file_name(pattern: &Pattern) -> String {
    let stem = match pattern {
        Pattern::Exact(name) => name.to_string(),
        Pattern::Wildcard(parent) => format!("_wildcard.{parent}"),
        Pattern::Any => "_any".into(),
    };
    if stem.len() <= LONGEST_STEM {
        format!("{stem}.pem")
    } else {
        format!("{}.pem", hex(digest(&SHA256, stem.as_bytes()).as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::super::certified::samples::{NOW, Scratch, openssl};
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn open(scratch: &Scratch, now: Moment) -> LocalCa {
        let (ca, warnings) = LocalCa::open(&scratch.0, now).unwrap();
        assert_eq!(warnings, [""; 0]);
        ca
    }

    fn leaf(ca: &LocalCa, text: &str, now: Moment) -> Arc<Certified> {
        let (leaf, warning) = ca.leaf(&pattern(text), now).unwrap();
        assert_eq!(warning, None);
        leaf
    }

    fn der(certified: &Certified) -> &[u8] {
        certified.key.cert.first().unwrap()
    }

    /// What a client says that trusts this root.
    fn client(
        root_pem: &str,
        leaf: &Certified,
        name: &str,
        now: Moment,
    ) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        let [leaf] = leaf.key.cert.as_slice() else { panic!("the root is not sent") };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unix_seconds() as u64));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(leaf, &[], &name, &[], now).map(drop)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_certificate_is_due_when_a_third_of_its_life_is_left() {
        let at = Moment::from_unix_seconds;
        for (not_before, not_after, due) in [(0, 90, 60), (100, 103, 102), (50, 50, 50), (9, 5, 5)]
        {
            assert_eq!(due_at(at(not_before), at(not_after)), at(due));
        }
        for (now, due) in [(-1, true), (0, false), (59, false), (60, true), (90, true), (91, true)]
        {
            assert_eq!(renewal_due(at(0), at(90), at(now)), due, "at {now}");
        }
    }

    #[test]
    fn clients_that_trust_the_root_accept_the_leaves() {
        let scratch = Scratch::new("ca-clients");
        let ca = open(&scratch, NOW);
        for (text, accepted, refused) in [
            ("app.localhost", "app.localhost", "localhost"),
            ("localhost", "localhost", "app.localhost"),
            ("*.app.test", "x.app.test", "app.test"),
            ("under_score.test", "under_score.test", "score.test"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("::1", "::1", "::2"),
        ] {
            let leaf = leaf(&ca, text, NOW);
            assert_eq!(
                (leaf.patterns.as_slice(), &leaf.source),
                (&[pattern(text)][..], &Source::LocalCa)
            );
            assert_eq!(
                (leaf.not_before, leaf.not_after),
                (NOW.minus(CLOCK_SKEW), NOW.plus(LEAF_LIFE))
            );
            for now in [leaf.not_before, NOW, leaf.not_after] {
                client(ca.root_pem(), &leaf, accepted, now)
                    .unwrap_or_else(|error| panic!("{text}: {error}"));
            }
            assert!(client(ca.root_pem(), &leaf, refused, NOW).is_err());
        }
        assert!(ca.leaf(&Pattern::Any, NOW).is_err());
    }

    #[test]
    fn the_root_says_what_it_may_do() {
        let scratch = Scratch::new("ca-root");
        let ca = open(&scratch, NOW);
        assert_eq!(ca.root_path(), scratch.0.join("root.crt"));
        assert_eq!((mode(ca.root_path()), mode(&scratch.0.join("root.key"))), (0o644, 0o600));
        let text = openssl(ca.root_pem(), "x509 -in IN -noout -text -nameopt RFC2253");
        for expected in [
            format!("Subject: CN=Ringgate local CA {}", ca.fingerprint()),
            "Not After : Jan 12 08:00:00 2037 GMT".into(),
            "CA:TRUE, pathlen:0".into(),
            "Certificate Sign, CRL Sign".into(),
        ] {
            assert!(text.contains(&expected), "{expected} in {text}");
        }
        let leaf = leaf(&ca, "*.a.test", NOW);
        let path = scratch.0.join("leaves/_wildcard.a.test.pem");
        assert_eq!(mode(&path), 0o600);
        let pem = String::from_utf8(file::read(&path, 10_000).unwrap()).unwrap();
        let text = openssl(&pem, "x509 -in IN -noout -text");
        for expected in [
            "DNS:*.a.test\n",
            "TLS Web Server Authentication\n",
            "Digital Signature\n",
            "Authority Key Identifier",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        let (_, leaf) = X509Certificate::from_der(der(&leaf)).unwrap();
        assert_eq!(leaf.raw_serial().len(), SERIAL_BYTES);
        assert!(leaf.raw_serial()[0] < 0x80);
    }

    #[test]
    fn root_and_leaves_survive_a_restart_and_leaves_are_renewed() {
        let scratch = Scratch::new("ca-restart");
        let first = open(&scratch, NOW);
        let issued = leaf(&first, "a.test", NOW);
        let second = open(&scratch, NOW);
        assert_eq!(
            (first.root_pem(), first.fingerprint()),
            (second.root_pem(), second.fingerprint())
        );
        let due = due_at(issued.not_before, issued.not_after);
        for (now, same) in [
            (NOW, true),
            (due.minus(Duration::from_secs(1)), true),
            (due, false),
            (NOW.minus(2 * CLOCK_SKEW), false),
        ] {
            let stored = leaf(&second, "a.test", NOW);
            assert_eq!(der(&leaf(&second, "a.test", now)) == der(&stored), same, "at {now}");
            file::write(&second.leaves.join("a.test.pem"), &[], 0o600).unwrap();
        }
    }

    #[test]
    fn a_stored_leaf_that_is_no_good_is_issued_again() {
        let (scratch, other) = (Scratch::new("ca-again"), Scratch::new("ca-other"));
        let ca = open(&scratch, NOW);
        let other_ca = open(&other, NOW);
        leaf(&other_ca, "a.test", NOW);
        leaf(&ca, "b.test", NOW);
        let read = |path: PathBuf| file::read(&path, 10_000).unwrap();
        let path = scratch.0.join("leaves/a.test.pem");
        for bad in [
            b"garbage".to_vec(),
            read(other.0.join("leaves/a.test.pem")),
            read(scratch.0.join("leaves/b.test.pem")),
        ] {
            file::write(&path, &bad, 0o600).unwrap();
            let again = leaf(&ca, "a.test", NOW);
            client(ca.root_pem(), &again, "a.test", NOW).unwrap();
            assert_eq!(der(&leaf(&ca, "a.test", NOW)), der(&again));
        }
    }

    #[test]
    fn a_leaf_that_cannot_be_stored_is_served_with_a_warning() {
        let scratch = Scratch::new("ca-full");
        let ca = open(&scratch, NOW);
        scratch.write("leaves", "no directory");
        let (leaf, warning) = ca.leaf(&pattern("a.test"), NOW).unwrap();
        client(ca.root_pem(), &leaf, "a.test", NOW).unwrap();
        let warning = warning.unwrap();
        assert!(warning.contains("a.test is served but not stored: cannot create"), "{warning}");
    }

    /// A crash while the root was made, or a root that someone removed by mistake.
    #[test]
    fn a_root_that_is_gone_is_made_again_from_its_private_key_and_stays_trusted() {
        let scratch = Scratch::new("ca-gone");
        let before = open(&scratch, NOW);
        let stored = leaf(&before, "a.test", NOW);
        file::remove(&scratch.0.join("root.crt")).unwrap();
        let after = open(&scratch, NOW);
        assert_eq!(der(&leaf(&after, "a.test", NOW)), der(&stored));
        let new = leaf(&after, "b.test", NOW);
        client(before.root_pem(), &new, "b.test", NOW).unwrap();
    }

    #[test]
    fn a_damaged_or_half_present_root_is_left_alone() {
        for (file_name, content, expected) in [
            ("root.key", None, "root.key is missing; restore"),
            ("root.crt", Some("garbage"), "root.crt is damaged; restore"),
            ("root.key", Some("garbage"), "root.key is damaged; restore"),
            ("root.key", Some("another"), "root.crt does not belong to root.key; restore"),
        ] {
            let scratch = Scratch::new("ca-damaged");
            open(&scratch, NOW);
            let path = scratch.0.join(file_name);
            match content {
                None => file::remove(&path).unwrap(),
                Some("another") => file::write(
                    &path,
                    KeyPair::generate().unwrap().serialize_pem().as_bytes(),
                    0o600,
                )
                .unwrap(),
                Some(content) => file::write(&path, content.as_bytes(), 0o600).unwrap(),
            }
            let files = |path: &Path| -> Vec<_> {
                file::list(path)
                    .unwrap()
                    .files
                    .into_iter()
                    .map(|path| (file::read(&path, 10_000).unwrap(), path))
                    .collect()
            };
            let before = files(&scratch.0);
            let error = LocalCa::open(&scratch.0, NOW).err().expect("it is refused").to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("remove both"), "{error}");
            assert_eq!(files(&scratch.0), before);
        }
    }

    #[test]
    fn a_root_at_its_end_is_replaced_and_kept_aside() {
        let scratch = Scratch::new("ca-replaced");
        let old = open(&scratch, NOW);
        let old_leaf = leaf(&old, "a.test", NOW);
        let end = NOW.plus(ROOT_LIFE);
        assert_eq!(
            open(&scratch, end.minus(ROOT_REPLACED_BEFORE)).fingerprint(),
            old.fingerprint()
        );
        let now = end.minus(ROOT_REPLACED_BEFORE).plus(Duration::from_secs(1));
        let (new, warnings) = LocalCa::open(&scratch.0, now).unwrap();
        assert_ne!(new.fingerprint(), old.fingerprint());
        assert!(
            warnings[0].contains("valid until 2037-01-12 08:00:00 UTC and is replaced"),
            "{warnings:?}"
        );
        assert_eq!(
            file::read(&scratch.0.join("root-2037-01-12.crt"), 10_000).unwrap(),
            old.root_pem().as_bytes()
        );
        assert_eq!(mode(&scratch.0.join("root-2037-01-12.key")), 0o600);
        let new_leaf = leaf(&new, "a.test", now);
        assert_ne!(der(&new_leaf), der(&old_leaf));
        client(new.root_pem(), &new_leaf, "a.test", now).unwrap();
        // A leaf never outlives its root.
        let last = old.issue(&pattern("b.test"), end.minus(DAY)).unwrap();
        let last = certify(last.as_bytes(), last.as_bytes(), Source::LocalCa).unwrap();
        assert_eq!(last.not_after, end);
    }

    #[test]
    fn processes_that_open_it_at_once_make_one_root() {
        let scratch = Scratch::new("ca-at-once");
        let prints: Vec<_> = std::thread::scope(|scope| {
            let opening: Vec<_> =
                (0..4).map(|_| scope.spawn(|| open(&scratch, NOW).fingerprint())).collect();
            opening.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
    }

    #[test]
    fn file_names_fit_the_file_system() {
        assert_eq!(file_name(&pattern("*.a.test")), "_wildcard.a.test.pem");
        assert_eq!(file_name(&pattern("::1")), "::1.pem");
        let long = [&"a".repeat(60)[..]; 4].join(".");
        let names = [format!("{long}.test"), format!("*.{long}.test"), format!("b.{long}")]
            .map(|text| file_name(&pattern(&text)));
        assert!(names.iter().all(|name| name.len() <= 255));
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
    }

    proptest! {
        #[test]
        fn due_lies_within_the_life(not_before in -1_000_000_000_000i64..1_000_000_000_000, life in 0i64..1_000_000_000) {
            let at = Moment::from_unix_seconds;
            let due = due_at(at(not_before), at(not_before + life));
            prop_assert!(at(not_before) <= due && due <= at(not_before + life));
        }
    }
}
