//! The listening sockets of all workers: opened here, or inherited from systemd.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;

use crate::clock;
use crate::config::layers::Layers;
use crate::config::problem::{Origin, Problem};
use crate::config::{Config, ListenAddress};
use crate::edge::listener::{self, Kind, Listener, Place};

use super::command::Failure;

/// How long a port may be taken at start-up before that is an error.
const PORT_PATIENCE: Duration = Duration::from_secs(1);

/// Every listening socket.
pub struct Listening {
    /// A list per place, with one for each worker.
    pub listeners: Vec<Vec<Listener>>,
    /// Of those that speak TLS, sorted, each once.
    pub ports: Vec<u16>,
    /// Of the plain one.
    pub redirect_port: Option<u16>,
}

/// Opens every address for every worker. A socket that systemd has passed (sd_listen_fds(3)) is used in
/// place of the address that it is bound to, or of `address` as a whole where that is not configured.
///
/// # Errors
/// A port that is taken or not ours to take; an inherited socket that nothing asks for.
pub fn open(config: &Config, workers: usize, layers: &Layers) -> Result<Listening, Failure> {
    let mut opening = Opening {
        inherited: inherit()?,
        listeners: Vec::new(),
        workers,
        backlog: backlog(),
        idle_timeout: config.idle_timeout,
        layers,
    };
    if let Some(address) = config.http_redirect_addr {
        opening.address(address, Kind::Plain)?;
    }
    let address_is_configured = layers.origin("address") != Origin::Default;
    if opening.inherited.is_empty() || address_is_configured {
        for address in &config.address {
            opening.address(*address, Kind::Tls)?;
        }
        opening.refuse_unused()?;
    } else {
        opening.adopt_all(Kind::Tls)?;
    }
    let first_of = |kind| {
        let firsts = opening.listeners.iter().filter_map(|listeners| listeners.first());
        firsts.filter(move |first| first.kind == kind).map(|first| first.port)
    };
    let redirect_port = first_of(Kind::Plain).next();
    let mut ports: Vec<u16> = first_of(Kind::Tls).collect();
    ports.sort_unstable();
    ports.dedup();
    Ok(Listening { listeners: opening.listeners, ports, redirect_port })
}

struct Opening<'a> {
    inherited: Vec<(TcpListener, SocketAddr)>,
    listeners: Vec<Vec<Listener>>,
    workers: usize,
    backlog: i32,
    idle_timeout: Duration,
    layers: &'a Layers,
}

impl Opening<'_> {
    fn address(&mut self, address: ListenAddress, kind: Kind) -> Result<(), Failure> {
        let places = match address {
            ListenAddress::Every { port } => vec![Place::Every { port }],
            ListenAddress::Ip(address) => vec![Place::Address(address)],
            ListenAddress::Localhost { port } => vec![
                Place::Address(SocketAddr::from(([127, 0, 0, 1], port))),
                Place::Address(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))),
            ],
        };
        for (at, place) in places.into_iter().enumerate() {
            // The second address of localhost is ::1, on the port that the first one got.
            let picked =
                self.listeners.last().and_then(|last| last.first()).map(|first| first.port);
            let place = match (place, picked) {
                (Place::Address(address), Some(port)) if at > 0 => {
                    Place::Address(SocketAddr::new(address.ip(), port))
                }
                (place, _) => place,
            };
            if let Some(at) = self.inherited.iter().position(|(_, bound)| is_at(place, *bound)) {
                let (socket, bound) = self.inherited.swap_remove(at);
                self.adopt(&socket, bound, kind)?;
                continue;
            }
            match self.open_patiently(place, kind) {
                Ok(listeners) => self.listeners.push(listeners),
                Err(error) if at > 0 && listener::is_no_ipv6(&error) => {}
                Err(error) => return Err(cannot_listen(place, kind, &error, self.layers)),
            }
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        socket: &TcpListener,
        bound: SocketAddr,
        kind: Kind,
    ) -> Result<(), Failure> {
        let adopted =
            listener::adopt(socket, kind, self.workers, self.idle_timeout).map_err(|error| {
                Failure::Other(format!("the inherited socket on {bound} cannot be used: {error}"))
            })?;
        self.listeners.push(adopted);
        Ok(())
    }

    fn adopt_all(&mut self, kind: Kind) -> Result<(), Failure> {
        for (socket, bound) in std::mem::take(&mut self.inherited) {
            self.adopt(&socket, bound, kind)?;
        }
        Ok(())
    }

    /// Opens the listeners of one place. A process that was killed a moment ago may hold its port a little
    /// longer than it lives: the kernel takes its ring down, with the accepts in flight, after it has
    /// reaped it.
    fn open_patiently(&self, place: Place, kind: Kind) -> io::Result<Vec<Listener>> {
        let deadline = clock::steady() + PORT_PATIENCE;
        loop {
            match listener::open(place, kind, self.workers, self.backlog, self.idle_timeout) {
                Err(error)
                    if error.raw_os_error() == Some(libc::EADDRINUSE)
                        && clock::steady() < deadline =>
                {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "start-up only; nothing is served yet"
                    )]
                    std::thread::sleep(PORT_PATIENCE / 50);
                }
                opened => return opened,
            }
        }
    }

    fn refuse_unused(&self) -> Result<(), Failure> {
        let problems: Vec<_> = self
            .inherited
            .iter()
            .map(|(_, bound)| {
                let what =
                    format!("systemd has passed a socket on {bound}, which no address names");
                let remedy = "name it, or take it out of the .socket unit";
                Problem::new(&self.layers.origin("address"), "address", what, remedy)
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(Failure::Configuration(problems)) }
    }
}

