//! A CA that is down, hangs, refuses or talks nonsense, and validations that fail: each is survived, said,
//! and tried again in its own time.

use std::time::Duration;

use crate::harness::autocert::{arguments_for, leaf, start, start_again, wait_for_certificate};
use crate::harness::{
    AcmeFaults, Fault, Pebble, PebbleOptions, RetryAfter, Ringgate, Role, Scratch, When, wait_for,
};

fn behind_faults() -> (Pebble, AcmeFaults) {
    let pebble = Pebble::start(PebbleOptions::default());
    let faults = AcmeFaults::start(&pebble);
    (pebble, faults)
}

fn start_behind(pebble: &Pebble, faults: &AcmeFaults, names: &[&str]) -> Ringgate {
    start_again(arguments_for(pebble, &faults.directory_url(), names, &[]), None)
}

#[test]
fn a_ca_that_is_down_is_asked_again_until_it_is_there() {
    let mut pebble = Pebble::start(PebbleOptions::default());
    pebble.stop();
    let node = start(&pebble, &["a.example"], &[]);
    node.wait_for_log("cannot connect to");
    pebble.restart();
    wait_for_certificate(&node, &pebble, "a.example");
}

#[test]
fn what_is_no_acme_is_said_to_be_that_and_asked_again() {
    let (pebble, faults) = behind_faults();
    faults.on(Role::Directory, When::Nth(1), Fault::html(200));
    faults.on(Role::NewOrder, When::Nth(1), Fault::html(502));
    let node = start_behind(&pebble, &faults, &["a.example"]);
    wait_for_certificate(&node, &pebble, "a.example");
    assert_eq!(node.count_in_log("is not ACME: status"), 2, "{}", node.log());
    assert_eq!(node.count_in_log("is autocert_ca the URL of an ACME directory?"), 1);
    assert_eq!(pebble.issued(), 1);
}

#[test]
fn cut_connections_and_lost_answers_cost_no_second_certificate() {
    for (role, fault) in [
        (Role::NewOrder, Fault::LoseAnswer),
        (Role::Finalize, Fault::LoseAnswer),
        (Role::Certificate, Fault::Truncate),
        (Role::Challenge, Fault::Reset),
        (Role::Challenge, Fault::LoseAnswer),
        (Role::Order, Fault::html(502)),
    ] {
        let (pebble, faults) = behind_faults();
        faults.on(role, When::Nth(1), fault.clone());
        let node = start_behind(&pebble, &faults, &["a.example"]);
        wait_for_certificate(&node, &pebble, "a.example");
        assert_eq!(pebble.issued(), 1, "{role:?} {fault:?}");
        // While the CA validates, one bad answer is not even a failure.
        let may_fail = !matches!(role, Role::Challenge | Role::Order);
        assert!(may_fail || node.count_in_log("cert_failed") == 0, "{role:?} {}", node.log());
        let orders = faults.count(Role::NewOrder);
        assert_eq!(orders, if role == Role::NewOrder { 2 } else { 1 }, "{role:?} {fault:?}");
    }
}

#[test]
fn a_limit_is_obeyed_in_seconds_and_dates_and_over_a_restart() {
    for retry_after in [RetryAfter::Seconds(3600), RetryAfter::Date(Duration::from_secs(3600))] {
        let (pebble, faults) = behind_faults();
        let limited = Fault::problem(429, "rateLimited", Some(retry_after));
        faults.on(Role::NewOrder, When::Always, limited);
        let node = start_behind(&pebble, &faults, &["a.example"]);
        node.wait_for_log("cert_failed");
        let asked = faults.count(Role::NewOrder);
        // A crash loop asks no more than that.
        let mut node = node;
        for _ in 0..3 {
            let arguments = arguments_for(&pebble, &faults.directory_url(), &["a.example"], &[]);
            node = start_again(arguments, Some(node));
        }
        node.wait_for_log("\"message\":\"autocert\"");
        let log = node.log();
        assert_eq!(faults.count(Role::NewOrder), asked, "{log}");
        assert_eq!(asked, 1);
    }
}

#[test]
fn a_validation_that_fails_is_tried_again_and_then_succeeds() {
    let pebble = Pebble::start(PebbleOptions::default());
    pebble.dns.set_address("a.example", "127.255.255.254".parse().unwrap());
    let node = start(&pebble, &["a.example", "b.example"], &[]);
    node.wait_for_log("cert_failed");
    // Within the ten seconds after which it is tried again: the pause after that is of minutes.
    pebble.dns.set_address("a.example", pebble.node);
    wait_for_certificate(&node, &pebble, "b.example");
    let log = node.log();
    assert!(log.contains("tls-alpn-01: ") && log.contains("Failed to connect"), "{log}");
    assert!(log.contains("the CA must reach address as port 443 of this name"), "{log}");
    wait_for_certificate(&node, &pebble, "a.example");
}

