//! Upstreams that refuse, hang, close first, or cannot be found.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use crate::harness::{Nginx, Ringgate, Tls, curl, loopback, root_store, unused_address};

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
    while let Ok(filler) =
        TcpStream::connect_timeout(&address, std::time::Duration::from_millis(300))
    {
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
