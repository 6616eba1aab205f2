//! Certificates where other tools leave them, followed without a restart and without a reload.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustls::RootCertStore;

use crate::harness::{Authority, Key, Ringgate, Scratch, Tls, command, root_store, wait_for};

/// How soon a change must be in force.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);

/// A program that serves names from a place, and what its clients trust.
struct Setting {
    scratch: Scratch,
    ca: Authority,
    roots: RootCertStore,
}

impl Setting {
    fn new(name: &str) -> Self {
        let ca = Authority::new(name);
        let roots = root_store(ca.pem());
        Self { scratch: Scratch::new(), ca, roots }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn start(&self, certificates: &str) -> Ringgate {
        let path = |entry: &str| self.path(entry).display().to_string();
        let entries: Vec<_> = certificates.split(' ').map(path).collect();
        Ringgate::start(&["--certificates", &entries.join(","), "--route", ANYTHING])
    }

    /// Writes a new pair for this name as these files.
    fn issue(&self, name: &str, cert: &str, key: &str) {
        let (chain, private_key) = self.ca.issue(&[name], Key::P256);
        self.scratch.write(key, private_key);
        self.scratch.write(cert, chain);
    }

    /// The leaf that a client that asks for this name is shown; it belongs to a private key, for the
    /// handshake has checked that.
    fn shown(&self, ringgate: &Ringgate, name: &str) -> Vec<u8> {
        let client = Tls::connect(self.roots.clone(), ringgate.address, name);
        client.stream.conn.peer_certificates().expect("a chain")[0].to_vec()
    }

    /// Makes a few changes; each is in force soon, one of them as soon as it must be even on a machine that
    /// is busy with other tests.
    fn is_followed(&self, ringgate: &Ringgate, name: &str, mut change: impl FnMut(usize)) {
        let mut soonest = Duration::MAX;
        for number in 2..6 {
            let before = self.shown(ringgate, name);
            let begun = Instant::now();
            change(number);
            wait_for("the new certificate", || {
                (self.shown(ringgate, name) != before).then_some(())
            });
            soonest = soonest.min(begun.elapsed());
        }
        assert!(soonest < FOLLOWED_WITHIN, "{soonest:?}");
    }
}

fn local_root(ringgate: &Ringgate) -> String {
    std::fs::read_to_string(ringgate.root()).expect("the local CA's root")
}

/// Nothing answers behind it, and the handshake is all that these tests look at.
const ANYTHING: &str = "https://*=tcp://127.0.0.1:1";

/// Points `link` to `target` as certbot does: there is no link for a moment.
fn relink(target: &str, link: &Path) {
    let _ = std::fs::remove_file(link);
    symlink(target, link).expect("a link");
}

/// What `certbot renew` does for one name.
fn certbot(setting: &Setting, name: &str, number: usize) {
    let archive = |file: &str| format!("archive/{name}/{file}{number}.pem");
    setting.issue(name, &archive("fullchain"), &archive("privkey"));
    setting.scratch.write(&archive("cert"), "only for tools that ask for it");
    let live = setting.path(&format!("live/{name}"));
    std::fs::create_dir_all(&live).expect("a directory");
    for file in ["cert", "privkey", "fullchain"] {
        let target = format!("../../archive/{name}/{file}{number}.pem");
        relink(&target, &live.join(format!("{file}.pem")));
    }
}

#[test]
fn certbot_s_live_directory_is_followed_also_to_names_that_are_new() {
    let setting = Setting::new("certbot");
    certbot(&setting, "app.example", 1);
    certbot(&setting, "one.example", 1);
    setting.scratch.write("live/README", "do not move these files");
    let ringgate = setting.start("live");
    setting.is_followed(&ringgate, "app.example", |number| {
        certbot(&setting, "app.example", number);
    });
    certbot(&setting, "new.example", 1);
    ringgate.wait_for_log("for new.example until");
    setting.shown(&ringgate, "new.example");
    for complaint in ["is served on", "is not served"] {
        assert_eq!(ringgate.count_in_log(complaint), 0, "{}", ringgate.log());
    }

    // One of its directories can be named as it is.
    let one = setting.start("live/one.example");
    setting.is_followed(&one, "one.example", |number| certbot(&setting, "one.example", number));
}

/// What kubelet does when a mounted secret changes: a new directory, and one rename.
fn kubelet(setting: &Setting, mount: &str, name: &str, number: usize) {
    let data = format!("{mount}/..2026_11_25_{number}");
    setting.issue(name, &format!("{data}/tls.crt"), &format!("{data}/tls.key"));
    setting.scratch.write(&format!("{data}/ca.crt"), setting.ca.pem());
    let mount = setting.path(mount);
    relink(&format!("..2026_11_25_{number}"), &mount.join("..data_tmp"));
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("the swap");
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        if number == 1 {
            relink(&format!("..data/{file}"), &mount.join(file));
        }
    }
    let before = format!("..2026_11_25_{}", number - 1);
    let _ = std::fs::remove_dir_all(mount.join(before));
}

