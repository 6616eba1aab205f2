//! One opcode each, owning its data until the kernel is done with it.
//!
//! Dropping one of these futures does not cancel the operation: the driver keeps its data until the
//! kernel has completed it. Whoever drops one early loses the outcome, and with it bytes that it received.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use io_uring::{opcode, squeue, types};
use socket2::SockAddr;

use super::buffers::{Buffer, Buffers};
use super::driver::{Completion, InFlight, submit};
use super::socket::Socket;

/// [`accept`] in flight.
pub type Accept = InFlight<Socket, io::Result<Socket>>;

/// Accepts one connection. The peer's address is not asked for: who needs it asks the socket.
pub fn accept(listener: &Socket) -> Accept {
    let entry =
        opcode::Accept::new(types::Fd(listener.raw()), std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build();
    // SAFETY: the entry holds no address; the data keeps the listener open.
    unsafe { submit(listener.clone(), accepted, entry) }
}

fn accepted(_: Socket, completion: Completion) -> io::Result<Socket> {
    let fd = completion.outcome()? as RawFd;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows of it.
    Ok(Socket::new(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// [`receive`] in flight.
pub type Receive = InFlight<(Socket, Buffers), io::Result<Option<Buffer>>>;

/// Receives into a buffer that the kernel picks when bytes arrive, so that waiting holds none. `None` at
/// the end of the stream; ENOBUFS when all buffers are in use, then use [`readable`].
pub fn receive(socket: &Socket, buffers: &Buffers) -> Receive {
    receive_with(socket, buffers, 0)
}

/// The same for bytes that are not expected to be there yet: the kernel does not look before it waits.
pub fn receive_later(socket: &Socket, buffers: &Buffers) -> Receive {
    receive_with(socket, buffers, POLL_FIRST)
}

/// IORING_RECVSEND_POLL_FIRST (linux/io_uring.h), kernel 5.19.
const POLL_FIRST: u16 = 1;

fn receive_with(socket: &Socket, buffers: &Buffers, how: u16) -> Receive {
    let entry = opcode::Recv::new(types::Fd(socket.raw()), std::ptr::null_mut(), 0)
        .ioprio(how)
        .buf_group(buffers.group())
        .build()
        .flags(squeue::Flags::BUFFER_SELECT);
    // SAFETY: the entry holds no address; the buffers it picks from live as long as the process.
    unsafe { submit((socket.clone(), buffers.clone()), received, entry) }
}

fn received((_, buffers): (Socket, Buffers), completion: Completion) -> io::Result<Option<Buffer>> {
    // SAFETY: the kernel has just handed over this buffer, if any, with as many bytes in it as it says.
    let buffer = completion
        .buffer()
        .map(|id| unsafe { buffers.taken(id, completion.outcome().unwrap_or(0)) });
    completion.outcome()?;
    Ok(buffer.filter(|buffer| !buffer.is_empty()))
}

/// [`readable`] in flight.
pub type Readable = InFlight<Socket, io::Result<()>>;

/// Waits until [`Socket::receive_now`] has something to say: bytes, the end, or an error.
pub fn readable(socket: &Socket) -> Readable {
    let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
    let entry = opcode::PollAdd::new(types::Fd(socket.raw()), events).build();
    // SAFETY: the entry holds no address; the data keeps the socket open.
    unsafe { submit(socket.clone(), done, entry) }
}

/// [`connect`] in flight.
pub type Connect = InFlight<(Socket, Box<SockAddr>), io::Result<()>>;

/// Connects a fresh socket.
pub fn connect(socket: &Socket, to: SockAddr) -> Connect {
    let to = Box::new(to);
    let entry = opcode::Connect::new(types::Fd(socket.raw()), to.as_ptr().cast(), to.len()).build();
    // SAFETY: the address is in the box that the data owns.
    unsafe { submit((socket.clone(), to), done, entry) }
}

fn done<D>(_: D, completion: Completion) -> io::Result<()> {
    completion.outcome().map(drop)
}

/// [`send`] in flight.
pub type Send = InFlight<(Socket, Vec<u8>), (io::Result<usize>, Vec<u8>)>;

/// Sends `bytes[from..]`, waiting for room; gives back how many were sent, and the bytes.
pub fn send(socket: &Socket, bytes: Vec<u8>, from: usize) -> Send {
    let rest = bytes.get(from..).unwrap_or_default();
    let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
    let entry = opcode::Send::new(types::Fd(socket.raw()), rest.as_ptr(), length)
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        .build();
    // SAFETY: the address is in the heap memory of the vector that the data owns and nobody changes.
    unsafe { submit((socket.clone(), bytes), |(_, bytes), sent| (sent.outcome(), bytes), entry) }
}
