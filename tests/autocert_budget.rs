//! What is known of Let's Encrypt's limits is kept, by a Pebble that is reached under its name.

use std::process::Output;

use crate::harness::autocert::{arguments_for, store, wait_for_certificate};
use crate::harness::pebble::LETS_ENCRYPT;
use crate::harness::{ConnectProxy, Pebble, PebbleOptions, Ringgate, binary};

fn renew(node: &Ringgate) -> Output {
    let data = node.dir().join("data");
    let words = ["certs", "renew", "--force", "a.example", "--data-dir"];
    binary().args(words).arg(data).output().expect("it starts")
}

#[test]
fn the_sixth_certificate_of_a_week_for_the_same_name_is_not_ordered() {
    let pebble = Pebble::start(PebbleOptions::default());
    let there = pebble.address.to_string();
    let proxy = ConnectProxy::start(move |_| there.clone());
    let url = format!("https://{LETS_ENCRYPT}/dir");
    let all = arguments_for(&pebble, &url, &["a.example"], &[]);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let node = Ringgate::start_with(&all, |command| {
        command.env("HTTPS_PROXY", format!("http://{}", proxy.address));
    });
    wait_for_certificate(&node, &pebble, "a.example");
    for _ in 0..4 {
        let said = renew(&node);
        assert!(said.status.success(), "{said:?}");
    }
    let said = renew(&node);
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(
        words.contains(&format!("one order more for a.example would pass a limit of {url}")),
        "{said:?}"
    );
    assert_eq!(pebble.issued(), 5);
    let budget = format!("ringgate/budgets/{LETS_ENCRYPT}-dir.json");
    let kept = std::fs::read_to_string(store(&node).join(budget)).unwrap();
    // The first counted for its domain and account, and all for the name.
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    for what in ["orders", "domains", "names"] {
        assert_eq!(kept[what].as_object().map(|used| used.len()), Some(1), "{kept}");
    }
    assert_eq!(kept["failed"].as_object().map(|used| used.len()), Some(0), "{kept}");
}
