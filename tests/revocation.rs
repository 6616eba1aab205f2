//! What an issuer has taken back is noticed, from its responder and from its list, and acted upon.

use std::process::Output;

use crate::harness::ocsp::{
    Answer, Leaf, OpensslCa, OpensslOcsp, Responder, certificates, is_stapled, responder_port,
    shown,
};
use crate::harness::{Key, Ringgate, Scratch, binary, wait_for};

fn start(scratch: &Scratch, yaml: &str) -> Ringgate {
    let config = scratch.write("ringgate.yaml", yaml).display().to_string();
    Ringgate::start(&["--config", &config])
}

fn certs(ringgate: &Ringgate) -> String {
    let data = ringgate.dir().join("data");
    let Output { stdout, .. } =
        binary().arg("certs").arg("--data-dir").arg(data).output().expect("it starts");
    String::from_utf8_lossy(&stdout).into_owned()
}

fn stored(ringgate: &Ringgate) -> usize {
    let dir = ringgate.dir().join("data/autocert/ocsp");
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

#[test]
fn a_revoked_certificate_by_hand_loses_its_staple_and_the_log_is_loud() {
    let (scratch, ca, port) = (Scratch::new(), OpensslCa::new(Key::P256), responder_port());
    let url = format!("http://127.0.0.1:{port}");
    let leaf = Leaf { responder: Some(&url), ..Leaf::default() };
    let (cert, key) = ca.issue_with_root("leaf", "a.example", leaf);
    // Half a minute later it is refreshed.
    let _responder = OpensslOcsp::start(&ca, port, "ca", "-nmin 1");
    let ringgate = start(&scratch, &certificates(&[(&cert, &key)], &["a.example"]));
    wait_for("a staple", || is_stapled(ringgate.address, "a.example", &[]).then_some(()));
    assert!(certs(&ringgate).contains("good until"), "{}", certs(&ringgate));
    assert_eq!(stored(&ringgate), 1);
    ca.revoke("leaf", "keyCompromise");
    ringgate.wait_for_log("IS REVOKED");
    wait_for("no staple any more", || {
        shown(ringgate.address, "a.example", &[])
            .contains("OCSP response: no response sent")
            .then_some(())
    });
    assert_eq!(stored(&ringgate), 0);
    assert!(certs(&ringgate).contains("REVOKED on"), "{}", certs(&ringgate));
}

#[test]
fn a_revocation_is_noticed_from_the_list_of_an_issuer_without_a_responder() {
    let (scratch, ca) = (Scratch::new(), OpensslCa::new(Key::P256));
    let server = Responder::start(Answer::default());
    let tagged = |tag: &str, list: Vec<u8>| Answer {
        head: format!("ETag: \"{tag}\"\r\n"),
        ..Answer::ok(list)
    };
    let url = server.url();
    let leaf = Leaf { list: Some(&url), ..Leaf::default() };
    let (cert, key) = ca.issue_with_root("leaf", "a.example", leaf);
    server.set(tagged("one", ca.list()));
    let ringgate = start(&scratch, &certificates(&[(&cert, &key)], &["a.example"]));
    server.wait_for_more_than(0);
    // Each reload looks again, and fetches nothing that is the same.
    wait_for("a question for another list", || {
        ringgate.signal("HUP");
        std::thread::sleep(std::time::Duration::from_millis(100));
        let asked = server.asked();
        asked.iter().any(|(_, tag)| tag.as_deref() == Some("\"one\"")).then_some(())
    });
    ca.revoke("leaf", "superseded");
    // One that somebody else has signed says nothing.
    let other = OpensslCa::new(Key::P256);
    other.issue("leaf", "a.example", leaf);
    other.revoke("leaf", "superseded");
    server.set(tagged("two", other.list()));
    ringgate.signal("HUP");
    ringgate.wait_for_log("its signature is not the issuer's");
    assert!(!ringgate.log().contains("IS REVOKED"));
    server.set(tagged("three", ca.list()));
    ringgate.signal("HUP");
    ringgate.wait_for_log("IS REVOKED");
    assert!(certs(&ringgate).contains("REVOKED on"), "{}", certs(&ringgate));
}
