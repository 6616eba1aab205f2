//! Picks an endpoint, connects, and tries one other.

use std::io;

use socket2::{Domain, SockAddr, Type};

use crate::clock;
use crate::observe::names::{Reason, Side};
use crate::ring::{self, Socket};
use crate::snapshot::Upstream;

use super::ended::Ended;
use super::line::Line;
use super::worker::Timeouts;

/// Endpoints tried before the client is sent away: a second one helps when one is down, a third would
/// keep the client waiting for a network that is.
const ATTEMPTS: usize = 2;

/// Connects to the upstream.
pub async fn dial(line: &Line, timeouts: &Timeouts, upstream: &Upstream) -> Result<Socket, Ended> {
    let mut ended = Ended::new(Side::Upstream, Reason::Unresolved);
    for endpoint in upstream.endpoints.iter().take(ATTEMPTS) {
        let socket = match open(Domain::for_address(*endpoint)) {
            Ok(socket) => socket,
            Err(error) => return Err(no_socket(&error)),
        };
        line.connecting(socket.clone(), clock::steady() + timeouts.connect);
        let connected = ring::connect(&socket, SockAddr::from(*endpoint)).await;
        if let Some(reason) = line.interrupted() {
            return Err(Ended::new(Side::Ours, reason));
        }
        match connected {
            Ok(()) => return Ok(socket),
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {
                ended = Ended::because(Side::Upstream, Reason::ConnectTimeout, endpoint);
            }
            Err(error) => {
                let detail = format!("{endpoint}: {error}");
                ended = Ended::because(Side::Upstream, Reason::ConnectRefused, detail);
            }
        }
    }
    Err(ended)
}

fn open(domain: Domain) -> io::Result<Socket> {
    let socket = socket2::Socket::new(domain, Type::STREAM.cloexec(), None)?;
    let socket = Socket::new(socket.into());
    socket.set_nodelay();
    Ok(socket)
}

fn no_socket(error: &io::Error) -> Ended {
    let reason = match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => Reason::OutOfDescriptors,
        _ => Reason::Failed,
    };
    Ended::because(Side::Ours, reason, error)
}
