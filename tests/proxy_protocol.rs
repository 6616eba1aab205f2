//! The PROXY protocol, both ways: from proxies in front, and to upstreams behind.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::harness::{
    Haproxy, Nginx, NginxOptions, PATIENCE, Ringgate, curl, loopback, root_store,
};

const FROM: &str = "https://app.localhost";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// An nginx that asks for a PROXY header and logs what it says.
fn nginx() -> Nginx {
    Nginx::start_with(
        "proxied",
        &[],
        &NginxOptions {
            listen: Some("{address} proxy_protocol"),
            http: "log_format proxied '$proxy_protocol_addr $proxy_protocol_port to $proxy_protocol_server_addr $proxy_protocol_server_port';",
            server: "access_log {root}/access.log proxied;",
        },
    )
}

/// Ringgate with this network as `accept_proxy`, sending headers of version 1 to `nginx`.
fn ringgate(nginx: &Nginx, accept_proxy: &str) -> Ringgate {
    let to = nginx.address;
    Ringgate::start_with_config(&format!(
        "accept_proxy: ['{accept_proxy}']\nhandshake_timeout: 3s\nlog_level: debug\nroutes:\n\
         - from: {FROM}\n  to: tcp://{to}\n  send_proxy: v1\n"
    ))
}

fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let head = [version_command, family];
    [V2_SIGNATURE, &head, &(body.len() as u16).to_be_bytes(), body].concat()
}

/// Connects, sends `header` in these pieces, glued to the ClientHello, and asks for the page.
fn page_behind(ringgate: &Ringgate, header: &[u8], piece: usize) -> std::io::Result<Vec<u8>> {
    page_of(ringgate, "app.localhost", header, piece)
}

fn page_of(
    ringgate: &Ringgate,
    name: &'static str,
    header: &[u8],
    piece: usize,
) -> std::io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(ringgate.address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    let roots = root_store(std::fs::read(ringgate.root())?);
    let config = ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut first = header.to_vec();
    tls.write_tls(&mut first)?;
    for piece in first.chunks(piece) {
        socket.write_all(piece)?;
    }
    let mut stream = StreamOwned::new(tls, socket);
    stream.write_all(REQUEST)?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    Ok(page)
}

#[test]
fn nginx_behind_sees_the_clients_address_in_both_versions() {
    for version in ["v1", "v2"] {
        let nginx = nginx();
        let to = nginx.address;
        let ringgate = Ringgate::start_with_config(&format!(
            "routes:\n- from: {FROM}\n  to: tcp://{to}\n  send_proxy: {version}\n"
        ));
        let client = loopback().to_string();
        let output = curl(
            &ringgate.root(),
            ringgate.address,
            "app.localhost",
            "/",
            &["--interface", &client],
        );
        assert_eq!(output.stdout, b"the page of proxied\n", "{version}: {output:?}");
        let line = nginx.wait_for_line("access.log", &format!("{client} "));
        let own = format!(" to {} {}", ringgate.address.ip(), ringgate.address.port());
        assert!(line.ends_with(&own), "{version}: {line}");
    }
}

/// HAProxy reads what nginx of this age does not: the server name and the unique id.
#[test]
fn version_2_tells_an_upstream_of_the_tls_connection() {
    let haproxy = Haproxy::start(&[
        "mode http",
        "bind {address} accept-proxy",
        "http-request return status 200 content-type text/plain lf-string \"%[src] %[fc_pp_authority] %[fc_pp_unique_id]\"",
    ]);
    let route = format!(
        "routes:\n- from: {FROM}\n  to: tcp://{}\n  send_proxy: v2\n  alpn: [http/1.1]\n",
        haproxy.address
    );
    let ringgate = Ringgate::start_with_config(&route);
    let client = loopback().to_string();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let output = curl(
            &ringgate.root(),
            ringgate.address,
            "app.localhost",
            "/",
            &["--interface", &client],
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = text.split(' ').collect();
        assert_eq!(words[..2], [&client, "app.localhost"], "{text}");
        assert_eq!((words.len(), words[2].len()), (3, 32), "{text}");
        ids.push(words[2].to_owned());
    }
    assert_ne!(ids[0], ids[1]);
}

