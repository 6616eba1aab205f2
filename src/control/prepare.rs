//! From a checked configuration to what is served by it: certificates, routes and settings.
//!
//! Start-up, reload and `ringgate check` share this path. Nothing that is served changes here: the caller
//! publishes the outcome, or reports the problems and goes on with what there was.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Moment;
use crate::config::autocert::UntilIssued;
use crate::config::problem::{Origin, Problem};
use crate::config::{self, Config, UpstreamConfig};
use crate::name::{Pattern, ServerName};
use crate::observe::flood::shortened;
use crate::snapshot::{
    EdgeSettings, NameMap, ProxyVersion, Route, Routes, Target, TlsSettings, UpstreamId,
};

use super::autocert::names::managed;
use super::autocert::prepared::{PreparedAutocert, prepare_autocert};
use super::certified::Certified;
use super::inventory::Inventory;
use super::load::load;
use super::local_ca::{LocalCa, Unusable};
use super::precedence::Covering;
use super::upstream_tls::UpstreamTlsPool;
use super::upstreams::PreparedUpstream;

/// Everything that a snapshot is built from, but for the ticket keys and the upstreams' addresses.
pub struct Prepared {
    pub settings: Arc<EdgeSettings>,
    /// What the operator's files hold.
    pub inventory: Inventory,
    /// What of it is served.
    pub by_hand: Vec<Arc<Certified>>,
    /// Patterns that only the local CA serves.
    pub local_names: Vec<Pattern>,
    pub local: Vec<Arc<Certified>>,
    pub local_ca: Option<LocalCa>,
    pub autocert: Option<Arc<PreparedAutocert>>,
    pub routes: Arc<Routes>,
    /// Indexed by `UpstreamId`.
    pub upstreams: Vec<PreparedUpstream>,
    /// Kept so that equal settings stay one `Arc` across reloads: workers know them by address.
    pub tls_settings: Vec<Arc<TlsSettings>>,
    pub warnings: Vec<String>,
}

/// What preparing may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Opens the local CA, making it if there is none, and issues its leaves.
    Serve,
    /// Renews the local CA's leaves, and gives autocert the names that are its by now, with the certificates by
    /// hand as they were: their files are not looked at, nor those of routes, which stay as they are.
    Renew,
    /// Changes nothing on disk.
    Check,
}

