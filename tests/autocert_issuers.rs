//! Several CAs: the next one when one is down or refuses, back when it returns, and trials at a staging one.

use std::process::Output;

use serde_json::Value;

use crate::harness::autocert::{leaf, serial, start as start_other, wait_for_certificate};
use crate::harness::{Pebble, PebbleOptions, Ringgate, Scratch, binary, wait_for};

const NAME: &str = "a.example";

/// An entry of `autocert_ca`, with these further lines.
fn entry(pebble: &Pebble, more: &str) -> String {
    let (url, roots) = (pebble.directory_url(), pebble.trusted_ca_file());
    format!("- url: {url}\n  trusted_ca_file: {}\n{more}", roots.display())
}

fn config(issuers: &[String]) -> String {
    let issuers = issuers.concat();
    format!(
        "autocert: true\nroutes:\n- {{from: 'https://{NAME}', to: 'tcp://127.0.0.1:1'}}\nautocert_ca:\n{issuers}"
    )
}

fn start(node: &Pebble, issuers: &[String]) -> Ringgate {
    let config = config(issuers);
    Ringgate::start_at(&format!("{}:{}", node.node, node.tls_port), &config)
}

fn certs(node: &Ringgate, words: &[&str]) -> Output {
    let data = node.dir().join("data");
    binary().arg("certs").args(words).arg("--data-dir").arg(data).output().expect("it starts")
}

fn row(node: &Ringgate) -> Value {
    let output = certs(node, &["--json"]);
    let rows: Vec<Value> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    rows.into_iter().find(|row| row["name"] == NAME).expect("a row")
}

/// Both may be asked at any time; this CA's certificates live for as long.
fn lasting(validity_seconds: u32) -> PebbleOptions {
    PebbleOptions { validity_seconds, ..PebbleOptions::default() }
}

#[test]
fn the_second_issues_while_the_first_is_down_and_renewals_go_back_when_it_returns() {
    let mut first = Pebble::start(PebbleOptions::default());
    // Of so short a life that the renewal is a matter of seconds.
    let second = first.start_beside(lasting(60));
    first.stop();
    let node = start(&first, &[entry(&first, ""), entry(&second, "")]);
    wait_for_certificate(&node, &second, NAME);
    node.wait_for_log("the next issuer is asked");
    assert_eq!(row(&node)["issuer"], second.directory_url());
    first.restart();
    wait_for_certificate(&node, &first, NAME);
    assert_eq!(row(&node)["issuer"], first.directory_url());
    assert_eq!(first.issued(), 1);
    assert_eq!(first.log().matches("Added order").count(), 1);
}

#[test]
fn what_the_first_refuses_for_good_the_second_issues_at_once_and_revokes() {
    let first =
        Pebble::start(PebbleOptions { blocked: vec![NAME.into()], ..PebbleOptions::default() });
    let second = first.start_beside(PebbleOptions::default());
    let node = start(&first, &[entry(&first, ""), entry(&second, "")]);
    let serial = wait_for_certificate(&node, &second, NAME);
    let row = row(&node);
    assert_eq!(row["issuer"], second.directory_url());
    assert_eq!((row["next"].as_str(), row["error"].as_str()), (Some("renewal"), None));
    assert_eq!(node.count_in_log("\"event\":\"cert_failed\""), 0);
    let said = certs(&node, &["revoke", NAME, "--reason", "superseded"]);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(second.certificate_status(&serial).as_deref(), Some("Revoked"));
    assert_eq!(first.issued(), 0);
}

#[test]
fn each_has_its_own_external_account_and_the_one_for_all_is_the_firsts() {
    let mac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let with_account = |id: &str| PebbleOptions {
        external_accounts: vec![(id.into(), mac.into())],
        ..PebbleOptions::default()
    };
    let first =
        Pebble::start(PebbleOptions { blocked: vec![NAME.into()], ..with_account("kid-1") });
    let second = first.start_beside(with_account("kid-2"));
    let own = format!("  eab_key_id: kid-2\n  eab_mac_key: {mac}\n");
    let for_all = format!("autocert_eab_key_id: kid-1\nautocert_eab_mac_key: {mac}\n");
    let node = start(&first, &[entry(&first, ""), entry(&second, &own), for_all]);
    wait_for_certificate(&node, &second, NAME);
    // The first took the account and refused the name.
    node.wait_for_log("rejectedIdentifier");
    assert_eq!(first.log().matches("There are now 1 accounts").count(), 1);
}