#[test]
fn a_mounted_secret_is_followed_through_its_swap() {
    let setting = Setting::new("kubernetes");
    let ways = [
        ("mount", "app.example", "mount"),
        ("secrets/shop", "shop.example", "secrets"),
        ("pair", "pair.example", "pair/tls.crt:pair/tls.key"),
    ];
    for (mount, name, _) in ways {
        kubelet(&setting, mount, name, 1);
    }
    let path = |entry: &str| setting.path(entry).display().to_string();
    let entries = ways.map(|(.., entry)| match entry.split_once(':') {
        Some((cert, key)) => format!("{}:{}", path(cert), path(key)),
        None => path(entry),
    });
    let ringgate = Ringgate::start(&["--certificates", &entries.join(","), "--route", ANYTHING]);
    for (mount, name, _) in ways {
        setting.is_followed(&ringgate, name, |number| kubelet(&setting, mount, name, number));
    }
    assert_eq!(ringgate.count_in_log("is gone"), 0, "{}", ringgate.log());
}

#[test]
fn a_half_written_file_leaves_the_one_before_and_is_said_once() {
    let setting = Setting::new("half");
    setting.issue("app.example", "certs/app.crt", "certs/app.key");
    setting.issue("other.example", "certs/other.crt", "certs/other.key");
    let ringgate = setting.start("certs");
    let before = setting.shown(&ringgate, "app.example");

    let (chain, key) = setting.ca.issue(&["app.example"], Key::P256);
    setting.scratch.write("certs/app.crt", &chain[..chain.len() / 2]);
    ringgate.wait_for_log("the one before is served on");
    assert_eq!(setting.shown(&ringgate, "app.example"), before);
    // Further looks took place when this is followed.
    setting.is_followed(&ringgate, "other.example", |_| {
        setting.issue("other.example", "certs/other.crt", "certs/other.key");
    });
    assert_eq!(ringgate.count_in_log("the one before is served on"), 1, "{}", ringgate.log());

    // The chain is whole, and its private key is not there yet: still the pair before.
    setting.scratch.write("certs/app.crt", &chain);
    setting.is_followed(&ringgate, "other.example", |_| {
        setting.issue("other.example", "certs/other.crt", "certs/other.key");
    });
    assert_eq!(setting.shown(&ringgate, "app.example"), before);
    setting.scratch.write("certs/app.key", key);
    wait_for("the new pair", || (setting.shown(&ringgate, "app.example") != before).then_some(()));
    assert_eq!(ringgate.count_in_log("the one before is served on"), 1, "{}", ringgate.log());
}

#[test]
fn a_removed_file_is_served_until_a_reload() {
    let setting = Setting::new("removed");
    setting.issue("app.example", "certs/app.crt", "certs/app.key");
    setting.issue("other.example", "certs/other.crt", "certs/other.key");
    let ringgate = setting.start("certs");
    std::fs::remove_file(setting.path("certs/app.crt")).expect("it is there");
    std::fs::remove_file(setting.path("certs/app.key")).expect("it is there");
    ringgate.wait_for_log("app.crt is gone");
    setting.shown(&ringgate, "app.example");
    ringgate.signal("HUP");
    ringgate.wait_for_log("configuration reloaded");
    let at = ringgate.address.to_string();
    let output =
        command("openssl", &["s_client", "-connect", &at, "-servername", "app.example"], "");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("unrecognized name"), "{text}");
    setting.shown(&ringgate, "other.example");
}

/// A private key that leaked is replaced by another one, whose certificate ends sooner.
#[test]
fn a_removed_file_is_served_no_more_once_another_covers_its_names() {
    let setting = Setting::new("replaced");
    let (old_chain, old_key) = setting.ca.issue(&["app.example"], Key::P256);
    setting.scratch.write("certs/old.crt", &old_chain);
    setting.scratch.write("certs/old.key", &old_key);
    let ringgate = setting.start("certs");
    let before = setting.shown(&ringgate, "app.example");
    let (chain, key) = setting.ca.issue_lasting(&["app.example"], Key::P256, 20);
    setting.scratch.write("certs/new.key", key);
    setting.scratch.write("certs/new.crt", chain);
    ringgate.wait_for_log("new.crt");
    assert_eq!(setting.shown(&ringgate, "app.example"), before, "the old one lasts longer");
    std::fs::remove_file(setting.path("certs/old.crt")).expect("it is there");
    std::fs::remove_file(setting.path("certs/old.key")).expect("it is there");
    wait_for("the new one", || (setting.shown(&ringgate, "app.example") != before).then_some(()));
    assert!(ringgate.log().contains("others serve its names"), "{}", ringgate.log());
    // The very same files come back.
    let now = setting.shown(&ringgate, "app.example");
    setting.scratch.write("certs/old.key", old_key);
    setting.scratch.write("certs/old.crt", old_chain);
    wait_for("the old one", || (setting.shown(&ringgate, "app.example") != now).then_some(()));
}

