//! Which names are obtained: by hand wins, wildcards need a hand, and routes come and go.

use crate::harness::autocert::{arguments, leaf, start, wait_for_certificate};
use crate::harness::{
    Authority, Key, Pebble, PebbleOptions, Ringgate, Scratch, binary, root_store, served, wait_for,
};

#[test]
fn certificates_by_hand_win_exact_or_wildcard_and_nothing_is_ordered_for_them() {
    let pebble = Pebble::start(PebbleOptions::default());
    let (scratch, authority) = (Scratch::new(), Authority::new("by hand"));
    authority.issue_into(scratch.path(), "exact", &["a.example"], Key::Rsa);
    authority.issue_into(scratch.path(), "wild", &["*.w.example"], Key::P256);
    let directory = scratch.path().display().to_string();
    let names = ["a.example", "x.w.example", "b.example"];
    let node = start(&pebble, &names, &["--certificates", &directory]);
    wait_for_certificate(&node, &pebble, "b.example");
    for name in ["a.example", "x.w.example"] {
        served(&root_store(authority.pem()), node.address, name);
        assert!(leaf(node.address, name, &pebble.root()).is_err());
    }
    assert_eq!(pebble.issued(), 1);
}

#[test]
fn a_generated_exact_certificate_yields_to_a_wildcard_by_hand_at_a_reload() {
    let pebble = Pebble::start(PebbleOptions::default());
    let (scratch, authority) = (Scratch::new(), Authority::new("by hand"));
    authority.issue_into(&scratch.path().join("certs"), "other", &["other.example"], Key::P256);
    let directory = scratch.path().join("certs").display().to_string();
    let node = start(&pebble, &["x.w.example"], &["--certificates", &directory]);
    wait_for_certificate(&node, &pebble, "x.w.example");
    authority.issue_into(&scratch.path().join("certs"), "wild", &["*.w.example"], Key::P256);
    node.signal("HUP");
    served(&root_store(authority.pem()), node.address, "x.w.example");
    assert!(leaf(node.address, "x.w.example", &pebble.root()).is_err());
}

#[test]
fn a_wildcard_route_without_a_certificate_is_a_warning_and_in_check_an_error() {
    let pebble = Pebble::start(PebbleOptions::default());
    let node = start(&pebble, &["*.w.example"], &[]);
    node.wait_for_log("is a wildcard, which autocert cannot obtain a certificate for");
    let mut all = vec!["check".to_owned()];
    all.extend(arguments(&pebble, &["*.w.example"], &[]));
    let output = binary().args(&all).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("*.w.example is a wildcard") && said.contains("'certificates'"),
        "{said}"
    );
}

#[test]
fn autocert_without_a_name_or_without_a_way_to_prove_one_is_said() {
    let pebble = Pebble::start(PebbleOptions::default());
    let node = start(&pebble, &[], &[]);
    node.wait_for_log("autocert is on and no name needs a certificate: write a route");
    let mut all = vec!["check".to_owned()];
    all.extend(arguments(&pebble, &["a.example"], &["--autocert-challenges", "http-01"]));
    let output = binary().args(&all).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("autocert_challenges: http-01 alone cannot be answered"), "{said}");
}

fn yaml(pebble: &Pebble, names: &[&str]) -> String {
    let mut text = format!(
        "address: '{}:{}'\nautocert: true\nautocert_ca: {}\nautocert_trusted_ca_file: {}\nroutes:\n",
        pebble.node,
        pebble.tls_port,
        pebble.directory_url(),
        pebble.trusted_ca_file().display()
    );
    for name in names {
        text.push_str(&format!("- from: https://{name}\n  to: tcp://127.0.0.1:1\n"));
    }
    text
}

#[test]
fn names_are_added_and_removed_by_a_reload_also_in_mid_order() {
    // Validation takes a while.
    let pebble = Pebble::start(PebbleOptions { sleep_seconds: 2, ..Default::default() });
    let scratch = Scratch::new();
    let config = scratch.write("ringgate.yaml", yaml(&pebble, &["a.example", "b.example"]));
    let address = format!("{}:{}", pebble.node, pebble.tls_port);
    let config_file = config.display().to_string();
    let node = Ringgate::start(&["--config", &config_file, "--address", &address]);
    wait_for("an order", || pebble.log().contains("POST /order-plz").then_some(()));
    scratch.write("ringgate.yaml", yaml(&pebble, &["a.example", "c.example"]));
    node.signal("HUP");
    node.wait_for_log("configuration reloaded");
    wait_for_certificate(&node, &pebble, "a.example");
    wait_for_certificate(&node, &pebble, "c.example");
    assert!(leaf(node.address, "b.example", &pebble.root()).is_err());
    // What was begun for it is in the store, and there when it comes back.
    scratch.write("ringgate.yaml", yaml(&pebble, &["a.example", "b.example"]));
    node.signal("HUP");
    wait_for_certificate(&node, &pebble, "b.example");
    assert_eq!(pebble.issued(), 3);
}

#[test]
fn until_issued_the_local_ca_may_stand_in() {
    let mut pebble = Pebble::start(PebbleOptions::default());
    pebble.stop();
    let node = start(&pebble, &["a.example"], &["--autocert-until-issued", "local"]);
    let local = std::fs::read_to_string(node.root()).unwrap();
    assert!(leaf(node.address, "a.example", &local).is_ok());
    node.wait_for_log("cert_failed");
    pebble.restart();
    wait_for_certificate(&node, &pebble, "a.example");
}
