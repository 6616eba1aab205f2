//! Bytes through a TCP route: whole, both ways, at once, and with both kinds of ending.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::harness::{
    Nginx, Ringgate, Tls, command, curl, loopback, root_store, wait_for, wait_for_line,
};

const FROM: &str = "https://app.localhost";

fn in_front_of(nginx: &Nginx) -> Ringgate {
    Ringgate::start(&["--route", &nginx.route(FROM)])
}

#[test]
fn curl_gets_the_page_of_nginx_over_tls_1_2_and_1_3() {
    let nginx = Nginx::start("one");
    let ringgate = in_front_of(&nginx);
    for version in ["1.2", "1.3"] {
        let flag = format!("--tlsv{version}");
        let output = curl(
            &ringgate.root(),
            ringgate.address,
            "app.localhost",
            "/",
            &["-i", &flag, "--tls-max", version],
        );
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("X-Upstream: one") && text.ends_with("the page of one\n"), "{text}");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_route_port_that_no_listener_has_is_the_one_in_front_of_a_nat() {
    let nginx = Nginx::start("nat");
    let ringgate = Ringgate::start(&["--route", &nginx.route("https://app.localhost:443")]);
    let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/", &[]);
    assert_eq!(output.stdout, b"the page of nat\n");
}

/// 48 MiB one by one and 64 of them at once, half up and half down.
#[test]
fn large_files_arrive_whole_both_ways_also_64_at_once() {
    let nginx = Nginx::start("files");
    let ringgate = in_front_of(&nginx);
    // Not a multiple of any unit, and no two blocks alike.
    let content = |len: usize| -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.flatten().take(len).collect()
    };
    let large = content(48 * 1024 * 1024 + 4321);
    std::fs::write(nginx.file("large"), &large).unwrap();
    let source = ringgate.dir().join("large");
    std::fs::write(&source, &large).unwrap();
    let source = source.display().to_string();
    let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/large", &[]);
    assert!(output.stdout == large, "{} bytes came", output.stdout.len());
    let output =
        curl(&ringgate.root(), ringgate.address, "app.localhost", "/up", &["-T", &source, "-f"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(nginx.file("up")).unwrap() == large);

    let medium = content(3 * 1024 * 1024 + 17);
    std::fs::write(nginx.file("medium"), &medium).unwrap();
    let source = ringgate.dir().join("medium");
    std::fs::write(&source, &medium).unwrap();
    let source = source.display().to_string();
    std::thread::scope(|scope| {
        for client in 0..64 {
            let (ringgate, nginx, medium, source) = (&ringgate, &nginx, &medium, &source);
            scope.spawn(move || {
                if client % 2 == 0 {
                    let output =
                        curl(&ringgate.root(), ringgate.address, "app.localhost", "/medium", &[]);
                    assert!(
                        output.stdout == *medium,
                        "client {client}: {} bytes",
                        output.stdout.len()
                    );
                } else {
                    let path = format!("/up-{client}");
                    let more = ["-T", source.as_str(), "-f"];
                    let output =
                        curl(&ringgate.root(), ringgate.address, "app.localhost", &path, &more);
                    assert!(output.status.success());
                    assert!(
                        std::fs::read(nginx.file(&path[1..])).unwrap() == *medium,
                        "client {client}"
                    );
                }
            });
        }
    });
    assert_eq!(ringgate.count_in_log("\"WARN\""), 0);
}

#[test]
fn wrk_at_256_connections_ends_without_an_error() {
    let nginx = Nginx::start("load");
    // wrk takes no --resolve; by address it sends no server name.
    let route = nginx.route(FROM);
    let ringgate = Ringgate::start(&["--route", &route, "--default-server-name", "app.localhost"]);
    let url = format!("https://{}/", ringgate.address);
    // By default wrk calls an answer after two seconds an error, and other tests take their share of the cores.
    let load = ["-t2", "-c256", "-d5s", "--timeout", "20s", "-H", "Host: app.localhost", &url];
    let output = command("wrk", &load, "");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("requests in"), "{text}");
    assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
}

