//! Caddy and ringgate go on from each other's directories.

use crate::harness::autocert::{
    arguments, serial, start, start_again, store, wait_for_certificate,
};
use std::net::SocketAddr;

use crate::harness::{
    Caddy, CaddyOptions, Pebble, PebbleOptions, Ringgate, Scratch, loopback, root_store, served,
    wait_for,
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

/// Both are to get the same names, on one directory, at the same moment. The second starts when the first has
/// a lock, and validations take their time, so that it finds all of it under way.
struct Together {
    pebble: Pebble,
    scratch: Scratch,
    options: CaddyOptions,
    ours: SocketAddr,
}

impl Together {
    fn new() -> Self {
        let pebble = Pebble::start(PebbleOptions { sleep_seconds: 2, ..PebbleOptions::default() });
        let scratch = Scratch::new();
        let ours = SocketAddr::from((loopback(), pebble.tls_port));
        let mut options = CaddyOptions::new(pebble.directory_url(), scratch.path(), &NAMES);
        // With an address: without one Caddy's second name fails while its first still registers.
        options.email = "ops@example.com".into();
        Self { pebble, scratch, options, ours }
    }

    /// Starts ours for these names.
    fn start(&self, names: &[&str], more: &[&str]) -> Ringgate {
        let directory = self.scratch.path().display().to_string();
        let plain = format!("{}:{}", self.ours.ip(), self.pebble.http_port);
        let shared = ["--autocert-dir", directory.as_str(), "--http-redirect-addr", &plain];
        let email = ["--autocert-email", &self.options.email];
        let mut all = arguments(&self.pebble, names, &[&shared[..], &email, more].concat());
        all[1] = self.ours.to_string();
        start_again(all, None)
    }

    /// Waits until orders are under way for so many names.
    fn wait_for_locks(&self, count: usize) {
        let locks = self.scratch.path().join("locks");
        let is_issue = |name: &str| name.starts_with("issue_cert_") && name.ends_with(".lock");
        wait_for("locks", || {
            let locks = std::fs::read_dir(&locks).ok()?.flatten();
            let held = locks.filter(|lock| is_issue(&lock.file_name().to_string_lossy()));
            (held.count() >= count).then_some(())
        });
    }

    fn check(&self, node: &Ringgate) {
        let roots = root_store(self.pebble.root());
        let theirs = (self.pebble.node, self.pebble.tls_port).into();
        for name in NAMES {
            let ours = wait_for_certificate(node, &self.pebble, name);
            assert_eq!(serial(&served(&roots, theirs, name)[0]), ours);
        }
        assert_eq!(self.pebble.issued(), NAMES.len());
        assert_eq!(self.pebble.log().matches("Added order").count(), NAMES.len());
        assert_eq!(self.pebble.log().matches("accounts in memory").count(), 1);
    }
}

#[test]
fn what_caddy_is_obtaining_is_not_ordered_again() {
    let together = Together::new();
    std::thread::scope(|scope| {
        // The names lead to Caddy.
        let caddy = scope.spawn(|| Caddy::start(&together.pebble, &together.options));
        together.wait_for_locks(1);
        let node = together.start(&NAMES, &[]);
        let _caddy = caddy.join().expect("Caddy serves");
        together.check(&node);
    });
}

#[test]
fn what_we_are_obtaining_is_not_ordered_again_by_caddy() {
    let together = Together::new();
    for name in NAMES {
        let std::net::IpAddr::V4(node) = together.ours.ip() else { panic!("IPv4") };
        together.pebble.dns.set_address(name, node);
    }
    let node = together.start(&NAMES, &[]);
    together.wait_for_locks(NAMES.len());
    let _caddy = Caddy::start(&together.pebble, &together.options);
    together.check(&node);
    assert_eq!(node.count_in_log("cert_obtained"), NAMES.len());
}

/// The names lead to a Caddy that does not order: it finds our challenges in the directory.
#[test]
fn caddy_answers_the_challenges_of_our_orders() {
    let mut together = Together::new();
    together.options.idle = true;
    let caddy = Caddy::start(&together.pebble, &together.options);
    for (challenge, name) in ["http-01", "tls-alpn-01"].into_iter().zip(NAMES) {
        let node = together.start(&[name], &["--autocert-challenges", challenge]);
        wait_for_certificate(&node, &together.pebble, name);
    }
    assert_eq!(together.pebble.issued(), 2);
    assert!(caddy.log().contains("\"distributed\":true"), "{}", caddy.log());
}
