//! Starts and stops what the tests talk to, and waits for conditions with a deadline.

mod acme_faults;
pub mod autocert;
mod caddy;
mod certificate;
mod challtestsrv;
mod client;
mod connect_proxy;
mod haproxy;
pub mod http;
mod nginx;
pub mod ocsp;
pub mod pebble;
mod ringgate;

pub use acme_faults::{AcmeFaults, Fault, Next, Phase, RenewalInfo, RetryAfter, Role, When};
pub use caddy::{Caddy, CaddyOptions};
pub use certificate::{Authority, Key};
pub use challtestsrv::answers_queries;
pub use client::{
    Tls, client_config, client_config_with, command, curl, root_store, served, wait_for_line,
};
pub use connect_proxy::ConnectProxy;
pub use haproxy::Haproxy;
pub use nginx::{Nginx, NginxOptions, unused_address};
pub use pebble::{Pebble, PebbleOptions};
pub use ringgate::{Ringgate, binary};

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take on a loaded machine: the control plane is the last to get a core.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Set when this is dropped, also by a panic: a scope waits for its threads, and they for this.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until nobody listens there any more: the kernel takes a ring down some time after its process is gone.
pub fn wait_until_free(address: SocketAddr) {
    wait_for("the port to be free", || TcpListener::bind(address).ok());
}

/// Waits until `condition` gives something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A directory of its own, removed at the end.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("ringgate-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch directory");
        // nginx's workers, which are not root, read files here.
        Self { path: path.canonicalize().expect("the directory just made") }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(&path, content).expect("write a test file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A loopback address that no other test of this or another run on the machine uses.
pub fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let run = std::process::id();
    let number = run.wrapping_mul(251).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    // 0 and 255 as the last byte are left out: some programs take them for a network.
    let (high, low) = (number / 254 % 256, number % 254 + 1);
    Ipv4Addr::new(127, 1 + (run % 200) as u8, high as u8, low as u8)
}

/// A port that is free now on `address`.
pub fn free_port(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind(SocketAddr::from((address, 0))).expect("a free port");
    listener.local_addr().expect("its address").port()
}
