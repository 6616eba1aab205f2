//! Certificates from an ACME issuer, obtained and renewed without anyone's help.
//!
//! The life of one certificate: `names` says which names need one; `keeper` has an entry for each and takes
//! turns (`attempt`) when `plan` says that something is due; `failover` chooses the issuer, `order` gets it
//! there; `stored` commits it; the control plane publishes it.

mod account;
mod ari;
mod attempt;
pub mod backoff;
mod budget;
pub mod ca;
mod challenge;
mod connect;
mod directory;
mod domain;
mod dossier;
mod elsewhere;
mod entry;
pub mod events;
mod facts;
mod failover;
mod forecast;
mod former;
mod held;
pub mod http_client;
pub mod issuers;
pub mod keeper;
mod keys;
mod kinds;
mod ledger;
mod limits_known;
mod lookup;
pub(super) mod mutant;
pub mod names;
mod obtaining;
mod order;
mod outlook;
pub(super) mod pace;
mod patience;
pub mod plan;
pub mod prepared;
mod registration;
mod renewal;
mod revocation;
mod shared;
#[cfg(feature = "simulation")]
pub mod simulated;
mod spending;
pub mod status;
mod stored;
mod told_revoked;
pub mod transport;
mod trial;
mod triple;
mod verdict;
mod writes;

use account::cannot_store as store_failed;
pub use revocation::reason as revocation_reason;
use verdict::Failed;

/// Runs work that touches the store or computes on the pool of blocking threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // A simulated store answers at once, and paused time does not pass while another thread works.
    #[cfg(feature = "simulation")]
    if crate::clock::simulated::is_on() {
        simulated::disk().await;
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and so is whoever waits for this.
            Err(_) => std::future::pending().await,
        },
    }
}

fn disk(error: std::io::Error) -> Failed {
    store_failed(&error)
}
