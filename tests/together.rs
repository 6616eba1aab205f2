//! Handshakes that come at once, whose public-key operations are computed together where the processor can.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::harness::{Nginx, Ringgate, Tls, client_config_with, root_store};

fn can_compute_together() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512ifma");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// A client with tickets of its own that offers these groups.
fn client(ringgate: &Ringgate, groups: &[&'static dyn SupportedKxGroup]) -> Arc<ClientConfig> {
    let mut provider = default_provider();
    provider.kx_groups = groups.to_vec();
    let root = std::fs::read(ringgate.root()).expect("the local CA's root");
    client_config_with(provider, root_store(root))
}

/// Has all of them say hello while the server stands still, and then asks each for the page.
fn visit_at_once(ringgate: &Ringgate, clients: &[Arc<ClientConfig>], expected: HandshakeKind) {
    ringgate.signal("STOP");
    let waiting: Vec<_> = clients
        .iter()
        .map(|client| {
            let mut socket = TcpStream::connect(ringgate.address).expect("a place in the backlog");
            let name = "app.localhost".try_into().expect("a server name");
            let mut tls = ClientConnection::new(client.clone(), name).expect("a client");
            let mut hello = Vec::new();
            tls.write_tls(&mut hello).expect("a hello");
            socket.write_all(&hello).expect("room for a hello");
            StreamOwned::new(tls, socket)
        })
        .collect();
    ringgate.signal("CONT");
    for stream in waiting {
        let mut tls = Tls { stream };
        tls.send(b"GET / HTTP/1.0\r\n\r\n");
        let page = tls.read_to_end().expect("a whole answer");
        assert!(String::from_utf8_lossy(&page).contains("the page of many"));
        assert_eq!(tls.stream.conn.handshake_kind(), Some(expected));
    }
}

/// The first bytes of what comes back for a ClientHello that was changed.
fn answer(ringgate: &Ringgate, change: impl FnOnce(&mut Vec<u8>)) -> impl FnOnce() -> Vec<u8> {
    let name = "app.localhost".try_into().expect("a server name");
    let config = client(ringgate, &[kx_group::X25519]);
    let mut tls = ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).expect("a hello");
    change(&mut hello);
    let mut socket = TcpStream::connect(ringgate.address).expect("a place in the backlog");
    socket.write_all(&hello).expect("room for a hello");
    move || {
        let mut answer = vec![0; 7];
        socket.read_exact(&mut answer).expect("an answer");
        answer
    }
}

#[test]
fn a_bad_key_share_harms_none_of_those_beside_it() {
    let nginx = Nginx::start("many");
    let route = nginx.route("https://app.localhost");
    let ringgate = Ringgate::start(&["--route", &route, "--cores", "0"]);
    let good: Vec<_> = (0..12).map(|_| client(&ringgate, &[kx_group::X25519])).collect();
    let share = |hello: &[u8]| {
        // The group and the length before it.
        let before = [0, 0x1d, 0, 32];
        4 + hello.windows(4).position(|bytes| bytes == before).expect("a share of X25519")
    };
    ringgate.signal("STOP");
    // A public key of small order, with which everything agrees on zero.
    let zero = answer(&ringgate, |hello| {
        let at = share(hello);
        hello[at..at + 32].fill(0);
    });
    // A byte less, and one more in a GREASE group that follows (RFC 8701).
    let short = answer(&ringgate, |hello| {
        let at = share(hello);
        hello[at - 1] = 27;
        hello[at + 27..at + 32].copy_from_slice(&[0x2a, 0x2a, 0, 1, 0]);
    });
    visit_at_once(&ringgate, &good, HandshakeKind::Full);
    const ILLEGAL_PARAMETER: u8 = 47;
    for answer in [zero(), short()] {
        assert_eq!((answer[0], answer[6]), (21, ILLEGAL_PARAMETER), "{answer:?}");
    }
}

#[test]
fn handshakes_that_come_at_once_all_succeed() {
    let nginx = Nginx::start("many");
    let route = nginx.route("https://app.localhost");
    let ringgate = Ringgate::start(&["--route", &route, "--cores", "0"]);
    let x25519: &[&dyn SupportedKxGroup] = &[kx_group::X25519];
    let hybrid: &[&dyn SupportedKxGroup] = &[kx_group::X25519MLKEM768];
    let both: &[&dyn SupportedKxGroup] = &[kx_group::X25519MLKEM768, kx_group::X25519];
    let p256: &[&dyn SupportedKxGroup] = &[kx_group::SECP256R1];
    let clients: Vec<_> = [x25519, hybrid, both, p256]
        .iter()
        .cycle()
        .take(30)
        .map(|groups| client(&ringgate, groups))
        .collect();
    visit_at_once(&ringgate, &clients, HandshakeKind::Full);
    visit_at_once(&ringgate, &clients, HandshakeKind::Resumed);
    ringgate.signal("TERM");
    ringgate.wait_for_log("\"stopped\"");
    let log = ringgate.log();
    assert!(log.contains("\"hellos\":60"), "{log}");
    // Whether all were read in the same turn is the kernel's to say; that all were read alone is not.
    let none = log.contains("\"computed_together\":0,");
    assert_eq!(none, !can_compute_together(), "{log}");
}
