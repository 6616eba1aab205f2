//! Pure: the layered values of autocert's keys to its settings, or every problem.

use std::path::PathBuf;

use crate::name::ServerName;

use super::autocert::{Autocert, ChallengeKind, KeyType, Proxy, UntilIssued};
use super::check::Checker;
use super::layers::Value;
use super::stapling::Stapling;
use super::values::{Wrong, not_empty, read_bool};

/// Pomerium's hosted authentication services: theirs to serve.
const HOSTED_AUTHENTICATION: [&str; 2] =
    ["authenticate.pomerium.app", "authenticate.staging.pomerium.app"];

impl Checker<'_> {
    /// Checks all of autocert's keys, also while it is off: a mistake is better found before the day
    /// it is turned on.
    pub(super) fn autocert(&mut self) -> Option<Autocert> {
        let on = self.scalar("autocert", read_bool).unwrap_or(false);
        let issuers = self.issuers();
        let must_staple = self.scalar("autocert_must_staple", read_bool).unwrap_or(false);
        let refusing = issuers.iter().find(|issuer| issuer.is_lets_encrypt());
        if let Some(refusing) = refusing.filter(|_| on && must_staple) {
            let host = refusing.directory.split('/').nth(2).unwrap_or_default();
            let what = format!("Let's Encrypt ({host}) refuses must-staple certificates");
            let remedy = "leave it out, or name another CA with autocert_ca";
            let origin = self.layers.origin("autocert_must_staple");
            self.problem(&origin, "autocert_must_staple", (what, remedy.into()));
        }
        let challenges = self.list("autocert_challenges", |text| match text {
            "tls-alpn-01" => Ok(ChallengeKind::TlsAlpn01),
            "http-01" => Ok(ChallengeKind::Http01),
            "dns-01" => Err((
                "dns-01 is not built".into(),
                "write tls-alpn-01 or http-01, and give wildcard names a certificate by hand"
                    .into(),
            )),
            _ => Err((
                format!("{text:?} is no challenge that is supported"),
                "write tls-alpn-01, http-01 or both".into(),
            )),
        });
        let challenges =
            challenges.unwrap_or_else(|| vec![ChallengeKind::TlsAlpn01, ChallengeKind::Http01]);
        let has_plain_listener = self.layers.values.contains_key("http_redirect_addr");
        let is_http_alone =
            !challenges.is_empty() && challenges.iter().all(|kind| *kind == ChallengeKind::Http01);
        if on && !has_plain_listener && is_http_alone {
            let what = "http-01 alone cannot be answered without http_redirect_addr";
            let remedy =
                "set http_redirect_addr to what the CA reaches as port 80, or add tls-alpn-01";
            let origin = self.layers.origin("autocert_challenges");
            self.problem(&origin, "autocert_challenges", (what.into(), remedy.into()));
        }
        let dir = self.scalar("autocert_dir", |text| match text.split_once("://") {
            None => not_empty(text).map(PathBuf::from),
            Some((scheme, _)) => Err((
                format!("{scheme}:// as a store is not built yet"),
                "write the path of a directory".into(),
            )),
        });
        let autocert = Autocert {
            issuers,
            must_staple,
            dir: dir.unwrap_or_else(|| self.data_dir().join("autocert")),
            hosts: self.hosts(),
            key_type: self
                .scalar("autocert_key_type", |text| match text {
                    "p256" => Ok(KeyType::P256),
                    "p384" => Ok(KeyType::P384),
                    "rsa2048" => Ok(KeyType::Rsa2048),
                    "both" => {
                        Err(("both is not built yet".into(), "write p256, p384 or rsa2048".into()))
                    }
                    _ => Err((
                        format!("{text:?} is no type of private key"),
                        "write p256, p384 or rsa2048".into(),
                    )),
                })
                .unwrap_or(KeyType::P256),
            challenges,
            until_issued: self
                .scalar("autocert_until_issued", |text| match text {
                    "reject" => Ok(UntilIssued::Reject),
                    "local" => Ok(UntilIssued::Local),
                    _ => {
                        Err((format!("{text:?} is no choice"), "write reject or local".to_owned()))
                    }
                })
                .unwrap_or(UntilIssued::Reject),
            hook: self.hook(),
            proxy: if on { self.proxy() } else { None },
            on_kubernetes: self.layers.surroundings.kubernetes,
        };
        on.then_some(autocert)
    }

    fn data_dir(&self) -> PathBuf {
        match self.layers.values.get("data_dir").map(|node| &node.value) {
            Some(Value::Scalar(text)) => text.into(),
            _ => self.layers.usual_data_dir.clone(),
        }
    }

    fn hosts(&mut self) -> Vec<ServerName> {
        let mut hosts = self.list("autocert_hosts", read_host).unwrap_or_default();
        let service = self.scalar("authenticate_service_url", |text| {
            let uri = text.parse::<http::Uri>().ok();
            let host = uri
                .as_ref()
                .and_then(http::Uri::host)
                .ok_or_else(|| (format!("{text:?} is no URL"), "write https://HOST".to_owned()))?;
            read_host(host)
        });
        hosts.extend(service.filter(|name| !HOSTED_AUTHENTICATION.contains(&name.as_str())));
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// Program and arguments: no shell takes them apart, so neither do commas within one.
    fn hook(&mut self) -> Option<Vec<String>> {
        let node = self.layers.values.get("autocert_hook")?;
        let mut words = Vec::new();
        for item in Self::items(node) {
            match &item.value {
                Value::Scalar(word) => words.push(word.clone()),
                _ => {
                    let wrong = ("holds more than words".into(), "write a list of words".into());
                    self.problem(&item.origin, "autocert_hook", wrong);
                }
            }
        }
        if words.first().is_none_or(String::is_empty) {
            let wrong = ("names no program".into(), "write its path first".into());
            self.problem(&node.origin, "autocert_hook", wrong);
            return None;
        }
        Some(words)
    }

    fn proxy(&mut self) -> Option<Proxy> {
        let surroundings = &self.layers.surroundings;
        let written = surroundings.https_proxy.clone()?;
        let except = surroundings.no_proxy.as_deref().unwrap_or_default();
        match read_proxy(&written, except) {
            Ok(proxy) => Some(proxy),
            Err(wrong) => {
                let origin = super::problem::Origin::Environment("HTTPS_PROXY".into());
                self.problem(&origin, "", wrong);
                None
            }
        }
    }
}

