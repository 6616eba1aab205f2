//! What runs while certificates are renewed: Pebble with the DNS it asks, the upstream, and ringgate.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use crate::connection::{Connection, Destination, Incoming};
use crate::failure::Failure;
use crate::plan::Group;
use crate::stage::{Scene, Stage};
use crate::started::{Started, free_port};

use super::Plan;
use super::served::Served;

/// What nobody downloads here.
const BULK_BYTES: u64 = 0;
/// Pebble pauses before each validation for 0 to one second less than this, as a CA that is busy; its own
/// default, 15, would be half of the shortest lifetime that is of use in a smoke.
const VALIDATION_PAUSE_SECONDS: u32 = 4;

/// All of it runs until this goes.
pub struct Site {
    ringgate: Started,
    _pebble: Started,
    _dns: Started,
    management: SocketAddr,
    pebble_certificate: CertificateDer<'static>,
    stage: Stage,
}

impl Site {
    /// Starts everything; certificates may not be there yet.
    pub fn set(plan: &Plan, names: &[&str]) -> Result<Self, String> {
        let stage = Stage::set(&plan.peers, BULK_BYTES)?;
        let (dir, host) = (stage.scene.dir(), stage.host);
        let address = || Ok::<_, String>(SocketAddr::from((host, free_port(host)?)));
        let (directory, management, node) = (address()?, address()?, address()?);
        let dns = start_dns(address()?, address()?, host, dir)?;
        let pebble_certificate = write_certificate(host, dir)?;
        let config = dir.join("pebble.json");
        let settings = json!({ "pebble": {
            "listenAddress": directory.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": dir.join("pebble.crt"),
            "privateKey": dir.join("pebble.key"),
            // Nobody listens there: every challenge is answered by the listener that is under load.
            "httpPort": free_port(host)?,
            "tlsPort": node.port(),
            "certificateValidityPeriod": plan.validity.as_secs(),
        }});
        fs::write(&config, settings.to_string()).map_err(|error| error.to_string())?;
        // Otherwise as it comes: it refuses a good nonce in twenty. Validated every time, so that each renewal
        // has its challenge answered by the listener that is under load.
        let command = format!(
            "env PEBBLE_VA_SLEEPTIME={VALIDATION_PAUSE_SECONDS} PEBBLE_AUTHZREUSE=0 pebble -config {} -dnsserver {}",
            config.display(),
            dns.address
        );
        let pebble = Started::start("pebble", &command, None, directory, dir)?;
        let mut command = format!(
            "{}/ringgate run --address {node} --data-dir {dir}/data --log-format json --autocert \
             --autocert-ca https://{directory}/dir --autocert-trusted-ca-file {dir}/pebble.crt",
            plan.bin.display(),
            dir = dir.display()
        );
        for name in names {
            command.push_str(&format!(" --route https://{name}=tcp://{}", stage.upstream()));
        }
        let ringgate = Started::start("ringgate", &command, None, node, dir)?;
        Ok(Self { ringgate, _pebble: pebble, _dns: dns, management, pebble_certificate, stage })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.ringgate.address
    }

    pub fn ringgate_pid(&self) -> u32 {
        self.ringgate.pid()
    }

    pub fn scene(&self) -> &Scene {
        &self.stage.scene
    }

    /// The root of what Pebble issues, which it makes anew at each start.
    pub async fn root(&self) -> Result<CertificateDer<'static>, String> {
        let config = Served::new(self.pebble_certificate.clone())?.client();
        let host = self.management.ip();
        let to = Destination { address: self.management, name: host.into(), group: Group::X25519 };
        let asked = async {
            let mut connection = Connection::open(&to, config).await?;
            // HTTP/1.0, so that the end of the body is the end of the connection.
            let request = format!("GET /roots/0 HTTP/1.0\r\nHost: {host}\r\n\r\n");
            connection.send(request.as_bytes()).await?;
            let mut answer = Vec::new();
            let mut take = |plain: &[u8]| {
                answer.extend_from_slice(plain);
                Ok(plain.len())
            };
            while connection.receive(&mut take).await? == Incoming::Some {}
            Ok(answer)
        };
        let answer = asked.await.map_err(|failure: Failure| failure.to_string())?;
        CertificateDer::from_pem_slice(&answer).map_err(|error| format!("Pebble's root: {error}"))
    }

    /// How many lines of a program's log say `text`.
    pub fn count_in_log(&self, program: &str, text: &str) -> usize {
        let log = fs::read(self.scene().dir().join(format!("{program}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&log).lines().filter(|line| line.contains(text)).count()
    }
}

/// Every name leads to `node`, over IPv4 alone: Pebble prefers IPv6 and does not fall back.
fn start_dns(
    dns: SocketAddr,
    management: SocketAddr,
    node: Ipv4Addr,
    dir: &Path,
) -> Result<Started, String> {
    // `=` with nothing after it, for an empty argument does not survive the splitting of a command.
    let command = format!(
        "pebble-challtestsrv -dns01 {dns} -management {management} -defaultIPv4 {node} \
         -defaultIPv6= -http01= -https01= -tlsalpn01="
    );
    Started::start("challtestsrv", &command, None, dns, dir)
}

/// What Pebble shows to its own clients: self-signed, and so its own root.
fn write_certificate(host: Ipv4Addr, dir: &Path) -> Result<CertificateDer<'static>, String> {
    let make = || {
        let key = KeyPair::generate()?;
        Ok((CertificateParams::new(vec![host.to_string()])?.self_signed(&key)?, key))
    };
    let (certificate, key) = make().map_err(|error: rcgen::Error| error.to_string())?;
    fs::write(dir.join("pebble.crt"), certificate.pem())
        .and_then(|()| fs::write(dir.join("pebble.key"), key.serialize_pem()))
        .map_err(|error| error.to_string())?;
    Ok(certificate.der().clone())
}
