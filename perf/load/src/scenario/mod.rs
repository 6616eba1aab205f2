//! What one client does, a file per way of behaving.

mod bulk;
mod idle;
mod keep_alive;
mod one_request;

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::answers::{Answers, Nonce, Nonces};
use crate::connection::Destination;
use crate::failure::{Failure, Kind};
use crate::metrics::Metrics;
use crate::pacer::{Alarm, Pacer};
use crate::plan::{Plan, Scenario};
use crate::trust::Trust;

pub(crate) use keep_alive::ask;
pub(crate) use one_request::exchange;

/// How long one operation may take. Bulk on a loaded machine is slow, but it moves; a minute for 100 MiB
/// is a fault.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the clients of a run share.
pub struct Shared {
    pub plan: Plan,
    pub to: Destination,
    pub trust: Trust,
    pub answers: Rc<Answers>,
    pub nonces: Nonces,
    /// Where the upstream stores uploads.
    pub uploads: PathBuf,
    pub metrics: Metrics,
    pub pacer: Option<Pacer>,
    /// Clients that are where the window should find them: with a ticket, or standing idle.
    pub ready: Cell<usize>,
}

/// One simulated client.
struct Client {
    shared: Rc<Shared>,
    config: Arc<ClientConfig>,
    alarm: Option<Alarm>,
    /// After its first connection.
    has_ticket: Cell<bool>,
}

/// One client until the run ends. What fails is counted, never fatal.
pub async fn client(shared: Rc<Shared>) {
    let resumes = shared.plan.scenario == Scenario::Resumed;
    let alarm = match shared.pacer.as_ref().map(|_| Alarm::new()).transpose() {
        Ok(alarm) => alarm,
        Err(error) => return shared.metrics.failed(Failure::new(Kind::Connect, error)),
    };
    let config = shared.trust.client(resumes);
    let client = Client { shared, config, alarm, has_ticket: Cell::new(false) };
    let metrics = &client.shared.metrics;
    while !metrics.has_ended() {
        let behaviour = async {
            match client.shared.plan.scenario {
                Scenario::KeepAlive => keep_alive::requests(&client).await,
                Scenario::BulkDown => bulk::downloads(&client).await,
                Scenario::BulkUp => bulk::uploads(&client).await,
                Scenario::Idle => idle::stand(&client).await,
                Scenario::Handshake => one_request::handshake(&client).await,
                Scenario::Full | Scenario::Resumed | Scenario::Rsa | Scenario::PostQuantum => {
                    one_request::connection(&client).await
                }
            }
        };
        if let Err(failure) = behaviour.await {
            metrics.failed(failure);
        }
    }
}

impl Client {
    /// Waits until the next operation is due, and says from when its latency counts.
    async fn begin(&self) -> Result<Instant, Failure> {
        let (Some(pacer), Some(alarm)) = (&self.shared.pacer, &self.alarm) else {
            return Ok(Instant::now());
        };
        let due = pacer.next();
        alarm.wait_until(due).await.map_err(|error| Failure::new(Kind::Timeout, error))?;
        Ok(due)
    }
}

/// The request for a small response.
fn small_request(nonce: Nonce, connection: &str) -> String {
    // The request line, the name and one header: about 100 bytes.
    format!(
        "GET /small?n={nonce} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n",
        crate::stage::SERVER_NAME
    )
}

/// Ends what takes too long.
async fn patiently<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Kind::Timeout, format!("after {PATIENCE:?}"))))
}
