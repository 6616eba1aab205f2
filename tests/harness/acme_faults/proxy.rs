//! What a test holds of the proxy: its script, what it has seen, and what the CA behind it is said to offer.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;

use super::connection::{Shared, State};
use super::{Fault, Next, Point, RenewalInfo, Request, Role, When};
use crate::harness::client::client_config;
use crate::harness::{Key, Pebble, loopback, root_store, wait_for};

/// A running proxy; its requests are printed if the test fails.
pub struct AcmeFaults {
    shared: Arc<Shared>,
    pub address: SocketAddr,
}

impl AcmeFaults {
    pub fn start(pebble: &Pebble) -> Self {
        let host = loopback();
        let listener = TcpListener::bind((host, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let (chain, private_key) = pebble.authority().issue(&[&host.to_string()], Key::P256);
        let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(|c| c.expect("PEM"));
        let private_key = PrivateKeyDer::from_pem_slice(private_key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.collect(), private_key)
            .expect("a certificate");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            pebble: pebble.address,
            client: client_config(root_store(pebble.authority().pem())),
            server: Arc::new(server),
            ended: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::Acquire) {
                    return;
                }
                let serving = accepting.clone();
                // A connection lasts as long as its client, which the test ends.
                std::thread::spawn(move || serving.serve(socket));
            }
        });
        Self { shared, address }
    }

    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Adds a line to the script.
    pub fn on(&self, role: Role, when: When, fault: Fault) {
        self.state().script.add(role, when, fault);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.state().script.clear();
    }

    /// Calls this before and after each request is forwarded (or answered here, for renewalInfo); it may
    /// block, which holds up that connection alone.
    pub fn hook(&self, hook: impl Fn(&Point) -> Next + Send + Sync + 'static) {
        self.state().hook = Some(Arc::new(hook));
    }

    /// How many requests have come for this.
    pub fn count(&self, role: Role) -> usize {
        self.state().counts.get(&role).copied().unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_for_count(&self, role: Role, count: usize) {
        let what = format!("request {count} for {role:?}");
        wait_for(&what, || (self.count(role) >= count).then_some(()));
    }

    /// What came for this, in order.
    pub fn requests(&self, role: Role) -> Vec<Request> {
        self.state().requests.iter().filter(|request| request.role == role).cloned().collect()
    }

    /// The directory has renewalInfo and this is the answer, for all certificates.
    pub fn set_renewal_info(&self, info: RenewalInfo) {
        self.state().extensions.renewal_info = Some(info);
    }

    /// The answer for one certificate, by the identifier of RFC 9773 §4.1.
    pub fn set_renewal_info_of(&self, certificate: &str, info: RenewalInfo) {
        self.state().extensions.renewal_info_of.insert(certificate.to_owned(), info);
    }

    /// The directory lists these profiles, and an order for another one is refused.
    pub fn set_profiles(&self, profiles: &[(&str, &str)]) {
        let profiles = profiles.iter().map(|(name, what)| (name.to_string(), Value::from(*what)));
        self.state().extensions.profiles = profiles.collect();
    }
}

impl Drop for AcmeFaults {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        if std::thread::panicking() {
            eprintln!("--- requests to the proxy before Pebble ---");
            for request in &self.state().requests {
                eprintln!("{:?} {} {}", request.role, request.message.start, request.payload);
            }
        }
    }
}