#[test]
fn the_certificate_of_a_ca_that_is_listed_no_more_serves_until_it_is_due() {
    let first = Pebble::start(PebbleOptions::default());
    let second = first.start_beside(PebbleOptions::default());
    let node = start(&first, &[entry(&first, "")]);
    let before = wait_for_certificate(&node, &first, NAME);
    let issuer = second.directory_url();
    let roots = second.trusted_ca_file().display().to_string();
    let route = format!("https://{NAME}=tcp://127.0.0.1:1");
    let arguments = [
        "--autocert",
        "--autocert-ca",
        &issuer,
        "--autocert-trusted-ca-file",
        &roots,
        "--route",
        &route,
    ];
    let node = node.again(&arguments);
    let served =
        |pebble: &Pebble| leaf(node.address, NAME, &pebble.root()).map(|leaf| serial(&leaf));
    assert_eq!(served(&first), Ok(before.clone()));
    assert_eq!(row(&node)["issuer"], first.directory_url());
    let said = certs(&node, &["revoke", NAME, "--reason", "superseded"]);
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("which autocert_ca does not name"),
        "{said:?}"
    );
    let said = certs(&node, &["renew", NAME]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("needs no renewal"), "{said:?}");
    assert_eq!(second.issued(), 0);
    let said = certs(&node, &["renew", NAME, "--force"]);
    assert!(said.status.success(), "{said:?}");
    wait_for("the second's certificate", || served(&second).ok());
    assert_eq!(row(&node)["issuer"], second.directory_url());
}

/// Failures of the trial count against nothing at the real CA, which is asked in the turn that succeeds.
/// The staging CA asks another node on the same `autocert_dir`.
#[test]
fn after_repeated_failures_the_name_is_tried_out_before_the_ca_is_asked_again() {
    let (real, staging) =
        (Pebble::start(PebbleOptions::default()), Pebble::start(PebbleOptions::default()));
    let scratch = Scratch::new();
    let directory = scratch.path().join("store").display().to_string();
    let other = start_other(&staging, &["b.example"], &["--autocert-dir", &directory]);
    wait_for_certificate(&other, &staging, "b.example");
    let nowhere = [127, 255, 255, 254].into();
    for pebble in [&real, &staging] {
        pebble.dns.set_address(NAME, nowhere);
    }
    // Both are reached by one entry, so it trusts both.
    let both = format!("{}{}", real.authority().pem(), staging.authority().pem());
    let roots = scratch.write("both.pem", both).display().to_string();
    let (url, test_url) = (real.directory_url(), staging.directory_url());
    let issuer = format!(
        "- {{url: '{url}', trusted_ca_file: {roots}, test_url: '{test_url}'}}\nautocert_dir: {directory}\n"
    );
    let node = start(&real, &[issuer]);
    node.wait_for_log("\"event\":\"cert_failed\"");
    let renew = || certs(&node, &["renew", NAME]);
    let failed = |said: &Output| String::from_utf8_lossy(&said.stderr).into_owned();
    let tried_out = format!("tried out at {test_url}");
    // The second failure may be the one after ten seconds, or the one that is asked for here.
    let orders = |pebble: &Pebble| pebble.log().matches("Added order").count();
    let mut asked = 0;
    wait_for("a trial", || {
        asked = orders(&real);
        failed(&renew()).contains(&tried_out).then_some(())
    });
    let tried = orders(&staging);
    assert!(asked >= 2 && tried >= 2, "{asked} {tried}");
    assert_eq!(orders(&real), asked);
    for pebble in [&real, &staging] {
        pebble.dns.forget_address(NAME);
    }
    let said = renew();
    assert!(said.status.success(), "{said:?}");
    wait_for_certificate(&node, &real, NAME);
    other.wait_for_log("another node orders; its challenge is answered here too");
    assert_eq!((real.issued(), staging.issued()), (1, 2));
    // Nothing is kept of what staging issued.
    let store = scratch.path().join("store");
    let key = format!("{}-dir", staging.address.to_string().replace(':', "-"));
    for trial in
        [format!("certificates/{key}/{NAME}"), format!("ringgate/certificates/{key}/{NAME}.json")]
    {
        assert!(!store.join(&trial).exists(), "{trial}");
    }
    assert!(store.join(format!("acme/{key}/users")).is_dir());
}
