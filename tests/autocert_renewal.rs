//! Certificates are renewed in time, by the CA's renewal information where it has any, and nobody notices.

use time::OffsetDateTime;

use crate::harness::autocert::{
    arguments_for, leaf, serial, start, start_again, wait_for_certificate,
};
use crate::harness::{
    AcmeFaults, Fault, Pebble, PebbleOptions, RenewalInfo, Role, When, binary, wait_for,
};

#[test]
fn certificates_of_seconds_are_renewed_again_and_again_without_a_failed_handshake() {
    let pebble = Pebble::start(PebbleOptions { validity_seconds: 40, ..Default::default() });
    let node = start(&pebble, &["a.example"], &[]);
    let mut last = wait_for_certificate(&node, &pebble, "a.example");
    let root = pebble.root();
    for _ in 0..3 {
        // Every handshake on the way succeeds: the client checks dates and chain.
        let next = wait_for("another certificate", || {
            let served = serial(&leaf(node.address, "a.example", &root).expect("a handshake"));
            (served != last).then_some(served)
        });
        last = next;
    }
    assert_eq!(node.count_in_log("cert_failed"), 0, "{}", node.log());
}

fn window(from: i64, to: i64) -> RenewalInfo {
    let now = OffsetDateTime::now_utc();
    RenewalInfo {
        start: now + time::Duration::seconds(from),
        end: now + time::Duration::seconds(to),
        explanation_url: None,
        retry_after: None,
    }
}

#[test]
fn a_window_that_opens_renews_with_replaces_and_the_next_window_is_waited_for() {
    let pebble = Pebble::start(PebbleOptions::default());
    let faults = AcmeFaults::start(&pebble);
    faults.set_renewal_info(window(86_400, 172_800));
    let arguments = || arguments_for(&pebble, &faults.directory_url(), &["a.example"], &[]);
    let node = start_again(arguments(), None);
    let first = wait_for_certificate(&node, &pebble, "a.example");
    faults.wait_for_count(Role::RenewalInfo, 1);
    let asked = faults.requests(Role::RenewalInfo)[0].object().to_owned();
    assert_eq!(pebble.issued(), 1);
    // As after an incident: the window lies in the past. Polls are hours apart, so a forced one replaces.
    faults.set_renewal_info_of(&asked, window(-7200, -3600));
    let record = record_of(&node);
    // Nor is what was obtained a moment ago replaced by what a CA says: it was yesterday.
    let due = record
        .replace("\"ask_renewal_at\":", "\"ask_renewal_at\": 1, \"asked\":")
        .replace("\"obtained\":", "\"obtained\": 1, \"was\":");
    assert_ne!(due, record);
    node.signal("TERM");
    let mut node = node;
    node.wait_for_end();
    std::fs::write(record_path(&node), due).unwrap();
    let node = start_again(arguments(), Some(node));
    let root = pebble.root();
    let second = wait_for("its replacement", || {
        let served = serial(&leaf(node.address, "a.example", &root).ok()?);
        (served != first).then_some(served)
    });
    assert_ne!(second, first);
    let orders = faults.requests(Role::NewOrder);
    assert_eq!(orders.len(), 2);
    assert_eq!(orders[0].payload.get("replaces"), None);
    assert_eq!(orders[1].payload["replaces"].as_str(), Some(asked.as_str()));
}

fn record_path(node: &crate::harness::Ringgate) -> std::path::PathBuf {
    let folder = crate::harness::autocert::store(node).join("ringgate/certificates");
    let issuer = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    issuer.join("a.example.json")
}

/// The record, once renewal information is in it.
fn record_of(node: &crate::harness::Ringgate) -> String {
    wait_for("renewal information in the record", || {
        let record = std::fs::read_to_string(record_path(node)).ok()?;
        record.contains("\"selected\"").then_some(record)
    })
}

#[test]
fn an_order_refused_because_of_replaces_is_placed_again_without() {
    let pebble = Pebble::start(PebbleOptions::default());
    let faults = AcmeFaults::start(&pebble);
    faults.set_renewal_info(window(86_400, 172_800));
    faults.on(Role::NewOrder, When::With("replaces"), Fault::problem(409, "alreadyReplaced", None));
    let node =
        start_again(arguments_for(&pebble, &faults.directory_url(), &["a.example"], &[]), None);
    wait_for_certificate(&node, &pebble, "a.example");
    let data = node.dir().join("data");
    let mut renew = binary();
    renew.args(["certs", "renew", "--force", "a.example", "--data-dir"]).arg(data);
    let said = renew.output().expect("it starts");
    assert!(said.status.success(), "{said:?}");
    node.wait_for_log("ordering without 'replaces'");
    assert_eq!(pebble.issued(), 2);
    let orders = faults.requests(Role::NewOrder);
    assert!(orders[1].payload.get("replaces").is_some());
    assert!(orders[2].payload.get("replaces").is_none());
}

#[test]
fn a_renewal_that_fails_leaves_what_is_served_and_is_tried_again() {
    let pebble = Pebble::start(PebbleOptions { validity_seconds: 60, ..Default::default() });
    let faults = AcmeFaults::start(&pebble);
    let node =
        start_again(arguments_for(&pebble, &faults.directory_url(), &["a.example"], &[]), None);
    let first = wait_for_certificate(&node, &pebble, "a.example");
    faults.on(Role::NewOrder, When::First(1), Fault::problem(500, "serverInternal", None));
    node.wait_for_log("cert_failed");
    let root = pebble.root();
    assert_eq!(leaf(node.address, "a.example", &root).map(|leaf| serial(&leaf)), Ok(first.clone()));
    wait_for("the renewal", || {
        let served = serial(&leaf(node.address, "a.example", &root).expect("a handshake"));
        (served != first).then_some(())
    });
}
