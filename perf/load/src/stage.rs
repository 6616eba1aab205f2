//! Where systems are measured: certificates, content, and the upstream that holds the secret.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::answers::Answers;
use crate::plan::{Group, Key};
use crate::started::{Started, free_port};
use crate::system::fill;
use crate::trust::Trust;

/// The name that clients ask for, of a domain that nobody has (RFC 2606 §2).
pub const SERVER_NAME: &str = "app.example";

/// The file of the secret.
const SECRET: &str = "secret";

/// What a measurement needs to know of its upstream: a directory with certificates, content and the secret.
pub struct Scene {
    dir: PathBuf,
    pub answers: Rc<Answers>,
}

/// Chain, private key, and both in one file.
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub combined: PathBuf,
}

impl Scene {
    /// The scene of a stage that another process has set.
    pub fn open(dir: PathBuf) -> Result<Self, String> {
        let path = dir.join(SECRET);
        let secret = fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Ok(Self { dir, answers: Rc::new(Answers::new(&secret)) })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where uploads are stored.
    pub fn uploads(&self) -> PathBuf {
        self.dir.join("up")
    }

    /// The size of what is downloaded.
    pub fn bulk_bytes(&self) -> Result<u64, String> {
        let content = fs::metadata(self.dir.join("bulk"));
        Ok(content.map_err(|error| format!("{}/bulk: {error}", self.dir.display()))?.len())
    }

    pub fn files(&self, key: Key) -> Files {
        files(&self.dir, key)
    }

    /// What clients trust: the root, and the leaf that the system was given.
    pub fn trust(&self, key: Key, group: Group) -> Result<Trust, String> {
        let read = |path: PathBuf| {
            CertificateDer::from_pem_file(&path)
                .map_err(|error| format!("{}: {error}", path.display()))
        };
        Trust::new(read(self.dir.join("root.crt"))?, read(self.files(key).cert)?, group)
    }
}

/// A scene of this process and the upstream that runs in it. Both end with it.
pub struct Stage {
    upstream: Started,
    pub scene: Scene,
    pub host: Ipv4Addr,
    /// Last, so that the upstream stops before its files go.
    _dir: Directory,
}

impl Stage {
    /// Issues certificates, writes `bulk_bytes` of content and starts nginx as the upstream, configured by
    /// `upstream.conf` in `peers`.
    pub fn set(peers: &Path, bulk_bytes: u64) -> Result<Self, String> {
        let dir = Directory::new()
            .map_err(|error| format!("cannot make a directory for the measurement: {error}"))?;
        let path = dir.0.clone();
        let host = own_loopback();
        let upstream = SocketAddr::from((host, free_port(host)?));
        let secret = secret()?;
        let answers = Answers::new(&secret);
        let write = || -> io::Result<()> {
            fs::write(path.join(SECRET), &secret)?;
            fs::create_dir_all(path.join("up"))?;
            fs::create_dir_all(path.join("tmp"))?;
            answers.write_content(&path.join("bulk"), bulk_bytes)?;
            issue(&path)
        };
        write().map_err(|error| format!("cannot write to {}: {error}", path.display()))?;
        let template = peers.join("upstream.conf");
        let template = fs::read_to_string(&template)
            .map_err(|error| format!("cannot read {}: {error}", template.display()))?;
        let values = [
            ("dir", path.display().to_string()),
            ("upstream", upstream.to_string()),
            ("secret", secret),
            ("filler", answers.filler()),
        ];
        let config = path.join("upstream.conf");
        fs::write(&config, fill(&template, &values)?).map_err(|error| error.to_string())?;
        let command = format!("nginx -p {} -c {}", path.display(), config.display());
        let upstream = Started::start("upstream", &command, None, upstream, &path)?;
        let scene = Scene { dir: path, answers: Rc::new(answers) };
        Ok(Self { upstream, scene, host, _dir: dir })
    }

    pub fn upstream(&self) -> SocketAddr {
        self.upstream.address
    }
}

fn files(dir: &Path, key: Key) -> Files {
    let name = match key {
        Key::EcdsaP256 => "ecdsa",
        Key::Rsa2048 => "rsa",
    };
    let file = |ending: &str| dir.join(format!("{name}.{ending}"));
    Files { cert: file("crt"), key: file("key"), combined: file("pem") }
}

/// A root, and a leaf of each kind signed by it directly.
fn issue(dir: &Path) -> io::Result<()> {
    let other = |error: rcgen::Error| io::Error::other(error.to_string());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the root of a measurement");
    let key = KeyPair::generate().map_err(other)?;
    fs::write(dir.join("root.crt"), params.self_signed(&key).map_err(other)?.pem())?;
    let issuer = Issuer::new(params, key);
    for kind in [Key::EcdsaP256, Key::Rsa2048] {
        let key = match kind {
            Key::EcdsaP256 => KeyPair::generate(),
            Key::Rsa2048 => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256),
        }
        .map_err(other)?;
        let params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(other)?;
        let leaf = params.signed_by(&key, &issuer).map_err(other)?.pem();
        let files = files(dir, kind);
        fs::write(files.combined, leaf.clone() + &key.serialize_pem())?;
        fs::write(files.cert, leaf)?;
        fs::write(files.key, key.serialize_pem())?;
    }
    Ok(())
}

/// 128 random bits in hexadecimal.
fn secret() -> Result<String, String> {
    let mut bytes = [0; 16];
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| "no random bytes".to_owned())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A loopback address that no other measurement on this machine uses, so that fixed ports do not collide.
fn own_loopback() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // A process id has 22 bits at most, so these are addresses of 127.128.0.0/10: whoever else picks some
    // tends to begin at the low end.
    Ipv4Addr::new(127, high | 128, middle, low)
}

/// A directory of this process, removed with it. In memory if possible: what the upstream reads and stores
/// must not wait for a disk.
struct Directory(PathBuf);

const PREFIX: &str = "ringgate-load-";

impl Directory {
    fn new() -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        remove_left_over(&base);
        let path = base.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what processes left behind that were killed.
fn remove_left_over(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
