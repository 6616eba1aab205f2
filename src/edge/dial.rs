//! Connects to an upstream: picks an endpoint, connects, says who the client is, and encrypts again where
//! that is asked for; tries another endpoint if any of that fails.

use std::io;

use socket2::{Domain, SockAddr, Type};

use crate::clock;
use crate::observe::counters::Report;
use crate::observe::names::{Reason, Side};
use crate::ring::{self, Socket};
use crate::snapshot::{Endpoint, EndpointAddress, Route, Upstream, UpstreamId};

use super::balance::{Place, Tried};
use super::ended::Ended;
use super::limits::{KEEPALIVE_AFTER, KEEPALIVE_EVERY, TIMEOUTS_BORNE, unacknowledged};
use super::line::Line;
use super::transfer::send_all;
use super::upstream_tls::{UpstreamRecords, shake_hands};
use super::worker::{Timeouts, Worker};

/// What a connection brings to its upstream.
pub struct Visitor<'a> {
    pub route: &'a Route,
    /// The PROXY header to send first; empty for none.
    pub proxy_header: Vec<u8>,
    /// What was negotiated with the client, for an upstream that speaks TLS.
    pub alpn: Option<&'a [u8]>,
}

/// A connected upstream.
pub struct Dialled<'w> {
    pub socket: Socket,
    /// Of an upstream that speaks TLS.
    pub records: Option<Box<UpstreamRecords>>,
    /// Where this connection is counted.
    pub place: Place<'w>,
}

/// Connects to the upstream.
pub async fn dial<'w>(
    line: &Line,
    worker: &'w Worker,
    timeouts: &Timeouts,
    (id, upstream): (UpstreamId, &Upstream),
    visitor: Visitor<'_>,
) -> Result<Dialled<'w>, Ended> {
    let mut ended = Ended::new(Side::Upstream, Reason::Unresolved);
    let mut tried = Tried::default();
    let mut timeouts_left = TIMEOUTS_BORNE;
    let balance = worker.balance();
    while let Some((endpoint, place)) = balance.pick(id, upstream, &mut tried, clock::steady()) {
        let missed = match call(line, worker, timeouts, endpoint, &visitor).await {
            Ok((socket, records)) => {
                balance.succeeded(endpoint.slot);
                return Ok(Dialled { socket, records, place });
            }
            Err(missed) => missed,
        };
        drop(place);
        ended = missed.ended;
        match missed.fault {
            Fault::Ours => return Err(ended),
            // Another endpoint may speak what this client does; to others this one is as good as before.
            Fault::Clients => continue,
            Fault::Endpoints => {}
        }
        if let Some(pause) = balance.failed(endpoint.slot, clock::steady()) {
            worker.counters().endpoints_skipped.add(1);
            // An upstream with one endpoint has nothing else to go to, and its failure is reported as such.
            if upstream.endpoints.len() > 1 {
                worker.report(Reason::EndpointSkipped, || skipped(&ended, visitor.route, pause));
            }
        }
        if ended.reason == Reason::ConnectTimeout {
            timeouts_left -= 1;
            if timeouts_left == 0 {
                break;
            }
        }
    }
    Err(ended)
}

/// Why one endpoint did not come to serve, and whose fault that is.
struct Missed {
    ended: Ended,
    fault: Fault,
}

enum Fault {
    /// Nothing more is to be tried.
    Ours,
    /// The endpoint does not speak what this client negotiated.
    Clients,
    Endpoints,
}

impl From<Ended> for Missed {
    fn from(ended: Ended) -> Self {
        let fault = if ended.side == Side::Ours { Fault::Ours } else { Fault::Endpoints };
        Self { ended, fault }
    }
}

fn skipped(ended: &Ended, route: &Route, pause: std::time::Duration) -> Report {
    let why = ended.detail.as_deref().unwrap_or(ended.reason.help());
    Report {
        side: Side::Upstream,
        reason: Reason::EndpointSkipped,
        client: None,
        server_name: None,
        route: Some(route.from.clone()),
        detail: Some(format!("{why}; tried again in {} s", pause.as_secs()).into()),
    }
}

