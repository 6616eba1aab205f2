//! Killed at any point of an order, the node goes on where it was: no damaged file, no second account, and
//! what the CA has issued is fetched and not ordered again.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::autocert::{arguments, arguments_for, leaf};
use crate::harness::{
    AcmeFaults, Next, Pebble, PebbleOptions, Scratch, binary, wait_for, wait_until_free,
};

const NAME: &str = "a.example";

/// Nothing waits for it to be ready: it may be killed before.
fn spawn(
    pebble: &Pebble,
    arguments: &[String],
    directory: &Path,
    change: impl FnOnce(&mut Command),
) -> Child {
    wait_until_free((pebble.node, pebble.tls_port).into());
    let mut command = binary();
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .expect("a log file");
    command.arg("run").args(arguments).arg("--data-dir").arg(directory.join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    change(&mut command);
    command.spawn().expect("the binary starts")
}

/// Waits until the name is served, or the process has been killed; `true` if it was.
fn killed_or_served(child: &mut Child, pebble: &Pebble, root: &str) -> bool {
    let address = (pebble.node, pebble.tls_port).into();
    wait_for("an end or a certificate", || {
        if let Some(status) = child.try_wait().expect("its status") {
            assert_eq!(status.signal(), Some(9), "{status}");
            return Some(true);
        }
        leaf(address, NAME, root).is_ok().then_some(false)
    })
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The three files are those of one certificate, and the record has it too.
fn check_store(directory: &Path, what: &str) {
    let folder = directory.join("data/autocert/certificates");
    wait_for(&format!("{what}: three files"), || {
        let issuer = std::fs::read_dir(&folder).ok()?.next()?.ok()?;
        let file = |ending: &str| issuer.path().join(NAME).join(format!("{NAME}.{ending}"));
        let read = |ending: &str| std::fs::read_to_string(file(ending)).ok();
        let (chain, key, json) = (read("crt")?, read("key")?, read("json")?);
        let key = rcgen::KeyPair::from_pem(&key).ok()?;
        let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).ok()?;
        let leaf = pem.parse_x509().ok()?;
        let same = leaf.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&key);
        serde_json::from_str::<serde_json::Value>(&json).ok()?;
        same.then_some(())
    });
}

/// Tries points 1, 2, 3 and so on until one is not reached any more, several at a time, each with a Pebble
/// of its own: most of it is waiting for the dead one's lock. Returns how many were reached.
fn each_point(try_point: impl Fn(&Pebble, usize) -> bool + Sync) -> usize {
    const AT_ONCE: usize = 6;
    let (next, reached) = (AtomicUsize::new(1), AtomicUsize::new(0));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let pebble = Pebble::start(PebbleOptions::default());
                while !over.load(Ordering::SeqCst) {
                    let point = next.fetch_add(1, Ordering::SeqCst);
                    assert!(point < 200, "the order never ends");
                    match try_point(&pebble, point) {
                        true => reached.fetch_max(point, Ordering::SeqCst),
                        false => over.swap(true, Ordering::SeqCst) as usize,
                    };
                }
            });
        }
    });
    reached.into_inner()
}

/// A second start, after the first was killed, ends with one account, one certificate and whole files.
fn goes_on(
    pebble: &Pebble,
    arguments: &[String],
    directory: &Path,
    before: (usize, usize),
    point: usize,
) {
    let root = pebble.root();
    let mut child = spawn(pebble, arguments, directory, |_| {});
    assert!(!killed_or_served(&mut child, pebble, &root), "point {point}");
    check_store(directory, &format!("point {point}"));
    end(child);
    let after = (accounts(pebble), pebble.issued());
    assert_eq!(after, (before.0 + 1, before.1 + 1), "point {point}: accounts, certificates");
}

fn accounts(pebble: &Pebble) -> usize {
    pebble.log().matches("accounts in memory").count()
}

#[test]
fn killed_before_every_change_of_the_disk() {
    let points = each_point(|pebble, point| {
        let (scratch, all) = (Scratch::new(), arguments(pebble, &[NAME], &[]));
        let before = (accounts(pebble), pebble.issued());
        let root = pebble.root();
        let mut child = spawn(pebble, &all, scratch.path(), |command| {
            command.env("CRASH_BEFORE_FILE_OPERATION", point.to_string());
        });
        let mut killed = killed_or_served(&mut child, pebble, &root);
        if !killed {
            // The lock is released after the publication, and renewal information asked for.
            let deadline = Instant::now() + Duration::from_secs(1);
            while Instant::now() < deadline && !killed {
                killed = child.try_wait().expect("its status").is_some();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        end(child);
        if killed {
            goes_on(pebble, &all, scratch.path(), before, point);
        }
        killed
    });
    assert!(points > 20, "only {points} points were reached");
}

#[test]
fn killed_before_and_after_every_request() {
    let points = each_point(|pebble, point| {
        let faults = AcmeFaults::start(pebble);
        let root = pebble.root();
        let (victim, countdown) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicUsize::new(point)));
        {
            let (victim, countdown) = (victim.clone(), countdown.clone());
            // Called twice for each request: before it is forwarded, and after.
            faults.hook(move |_| {
                let left = countdown
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                if left != Ok(1) {
                    return Next::Continue;
                }
                let pid = wait_for("the victim", || match victim.load(Ordering::SeqCst) {
                    0 => None,
                    pid => Some(pid.to_string()),
                });
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
                Next::Cut
            });
        }
        let all = arguments_for(pebble, &faults.directory_url(), &[NAME], &[]);
        let scratch = Scratch::new();
        let before = (accounts(pebble), pebble.issued());
        let mut child = spawn(pebble, &all, scratch.path(), |_| {});
        victim.store(child.id(), Ordering::SeqCst);
        let killed = killed_or_served(&mut child, pebble, &root);
        countdown.store(0, Ordering::SeqCst);
        end(child);
        if killed {
            goes_on(pebble, &all, scratch.path(), before, point);
        }
        killed
    });
    assert!(points > 16, "only {points} points were reached");
}