/// Clients that could verify both kinds of key are shown the elliptic one, but never one of the local CA's.
#[test]
fn a_certificate_with_rsa_takes_the_place_of_the_local_ca_s_leaf_at_once() {
    let setting = Setting::new("rsa");
    setting.issue("other.example", "certs/other.crt", "certs/other.key");
    let certs = setting.path("certs").display().to_string();
    let ringgate = Ringgate::start(&[
        "--certificates",
        &certs,
        "--route",
        "https://app.example=tcp://127.0.0.1:1",
    ]);
    let roots = root_store([setting.ca.pem(), &local_root(&ringgate)].concat());
    let shown = || {
        let client = Tls::connect(roots.clone(), ringgate.address, "app.example");
        client.stream.conn.peer_certificates().expect("a chain")[0].to_vec()
    };
    let before = shown();
    let (chain, key) = setting.ca.issue(&["app.example"], Key::Rsa);
    setting.scratch.write("certs/app.key", key);
    setting.scratch.write("certs/app.crt", chain);
    wait_for("the pair", || (shown() != before).then_some(()));
}

#[test]
fn combined_files_are_served_by_name_and_in_directories_and_rewritten_in_place() {
    let setting = Setting::new("combined");
    let write = |name: &str, file: &str| {
        let (chain, key) = setting.ca.issue(&[name], Key::P256);
        // hitch: the private key first.
        setting.scratch.write(file, key + &chain);
    };
    write("one.example", "one.pem");
    write("two.example", "all/two.pem");
    setting.issue("three.example", "all/three.pem", "all/three.pem.key");
    let ringgate = setting.start("one.pem all");
    setting.shown(&ringgate, "three.example");
    setting.is_followed(&ringgate, "one.example", |_| write("one.example", "one.pem"));
    setting.is_followed(&ringgate, "two.example", |_| write("two.example", "all/two.pem"));
}

/// A response for the leaf in `app.crt`, as `openssl ocsp` makes it from a CA's index. Whose CA that is cannot be
/// checked, for its certificate is not in the chain.
fn write_staple(setting: &Setting, to: &str, days: usize) {
    let path = |name: &str| setting.path(name).display().to_string();
    let openssl = |line: &str| {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = command("openssl", &arguments, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let (ca, ca_key, index) = (path("ocsp/ca.crt"), path("ocsp/ca.key"), path("ocsp/index"));
    let shown = openssl(&format!("x509 -in {} -noout -serial", path("app.crt")));
    let serial = shown.trim_start_matches("serial=");
    if !Path::new(&index).exists() {
        let entry = format!("V\t401231000000Z\t\t{serial}\tunknown\t/CN=x\n");
        setting.scratch.write("ocsp/index", entry);
        openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -subj /CN=ocsp -keyout {ca_key} -out {ca}"
        ));
    }
    let fresh = path("ocsp/fresh");
    openssl(&format!(
        "ocsp -index {index} -CA {ca} -rsigner {ca} -rkey {ca_key} -issuer {ca} -serial 0x{serial} -ndays {days} -respout {fresh}"
    ));
    std::fs::rename(&fresh, setting.path(to)).expect("the staple");
}

#[test]
fn a_staple_beside_a_pair_is_stapled_and_followed() {
    let setting = Setting::new("staple");
    setting.issue("app.example", "app.crt", "app.key");
    write_staple(&setting, "app.ocsp", 1);
    let file = |name: &str| setting.path(name).display().to_string();
    let yaml = format!(
        "certificates:\n- cert: {}\n  key: {}\n  ocsp: {}\nroutes:\n- from: https://app.example\n  to: tcp://127.0.0.1:1\n",
        file("app.crt"),
        file("app.key"),
        file("app.ocsp"),
    );
    let config = setting.scratch.write("ringgate.yaml", yaml).display().to_string();
    let ringgate = Ringgate::start(&["--config", &config]);
    let at = ringgate.address.to_string();
    let stapled = || {
        let arguments = ["s_client", "-connect", &at, "-servername", "app.example", "-status"];
        let output = command("openssl", &arguments, "");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("OCSP Response Status: successful").then(|| {
            let next = text.lines().find(|line| line.contains("Next Update"));
            next.unwrap_or_default().to_owned()
        })
    };
    let first = stapled().expect("a staple");
    write_staple(&setting, "app.ocsp", 9);
    wait_for("the new staple", || stapled().filter(|next| *next != first));
    setting.scratch.write("app.ocsp", "no staple");
    ringgate.wait_for_log("is no OCSP response");
    assert!(stapled().is_some_and(|next| next != first), "the one before is stapled on");
}

#[test]
fn check_finds_what_run_finds() {
    let setting = Setting::new("check");
    certbot(&setting, "a.example", 1);
    certbot(&setting, "b.example", 1);
    let live = setting.path("live").display().to_string();
    let check = || Ringgate::output(&["check", "--certificates", &live, "--route", ANYTHING]);
    let output = check();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("2 certificates by hand"), "{text}");
    setting.scratch.write("archive/b.example/privkey1.pem", "half");
    let output = check();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("b.example/privkey.pem holds no private key")
            && text.contains("1 certificates by hand"),
        "{text}"
    );
}
