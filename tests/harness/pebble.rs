//! Pebble, a real ACME CA: each test has one of its own, which reaches the node under test at an address
//! and two ports of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::challtestsrv::Challtestsrv;
use super::http::Message;
use super::{Authority, Key, Scratch, Tls, loopback, root_store, wait_for};

// Pebble's own defaults. Its addresses are this test's alone, and these lie below the ports that the
// kernel gives to outgoing connections.
const ACME_PORT: u16 = 14000;
const MANAGEMENT_PORT: u16 = 15000;
const HTTP_PORT: u16 = 5002;
const TLS_PORT: u16 = 5001;
/// A Pebble answers to this name too, for a node that a proxy leads here instead.
pub const LETS_ENCRYPT: &str = "acme-v02.api.letsencrypt.org";
/// Nobody listens there.
const CLOSED_PORT: u16 = 1;

/// What a CA may be like; by default an agreeable one.
#[derive(Clone)]
pub struct PebbleOptions {
    pub validity_seconds: u32,
    /// Percentage of good nonces that are refused.
    pub nonce_reject: u8,
    /// Key identifiers and MAC keys (base64url) of external accounts; required if there are any.
    pub external_accounts: Vec<(String, String)>,
    /// Suffixes of names that get rejectedIdentifier. Pebble 2.4.0 panics at an ordered name that is
    /// shorter than one of these.
    pub blocked: Vec<String>,
    /// Refuses what newer drafts of the protocol dropped.
    pub strict: bool,
    /// Percentage of valid authorizations that a new order may use again.
    pub authorization_reuse: u8,
    /// The longest pause before each validation; none by default.
    pub sleep_seconds: u32,
    /// Further chains, offered by Link.
    pub alternate_roots: u8,
    /// HTTP-01 is asked for where nobody listens, as behind a firewall.
    pub http_closed: bool,
    /// TLS-ALPN-01 likewise.
    pub tls_alpn_closed: bool,
    /// The OCSP responder that its certificates name. It runs none itself.
    pub ocsp_responder: Option<String>,
}

impl Default for PebbleOptions {
    fn default() -> Self {
        Self {
            // Let's Encrypt's; Pebble's own default is five years.
            validity_seconds: 90 * 24 * 3600,
            nonce_reject: 0,
            external_accounts: Vec::new(),
            blocked: Vec::new(),
            strict: false,
            authorization_reuse: 0,
            sleep_seconds: 0,
            alternate_roots: 0,
            http_closed: false,
            tls_alpn_closed: false,
            ocsp_responder: None,
        }
    }
}

/// A running Pebble with the DNS it asks; killed at the end, its log printed if the test fails.
pub struct Pebble {
    child: Option<Child>,
    options: PebbleOptions,
    scratch: Scratch,
    authority: Authority,
    pub address: SocketAddr,
    management: SocketAddr,
    pub dns: Challtestsrv,
    /// Where every name leads; the node under test listens here.
    pub node: Ipv4Addr,
    /// Where HTTP-01 is asked for.
    pub http_port: u16,
    /// Where TLS-ALPN-01 is asked for.
    pub tls_port: u16,
}

impl Pebble {
    pub fn start(options: PebbleOptions) -> Self {
        Self::start_for(loopback(), options)
    }

    /// Another CA, with a DNS of its own, that reaches the same node.
    pub fn start_beside(&self, options: PebbleOptions) -> Self {
        Self::start_for(self.node, options)
    }

    fn start_for(node: Ipv4Addr, options: PebbleOptions) -> Self {
        let host = loopback();
        let scratch = Scratch::new();
        let authority = Authority::new("harness");
        let names = [&*host.to_string(), LETS_ENCRYPT];
        authority.issue_into(scratch.path(), "pebble", &names, Key::P256);
        scratch.write("root.pem", authority.pem());
        let mut pebble = Self {
            child: None,
            scratch,
            authority,
            address: (host, ACME_PORT).into(),
            management: (host, MANAGEMENT_PORT).into(),
            dns: Challtestsrv::start(node),
            node,
            http_port: HTTP_PORT,
            tls_port: TLS_PORT,
            options,
        };
        pebble.spawn();
        pebble
    }

