//! Certificates, private keys and scratch directories for tests.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    SignatureAlgorithm,
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
        let intermediate = CertifiedIssuer::signed_by(params("intermediate"), key, &root).unwrap();
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
    pub fn pair(&self, names: &[&str], algorithm: &'static SignatureAlgorithm) -> (String, String) {
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
