//! The harness's own CA does what the tests of certificates rely on.

use crate::harness::{Pebble, PebbleOptions, command, root_store};

/// What curl gets from the directory.
fn directory(pebble: &Pebble) -> Option<serde_json::Value> {
    let root = pebble.trusted_ca_file().display().to_string();
    let output = command("curl", &["-sS", "--cacert", &root, &pebble.directory_url()], "");
    serde_json::from_slice(&output.stdout).ok()
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
