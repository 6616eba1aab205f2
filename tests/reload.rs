//! SIGHUP under load: the new configuration is in force, and no connection noticed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::harness::{
    Authority, Key, Nginx, Ringgate, Scratch, SetAtEnd, Tls, root_store, unused_address,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n";

struct Setting {
    scratch: Scratch,
    config: std::path::PathBuf,
}

impl Setting {
    fn new() -> Self {
        let scratch = Scratch::new();
        let config = scratch.path().join("ringgate.yaml");
        Self { scratch, config }
    }

    fn configure(&self, ca: &Authority, upstream: &Nginx) {
        let certs = self.scratch.path().join("certs");
        ca.issue_into(&certs, "app", &["app.example"], Key::P256);
        let yaml = format!(
            "certificates: [{}]\nroutes:\n- from: https://app.example\n  to: tcp://{}\n",
            certs.display(),
            upstream.address
        );
        std::fs::write(&self.config, yaml).unwrap();
    }

    fn start(&self) -> Ringgate {
        Ringgate::start(&["--config", self.config.to_str().unwrap()])
    }
}

#[test]
fn a_changed_certificate_and_a_changed_route_are_in_force_and_nothing_is_dropped() {
    let (old_ca, new_ca) = (Authority::new("old"), Authority::new("new"));
    let (one, two) = (Nginx::start("one"), Nginx::start("two"));
    let setting = Setting::new();
    setting.configure(&old_ca, &one);
    let ringgate = setting.start();
    let roots = root_store([old_ca.pem(), new_ca.pem()].concat());

    // One connection that lives through it all, and three clients that make new ones all the time.
    let mut long = Tls::connect(roots.clone(), ringgate.address, "app.example");
    long.send(REQUEST);
    long.read_until(b"the page of one\n");
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = SetAtEnd(&stop);
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Tls::connect(roots.clone(), ringgate.address, "app.example");
                    client.send(REQUEST);
                    client.read_until_any(&[b"the page of one\n", b"the page of two\n"]);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for turn in 0..6 {
            let (ca, upstream) = if turn % 2 == 0 { (&new_ca, &two) } else { (&old_ca, &one) };
            setting.configure(ca, upstream);
            ringgate.signal("HUP");
            crate::harness::wait_for("a reload", || {
                (ringgate.count_in_log("configuration reloaded") == turn + 1).then_some(())
            });
            // From here on only the new certificate and the new route.
            for _ in 0..3 {
                let mut client =
                    Tls::connect(root_store(ca.pem()), ringgate.address, "app.example");
                client.send(REQUEST);
                let page = if turn % 2 == 0 { "the page of two\n" } else { "the page of one\n" };
                client.read_until(page.as_bytes());
            }
        }
    });
    assert!(served.load(Ordering::Relaxed) > 20);
    long.send(REQUEST);
    long.read_until(b"the page of one\n");
}

#[test]
fn an_invalid_configuration_changes_nothing_and_says_why() {
    let ca = Authority::new("kept");
    let nginx = Nginx::start("kept");
    let setting = Setting::new();
    setting.configure(&ca, &nginx);
    let ringgate = setting.start();
    let serves = || {
        let mut client = Tls::connect(root_store(ca.pem()), ringgate.address, "app.example");
        client.send(REQUEST);
        client.read_until(b"the page of kept\n");
    };
    serves();
    for (yaml, expected) in [
        ("routes: [x]\n", "routes[0]"),
        ("nonsense: 1\n", "nonsense: is no key"),
        ("certificates: [/nowhere]\n", "/nowhere"),
        ("a: [\n", "no YAML"),
        ("# half of a copy\n", "says nothing any more"),
    ] {
        std::fs::write(&setting.config, yaml).unwrap();
        ringgate.signal("HUP");
        ringgate.wait_for_log(expected);
        serves();
    }
    ringgate.wait_for_log("nothing was changed");
    std::fs::remove_file(&setting.config).unwrap();
    ringgate.signal("HUP");
    ringgate.wait_for_log("there is no such file");
    serves();
    setting.configure(&ca, &nginx);
    ringgate.signal("HUP");
    ringgate.wait_for_log("configuration reloaded");
    serves();
}

#[test]
fn a_key_that_needs_a_restart_is_named_and_the_rest_is_reloaded() {
    let ca = Authority::new("restart");
    let (one, two) = (Nginx::start("one"), Nginx::start("two"));
    let setting = Setting::new();
    setting.configure(&ca, &one);
    let ringgate = setting.start();
    setting.configure(&ca, &two);
    let yaml = std::fs::read_to_string(&setting.config).unwrap() + "cores: 0\n";
    std::fs::write(&setting.config, yaml).unwrap();
    ringgate.signal("HUP");
    ringgate.wait_for_log("configuration reloaded");
    assert!(
        ringgate.log().contains("cores has changed, which needs a restart"),
        "{}",
        ringgate.log()
    );
    let mut client = Tls::connect(root_store(ca.pem()), ringgate.address, "app.example");
    client.send(REQUEST);
    client.read_until(b"the page of two\n");
}

/// Routes of a port that only a restart opens are for nobody else meanwhile.
#[test]
fn a_route_of_a_listener_that_is_not_open_yet_is_not_served_on_another() {
    let (public, admin) = (Nginx::start("public"), Nginx::start("admin"));
    let setting = Setting::new();
    let (open, later) = (unused_address(), unused_address());
    let configure = |addresses: &str, more: &str| {
        let yaml = format!(
            "address: [{addresses}]\nroutes:\n- from: https://app.localhost\n  to: tcp://{}\n{more}",
            public.address
        );
        std::fs::write(&setting.config, yaml).unwrap();
    };
    configure(&format!("'{open}'"), "");
    let mut ringgate = Ringgate::start_by(|binary| {
        let mut command = std::process::Command::new(binary);
        command.arg("run").arg("--config").arg(&setting.config);
        command
    });
    ringgate.address = open;
    let route =
        format!("- from: https://app.localhost:{}\n  to: tcp://{}\n", later.port(), admin.address);
    configure(&format!("'{open}', '{later}'"), &route);
    ringgate.signal("HUP");
    ringgate.wait_for_log("is not served yet");
    ringgate.wait_for_log("configuration reloaded");
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let mut client = Tls::connect(roots, ringgate.address, "app.localhost");
    client.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n");
    client.read_until(b"the page of public\n");
}

/// What a reload puts into force holds for the stop that comes after it.
#[test]
fn a_reload_changes_how_long_a_stop_may_take() {
    let setting = Setting::new();
    let upstream = std::net::TcpListener::bind((crate::harness::loopback(), 0)).unwrap();
    let configure = |timeout: &str| {
        let to = upstream.local_addr().unwrap();
        let yaml = format!(
            "shutdown_timeout: {timeout}\nroutes:\n- from: https://app.localhost\n  to: tcp://{to}\n"
        );
        std::fs::write(&setting.config, yaml).unwrap();
    };
    configure("1h");
    let mut ringgate = setting.start();
    let roots = root_store(std::fs::read(ringgate.root()).unwrap());
    let _open = Tls::connect(roots, ringgate.address, "app.localhost");
    configure("200ms");
    ringgate.signal("HUP");
    ringgate.wait_for_log("configuration reloaded");
    ringgate.signal("TERM");
    assert!(ringgate.wait_for_end().success());
}