/// One endpoint, up to the point where the client's bytes can be relayed.
async fn call(
    line: &Line,
    worker: &Worker,
    timeouts: &Timeouts,
    endpoint: &Endpoint,
    visitor: &Visitor<'_>,
) -> Result<(Socket, Option<Box<UpstreamRecords>>), Missed> {
    let socket = connect(line, timeouts, endpoint).await?;
    if !visitor.proxy_header.is_empty() {
        let sent = send_all(&socket, visitor.proxy_header.clone()).await;
        sent.map_err(|error| failed(line, endpoint, &error))?;
    }
    let records = match &endpoint.tls {
        None => None,
        Some(tls) => {
            let config = worker
                .client_configs()
                .get(tls, visitor.alpn)
                .map_err(|error| Ended::because(Side::Ours, Reason::Failed, error))?;
            let shaken = shake_hands(worker, &socket, config, tls, visitor.alpn).await;
            Some(Box::new(shaken.map_err(|error| {
                // A deadline cancels the wait, and so does the end of the connection.
                if let Some(error) = error.io() {
                    return Missed::from(failed(line, endpoint, error));
                }
                let detail = format!("{}: {error}", endpoint.address);
                let ended = Ended::because(Side::Upstream, Reason::UpstreamHandshake, detail);
                match error.is_about_protocols() {
                    true => Missed { ended, fault: Fault::Clients },
                    false => ended.into(),
                }
            })?))
        }
    };
    // What ended the wait may have come too late to end it.
    interrupted(line)?;
    Ok((socket, records))
}

fn interrupted(line: &Line) -> Result<(), Ended> {
    match line.interrupted() {
        Some(reason) => Err(Ended::new(Side::Ours, reason)),
        None => Ok(()),
    }
}

async fn connect(line: &Line, timeouts: &Timeouts, endpoint: &Endpoint) -> Result<Socket, Ended> {
    interrupted(line)?;
    let (domain, address) = match &endpoint.address {
        EndpointAddress::Ip(address) => (Domain::for_address(*address), Ok((*address).into())),
        EndpointAddress::Unix(path) => (Domain::UNIX, SockAddr::unix(path)),
    };
    let socket = open(domain).map_err(|error| no_socket(&error))?;
    if let EndpointAddress::Ip(address) = &endpoint.address {
        socket.set_nodelay();
        // The kernel tells at once when a process of this machine is gone.
        if !address.ip().to_canonical().is_loopback() {
            let limit = unacknowledged(timeouts.idle);
            socket.set_liveness(KEEPALIVE_AFTER, KEEPALIVE_EVERY, limit);
        }
    }
    // The configuration check let no path through that is too long.
    let address = address.map_err(|error| Ended::because(Side::Ours, Reason::Failed, error))?;
    line.connecting(socket.clone(), clock::steady() + timeouts.connect);
    let connected = match domain {
        // It never pends: the listener's backlog has room, or the endpoint is as good as down.
        Domain::UNIX => socket.connect_now(&address),
        _ => ring::connect(&socket, address).await,
    };
    connected.map(|()| socket).map_err(|error| failed(line, endpoint, &error))
}

fn failed(line: &Line, endpoint: &Endpoint, error: &io::Error) -> Ended {
    if let Some(reason) = line.interrupted() {
        return Ended::new(Side::Ours, reason);
    }
    if error.raw_os_error() == Some(libc::ECANCELED) {
        return Ended::because(Side::Upstream, Reason::ConnectTimeout, &endpoint.address);
    }
    let detail = format!("{}: {error}", endpoint.address);
    Ended::because(Side::Upstream, Reason::ConnectRefused, detail)
}

fn open(domain: Domain) -> io::Result<Socket> {
    let socket = socket2::Socket::new(domain, Type::STREAM.cloexec(), None)?;
    Ok(Socket::new(socket.into()))
}

fn no_socket(error: &io::Error) -> Ended {
    let reason = match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Reason::OutOfDescriptors,
        _ => Reason::Failed,
    };
    Ended::because(Side::Ours, reason, error)
}
