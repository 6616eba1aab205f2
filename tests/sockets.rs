//! Listening sockets: inherited from systemd, on IPv4 and IPv6, and what is set on connections.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use crate::harness::{
    Nginx, Ringgate, Tls, command, curl, free_port, loopback, root_store, wait_for,
};

const FROM: &str = "https://app.localhost";

/// Listens as systemd does before it starts a service, and becomes that service.
const ACTIVATE: &str = r#"
import os, socket, sys
for at, place in enumerate(sys.argv[1].split(",")):
    host, port = place.rsplit(":", 1)
    listener = socket.create_server((host, int(port)), backlog=64)
    os.dup2(listener.fileno(), 100 + at)
    listener.set_inheritable(True)
count = len(sys.argv[1].split(","))
for at in range(count):
    os.dup2(100 + at, 3 + at, inheritable=True)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(count)
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// `ringgate` with these further arguments behind sockets that are listening already.
fn activated(places: &str, arguments: &[&str]) -> Ringgate {
    Ringgate::start_by(|ringgate| {
        let mut python = Command::new("python3");
        python.args(["-c", ACTIVATE, places]).arg(ringgate).arg("run").args(arguments);
        python
    })
}

#[test]
fn sockets_of_systemd_take_the_place_of_the_addresses_they_are_bound_to() {
    let nginx = Nginx::start("activated");
    let host = loopback();
    let (tls, plain) = (free_port(host), free_port(host));
    let places = format!("{host}:{plain},{host}:{tls}");
    let (address, redirect) = (format!("{host}:{tls}"), format!("{host}:{plain}"));
    let mut ringgate = activated(
        &places,
        &["--address", &address, "--http-redirect-addr", &redirect, "--route", &nginx.route(FROM)],
    );
    ringgate.address = address.parse().unwrap();
    // Shared by the workers: whichever is free takes the next.
    for _ in 0..8 {
        let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/", &[]);
        assert_eq!(output.stdout, b"the page of activated\n", "{output:?}");
    }
    let plain =
        command("curl", &["-sSi", &format!("http://{redirect}/"), "-H", "Host: app.localhost"], "");
    assert!(String::from_utf8_lossy(&plain.stdout).starts_with("HTTP/1.1 308"), "{plain:?}");
    ringgate.signal("TERM");
    assert!(ringgate.wait_for_end().success());
}

#[test]
fn without_an_address_they_are_all_there_is() {
    let nginx = Nginx::start("activated");
    let host = loopback();
    let (one, two) = (free_port(host), free_port(host));
    let places = format!("{host}:{one},{host}:{two}");
    let mut ringgate = activated(&places, &["--route", &nginx.route(FROM)]);
    for port in [one, two] {
        ringgate.address = SocketAddr::from((host, port));
        let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/", &[]);
        assert_eq!(output.stdout, b"the page of activated\n", "{output:?}");
    }
}

#[test]
fn one_that_no_address_names_is_a_problem() {
    let host = loopback();
    let place = format!("{host}:{}", free_port(host));
    let address = format!("{}:0", loopback());
    let output = Command::new("python3")
        .args([
            "-c",
            ACTIVATE,
            &place,
            env!("CARGO_BIN_EXE_ringgate"),
            "run",
            "--address",
            &address,
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{text}");
    let expected = format!("--address address: systemd has passed a socket on {place}");
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn every_address_means_both_families_and_each_listener_is_served() {
    let nginx = Nginx::start("both");
    // Free on every address: others listen on theirs.
    let port = free_port(std::net::Ipv4Addr::UNSPECIFIED);
    let (every, more) = (format!(":{port}"), format!("{}:0", loopback()));
    let addresses = format!("{every},{more}");
    let ringgate = Ringgate::start(&["--address", &addresses, "--route", &nginx.route(FROM)]);
    for address in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
        let output = curl(&ringgate.root(), address.parse().unwrap(), "app.localhost", "/", &[]);
        assert_eq!(output.stdout, b"the page of both\n", "{address}: {output:?}");
    }
}

/// A peer that is gone without a word is found out: the kernel asks it, and gives up in time.
#[test]
fn connections_ask_whether_their_peer_lives() {
    let listener = TcpListener::bind((loopback(), 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let ringgate = Ringgate::start(&["--route", &format!("{FROM}=tcp://{to}")]);
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let client = Tls::connect(roots, ringgate.address, "app.localhost");
    let (_upstream, _): (TcpStream, _) = listener.accept().unwrap();
    let ours = format!("sport = :{}", ringgate.address.port());
    let peer = format!(":{} ", client.stream.sock.local_addr().unwrap().port());
    // Not while what was sent last, the ticket, is yet to be acknowledged.
    wait_for("the timer of an idle connection", || {
        let listed = command("ss", &["-Htno", "state", "established", &ours], "");
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let line = listed.lines().find(|line| line.contains(&peer)).expect("it is listed");
        line.contains("timer:(keepalive,").then_some(())
    });
}
