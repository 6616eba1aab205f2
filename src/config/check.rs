//! Pure: layered values to a [`Config`], or every problem there is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::{CipherSuite, NamedGroup, ProtocolVersion};

use crate::name::ServerName;

use super::layers::{Entry, Layers, Node, Value, not_built, unknown};
use super::options::{CERTIFICATE_KEYS, nearest};
use super::problem::{Origin, Problem};
use super::values::{
    GROUPS, SUITES_1_2, SUITES_1_3, Wrong, named, not_empty, read_address, read_core_range,
    read_duration, read_log_level, read_network,
};
use super::{CertificatePlace, CertificateSource, Config, ListenAddress, LogFormat, LogLevel};

/// Checks everything.
///
/// # Errors
/// All problems, those of the layers first.
pub fn check(layers: &Layers) -> Result<Config, Vec<Problem>> {
    let mut checker = Checker { layers, problems: layers.problems.clone() };
    let config = checker.config();
    if checker.problems.is_empty() { Ok(config) } else { Err(checker.problems) }
}

pub(super) struct Checker<'a> {
    pub(super) layers: &'a Layers,
    pub(super) problems: Vec<Problem>,
}

impl Checker<'_> {
    fn config(&mut self) -> Config {
        let nothing_configured = self.layers.nothing_configured;
        let usual_address = if nothing_configured {
            ListenAddress::Localhost { port: 8443 }
        } else {
            ListenAddress::Every { port: 443 }
        };
        let address = self.list("address", read_address);
        let tls_cipher_suites = self.list("tls_cipher_suites", |text| {
            let names = SUITES_1_3.iter().chain(&SUITES_1_2);
            named(text, names.copied(), "cipher suite")
        });
        let tls_min_version = self.scalar("tls_min_version", |text| match text {
            "1.2" => Ok(ProtocolVersion::TLSv1_2),
            "1.3" => Ok(ProtocolVersion::TLSv1_3),
            _ => Err((format!("{text:?} is no version"), "write 1.2 or 1.3".into())),
        });
        let tls_min_version = tls_min_version.unwrap_or(ProtocolVersion::TLSv1_2);
        let tls_groups = self.list("tls_groups", |text| named(text, GROUPS, "group"));
        self.check_versions(tls_min_version, tls_cipher_suites.as_deref(), tls_groups.as_deref());
        let address = address.unwrap_or_else(|| vec![usual_address]);
        let http_redirect_addr = self.scalar("http_redirect_addr", read_address);
        self.check_places(&address, http_redirect_addr);
        let seconds = Duration::from_secs;
        Config {
            address,
            http_redirect_addr,
            accept_proxy: self.list("accept_proxy", read_network).unwrap_or_default(),
            cores: self.cores(),
            data_dir: self
                .scalar("data_dir", |text| not_empty(text).map(PathBuf::from))
                .unwrap_or_else(|| self.layers.usual_data_dir.clone()),
            certificates: self.certificates(),
            default_server_name: self.scalar("default_server_name", |text| {
                ServerName::parse(text).map_err(|error| {
                    (format!("{text:?} {error}"), "write one name, like example.com".into())
                })
            }),
            routes: self.routes(),
            tls_min_version,
            tls_cipher_suites,
            tls_groups,
            ticket_rotation: self.duration("ticket_rotation", seconds(12 * 3600)),
            autocert: self.autocert(),
            stapling: self.stapling(),
            handshake_timeout: self.duration("handshake_timeout", seconds(10)),
            connect_timeout: self.duration("connect_timeout", seconds(5)),
            idle_timeout: self.duration("idle_timeout", seconds(600)),
            shutdown_timeout: self.duration("shutdown_timeout", seconds(30)),
            log_format: self.scalar("log_format", |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err((format!("{text:?} is no format"), "write text or json".into())),
            }),
            log_level: self.scalar("log_level", read_log_level).unwrap_or(LogLevel::Info),
            nothing_configured,
            unopened_ports: Vec::new(),
        }
    }

    pub(super) fn problem(&mut self, origin: &Origin, key: &str, (what, remedy): Wrong) {
        self.problems.push(Problem::new(origin, key, what, remedy));
    }

    /// One value, if it was written and is right.
    pub(super) fn scalar<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let node = self.layers.values.get(key)?;
        self.read(node, key, read)
    }

    pub(super) fn read<T>(
        &mut self,
        node: &Node,
        key: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let wrong = match &node.value {
            Value::Scalar(text) => match read(text) {
                Ok(value) => return Some(value),
                Err(wrong) => wrong,
            },
            Value::Unset => ("has no value".into(), "write one, or drop the key".into()),
            Value::List(_) => ("is a list".into(), "write one value".into()),
            Value::Map(_) => ("is a map".into(), "write one value".into()),
        };
        self.problem(&node.origin, key, wrong);
        None
    }

    /// The items of a list, or the one value that stands for a list of one.
    pub(super) fn items(node: &Node) -> Vec<&Node> {
        match &node.value {
            Value::List(items) => items.iter().collect(),
            Value::Unset => Vec::new(),
            Value::Scalar(_) | Value::Map(_) => vec![node],
        }
    }

    /// A list of values; written as one text with commas, it is a list too.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let node = self.layers.values.get(key)?;
        let mut values = Vec::new();
        for item in Self::items(node) {
            let parts: Vec<Node> = match &item.value {
                Value::Scalar(text) => {
                    text.split(',').map(|part| scalar_node(&item.origin, part)).collect()
                }
                _ => vec![item.clone()],
            };
            for part in &parts {
                values.extend(self.read(part, key, &read));
            }
        }
        if values.is_empty() {
            if self.problems.iter().all(|problem| problem.key != key) {
                let wrong = ("is an empty list".into(), "write something, or drop the key".into());
                self.problem(&node.origin, key, wrong);
            }
            return None;
        }
        Some(values)
    }

    fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        self.scalar(key, read_duration).unwrap_or(default)
    }

    fn cores(&mut self) -> Option<Vec<usize>> {
        let ranges = self.list("cores", read_core_range)?;
        let mut cores: Vec<usize> = ranges.into_iter().flatten().collect();
        cores.sort_unstable();
        cores.dedup();
        Some(cores)
    }

    /// No two listeners may be in each other's way.
    fn check_places(&mut self, address: &[ListenAddress], redirect: Option<ListenAddress>) {
        let tls = address.iter().map(|place| ("address", *place));
        let mut before: Vec<ListenAddress> = Vec::new();
        for (key, place) in tls.chain(redirect.map(|place| ("http_redirect_addr", place))) {
            if let Some(other) = before.iter().find(|other| other.overlaps(place)) {
                let what = format!("{place} is taken by {other} already");
                let remedy = "keep one of the two, or give them different ports";
                self.problem(&self.layers.origin(key), key, (what, remedy.into()));
            }
            before.push(place);
        }
    }

    /// A combination must leave a version that a client can reach.
    fn check_versions(
        &mut self,
        min: ProtocolVersion,
        suites: Option<&[CipherSuite]>,
        groups: Option<&[NamedGroup]>,
    ) {
        // After a typo in either list, what it leaves over says nothing.
        let lists = ["tls_cipher_suites", "tls_groups"];
        if self.problems.iter().any(|problem| lists.contains(&problem.key.as_str())) {
            return;
        }
        let Some(suites) = suites else { return };
        let has_1_3 = SUITES_1_3.iter().any(|(_, suite)| suites.contains(suite));
        if min == ProtocolVersion::TLSv1_3 && !has_1_3 {
            let origin = self.layers.origin("tls_cipher_suites");
            let what = "has no suite of TLS 1.3, which tls_min_version asks for";
            let wrong = (what.into(), "add TLS_AES_128_GCM_SHA256".into());
            self.problem(&origin, "tls_cipher_suites", wrong);
        } else if let Some(groups) = groups
            && !has_1_3
            && groups.iter().all(|group| *group == NamedGroup::X25519MLKEM768)
        {
            let origin = self.layers.origin("tls_groups");
            let what = "has no group of TLS 1.2, the only version that tls_cipher_suites leaves";
            self.problem(&origin, "tls_groups", (what.into(), "add X25519".into()));
        }
    }

    fn certificates(&mut self) -> Vec<CertificateSource> {
        let Some(node) = self.layers.values.get("certificates") else { return Vec::new() };
        let mut sources = Vec::new();
        for (at, item) in Self::items(node).into_iter().enumerate() {
            let key = format!("certificates[{at}]");
            let place = match &item.value {
                Value::Scalar(text) => self.certificate_text(item, &key, text),
                Value::Map(entries) => self.certificate_pair(item, &key, entries),
                Value::Unset | Value::List(_) => {
                    let remedy = "write a directory, a file, or cert: and key:";
                    self.problem(&item.origin, &key, ("is no entry".into(), remedy.into()));
                    None
                }
            };
            if let Some(place) = place {
                sources.push(CertificateSource { origin: item.origin.clone(), key, place });
            }
        }
        sources
    }

    /// A directory or a combined file, or CERT:KEY as flags and the environment have it.
    fn certificate_text(&mut self, node: &Node, key: &str, text: &str) -> Option<CertificatePlace> {
        match text.split_once(':') {
            _ if text.is_empty() => {
                let remedy = "write a directory, a file, or CERT:KEY";
                self.problem(&node.origin, key, ("is empty".into(), remedy.into()));
                None
            }
            None => Some(CertificatePlace::Path(text.into())),
            Some((cert, private_key)) if !cert.is_empty() && !private_key.is_empty() => {
                let (cert, key) = (cert.into(), private_key.into());
                Some(CertificatePlace::Pair { cert, key, ocsp: None })
            }
            Some(_) => {
                let what = format!("{text:?} is no pair");
                self.problem(&node.origin, key, (what, "write CERT:KEY, both files".into()));
                None
            }
        }
    }

    fn certificate_pair(
        &mut self,
        node: &Node,
        key: &str,
        entries: &[Entry],
    ) -> Option<CertificatePlace> {
        self.check_keys(key, entries, CERTIFICATE_KEYS, &[]);
        let path = |text: &str| not_empty(text).map(|text| Path::new(text).to_owned());
        let cert = self
            .required(node, key, entries, "cert", "write cert: FILE")
            .and_then(|cert| self.read(cert, &format!("{key}.cert"), path));
        let mut optional = |name: &str| {
            let entry = entries.iter().find(|entry| entry.key == name)?;
            Some(self.read(&entry.node, &format!("{key}.{name}"), path))
        };
        let (private_key, ocsp) = (optional("key"), optional("ocsp"));
        let cert = cert?;
        // Without one of its own, the private key is in the chain's file.
        let key = private_key.unwrap_or_else(|| Some(cert.clone()))?;
        Some(CertificatePlace::Pair { cert, key, ocsp: ocsp.flatten() })
    }

    pub(super) fn check_keys(
        &mut self,
        key: &str,
        entries: &[Entry],
        valid: &[&str],
        not_yet: &[&str],
    ) {
        for entry in entries {
            let name = entry.key.as_str();
            let origin = &entry.node.origin;
            let mut problem = if valid.contains(&name) {
                continue;
            } else if not_yet.contains(&name) {
                not_built(origin, name)
            } else {
                unknown(origin, name, valid.iter().copied())
            };
            if nearest(name, valid.iter().copied()).is_none() && !not_yet.contains(&name) {
                problem.remedy = format!("the keys here are {}", valid.join(", "));
            }
            problem.key = format!("{key}.{name}");
            self.problems.push(problem);
        }
    }

    pub(super) fn required<'e>(
        &mut self,
        node: &Node,
        key: &str,
        entries: &'e [Entry],
        name: &str,
        remedy: &str,
    ) -> Option<&'e Node> {
        let found = entries.iter().find(|entry| entry.key == name);
        if found.is_none() {
            self.problem(&node.origin, key, (format!("has no {name}"), remedy.into()));
        }
        found.map(|entry| &entry.node)
    }
}

