//! `tls://` upstreams: encrypted again, and verified unless that was switched off.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::{
    Authority, Key, Nginx, NginxOptions, Ringgate, Scratch, Tls, curl, loopback, root_store,
    unused_address, wait_for_line,
};

const FROM: &str = "https://app.localhost";

/// What nginx says of the connection that it got.
const SHOWN: &str = "location = /tls { default_type text/plain; return 200 \"$ssl_protocol $ssl_server_name $ssl_session_reused $ssl_alpn_protocol $ssl_client_verify\\n\"; }";

/// An nginx that speaks TLS with a certificate for these names.
fn nginx(ca: &Authority, names: &[&str], server: &str) -> Nginx {
    let (chain, key) = ca.issue(names, Key::P256);
    let server = format!(
        "ssl_certificate {{root}}/cert; ssl_certificate_key {{root}}/key; ssl_protocols TLSv1.2 TLSv1.3; {server} {SHOWN}"
    );
    Nginx::start_with(
        "encrypted",
        &[("cert", &chain), ("key", &key), ("ca", ca.pem())],
        &NginxOptions { listen: Some("{address} ssl http2"), server: &server, http: "" },
    )
}

fn start(scratch: &Scratch, ca: &Authority, to: SocketAddr, more: &str) -> Ringgate {
    let ca = scratch.write("ca.pem", ca.pem());
    Ringgate::start_with_config(&format!(
        "cores: 0\nroutes:\n- from: {FROM}\n  to: tls://{to}\n  tls_custom_ca_file: {}\n{more}",
        ca.display()
    ))
}

