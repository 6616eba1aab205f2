//! Pure: the entries of `routes` to [`RouteConfig`]s, or every problem there is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::name::{Pattern, ServerName};

use super::check::{Checker, scalar_node};
use super::layers::{Entry, Node, Value};
use super::options::ROUTE_KEYS;
use super::problem::Origin;
use super::values::{Wrong, not_empty, read_bool, split_port};
use super::{
    Policy, ProxyVersion, RouteConfig, UpstreamAddress, UpstreamConfig, UpstreamTlsConfig,
};

/// The longest path of a Unix socket: sockaddr_un has 108 bytes, one of them for the final zero
/// (unix(7)).
const LONGEST_SOCKET_PATH: usize = 107;

impl Checker<'_> {
    pub(super) fn routes(&mut self) -> Vec<RouteConfig> {
        let Some(node) = self.layers.values.get("routes") else { return Vec::new() };
        let mut routes: Vec<RouteConfig> = Vec::new();
        let mut seen: HashMap<(Pattern, Option<u16>), (Origin, String)> = HashMap::new();
        for (at, item) in Self::items(node).into_iter().enumerate() {
            let key = format!("routes[{at}]");
            let route = match &item.value {
                Value::Map(entries) => self.route_map(item, &key, entries),
                Value::Scalar(text) => self.route_text(item, &key, text),
                Value::Unset | Value::List(_) => {
                    let wrong = ("is no route".into(), "write from: and to:".into());
                    self.problem(&item.origin, &key, wrong);
                    None
                }
            };
            let Some(route) = route else { continue };
            let host = (route.pattern.clone(), route.port);
            if let Some((origin, other)) = seen.get(&host) {
                let what = format!("{} is the host of {other} ({origin}) too", route.from);
                let wrong = (what, "keep one of the two routes".into());
                self.problem(&route.origin, &format!("{key}.from"), wrong);
            } else {
                seen.insert(host, (route.origin.clone(), key));
                routes.push(route);
            }
        }
        routes
    }

    /// FROM=TO, as flags and the environment have it.
    fn route_text(&mut self, node: &Node, key: &str, text: &str) -> Option<RouteConfig> {
        let Some((from, to)) = text.split_once('=') else {
            let remedy = "write FROM=TO, like https://app.example.com=tcp://127.0.0.1:8080";
            self.problem(&node.origin, key, (format!("{text:?} is no route"), remedy.into()));
            return None;
        };
        let entry =
            |key: &str, text| Entry { key: key.to_owned(), node: scalar_node(&node.origin, text) };
        self.route_map(node, key, &[entry("from", from), entry("to", to)])
    }

    fn route_map(&mut self, node: &Node, key: &str, entries: &[Entry]) -> Option<RouteConfig> {
        self.check_keys(key, entries, ROUTE_KEYS, &[]);
        let mut fields = Fields { checker: self, key, entries };
        let from = fields.checker.required(node, key, entries, "from", "write from: https://HOST");
        let to = fields.checker.required(node, key, entries, "to", "write to: tcp://HOST:PORT");
        let written = from.and_then(|from| {
            fields.checker.read(from, &format!("{key}.from"), |text| {
                read_from(text).map(|(pattern, port)| (text.to_owned(), pattern, port))
            })
        });
        let to = to.and_then(|to| fields.checker.upstreams(to, &format!("{key}.to")));
        let alpn = fields.node("alpn").map(|alpn| fields.checker.alpn(alpn, &fields.name("alpn")));
        let policy = fields.scalar("load_balancing_policy", |text| match text {
            "round_robin" => Ok(Policy::RoundRobin),
            "least_connections" => Ok(Policy::LeastConnections),
            _ => {
                let remedy = "write round_robin or least_connections";
                Err((format!("{text:?} is no policy"), remedy.into()))
            }
        });
        let send_proxy = fields.scalar("send_proxy", |text| match text {
            "v1" => Ok(ProxyVersion::V1),
            "v2" => Ok(ProxyVersion::V2),
            _ => Err((format!("{text:?} is no version"), "write v1 or v2".into())),
        });
        let tls = fields.upstream_tls();
        if let Some(to) = &to {
            fields.check_tls_has_a_use(to);
        }
        let (from, pattern, port) = written?;
        Some(RouteConfig {
            origin: node.origin.clone(),
            key: key.to_owned(),
            from,
            pattern,
            port,
            upstream: UpstreamConfig { to: to?, policy: policy.unwrap_or_default(), tls },
            send_proxy,
            alpn: alpn.unwrap_or_default(),
        })
    }

    fn alpn(&mut self, node: &Node, key: &str) -> Vec<Vec<u8>> {
        let read = |text: &str| match text {
            "" => Err(("has an empty protocol".into(), "write names like h2, http/1.1".into())),
            "acme-tls/1" => Err((
                "acme-tls/1 belongs to the CA's validation (RFC 8737), not to clients".into(),
                "leave it out".into(),
            )),
            long if long.len() > 255 => {
                Err(("a protocol is longer than 255 bytes".into(), "shorten it".into()))
            }
            protocol => Ok(protocol.as_bytes().to_vec()),
        };
        self.texts(node).iter().filter_map(|item| self.read(item, key, read)).collect()
    }

    fn upstreams(&mut self, node: &Node, key: &str) -> Option<Vec<UpstreamAddress>> {
        let items = self.texts(node);
        if items.is_empty() {
            let wrong = ("has no value".into(), "write tcp://HOST:PORT".into());
            self.problem(&node.origin, key, wrong);
        }
        // Every one of them is read, so that every problem is told.
        let read: Vec<_> = items.iter().map(|item| self.read(item, key, read_to)).collect();
        let mut upstreams: Vec<UpstreamAddress> = Vec::with_capacity(read.len());
        for upstream in read {
            let upstream = upstream?;
            if upstreams.contains(&upstream) {
                let wrong = (format!("{upstream} stands here twice"), "keep one".into());
                self.problem(&node.origin, key, wrong);
            }
            upstreams.push(upstream);
        }
        Some(upstreams).filter(|upstreams| !upstreams.is_empty())
    }

    /// The items of a list; one text with commas is a list, as it is for every other key.
    fn texts(&self, node: &Node) -> Vec<Node> {
        match &node.value {
            Value::Scalar(text) => {
                text.split(',').map(|part| scalar_node(&node.origin, part)).collect()
            }
            _ => Self::items(node).into_iter().cloned().collect(),
        }
    }
}

