//! Which names autocert keeps a certificate for, and why others not. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::config::Config;
use crate::config::autocert::{Autocert, IssuerConfig};
use crate::name::{Pattern, ServerName};

use super::super::certified::Certified;
use super::super::precedence::Covering;

/// A certificate by hand with less life left than this (or than a tenth of its life, if that is shorter)
/// is taken for one that nobody replaces: long enough for failures, and four days after the first warning.
const TAKEN_OVER_BEFORE: Duration = Duration::from_secs(3 * 24 * 3600);
const TAKEN_OVER_PART: u32 = 10;

/// The names that autocert manages, and what an operator should know of the others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Managed {
    pub names: Vec<ServerName>,
    /// Names that no certificate by hand covers and autocert cannot obtain one for, with the reason.
    pub refused: Vec<(Pattern, &'static str)>,
}

/// Hosts of routes and the further ones of the configuration, without those that a certificate by hand
/// covers for long enough.
pub fn managed(
    config: &Config,
    autocert: &Autocert,
    by_hand: &[Arc<Certified>],
    now: Moment,
) -> Managed {
    let wanted: BTreeSet<Pattern> = config
        .routes
        .iter()
        .map(|route| route.pattern.clone())
        .chain(autocert.hosts.iter().cloned().map(Pattern::Exact))
        .collect();
    let lasting = Covering::of(by_hand.iter().filter(|certified| lasts(certified, now)));
    let mut managed = Managed::default();
    for pattern in wanted {
        if lasting.covers(&pattern) {
            continue;
        }
        match (obstacle(&pattern, autocert), pattern) {
            (None, Pattern::Exact(name)) => managed.names.push(name),
            (None, Pattern::Wildcard(_) | Pattern::Any) => {}
            (Some(why), pattern) => managed.refused.push((pattern, why)),
        }
    }
    managed
}

/// Whether a certificate is in force and far enough from its end.
pub fn lasts(certified: &Certified, now: Moment) -> bool {
    let life = certified.not_after.since(certified.not_before);
    let margin = TAKEN_OVER_BEFORE.min(life / TAKEN_OVER_PART);
    certified.is_valid(now) && certified.not_after.since(now) > margin
}

/// Why no issuer can be asked for a name: what stands in the way at the first.
fn obstacle(pattern: &Pattern, autocert: &Autocert) -> Option<&'static str> {
    let all = autocert.issuers.iter().map(|issuer| obstacle_at(pattern, issuer));
    all.collect::<Option<Vec<_>>>()?.into_iter().next()
}

/// Why this issuer cannot be asked for a name.
pub fn obstacle_at(pattern: &Pattern, issuer: &IssuerConfig) -> Option<&'static str> {
    match pattern {
        Pattern::Any => None,
        Pattern::Wildcard(_) => Some(
            "is a wildcard, which autocert cannot obtain a certificate for; list one for it under 'certificates', or write a route for each name",
        ),
        Pattern::Exact(name) if issuer.is_lets_encrypt() && name.is_private() => Some(
            "is a private name, which Let's Encrypt does not issue for; it gets a certificate from the local CA",
        ),
        Pattern::Exact(name)
            if issuer.is_lets_encrypt() && name.as_ip().is_some() && issuer.profile.is_none() =>
        {
            Some(
                "is an IP address, which Let's Encrypt issues for with autocert_profile: shortlived only; it gets a certificate from the local CA",
            )
        }
        Pattern::Exact(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::PKCS_ECDSA_P256_SHA256;

    use super::super::super::certified::samples::{DAY, Issuer, NOW};
    use super::super::super::certified::{Source, certify};
    use super::*;
    use crate::config::check::check;
    use crate::config::layers::{Layers, Node, Value};
    use crate::config::problem::Origin;

    fn config(routes: &[&str], more: &[(&'static str, &str)]) -> Config {
        let node =
            |text: &str| Node { origin: Origin::Default, value: Value::Scalar(text.to_owned()) };
        let mut layers = Layers::default();
        let routes = routes.iter().map(|from| node(&format!("https://{from}=tcp://127.0.0.1:1")));
        let routes = Node { origin: Origin::Default, value: Value::List(routes.collect()) };
        layers.values.insert("routes", routes);
        layers.values.insert("autocert", node("true"));
        for (key, text) in more {
            layers.values.insert(key, node(text));
        }
        check(&layers).unwrap()
    }

    fn by_hand(issuer: &Issuer, name: &str) -> Arc<Certified> {
        let (chain, key) = issuer.pair(&[name], &PKCS_ECDSA_P256_SHA256);
        let source = Source::ByHand { cert: "c".into(), key: "k".into() };
        Arc::new(certify(chain.as_bytes(), key.as_bytes(), source).unwrap())
    }

    fn names(config: &Config, by_hand: &[Arc<Certified>], now: Moment) -> Vec<String> {
        let managed = managed(config, config.autocert.as_ref().unwrap(), by_hand, now);
        managed.names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn hosts_of_routes_and_further_ones_are_managed_and_impossible_ones_are_said() {
        let config = config(
            &["b.example", "a.example:8443", "*.w.example", "x.localhost", "192.0.2.1", "*"],
            &[
                ("autocert_hosts", "c.example"),
                ("authenticate_service_url", "https://auth.example"),
            ],
        );
        assert_eq!(
            names(&config, &[], NOW),
            ["a.example", "auth.example", "b.example", "c.example"]
        );
        let refused = managed(&config, config.autocert.as_ref().unwrap(), &[], NOW).refused;
        let mut refused: Vec<_> = refused.iter().map(|(pattern, _)| pattern.to_string()).collect();
        refused.sort_unstable();
        assert_eq!(refused, ["*.w.example", "192.0.2.1", "x.localhost"]);
    }

    #[test]
    fn another_ca_is_asked_for_private_names_and_addresses() {
        let config =
            config(&["x.localhost", "127.0.0.1"], &[("autocert_ca", "https://ca.internal/dir")]);
        assert_eq!(names(&config, &[], NOW), ["127.0.0.1", "x.localhost"]);
    }

    #[test]
    fn one_issuer_that_can_is_enough() {
        let both = "https://acme-v02.api.letsencrypt.org/directory,https://ca.internal/dir";
        let config = config(&["x.localhost"], &[("autocert_ca", both)]);
        assert_eq!(names(&config, &[], NOW), ["x.localhost"]);
        let name = Pattern::parse("x.localhost").unwrap();
        let issuers = &config.autocert.as_ref().unwrap().issuers;
        let obstacles = issuers.iter().map(|issuer| obstacle_at(&name, issuer).is_some());
        assert_eq!(obstacles.collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn by_hand_wins_exact_or_wildcard_until_it_nears_its_end() {
        let issuer = Issuer::new("names");
        let config = config(&["a.example", "x.w.example", "*.w.example"], &[]);
        let by_hand = [by_hand(&issuer, "a.example"), by_hand(&issuer, "*.w.example")];
        assert_eq!(names(&config, &by_hand, NOW), [""; 0]);
        // They end in 60 days.
        assert_eq!(names(&config, &by_hand, NOW.plus(56 * DAY)), [""; 0]);
        assert_eq!(names(&config, &by_hand, NOW.plus(58 * DAY)), ["a.example", "x.w.example"]);
        assert_eq!(names(&config, &by_hand, NOW.plus(70 * DAY)), ["a.example", "x.w.example"]);
    }
}
