//! What the user wrote, turned into a checked [`Config`].

pub mod check;
pub mod layers;
pub mod options;
pub mod problem;
mod yaml;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

use crate::name::{Pattern, ServerName};
use problem::Origin;

/// Everything that was configured, checked: no field can be wrong on its own any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub address: Vec<ListenAddress>,
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
    pub handshake_timeout: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    pub shutdown_timeout: Duration,
    /// `None`: for a person on a terminal, JSON otherwise.
    pub log_format: Option<LogFormat>,
    pub log_level: LogLevel,
    /// No file, no environment, no flag set anything: the first run of a new user.
    pub nothing_configured: bool,
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

    /// The one address it names, if it names one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            _ => None,
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

#[derive(Clone, Debug, PartialEq)]
pub enum CertificatePlace {
    /// A chain and its private key, both PEM.
    Pair { cert: PathBuf, key: PathBuf },
    /// A directory of pairs.
    Directory(PathBuf),
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
    pub to: UpstreamAddress,
    pub alpn: Vec<Vec<u8>>,
}

/// One `to`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddress {
    /// `tcp://host:port`; an IP address or a name for the control plane to resolve.
    Tcp { host: String, port: u16 },
}

impl std::fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
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
