//! Resolves the names of upstreams, each again when its TTL is over, so that no worker ever asks DNS.
//!
//! What a name resolved to stays in force until it resolves to something else: a DNS server that is down
//! takes no upstream away.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::clock;

/// A name is not asked for more often, whatever its TTL: a TTL of 0 means "for this one connection"
/// (RFC 1035 §3.2.1), which is not how a control plane works.
const SHORTEST_TTL: Duration = Duration::from_secs(5);
/// A name is asked for at least this often: a question a minute costs a resolver's cache nothing, and a
/// record that was changed in a hurry, or a line in /etc/hosts, is followed soon.
const LONGEST_TTL: Duration = Duration::from_secs(60);
/// After a failure: from one second, doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// A name that is down for long is asked for twice a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long one question may take, with all its retries.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Names asked for at once: a start with thousands of them is no flood for the resolver.
const AT_ONCE: usize = 32;
/// How long resolv.conf and /etc/hosts are believed before they are read again: DHCP changes them.
const CONFIGURATION_AGE: Duration = Duration::from_secs(60);

/// The names that are wanted and what is known of them.
#[derive(Default)]
pub struct Resolver {
    names: HashMap<String, Name>,
    asking: JoinSet<(String, Answer)>,
    agent: Option<(TokioResolver, Instant)>,
}

#[derive(Debug, PartialEq)]
struct Name {
    /// Sorted; empty until the first answer.
    addresses: Vec<IpAddr>,
    /// When to ask; `None` while an answer is awaited.
    due: Option<Instant>,
    failures: u32,
    answered: bool,
}

type Answer = Result<(Vec<IpAddr>, Duration), String>;

impl Resolver {
    /// Sets which names are wanted. Those that are new are due at once, others are forgotten.
    pub fn want(&mut self, names: BTreeSet<String>, now: Instant) {
        self.names.retain(|name, _| names.contains(name));
        for name in names {
            self.names.entry(name).or_insert(Name {
                addresses: Vec::new(),
                due: Some(now),
                failures: 0,
                answered: false,
            });
        }
    }

    /// What a wanted name resolved to last.
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        self.names.get(name).map(|name| name.addresses.as_slice()).unwrap_or_default()
    }

    /// Waits until every name has been answered for once, well or badly, but no longer than one question
    /// may take.
    pub async fn settle(&mut self) {
        let settled = async {
            while self.names.values().any(|name| !name.answered) {
                self.next_answer().await;
            }
        };
        // What has not been answered by then is learnt later, like every change.
        let _ = tokio::time::timeout(ANSWER_TIMEOUT, settled).await;
    }

    /// Asks whatever is due and returns when a name has resolved to something else. May be dropped and
    /// called again.
    pub async fn changed(&mut self) {
        while !self.next_answer().await {}
    }

    /// Asks what is due and takes one answer; whether it was news. Waits for ever if no name is wanted.
    async fn next_answer(&mut self) -> bool {
        loop {
            self.ask(clock::steady());
            let full = self.asking.len() >= AT_ONCE;
            let next_due = self.names.values().filter_map(|name| name.due).min();
            tokio::select! {
                Some(answer) = self.asking.join_next() => match answer {
                    Ok((name, answer)) => return self.learn(&name, answer, clock::steady()),
                    Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
                },
                () = sleep_until(next_due), if !full => {}
            }
        }
    }

    fn ask(&mut self, now: Instant) {
        let mut due: Vec<_> = self
            .names
            .iter()
            .filter_map(|(name, known)| Some((known.due?, name)))
            .filter(|(due, _)| *due <= now)
            .map(|(due, name)| (due, name.clone()))
            .collect();
        due.sort_unstable();
        for (_, name) in due.into_iter().take(AT_ONCE.saturating_sub(self.asking.len())) {
            if let Some(known) = self.names.get_mut(&name) {
                known.due = None;
            }
            let agent = self.agent(now);
            self.asking.spawn(async move {
                let answer = match agent {
                    Ok(agent) => look_up(agent, &name).await,
                    Err(error) => Err(error),
                };
                (name, answer)
            });
        }
    }

    fn agent(&mut self, now: Instant) -> Result<TokioResolver, String> {
        if let Some((agent, read)) = &self.agent
            && now.duration_since(*read) < CONFIGURATION_AGE
        {
            return Ok(agent.clone());
        }
        let agent = agent()?;
        self.agent = Some((agent.clone(), now));
        Ok(agent)
    }

    /// Whether the answer changed anything for the edge.
    fn learn(&mut self, name: &str, answer: Answer, now: Instant) -> bool {
        // It may be wanted no longer.
        let Some(known) = self.names.get_mut(name) else { return false };
        let first_failure = answer.is_err() && known.failures == 0;
        let recovered = answer.is_ok() && known.failures > 0;
        let error = answer.as_ref().err().cloned();
        let news = known.learn(answer, now);
        // Once when it starts to fail, and once when it is over.
        if let Some(error) = error.filter(|_| first_failure) {
            let kept = known.addresses.len();
            warn!(name, error, addresses_kept = kept, "the name of an upstream does not resolve");
        } else if recovered {
            info!(name, "the name of an upstream resolves again");
        }
        news
    }
}

