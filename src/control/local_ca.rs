//! The local CA: issues certificates for names that nothing else covers, kept in the data directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::clock::Moment;
use crate::name::Pattern;
use crate::store::file;

use super::certified::{Certified, LARGEST_PEM_BYTES, Source, certify};

/// Long enough that trusting it is done once per machine.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A root this close to its end makes way for a new one, which has to be trusted anew.
const ROOT_REPLACED_BEFORE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Short: nothing needs revoking, and renewal is exercised every few days.
const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Clients' clocks are not ours.
const BACKDATED: Duration = Duration::from_secs(3600);

/// The issuer with its root.
pub struct LocalCa {
    dir: PathBuf,
    root_pem: String,
    root_der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// Whether a leaf is due for renewal: a third of its life is left.
pub fn renewal_due(not_before: Moment, not_after: Moment, now: Moment) -> bool {
    not_after.since(now) * 3 <= not_after.since(not_before)
}

impl LocalCa {
    /// Opens the local CA in `dir`, and makes it if there is none. Gives back what an operator should know.
    ///
    /// # Errors
    /// If the directory cannot be used, or holds a root that is damaged: it is never overwritten, for
    /// machines may trust it.
    pub fn open(dir: &Path, now: Moment) -> io::Result<(Self, Vec<String>)> {
        file::create_directory(&dir.join("leaves"))?;
        // Two processes that start at once must not make two roots.
        let _held = file::hold(dir)?;
        let (certificate, key) = (dir.join("root.crt"), dir.join("root.key"));
        let mut notes = Vec::new();
        match (read_if_there(&certificate)?, read_if_there(&key)?) {
            (Some(root), Some(private_key)) => {
                let opened = Self::from_pem(dir, &root, &private_key).map_err(|what| {
                    io::Error::other(format!(
                        "{} and root.key are damaged ({what}); restore them, or move both away to have a new root made, which has to be trusted anew",
                        certificate.display()
                    ))
                })?;
                let not_after = opened.not_after();
                if not_after.since(now) > ROOT_REPLACED_BEFORE {
                    return Ok((opened, notes));
                }
                let aside = |extension| {
                    dir.join(format!("root-until-{}.{extension}", not_after.unix_seconds()))
                };
                file::write(&aside("key"), &private_key, 0o600)?;
                file::write(&aside("crt"), &root, 0o644)?;
                notes.push(format!(
                    "the local CA's root ends on {not_after} and has been replaced; run 'ringgate trust' on the machines that trust it"
                ));
            }
            (None, None) => {}
            // The private key is written first, so this is a crash in between: nobody has seen a root yet.
            (None, Some(_)) => {}
            (Some(_), None) => {
                return Err(io::Error::other(format!(
                    "{} is missing beside root.crt; restore it, or move root.crt away to have a new root made, which has to be trusted anew",
                    key.display()
                )));
            }
        }
        Ok((Self::create(dir, now)?, notes))
    }

    fn create(dir: &Path, now: Moment) -> io::Result<Self> {
        let private_key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        // Several data directories make several roots: the key's digest tells them apart in trust stores.
        name.push(DnType::CommonName, format!("Ringgate local CA {}", short_digest(&private_key)));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial()?);
        params.not_before = date(now.minus(BACKDATED))?;
        params.not_after = date(now.plus(ROOT_LIFE))?;
        let root = params.self_signed(&private_key).map_err(io::Error::other)?.pem();
        let private_key = private_key.serialize_pem();
        file::write(&dir.join("root.key"), private_key.as_bytes(), 0o600)?;
        file::write(&dir.join("root.crt"), root.as_bytes(), 0o644)?;
        Self::from_pem(dir, root.as_bytes(), private_key.as_bytes()).map_err(io::Error::other)
    }

