//! The plain listener: who comes with http is sent to https, and nobody is led astray.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use crate::harness::{PATIENCE, Ringgate, command, curl, loopback};

fn start(routes: &[&str]) -> Ringgate {
    let redirect = format!("{}:0", loopback());
    // The plain listener has an address of its own; the harness takes the last one for the TLS one.
    let host = redirect.trim_end_matches(":0");
    let mut arguments = vec!["--http-redirect-addr", &redirect, "--handshake-timeout", "2s"];
    let address = format!("{host}:0");
    arguments.extend(["--address", &address, "--log-level", "debug"]);
    for route in routes {
        arguments.extend(["--route", route]);
    }
    Ringgate::start(&arguments)
}

fn answer(ringgate: &Ringgate, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(ringgate.redirect_address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end too.
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn get(ringgate: &Ringgate, host: &str, path: &str) -> String {
    answer(ringgate, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
}

#[test]
fn a_client_is_sent_to_https_with_path_and_query_and_curl_follows() {
    let nginx = crate::harness::Nginx::start("redirected");
    let ringgate = start(&[&nginx.route("https://app.localhost")]);
    let (plain, tls) = (ringgate.redirect_address(), ringgate.address);
    let resolve = |address: std::net::SocketAddr| {
        format!("app.localhost:{}:{}", address.port(), address.ip())
    };
    let output = command(
        "curl",
        &[
            "-sSL",
            "--cacert",
            ringgate.root().to_str().unwrap(),
            "--resolve",
            &resolve(plain),
            "--resolve",
            &resolve(tls),
            &format!("http://app.localhost:{}/?a=b", plain.port()),
        ],
        "",
    );
    assert_eq!(output.stdout, b"the page of redirected\n", "{output:?}");
    let reply = get(&ringgate, "APP.localhost:80", "/a/b?c=%0d%0a&d");
    assert!(reply.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{reply}");
    let location = format!("\r\nLocation: https://app.localhost:{}/a/b?c=%0d%0a&d\r\n", tls.port());
    assert!(reply.contains(&location), "{reply}");
    // A HEAD has no body, and its connection ends all the same.
    let head = answer(&ringgate, b"HEAD / HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n") && head.contains("308"), "{head}");
}

#[test]
fn the_port_is_the_public_one_and_only_hosts_of_routes_are_sent_anywhere() {
    let ringgate = start(&[
        "https://usual.localhost=tcp://127.0.0.1:1",
        "https://public.localhost:443=tcp://127.0.0.1:1",
        "https://*.wild.localhost:8443=tcp://127.0.0.1:1",
    ]);
    let port = ringgate.address.port();
    for (host, location) in [
        ("usual.localhost", format!("https://usual.localhost:{port}/x")),
        ("public.localhost", "https://public.localhost/x".into()),
        ("a.wild.localhost", "https://a.wild.localhost:8443/x".into()),
    ] {
        let answer = get(&ringgate, host, "/x");
        assert!(answer.contains(&format!("\r\nLocation: {location}\r\n")), "{host}: {answer}");
    }
    for host in ["other.localhost", "b.a.wild.localhost", "127.0.0.1", "", "a b", "evil.example"] {
        let answer = get(&ringgate, host, "/x");
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{host}: {answer}");
        assert!(!answer.contains("Location"), "{host}: {answer}");
    }
}

#[test]
fn hostile_hosts_and_paths_are_harmless() {
    let ringgate = start(&["https://app.localhost=tcp://127.0.0.1:1"]);
    let location = |answer: &str| {
        let line = answer.lines().find_map(|line| line.strip_prefix("Location: "));
        line.map(str::to_owned)
    };
    let ours = format!("https://app.localhost:{}", ringgate.address.port());
    for (host, path) in [
        ("app.localhost", "//evil.example/"),
        ("app.localhost", "/\\evil.example"),
        ("app.localhost", "/../../etc/passwd"),
        ("app.localhost", "/<script>alert(1)</script>"),
        ("evil.example", "http://app.localhost/"),
        ("app.localhost.", "/"),
    ] {
        let answer = get(&ringgate, host, path);
        let location = location(&answer).unwrap_or_else(|| panic!("{host} {path}: {answer}"));
        assert!(location.starts_with(&format!("{ours}/")), "{location}");
        assert!(!answer.split("\r\n\r\n").nth(1).unwrap().contains("script"), "{answer}");
    }
    for (host, path) in [
        ("app.localhost@evil.example", "/"),
        ("evil.example#app.localhost", "/"),
        ("app.localhost", "http://evil.example/"),
        ("evil.example/app.localhost", "/"),
    ] {
        assert_eq!(location(&get(&ringgate, host, path)), None, "{host} {path}");
    }
    for request in [
        &b"GET / HTTP/1.1\r\nHost: app.localhost\r\nHost: evil.example\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /a\rLocation:x HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let answer = answer(&ringgate, request);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: app.localhost\r\n\r\n", "a".repeat(100_000));
    assert!(answer(&ringgate, long.as_bytes()).starts_with("HTTP/1.1 431 "));
    ringgate.wait_for_log("\"reason\":\"bad_request\"");
}

#[test]
fn who_says_nothing_is_ended_at_handshake_timeout_and_a_drain_waits_for_nobody() {
    let mut ringgate = start(&["https://app.localhost=tcp://127.0.0.1:1"]);
    let begun = Instant::now();
    let mut socket = TcpStream::connect(ringgate.redirect_address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    assert!(begun.elapsed().as_millis() >= 1900, "{:?}", begun.elapsed());
    ringgate.wait_for_log("\"reason\":\"handshake_timeout\"");

    let leaving = TcpStream::connect(ringgate.redirect_address()).unwrap();
    leaving.shutdown(Shutdown::Write).unwrap();
    ringgate.signal("TERM");
    assert!(ringgate.wait_for_end().success());
}

#[test]
fn its_port_is_named_when_it_is_taken() {
    let listening = std::net::TcpListener::bind((loopback(), 0)).unwrap();
    let taken = listening.local_addr().unwrap().to_string();
    let output =
        Ringgate::output(&["run", "--address", "127.0.0.1:0", "--http-redirect-addr", &taken]);
    assert_eq!(output.status.code(), Some(69));
    let text = String::from_utf8_lossy(&output.stderr);
    let expected = format!("--http-redirect-addr http_redirect_addr: {taken} is taken");
    assert!(text.contains(&expected), "{text}");
}

/// The page that a new user sees first is covered too.
#[test]
fn the_built_in_page_is_found_from_http() {
    let ringgate = start(&[]);
    let answer = get(&ringgate, "localhost", "/");
    let location = format!("Location: https://localhost:{}/\r\n", ringgate.address.port());
    assert!(answer.contains(&location), "{answer}");
    let page = curl(&ringgate.root(), ringgate.address, "localhost", "/", &[]);
    assert!(page.status.success());
}