/// The client in front of HAProxy in front of Ringgate in front of nginx.
#[test]
fn haproxy_in_front_passes_the_client_on() {
    for version in ["send-proxy", "send-proxy-v2"] {
        let nginx = nginx();
        let ringgate = ringgate(&nginx, "127.0.0.0/8");
        let haproxy = Haproxy::start(&[
            "mode tcp",
            "bind {address}",
            &format!("server ringgate {} {version}", ringgate.address),
        ]);
        let client = loopback().to_string();
        let output = curl(
            &ringgate.root(),
            haproxy.address,
            "app.localhost",
            "/",
            &["--interface", &client],
        );
        assert_eq!(output.stdout, b"the page of proxied\n", "{version}: {output:?}");
        let line = nginx.wait_for_line("access.log", &format!("{client} "));
        let seen = format!(" to {} {}", haproxy.address.ip(), haproxy.address.port());
        assert!(line.ends_with(&seen), "{version}: {line}");
    }
}

#[test]
fn headers_of_every_kind_are_understood_split_and_glued() {
    let nginx = nginx();
    let ringgate = ringgate(&nginx, "127.0.0.0/8");
    let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x10, 0x92, 1, 187];
    let six = [
        &"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()[..],
        &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets(),
        &[0x10, 0x92, 1, 187],
    ]
    .concat();
    let tlvs = [&four[..], &[0x04, 0x0f, 0xa0], &[0; 4000], &[0xee, 0, 1, 9]].concat();
    let own = format!("127.0.0.1 PORT to {} {}", ringgate.address.ip(), ringgate.address.port());
    for (header, expected) in [
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 443\r\n".to_vec(),
            "192.0.2.7 4242 to 198.51.100.1 443",
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 4242 443\r\n".to_vec(),
            "2001:db8::7 4242 to 2001:db8::1 443",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), own.as_str()),
        (b"PROXY UNKNOWN what ever 1 2\r\n".to_vec(), own.as_str()),
        (v2(0x21, 0x11, &four), "192.0.2.7 4242 to 198.51.100.1 443"),
        (v2(0x21, 0x21, &six), "2001:db8::7 4242 to 2001:db8::1 443"),
        (v2(0x20, 0, &[]), own.as_str()),
        (v2(0x20, 0x11, &four), own.as_str()),
        (v2(0x21, 0x11, &tlvs), "192.0.2.7 4242 to 198.51.100.1 443"),
    ] {
        // Glued to the ClientHello; byte by byte; and cut in the middle of things.
        for piece in [usize::MAX, 1, 13] {
            if header.len() > 1000 && piece == 1 {
                continue; // four thousand packets prove no more than a hundred
            }
            let _ = std::fs::write(nginx.path("access.log"), "");
            let page = page_behind(&ringgate, &header, piece);
            let page = page.unwrap_or_else(|error| panic!("{header:?} by {piece}: {error}"));
            assert!(page.ends_with(b"the page of proxied\n"));
            let line = nginx.wait_for_line("access.log", " to ");
            let line = match expected.contains("PORT") {
                true => {
                    let (address, rest) = line.split_once(' ').unwrap();
                    format!("{address} PORT{}", &rest[rest.find(' ').unwrap()..])
                }
                false => line,
            };
            assert_eq!(line, expected, "{:?} by {piece}", String::from_utf8_lossy(&header));
        }
    }
}