impl Name {
    /// Pure: what is known after an answer. Returns whether the addresses are others.
    fn learn(&mut self, answer: Answer, now: Instant) -> bool {
        self.answered = true;
        match answer {
            Ok((mut addresses, ttl)) => {
                // Servers turn the order round at every answer; that is no news.
                addresses.sort_unstable();
                addresses.dedup();
                self.failures = 0;
                self.due = Some(now + ttl.clamp(SHORTEST_TTL, LONGEST_TTL));
                let news = self.addresses != addresses;
                self.addresses = addresses;
                news
            }
            Err(_) => {
                // 2⁵ seconds exceed the longest pause.
                let pause = SHORTEST_PAUSE * (1 << self.failures.min(5));
                self.failures = self.failures.saturating_add(1);
                self.due = Some(now + pause.min(LONGEST_PAUSE));
                false
            }
        }
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

/// The system's resolver configuration. Without one the machine's own server is asked, as libc does
/// (resolv.conf(5)).
fn agent() -> Result<TokioResolver, String> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        let own = NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]));
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![own]);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    });
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // Answers are kept here, with their TTL.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

async fn look_up(agent: TokioResolver, name: &str) -> Answer {
    match tokio::time::timeout(ANSWER_TIMEOUT, agent.lookup_ip(name)).await {
        Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(answer)) => {
            let ttl = answer.valid_until().saturating_duration_since(clock::steady());
            let addresses: Vec<_> = answer.iter().collect();
            match addresses.is_empty() {
                true => Err("the name has no address".to_owned()),
                false => Ok((addresses, ttl)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(now: Instant) -> Name {
        Name { addresses: Vec::new(), due: Some(now), failures: 0, answered: false }
    }

    fn addresses(last: &[u8]) -> Vec<IpAddr> {
        last.iter().map(|last| IpAddr::from([192, 0, 2, *last])).collect()
    }

    #[test]
    fn an_answer_is_believed_for_its_ttl_within_bounds() {
        let now = clock::steady();
        for (ttl, expected) in [(0, 5), (20, 20), (86_400, 60)] {
            let mut name = name(now);
            assert!(name.learn(Ok((addresses(&[1]), Duration::from_secs(ttl))), now));
            assert_eq!(name.due, Some(now + Duration::from_secs(expected)), "{ttl}");
        }
    }

    #[test]
    fn another_order_is_no_news_and_other_addresses_are() {
        let now = clock::steady();
        let mut name = name(now);
        let ttl = Duration::from_secs(30);
        assert!(name.learn(Ok((addresses(&[2, 1, 2]), ttl)), now));
        assert!(!name.learn(Ok((addresses(&[1, 2]), ttl)), now));
        assert!(name.learn(Ok((addresses(&[1]), ttl)), now));
    }

    #[test]
    fn a_failure_keeps_the_addresses_and_is_asked_again_ever_more_slowly() {
        let now = clock::steady();
        let mut name = name(now);
        name.learn(Ok((addresses(&[1]), Duration::from_secs(30))), now);
        let pauses = [1, 2, 4, 8, 16, 30, 30].map(|expected| {
            assert!(!name.learn(Err("down".into()), now));
            assert_eq!(name.due, Some(now + Duration::from_secs(expected)));
        });
        assert_eq!(name.addresses, addresses(&[1]), "after {} failures", pauses.len());
        name.learn(Ok((addresses(&[1]), Duration::from_secs(30))), now);
        assert_eq!(name.failures, 0);
    }

    #[test]
    fn names_no_longer_wanted_are_forgotten() {
        let now = clock::steady();
        let mut resolver = Resolver::default();
        let want = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        resolver.want(want(&["a.test", "b.test"]), now);
        resolver.learn("a.test", Ok((addresses(&[1]), Duration::from_secs(30))), now);
        resolver.want(want(&["a.test"]), now);
        assert_eq!(resolver.addresses("a.test"), addresses(&[1]));
        assert!(!resolver.learn("b.test", Ok((addresses(&[1]), Duration::ZERO)), now));
        assert_eq!(resolver.addresses("b.test"), [] as [IpAddr; 0]);
    }
}
