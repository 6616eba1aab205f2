//! Names without a certificate get one from the CA, and keep it over a restart without the CA.

use std::collections::HashSet;

use crate::harness::autocert::{
    arguments, leaf, serial, start, start_again, store, wait_for_certificate,
};
use crate::harness::{Pebble, PebbleOptions, Ringgate, wait_for};

const FIVE: [&str; 5] = ["a.example", "b.example", "c.example", "d.example", "e.example"];

fn plain_listener(pebble: &Pebble) -> [String; 2] {
    ["--http-redirect-addr".into(), format!("{}:{}", pebble.node, pebble.http_port)]
}

#[test]
fn a_name_is_obtained_by_tls_alpn_stored_and_served_after_a_restart_without_the_ca() {
    let mut pebble = Pebble::start(PebbleOptions { http_closed: true, ..PebbleOptions::default() });
    let node = start(&pebble, &["a.example"], &[]);
    let first = wait_for_certificate(&node, &pebble, "a.example");
    let root = pebble.root();
    let folder = format!("{}-dir", pebble.address.to_string().replace(':', "-"));
    let folder = store(&node).join("certificates").join(folder).join("a.example");
    for ending in ["crt", "key", "json"] {
        let file = folder.join(format!("a.example.{ending}"));
        wait_for(&format!("{file:?}"), || file.is_file().then_some(()));
    }
    pebble.stop();
    let node = start_again(arguments(&pebble, &["a.example"], &[]), Some(node));
    // At once: it is in the first snapshot.
    let again = leaf(node.address, "a.example", &root).map(|leaf| serial(&leaf));
    assert_eq!(again, Ok(first));
    assert_eq!(pebble.issued(), 1);
}

/// Five routes, whichever challenge is possible.
fn five_routes_with(options: PebbleOptions, challenges: &str) {
    let pebble = Pebble::start(options);
    let plain = plain_listener(&pebble);
    let more = [plain[0].as_str(), &plain[1], "--autocert-challenges", challenges];
    let node = start(&pebble, &FIVE, &more);
    let serials: HashSet<_> =
        FIVE.iter().map(|name| wait_for_certificate(&node, &pebble, name)).collect();
    assert_eq!(serials.len(), 5);
}

#[test]
fn five_routes_are_served_when_only_tls_alpn_can_work() {
    let options = PebbleOptions { http_closed: true, ..PebbleOptions::default() };
    five_routes_with(options, "http-01,tls-alpn-01");
}

#[test]
fn five_routes_are_served_when_only_http_can_work() {
    let options = PebbleOptions { tls_alpn_closed: true, ..PebbleOptions::default() };
    five_routes_with(options, "tls-alpn-01,http-01");
}

#[test]
fn five_routes_are_served_with_each_challenge_alone_configured() {
    five_routes_with(PebbleOptions::default(), "tls-alpn-01");
    five_routes_with(PebbleOptions::default(), "http-01");
}

#[test]
fn the_environment_alone_configures_it() {
    let pebble = Pebble::start(PebbleOptions::default());
    let address = format!("{}:{}", pebble.node, pebble.tls_port);
    let node = Ringgate::start_with(&["--address", &address], |command| {
        command
            .env("AUTOCERT", "true")
            .env("AUTOCERT_CA", pebble.directory_url())
            .env("AUTOCERT_TRUSTED_CA_FILE", pebble.trusted_ca_file())
            .env("ROUTES", "https://a.example=tcp://127.0.0.1:1");
    });
    wait_for_certificate(&node, &pebble, "a.example");
}

#[test]
fn two_hundred_names_at_once_and_the_ten_bad_ones_delay_nobody() {
    let pebble =
        Pebble::start(PebbleOptions { blocked: vec!["bad.example".into()], ..Default::default() });
    let names: Vec<String> = (0..200)
        .map(|number| match number % 20 {
            0 => format!("n{number}.bad.example"),
            _ => format!("name{number}.example"),
        })
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let node = start(&pebble, &names, &[]);
    let root = pebble.root();
    let good: Vec<&&str> = names.iter().filter(|name| !name.contains("bad")).collect();
    wait_for("the good ones", || (pebble.issued() >= good.len()).then_some(()));
    for name in good {
        wait_for(name, || leaf(node.address, name, &root).ok());
    }
    // Each bad one is said once, with the CA's words and what to do.
    assert_eq!(node.count_in_log("\"remedy\":\"the CA does not issue for this name"), 10);
    assert_eq!(pebble.issued(), 190);
    assert_eq!(pebble.log().matches("There are now 1 accounts").count(), 1);
}

