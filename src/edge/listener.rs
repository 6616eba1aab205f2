//! Opens a worker's listening sockets.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::limits::{KEEPALIVE_AFTER, KEEPALIVE_EVERY, unacknowledged};

/// Where one listener listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Every address of the machine, IPv4 and IPv6 on one socket; IPv4 alone where there is no IPv6.
    Every {
        port: u16,
    },
    Address(SocketAddr),
}

/// A listening socket of one worker.
#[derive(Debug)]
pub struct Listener {
    pub socket: OwnedFd,
    /// The port it listens on, by which routes are picked.
    pub port: u16,
    pub kind: Kind,
}

/// What clients of a listener speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tls,
    /// Plain HTTP, to be sent to https.
    Plain,
}

/// One listening socket per worker at one place (SO_REUSEPORT shares connections among them).
///
/// # Errors
/// If the port is taken, also by another process that shares its port the same way: the first bind is
/// made without SO_REUSEPORT.
pub fn open(
    place: Place,
    kind: Kind,
    workers: usize,
    backlog: i32,
    idle_timeout: Duration,
) -> io::Result<Vec<Listener>> {
    let address = claim(place)?;
    (0..workers)
        .map(|_| {
            let socket = bind(address, place, true)?;
            prepare(&socket, idle_timeout)?;
            socket.listen(backlog)?;
            Ok(Listener { socket: socket.into(), port: address.port(), kind })
        })
        .collect()
}

/// One clone per worker of a socket that was inherited: they share its backlog, and whoever is free takes
/// the next connection.
///
/// # Errors
/// If the kernel refuses what accepted sockets should inherit.
pub fn adopt(
    socket: &TcpListener,
    kind: Kind,
    workers: usize,
    idle_timeout: Duration,
) -> io::Result<Vec<Listener>> {
    // The ring waits only on blocking ones; whoever had it before may have left it otherwise.
    socket.set_nonblocking(false)?;
    let port = socket.local_addr()?.port();
    (0..workers)
        .map(|_| {
            let socket = Socket::from(socket.try_clone()?);
            prepare(&socket, idle_timeout)?;
            Ok(Listener { socket: socket.into(), port, kind })
        })
        .collect()
}

/// Binds without SO_REUSEPORT and lets go again: fails if anyone listens there. Picks the port if 0 was
/// asked for.
fn claim(place: Place) -> io::Result<SocketAddr> {
    let address = match place {
        Place::Address(address) => address,
        Place::Every { port } => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    };
    let claimed = match (bind(address, place, false), place) {
        (Err(error), Place::Every { port }) if is_no_ipv6(&error) => {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), place, false)?
        }
        (claimed, _) => claimed?,
    };
    claimed.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address after bind"))
}

/// Whether this machine has no IPv6 (not that an address is taken).
pub fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

fn bind(address: SocketAddr, place: Place, shared: bool) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(matches!(place, Place::Address(_)))?;
    }
    // A restart at once finds the last process's connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sets what accepted sockets inherit, which saves them some system calls each.
fn prepare(socket: &Socket, idle_timeout: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // An urgent byte is one like any other, and breaks the record that it is in: out of band, each would wake a
    // receive for nothing.
    socket.set_out_of_band_inline(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY),
    )?;
    socket.set_tcp_user_timeout(Some(unacknowledged(idle_timeout)))
}
