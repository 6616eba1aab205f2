//! Profiles of a CA: one that it does not list, or lists no more, is no reason not to order.

use crate::harness::autocert::{arguments_for, start_again, wait_for_certificate};
use crate::harness::{AcmeFaults, Pebble, PebbleOptions, Ringgate, Role, binary};

fn start(pebble: &Pebble, faults: &AcmeFaults, name: &str) -> Ringgate {
    let more = ["--autocert-profile", "short"];
    start_again(arguments_for(pebble, &faults.directory_url(), &[name], &more), None)
}

fn asked_for(faults: &AcmeFaults) -> Vec<Option<String>> {
    let orders = faults.requests(Role::NewOrder);
    orders.iter().map(|order| Some(order.payload.get("profile")?.as_str()?.to_owned())).collect()
}

#[test]
fn a_profile_that_the_ca_does_not_list_is_left_out_with_a_warning() {
    let pebble = Pebble::start(PebbleOptions::default());
    let faults = AcmeFaults::start(&pebble);
    faults.set_profiles(&[("long", "ninety days")]);
    let node = start(&pebble, &faults, "a.example");
    wait_for_certificate(&node, &pebble, "a.example");
    node.wait_for_log("the CA does not list this profile; it is left out");
    assert_eq!(asked_for(&faults), [None]);
}

#[test]
fn a_profile_that_the_ca_drops_is_left_out_of_the_order_that_it_refuses() {
    let pebble = Pebble::start(PebbleOptions::default());
    let faults = AcmeFaults::start(&pebble);
    faults.set_profiles(&[("short", "six days")]);
    let node = start(&pebble, &faults, "a.example");
    wait_for_certificate(&node, &pebble, "a.example");
    // The directory that the node has seen still lists it.
    faults.set_profiles(&[("long", "ninety days")]);
    let data = node.dir().join("data");
    let renewed = binary()
        .args(["certs", "renew", "--force", "a.example", "--data-dir"])
        .arg(data)
        .output()
        .expect("it starts");
    assert!(renewed.status.success(), "{renewed:?}");
    node.wait_for_log("the CA refuses this profile; ordering without it");
    let short = || Some("short".to_owned());
    assert_eq!(asked_for(&faults), [short(), short(), None]);
    assert_eq!(pebble.issued(), 2);
}
