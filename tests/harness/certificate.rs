//! A test CA and the certificates it signs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The kind of private key of a test certificate.
#[derive(Clone, Copy)]
pub enum Key {
    P256,
    Rsa,
}

impl Key {
    fn generate(self) -> KeyPair {
        match self {
            Self::P256 => KeyPair::generate(),
            Self::Rsa => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256),
        }
        .expect("a private key")
    }
}

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a private key");
        let pem = params.self_signed(&key).expect("a root").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Chain and private key as PEM, valid now.
    pub fn issue(&self, names: &[&str], key: Key) -> (String, String) {
        self.issue_for(names, key, Duration::from_secs(30 * 24 * 3600), Duration::ZERO)
    }

    /// The same, for so many days.
    pub fn issue_lasting(&self, names: &[&str], key: Key, days: u64) -> (String, String) {
        self.issue_for(names, key, Duration::from_secs(days * 24 * 3600), Duration::ZERO)
    }

    /// Ended an hour ago.
    pub fn issue_expired(&self, names: &[&str]) -> (String, String) {
        self.issue_for(names, Key::P256, Duration::ZERO, Duration::from_secs(3600))
    }

    fn issue_for(
        &self,
        names: &[&str],
        key: Key,
        life: Duration,
        ago: Duration,
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(30);
        params.not_after = now + life - ago;
        let key = key.generate();
        let leaf = params.signed_by(&key, &self.issuer).expect("a leaf");
        (leaf.pem(), key.serialize_pem())
    }

    /// Writes `NAME.crt` and `NAME.key` into `dir`.
    pub fn issue_into(
        &self,
        dir: &Path,
        file: &str,
        names: &[&str],
        key: Key,
    ) -> (PathBuf, PathBuf) {
        let (chain, private_key) = self.issue(names, key);
        let (cert, key) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
        std::fs::create_dir_all(dir).expect("a directory");
        std::fs::write(&cert, chain).expect("write a certificate");
        std::fs::write(&key, private_key).expect("write a private key");
        (cert, key)
    }
}