/// The keys of one route.
struct Fields<'c, 'l, 'e> {
    checker: &'c mut Checker<'l>,
    key: &'e str,
    entries: &'e [Entry],
}

impl<'e> Fields<'_, '_, 'e> {
    fn name(&self, field: &str) -> String {
        format!("{}.{field}", self.key)
    }

    fn node(&self, field: &str) -> Option<&'e Node> {
        self.entries.iter().find(|entry| entry.key == field).map(|entry| &entry.node)
    }

    fn scalar<T>(&mut self, field: &str, read: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let node = self.node(field)?;
        self.checker.read(node, &self.name(field), read)
    }

    fn path(&mut self, field: &str) -> Option<PathBuf> {
        self.scalar(field, |text| not_empty(text).map(PathBuf::from))
    }

    fn upstream_tls(&mut self) -> UpstreamTlsConfig {
        let custom_ca_file = self.path("tls_custom_ca_file");
        let server_name = self.scalar("tls_server_name", |text| {
            let remedy = "write one name, like example.com";
            ServerName::parse(text).map_err(|error| (format!("{text:?} {error}"), remedy.into()))
        });
        let skip_verify = self.scalar("tls_skip_verify", read_bool).unwrap_or(false);
        let pair = [self.path("tls_client_cert_file"), self.path("tls_client_key_file")];
        let written = ["tls_client_cert_file", "tls_client_key_file"]
            .map(|field| self.node(field).map(|node| node.origin.clone()));
        match &written {
            [Some(origin), None] => {
                let wrong = ("has no tls_client_key_file".into(), "name its private key".into());
                self.checker.problem(origin, &self.name("tls_client_cert_file"), wrong);
            }
            [None, Some(origin)] => {
                let wrong = ("has no tls_client_cert_file".into(), "name its chain".into());
                self.checker.problem(origin, &self.name("tls_client_key_file"), wrong);
            }
            _ => {}
        }
        let client_certificate = match pair {
            [Some(chain), Some(private_key)] => Some((chain, private_key)),
            _ => None,
        };
        UpstreamTlsConfig { custom_ca_file, server_name, skip_verify, client_certificate }
    }

    /// Who writes how to verify an upstream believes that it is verified.
    fn check_tls_has_a_use(&mut self, to: &[UpstreamAddress]) {
        if to.iter().any(|address| matches!(address, UpstreamAddress::Tls { .. })) {
            return;
        }
        let unused = self.entries.iter().find(|entry| entry.key.starts_with("tls_"));
        if let Some(entry) = unused {
            let what = "has no effect: this route has no tls:// upstream".to_owned();
            let remedy = "write to: tls://HOST:PORT, or drop the key".to_owned();
            self.checker.problem(&entry.node.origin, &self.name(&entry.key), (what, remedy));
        }
    }
}

