//! Nodes on one `autocert_dir` answer each other's challenges: the node that the CA asks need not be the one
//! that orders.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::harness::autocert::{
    arguments, handshake, start, start_again, store, wait_for_certificate,
};
use crate::harness::http::Message;
use crate::harness::{Pebble, PebbleOptions, Ringgate, Scratch, loopback, root_store, wait_for};

/// A node at an address where no name leads.
fn start_aside(pebble: &Pebble, names: &[&str], more: &[&str]) -> Ringgate {
    let mut arguments = arguments(pebble, names, more);
    let address = format!("{}:0", loopback());
    arguments[1].clone_from(&address);
    arguments.extend(["--http-redirect-addr".into(), address]);
    start_again(arguments, None)
}

fn tokens(pebble: &Pebble, directory: &Path) -> PathBuf {
    let issuer = format!("{}-dir", pebble.address.to_string().replace(':', "-"));
    directory.join("acme").join(issuer).join("challenge_tokens")
}

fn plain_address(pebble: &Pebble) -> String {
    format!("{}:{}", pebble.node, pebble.http_port)
}

/// The CA asks the other node for every name.
fn another_node_answers(challenge: &str) {
    let pebble = Pebble::start(PebbleOptions::default());
    let scratch = Scratch::new();
    let (directory, plain) = (scratch.path().display().to_string(), plain_address(&pebble));
    let shared = ["--autocert-dir", directory.as_str()];
    let asked = [&shared[..], &["--http-redirect-addr", &plain]].concat();
    let asked = start(&pebble, &["b.example"], &asked);
    wait_for_certificate(&asked, &pebble, "b.example");
    let orders = [&shared[..], &["--autocert-challenges", challenge]].concat();
    let names = ["a.example", "c.example"];
    let orders = start_aside(&pebble, &names, &orders);
    for name in names {
        wait_for_certificate(&orders, &pebble, name);
        asked.wait_for_log(&format!("\"name\":\"{name}\",\"challenge\":\"{challenge}\""));
    }
    assert_eq!(orders.count_in_log("cert_failed"), 0);
    assert_eq!(pebble.issued(), 3);
    let left = std::fs::read_dir(tokens(&pebble, scratch.path())).unwrap().count();
    assert_eq!(left, 0, "challenges that are over are taken away");
    // And are answered no more.
    wait_for("the challenge to be over", || {
        let address = SocketAddr::from((pebble.node, pebble.tls_port));
        let roots = root_store(pebble.root());
        let error = handshake(address, "a.example", roots, &["acme-tls/1"]).unwrap_err();
        error.contains("Name").then_some(())
    });
}

#[test]
fn a_node_that_does_not_order_answers_by_tls_alpn() {
    another_node_answers("tls-alpn-01");
}

#[test]
fn a_node_that_does_not_order_answers_by_http() {
    another_node_answers("http-01");
}

#[test]
fn two_nodes_of_one_name_order_once_and_the_other_serves_what_comes_of_it() {
    let pebble = Pebble::start(PebbleOptions { sleep_seconds: 2, ..PebbleOptions::default() });
    let scratch = Scratch::new();
    let directory = scratch.path().display().to_string();
    let more = ["--autocert-dir", directory.as_str()];
    let orders = start(&pebble, &["a.example"], &more);
    let lock = scratch.path().join("locks/issue_cert_a.example.lock");
    wait_for("a lock", || lock.exists().then_some(()));
    let waits = start_aside(&pebble, &["a.example"], &more);
    let serial = wait_for_certificate(&orders, &pebble, "a.example");
    assert_eq!(wait_for_certificate(&waits, &pebble, "a.example"), serial);
    assert_eq!(pebble.issued(), 1);
    assert_eq!(waits.count_in_log("cert_failed") + orders.count_in_log("cert_failed"), 0);
    assert_eq!(waits.count_in_log("cert_obtained"), 0);
}

#[test]
fn that_another_node_is_at_work_is_said_and_its_certificate_is_served() {
    let pebble = Pebble::start(PebbleOptions::default());
    let scratch = Scratch::new();
    let directory = scratch.path().display().to_string();
    let more = ["--autocert-dir", directory.as_str()];
    let lock = scratch.path().join("locks/issue_cert_a.example.lock");
    std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
    // Nobody extends it: ten seconds after its time stamp it is anyone's.
    std::fs::write(&lock, "{}\n").unwrap();
    let file = std::fs::File::options().write(true).open(&lock).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(7)).unwrap();
    let first = start(&pebble, &["a.example"], &more);
    first.wait_for_log("\"message\":\"another node is at work on this name; waiting for it\"");
    let second = start_aside(&pebble, &["a.example"], &more);
    second.wait_for_log("another node is at work on this name");
    let serial = wait_for_certificate(&first, &pebble, "a.example");
    assert_eq!(wait_for_certificate(&second, &pebble, "a.example"), serial);
    wait_for("whoever did not order to say so", || {
        let said = |node: &Ringgate| node.count_in_log("the certificate of another node is served");
        (said(&first) + said(&second) == 1).then_some(())
    });
    assert_eq!(pebble.issued(), 1);
}

/// What the plain listener says to a CA.
fn ask(plain: &str, host: &str, token: &str) -> (u16, String) {
    let path = format!("/.well-known/acme-challenge/{token}");
    let socket = std::net::TcpStream::connect(plain).unwrap();
    let answer = Message::request("GET", &path, host, "").exchange(socket).expect("an answer");
    (answer.status(), String::from_utf8_lossy(&answer.body).into_owned())
}

#[test]
fn what_caddy_has_placed_is_answered_and_left_and_what_is_old_is_not() {
    let pebble = Pebble::start(PebbleOptions::default());
    let plain = plain_address(&pebble);
    let node = start(&pebble, &["a.example"], &["--http-redirect-addr", &plain]);
    wait_for_certificate(&node, &pebble, "a.example");
    let folder = tokens(&pebble, &store(&node));
    let place = |name: &str, token: &str| {
        let content = format!(
            r#"{{"type":"http-01","url":"https://ca/x","status":"pending","token":"{token}","keyAuthorization":"{token}.thumb","identifier":{{"type":"dns","value":"{name}"}}}}"#
        );
        let path = folder.join(format!("{name}.json"));
        std::fs::write(&path, content).unwrap();
        path
    };
    let old = place("old.example", "told");
    let file = std::fs::File::options().write(true).open(&old).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(2 * 3600)).unwrap();
    // No token of this name may lead to another's answer.
    std::fs::write(folder.join("wrong.example.json"), std::fs::read(&old).unwrap()).unwrap();
    std::fs::write(folder.join("garbage.example.json"), [0; 99]).unwrap();
    let path = place("x.example", "t1");
    wait_for("the answer", || {
        (ask(&plain, "x.example", "t1") == (200, "t1.thumb".into())).then_some(())
    });
    assert_eq!(ask(&plain, "x.example", "t2").0, 404);
    for host in ["old.example", "wrong.example"] {
        assert_eq!(ask(&plain, host, "told").0, 404, "{host}");
    }
    place("x.example", "t2");
    wait_for("the next answer", || (ask(&plain, "x.example", "t2").0 == 200).then_some(()));
    // What is not ours is never removed, only answered while it is there.
    std::fs::remove_file(&path).unwrap();
    wait_for("no answer", || (ask(&plain, "x.example", "t2").0 == 404).then_some(()));
    assert!(old.is_file());
}