    fn config(&self) -> PathBuf {
        let file = |name: &str| self.scratch.path().join(name);
        let PebbleOptions { external_accounts, blocked, http_closed, tls_alpn_closed, .. } =
            &self.options;
        let keys: serde_json::Map<_, _> =
            external_accounts.iter().map(|(id, mac)| (id.clone(), mac.as_str().into())).collect();
        let port = |open: u16, closed: bool| if closed { CLOSED_PORT } else { open };
        let config = json!({ "pebble": {
            "listenAddress": self.address.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": file("pebble.crt"),
            "privateKey": file("pebble.key"),
            "httpPort": port(self.http_port, *http_closed),
            "tlsPort": port(self.tls_port, *tls_alpn_closed),
            "externalAccountBindingRequired": !keys.is_empty(),
            "externalAccountMACKeys": keys,
            "domainBlocklist": blocked,
            "certificateValidityPeriod": self.options.validity_seconds,
            "ocspResponderURL": self.options.ocsp_responder.as_deref().unwrap_or_default(),
        }});
        self.scratch.write("pebble.json", config.to_string())
    }

    fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("a log file");
        let options = &self.options;
        let mut command = Command::new("pebble");
        command
            .arg("-config")
            .arg(self.config())
            .args(["-dnsserver", &self.dns.dns.to_string()])
            .args(options.strict.then_some("-strict"))
            .env("PEBBLE_WFE_NONCEREJECT", options.nonce_reject.to_string())
            .env("PEBBLE_AUTHZREUSE", options.authorization_reuse.to_string())
            .env("PEBBLE_ALTERNATE_ROOTS", options.alternate_roots.to_string())
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("the same file"))
            .stdout(log);
        match options.sleep_seconds {
            0 => command.env("PEBBLE_VA_NOSLEEP", "1"),
            // It pauses for 0 to one less than this.
            seconds => command.env("PEBBLE_VA_SLEEPTIME", (seconds + 1).to_string()),
        };
        let mut child = command.spawn().expect("pebble is installed (scripts/test installs it)");
        wait_for("pebble to listen", || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("pebble ended with {status}:\n{}", self.log());
            }
            TcpStream::connect(self.address).and(TcpStream::connect(self.management)).ok()
        });
        self.child = Some(child);
    }

    /// The CA is gone: its ports refuse.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The CA comes back at the same address with a new root, and has forgotten accounts and orders.
    pub fn restart(&mut self) {
        self.stop();
        self.spawn();
    }

    pub fn restart_with(&mut self, options: PebbleOptions) {
        self.options = options;
        self.restart();
    }

    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// Signs the certificates of everything in the harness that speaks HTTPS.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What a client must trust to talk to Pebble, or to a proxy in front of it.
    pub fn trusted_ca_file(&self) -> PathBuf {
        self.scratch.path().join("root.pem")
    }

    /// Asks the management interface.
    fn manage(&self, path: &str) -> Message {
        let host = self.management.ip().to_string();
        let tls = Tls::connect(root_store(self.authority.pem()), self.management, &host);
        Message::request("GET", path, &host, "").exchange(tls.stream).expect("an answer")
    }

    /// The root, as PEM, of what it has issued since its last start.
    pub fn root(&self) -> String {
        self.root_of(0)
    }

    /// The root of an alternate chain; 0 is the default one.
    pub fn root_of(&self, chain: u8) -> String {
        let answer = self.manage(&format!("/roots/{chain}"));
        assert_eq!(answer.status(), 200, "{answer:?}");
        String::from_utf8(answer.body).expect("PEM")
    }

    /// The intermediate that signs its certificates, and its private key, as PEM.
    pub fn intermediate(&self) -> (String, String) {
        let pem = |path: &str| {
            let answer = self.manage(path);
            assert_eq!(answer.status(), 200, "{answer:?}");
            String::from_utf8(answer.body).expect("PEM")
        };
        (pem("/intermediates/0"), pem("/intermediate-keys/0"))
    }

    /// `Valid` or `Revoked`; none for a serial number (in hex) that it did not issue.
    pub fn certificate_status(&self, serial: &str) -> Option<String> {
        let answer = self.manage(&format!("/cert-status-by-serial/{serial}"));
        let status: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        Some(status.get("Status")?.as_str()?.to_owned())
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// How many certificates it has issued, restarts included.
    pub fn issued(&self) -> usize {
        self.log().matches("Issued certificate serial").count()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- log of pebble ---\n{}", self.log());
        }
    }
}