pub(super) fn scalar_node(origin: &Origin, text: &str) -> Node {
    Node { origin: origin.clone(), value: Value::Scalar(text.trim().to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::super::{Policy, ProxyVersion, UpstreamAddress, yaml};
    use super::*;
    use crate::name::Pattern;
    use proptest::prelude::*;

    fn check_yaml(text: &str) -> Result<Config, Vec<String>> {
        let mut layers = Layers { usual_data_dir: "/data".into(), ..Layers::default() };
        for Entry { key, node } in yaml::read(Path::new("f"), text).expect("valid YAML") {
            let option = super::super::options::find(&key).expect("a key");
            if node.value != Value::Unset {
                layers.values.insert(option.key, node);
            }
        }
        check(&layers).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let config = check(&Layers::default()).unwrap();
        assert_eq!(config.address, [ListenAddress::Every { port: 443 }]);
        assert_eq!(config.idle_timeout, Duration::from_secs(600));
        let first = Layers { nothing_configured: true, ..Layers::default() };
        assert_eq!(check(&first).unwrap().address, [ListenAddress::Localhost { port: 8443 }]);
    }

    #[test]
    fn a_whole_file_is_understood() {
        let config = check_yaml(
            "address: [':443', '[::1]:8443', 'localhost:9']\ncores: 0,2-4\ncertificates:\n- /certs\n- cert: a.pem\n  key: b.pem\n\
             routes:\n- from: https://Bücher.example:8443\n  to: tcp://[::1]:80\n  alpn: [h2]\n- from: https://*\n  to: [tcp://db:5432]\n\
             ticket_rotation: 7d\nlog_format: json\ntls_min_version: 1.3\ntls_groups: [p-256, X25519]\n",
        )
        .unwrap();
        assert_eq!(config.address.len(), 3);
        assert_eq!(config.cores, Some(vec![0, 2, 3, 4]));
        assert_eq!(config.certificates[0].place, CertificatePlace::Path("/certs".into()));
        assert_eq!(config.certificates[1].key, "certificates[1]");
        assert_eq!(config.routes[0].pattern.to_string(), "xn--bcher-kva.example");
        assert_eq!(config.routes[0].port, Some(8443));
        assert_eq!(config.routes[0].upstream.to[0].to_string(), "tcp://[::1]:80");
        assert_eq!(config.routes[1].pattern, Pattern::Any);
        assert_eq!(config.tls_groups, Some(vec![NamedGroup::secp256r1, NamedGroup::X25519]));
    }

    #[test]
    fn every_mistake_is_named_with_its_place_and_a_remedy() {
        for (text, expected) in [
            (
                "address: 443\n",
                "f:1 address: \"443\" has no port; write HOST:PORT or :PORT, like :443",
            ),
            ("address: ::1\n", "f:1 address: \"::1\" has no port; write [::1]:443"),
            (
                "address: example.com:443\n",
                "f:1 address: \"example.com:443\" names no address; write an IP address, localhost, or nothing before the colon",
            ),
            ("address: '[::1]'\n", "f:1 address: \"[::1]\" has no port; write [::1]:443"),
            ("address: localhost\n", "f:1 address: \"localhost\" has no port; write localhost:443"),
            ("address: 1.2.3.4\n", "f:1 address: \"1.2.3.4\" has no port; write 1.2.3.4:443"),
            (
                "address: ':+443'\n",
                "f:1 address: \":+443\" has no valid port; write a number up to 65535 after the colon",
            ),
            (
                "address: [':443', '127.0.0.1:443']\n",
                "f:1 address: 127.0.0.1:443 is taken by :443 already; keep one of the two, or give them different ports",
            ),
            (
                "address: [':443']\nhttp_redirect_addr: '[::]:443'\n",
                "f:2 http_redirect_addr: [::]:443 is taken by :443 already; keep one of the two, or give them different ports",
            ),
            ("address: []\n", "f:1 address: is an empty list; write something, or drop the key"),
            ("cores: 3-1\n", "f:1 cores: \"3-1\" is no core; write numbers like 0,2-5"),
            (
                "idle_timeout: 10\n",
                "f:1 idle_timeout: \"10\" has no unit; write a number and ms, s, m, h or d, like 30s",
            ),
            (
                "idle_timeout: 0s\n",
                "f:1 idle_timeout: \"0s\" is no time at all; write a number and ms, s, m, h or d, like 30s",
            ),
            ("idle_timeout: [1s]\n", "f:1 idle_timeout: is a list; write one value"),
            (
                "tls_min_version: 1.1\n",
                "f:1 tls_min_version: \"1.1\" is no version; write 1.2 or 1.3",
            ),
            (
                "tls_min_version: 1.3\ntls_cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n",
                "f:2 tls_cipher_suites: has no suite of TLS 1.3, which tls_min_version asks for; add TLS_AES_128_GCM_SHA256",
            ),
            (
                "tls_groups: [X25519MLKEM768]\ntls_cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n",
                "f:1 tls_groups: has no group of TLS 1.2, the only version that tls_cipher_suites leaves; add X25519",
            ),
            (
                "tls_groups: [P-521]\n",
                "f:1 tls_groups: \"P-521\" is no group that is supported; choose of X25519MLKEM768, X25519, secp256r1, secp384r1, P-256, P-384",
            ),
            (
                "log_level: loud\n",
                "f:1 log_level: \"loud\" is no level; write error, warn, info, debug or trace",
            ),
            ("data_dir: ''\n", "f:1 data_dir: is empty; write a path, or drop the key"),
            ("certificates:\n- {}\n", "f:2 certificates[0]: has no cert; write cert: FILE"),
            (
                "certificates:\n- cert: a\n  ocsp: b\n  kye: c\n",
                "f:4 certificates[0].kye: is no key; did you mean key?",
            ),
            (
                "routes:\n- from: https://a.example\n",
                "f:2 routes[0]: has no to; write to: tcp://HOST:PORT",
            ),
            (
                "routes:\n- from: a.example\n  to: tcp://b:1\n",
                "f:2 routes[0].from: \"a.example\" has no scheme; write https://a.example",
            ),
            (
                "routes:\n- from: https://a.example\n  to: 10.0.0.5\n",
                "f:3 routes[0].to: \"10.0.0.5\" has no scheme; write tcp://10.0.0.5:80",
            ),
            (
                "routes:\n- from: https://a.example\n  to: https://b/x\n",
                "f:3 routes[0].to: https:// is no kind of upstream: bytes are relayed as they are; write tls://b:443",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tcp://b:0\n",
                "f:3 routes[0].to: \"tcp://b:0\" has port 0; write the port that the upstream listens on",
            ),
            (
                "routes:\n- from: https://a.example\n  zzzzzz: 1\n",
                "f:3 routes[0].zzzzzz: is no key; the keys here are from, to, alpn, load_balancing_policy, send_proxy, tls_custom_ca_file, tls_server_name, tls_skip_verify, tls_client_cert_file, tls_client_key_file",
            ),
            (
                "routes:\n- from: http://a.example\n  to: tcp://b:1\n",
                "f:2 routes[0].from: \"http\" is no scheme for clients; write https://HOST",
            ),
            (
                "routes:\n- from: https://a.example/x\n  to: tcp://b:1\n",
                "f:2 routes[0].from: \"https://a.example/x\" is more than a host; write https://HOST or https://HOST:PORT, without path or user",
            ),
            (
                "routes:\n- from: https://a.*.b\n  to: tcp://b:1\n",
                "f:2 routes[0].from: \"a.*.b\" may have * only as its whole first label, like *.example.com; write a name like app.example.com",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tcp://b\n",
                "f:3 routes[0].to: \"tcp://b\" has no port; write tcp://b:80",
            ),
            (
                "routes:\n- from: https://a.example\n  to: 10.0.0.5:80\n",
                "f:3 routes[0].to: \"10.0.0.5:80\" has no scheme; write tcp://10.0.0.5:80",
            ),
            (
                "routes:\n- from: https://a.example\n  to: http://b:80/\n",
                "f:3 routes[0].to: http:// is no kind of upstream: bytes are relayed as they are; write tcp://b:80",
            ),
            (
                "routes:\n- from: https://a.example\n  to: unix:run/x\n",
                "f:3 routes[0].to: \"unix:run/x\" names no socket; write unix:/PATH, from the root of the file system",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tls://b\n",
                "f:3 routes[0].to: \"tls://b\" has no port; write tls://b:443",
            ),
            (
                "routes:\n- from: https://a.example\n  to: [tcp://b:1, tcp://b:1]\n",
                "f:3 routes[0].to: tcp://b:1 stands here twice; keep one",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tcp://b:1\n  load_balancing_policy: random\n",
                "f:4 routes[0].load_balancing_policy: \"random\" is no policy; write round_robin or least_connections",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tcp://b:1\n  tls_skip_verify: true\n",
                "f:4 routes[0].tls_skip_verify: has no effect: this route has no tls:// upstream; write to: tls://HOST:PORT, or drop the key",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tls://b:1\n  tls_skip_verify: maybe\n",
                "f:4 routes[0].tls_skip_verify: \"maybe\" is neither true nor false; write true or false",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tls://b:1\n  tls_client_cert_file: c\n",
                "f:4 routes[0].tls_client_cert_file: has no tls_client_key_file; name its private key",
            ),
            (
                "accept_proxy: 10.0.0.1/8\n",
                "f:1 accept_proxy: \"10.0.0.1/8\" is an address within a network; write 10.0.0.0/8 for the network",
            ),
            (
                "accept_proxy: [localhost]\n",
                "f:1 accept_proxy: \"localhost\" is no network; write one like 10.0.0.0/8 or fd00::/8",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tcp://b:1\n- from: https://A.EXAMPLE\n  to: tcp://c:1\n",
                "f:4 routes[1].from: https://A.EXAMPLE is the host of routes[0] (f:2) too; keep one of the two routes",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tcp://b:1\n  send_proxy: v3\n",
                "f:4 routes[0].send_proxy: \"v3\" is no version; write v1 or v2",
            ),
            (
                "routes:\n- form: https://a.example\n  to: tcp://b:1\n",
                "f:2 routes[0].form: is no key; did you mean from?",
            ),
            (
                "routes:\n- from: https://a.example\n  to: tcp://b:1\n  alpn: [acme-tls/1]\n",
                "f:4 routes[0].alpn: acme-tls/1 belongs to the CA's validation (RFC 8737), not to clients; leave it out",
            ),
            (
                "default_server_name: '*.example.com'\n",
                "f:1 default_server_name: \"*.example.com\" is neither a DNS name nor an IP address; write one name, like example.com",
            ),
        ] {
            let problems = check_yaml(text).expect_err(text);
            assert!(problems.iter().any(|problem| problem == expected), "{text}\n{problems:#?}");
        }
    }

    #[test]
    fn all_problems_come_at_once() {
        for (text, count) in [
            ("address: x\ncores: y\nidle_timeout: z\n", 3),
            ("certificates:\n- {}\n", 1),
            ("routes:\n- to: tcp://b\n  send_proxy: v3\n  alpn: ['']\n", 4),
            // One typo is one problem, whatever else it leaves undone.
            ("tls_min_version: 1.3\ntls_cipher_suites: [TLS_AES_128_GCM_SHA25]\n", 1),
        ] {
            let problems = check_yaml(text).expect_err(text);
            assert_eq!(problems.len(), count, "{text}\n{problems:#?}");
        }
    }

    #[test]
    fn an_upstream_is_understood_with_all_its_keys() {
        let text = "accept_proxy: 10.0.0.0/8, ::1\nhttp_redirect_addr: ':80'\nroutes:\n- from: https://a\n  to:\n  - tls://b:443\n  - unix:/run/c\n  \
                    load_balancing_policy: least_connections\n  send_proxy: v2\n  tls_skip_verify: yes\n  tls_server_name: D.example\n  \
                    tls_custom_ca_file: /ca\n  tls_client_cert_file: /cert\n  tls_client_key_file: /key\n";
        let config = check_yaml(text).unwrap();
        let networks: Vec<_> = config.accept_proxy.iter().map(ToString::to_string).collect();
        assert_eq!(networks, ["10.0.0.0/8", "::1/128"]);
        assert_eq!(config.http_redirect_addr, Some(ListenAddress::Every { port: 80 }));
        let route = &config.routes[0];
        assert_eq!(route.send_proxy, Some(ProxyVersion::V2));
        let upstream = &route.upstream;
        assert_eq!(upstream.policy, Policy::LeastConnections);
        assert_eq!(
            upstream.to,
            [
                UpstreamAddress::Tls { host: "b".into(), port: 443 },
                UpstreamAddress::Unix("/run/c".into()),
            ]
        );
        let tls = &upstream.tls;
        assert!(tls.skip_verify);
        assert_eq!(tls.server_name, ServerName::parse("d.example").ok());
        assert_eq!(tls.custom_ca_file, Some("/ca".into()));
        assert_eq!(tls.client_certificate, Some(("/cert".into(), "/key".into())));
    }

    #[test]
    fn protocols_may_stand_in_one_text() {
        let text = "routes:\n- from: https://a\n  to: tcp://b:1\n  alpn: h2, http/1.1\n";
        let config = check_yaml(text).unwrap();
        assert_eq!(config.routes[0].alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(key in 0usize..16, text in "\\PC{0,30}") {
            let option = &super::super::options::OPTIONS[key];
            let origin = Origin::Environment("X".into());
            for value in [
                Value::Scalar(text.clone()),
                Value::List(vec![Node { origin: origin.clone(), value: Value::Scalar(text.clone()) }]),
                Value::Map(vec![Entry { key: text.clone(), node: Node { origin: origin.clone(), value: Value::Scalar(text.clone()) } }]),
            ] {
                let mut layers = Layers::default();
                layers.values.insert(option.key, Node { origin: origin.clone(), value });
                let _ = check(&layers);
            }
        }
    }
}
