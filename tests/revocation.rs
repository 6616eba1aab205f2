//! What an issuer has taken back is noticed, from its responder and from its list, and acted upon.

use std::process::Output;

use crate::harness::autocert::{arguments, leaf, serial, wait_for_certificate};
use crate::harness::ocsp::{
    Answer, Leaf, OpensslCa, OpensslOcsp, Responder, certificates, is_stapled, responder_port,
    shown,
};
use crate::harness::{Key, Pebble, PebbleOptions, Ringgate, Scratch, binary, command, wait_for};

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
    let responder = OpensslOcsp::start(&ca, port, "ca", "-nmin 1");
    let ringgate = start(&scratch, &certificates(&[(&cert, &key)], &["a.example"]));
    wait_for("a staple", || is_stapled(ringgate.address, "a.example", &[]).then_some(()));
    assert!(certs(&ringgate).contains("good until"), "{}", certs(&ringgate));
    assert_eq!(stored(&ringgate), 1);
    ca.revoke("leaf", "keyCompromise");
    // One that runs reads the CA's index again only after it has answered once more.
    drop(responder);
    let _responder = OpensslOcsp::start(&ca, port, "ca", "-nmin 1");
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

/// What the CA's responder would say of a serial number: an entry of `openssl ca`'s index says it.
fn response_of(pebble: &Pebble, serial: &str, entry: &str) -> Vec<u8> {
    let scratch = Scratch::new();
    let (chain, private_key) = pebble.intermediate();
    let serial = serial.trim_start_matches("00").to_uppercase();
    let write = |name: &str, content: &str| scratch.write(name, content).display().to_string();
    let (ca, key) = (write("ca.crt", &chain), write("ca.key", &private_key));
    let index = write("index", &format!("{entry}\t{serial}\tunknown\t/CN=x\n"));
    let response = scratch.path().join("response");
    let line = format!(
        "ocsp -index {index} -CA {ca} -rsigner {ca} -rkey {key} -issuer {ca} -serial 0x{serial} -ndays 1 -respout {}",
        response.display()
    );
    let made = command("openssl", &line.split(' ').collect::<Vec<_>>(), "");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(response).expect("the response")
}

#[test]
fn a_revoked_certificate_of_an_issuer_is_replaced_at_once_with_another_private_key() {
    let ocsp_responder = Some("http://ocsp.example/x".to_owned());
    let pebble = Pebble::start(PebbleOptions { ocsp_responder, ..PebbleOptions::default() });
    // The name resolves nowhere; the proxy answers for it.
    let responder = Responder::start(Answer::with(503, ""));
    let proxy = format!("http://{}", responder.address);
    let all = arguments(&pebble, &["a.example"], &[]);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let node = Ringgate::start_with(&all, |command| {
        command.env("HTTP_PROXY", &proxy);
    });
    let first = wait_for_certificate(&node, &pebble, "a.example");
    responder.wait_for_more_than(0);
    let asked = responder.asked();
    let first_line = &asked[0].0;
    assert!(
        first_line.starts_with("GET http://ocsp.example/x/"),
        "the absolute form: {first_line}"
    );
    let (root, key_of) = (pebble.root(), |der: &[u8]| {
        use x509_parser::prelude::{FromDer, X509Certificate};
        X509Certificate::from_der(der).expect("a certificate").1.public_key().raw.to_vec()
    });
    let before = leaf(node.address, "a.example", &root).expect("a leaf");
    let revoked = "R\t401231000000Z\t260101000000Z,keyCompromise";
    responder.set(Answer::ok(response_of(&pebble, &first, revoked)));
    let after = wait_for("another certificate", || {
        let leaf = leaf(node.address, "a.example", &root).ok()?;
        (serial(&leaf) != first).then_some(leaf)
    });
    assert_ne!(key_of(&before), key_of(&after));
    assert!(node.log().contains("is revoked by its issuer"), "{}", node.log());
    let good = response_of(&pebble, &serial(&after), "V\t401231000000Z\t");
    responder.set(Answer::ok(good));
    // It has met the response about the other already, and would be patient with that.
    node.signal("HUP");
    wait_for("its staple", || is_stapled(node.address, "a.example", &[]).then_some(()));
}

#[test]
fn a_certificate_of_an_issuer_does_not_lead_to_this_machine() {
    let responder = Responder::start(Answer::ok("x"));
    let ocsp_responder = Some(responder.url());
    let pebble = Pebble::start(PebbleOptions { ocsp_responder, ..PebbleOptions::default() });
    let all = arguments(&pebble, &["a.example"], &[]);
    let node = Ringgate::start(&all.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for_certificate(&node, &pebble, "a.example");
    node.wait_for_log("is this machine itself and is not asked");
    assert_eq!(responder.asked(), []);
}

/// Where a node looks for certificates that another has left there.
fn leave(pebble: &Pebble, dir: &Scratch, name: &str, chain: &str, private_key: &str) {
    let issuer = format!("{}-dir", pebble.address.to_string().replace(':', "-"));
    let metadata = format!(
        r#"{{"sans":["{name}"],"issuer_data":{{"url":"https://{0}/certZ/1","ca":"{1}"}}}}"#,
        pebble.address,
        pebble.directory_url()
    );
    for (ending, content) in [("crt", chain), ("key", private_key), ("json", &metadata)] {
        dir.write(&format!("certificates/{issuer}/{name}/{name}.{ending}"), content);
    }
}

/// Pebble has no lists, so the certificate is another CA's, left where one of Pebble's would be.
#[test]
fn an_issued_certificate_that_its_issuers_list_names_is_replaced_with_another_private_key() {
    let (pebble, ca) = (Pebble::start(PebbleOptions::default()), OpensslCa::new(Key::P256));
    let server = Responder::start(Answer::ok(ca.list()));
    let leaf_names = Leaf { list: Some("http://crl.example/list"), ..Leaf::default() };
    let (cert, key) = ca.issue_with_root("leaf", "a.example", leaf_names);
    let read = |path| std::fs::read_to_string(path).expect("a file");
    let dir = Scratch::new();
    leave(&pebble, &dir, "a.example", &read(cert), &read(key));
    let directory = dir.path().display().to_string();
    let all = arguments(&pebble, &["a.example"], &["--autocert-dir", &directory]);
    // The name resolves nowhere; the proxy answers for it.
    let proxy = format!("http://{}", server.address);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let node = Ringgate::start_with(&all, |command| {
        command.env("HTTP_PROXY", &proxy);
    });
    let key_of = |der: &[u8]| {
        use x509_parser::prelude::{FromDer, X509Certificate};
        X509Certificate::from_der(der).expect("a certificate").1.public_key().raw.to_vec()
    };
    let before = leaf(node.address, "a.example", &ca.root_pem()).expect("what was left there");
    server.wait_for_more_than(0);
    assert_eq!(server.asked()[0].0, "GET http://crl.example/list HTTP/1.1");
    ca.revoke("leaf", "keyCompromise");
    server.set(Answer::ok(ca.list()));
    assert_eq!(pebble.issued(), 0);
    node.signal("HUP");
    wait_for_certificate(&node, &pebble, "a.example");
    let after = leaf(node.address, "a.example", &pebble.root()).expect("a leaf of Pebble's");
    assert_ne!(key_of(&before), key_of(&after));
    node.wait_for_log("is revoked by its issuer since");
    node.wait_for_log("it is replaced at once");
    assert_eq!(pebble.issued(), 1, "{}", node.log());
}
