//! Upstreams that refuse, hang, close first, or cannot be found.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{Nginx, Ringgate, Scratch, Tls, curl, loopback, root_store, unused_address};

const FROM: &str = "https://app.localhost";

fn connect(ringgate: &Ringgate) -> Tls {
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    Tls::connect(roots, ringgate.address, "app.localhost")
}

#[test]
fn an_upstream_that_refuses_is_named_in_the_log_and_served_once_it_is_back() {
    let address = unused_address();
    let ringgate = Ringgate::start(&["--route", &format!("{FROM}=tcp://{address}")]);
    let mut client = connect(&ringgate);
    assert!(client.read_to_end().is_err(), "no close_notify: this is no empty answer");
    ringgate.wait_for_log("\"reason\":\"connect_refused\"");
    ringgate.wait_for_log(&address.to_string());
    let _nginx = Nginx::start_at("back", address);
    let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/", &[]);
    assert_eq!(output.stdout, b"the page of back\n");
}

/// A backlog that is full makes connect(2) hang.
#[test]
fn an_upstream_that_hangs_costs_connect_timeout_and_no_more() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((loopback(), 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        fillers.push(filler);
        assert!(fillers.len() < 100);
    }
    let route = format!("{FROM}=tcp://{address}");
    let ringgate = Ringgate::start(&["--route", &route, "--connect-timeout", "1s"]);
    let begun = Instant::now();
    let mut client = connect(&ringgate);
    assert!(client.read_to_end().is_err());
    let took = begun.elapsed();
    assert!(took.as_millis() >= 900, "{took:?}");
    ringgate.wait_for_log("\"reason\":\"connect_timeout\"");
}

#[test]
fn an_upstream_that_closes_first_ends_the_connection_in_order() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&["--route", &route]);
    let mut client = connect(&ringgate);
    drop(listener.accept().unwrap());
    assert_eq!(client.read_to_end().unwrap(), b"");
    // Also when it has read nothing of what was sent: then its kernel answers with a reset.
    let mut client = connect(&ringgate);
    let (upstream, _) = listener.accept().unwrap();
    client.send(&[b'x'; 100_000]);
    drop(upstream);
    let _ = client.read_to_end();
    let mut client = connect(&ringgate);
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.write_all(b"still here").unwrap();
    client.read_until(b"still here");
}

#[test]
fn a_name_is_resolved_by_the_control_plane_and_one_that_does_not_resolve_is_said() {
    let nginx = Nginx::start_at(
        "resolved",
        SocketAddr::from(([127, 0, 0, 1], crate::harness::free_port([127, 0, 0, 1].into()))),
    );
    let good = format!("https://good.localhost=tcp://localhost:{}", nginx.address.port());
    let bad = "https://bad.localhost=tcp://no-such-host.invalid:80";
    let ringgate = Ringgate::start(&["--route", &good, "--route", bad]);
    let output = curl(&ringgate.root(), ringgate.address, "good.localhost", "/", &[]);
    assert_eq!(output.stdout, b"the page of resolved\n");
    assert!(ringgate.log().contains("no-such-host.invalid"));
    let output = curl(&ringgate.root(), ringgate.address, "bad.localhost", "/", &[]);
    assert!(!output.status.success());
    ringgate.wait_for_log("\"reason\":\"unresolved\"");
}

/// The kernel delayed none of them. A machine that is busy with other tests may delay some, not all.
#[track_caller]
fn assert_undelayed(what: &str, took: impl Iterator<Item = Duration>) {
    let quickest = took.min().unwrap();
    // A delayed acknowledgement takes 40 ms at least.
    assert!(quickest.as_millis() < 30, "{what}: {quickest:?}");
}