fn get(ringgate: &Ringgate, path: &str, more: &[&str]) -> String {
    let output = curl(&ringgate.root(), ringgate.address, "app.localhost", path, more);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_upstream_is_verified_by_its_address_or_name_and_its_session_resumes() {
    let (scratch, ca) = (Scratch::new(), Authority::new("upstreams"));
    let host = loopback().to_string();
    let nginx = nginx(&ca, &["inner.example", &host], "");
    let ringgate = start(&scratch, &ca, nginx.address, "  tls_server_name: inner.example\n");
    assert_eq!(get(&ringgate, "/", &[]), "the page of encrypted\n");
    let shown = get(&ringgate, "/tls", &[]);
    assert_eq!(shown, "TLSv1.3 inner.example r  NONE\n", "resumed from the connection before");
}

#[test]
fn one_that_cannot_be_verified_gets_nothing() {
    let (scratch, ca) = (Scratch::new(), Authority::new("upstreams"));
    let other_ca = Authority::new("others");
    let nginx = nginx(&ca, &["inner.example"], "");
    for (ca, more, why) in [
        (&other_ca, "  tls_server_name: inner.example\n", "UnknownIssuer"),
        (&ca, "  tls_server_name: other.example\n", "other.example"),
        (&ca, "", "127."),
    ] {
        let ringgate = start(&scratch, ca, nginx.address, more);
        assert_eq!(get(&ringgate, "/", &[]), "");
        ringgate.wait_for_log("\"reason\":\"upstream_handshake\"");
        let log = ringgate.log();
        let line = log.lines().find(|line| line.contains("upstream_handshake")).unwrap();
        assert!(line.contains(why), "{why}: {line}");
        assert!(line.contains(&nginx.address.to_string()), "{line}");
    }
    // By the system's roots, which do not know it either.
    let route = format!("{FROM}=tls://{}", nginx.address);
    let ringgate = Ringgate::start(&["--route", &route]);
    assert_eq!(get(&ringgate, "/", &[]), "");
    ringgate.wait_for_log("\"reason\":\"upstream_handshake\"");
    // Unless it is said that it need not be.
    let ringgate = start(&scratch, &other_ca, nginx.address, "  tls_skip_verify: true\n");
    assert_eq!(get(&ringgate, "/", &[]), "the page of encrypted\n");
}

/// It waits for the answer, and the client may wait for what it does then.
#[test]
fn one_that_wants_to_renegotiate_is_refused_at_once() {
    let (scratch, ca) = (Scratch::new(), Authority::new("upstreams"));
    let (chain, key) = ca.issue(&["inner.example"], Key::P256);
    let at = unused_address();
    let mut server = Command::new("openssl")
        .args(["s_server", "-tls1_2", "-accept", &at.to_string()])
        .arg("-cert")
        .arg(scratch.write("chain.pem", chain))
        .arg("-key")
        .arg(scratch.write("key.pem", key))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap());
    wait_for_line(&mut said, "ACCEPT");
    let ringgate = start(&scratch, &ca, at, "  tls_server_name: inner.example\n");
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let mut client = Tls::connect(roots, ringgate.address, "app.localhost");
    client.send(b"a question\n");
    wait_for_line(&mut said, "a question");
    server.stdin.as_mut().unwrap().write_all(b"r\n").unwrap();
    // openssl ends a connection on which its wish is refused, and only when it has been.
    let ended = client.read_to_end();
    let _ = (server.kill(), server.wait());
    let kind = ended.as_ref().err().map(std::io::Error::kind);
    assert!(!matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{ended:?}");
}

#[test]
fn it_is_shown_a_client_certificate_if_it_asks() {
    let (scratch, ca) = (Scratch::new(), Authority::new("upstreams"));
    let verify = "ssl_client_certificate {root}/ca; ssl_verify_client on;";
    let nginx = nginx(&ca, &["inner.example"], verify);
    let (chain, key) = ca.issue(&["client"], Key::P256);
    let (chain, key) = (scratch.write("client.crt", chain), scratch.write("client.key", key));
    let name = "  tls_server_name: inner.example\n";
    let without = start(&scratch, &ca, nginx.address, name);
    assert!(get(&without, "/tls", &[]).contains("No required SSL certificate was sent"));
    let with = format!(
        "{name}  tls_client_cert_file: {}\n  tls_client_key_file: {}\n",
        chain.display(),
        key.display()
    );
    let with = start(&scratch, &ca, nginx.address, &with);
    assert!(get(&with, "/tls", &[]).ends_with(" SUCCESS\n"));
}

#[test]
fn it_must_speak_what_the_client_negotiated() {
    let (scratch, ca) = (Scratch::new(), Authority::new("upstreams"));
    let nginx = nginx(&ca, &["inner.example"], "");
    let more = "  tls_server_name: inner.example\n  alpn: [h2, http/1.1]\n";
    let ringgate = start(&scratch, &ca, nginx.address, more);
    assert!(get(&ringgate, "/tls", &["--http2"]).contains(" h2 "));
    assert!(get(&ringgate, "/tls", &["--http1.1"]).contains(" http/1.1 "));

    // One that knows no ALPN is not sent HTTP/2.
    let (chain, key) = ca.issue(&["inner.example"], Key::P256);
    let (upstream, address) = tls_upstream(&chain, &key);
    let ringgate = start(&scratch, &ca, address, more);
    let serving = std::thread::spawn(move || {
        for _ in 0..2 {
            let Ok((socket, _)) = upstream.0.accept() else { return };
            let tls = ServerConnection::new(upstream.1.clone()).unwrap();
            let mut stream = StreamOwned::new(tls, socket);
            // Closing with a request unread would reset the connection and take the answer along.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    assert_eq!(get(&ringgate, "/", &["--http2"]), "");
    ringgate.wait_for_log("it does not speak h2");
    let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/", &["--http1.1"]);
    assert!(output.status.success(), "{output:?}");
    serving.join().unwrap();
}

/// A listener with a rustls configuration, for what nginx would not do.
fn tls_upstream(chain: &str, key: &str) -> ((TcpListener, Arc<ServerConfig>), SocketAddr) {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let config = server_config(chain, key, rustls::ALL_VERSIONS);
    ((listener, config), address)
}

fn server_config(
    chain: &str,
    key: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(versions)
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
        PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
    );
    Arc::new(config.unwrap())
}

#[test]
fn its_end_is_passed_on_as_what_it_was() {
    let (scratch, ca) = (Scratch::new(), Authority::new("upstreams"));
    let (chain, key) = ca.issue(&["inner.example"], Key::P256);
    let (upstream, address) = tls_upstream(&chain, &key);
    let ringgate =
        start(&scratch, &ca, address, "  tls_server_name: inner.example\nlog_level: debug\n");
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    for (orderly, size) in [(true, 5), (false, 5), (true, 300_000), (false, 300_000)] {
        let mut client = Tls::connect(roots.clone(), ringgate.address, "app.localhost");
        let (socket, _) = upstream.0.accept().unwrap();
        let tls = ServerConnection::new(upstream.1.clone()).unwrap();
        let mut stream = StreamOwned::new(tls, socket);
        // It speaks first, which some protocols do.
        stream.write_all(&vec![b'x'; size]).unwrap();
        if orderly {
            stream.conn.send_close_notify();
        }
        stream.flush().unwrap();
        stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
        let outcome = client.read_to_end();
        match orderly {
            true => assert_eq!(outcome.unwrap(), vec![b'x'; size]),
            false => {
                let error = outcome.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
            }
        }
    }
    ringgate.wait_for_log("\"reason\":\"upstream_truncated\"");
}

#[test]
fn large_files_pass_both_ways() {
    let (scratch, ca) = (Scratch::new(), Authority::new("upstreams"));
    let nginx = nginx(&ca, &["inner.example"], "");
    let ringgate = start(&scratch, &ca, nginx.address, "  tls_server_name: inner.example\n");
    let content: Vec<u8> =
        (0..20_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let file = scratch.write("file", &content);
    let path = file.display().to_string();
    let output = curl(
        &ringgate.root(),
        ringgate.address,
        "app.localhost",
        "/up",
        &["--http1.1", "-T", &path],
    );
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read(nginx.file("up")).unwrap() == content);
    let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/up", &["--http1.1"]);
    assert!(output.stdout == content, "{} bytes", output.stdout.len());
}

#[test]
fn files_that_cannot_be_used_are_problems_with_their_key() {
    let scratch = Scratch::new();
    let ca = scratch.write("ca.pem", Authority::new("upstreams").pem());
    let nothing = scratch.write("nothing.pem", "nothing\n");
    let yaml = |name: &str, more: &str| {
        let text = format!(
            "data_dir: {}\nroutes:\n- from: {FROM}\n  to: tls://127.0.0.1:1\n{more}",
            scratch.path().display()
        );
        scratch.write(name, text)
    };
    for (name, more, expected) in [
        ("a", format!("  tls_custom_ca_file: {}\n", nothing.display()), "tls_custom_ca_file: "),
        (
            "b",
            "  tls_custom_ca_file: /nowhere\n".to_owned(),
            "tls_custom_ca_file: cannot read /nowhere",
        ),
        (
            "c",
            format!("  tls_client_cert_file: {0}\n  tls_client_key_file: {0}\n", ca.display()),
            "tls_client_cert_file: ",
        ),
    ] {
        let path = yaml(name, &more);
        let output = Ringgate::output(&["check", "--config", path.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains(&format!("routes[0].{expected}")), "{text}");
    }
}

/// In TLS 1.2 the upstream's Finished comes last, and what it says first may come with it.
#[test]
fn what_comes_with_the_end_of_its_handshake_is_not_lost() {
    let (scratch, ca) = (Scratch::new(), Authority::new("upstreams"));
    let (chain, key) = ca.issue(&["inner.example"], Key::P256);
    let (upstream, address) = tls_upstream(&chain, &key);
    let ringgate = start(&scratch, &ca, address, "  tls_server_name: inner.example\n");
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = server_config(&chain, &key, &[version]);
        // Whoever speaks first: the client has sent already, or waits for the greeting.
        for client_speaks in [true, false] {
            let mut client = Tls::connect(roots.clone(), ringgate.address, "app.localhost");
            if client_speaks {
                client.send(b"hello");
            }
            let (mut socket, _) = upstream.0.accept().unwrap();
            let mut tls = ServerConnection::new(config.clone()).unwrap();
            while tls.is_handshaking() {
                while !tls.wants_write() && tls.is_handshaking() {
                    tls.read_tls(&mut socket).unwrap();
                    tls.process_new_packets().unwrap();
                }
                if !tls.is_handshaking() {
                    break;
                }
                tls.write_tls(&mut socket).unwrap();
            }
            // Its last flight and the greeting in one packet.
            tls.writer().write_all(b"220 greetings\r\n").unwrap();
            let mut last = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut last).unwrap();
            }
            socket.write_all(&last).unwrap();
            client.read_until(b"greetings\r\n");
            if client_speaks {
                let mut stream = StreamOwned::new(tls, socket);
                let mut heard = [0; 5];
                stream.read_exact(&mut heard).unwrap();
                assert_eq!(&heard, b"hello");
            }
        }
    }
}
