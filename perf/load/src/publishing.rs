//! Do clients notice that certificates are published? The latency of handshakes at a fixed rate, while the
//! files of other names are replaced so many times per second.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::comparison::{self, Measured, Order};
use crate::plan::Scenario;
use crate::stage::Stage;
use crate::system::System;

/// Certificates per second.
const RATES: [u32; 4] = [0, 10, 100, 1_000];
/// Names whose certificates are replaced in turn.
const NAMES: usize = 500;
/// Handshakes per second: a fifth of what the server's core can do, so that a queue means something.
const HANDSHAKES: f64 = 1_000.0;
/// ringgate looks at files every two seconds; a window sees two looks.
const WINDOW: Duration = Duration::from_secs(4);
/// How often the publisher wakes.
const TICK: Duration = Duration::from_millis(10);

/// One rate.
pub struct Point {
    pub per_second: u32,
    pub measured: Measured,
}

/// Handshakes while nothing, and while something, is published, in rounds that alternate.
///
/// # Errors
/// If this machine does not let it.
pub fn measure(
    order: &Order,
    stage: &Stage,
    system: &System,
    progress: &impl Fn(&str),
) -> Result<Vec<Point>, String> {
    let site = Site::make(stage.scene.dir()).map_err(|error| format!("publishing: {error}"))?;
    let mut system = system.clone();
    system.start = format!("{} --certificates {}", system.start, site.served.display());
    let order = Order { rate: Some(HANDSHAKES), window: WINDOW, ..order.clone() };
    let mut points =
        RATES.map(|rate| Point { per_second: rate, measured: Measured::Rounds(Vec::new()) });
    for round in 0..order.rounds {
        for turn in 0..points.len() {
            let at = (round + turn) % RATES.len();
            let point = &mut points[at];
            let Measured::Rounds(outcomes) = &mut point.measured else { continue };
            progress(&format!("round {} publishing {} per second", round + 1, point.per_second));
            let publisher = Publisher::start(&site, point.per_second);
            let outcome = comparison::quietly(&order, stage, &system, Scenario::Full)?;
            let published = publisher.stop().map_err(|error| format!("publishing: {error}"))?;
            if (published == 0) != (point.per_second == 0) {
                return Err(format!("published {published} at {} per second", point.per_second));
            }
            match outcome {
                Ok(outcome) => outcomes.push(outcome),
                Err(refusals) => point.measured = Measured::Refused(refusals),
            }
        }
    }
    Ok(points.into())
}

/// Two certificates per name, chain and private key in one file, and the directory that is served.
struct Site {
    served: PathBuf,
    /// In turn one and the other of each name.
    stock: [PathBuf; 2],
}

impl Site {
    fn make(dir: &Path) -> std::io::Result<Self> {
        let other = |error: rcgen::Error| std::io::Error::other(error.to_string());
        let place = |name: &str| dir.join("published").join(name);
        let site = Self { served: place("served"), stock: [place("one"), place("other")] };
        for dir in site.stock.iter().chain([&site.served]) {
            fs::create_dir_all(dir)?;
        }
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer::new(params, KeyPair::generate().map_err(other)?);
        for number in 0..NAMES {
            for stock in &site.stock {
                let key = KeyPair::generate().map_err(other)?;
                let params = CertificateParams::new(vec![format!("name-{number}.example")]);
                let leaf = params.and_then(|params| params.signed_by(&key, &issuer));
                let pem = leaf.map_err(other)?.pem() + &key.serialize_pem();
                fs::write(stock.join(file(number)), pem)?;
            }
            site.publish(number)?;
        }
        Ok(site)
    }

    /// Replaces the certificate of a name by its other one, at once, as careful tools do.
    fn publish(&self, count: usize) -> std::io::Result<()> {
        let number = count % NAMES;
        let from = &self.stock[count / NAMES % 2];
        // A hidden file is nobody's certificate.
        let fresh = self.served.join(".fresh");
        fs::copy(from.join(file(number)), &fresh)?;
        fs::rename(fresh, self.served.join(file(number)))
    }
}

fn file(number: usize) -> String {
    format!("name-{number}.pem")
}

/// A thread that publishes until it is stopped.
struct Publisher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<usize>>,
}

impl Publisher {
    fn start(site: &Site, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let site = Site { served: site.served.clone(), stock: site.stock.clone() };
        let thread = std::thread::spawn(move || {
            let begun = Instant::now();
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = begun.elapsed().as_secs_f64() * f64::from(per_second);
                while (count as f64) < due.floor() {
                    count += 1;
                    // From the second stock on, so that the first is a change too.
                    site.publish(NAMES + count)?;
                }
                std::thread::sleep(TICK);
            }
            Ok(count)
        });
        Self { stop, thread }
    }

    /// How many it published.
    fn stop(self) -> std::io::Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(std::io::Error::other("it panicked")))
    }
}