/// For staples: a proxy that cannot be used is no reason not to start.
impl Checker<'_> {
    pub(super) fn stapling(&mut self) -> Option<Stapling> {
        if !self.scalar("ocsp_stapling", read_bool).unwrap_or(true) {
            return None;
        }
        let dir = match self.layers.values.get("autocert_dir").map(|node| &node.value) {
            Some(Value::Scalar(text)) => text.into(),
            _ => self.data_dir().join("autocert"),
        };
        let surroundings = &self.layers.surroundings;
        let except = surroundings.no_proxy.as_deref().unwrap_or_default();
        let mut notes = Vec::new();
        let mut read = |name: &str, written: &Option<String>| {
            let proxy = written.as_deref().map(|written| read_proxy(written, except));
            proxy.transpose().unwrap_or_else(|(what, _)| {
                notes.push(format!("{name} {what}; staples are fetched without it"));
                None
            })
        };
        let http_proxy = read("HTTP_PROXY", &surroundings.http_proxy);
        let https_proxy = read("HTTPS_PROXY", &surroundings.https_proxy);
        Some(Stapling { dir, http_proxy, https_proxy, notes })
    }
}

fn read_host(text: &str) -> Result<ServerName, Wrong> {
    ServerName::parse(text).map_err(|error| {
        (
            format!("{text:?} {error}"),
            "write one name, like example.com; a wildcard needs a certificate by hand".into(),
        )
    })
}