/// The TCP sockets that systemd has passed, if it has.
fn inherit() -> Result<Vec<(TcpListener, SocketAddr)>, Failure> {
    let unusable = |error: io::Error| {
        Failure::Other(format!("a socket that systemd has passed is no TCP listener: {error}"))
    };
    let mut passed = ListenFd::from_env();
    let mut inherited = Vec::new();
    for at in 0..passed.len() {
        if let Some(socket) = passed.take_tcp_listener(at).map_err(unusable)? {
            let bound = socket.local_addr().map_err(unusable)?;
            inherited.push((socket, bound));
        }
    }
    Ok(inherited)
}

/// Whether a socket bound there is what would be opened at this place.
fn is_at(place: Place, bound: SocketAddr) -> bool {
    match place {
        Place::Address(address) => address == bound,
        Place::Every { port } => bound.port() == port && bound.ip().is_unspecified(),
    }
}

fn cannot_listen(place: Place, kind: Kind, error: &io::Error, layers: &Layers) -> Failure {
    let place = match place {
        Place::Every { port } => format!(":{port}"),
        Place::Address(address) => address.to_string(),
    };
    let key = match kind {
        Kind::Tls => "address",
        Kind::Plain => "http_redirect_addr",
    };
    let (what, remedy) = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => (
            format!("{place} is taken by another process"),
            "stop it ('ss -ltnp' shows it), or choose another address".to_owned(),
        ),
        Some(libc::EACCES) => (
            format!("no permission to listen on {place}"),
            "ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)".into(),
        ),
        Some(libc::EADDRNOTAVAIL) => (
            format!("{place} is no address of this machine"),
            "choose one that 'ip address' lists, or :PORT for all".into(),
        ),
        _ => (format!("cannot listen on {place}: {error}"), "choose another address".into()),
    };
    Failure::Unavailable(Problem::new(&layers.origin(key), key, what, remedy).to_string())
}

/// The longest backlog that the kernel grants (listen(2)).
#[expect(clippy::disallowed_methods, reason = "start-up only: reads a sysctl")]
fn backlog() -> i32 {
    const USUAL: i32 = 4096;
    let somaxconn = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    somaxconn.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inherited_socket_is_matched_by_where_it_is_bound() {
        let bound = |text: &str| text.parse::<SocketAddr>().unwrap();
        let every = Place::Every { port: 443 };
        assert!(is_at(every, bound("[::]:443")) && is_at(every, bound("0.0.0.0:443")));
        assert!(!is_at(every, bound("[::]:444")) && !is_at(every, bound("127.0.0.1:443")));
        let one = Place::Address(bound("127.0.0.1:443"));
        assert!(is_at(one, bound("127.0.0.1:443")) && !is_at(one, bound("0.0.0.0:443")));
    }
}
