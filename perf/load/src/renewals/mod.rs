//! Certificates of minutes, renewed under load: does any client notice?
//!
//! [`site`] — what runs: Pebble, the upstream, ringgate. [`served`] — every certificate that clients are
//! shown, verified each time. [`clients`] — those who connect anew, and those who stay. [`report`] — what it
//! came to, and whether that is good enough.

pub mod clients;
pub mod report;
pub mod served;
pub mod site;

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::watch::Watch;

use clients::{Kept, Shared};
use report::Report;
use served::Served;
use site::Site;

/// Served, and so renewed, beside each other: as many as the routes of a small edge node.
const NAMES: [&str; 5] = ["a.example", "b.example", "c.example", "d.example", "e.example"];

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub window: Duration,
    /// Full handshakes per second, over all names in turn.
    pub rate: f64,
    /// Lifetime of a certificate.
    pub validity: Duration,
    /// Descriptions of peers, of which the upstream's configuration is used.
    pub peers: PathBuf,
    /// Where ringgate is.
    pub bin: PathBuf,
}

/// Runs the plan to its end, or to where so much has failed that more says nothing new.
///
/// # Errors
/// If it could not begin: everything that clients saw is in the report.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    let site = Site::set(plan, &NAMES)?;
    tokio::task::LocalSet::new().block_on(&runtime, measure(plan, &site))
}

async fn measure(plan: &Plan, site: &Site) -> Result<Report, String> {
    let served = Served::new(site.root().await?)?;
    clients::wait_for_certificates(site, &served, &NAMES).await?;
    let watch = Watch::new(site.ringgate_pid(), None).map_err(|error| gone(&error))?;
    let memory = || watch.resident_bytes().map_err(|error| gone(&error));
    let (before, resident_before) = (watch.read().map_err(|error| gone(&error))?, memory()?);
    let begun = Instant::now();
    let shared = Rc::new(Shared::new(plan, site, served.clone(), &NAMES, begun)?);
    shared.metrics.count(true);
    let (anew, kept) = (clients::start_anew(&shared), clients::start_kept(&shared));
    let progress = tokio::task::spawn_local(progress(shared.clone(), served.clone(), begun));
    let badly = |error| format!("a client ended badly: {error}");
    for client in anew {
        client.await.map_err(badly)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    shared.metrics.end();
    for client in kept {
        client.await.map_err(badly)?;
    }
    progress.abort();
    let used = before.until(&watch.read().map_err(|error| gone(&error))?);
    let Kept { connections, requests } = shared.kept();
    Ok(Report {
        plan: plan.clone(),
        seconds,
        handshakes: shared.metrics.full.get(),
        latency_micros: [0.5, 0.99, 0.999, 1.0].map(|share| shared.metrics.latency_micros(share)),
        kept_connections: connections,
        kept_requests: requests,
        failures: shared.metrics.failures(),
        names: served.by_name(),
        issued: site.count_in_log("pebble", "Issued certificate serial"),
        obtained: site.count_in_log("ringgate", "cert_obtained"),
        failed_attempts: site.count_in_log("ringgate", "cert_failed"),
        cpu: used.cpu,
        resident_bytes: [resident_before, memory()?],
    })
}

/// Says every minute how it goes, for it may take half an hour.
async fn progress(shared: Rc<Shared>, served: Served, begun: Instant) {
    let mut every = tokio::time::interval(Duration::from_secs(60));
    // The first tick comes at once.
    every.tick().await;
    loop {
        every.tick().await;
        let certificates: usize = served.by_name().values().map(|name| name.certificates).sum();
        eprintln!(
            "{:>5.0} s  {} handshakes, {certificates} certificates",
            begun.elapsed().as_secs_f64(),
            shared.metrics.full.get(),
        );
    }
}

fn gone(error: &std::io::Error) -> String {
    format!("ringgate's process cannot be read (has it ended?): {error}")
}