fn read_from(text: &str) -> Result<(Pattern, Option<u16>), Wrong> {
    let wrong = |what: String, remedy: &str| Err((what, remedy.to_owned()));
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err((format!("{text:?} has no scheme"), format!("write https://{text}")));
    };
    if scheme != "https" {
        return wrong(format!("{scheme:?} is no scheme for clients"), "write https://HOST");
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return wrong(
            format!("{text:?} is more than a host"),
            "write https://HOST or https://HOST:PORT, without path or user",
        );
    }
    let (host, port) = split_port(authority)?;
    if host.is_empty() {
        return wrong(format!("{text:?} has no host"), "write https://HOST");
    }
    match Pattern::parse(host) {
        Ok(pattern) => Ok((pattern, port)),
        Err(error) => wrong(format!("{host:?} {error}"), "write a name like app.example.com"),
    }
}

fn read_to(text: &str) -> Result<UpstreamAddress, Wrong> {
    let wrong = |what: String, remedy: String| Err((what, remedy));
    if let Some(path) = text.strip_prefix("unix:") {
        return read_socket_path(text, path);
    }
    let Some((scheme, authority)) = text.split_once("://") else {
        return wrong(format!("{text:?} has no scheme"), format!("write {}", as_tcp(text, 80)));
    };
    match scheme {
        "tcp" | "tls" => {}
        "http" | "https" => {
            let what = format!("{scheme}:// is no kind of upstream: bytes are relayed as they are");
            let usual_port = if scheme == "http" { 80 } else { 443 };
            let instead = as_tcp(authority, usual_port);
            let instead = match scheme {
                "https" => instead.replace("tcp://", "tls://"),
                _ => instead,
            };
            return wrong(what, format!("write {instead}"));
        }
        _ => {
            let what = format!("{scheme:?} is no kind of upstream");
            return wrong(what, "write tcp://HOST:PORT, tls://HOST:PORT or unix:/PATH".into());
        }
    }
    if authority.contains(['/', '?', '#', '@']) {
        return wrong(
            format!("{text:?} is more than host and port"),
            format!("write {scheme}://HOST:PORT"),
        );
    }
    let (host, port) = split_port(authority)?;
    if port == Some(0) {
        return wrong(
            format!("{text:?} has port 0"),
            "write the port that the upstream listens on".into(),
        );
    }
    let Some(port) = port else {
        let usual_port = if scheme == "tls" { 443 } else { 80 };
        let instead = as_tcp(authority, usual_port).replace("tcp://", &format!("{scheme}://"));
        return wrong(format!("{text:?} has no port"), format!("write {instead}"));
    };
    let host = match ServerName::parse(host) {
        Ok(name) => name.to_string(),
        Err(error) => {
            return wrong(format!("{host:?} {error}"), format!("write {scheme}://HOST:PORT"));
        }
    };
    Ok(match scheme {
        "tls" => UpstreamAddress::Tls { host, port },
        _ => UpstreamAddress::Tcp { host, port },
    })
}

/// `/path`, or `///path` as a URL has it.
fn read_socket_path(text: &str, path: &str) -> Result<UpstreamAddress, Wrong> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err((
            format!("{text:?} names no socket"),
            "write unix:/PATH, from the root of the file system".into(),
        ));
    }
    if path.len() > LONGEST_SOCKET_PATH {
        let what =
            format!("{text:?} is longer than the {LONGEST_SOCKET_PATH} bytes of a socket's path");
        return Err((what, "choose a shorter path".into()));
    }
    Ok(UpstreamAddress::Unix(Path::new(path).to_owned()))
}

/// What to write instead of an upstream that is nearly right: with its own port, or the usual one.
fn as_tcp(authority: &str, usual_port: u16) -> String {
    let host = authority.split(['/', '?', '#']).next().unwrap_or_default();
    match split_port(host) {
        Ok((_, Some(_))) => format!("tcp://{host}"),
        Ok(("", None)) | Err(_) => "tcp://HOST:PORT".to_owned(),
        Ok((host, None)) => format!("tcp://{host}:{usual_port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::values::read_address;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn upstreams_read_back_as_they_are_shown() {
        for (text, shown) in [
            ("tcp://10.0.0.5:80", "tcp://10.0.0.5:80"),
            ("tls://API.example:8443", "tls://api.example:8443"),
            ("tls://[::1]:443", "tls://[::1]:443"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:///run/app.sock", "unix:/run/app.sock"),
        ] {
            let read = read_to(text).unwrap();
            assert_eq!(read.to_string(), shown, "{text}");
            assert_eq!(read_to(shown).unwrap(), read);
        }
    }

    proptest! {
        #[test]
        fn routes_of_any_text_do_not_panic(text in "[a-z:/.\\[\\]*@=?#0-9]{0,40}") {
            let _ = (read_from(&text), read_to(&text), read_address(&text));
            let _ = (read_from(&format!("https://{text}")), read_to(&format!("tcp://{text}")));
            let _ = (read_to(&format!("tls://{text}")), read_to(&format!("unix:{text}")));
        }
    }
}