/// With Nagle's algorithm, which is on unless an application turns it off, the second piece of an answer waits for the
/// acknowledgement of the first, and Linux delays those by 40 ms on connections that it takes for conversations.
#[test]
fn an_answer_in_two_pieces_waits_for_no_delayed_acknowledgement() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let address = listener.local_addr().unwrap();
    for header in ["", "  send_proxy: v2\n"] {
        let scratch = Scratch::new();
        let config = scratch.write(
            "ringgate.yaml",
            format!("routes:\n- from: {FROM}\n  to: tcp://{address}\n{header}"),
        );
        let ringgate = Ringgate::start(&["--config", config.to_str().unwrap()]);
        let roots = root_store(std::fs::read(ringgate.root()).unwrap());
        let answers = (0..20).map(|_| {
            let (client, at) = (roots.clone(), ringgate.address);
            let mut client = Tls::connect_saying(client, at, "app.localhost", b"a request\n");
            let (mut upstream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"a request\n") {
                let mut byte = [0];
                upstream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            let begun = Instant::now();
            upstream.write_all(b"a head\n").unwrap();
            upstream.write_all(b"a body\n").unwrap();
            assert_eq!(client.read_until(b"a body\n"), b"a head\na body\n");
            begun.elapsed()
        });
        assert_undelayed(header, answers);
    }
}

/// The kernel must not wait for first bytes to complete TCP's handshake with where the client has none.
#[test]
fn an_upstream_that_speaks_first_does_so_at_once() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&["--route", &route]);
    let greetings = (0..10).map(|_| {
        let mut client = connect(&ringgate);
        let begun = Instant::now();
        let (mut upstream, _) = listener.accept().unwrap();
        upstream.write_all(b"220 greetings\r\n").unwrap();
        client.read_until(b"greetings\r\n");
        begun.elapsed()
    });
    assert_undelayed("greeting", greetings);
}

/// A 413, say: the upstream answers, closes with the request unread, and its kernel answers the rest of the
/// upload with a reset. The answer must arrive all the same.
#[test]
fn an_answer_that_comes_before_the_upload_ends_arrives() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&["--route", &route]);
    let answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large";
    for _ in 0..20 {
        let mut client = connect(&ringgate);
        let (mut upstream, _) = listener.accept().unwrap();
        client.send(&[b'x'; 300_000]);
        upstream.read_exact(&mut [0; 1000]).unwrap();
        upstream.write_all(answer).unwrap();
        drop(upstream);
        // It goes on sending for a while, as clients do that have not looked yet.
        let mut received = Vec::new();
        for _ in 0..10 {
            if client
                .stream
                .write_all(&[b'x'; 10_000])
                .and_then(|()| client.stream.flush())
                .is_err()
            {
                break;
            }
        }
        let _ = client.stream.read_to_end(&mut received);
        assert_eq!(String::from_utf8_lossy(&received), String::from_utf8_lossy(answer));
    }
}

/// Whatever ends a client's stream but its own close_notify: the upstream must not take it for the end.
#[test]
fn an_upload_that_was_cut_off_ends_with_a_reset_upstream() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let mut ringgate = Ringgate::start(&[
        "--route",
        &route,
        "--idle-timeout",
        "3s",
        "--shutdown-timeout",
        "100ms",
    ]);
    let upload = || {
        let mut client = connect(&ringgate);
        client.send(b"half of it");
        let (mut upstream, _) = listener.accept().unwrap();
        upstream.read_exact(&mut [0; 10]).unwrap();
        (client, upstream)
    };
    let is_reset = |upstream: &mut TcpStream| {
        let error = upstream.read(&mut [0; 1]).expect_err("an end would be taken for one");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    };
    // The client resets, sends a record that is not valid, says nothing any more, or is drained.
    let (client, mut upstream) = upload();
    socket2::SockRef::from(&client.stream.sock).set_linger(Some(Default::default())).unwrap();
    drop(client);
    is_reset(&mut upstream);
    let (mut client, mut upstream) = upload();
    client.stream.sock.write_all(&[&[23, 3, 3, 0, 32][..], &[7; 32]].concat()).unwrap();
    is_reset(&mut upstream);
    let (_client, mut upstream) = upload();
    is_reset(&mut upstream);
    let (_client, mut upstream) = upload();
    ringgate.signal("TERM");
    is_reset(&mut upstream);
    assert!(ringgate.wait_for_end().success());
}