    fn from_pem(dir: &Path, root: &[u8], private_key: &[u8]) -> Result<Self, String> {
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string());
        let root_pem = text(root)?;
        let private_key =
            KeyPair::from_pem(&text(private_key)?).map_err(|error| error.to_string())?;
        let root_der = CertificateDer::from_pem_slice(root).map_err(|error| error.to_string())?;
        let (_, parsed) =
            X509Certificate::from_der(&root_der).map_err(|error| error.to_string())?;
        if parsed.public_key().subject_public_key.data.as_ref()
            != rcgen::PublicKeyData::der_bytes(&private_key)
        {
            return Err("they do not belong together".into());
        }
        drop(parsed);
        let issuer = Issuer::from_ca_cert_der(&root_der, private_key).map_err(|e| e.to_string())?;
        Ok(Self { dir: dir.to_owned(), root_pem, root_der, issuer })
    }

    fn not_after(&self) -> Moment {
        X509Certificate::from_der(&self.root_der)
            .map_or(Moment::from_unix_seconds(0), |(_, root)| {
                Moment::from_unix_seconds(root.validity().not_after.timestamp())
            })
    }

    /// The root, to be trusted.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Where the root is kept.
    pub fn root_path(&self) -> PathBuf {
        self.dir.join("root.crt")
    }

    /// A short name for the root, from its private key.
    pub fn fingerprint(&self) -> String {
        short_digest(self.issuer.key())
    }

    /// A certificate for exactly this pattern: the stored one, or a new one when that is due. A new one
    /// that cannot be stored is served all the same, and the second value says so.
    ///
    /// # Errors
    /// If signing fails.
    pub fn leaf(
        &self,
        pattern: &Pattern,
        now: Moment,
    ) -> io::Result<(Arc<Certified>, Option<String>)> {
        let name = pattern.to_string();
        let file_name = format!("{}.pem", name.replacen('*', "_wildcard", 1));
        let path = self.dir.join("leaves").join(file_name);
        if let Ok(Some(stored)) = read_if_there(&path)
            && let Ok((certified, _)) = certify(&stored, &stored, Source::LocalCa)
            && certified.patterns == [pattern.clone()]
            && self.signed(&certified)
            && !renewal_due(certified.not_before, certified.not_after, now)
            && certified.not_before <= now
        {
            return Ok((Arc::new(certified), None));
        }
        let pem = self.issue(pattern, now)?;
        let stored = file::write(&path, pem.as_bytes(), 0o600);
        let note = stored.err().map(|error| {
            format!("{error}; the certificate is served, and will be issued again after a restart")
        });
        let (certified, _) = certify(pem.as_bytes(), pem.as_bytes(), Source::LocalCa)
            .map_err(|remark| io::Error::other(remark.what))?;
        Ok((Arc::new(certified), note))
    }

    /// Whether this root, not one before it, signed the leaf: by the key identifier, which is the key's
    /// digest.
    fn signed(&self, certified: &Certified) -> bool {
        let names = |root: &X509Certificate<'_>, leaf: &X509Certificate<'_>| {
            leaf.issuer().as_raw() == root.subject().as_raw()
        };
        match (
            X509Certificate::from_der(&self.root_der),
            X509Certificate::from_der(certified.leaf()),
        ) {
            (Ok((_, root)), Ok((_, leaf))) => names(&root, &leaf),
            _ => false,
        }
    }

    /// Chain and private key in one text. The root is not part of the chain.
    fn issue(&self, pattern: &Pattern, now: Moment) -> io::Result<String> {
        let private_key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        let text = pattern.to_string();
        let address = match pattern {
            Pattern::Exact(name) => name.as_ip(),
            _ => None,
        };
        params.subject_alt_names = vec![match address {
            Some(address) => SanType::IpAddress(address),
            None => SanType::DnsName(text.try_into().map_err(io::Error::other)?),
        }];
        // Names are in the subjectAltName; rcgen's default common name would only mislead.
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial()?);
        params.not_before = date(now.minus(BACKDATED))?;
        params.not_after = date(now.plus(LEAF_LIFE))?;
        let leaf = params.signed_by(&private_key, &self.issuer).map_err(io::Error::other)?;
        Ok(leaf.pem() + &private_key.serialize_pem())
    }
}

fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    file::read_if_there(path, LARGEST_PEM_BYTES)
}

fn date(moment: Moment) -> io::Result<time::OffsetDateTime> {
    time::OffsetDateTime::from_unix_timestamp(moment.unix_seconds()).map_err(io::Error::other)
}

/// Unpredictable and positive (RFC 5280 §4.1.2.2).
fn random_serial() -> io::Result<SerialNumber> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the random source failed"))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn short_digest(private_key: &KeyPair) -> String {
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, private_key.public_key_raw());
    digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ringgate-ca-{}-{name}", std::process::id()))
    }

    const DAY: Duration = Duration::from_secs(24 * 3600);
    /// Any day; certificates are checked against it, not against the clock.
    const NOW: Moment = Moment::from_unix_seconds(1_700_000_000);

    #[test]
    fn a_third_of_its_life_before_the_end_a_leaf_is_due() {
        let end = NOW.plus(DAY * 9);
        for (days, due) in [(0, false), (5, false), (6, true), (9, true), (20, true)] {
            assert_eq!(renewal_due(NOW, end, NOW.plus(DAY * days)), due, "day {days}");
        }
    }

    #[test]
    fn root_and_leaves_survive_and_leaves_are_renewed_when_due() {
        let dir = scratch("survive");
        let names = ["app.localhost", "*.app.localhost", "127.0.0.1", "::1"]
            .map(|name| Pattern::parse(name).unwrap());
        let (ca, _) = LocalCa::open(&dir, NOW).unwrap();
        let first: Vec<_> = names.iter().map(|name| ca.leaf(name, NOW).unwrap().0).collect();
        let (again, _) = LocalCa::open(&dir, NOW.plus(DAY)).unwrap();
        assert_eq!(again.root_pem(), ca.root_pem());
        for (name, first) in names.iter().zip(&first) {
            assert_eq!(first.patterns.as_slice(), std::slice::from_ref(name));
            let (second, note) = again.leaf(name, NOW.plus(DAY)).unwrap();
            assert_eq!((second.leaf(), note), (first.leaf(), None));
            let (renewed, _) = again.leaf(name, NOW.plus(DAY * 5)).unwrap();
            assert_ne!(renewed.leaf(), first.leaf());
            // A clock that was wrong leaves a leaf of the future behind: it is of no use today.
            assert_ne!(again.leaf(name, NOW).unwrap().0.leaf(), renewed.leaf());
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_damaged_root_is_never_overwritten_and_a_damaged_leaf_is_issued_again() {
        let dir = scratch("damaged");
        let name = Pattern::parse("a.test").unwrap();
        let (ca, _) = LocalCa::open(&dir, NOW).unwrap();
        let leaf = ca.leaf(&name, NOW).unwrap().0;
        file::write(&dir.join("leaves/a.test.pem"), b"torn", 0o600).unwrap();
        assert_ne!(ca.leaf(&name, NOW).unwrap().0.leaf(), leaf.leaf());
        let root = dir.join("root.crt");
        file::write(&root, b"torn", 0o644).unwrap();
        let error = LocalCa::open(&dir, NOW).map(drop).unwrap_err().to_string();
        assert!(error.contains("damaged") && error.contains("move both away"), "{error}");
        assert_eq!(file::read(&root, 100).unwrap(), b"torn");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_root_near_its_end_is_replaced_and_kept_aside_with_its_leaves_signed_anew() {
        let dir = scratch("replaced");
        let name = Pattern::parse("a.test").unwrap();
        let (ca, _) = LocalCa::open(&dir, NOW).unwrap();
        let later = NOW.plus(ROOT_LIFE).minus(DAY * 29);
        ca.leaf(&name, later).unwrap();
        let (next, notes) = LocalCa::open(&dir, later).unwrap();
        assert_eq!(notes.len(), 1);
        assert_ne!(next.root_pem(), ca.root_pem());
        assert!(next.signed(&next.leaf(&name, later).unwrap().0));
        assert_eq!(file::list(&dir).unwrap().len(), 4);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