/// Prepares `config` for listeners on `ports`. `previous` lends what has not changed.
///
/// # Errors
/// Every certificate that cannot be served and, unless it only checks, a local CA that cannot be used.
pub fn prepare(
    config: &Config,
    ports: &[u16],
    previous: Option<&Prepared>,
    mode: Mode,
    threads: usize,
    now: Moment,
) -> Result<Prepared, Vec<Problem>> {
    let known = previous.map(|previous| previous.inventory.clone()).unwrap_or_default();
    let mut problems = Vec::new();
    let mut built = BuiltRoutes::default();
    if mode != Mode::Renew {
        match build_routes(config, ports, previous) {
            Ok(routes) => built = routes,
            Err(wrong) => problems = wrong,
        }
    }
    let inventory = match mode {
        Mode::Renew => known,
        Mode::Serve | Mode::Check => {
            let inventory = load(&config.certificates, threads, &known, now);
            problems.extend(inventory.problems());
            inventory
        }
    };
    let by_hand = inventory.certified(|one| one.is_valid(now));
    let mut warnings = shortened(&inventory.warnings(now), |_| "certificates");
    warnings.append(&mut built.warnings);

    let covering = Covering::new(&by_hand);
    let mut local_names: Vec<Pattern> =
        served_names(config).into_iter().filter(|pattern| !covering.covers(pattern)).collect();
    let mut autocert = None;
    let mut meanwhile = Vec::new();
    if let Some(settings) = &config.autocert {
        let managed = managed(config, settings, &by_hand, now);
        for (pattern, why) in &managed.refused {
            let is_wildcard = matches!(pattern, Pattern::Wildcard(_));
            if is_wildcard && mode == Mode::Check {
                let what = format!("{pattern} {why}");
                let (what, remedy) = what.split_once("; ").unwrap_or((&what, ""));
                problems.push(Problem::new(&Origin::Default, "autocert", what, remedy));
            } else {
                warnings.push(format!("{pattern} {why}"));
            }
        }
        if config.routes.is_empty() && settings.hosts.is_empty() {
            warnings.push(
                "autocert is on and no name needs a certificate: write a route, or list names under autocert_hosts".into(),
            );
        }
        let is_managed = |pattern: &Pattern| match pattern {
            Pattern::Exact(name) => managed.names.binary_search(name).is_ok(),
            Pattern::Wildcard(_) | Pattern::Any => false,
        };
        (meanwhile, local_names) = local_names.into_iter().partition(is_managed);
        if settings.until_issued == UntilIssued::Reject {
            meanwhile.clear();
        }
        let writes = mode != Mode::Check && problems.is_empty();
        match prepare_autocert(settings, managed.names, writes, &mut warnings) {
            Ok(prepared) => autocert = Some(Arc::new(prepared)),
            // The local CA's leaves are renewed none the less.
            Err(problem) if mode == Mode::Renew => {
                warnings.push(problem.to_string());
                autocert = previous.and_then(|previous| previous.autocert.clone());
            }
            Err(problem) => problems.push(problem),
        }
    }
    let of_local_names: Vec<_> = local_names.iter().filter_map(warn_of_local_name).collect();
    warnings.extend(shortened(&of_local_names, |_| "names that the local CA serves"));
    local_names.retain(|pattern| *pattern != Pattern::Any);
    local_names.extend(meanwhile);

    let mut local_ca = None;
    let mut local = Vec::new();
    // With problems nothing comes into force, so nothing is made for it either.
    if mode != Mode::Check && problems.is_empty() && !local_names.is_empty() {
        let dir = config.data_dir.join("local-ca");
        let before = previous.and_then(|previous| previous.local_ca.as_ref());
        match issue_local(&dir, &local_names, before, now) {
            Ok(Issued { ca, leaves, notes }) => {
                local_ca = Some(ca);
                local = leaves;
                warnings.extend(notes);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Prepared {
        settings: Arc::new(EdgeSettings {
            handshake_timeout: config.handshake_timeout,
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            default_server_name: config.default_server_name.clone(),
            accept_proxy: config.accept_proxy.clone().into(),
        }),
        inventory,
        by_hand,
        local_names,
        local,
        local_ca,
        autocert,
        routes: Arc::new(built.routes),
        upstreams: built.upstreams,
        tls_settings: built.tls_settings,
        warnings,
    })
}

/// The names that must have a certificate.
fn served_names(config: &Config) -> Vec<Pattern> {
    if config.routes.is_empty() {
        return page_names(config);
    }
    let mut names: Vec<_> = config.routes.iter().map(|route| route.pattern.clone()).collect();
    names.extend(config.default_server_name.iter().cloned().map(Pattern::Exact));
    names.sort_unstable();
    names.dedup();
    names
}

/// The names that the built-in page answers to.
fn page_names(config: &Config) -> Vec<Pattern> {
    let local = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    let listening =
        config.address.iter().filter_map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
    let mut names: Vec<_> = local
        .into_iter()
        .chain(listening)
        .map(ServerName::from_ip)
        .chain(ServerName::parse("localhost"))
        .chain(config.default_server_name.clone())
        .map(Pattern::Exact)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn warn_of_local_name(pattern: &Pattern) -> Option<String> {
    let name = match pattern {
        Pattern::Any => {
            return Some(
                "the route * has no certificate of its own: only names that 'certificates' cover are served by it"
                    .into(),
            );
        }
        Pattern::Exact(name) | Pattern::Wildcard(name) => name,
    };
    (!name.is_private()).then(|| {
        format!(
            "{pattern} is a public name served with a certificate from the LOCAL CA, which no browser trusts; list a certificate for it under 'certificates'"
        )
    })
}

/// What the local CA gave.
struct Issued {
    ca: LocalCa,
    leaves: Vec<Arc<Certified>>,
    notes: Vec<String>,
}

fn issue_local(
    dir: &std::path::Path,
    names: &[Pattern],
    previous: Option<&LocalCa>,
    now: Moment,
) -> Result<Issued, Problem> {
    let problem = |error: Unusable| {
        let what = format!("the local CA cannot be used: {}", error.what);
        Problem::new(&Origin::Default, "data_dir", what, error.remedy)
    };
    let (ca, mut notes) = LocalCa::open(dir, now).map_err(problem)?;
    if notes.is_empty() && previous.is_some_and(|before| before.fingerprint() != ca.fingerprint()) {
        notes.push(format!(
            "the local CA's root is another one than before; restore the one before, or install {} (ringgate trust --install)",
            ca.root_path().display()
        ));
    }
    let mut leaves = Vec::with_capacity(names.len());
    for name in names {
        let (leaf, note) = ca.leaf(name, now).map_err(problem)?;
        leaves.push(leaf);
        notes.extend(note);
    }
    Ok(Issued { ca, leaves, notes })
}

struct TlsSettingsPool {
    /// Of the configuration before.
    pool: Vec<Arc<TlsSettings>>,
    used: Vec<Arc<TlsSettings>>,
}

impl TlsSettingsPool {
    fn get(&mut self, wanted: TlsSettings) -> Arc<TlsSettings> {
        let mut known = self.used.iter().chain(&self.pool);
        if let Some(found) = known.find(|settings| ***settings == wanted) {
            let found = found.clone();
            if !self.used.iter().any(|settings| Arc::ptr_eq(settings, &found)) {
                self.used.push(found.clone());
            }
            return found;
        }
        let new = Arc::new(wanted);
        self.used.push(new.clone());
        new
    }
}

/// The routes with what they refer to.
#[derive(Default)]
struct BuiltRoutes {
    warnings: Vec<String>,
    routes: Routes,
    upstreams: Vec<PreparedUpstream>,
    tls_settings: Vec<Arc<TlsSettings>>,
}

fn build_routes(
    config: &Config,
    ports: &[u16],
    previous: Option<&Prepared>,
) -> Result<BuiltRoutes, Vec<Problem>> {
    let mut tls_settings = TlsSettingsPool {
        pool: previous.map(|previous| previous.tls_settings.clone()).unwrap_or_default(),
        used: Vec::new(),
    };
    let mut upstream_tls = UpstreamTlsPool::default();
    let settings = |alpn: Vec<Vec<u8>>| TlsSettings {
        min_version: config.tls_min_version,
        cipher_suites: config.tls_cipher_suites.clone(),
        groups: config.tls_groups.clone(),
        alpn,
    };
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut upstreams: Vec<PreparedUpstream> = Vec::new();
    let mut ids: HashMap<&UpstreamConfig, UpstreamId> = HashMap::new();
    // Per route: where it applies, what it matches, what it is.
    let mut routes: Vec<(Option<u16>, Pattern, Arc<Route>)> = Vec::new();
    let waits = |port: &u16| config.unopened_ports.contains(port) && !ports.contains(port);
    for route in &config.routes {
        // On another port it would be shown to clients that it is not for.
        if let Some(port) = route.port.filter(waits) {
            warnings.push(format!(
                "the route {} is not served yet: a restart opens port {port}",
                route.from
            ));
            continue;
        }
        let id = match ids.get(&route.upstream) {
            Some(id) => *id,
            None => match upstream_tls.of_route(route) {
                Ok(tls) => {
                    let id = UpstreamId(upstreams.len() as u32);
                    upstreams.push(PreparedUpstream { config: route.upstream.clone(), tls });
                    ids.insert(&route.upstream, id);
                    id
                }
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            },
        };
        let built = Route {
            from: route.from.as_str().into(),
            target: Target::Upstream(id),
            send_proxy: route.send_proxy.map(|version| match version {
                config::ProxyVersion::V1 => ProxyVersion::V1,
                config::ProxyVersion::V2 => ProxyVersion::V2,
            }),
            tls: tls_settings.get(settings(route.alpn.clone())),
        };
        // A port that no listener has is the public one in front of a NAT.
        let port = route.port.filter(|port| ports.contains(port));
        routes.push((port, route.pattern.clone(), Arc::new(built)));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if config.routes.is_empty() {
        let page = Arc::new(Route {
            from: "the built-in page".into(),
            target: Target::Page,
            send_proxy: None,
            tls: tls_settings.get(settings(vec![b"http/1.1".to_vec()])),
        });
        routes.extend(page_names(config).into_iter().map(|name| (None, name, page.clone())));
    }
    let public_ports = public_ports(config, ports);
    let by_port = ports.iter().map(|port| {
        // Those that name the port come last, so that they win over those that name none.
        let mut here: Vec<_> =
            routes.iter().filter(|(only, ..)| only.is_none_or(|only| only == *port)).collect();
        here.sort_by_key(|(only, ..)| only.is_some());
        let here = here.into_iter().map(|(_, pattern, route)| (pattern.clone(), route.clone()));
        (*port, NameMap::build(here.collect::<Vec<_>>().into_iter()))
    });
    Ok(BuiltRoutes {
        warnings,
        routes: Routes::new(by_port, public_ports),
        upstreams,
        tls_settings: tls_settings.used,
    })
}

/// Where clients that came to a plain listener find each name with https: on the port that the route's
/// `from` names, else on that of the first `address`.
fn public_ports(config: &Config, ports: &[u16]) -> NameMap<u16> {
    // The one that was opened, if the system picked it or passed the sockets.
    let configured = config.address.first().map(|address| address.port());
    let opened = configured.filter(|port| ports.contains(port));
    let usual = opened.or(ports.first().copied()).unwrap_or(443);
    let page = if config.routes.is_empty() { page_names(config) } else { Vec::new() };
    // Of several, the one on the usual port stays, else the first that was written.
    let named = config.routes.iter().rev();
    let mut names: Vec<(Pattern, u16)> = named
        .map(|route| (route.pattern.clone(), route.port.unwrap_or(usual)))
        .chain(page.into_iter().map(|name| (name, usual)))
        .collect();
    names.sort_by_key(|(_, port)| *port == usual);
    NameMap::build(names.into_iter())
}