#[test]
fn nonces_refused_half_of_the_time_are_no_obstacle() {
    let pebble = Pebble::start(PebbleOptions { nonce_reject: 50, ..Default::default() });
    let node = start(&pebble, &FIVE, &[]);
    for name in FIVE {
        wait_for_certificate(&node, &pebble, name);
    }
    assert_eq!(node.count_in_log("cert_failed"), 0, "{}", node.log());
}

#[test]
fn an_external_account_is_bound_and_a_wrong_mac_key_is_for_a_person() {
    let (id, mac) = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");
    let pebble = Pebble::start(PebbleOptions {
        external_accounts: vec![(id.into(), mac.into())],
        strict: true,
        ..Default::default()
    });
    let wrong = mac.replace('z', "y");
    let more = |mac: &'static str| ["--autocert-eab-key-id", id, "--autocert-eab-mac-key", mac];
    let node = start(&pebble, &["a.example"], &more(wrong.leak()));
    node.wait_for_log("check autocert_eab_key_id and autocert_eab_mac_key");
    let node = start_again(arguments(&pebble, &["a.example"], &[]), Some(node));
    node.wait_for_log("set autocert_eab_key_id and autocert_eab_mac_key");
    assert!(!node.log().contains(mac) && !node.log().contains(&mac.replace('z', "y")));
    // What failed for want of an account is tried again in minutes; another directory begins anew.
    let store = node.dir().join("other").display().to_string();
    let mut with_account = arguments(&pebble, &["a.example"], &more(mac));
    with_account.extend(["--autocert-dir".into(), store]);
    let node = start_again(with_account, Some(node));
    wait_for_certificate(&node, &pebble, "a.example");
}

#[test]
fn key_types_are_what_was_asked_for() {
    let pebble = Pebble::start(PebbleOptions::default());
    for (key_type, label) in
        [("p384", "BEGIN EC PRIVATE KEY"), ("rsa2048", "BEGIN RSA PRIVATE KEY")]
    {
        let name = format!("{key_type}.example");
        let node = start(&pebble, &[&name], &["--autocert-key-type", key_type]);
        wait_for_certificate(&node, &pebble, &name);
        let folder = format!("{}-dir", pebble.address.to_string().replace(':', "-"));
        let key = format!("certificates/{folder}/{name}/{name}.key");
        let key = std::fs::read_to_string(store(&node).join(key)).unwrap();
        assert!(key.contains(label), "{key}");
    }
}

/// What a person at a terminal sees, a line per step.
#[test]
fn progress_is_told_per_name_and_nothing_when_nothing_happens() {
    let pebble = Pebble::start(PebbleOptions { tls_alpn_closed: true, ..Default::default() });
    let plain = plain_listener(&pebble);
    let node = start(&pebble, &["a.example"], &[&plain[0], &plain[1]]);
    wait_for_certificate(&node, &pebble, "a.example");
    node.wait_for_log("cert_obtained");
    let log = node.log();
    let mut rest = log.as_str();
    for said in [
        "\"message\":\"obtaining a certificate\"",
        "\"message\":\"waiting for the CA to check the challenge\",\"name\":\"a.example\",\"challenge\":\"tls-alpn-01\"",
        "\"message\":\"the next challenge is tried\",\"name\":\"a.example\",\"error\":\"tls-alpn-01: ",
        "\"message\":\"waiting for the CA to check the challenge\",\"name\":\"a.example\",\"challenge\":\"http-01\"",
        "\"message\":\"the CA accepts the challenge\",\"name\":\"a.example\",\"challenge\":\"http-01\"",
        "\"message\":\"certificate obtained\"",
    ] {
        let at = rest.find(said).unwrap_or_else(|| panic!("{said} is not in\n{rest}"));
        rest = &rest[at + said.len()..];
    }
    let node = start_again(arguments(&pebble, &["a.example"], &[]), Some(node));
    wait_for_certificate(&node, &pebble, "a.example");
    assert_eq!(node.log().matches("a.example").count(), 0, "{}", node.log());
}

/// RFC 8738: TLS-ALPN-01 asks under the reverse name, HTTP-01 with the address as host.
#[test]
fn an_address_is_obtained_by_either_challenge() {
    for challenge in ["tls-alpn-01", "http-01"] {
        let pebble = Pebble::start(PebbleOptions::default());
        let (plain, name) = (plain_listener(&pebble), pebble.node.to_string());
        let more = [plain[0].as_str(), &plain[1], "--autocert-challenges", challenge];
        let node = start(&pebble, &[&name], &more);
        wait_for_certificate(&node, &pebble, &name);
        assert_eq!(node.count_in_log("cert_failed"), 0, "{challenge}");
    }
}
