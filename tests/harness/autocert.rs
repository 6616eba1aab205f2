//! Nodes whose certificates come from a Pebble, and what they serve.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Pebble, Ringgate, root_store, wait_for};

/// The arguments of a node that serves these names with certificates from this CA.
pub fn arguments(pebble: &Pebble, names: &[&str], more: &[&str]) -> Vec<String> {
    arguments_for(pebble, &pebble.directory_url(), names, more)
}

/// The same for a CA behind another address.
pub fn arguments_for(
    pebble: &Pebble,
    directory_url: &str,
    names: &[&str],
    more: &[&str],
) -> Vec<String> {
    let mut all = vec![
        "--address".into(),
        format!("{}:{}", pebble.node, pebble.tls_port),
        "--autocert".into(),
        "--autocert-ca".into(),
        directory_url.into(),
        "--autocert-trusted-ca-file".into(),
        pebble.trusted_ca_file().display().to_string(),
    ];
    for name in names {
        all.push("--route".into());
        all.push(format!("https://{name}=tcp://127.0.0.1:1"));
    }
    all.extend(more.iter().map(ToString::to_string));
    all
}

/// Starts such a node.
pub fn start(pebble: &Pebble, names: &[&str], more: &[&str]) -> Ringgate {
    start_again(arguments(pebble, names, more), None)
}

/// Starts one with these arguments, in place of one that has ended or is killed.
pub fn start_again(arguments: Vec<String>, before: Option<Ringgate>) -> Ringgate {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match before {
        // It keeps its address.
        Some(before) => before.again(&arguments[2..]),
        None => Ringgate::start(&arguments),
    }
}

/// Where a node keeps its certificates unless it is told otherwise.
pub fn store(node: &Ringgate) -> PathBuf {
    node.dir().join("data/autocert")
}

/// The leaf that is served for a name, if it chains to this root.
pub fn leaf(
    address: SocketAddr,
    name: &str,
    root_pem: &str,
) -> Result<CertificateDer<'static>, String> {
    handshake(address, name, root_store(root_pem), &[]).map(|(leaf, _)| leaf)
}

/// Shakes hands, and gives the leaf and the protocol that was agreed on.
pub fn handshake(
    address: SocketAddr,
    name: &str,
    roots: RootCertStore,
    alpn: &[&str],
) -> Result<(CertificateDer<'static>, Option<Vec<u8>>), String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = name.to_owned().try_into().expect("a server name");
    let mut tls = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
    let timeout = Some(Duration::from_secs(10));
    socket.set_read_timeout(timeout).expect("a timeout");
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).map_err(|error| error.to_string())?;
    }
    let leaf = tls.peer_certificates().and_then(<[_]>::first).cloned();
    let protocol = tls.alpn_protocol().map(<[u8]>::to_vec);
    tls.send_close_notify();
    let _ = tls.complete_io(&mut socket);
    let _ = socket.flush();
    leaf.map(|leaf| (leaf.into_owned(), protocol)).ok_or_else(|| "no certificate".to_owned())
}

/// Waits until a name is served with a certificate of this CA, and gives its serial number in hex.
#[track_caller]
pub fn wait_for_certificate(node: &Ringgate, pebble: &Pebble, name: &str) -> String {
    let root = pebble.root();
    wait_for(&format!("a certificate for {name}"), || {
        leaf(node.address, name, &root).ok().map(|leaf| serial(&leaf))
    })
}

/// A certificate's serial number in hex.
pub fn serial(leaf: &CertificateDer<'_>) -> String {
    let (_, leaf) = X509Certificate::from_der(leaf).expect("a certificate");
    leaf.tbs_certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect()
}
