//! `ringgate certs` shows, renews and revokes, over the admin socket or from the store.

use std::process::Output;

use serde_json::Value;

use crate::harness::autocert::{arguments, leaf, serial, start, start_again, wait_for_certificate};
use crate::harness::{Authority, Key, Pebble, PebbleOptions, Ringgate, Scratch, binary, wait_for};

fn certs(node: &Ringgate, words: &[&str]) -> Output {
    let data = node.dir().join("data");
    binary().arg("certs").args(words).arg("--data-dir").arg(data).output().expect("it starts")
}

fn rows(output: &Output) -> Vec<Value> {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn row(rows: &[Value], name: &str) -> Value {
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{rows:?}")).clone()
}

#[test]
fn every_name_is_listed_with_what_serves_it_and_why() {
    let pebble =
        Pebble::start(PebbleOptions { blocked: vec!["bad.example".into()], ..Default::default() });
    let (scratch, authority) = (Scratch::new(), Authority::new("by hand"));
    authority.issue_into(scratch.path(), "hand", &["hand.example"], Key::P256);
    let directory = scratch.path().display().to_string();
    let names = ["a.example", "x.bad.example", "hand.example"];
    let node = start(&pebble, &names, &["--certificates", &directory]);
    let first = wait_for_certificate(&node, &pebble, "a.example");
    node.wait_for_log("cert_failed");
    let all = rows(&certs(&node, &["--json"]));
    let good = row(&all, "a.example");
    assert_eq!(
        (good["served"].as_str(), good["serial"].as_str()),
        (Some("autocert"), Some(&*first))
    );
    assert_eq!((good["next"].as_str(), good["key_type"].as_str()), (Some("renewal"), Some("p256")));
    assert!(good["next_at"].as_str() < good["not_after"].as_str());
    let bad = row(&all, "x.bad.example");
    assert_eq!(bad["served"], "none");
    assert!(
        bad["error"].as_str().unwrap().contains("the CA does not issue for this name"),
        "{bad}"
    );
    assert!(bad["next"].as_str().unwrap().contains("your help is needed"), "{bad}");
    // Nothing is ordered for what is covered by hand.
    let hand = row(&all, "hand.example");
    assert_eq!((hand["served"].as_str(), hand["next"].as_str()), (Some("by hand"), None));
    assert_eq!(pebble.issued(), 1);
    let table = String::from_utf8(certs(&node, &[]).stdout).unwrap();
    assert!(table.starts_with("NAME") && table.contains("failed: "), "{table}");
    let mode = {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(node.dir().join("data/admin.sock")).unwrap().permissions().mode()
    };
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn renew_waits_for_the_outcome_and_revoke_replaces_with_another_key() {
    let pebble = Pebble::start(PebbleOptions::default());
    let node = start(&pebble, &["a.example"], &[]);
    let root = pebble.root();
    let served = || leaf(node.address, "a.example", &root).map(|leaf| serial(&leaf)).ok();
    let first = wait_for_certificate(&node, &pebble, "a.example");
    let said = certs(&node, &["renew", "a.example"]);
    assert!(said.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains("needs no renewal"), "{said:?}");
    let said = certs(&node, &["renew", "--force", "a.example"]);
    assert!(said.status.success(), "{said:?}");
    let second = wait_for("the renewed one", || served().filter(|now| *now != first));
    let said = certs(&node, &["revoke", "a.example", "--reason", "key-compromise"]);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(pebble.certificate_status(&second).as_deref(), Some("Revoked"));
    wait_for("the replacement", || served().filter(|now| *now != second));
    for (words, what) in [
        (["renew", "b.example", "--force"].as_slice(), "does not manage b.example"),
        (&["revoke", "a.example", "--reason", "boredom"], "is no reason to revoke"),
    ] {
        let said = certs(&node, words);
        let why = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && why.contains(what), "{said:?}");
    }
}

#[test]
fn a_second_process_with_the_same_data_does_not_take_the_socket_and_one_that_is_lost_is_opened_again()
 {
    let (scratch, authority) = (Scratch::new(), Authority::new("by hand"));
    authority.issue_into(scratch.path(), "hand", &["hand.example"], Key::P256);
    let directory = scratch.path().display().to_string();
    let more = ["--certificates", &directory, "--route", "https://hand.example=tcp://127.0.0.1:1"];
    let node = Ringgate::start(&more);
    let data = node.dir().join("data").display().to_string();
    let second = Ringgate::start(&[&more[..], &["--data-dir", &data]].concat());
    second.wait_for_log("another ringgate answers");
    drop(second);
    let answers = || {
        let said = certs(&node, &["--json"]);
        said.stderr.is_empty() && row(&rows(&said), "hand.example")["served"] == "by hand"
    };
    assert!(answers());
    std::fs::remove_file(node.dir().join("data/admin.sock")).unwrap();
    assert!(!answers());
    node.signal("HUP");
    wait_for("another socket", || answers().then_some(()));
}

#[test]
fn with_nobody_running_the_store_is_read_and_that_is_said() {
    let pebble = Pebble::start(PebbleOptions::default());
    let mut node = start(&pebble, &["a.example"], &[]);
    let first = wait_for_certificate(&node, &pebble, "a.example");
    node.signal("TERM");
    node.wait_for_end();
    let all = arguments(&pebble, &["a.example"], &["--json"]);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let output = certs(&node, &all);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no ringgate is running"),
        "{output:?}"
    );
    assert_eq!(row(&rows(&output), "a.example")["serial"], first.as_str());
    let output = certs(&node, &["renew", "a.example"]);
    assert!(!output.status.success());
}

#[test]
fn the_hook_is_told_facts_and_no_secrets() {
    let pebble = Pebble::start(PebbleOptions::default());
    let scratch = Scratch::new();
    let told = scratch.path().join("told");
    let hook = format!("env > {0}.$$ && mv {0}.$$ {0}-$RINGGATE_EVENT", told.display());
    let yaml = format!("autocert_hook: [sh, -c, '{hook}']\n");
    let config = scratch.write("hook.yaml", yaml).display().to_string();
    let node = start_again(arguments(&pebble, &["a.example"], &["--config", &config]), None);
    wait_for_certificate(&node, &pebble, "a.example");
    let text = wait_for("the hook", || {
        std::fs::read_to_string(format!("{}-cert_obtained", told.display())).ok()
    });
    assert!(text.contains("RINGGATE_EVENT_NAME=a.example\n"), "{text}");
    assert!(text.contains("RINGGATE_EVENT_RENEWED=false\n"), "{text}");
    assert!(text.contains("RINGGATE_EVENT_NOT_AFTER=20"), "{text}");
}
