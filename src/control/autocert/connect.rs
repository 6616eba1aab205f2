//! A TCP connection to a server: to an address of its name that may be connected to, or through a proxy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::autocert::Proxy;

use super::super::addresses::{self, Vouched};
use super::lookup::look_up;
use super::transport::Trouble;

/// To connect to one address: a lost SYN is sent again after 1 and after 3 seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer of a proxy to CONNECT.
const LONGEST_PROXY_ANSWER: usize = 8 * 1024;

/// Connects to the first address of a name that accepts, and that whoever vouches for the name may send us to.
pub async fn connect(
    host: &str,
    port: u16,
    vouched: Option<Vouched>,
) -> Result<TcpStream, Trouble> {
    let refused = |address: IpAddr| vouched.and_then(|by| addresses::refused(address, by));
    let addresses = match vouched {
        Some(_) => look_up(host, port).await,
        None => tokio::net::lookup_host((host, port)).await.map(Iterator::collect),
    };
    let addresses: Vec<SocketAddr> = addresses.map_err(|error| Trouble {
        is_unresolved: true,
        ..Trouble::new(format!("{host} does not resolve: {error}"))
    })?;
    let mut last = Trouble::new(format!("{host} resolves to no address"));
    for address in addresses {
        if let Some(why) = refused(address.ip()) {
            last = Trouble::new(format!("{host} ({}) {why} and is not asked", address.ip()));
            continue;
        }
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // An address of this machine's own leads to itself as surely as loopback does.
                let is_own = tcp.local_addr().is_ok_and(|own| own.ip() == address.ip());
                if is_own && vouched == Some(Vouched::ByIssuer) {
                    last = Trouble::new(format!(
                        "{host} ({address}) is this machine itself and is not asked"
                    ));
                    continue;
                }
                // Small messages that wait for each other; without this it is only slower.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Ok(Err(error)) => {
                last = Trouble::new(format!("cannot connect to {host} ({address}): {error}"))
            }
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                last =
                    Trouble::new(format!("{host} ({address}) did not accept within {seconds} s"));
            }
        }
    }
    Err(last)
}

/// For a proxy that resolves the name itself: nothing is asked of it that resolves here to what is refused.
/// Where a name does not resolve here at all, the proxy's word is the only one.
///
/// # Errors
/// Why it is not asked.
pub async fn refuse_by_addresses(host: &str, port: u16, by: Vouched) -> Result<(), Trouble> {
    for address in look_up(host, port).await.unwrap_or_default() {
        if let Some(why) = addresses::refused(address.ip(), by) {
            return Err(Trouble::new(format!("{host} ({}) {why} and is not asked", address.ip())));
        }
    }
    Ok(())
}

/// Asks a proxy to lead on to there (RFC 9110 §9.3.6).
pub async fn tunnel(
    mut tcp: TcpStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<TcpStream, Trouble> {
    let broken =
        |error: io::Error| Trouble::new(format!("the proxy of HTTPS_PROXY broke off: {error}"));
    let target =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(credentials) = &proxy.credentials {
        head.push_str(&format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(credentials)));
    }
    head.push_str("\r\n");
    tcp.write_all(head.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::new();
    // Byte by byte: what follows belongs to TLS.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= LONGEST_PROXY_ANSWER {
            return Err(Trouble::new("the proxy of HTTPS_PROXY answered with too much"));
        }
        answer.push(tcp.read_u8().await.map_err(broken)?);
    }
    let first = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let status = first.split(' ').nth(1).unwrap_or_default();
    if status.len() == 3 && status.starts_with('2') {
        return Ok(tcp);
    }
    Err(Trouble::new(format!("the proxy of HTTPS_PROXY refuses to connect to {target}: {first}")))
}
