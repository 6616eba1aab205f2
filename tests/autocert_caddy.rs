//! Caddy and ringgate go on from each other's directories.

use crate::harness::autocert::{
    arguments, serial, start, start_again, store, wait_for_certificate,
};
use crate::harness::{
    Caddy, CaddyOptions, Pebble, PebbleOptions, Scratch, root_store, served, wait_for,
};

const NAMES: [&str; 2] = ["a.example", "b.example"];

#[test]
fn a_directory_of_caddys_is_adopted_and_its_account_used() {
    for email in ["", "Ops+Tls@example.com"] {
        let pebble = Pebble::start(PebbleOptions::default());
        let scratch = Scratch::new();
        let mut options = CaddyOptions::new(pebble.directory_url(), scratch.path(), &NAMES);
        options.email = email.into();
        let roots = root_store(pebble.root());
        let address = (pebble.node, pebble.tls_port).into();
        let by_caddy: Vec<String> = {
            let _caddy = Caddy::start(&pebble, &options);
            NAMES.iter().map(|name| serial(&served(&roots, address, name)[0])).collect()
        };
        let directory = scratch.path().display().to_string();
        let more = ["--autocert-dir", &directory, "--autocert-email", email];
        let node = start(&pebble, &["a.example", "b.example", "c.example"], &more);
        for (name, serial) in NAMES.iter().zip(&by_caddy) {
            assert_eq!(&wait_for_certificate(&node, &pebble, name), serial);
        }
        wait_for_certificate(&node, &pebble, "c.example");
        assert_eq!(pebble.issued(), 3);
        assert_eq!(pebble.log().matches("accounts in memory").count(), 1);
        assert_eq!(node.count_in_log("account registered"), 0);
        // Also without being told whose account it is.
        let more = ["--autocert-dir", directory.as_str()];
        let names = ["a.example", "b.example", "c.example", "d.example"];
        let node = start_again(arguments(&pebble, &names, &more), Some(node));
        wait_for_certificate(&node, &pebble, "d.example");
        assert_eq!(pebble.log().matches("accounts in memory").count(), 1);
    }
}

#[test]
fn caddy_goes_on_from_a_directory_of_ours_and_orders_nothing() {
    let pebble = Pebble::start(PebbleOptions::default());
    let mut node = start(&pebble, &NAMES, &[]);
    let ours: Vec<String> =
        NAMES.iter().map(|name| wait_for_certificate(&node, &pebble, name)).collect();
    wait_for("Caddy's files", || {
        let folder = format!("certificates/{}-dir", pebble.address.to_string().replace(':', "-"));
        let folder = store(&node).join(folder);
        NAMES
            .iter()
            .all(|name| folder.join(name).join(format!("{name}.json")).is_file())
            .then_some(())
    });
    node.signal("TERM");
    node.wait_for_end();
    let names = ["a.example", "b.example", "c.example"];
    let options = CaddyOptions::new(pebble.directory_url(), &store(&node), &names);
    let _caddy = Caddy::start(&pebble, &options);
    let roots = root_store(pebble.root());
    let address = (pebble.node, pebble.tls_port).into();
    for (name, ours) in NAMES.iter().zip(&ours) {
        assert_eq!(&serial(&served(&roots, address, name)[0]), ours);
    }
    served(&roots, address, "c.example");
    assert_eq!(pebble.issued(), 3);
    assert_eq!(pebble.log().matches("accounts in memory").count(), 1);
}
