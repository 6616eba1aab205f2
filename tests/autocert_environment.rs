//! What the environment says to autocert besides its options: a proxy on the way to the CA, Kubernetes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::harness::autocert::{arguments, wait_for_certificate};
use crate::harness::{Pebble, PebbleOptions, Ringgate};

/// A proxy that speaks CONNECT; the heads of what it was asked are noted.
fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = heads.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let noted = noted.clone();
            std::thread::spawn(move || serve(client, &noted));
        }
    });
    (address, heads)
}

fn serve(mut client: TcpStream, noted: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    noted.lock().unwrap().push(head);
    let mut server = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut from, mut to) = (server.try_clone().ok()?, client.try_clone().ok()?);
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    back.join().ok()
}

fn start_with(pebble: &Pebble, environment: &[(&str, &str)]) -> Ringgate {
    let all = arguments(pebble, &["a.example"], &[]);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    Ringgate::start_with(&all, |command| {
        command.envs(environment.iter().copied());
    })
}

#[test]
fn the_ca_is_reached_through_the_proxy_of_the_environment_unless_it_is_excepted() {
    let pebble = Pebble::start(PebbleOptions::default());
    let (address, heads) = proxy();
    let url = format!("http://user:secret@{address}");
    let node = start_with(&pebble, &[("HTTPS_PROXY", &url)]);
    wait_for_certificate(&node, &pebble, "a.example");
    {
        let heads = heads.lock().unwrap();
        assert!(heads.len() > 5, "{heads:?}");
        let credentials = "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n";
        assert!(heads.iter().all(|head| head.contains(credentials)), "{heads:?}");
    }
    assert!(!node.log().contains("secret"));
    drop(node);
    let before = heads.lock().unwrap().len();
    let except = pebble.address.ip().to_string();
    let node = start_with(&pebble, &[("HTTPS_PROXY", &url), ("NO_PROXY", &except)]);
    wait_for_certificate(&node, &pebble, "a.example");
    assert_eq!(heads.lock().unwrap().len(), before);
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let pebble = Pebble::start(PebbleOptions::default());
    let node = start_with(&pebble, &[("https_proxy", "http://127.0.0.1:1")]);
    node.wait_for_log("the proxy of HTTPS_PROXY: cannot connect to 127.0.0.1");
}

#[test]
fn on_kubernetes_a_local_directory_is_warned_of() {
    let pebble = Pebble::start(PebbleOptions::default());
    let node = start_with(&pebble, &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]);
    node.wait_for_log("consider cert-manager");
    assert_eq!(node.count_in_log("cert-manager"), 1);
}
