//! Clients that send garbage, dribble, reset, or mistake the port; the rest is served all the while.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{Nginx, PATIENCE, Ringgate, Tls, command, curl, root_store};

const FROM: &str = "https://app.localhost";

fn start() -> (Nginx, Ringgate) {
    let nginx = Nginx::start("calm");
    let ringgate = Ringgate::start(&[
        "--route",
        &nginx.route(FROM),
        "--handshake-timeout",
        "3s",
        "--log-level",
        "debug",
    ]);
    (nginx, ringgate)
}

fn still_serves(ringgate: &Ringgate) {
    let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/", &[]);
    assert_eq!(output.stdout, b"the page of calm\n", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!ringgate.log().contains("this is a bug"), "{}", ringgate.log());
}

fn raw(ringgate: &Ringgate) -> TcpStream {
    let socket = TcpStream::connect(ringgate.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What the server says to these bytes before it closes.
fn answer(ringgate: &Ringgate, bytes: &[u8]) -> Vec<u8> {
    let mut socket = raw(ringgate);
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end too.
    let _ = socket.read_to_end(&mut answer);
    answer
}

/// A real ClientHello, as rustls sends it.
fn client_hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth();
    let name = name.to_owned().try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn garbage_is_closed_and_plain_http_gets_a_400_that_says_so() {
    let (_nginx, ringgate) = start();
    assert_eq!(answer(&ringgate, b"\x00\x01\x02 what is this"), b"");
    assert_eq!(answer(&ringgate, b"SSH-2.0-OpenSSH_9.6\r\n"), b"");
    let url = format!("http://{}/some/path", ringgate.address);
    let output = command("curl", &["-sS", "-i", &url], "");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("https://"), "{text}");
    still_serves(&ringgate);
}

#[test]
fn damaged_and_oversized_hellos_get_an_alert() {
    let (_nginx, ringgate) = start();
    let alert = |description| vec![21, 3, 3, 0, 2, 2, description];
    let (decode_error, illegal_parameter) = (alert(50), alert(47));
    let mut damaged = client_hello("app.localhost");
    damaged[43] = 0xff; // the session id's length
    assert_eq!(answer(&ringgate, &damaged), decode_error);
    // 64 KiB in four full records.
    let mut long = vec![1, 0, 0xff, 0xff];
    long.resize(65_536, 0);
    let long: Vec<u8> =
        long.chunks(16_384).flat_map(|chunk| [&[22, 3, 1, 0x40, 0][..], chunk].concat()).collect();
    assert_eq!(answer(&ringgate, &long), illegal_parameter);
    // A byte behind the hello in its record: unexpected_message (RFC 8446 §5.1).
    let mut longer = client_hello("app.localhost");
    longer.push(0);
    let length = u16::try_from(longer.len() - 5).unwrap();
    longer[3..5].copy_from_slice(&length.to_be_bytes());
    assert_eq!(answer(&ringgate, &longer), alert(10));
    still_serves(&ringgate);
}

#[test]
fn an_unknown_or_absent_server_name_gets_unrecognized_name() {
    let (_nginx, ringgate) = start();
    let alert = [21, 3, 3, 0, 2, 2, 112];
    assert_eq!(answer(&ringgate, &client_hello("other.localhost")), alert);
    assert_eq!(answer(&ringgate, &client_hello("app.localhost.example")), alert);
    let at = ringgate.address.to_string();
    let output = command("openssl", &["s_client", "-connect", &at, "-noservername"], "");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("unrecognized name"), "{text}");
    still_serves(&ringgate);
}

/// Out of band, each would wake the kernel's receive and leave nothing to read.
#[test]
fn urgent_bytes_are_bytes_like_others() {
    let nginx = Nginx::start("calm");
    let more = ["--route", &nginx.route(FROM), "--handshake-timeout", "1h"];
    let ringgate = Ringgate::start(&more);
    let mut socket = raw(&ringgate);
    socket2::SockRef::from(&socket).send_out_of_band(b"x").unwrap();
    let ended = socket.read(&mut [0; 8]).expect("an end, or an alert, before an hour is over");
    assert!(ended <= 7, "{ended}");
    still_serves(&ringgate);
}

