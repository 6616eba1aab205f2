//! pebble-challtestsrv: the DNS that Pebble asks, on an address of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Message;
use super::{loopback, wait_for};

// Its own defaults, on an address that is this test's alone.
const DNS_PORT: u16 = 8053;
const MANAGEMENT_PORT: u16 = 8055;

pub struct Challtestsrv {
    child: Child,
    pub dns: SocketAddr,
    management: SocketAddr,
}

impl Challtestsrv {
    /// Answers every name with `node`, over IPv4 alone: Pebble prefers IPv6 and does not fall back.
    pub fn start(node: Ipv4Addr) -> Self {
        let host = loopback();
        let dns = SocketAddr::from((host, DNS_PORT));
        let management = SocketAddr::from((host, MANAGEMENT_PORT));
        let child = Command::new("pebble-challtestsrv")
            .args(["-dns01", &dns.to_string(), "-management", &management.to_string()])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv6", "", "-defaultIPv4", &node.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble-challtestsrv is installed (scripts/test installs it)");
        let started = Self { child, dns, management };
        wait_for("challtestsrv to manage", || TcpStream::connect(management).ok());
        wait_for("challtestsrv to answer", || answers_queries(dns).then_some(()));
        started
    }

    fn manage(&self, what: &str, body: &Value) {
        let host = self.management.to_string();
        let request = Message::request("POST", &format!("/{what}"), &host, body.to_string());
        let socket = TcpStream::connect(self.management).expect("challtestsrv runs");
        let answer = request.exchange(socket).expect("an answer");
        assert_eq!(answer.status(), 200, "{what} {body}: {answer:?}");
    }

    /// This name leads here and nowhere else.
    pub fn set_address(&self, name: &str, address: Ipv4Addr) {
        self.forget_address(name);
        self.manage("add-a", &json!({ "host": name, "addresses": [address.to_string()] }));
    }

    /// This name leads to the node, as every name does.
    pub fn forget_address(&self, name: &str) {
        self.manage("clear-a", &json!({ "host": name }));
    }

    /// Whether the look-up of this name fails. Pebble 2.4.0 reports that as `connection` or `malformed`, by
    /// challenge, and not as `dns`.
    pub fn set_failing(&self, name: &str, fails: bool) {
        let what = if fails { "set-servfail" } else { "clear-servfail" };
        self.manage(what, &json!({ "host": name }));
    }
}

impl Drop for Challtestsrv {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a DNS server answers a query for the A records of `x` (RFC 1035 §4.1), with whatever.
pub fn answers_queries(dns: SocketAddr) -> bool {
    let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01x\0\0\x01\0\x01";
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    // Long for loopback; a query that came too early is asked again.
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    socket.connect(dns).expect("an address");
    socket.send(query).is_ok() && socket.recv(&mut [0; 512]).is_ok()
}
