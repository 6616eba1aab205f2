//! What the user wrote, turned into a checked [`Config`].

pub mod autocert;
pub mod check;
mod check_autocert;
mod check_issuers;
pub mod docs;
pub mod layers;
pub mod options;
pub mod problem;
mod route;
pub mod stapling;
mod values;
mod yaml;

#[cfg(test)]
pub(crate) use check_autocert::tests::check_yaml;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

use crate::name::{Pattern, ServerName};
use problem::Origin;

/// Everything that was configured, checked: no field can be wrong on its own any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub address: Vec<ListenAddress>,
    /// The plain listener that sends clients to https.
    pub http_redirect_addr: Option<ListenAddress>,
    /// The networks from which a PROXY header is required.
    pub accept_proxy: Vec<IpNet>,
    /// Worker cores; `None`: all that the process may run on, capped by the cgroup quota.
    pub cores: Option<Vec<usize>>,
    pub data_dir: PathBuf,
    pub certificates: Vec<CertificateSource>,
    pub default_server_name: Option<ServerName>,
    /// Empty: the built-in page is served instead.
    pub routes: Vec<RouteConfig>,
    pub tls_min_version: ProtocolVersion,
    pub tls_cipher_suites: Option<Vec<CipherSuite>>,
    pub tls_groups: Option<Vec<NamedGroup>>,
    pub ticket_rotation: Duration,
    /// Certificates from an ACME CA; `None`: off.
    pub autocert: Option<autocert::Autocert>,
    /// `None`: off.
    pub stapling: Option<stapling::Stapling>,
    pub handshake_timeout: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    pub shutdown_timeout: Duration,
    /// `None`: for a person on a terminal, JSON otherwise.
    pub log_format: Option<LogFormat>,
    pub log_level: LogLevel,
    /// No file, no environment, no flag set anything: the first run of a new user.
    pub nothing_configured: bool,
    /// Ports of `address` that only a restart opens, after a reload.
    pub unopened_ports: Vec<u16>,
}

/// One entry of `address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `:port`: every address of the machine, IPv4 and IPv6.
    Every {
        port: u16,
    },
    /// `localhost:port`: 127.0.0.1 and, where the machine has it, ::1.
    Localhost {
        port: u16,
    },
    Ip(SocketAddr),
}

impl ListenAddress {
    pub fn port(self) -> u16 {
        match self {
            Self::Every { port } | Self::Localhost { port } => port,
            Self::Ip(address) => address.port(),
        }
    }

    /// Whether a socket here and one there cannot both be opened.
    pub fn overlaps(self, other: Self) -> bool {
        // Port 0 is a port of its own each time.
        if self.port() != other.port() || self.port() == 0 {
            return false;
        }
        let is_localhost = |address: SocketAddr| {
            address.ip() == IpAddr::from([127, 0, 0, 1]) || address.ip() == Ipv6Addr::LOCALHOST
        };
        let is_all = |address: SocketAddr| address.ip().is_unspecified();
        match (self, other) {
            (Self::Every { .. }, _) | (_, Self::Every { .. }) => true,
            (Self::Localhost { .. }, Self::Localhost { .. }) => true,
            (Self::Localhost { .. }, Self::Ip(ip)) | (Self::Ip(ip), Self::Localhost { .. }) => {
                is_localhost(ip) || is_all(ip)
            }
            (Self::Ip(one), Self::Ip(other)) => {
                one == other || (one.is_ipv4() == other.is_ipv4() && (is_all(one) || is_all(other)))
            }
        }
    }

    /// The one address it names, if it names one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            _ => None,
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Every { port } => write!(f, ":{port}"),
            Self::Localhost { port } => write!(f, "localhost:{port}"),
            Self::Ip(address) => write!(f, "{address}"),
        }
    }
}

/// One entry of `certificates`.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateSource {
    pub origin: Origin,
    /// The entry's key, as problems name it: `certificates[2]`.
    pub key: String,
    pub place: CertificatePlace,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificatePlace {
    /// A chain and its private key, both PEM and perhaps one file, and the staple beside them.
    Pair { cert: PathBuf, key: PathBuf, ocsp: Option<PathBuf> },
    /// A directory, or a file that holds chain and private key.
    Path(PathBuf),
}

/// One entry of `routes`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    pub origin: Origin,
    /// The entry's key, as problems name it: `routes[2]`.
    pub key: String,
    /// `from` as it was written.
    pub from: String,
    pub pattern: Pattern,
    /// The port in `from`. `None`: every listener. A port that no `address` has is the public one in
    /// front of a NAT, and the route matches everywhere.
    pub port: Option<u16>,
    pub upstream: UpstreamConfig,
    pub send_proxy: Option<ProxyVersion>,
    pub alpn: Vec<Vec<u8>>,
}

/// Where a route's connections go, and how: routes with an equal one share an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamConfig {
    /// At least one.
    pub to: Vec<UpstreamAddress>,
    pub policy: Policy,
    /// For its `tls://` addresses.
    pub tls: UpstreamTlsConfig,
}

/// How `tls://` upstreams are verified, and what they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamTlsConfig {
    /// Instead of the system's roots.
    pub custom_ca_file: Option<PathBuf>,
    /// Instead of the host in `to`.
    pub server_name: Option<ServerName>,
    pub skip_verify: bool,
    /// Chain and private key to show to an upstream that asks.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// One entry of `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddress {
    /// `tcp://host:port`; an IP address or a name for the control plane to resolve.
    Tcp { host: String, port: u16 },
    /// `tls://host:port`: the same, encrypted again.
    Tls { host: String, port: u16 },
    /// `unix:/path`.
    Unix(PathBuf),
}

impl std::fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, host, port) = match self {
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::Tls { host, port } => ("tls", host, port),
            Self::Unix(path) => return write!(f, "unix:{}", path.display()),
        };
        match host.contains(':') {
            true => write!(f, "{scheme}://[{host}]:{port}"),
            false => write!(f, "{scheme}://{host}:{port}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person at a terminal.
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub fn shows_debug(self) -> bool {
        matches!(self, Self::Debug | Self::Trace)
    }
}

/// How an upstream with several endpoints picks one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    #[default]
    RoundRobin,
    LeastConnections,
}

/// Which PROXY header an upstream is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyVersion {
    V1,
    V2,
}