/// One byte at a time, and in records of a few bytes: slow, but a hello.
#[test]
fn a_hello_one_byte_at_a_time_and_split_over_records_is_understood() {
    let (_nginx, ringgate) = start();
    let hello = client_hello("app.localhost");
    let is_server_hello = |socket: &mut TcpStream| {
        let mut header = [0; 6];
        socket.read_exact(&mut header).unwrap();
        assert_eq!((header[0], header[5]), (22, 2), "{header:?}");
    };
    let mut socket = raw(&ringgate);
    socket.set_nodelay(true).unwrap();
    for byte in &hello {
        socket.write_all(&[*byte]).unwrap();
    }
    is_server_hello(&mut socket);
    let mut socket = raw(&ringgate);
    let records: Vec<u8> = hello[5..]
        .chunks(200)
        .flat_map(|chunk| [&[22, 3, 1, 0, chunk.len() as u8][..], chunk].concat())
        .collect();
    socket.write_all(&records).unwrap();
    is_server_hello(&mut socket);
    still_serves(&ringgate);
}

#[test]
fn who_never_finishes_is_ended_at_handshake_timeout() {
    let (_nginx, ringgate) = start();
    let hello = client_hello("app.localhost");
    for sent in [&b""[..], &hello[..1], &hello[..100], &hello] {
        let begun = std::time::Instant::now();
        let mut socket = raw(&ringgate);
        socket.write_all(sent).unwrap();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        assert!(
            begun.elapsed() >= Duration::from_secs(2),
            "{} bytes: {:?}",
            sent.len(),
            begun.elapsed()
        );
    }
    ringgate.wait_for_log("\"reason\":\"handshake_timeout\"");
    still_serves(&ringgate);
}

/// A reset after every prefix of what a client says, then in the middle of data.
#[test]
fn a_peer_that_resets_at_every_step_costs_only_itself() {
    let (_nginx, mut ringgate) = start();
    let hello = client_hello("app.localhost");
    let reset = |socket: TcpStream| {
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        drop(socket);
    };
    for sent in (0..=hello.len()).step_by(7).chain([hello.len()]) {
        let mut socket = raw(&ringgate);
        socket.write_all(&hello[..sent]).unwrap();
        reset(socket);
    }
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    for request in [&b""[..], b"G", b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n"] {
        for wait in [false, true] {
            let mut client = Tls::connect(roots.clone(), ringgate.address, "app.localhost");
            client.send(request);
            if wait && request.len() > 1 {
                client.read_until(b"calm\n");
            }
            reset(client.stream.sock);
        }
    }
    still_serves(&ringgate);
    assert!(ringgate.is_running());
    assert!(!ringgate.log().contains("panicked"), "{}", ringgate.log());
}

#[test]
fn a_record_that_does_not_decrypt_gets_an_alert_and_ends_the_connection() {
    let (_nginx, ringgate) = start();
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let mut client = Tls::connect(roots, ringgate.address, "app.localhost");
    client.stream.sock.write_all(&[&[23, 3, 3, 0, 32][..], &[7; 32]].concat()).unwrap();
    let error = client.read_to_end().unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    ringgate.wait_for_log("\"reason\":\"bad_record\"");
    still_serves(&ringgate);
}

/// Handshake messages after the handshake, in pieces, while the other direction writes.
#[test]
fn split_messages_after_the_handshake_do_not_confuse_the_record_layer() {
    let (_nginx, mut ringgate) = start();
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    for piece in [1, 3, 5, 17] {
        let mut client = Tls::connect(roots.clone(), ringgate.address, "app.localhost");
        client.stream.conn.refresh_traffic_keys().unwrap();
        client.stream.write_all(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").ok();
        // What rustls has queued leaves in pieces of a few bytes.
        client.stream.conn.refresh_traffic_keys().unwrap();
        let mut queued = Vec::new();
        while client.stream.conn.wants_write() {
            client.stream.conn.write_tls(&mut queued).unwrap();
        }
        for chunk in queued.chunks(piece) {
            client.stream.sock.write_all(chunk).unwrap();
        }
        client.read_until(b"calm\n");
    }
    assert!(ringgate.is_running());
    assert!(!ringgate.log().contains("panicked"));
}
