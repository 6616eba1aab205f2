//! A socket, shared with the operations that the kernel works on; what needs no ring is done at once.
//!
//! Sending at once instead of through the ring costs the same (DESIGN measurements) and lets the bytes
//! stay in a worker's scratch memory: only what the kernel did not take has to be kept anywhere.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockAddr, SockRef, TcpKeepalive};

/// A connected or connecting socket in blocking mode. (A non-blocking one would make the ring answer
/// EAGAIN instead of waiting.) Closed when the last clone and the last operation on it are gone.
#[derive(Clone, Debug)]
pub struct Socket {
    fd: Rc<OwnedFd>,
}

impl Socket {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd: Rc::new(fd) }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Connects a Unix socket at once or not at all.
    pub fn connect_now(&self, to: &SockAddr) -> io::Result<()> {
        let socket = SockRef::from(&*self.fd);
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        socket.set_nonblocking(false)
    }

    /// Sends what fits into the socket's buffer now; 0 when nothing does.
    pub fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.send_with(bytes, SendFlags::empty())
    }

    /// The same for bytes behind which [`Socket::finish`] follows: both leave in one packet.
    pub fn send_last_now(&self, bytes: &[u8]) -> io::Result<usize> {
        self.send_with(bytes, SendFlags::MORE)
    }

    fn send_with(&self, bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
        let flags = flags | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(&self.fd, bytes, flags) {
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            sent => Ok(sent?),
        }
    }

    /// Receives what is there now; `None` when nothing is, `Some(0)` at the end of the stream.
    pub fn receive_now(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::net::recv(&self.fd, into, RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            received => Ok(Some(received?.0)),
        }
    }

    /// Tells the peer that nothing more will come.
    pub fn finish(&self) {
        // A peer that is gone already has been told.
        let _ = SockRef::from(&*self.fd).shutdown(std::net::Shutdown::Write);
    }

    /// Ends every wait to receive; what was sent still arrives.
    pub fn stop_receiving(&self) {
        let _ = SockRef::from(&*self.fd).shutdown(std::net::Shutdown::Read);
    }

    /// Ends every wait on this socket.
    pub fn interrupt(&self) {
        let _ = SockRef::from(&*self.fd).shutdown(std::net::Shutdown::Both);
    }

    /// Ends every wait on this socket; the peer sees a reset instead of an orderly end.
    pub fn abort(&self) {
        // Dissolving the association resets it at once (connect(2)); shutdown(2) would send a FIN, and
        // closing has to wait for the operations in flight.
        if rustix::net::connect_unspec(&self.fd).is_err() {
            self.interrupt();
        }
    }

    /// Small writes leave at once. (Accepted sockets inherit it from their listener.)
    pub fn set_nodelay(&self) {
        // Without it the connection is slower, not wrong.
        let _ = SockRef::from(&*self.fd).set_tcp_nodelay(true);
    }

    /// A peer that is gone without a word is found out: asked after `after` without anything received,
    /// again every `every`, and given up when something stays unacknowledged for `unacknowledged`.
    /// (Accepted sockets inherit it from their listener.)
    pub fn set_liveness(&self, after: Duration, every: Duration, unacknowledged: Duration) {
        let socket = SockRef::from(&*self.fd);
        // Without it the idle timeout finds them out.
        let _ =
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after).with_interval(every));
        let _ = socket.set_tcp_user_timeout(Some(unacknowledged));
    }

    /// The address the client connected to.
    pub fn local_address(&self) -> Option<SocketAddr> {
        SockRef::from(&*self.fd).local_addr().ok()?.as_socket()
    }

    pub fn peer_address(&self) -> Option<SocketAddr> {
        SockRef::from(&*self.fd).peer_addr().ok()?.as_socket()
    }

    /// Accepts a connection that waits already, if one does. Only on a listener that
    /// [`Socket::set_nonblocking`] was called on.
    pub fn accept_now(&self) -> io::Result<Option<Socket>> {
        match rustix::net::accept_with(&self.fd, rustix::net::SocketFlags::CLOEXEC) {
            Ok(fd) => Ok(Some(Self::new(fd))),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// For a listener that takes its last connections outside the ring.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        SockRef::from(&self.fd.as_fd()).set_nonblocking(true)
    }
}