#[test]
fn a_client_that_reads_slowly_slows_the_upstream_down_and_loses_nothing() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&["--route", &route]);
    let total = 64 * 1024 * 1024;
    let (stalled, has_stalled) = std::sync::mpsc::channel();
    let upstream = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        let block = [b'x'; 64 * 1024];
        let (mut sent, mut stalls) = (0, 0);
        while sent < total {
            let begun = std::time::Instant::now();
            match socket.write(&block[..(total - sent).min(block.len())]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("after {sent} bytes: {error}"),
            }
            // A write that timed out may have written a part.
            if begun.elapsed().as_millis() > 300 {
                stalls += 1;
                let _ = stalled.send(());
            }
            assert!(stalls < 60, "stalled for ever after {sent} bytes");
        }
    });
    let mut client = connect(&ringgate);
    // Nobody reads: buffers fill up to the upstream, and Ringgate keeps no more than one unit of it.
    let before = ringgate.resident_bytes();
    has_stalled.recv().expect("the upstream is slowed down");
    let grown = ringgate.resident_bytes().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "grew by {grown} bytes");
    let received = client.read_to_end().unwrap();
    assert_eq!(received.len(), total);
    upstream.join().unwrap();
}

fn connect(ringgate: &Ringgate) -> Tls {
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    Tls::connect(roots, ringgate.address, "app.localhost")
}

/// The client says it is done and still gets the answer; the upstream sees the end when it comes.
#[test]
fn each_side_may_finish_first_and_still_receive() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&["--route", &route]);

    let mut client = connect(&ringgate);
    let (mut upstream, _) = listener.accept().unwrap();
    client.send(b"all I have");
    client.close();
    let mut received = Vec::new();
    upstream.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"all I have");
    upstream.write_all(b"the answer").unwrap();
    drop(upstream);
    assert_eq!(client.read_to_end().unwrap(), b"the answer");

    let mut client = connect(&ringgate);
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.write_all(b"a greeting, and no more").unwrap();
    upstream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end().unwrap(), b"a greeting, and no more");
    client.send(b"thanks");
    client.close();
    let mut received = Vec::new();
    upstream.read_to_end(&mut received).unwrap();
    assert_eq!(received, b"thanks");
}

/// TLS knows whether the end is the end: without close_notify the upstream must not see an orderly one.
#[test]
fn a_truncated_upload_is_not_passed_on_as_complete_and_a_broken_download_neither() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&["--route", &route]);

    let mut client = connect(&ringgate);
    let (mut upstream, _) = listener.accept().unwrap();
    client.send(b"half of it");
    let mut half = [0; 10];
    upstream.read_exact(&mut half).unwrap();
    drop(client.stream.sock);
    let error = upstream.read(&mut half).expect_err("a reset, not an end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let mut client = connect(&ringgate);
    let (mut upstream, _) = listener.accept().unwrap();
    upstream.write_all(b"half of it").unwrap();
    assert_eq!(client.read_until(b"half of it").len(), 10);
    let socket = socket2::SockRef::from(&upstream);
    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(upstream);
    assert!(client.read_to_end().is_err(), "no close_notify for what is not complete");
}