#[test]
fn a_trusted_network_must_send_one_and_a_good_one() {
    let nginx = nginx();
    let ringgate = ringgate(&nginx, "127.0.0.0/8");
    let four = [192, 0, 2, 7, 198, 51, 100, 1, 0x10, 0x92, 1, 187];
    for (header, reason) in [
        (Vec::new(), "no_proxy_header"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4242\r\n".to_vec(), "bad_proxy_header"),
        (b"PROXY TCP4 not.an.address 198.51.100.1 1 2\r\n".to_vec(), "bad_proxy_header"),
        ([&b"PROXY "[..], &[b'x'; 200]].concat(), "bad_proxy_header"),
        (v2(0x21, 0x11, &four[..11]), "bad_proxy_header"),
        (v2(0x21, 0x11, &[&four[..], &[0; 60_000]].concat()), "bad_proxy_header"),
    ] {
        let before = ringgate.count_in_log(reason);
        assert!(page_behind(&ringgate, &header, usize::MAX).is_err(), "{header:?}");
        // Both concern the operator, so the log says them; one like it is only counted for a while.
        if before == 0 {
            ringgate.wait_for_log(&format!("\"reason\":\"{reason}\""));
        }
    }
    // One that never ends its header is ended with the handshake's deadline.
    let mut socket = TcpStream::connect(ringgate.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&v2(0x21, 0x11, &four)[..20]).unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap_or(0), 0);
    ringgate.wait_for_log("\"reason\":\"handshake_timeout\"");
    assert_eq!(std::fs::read_to_string(nginx.path("access.log")).unwrap_or_default(), "");
}

#[test]
fn a_forged_header_from_an_untrusted_address_is_never_read() {
    let nginx = nginx();
    // Nobody on this machine is in that network.
    let ringgate = ringgate(&nginx, "192.0.2.0/24");
    let forged = b"PROXY TCP4 203.0.113.9 198.51.100.1 4242 443\r\n";
    assert!(page_behind(&ringgate, forged, usize::MAX).is_err());
    ringgate.wait_for_log("\"reason\":\"not_tls\"");
    assert!(page_behind(&ringgate, &v2(0x20, 0, &[]), usize::MAX).is_err());
    let page = page_behind(&ringgate, b"", usize::MAX).unwrap();
    assert!(page.ends_with(b"the page of proxied\n"));
    let line = nginx.wait_for_line("access.log", " to ");
    assert!(line.starts_with("127."), "{line}");
    let log = std::fs::read_to_string(nginx.path("access.log")).unwrap();
    assert!(!log.contains("203.0.113.9") && !ringgate.log().contains("203.0.113.9"), "{log}");
}

#[test]
fn the_log_and_a_name_that_is_absent_go_by_the_accepted_addresses() {
    let nginx = nginx();
    let to = nginx.address;
    // A client without a server name is looked up as the address that it connected to.
    let ringgate = Ringgate::start_with_config(&format!(
        "accept_proxy: [127.0.0.0/8]\nlog_level: debug\nroutes:\n- from: https://198.51.100.1\n  to: tcp://{to}\n  send_proxy: v1\n"
    ));
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 443\r\n";
    // An address is no server name (RFC 6066 §3), so none is sent.
    let page = page_of(&ringgate, "198.51.100.1", header, usize::MAX).unwrap();
    assert!(page.ends_with(b"the page of proxied\n"));

    assert!(page_behind(&ringgate, header, usize::MAX).is_err());
    ringgate.wait_for_log("\"reason\":\"unknown_server_name\"");
    let log = ringgate.log();
    let line = log.lines().find(|line| line.contains("unknown_server_name")).unwrap();
    assert!(line.contains("\"client\":\"192.0.2.7:4242\""), "{line}");
}

/// On the plain listener too.
#[test]
fn the_plain_listener_reads_headers_like_the_other() {
    let host = loopback();
    let ringgate = Ringgate::start(&[
        "--http-redirect-addr",
        &format!("{host}:0"),
        "--accept-proxy",
        "127.0.0.0/8",
        "--route",
        &format!("{FROM}=tcp://127.0.0.1:1"),
        "--address",
        &format!("{host}:0"),
    ]);
    let ask = |bytes: &[u8]| {
        let address: SocketAddr = ringgate.redirect_address();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(bytes).unwrap();
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        answer
    };
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4242 80\r\n";
    assert!(ask(&[header, REQUEST].concat()).starts_with("HTTP/1.1 308 "));
    assert_eq!(ask(REQUEST), "");
}
