//! A store that takes nothing: no order is begun that could not be kept, until there is no time left.

use std::process::Command;
use std::time::{Duration, Instant};

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::harness::autocert::{arguments, leaf, serial, start, store, wait_for_certificate};
use crate::harness::{Pebble, PebbleOptions, Ringgate, Scratch, binary, wait_for};

/// From when on a certificate is valid, in seconds since 1970.
fn begun(leaf: &[u8]) -> i64 {
    let (_, leaf) = X509Certificate::from_der(leaf).expect("a certificate");
    leaf.validity().not_before.timestamp()
}

/// Starts a node with a file system of its own, of this size, on `directory`.
fn start_with_disk(arguments: &[String], directory: &str, kib: u32) -> Ringgate {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Ringgate::start_with(&arguments, |command| {
        let mut inside = Command::new("unshare");
        let script = format!("mount -t tmpfs -o size={kib}k tmpfs \"$0\" && exec \"$@\"");
        inside.args(["--mount", "--map-root-user", "sh", "-c", &script, directory]);
        inside.arg(command.get_program()).args(command.get_args());
        *command = inside;
    })
}

#[test]
fn a_full_disk_delays_the_renewal_by_a_quarter_of_what_is_left_and_then_memory_serves() {
    let pebble = Pebble::start(PebbleOptions { validity_seconds: 50, ..Default::default() });
    let scratch = Scratch::new();
    let directory = scratch.path().display().to_string();
    let more = ["--autocert-dir", directory.as_str()];
    let node = start_with_disk(&arguments(&pebble, &["a.example"], &more), &directory, 400);
    let first = wait_for_certificate(&node, &pebble, "a.example");
    let root = pebble.root();
    // Its view of the directory; ours is the empty one below.
    let disk = format!("/proc/{}/root{directory}", node.pid());
    let record = wait_for("the record", || {
        let issuers = std::fs::read_dir(format!("{disk}/ringgate/certificates")).ok()?;
        let issuer = issuers.flatten().next()?.path();
        let lock = format!("{disk}/locks/issue_cert_a.example.lock");
        (!std::path::Path::new(&lock).exists()).then(|| issuer.join("a.example.json"))
    });
    let filler = format!("{disk}/filler");
    let mut content = vec![0u8; 400 * 1024];
    while std::fs::write(&filler, &content).is_err() && content.len() > 1024 {
        content.truncate(content.len() - 1024);
    }
    let served = || leaf(node.address, "a.example", &root).expect("a handshake");
    let first_begun = begun(&served());
    let (second, second_begun) = wait_for("a certificate from memory", || {
        let leaf = served();
        Some((serial(&leaf), begun(&leaf))).filter(|(now, _)| *now != first)
    });
    // From half of the lifetime on it would renew, less a tenth, and a quarter of what is left then is waited.
    assert!(second_begun - first_begun >= 28, "{}", node.log());
    assert!(node.log().contains("No space left on device"), "{}", node.log());
    assert!(!std::fs::read_to_string(&record).unwrap().contains("\"failures\": 99"));
    std::fs::remove_file(&filler).unwrap();
    let deadline = Instant::now() + Duration::from_secs(90);
    let stored = format!("{disk}/certificates");
    loop {
        let chain = Command::new("sh")
            .args([
                "-c",
                &format!("openssl x509 -noout -serial -in {stored}/*/a.example/a.example.crt"),
            ])
            .output()
            .expect("openssl");
        let chain = String::from_utf8_lossy(&chain.stdout).to_lowercase();
        // It may have been renewed once more by now.
        if !chain.is_empty() && !chain.contains(first.trim_start_matches('0')) {
            break;
        }
        assert!(Instant::now() < deadline, "{chain} {second}\n{}", node.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_read_only_directory_begins_no_account_and_says_so() {
    let pebble = Pebble::start(PebbleOptions::default());
    let scratch = Scratch::new();
    let directory = scratch.path().display().to_string();
    let more = ["--autocert-dir", directory.as_str()];
    let arguments = arguments(&pebble, &["a.example"], &more);
    let all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let node = Ringgate::start_with(&all, |command| {
        let mut inside = Command::new("unshare");
        let script = "mount -t tmpfs -o ro tmpfs \"$0\" && exec \"$@\"";
        inside.args(["--mount", "--map-root-user", "sh", "-c", script, &directory]);
        inside.arg(command.get_program()).args(command.get_args());
        *command = inside;
    });
    node.wait_for_log("Read-only file system");
    node.wait_for_log("cert_failed");
    assert_eq!(pebble.log().matches("accounts in memory").count(), 0);
    assert_eq!(pebble.issued(), 0);
}

#[test]
fn a_store_that_was_emptied_is_filled_again_from_memory_and_nothing_is_ordered() {
    let pebble = Pebble::start(PebbleOptions::default());
    let node = start(&pebble, &["a.example"], &[]);
    let first = wait_for_certificate(&node, &pebble, "a.example");
    let directory = store(&node);
    let filled = || {
        let issuers = std::fs::read_dir(directory.join("certificates")).ok()?;
        let folder = issuers.flatten().next()?.path().join("a.example");
        let chain = std::fs::read(folder.join("a.example.crt")).ok()?;
        folder.join("a.example.json").is_file().then_some(chain)
    };
    let before = wait_for("the files", filled);
    wait_for("the lock to be free", || {
        (!directory.join("locks/issue_cert_a.example.lock").exists()).then_some(())
    });
    std::fs::remove_dir_all(&directory).unwrap();
    let data = node.dir().join("data");
    let said = binary().args(["certs", "renew", "a.example", "--data-dir"]).arg(data).output();
    assert!(said.expect("it starts").status.success());
    assert_eq!(wait_for("the files again", filled), before);
    assert_eq!(serial(&leaf(node.address, "a.example", &pebble.root()).unwrap()), first);
    assert_eq!(pebble.issued(), 1);
}
