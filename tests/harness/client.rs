//! Clients: curl, openssl, and a rustls client for what those cannot do.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{PATIENCE, wait_for};

/// Runs a program to its end and gives what it printed.
pub fn command(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error} (scripts/test installs it)"));
    let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
    child.wait_with_output().expect("its output")
}

/// Reads what a program says until a line holds `text`.
#[track_caller]
pub fn wait_for_line(said: &mut impl BufRead, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the program ended before {text:?}");
    }
}

/// `curl` for `https://NAME:PORT/PATH` at `address`, trusting `root`.
pub fn curl(root: &Path, address: SocketAddr, name: &str, path: &str, more: &[&str]) -> Output {
    let port = address.port();
    let resolve = format!("{name}:{port}:{}", address.ip());
    let url = format!("https://{name}:{port}{path}");
    let root = root.display().to_string();
    let mut arguments =
        vec!["-sS", "--max-time", "300", "--cacert", &root, "--resolve", &resolve, &url];
    arguments.extend(more);
    command("curl", &arguments, "")
}

pub fn root_store(pem: impl AsRef<[u8]>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_ref()) {
        roots.add(root.expect("a certificate")).expect("a root");
    }
    roots
}

/// TLS with nothing special, trusting `roots`.
pub fn client_config(roots: RootCertStore) -> Arc<ClientConfig> {
    client_config_with(rustls::crypto::aws_lc_rs::default_provider(), roots)
}

/// The same with suites and groups of a test's own.
pub fn client_config_with(provider: CryptoProvider, roots: RootCertStore) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// The chain that is served for this name, once it verifies up to `roots`.
#[track_caller]
pub fn served(
    roots: &RootCertStore,
    address: SocketAddr,
    name: &str,
) -> Vec<CertificateDer<'static>> {
    let config = client_config(roots.clone());
    wait_for(&format!("a certificate for {name}"), || {
        let tls = Tls::try_connect(config.clone(), address, name).ok()?;
        Some(tls.stream.conn.peer_certificates()?.to_vec())
    })
}

/// A TLS client over which a test has full control.
pub struct Tls {
    pub stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Tls {
    pub fn connect(roots: RootCertStore, address: SocketAddr, name: &str) -> Self {
        Self::connect_with(client_config(roots), address, name)
    }

    pub fn connect_with(config: Arc<ClientConfig>, address: SocketAddr, name: &str) -> Self {
        Self::try_connect(config, address, name).expect("a handshake")
    }

    fn try_connect(config: Arc<ClientConfig>, address: SocketAddr, name: &str) -> io::Result<Self> {
        Self::over(TcpStream::connect(address)?, config, name)
    }

    /// Connects with TLS 1.3, and sends these bytes in one piece with the Finished, as browsers do.
    pub fn connect_saying(
        roots: RootCertStore,
        address: SocketAddr,
        name: &str,
        bytes: &[u8],
    ) -> Self {
        let socket = TcpStream::connect(address).expect("a connection");
        let mut tls = Self::before(socket, client_config(roots), name).expect("a client");
        let StreamOwned { conn, sock } = &mut tls.stream;
        conn.write_tls(sock).expect("a ClientHello is sent");
        while conn.is_handshaking() {
            conn.read_tls(sock).expect("an answer");
            conn.process_new_packets().expect("a handshake");
        }
        conn.writer().write_all(bytes).expect("room");
        let mut last = Vec::new();
        while conn.wants_write() {
            conn.write_tls(&mut last).expect("a vector");
        }
        sock.write_all(&last).expect("Finished and bytes are sent");
        tls
    }

    /// Shakes hands on a connection that stands.
    pub fn over(socket: TcpStream, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        let Self { mut stream } = Self::before(socket, config, name)?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        // The handshake is over for the client once its Finished is queued; now it is sent.
        stream.flush()?;
        Ok(Self { stream })
    }

    /// A client that has said nothing yet.
    fn before(socket: TcpStream, config: Arc<ClientConfig>, name: &str) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let name = name.to_owned().try_into().expect("a server name");
        let tls = ClientConnection::new(config, name).expect("a client");
        Ok(Self { stream: StreamOwned::new(tls, socket) })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
        self.stream.flush().expect("flush");
    }

    /// Reads until close_notify; an end without one is an error.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        self.stream.read_to_end(&mut all).map(|_| all)
    }

    /// Reads until what came ends with `end`.
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        self.read_until_any(&[end])
    }

    /// Reads until what came ends with one of `ends`.
    pub fn read_until_any(&mut self, ends: &[&[u8]]) -> Vec<u8> {
        let mut all = Vec::new();
        let mut byte = [0; 1024];
        while !ends.iter().any(|end| all.ends_with(end)) {
            match self.stream.read(&mut byte).expect("more bytes") {
                0 => panic!("the end came too early: {:?}", String::from_utf8_lossy(&all)),
                n => all.extend_from_slice(&byte[..n]),
            }
        }
        all
    }

    /// Sends close_notify; what was received can still be read.
    pub fn close(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().expect("flush");
    }
}
