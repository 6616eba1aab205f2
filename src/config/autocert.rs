//! What is configured about certificates from an ACME CA.

use std::fmt;
use std::path::PathBuf;

use crate::name::ServerName;

/// Let's Encrypt's production directory.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Let's Encrypt's staging directory.
pub const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// The settings of autocert while it is on.
#[derive(Clone, Debug, PartialEq)]
pub struct Autocert {
    /// In the order to ask them; at least one.
    pub issuers: Vec<IssuerConfig>,
    pub must_staple: bool,
    pub dir: PathBuf,
    /// Names besides the hosts of routes.
    pub hosts: Vec<ServerName>,
    pub key_type: KeyType,
    /// In the order to try; at least one.
    pub challenges: Vec<ChallengeKind>,
    pub until_issued: UntilIssued,
    /// Program and arguments.
    pub hook: Option<Vec<String>>,
    pub proxy: Option<Proxy>,
    /// Kubernetes runs us, and the store is a local directory.
    pub on_kubernetes: bool,
}

/// One issuer, and what is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// The directory URL as it was written: the store's paths derive from it.
    pub directory: String,
    pub email: Option<String>,
    pub external_account: Option<ExternalAccount>,
    pub trusted_ca: TrustedCa,
    pub profile: Option<String>,
    /// The directory of the same CA's staging environment, where failing names are tried first.
    pub test_directory: Option<String>,
}

impl IssuerConfig {
    /// Whether the issuer is Let's Encrypt, whose rules are known.
    pub fn is_lets_encrypt(&self) -> bool {
        is_lets_encrypt(&self.directory)
    }
}

/// Whether a directory URL is one of Let's Encrypt's.
pub fn is_lets_encrypt(directory: &str) -> bool {
    let host = directory.split_once("://").map_or(directory, |(_, rest)| rest);
    host.split(['/', ':']).next().is_some_and(|host| host.ends_with(".letsencrypt.org"))
}

/// An external account binding (RFC 8555 §7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    pub key_id: String,
    pub mac_key: Vec<u8>,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Roots to trust, besides the system's, when talking to the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedCa {
    None,
    Pem(Vec<u8>),
    File(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    P256,
    P384,
    Rsa2048,
}

/// How control of a name is proved to a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChallengeKind {
    /// RFC 8737.
    TlsAlpn01,
    /// RFC 8555 §8.3.
    Http01,
}

impl ChallengeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

/// What a name without a certificate gets meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UntilIssued {
    Reject,
    Local,
}

/// A proxy for outgoing https, reached by plain HTTP (CONNECT, RFC 9110 §9.3.6).
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// `user:password` from its URL.
    pub credentials: Option<String>,
    /// Hosts that are reached without it: names, `.suffixes`, or `*`.
    pub except: Vec<String>,
}

impl Proxy {
    /// Whether `host` is reached through the proxy.
    pub fn serves(&self, host: &str) -> bool {
        !self.except.iter().any(|except| {
            let suffix = except.trim_start_matches("*.").trim_start_matches('.');
            except == "*"
                || host.eq_ignore_ascii_case(suffix)
                || host.to_ascii_lowercase().ends_with(&format!(".{}", suffix.to_ascii_lowercase()))
        })
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}
