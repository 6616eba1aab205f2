//! What an issuer's validation meets, and whoever pretends to be one.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustls::RootCertStore;

use crate::harness::autocert::{handshake, start, wait_for_certificate};
use crate::harness::{Pebble, PebbleOptions, root_store};

#[test]
fn without_a_challenge_a_validation_gets_no_certificate_and_a_client_no_acme_protocol() {
    let pebble = Pebble::start(PebbleOptions::default());
    let node = start(&pebble, &["a.example"], &[]);
    wait_for_certificate(&node, &pebble, "a.example");
    let roots = || root_store(pebble.root());
    for name in ["a.example", "b.example"] {
        let error = handshake(node.address, name, roots(), &["acme-tls/1"]).unwrap_err();
        assert!(
            error.contains("UnrecognisedName") || error.contains("UnrecognizedName"),
            "{error}"
        );
    }
    // A client that offers it among others is a client; the route offers no protocol at all.
    let (_, protocol) =
        handshake(node.address, "a.example", roots(), &["h2", "acme-tls/1"]).unwrap();
    assert_eq!(protocol, None);
    let nobody = RootCertStore::empty();
    assert!(handshake(node.address, "a.example", nobody, &[]).is_err());
}

#[test]
fn the_plain_listener_answers_no_challenge_that_nobody_placed() {
    let pebble = Pebble::start(PebbleOptions::default());
    let plain = format!("{}:{}", pebble.node, pebble.http_port);
    let node = start(&pebble, &["a.example"], &["--http-redirect-addr", &plain]);
    wait_for_certificate(&node, &pebble, "a.example");
    let ask = |host: &str, path: &str| {
        let mut stream = TcpStream::connect(&plain).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    for host in
        ["a.example", "b.example", "*", "a.example:80:80", "[::1", "\u{1F980}", "a.example/../b"]
    {
        for path in [
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/token",
            "/.well-known/acme-challenge/../../etc/passwd",
            "/.well-known/acme-challenge/%2e%2e",
        ] {
            let answer = ask(host, path);
            assert!(!answer.starts_with("HTTP/1.1 200 "), "{host} {path}: {answer}");
            assert!(!answer.contains("\r\ntoken"), "{answer}");
        }
    }
}