fn read_proxy(text: &str, except: &str) -> Result<Proxy, Wrong> {
    let wrong = |what: &str| {
        (format!("names a proxy that {what}"), "write http://HOST:PORT, or unset it".to_owned())
    };
    let authority = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return Err(wrong(&format!("is reached by {scheme}, not by http"))),
        None => text,
    };
    let authority = authority.split('/').next().unwrap_or_default();
    let (credentials, address) = match authority.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials.to_owned()), address),
        None => (None, authority),
    };
    const USUAL_PORT: u16 = 8080;
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => {
            (host, port.parse().map_err(|_| wrong("has no valid port"))?)
        }
        _ => (address, USUAL_PORT),
    };
    if host.is_empty() {
        return Err(wrong("has no host"));
    }
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let except = except.split(',').map(|host| host.trim().to_owned());
    let except = except.filter(|host| !host.is_empty()).collect();
    Ok(Proxy { host, port, credentials, except })
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::super::autocert::LETS_ENCRYPT;
    use super::super::check::check;
    use super::super::layers::{Entry, Layers};
    use super::super::{Config, options, yaml};
    use super::*;

    pub(crate) fn check_yaml(text: &str) -> Result<Config, Vec<String>> {
        let mut layers = Layers { usual_data_dir: "/data".into(), ..Layers::default() };
        for Entry { key, node } in yaml::read(Path::new("f"), text).expect("valid YAML") {
            layers.values.insert(options::find(&key).expect("a key").key, node);
        }
        check(&layers).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    pub(in super::super) fn autocert(text: &str) -> Autocert {
        check_yaml(text).unwrap().autocert.expect("it is on")
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        assert_eq!(check_yaml("autocert: no\nautocert_email: a@b\n").unwrap().autocert, None);
        let usual = autocert("autocert: true\n");
        assert_eq!(usual.issuers[0].directory, LETS_ENCRYPT);
        assert_eq!(usual.dir, Path::new("/data/autocert"));
        assert_eq!(usual.challenges, [ChallengeKind::TlsAlpn01, ChallengeKind::Http01]);
        assert_eq!(usual.until_issued, UntilIssued::Reject);
        assert!(autocert("autocert: yes\nautocert_use_staging: 1\n").issuers[0].is_lets_encrypt());
        let other = autocert(
            "autocert: 1\nautocert_use_staging: true\nautocert_ca: https://localhost:14000/dir\ndata_dir: /d\n",
        );
        assert_eq!(
            (other.issuers[0].directory.as_str(), other.issuers[0].is_lets_encrypt()),
            ("https://localhost:14000/dir", false)
        );
        assert_eq!(other.dir, Path::new("/d/autocert"));
    }

    #[test]
    fn hosts_are_sorted_and_pomeriums_own_are_left_out() {
        let text = "autocert: true\nautocert_hosts: [b.example, A.example]\nauthenticate_service_url: https://auth.example:8443/x\n";
        let names: Vec<_> = autocert(text).hosts.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a.example", "auth.example", "b.example"]);
        let hosted =
            "autocert: true\nauthenticate_service_url: https://authenticate.pomerium.app\n";
        assert_eq!(autocert(hosted).hosts, []);
    }

    #[test]
    fn every_mistake_is_named_with_its_place_and_a_remedy() {
        for (text, expected) in [
            (
                "autocert: maybe\n",
                "f:1 autocert: \"maybe\" is neither true nor false; write true or false",
            ),
            (
                "autocert: true\nautocert_must_staple: true\n",
                "f:2 autocert_must_staple: Let's Encrypt (acme-v02.api.letsencrypt.org) refuses must-staple certificates; leave it out, or name another CA with autocert_ca",
            ),
            (
                "autocert: true\nautocert_challenges: [http-01]\n",
                "f:2 autocert_challenges: http-01 alone cannot be answered without http_redirect_addr; set http_redirect_addr to what the CA reaches as port 80, or add tls-alpn-01",
            ),
            (
                "autocert_ca: http://a/\n",
                "f:1 autocert_ca: \"http://a/\" is not https, which ACME asks for; write the CA's directory URL, like https://ca.example/directory",
            ),
            (
                "autocert_eab_key_id: x\n",
                "f:1 autocert_eab_key_id: is useless without autocert_eab_mac_key; write autocert_eab_mac_key too",
            ),
            (
                "autocert_eab_mac_key: '?'\nautocert_eab_key_id: x\n",
                "f:1 autocert_eab_mac_key: is no base64url without padding (letters, digits, - and _); copy it from the CA as it is",
            ),
            (
                "autocert_trusted_ca: eA==\nautocert_trusted_ca_file: /x\n",
                "f:2 autocert_trusted_ca_file: stands beside autocert_trusted_ca; keep one of them",
            ),
            (
                "autocert_dir: s3://x/y\n",
                "f:1 autocert_dir: s3:// as a store is not built yet; write the path of a directory",
            ),
            (
                "autocert_key_type: both\n",
                "f:1 autocert_key_type: both is not built yet; write p256, p384 or rsa2048",
            ),
            (
                "autocert_challenges: [dns-01]\n",
                "f:1 autocert_challenges: dns-01 is not built; write tls-alpn-01 or http-01, and give wildcard names a certificate by hand",
            ),
            (
                "autocert_email: nobody\n",
                "f:1 autocert_email: \"nobody\" is no e-mail address; write NAME@DOMAIN",
            ),
        ] {
            let problems = check_yaml(text).expect_err(text);
            assert!(problems.iter().any(|problem| problem == expected), "{text}\n{problems:#?}");
        }
    }

    #[test]
    fn the_secret_of_an_external_account_is_not_shown() {
        let text = "autocert: true\nautocert_eab_key_id: kid-1\nautocert_eab_mac_key: c2VjcmV0\n";
        let account = autocert(text).issuers.remove(0).external_account.unwrap();
        assert_eq!(account.mac_key, b"secret");
        assert!(!format!("{account:?}").contains("115"), "{account:?}");
    }

    #[test]
    fn staples_lie_in_the_store_whether_autocert_is_on_or_off() {
        let dir = |text: &str| check_yaml(text).unwrap().stapling.map(|stapling| stapling.dir);
        assert_eq!(dir("data_dir: /d\n"), Some("/d/autocert".into()));
        assert_eq!(dir("data_dir: /d\nautocert_dir: /a\n"), Some("/a".into()));
        assert_eq!(dir("ocsp_stapling: false\n"), None);
        let wrong = "f:1 ocsp_stapling: \"maybe\" is neither true nor false; write true or false";
        assert_eq!(check_yaml("ocsp_stapling: maybe\n").unwrap_err(), [wrong]);
    }

    #[test]
    fn proxies_are_read_as_curl_reads_them() {
        let proxy =
            read_proxy("http://user:pw@proxy.example:3128/", ".internal, ca.example").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.credentials.as_deref(), Some("user:pw"));
        for (host, through) in
            [("ca.example", false), ("x.internal", false), ("a.ca.example", false), ("other", true)]
        {
            assert_eq!(proxy.serves(host), through, "{host}");
        }
        assert_eq!(read_proxy("proxy", "").unwrap().port, 8080);
        assert!(!read_proxy("proxy", "*").unwrap().serves("x"));
        for wrong in ["https://p", "http://", "http://p:x"] {
            assert!(read_proxy(wrong, "").is_err(), "{wrong}");
        }
    }
}
