//! More connections than descriptors, and what an idle connection weighs.

use std::net::TcpStream;
use std::process::Command;

use crate::harness::{Nginx, Ringgate, Tls, client_config, root_store, wait_for};

/// Runs the rest of the command line with this many descriptors at most.
fn limited(command: &mut Command, limit: u32) {
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut wrapped = Command::new("sh");
    wrapped
        .arg("-c")
        .arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\""))
        .arg(program)
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap());
    *command = wrapped;
}

#[test]
fn more_connections_than_descriptors_wait_and_are_served_when_others_end() {
    let nginx = Nginx::start("few");
    let route = nginx.route("https://app.localhost");
    let mut ringgate =
        Ringgate::start_with(&["--route", &route, "--cores", "0"], |command| limited(command, 90));
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let serve = |client: &mut Tls| {
        client.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
        client.read_until(b"the page of few\n");
    };
    // Whatever the number of places is, this is more.
    let address = ringgate.address;
    let mut first: Vec<Tls> = Vec::new();
    let waiting: Vec<TcpStream> = {
        // Raw connections take places, as long as they may.
        let raw: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
        ringgate.wait_for_log("accepting_pauses");
        raw
    };
    let late = {
        let roots = roots.clone();
        std::thread::spawn(move || {
            let mut client = Tls::connect(roots, address, "app.localhost");
            client.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
            client.read_until(b"the page of few\n");
        })
    };
    assert!(ringgate.is_running());
    // It must not spin meanwhile: a second of wall time costs much less of processor time.
    let before = cpu_ticks(ringgate.pid());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let spent = cpu_ticks(ringgate.pid()) - before;
    assert!(spent < 50, "{spent} of about 100 ticks spent on waiting");
    drop(waiting);
    late.join().expect("served once there was room");
    first.push(Tls::connect(roots, address, "app.localhost"));
    first.iter_mut().for_each(serve);
    assert!(ringgate.is_running());
}

/// Whoever connected before the drain is served, also if that takes waiting for places.
#[test]
fn a_drain_serves_who_waits_for_a_place() {
    const CLIENTS: usize = 60;
    let nginx = Nginx::start("patient");
    let route = nginx.route("https://app.localhost");
    let mut ringgate =
        Ringgate::start_with(&["--route", &route, "--cores", "0"], |command| limited(command, 90));
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let address = ringgate.address;
    // More than there are places, each a handshake and a request behind it.
    let raw: Vec<TcpStream> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    ringgate.wait_for_log("accepting_pauses");
    ringgate.signal("TERM");
    let serve = |stream: TcpStream, roots: rustls::RootCertStore| {
        let mut client = Tls::over(stream, client_config(roots), "app.localhost").unwrap();
        client.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: close\r\n\r\n");
        client.read_until(b"the page of patient\n");
    };
    let clients: Vec<_> = raw
        .into_iter()
        .map(|stream| {
            let roots = roots.clone();
            std::thread::spawn(move || serve(stream, roots))
        })
        .collect();
    for client in clients {
        client.join().expect("served");
    }
    assert!(ringgate.wait_for_end().success());
}

/// User and system time in clock ticks (proc(5)).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Prints what an idle proxied connection weighs, both sides; a figure, not an assertion.
#[test]
fn idle_connections_are_held_and_their_weight_is_printed() {
    const CONNECTIONS: usize = 1000;
    let nginx = Nginx::start("idle");
    let ringgate = Ringgate::start(&["--route", &nginx.route("https://app.localhost")]);
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let connect = || {
        let mut client = Tls::connect(roots.clone(), ringgate.address, "app.localhost");
        client.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
        client.read_until(b"the page of idle\n");
        client
    };
    let warm: Vec<_> = (0..100).map(|_| connect()).collect();
    drop(warm);
    wait_for("the first connections to end", || {
        (std::fs::read_dir(format!("/proc/{}/fd", ringgate.pid())).unwrap().count() < 100)
            .then_some(())
    });
    let before = ringgate.resident_bytes();
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
    let each = ringgate.resident_bytes().saturating_sub(before) / CONNECTIONS as u64;
    println!("an idle proxied connection: {each} bytes of RSS");
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
        client.read_until(b"the page of idle\n");
    }
}
