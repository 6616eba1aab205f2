//! From the upstreams of a checked configuration to endpoints that workers can connect to. Pure.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{self, UpstreamAddress, UpstreamConfig};
use crate::snapshot::{Endpoint, EndpointAddress, EndpointSlot, Policy, Upstream, UpstreamTls};

use super::resolver::Resolver;

/// One upstream with what was read from files for it.
#[derive(Clone, Debug)]
pub struct PreparedUpstream {
    pub config: UpstreamConfig,
    /// For each address of `config.to`, if it is a `tls://` one.
    pub tls: Vec<Option<Arc<UpstreamTls>>>,
}

/// The names that these upstreams need resolved.
pub fn names(upstreams: &[PreparedUpstream]) -> BTreeSet<String> {
    let addresses = upstreams.iter().flat_map(|upstream| &upstream.config.to);
    addresses
        .filter_map(|address| match address {
            UpstreamAddress::Tcp { host, .. } | UpstreamAddress::Tls { host, .. } => {
                host.parse::<IpAddr>().is_err().then(|| host.clone())
            }
            UpstreamAddress::Unix(_) => None,
        })
        .collect()
}

/// The slot of every endpoint that there ever was. One more costs some dozen bytes here and in
/// every worker, and upstreams that change theirs every minute have half a million of them a year.
#[derive(Debug, Default)]
pub struct Slots {
    /// By address and [`UpstreamTls::id`]: behind one address may stand several services that only their
    /// names tell apart.
    by_endpoint: HashMap<(EndpointAddress, Option<u64>), EndpointSlot>,
}

impl Slots {
    fn of(&mut self, address: &EndpointAddress, tls: Option<&UpstreamTls>) -> EndpointSlot {
        let next = EndpointSlot(u32::try_from(self.by_endpoint.len()).unwrap_or(u32::MAX));
        *self.by_endpoint.entry((address.clone(), tls.map(|tls| tls.id))).or_insert(next)
    }
}

/// The upstreams as workers see them, indexed by `UpstreamId`.
pub fn resolved(
    upstreams: &[PreparedUpstream],
    resolver: &Resolver,
    slots: &mut Slots,
) -> Vec<Arc<Upstream>> {
    let upstreams = upstreams.iter().map(|PreparedUpstream { config, tls }| {
        let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(config.to.len());
        for (address, tls) in config.to.iter().zip(tls) {
            for address in addresses(address, resolver) {
                let slot = slots.of(&address, tls.as_deref());
                // Two names may lead to one address, which must not get twice its share.
                if endpoints.iter().all(|endpoint| endpoint.slot != slot) {
                    endpoints.push(Arc::new(Endpoint { slot, address, tls: tls.clone() }));
                }
            }
        }
        let names: Vec<_> = config.to.iter().map(ToString::to_string).collect();
        Arc::new(Upstream {
            name: names.join(",").into(),
            policy: match config.policy {
                config::Policy::RoundRobin => Policy::RoundRobin,
                config::Policy::LeastConnections => Policy::LeastConnections,
            },
            endpoints: endpoints.into(),
        })
    });
    upstreams.collect()
}

fn addresses(address: &UpstreamAddress, resolver: &Resolver) -> Vec<EndpointAddress> {
    let (host, port) = match address {
        UpstreamAddress::Tcp { host, port } | UpstreamAddress::Tls { host, port } => (host, *port),
        UpstreamAddress::Unix(path) => return vec![EndpointAddress::Unix(path.as_path().into())],
    };
    let ip = |ip| EndpointAddress::Ip(SocketAddr::new(ip, port));
    match host.parse() {
        Ok(literal) => vec![ip(literal)],
        Err(_) => resolver.addresses(host).iter().copied().map(ip).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(to: &[&str]) -> PreparedUpstream {
        let to: Vec<_> = to
            .iter()
            .map(|to| match to.strip_prefix("unix:") {
                Some(path) => UpstreamAddress::Unix(path.into()),
                None => {
                    let (host, port) = to.rsplit_once(':').unwrap();
                    UpstreamAddress::Tcp { host: host.into(), port: port.parse().unwrap() }
                }
            })
            .collect();
        let tls = vec![None; to.len()];
        let (policy, settings) = Default::default();
        PreparedUpstream { config: UpstreamConfig { to, policy, tls: settings }, tls }
    }

    #[test]
    fn an_address_keeps_its_slot_and_counts_once() {
        let mut slots = Slots::default();
        let resolver = Resolver::default();
        let before = resolved(&[upstream(&["10.0.0.1:80", "unix:/run/a"])], &resolver, &mut slots);
        let after = resolved(
            &[
                upstream(&["10.0.0.2:80", "10.0.0.1:80", "10.0.0.1:80"]),
                upstream(&["unix:/run/a", "::1:81"]),
            ],
            &resolver,
            &mut slots,
        );
        let slots = |upstream: &Upstream| -> Vec<u32> {
            upstream.endpoints.iter().map(|endpoint| endpoint.slot.0).collect()
        };
        assert_eq!(slots(&before[0]), [0, 1]);
        assert_eq!((slots(&after[0]), slots(&after[1])), (vec![2, 0], vec![1, 3]));
        assert_eq!(&*before[0].name, "tcp://10.0.0.1:80,unix:/run/a");
    }

    #[test]
    fn only_names_are_resolved() {
        let upstreams = [upstream(&["10.0.0.1:80", "::1:80", "unix:/run/a", "db.internal:80"])];
        assert_eq!(names(&upstreams).into_iter().collect::<Vec<_>>(), ["db.internal"]);
        let unresolved = resolved(&upstreams, &Resolver::default(), &mut Slots::default());
        assert_eq!(unresolved[0].endpoints.len(), 3);
    }
}
