//! Resolves the names of upstreams, so that no worker ever asks DNS.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::UpstreamAddress;

/// How often names are resolved again. getaddrinfo tells no TTL; half a minute follows a moved service
/// soon and costs a resolver nothing.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How long one name may take. What it resolved to before stays in force.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Names asked for at once.
const AT_ONCE: usize = 16;

/// What every upstream's address resolved to last. Empty: never yet.
pub type Resolved = HashMap<UpstreamAddress, Vec<SocketAddr>>;

/// Endpoints that need no resolving.
pub fn literal(address: &UpstreamAddress) -> Option<SocketAddr> {
    let UpstreamAddress::Tcp { host, port } = address;
    Some(SocketAddr::new(host.parse::<IpAddr>().ok()?, *port))
}

/// Resolves all of `addresses`; what fails keeps its place from `before`, with a warning when that is
/// news.
pub async fn resolve(addresses: Vec<UpstreamAddress>, before: &Resolved) -> Resolved {
    let mut resolved = Resolved::new();
    let mut asking = JoinSet::new();
    let mut rest = addresses.into_iter();
    loop {
        while asking.len() < AT_ONCE {
            match rest.next() {
                Some(address) => match literal(&address) {
                    Some(endpoint) => drop(resolved.insert(address, vec![endpoint])),
                    None => drop(asking.spawn(look_up(address))),
                },
                None => break,
            }
        }
        let Some(Ok((address, outcome))) = asking.join_next().await else {
            if asking.is_empty() {
                return resolved;
            }
            continue;
        };
        let last = before.get(&address).cloned();
        let endpoints = match outcome {
            Ok(endpoints) => {
                if last.as_deref().is_some_and(<[_]>::is_empty) {
                    info!(upstream = %address, "upstream resolves now");
                }
                endpoints
            }
            Err(error) => {
                let kept = last.clone().unwrap_or_default();
                // Once when it starts to fail without an address to fall back on, not every time.
                if last.as_deref().is_none_or(|last| !last.is_empty()) {
                    warn!(upstream = %address, %error, addresses_kept = kept.len(), "upstream does not resolve");
                }
                kept
            }
        };
        resolved.insert(address, endpoints);
    }
}

async fn look_up(address: UpstreamAddress) -> (UpstreamAddress, Result<Vec<SocketAddr>, String>) {
    let UpstreamAddress::Tcp { host, port } = address.clone();
    let looked_up =
        tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let outcome = match looked_up {
        Err(_) => Err(format!("no answer within {} s", RESOLVE_TIMEOUT.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(endpoints)) => {
            let mut endpoints: Vec<_> = endpoints.collect();
            endpoints.dedup();
            Ok(endpoints)
        }
    };
    (address, outcome)
}
