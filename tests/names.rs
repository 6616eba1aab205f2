//! Names of upstreams, asked of a real DNS server: followed when they change, kept when it is gone.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};

use crate::harness::{
    Nginx, Ringgate, Scratch, answers_queries, curl, free_port, loopback, wait_for,
};

const FROM: &str = "https://app.localhost";

/// A dnsmasq that knows app.internal, with a TTL of a second.
struct Dns {
    child: Child,
    scratch: Scratch,
    address: Ipv4Addr,
}

impl Dns {
    fn start(addresses: &[Ipv4Addr]) -> Self {
        let (scratch, address) = (Scratch::new(), loopback());
        let mut dns = Self { child: Self::spawn(&scratch, address), scratch, address };
        dns.set(addresses);
        dns.restart();
        dns
    }

    fn spawn(scratch: &Scratch, address: Ipv4Addr) -> Child {
        let hosts = scratch.path().join("hosts");
        if !hosts.exists() {
            scratch.write("hosts", "");
        }
        let mut child = Command::new("dnsmasq")
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces"])
            .args(["--user=root", "--pid-file=", "--local-ttl=1", "--local=/internal/"])
            .arg(format!("--listen-address={address}"))
            .arg(format!("--addn-hosts={}", hosts.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq is installed (scripts/test installs it)");
        // Asked, for to try its port would be to take it from it.
        wait_for("dnsmasq to answer", || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("dnsmasq ended with {status}");
            }
            answers_queries((address, 53).into()).then_some(())
        });
        child
    }

    /// What it answers after it has been started again.
    fn set(&self, addresses: &[Ipv4Addr]) {
        let lines = addresses.iter().map(|address| format!("{address} app.internal\n"));
        self.scratch.write("hosts", lines.collect::<String>());
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn restart(&mut self) {
        self.stop();
        self.child = Self::spawn(&self.scratch, self.address);
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ringgate in a mount namespace of its own, where resolv.conf names this server.
fn start(dns: &Dns, port: u16) -> Ringgate {
    let conf = dns.scratch.write("resolv.conf", format!("nameserver {}\n", dns.address));
    Ringgate::start_by(|ringgate| {
        let mut command = Command::new("unshare");
        if rustix::process::geteuid().is_root() {
            command.arg("--mount");
        } else {
            command.args(["--mount", "--map-root-user"]);
        }
        command
            .args(["sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""])
            .arg(conf)
            .args([ringgate, "run", "--address", &format!("{}:0", loopback())])
            .args(["--route", &format!("{FROM}=tcp://app.internal:{port}")]);
        command
    })
}

fn page(ringgate: &Ringgate) -> String {
    let output = curl(&ringgate.root(), ringgate.address, "app.localhost", "/", &[]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_changed_address_is_followed_and_a_dns_server_that_is_gone_takes_nothing_away() {
    let (first, second) = (loopback(), loopback());
    let port = free_port(first);
    let one = Nginx::start_at("one", SocketAddr::from((first, port)));
    let two = Nginx::start_at("two", SocketAddr::from((second, port)));
    let mut dns = Dns::start(&[first]);
    let ringgate = start(&dns, port);
    assert_eq!(page(&ringgate), "the page of one\n");

    // Gone: what is known stays in force, and that is said once.
    dns.stop();
    ringgate.wait_for_log("the name of an upstream does not resolve");
    assert_eq!(page(&ringgate), "the page of one\n");

    // Back with another address, which is used within the shortest time between two questions.
    dns.set(&[second]);
    dns.restart();
    wait_for("the new address", || (page(&ringgate) == "the page of two\n").then_some(()));
    assert_eq!(ringgate.count_in_log("does not resolve"), 1);
    ringgate.wait_for_log("resolves again");

    // With both, both are used.
    dns.set(&[first, second]);
    dns.restart();
    for expected in ["the page of one\n", "the page of two\n"] {
        wait_for(expected, || (page(&ringgate) == expected).then_some(()));
    }
    drop((one, two));
}

/// A signal must not wait for a DNS server that does not answer.
#[test]
fn a_dns_server_that_never_answers_holds_nothing_up() {
    let (address, upstream) = (loopback(), loopback());
    let silent = UdpSocket::bind((address, 53)).unwrap();
    let mut dns = Dns::start(&[upstream]);
    dns.stop();
    dns.address = address;
    let begun = std::time::Instant::now();
    let mut ringgate = start(&dns, 1);
    assert!(begun.elapsed().as_secs() < 20, "the start waits a little and goes on");
    ringgate.signal("TERM");
    let ending = std::time::Instant::now();
    assert!(ringgate.wait_for_end().success());
    assert!(ending.elapsed().as_secs() < 20, "{:?}", ending.elapsed());
    drop(silent);
}