#[test]
fn the_route_picks_the_application_protocol() {
    let nginx = Nginx::start("alpn");
    let yaml = format!(
        "routes:\n- from: https://h2.localhost\n  to: tcp://{0}\n  alpn: [h2, http/1.1]\n- from: https://plain.localhost\n  to: tcp://{0}\n",
        nginx.address
    );
    let ringgate = Ringgate::start_with_config(&yaml);
    let negotiated = |name: &str, offer: &str| {
        let at = ringgate.address.to_string();
        let output = command(
            "openssl",
            &["s_client", "-connect", &at, "-servername", name, "-alpn", offer],
            "",
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    };
    assert!(negotiated("h2.localhost", "http/1.1,h2").contains("ALPN protocol: h2"));
    assert!(negotiated("h2.localhost", "http/1.1").contains("ALPN protocol: http/1.1"));
    assert!(negotiated("h2.localhost", "imap").contains("no application protocol"));
    assert!(negotiated("plain.localhost", "h2").contains("No ALPN negotiated"));
}

/// Traffic keys are replaced in the middle of a connection (RFC 8446 §4.6.3).
#[test]
fn key_updates_are_followed() {
    let nginx = Nginx::start("keys");
    let ringgate = in_front_of(&nginx);
    let mut client = connect(&ringgate);
    let request = b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n";
    for _ in 0..5 {
        client.send(request);
        client.read_until(b"the page of keys\n");
        client.stream.conn.refresh_traffic_keys().unwrap();
    }
    // openssl's K asks for the server's keys to be replaced as well.
    let at = ringgate.address.to_string();
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-connect", &at, "-servername", "app.localhost", "-tls1_3"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = openssl.stdin.take().unwrap();
    let mut said = BufReader::new(openssl.stderr.take().unwrap());
    input.write_all(b"K\n").unwrap();
    input.flush().unwrap();
    // A command is one only if it comes alone, so the request waits until this one has been carried out.
    wait_for_line(&mut said, "KEYUPDATE");
    input.write_all(b"GET / HTTP/1.0\n\n").unwrap();
    input.flush().unwrap();
    let mut output = String::new();
    openssl.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    let _ = openssl.wait();
    assert!(output.contains("the page of keys"), "{output}");
}

/// Whoever asks waits for the answer: it must not wait for the upstream's next word.
#[test]
fn a_renegotiation_is_refused_at_once() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&["--route", &route]);
    let at = ringgate.address.to_string();
    let arguments =
        ["60", "openssl", "s_client", "-connect", &at, "-servername", "app.localhost", "-tls1_2"];
    let mut openssl = Command::new("timeout")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Its input stays open: it is the server that ends this.
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(b"R\n").unwrap();
    let mut said = String::new();
    openssl.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    assert_ne!(openssl.wait().unwrap().code(), Some(124), "{said}");
}

#[test]
fn an_idle_connection_is_ended_with_close_notify_and_a_busy_one_is_not() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&["--route", &route, "--idle-timeout", "4s"]);
    let mut idle = connect(&ringgate);
    let (_idle_upstream, _) = listener.accept().unwrap();
    let mut busy = connect(&ringgate);
    let (mut busy_upstream, _) = listener.accept().unwrap();
    let (done, finished) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let ended = idle.read_to_end();
        done.send(ended).unwrap();
    });
    // One byte in either direction now and then for longer than the timeout.
    for turn in 0..12 {
        std::thread::sleep(std::time::Duration::from_millis(400));
        if turn % 2 == 0 {
            busy.send(b"x");
            busy_upstream.read_exact(&mut [0]).unwrap();
        } else {
            busy_upstream.write_all(b"y").unwrap();
            busy.read_until(b"y");
        }
    }
    let ended = finished.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert_eq!(ended.expect("close_notify"), b"");
}

/// The upstream answers nothing; the ticket must not wait for it for ever.
#[test]
fn a_ticket_comes_even_if_the_upstream_says_nothing() {
    let listener = TcpListener::bind(SocketAddr::from((loopback(), 0))).unwrap();
    let route = format!("{FROM}=tcp://{}", listener.local_addr().unwrap());
    let ringgate = Ringgate::start(&["--route", &route]);
    let mut client = connect(&ringgate);
    client.stream.sock.set_nonblocking(true).unwrap();
    wait_for("the ticket", || {
        let _ = client.stream.conn.complete_io(&mut client.stream.sock);
        (client.stream.conn.tls13_tickets_received() > 0).then_some(())
    });
}