#[test]
fn a_ca_that_is_not_trusted_is_for_a_person() {
    let pebble = Pebble::start(PebbleOptions::default());
    let address = format!("{}:{}", pebble.node, pebble.tls_port);
    let url = pebble.directory_url();
    let node = Ringgate::start(&[
        "--address",
        &address,
        "--autocert",
        "--autocert-ca",
        &url,
        "--route",
        "https://a.example=tcp://127.0.0.1:1",
    ]);
    node.wait_for_log("name its root with autocert_trusted_ca_file");
    assert_eq!(pebble.issued(), 0);
}

#[test]
fn a_validation_that_fails_while_we_are_down_counts_and_no_order_is_placed_over_it() {
    let (pebble, faults) = behind_faults();
    pebble.dns.set_address("a.example", "127.255.255.254".parse().unwrap());
    faults.on(Role::Order, When::Always, Fault::html(502));
    let mut node = start_behind(&pebble, &faults, &["a.example"]);
    wait_for("the CA to have looked", || pebble.log().contains("set INVALID").then_some(()));
    let arguments = arguments_for(&pebble, &faults.directory_url(), &["a.example"], &[]);
    // Before the CA says again what has become of the order.
    node.signal("KILL");
    node.wait_for_end();
    let before = node.count_in_log("cert_failed");
    faults.heal();
    let node = start_again(arguments, Some(node));
    node.wait_for_log("Failed to connect");
    assert_eq!((before, faults.count(Role::NewOrder)), (0, 1), "{}", node.log());
}

#[test]
fn a_request_that_the_ca_refuses_for_its_key_is_made_anew_with_another() {
    let (pebble, faults) = behind_faults();
    faults.on(Role::Finalize, When::Nth(1), Fault::problem(400, "badPublicKey", None));
    let node = start_behind(&pebble, &faults, &["a.example"]);
    node.wait_for_log("choose another autocert_key_type");
    let more = ["--autocert-key-type", "p384"];
    let arguments = arguments_for(&pebble, &faults.directory_url(), &["a.example"], &more);
    let node = start_again(arguments, Some(node));
    wait_for_certificate(&node, &pebble, "a.example");
    assert_eq!(faults.count(Role::NewOrder), 2, "{}", node.log());
}

#[test]
fn a_file_of_roots_that_is_mended_is_picked_up_by_a_reload() {
    let (pebble, other) =
        (Pebble::start(PebbleOptions::default()), Pebble::start(PebbleOptions::default()));
    let directory = Scratch::new();
    let roots = directory.path().join("roots.pem");
    std::fs::copy(other.trusted_ca_file(), &roots).unwrap();
    let roots_text = roots.display().to_string();
    let mut arguments = arguments_for(&pebble, &pebble.directory_url(), &["a.example"], &[]);
    let given = pebble.trusted_ca_file().display().to_string();
    for argument in arguments.iter_mut().filter(|argument| argument.contains(&given)) {
        *argument = argument.replace(&given, &roots_text);
    }
    let node = start_again(arguments, None);
    node.wait_for_log("name its root with autocert_trusted_ca_file");
    std::fs::copy(pebble.trusted_ca_file(), &roots).unwrap();
    node.signal("HUP");
    wait_for_certificate(&node, &pebble, "a.example");
}

#[test]
fn a_ca_that_forgot_us_is_registered_with_again_by_the_same_key() {
    let mut pebble = Pebble::start(PebbleOptions::default());
    let node = start(&pebble, &["a.example"], &[]);
    wait_for_certificate(&node, &pebble, "a.example");
    pebble.restart();
    let more = ["--autocert-hosts", "b.example"];
    let names = ["a.example", "b.example"];
    let arguments = arguments_for(&pebble, &pebble.directory_url(), &names, &more);
    let node = start_again(arguments, Some(node));
    wait_for_certificate(&node, &pebble, "b.example");
    node.wait_for_log("the CA no longer knows our account");
    // Its new root signs no certificate of before, which is served all the same.
    assert!(leaf(node.address, "a.example", &pebble.root()).is_err());
    assert!(pebble.log().matches("There are now 1 accounts in memory").count() == 2);
}

#[test]
fn a_hanging_ca_delays_neither_start_nor_what_is_stored() {
    let (pebble, faults) = behind_faults();
    let node = start_behind(&pebble, &faults, &["a.example"]);
    wait_for_certificate(&node, &pebble, "a.example");
    let root = pebble.root();
    for role in [Role::Directory, Role::NewNonce, Role::NewOrder] {
        faults.on(role, When::Always, Fault::Hang);
    }
    let names = ["a.example", "b.example"];
    let node =
        start_again(arguments_for(&pebble, &faults.directory_url(), &names, &[]), Some(node));
    assert!(leaf(node.address, "a.example", &root).is_ok());
    faults.wait_for_count(Role::Directory, 3);
    assert!(leaf(node.address, "a.example", &root).is_ok());
    wait_for("a refusal", || leaf(node.address, "b.example", &root).err());
}
