//! The harness's own CA does what the tests of certificates rely on; Caddy is the client that shows it.

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::harness::{
    AcmeFaults, Caddy, CaddyOptions, Fault, Pebble, PebbleOptions, RetryAfter, Role, Scratch, When,
    command, root_store, served,
};

/// What curl gets from the directory.
fn directory(pebble: &Pebble) -> Option<serde_json::Value> {
    let root = pebble.trusted_ca_file().display().to_string();
    let output = command("curl", &["-sS", "--cacert", &root, &pebble.directory_url()], "");
    serde_json::from_slice(&output.stdout).ok()
}

/// The serial number, in hex, of what is served and verifies.
fn serial(pebble: &Pebble, name: &str) -> String {
    let roots = root_store(pebble.root());
    let chain = served(&roots, (pebble.node, pebble.tls_port).into(), name);
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    leaf.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_pebble_that_restarts_has_the_same_address_and_another_root() {
    let mut pebble = Pebble::start(PebbleOptions { alternate_roots: 1, ..Default::default() });
    let before = pebble.root();
    assert_eq!(root_store(&before).len(), 1);
    assert_ne!(pebble.root_of(1), before);
    let answer = directory(&pebble).expect("a directory");
    let new_order = answer["newOrder"].as_str().unwrap().to_owned();
    assert!(new_order.starts_with(&format!("https://{}/", pebble.address)), "{new_order}");
    pebble.stop();
    assert_eq!(directory(&pebble), None);
    pebble.restart();
    assert_eq!(directory(&pebble), Some(answer));
    assert_ne!(pebble.root(), before);
    assert_eq!(pebble.issued(), 0);
    assert_eq!(pebble.certificate_status("00"), None);
}

#[test]
fn caddy_obtains_a_certificate_by_http_01_alone_and_keeps_it_without_a_ca() {
    let mut pebble = Pebble::start(PebbleOptions {
        validity_seconds: 3600,
        strict: true,
        tls_alpn_closed: true,
        ..Default::default()
    });
    let proxy = AcmeFaults::start(&pebble);
    let storage = Scratch::new();
    let mut options = CaddyOptions::new(proxy.directory_url(), storage.path(), &["a.example"]);
    options.tls_alpn = false;
    options.email = "ops@example.com".to_owned();
    let caddy = Caddy::start(&pebble, &options);
    let first = serial(&pebble, "a.example");
    assert_eq!(pebble.issued(), 1);
    assert_eq!(pebble.certificate_status(&first).as_deref(), Some("Valid"));

    let counted = [Role::NewAccount, Role::NewOrder, Role::Finalize, Role::Certificate];
    assert_eq!(counted.map(|role| proxy.count(role)), [1; 4]);
    let payload = |role| proxy.requests(role).remove(0).payload;
    assert_eq!(payload(Role::NewAccount)["contact"][0], "mailto:ops@example.com");
    assert_eq!(payload(Role::NewOrder)["identifiers"][0]["value"], "a.example");
    assert!(payload(Role::Finalize)["csr"].is_string());
    assert!(payload(Role::Certificate).is_null());
    let order = proxy.requests(Role::NewOrder).remove(0);
    let account = order.protected["kid"].as_str().unwrap();
    assert!(account.starts_with(&format!("https://{}/my-account/", proxy.address)), "{account}");

    drop(caddy);
    let root = root_store(pebble.root());
    pebble.stop();
    let _caddy = Caddy::start(&pebble, &options);
    let again = served(&root, (pebble.node, pebble.tls_port).into(), "a.example");
    let (_, leaf) = X509Certificate::from_der(&again[0]).unwrap();
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert!((3599..=3601).contains(&life), "{life} seconds");
    assert_eq!(pebble.issued(), 1);
}

#[test]
fn caddy_obtains_a_certificate_by_tls_alpn_01_alone_through_bad_weather() {
    let account = ("kid-1".to_owned(), "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG".to_owned());
    let pebble = Pebble::start(PebbleOptions {
        nonce_reject: 30,
        external_accounts: vec![account.clone()],
        http_closed: true,
        ..Default::default()
    });
    let proxy = AcmeFaults::start(&pebble);
    let retry_after = Some(RetryAfter::Seconds(1));
    proxy.on(Role::NewOrder, When::Nth(1), Fault::problem(503, "serverInternal", retry_after));
    let storage = Scratch::new();
    let mut options = CaddyOptions::new(proxy.directory_url(), storage.path(), &["a.example"]);
    options.http = false;
    options.external_account = Some(account);
    let _caddy = Caddy::start(&pebble, &options);
    proxy.wait_for_count(Role::NewOrder, 2);
    serial(&pebble, "a.example");
    assert_eq!(pebble.issued(), 1);
    let account = proxy.requests(Role::NewAccount).remove(0).payload;
    assert!(account["externalAccountBinding"]["signature"].is_string(), "{account}");
}

#[test]
fn closed_ports_make_their_challenges_fail() {
    let pebble = Pebble::start(PebbleOptions {
        http_closed: true,
        tls_alpn_closed: true,
        ..Default::default()
    });
    let storage = Scratch::new();
    let options = CaddyOptions::new(pebble.directory_url(), storage.path(), &["a.example"]);
    let caddy = Caddy::start(&pebble, &options);
    for challenge in ["http-01", "tls-alpn-01"] {
        let identifier = "\"challenge failed\",\"identifier\":\"a.example\"";
        caddy.wait_for_log(&format!("{identifier},\"challenge_type\":\"{challenge}\""));
    }
    assert_eq!(pebble.issued(), 0);
}

#[test]
fn names_that_lead_elsewhere_or_are_blocked_get_no_certificate_until_they_do_not() {
    let mut pebble =
        Pebble::start(PebbleOptions { blocked: vec!["bad.example".into()], ..Default::default() });
    let proxy = AcmeFaults::start(&pebble);
    pebble.dns.set_address("away.example", crate::harness::loopback());
    pebble.dns.set_failing("lost.example", true);
    let storage = Scratch::new();
    let names = ["away.example", "lost.example", "x.bad.example", "good.example"];
    let options = CaddyOptions::new(proxy.directory_url(), storage.path(), &names);
    let caddy = Caddy::start(&pebble, &options);
    serial(&pebble, "good.example");
    caddy.wait_for_log("rejectedIdentifier");
    for name in ["away.example", "lost.example"] {
        caddy.wait_for_log(&format!("\"challenge failed\",\"identifier\":\"{name}\""));
    }
    assert_eq!(pebble.issued(), 1);
    drop(caddy);

    pebble.dns.forget_address("away.example");
    pebble.dns.set_failing("lost.example", false);
    pebble.restart_with(PebbleOptions::default());
    // With the account that Pebble has forgotten, Caddy would fail and wait a minute.
    let storage = Scratch::new();
    let options = CaddyOptions::new(proxy.directory_url(), storage.path(), &names[..3]);
    let _caddy = Caddy::start(&pebble, &options);
    for name in &names[..3] {
        serial(&pebble, name);
    }
    assert_eq!(pebble.issued(), 4);
}
