//! One opcode each, owning its data until the kernel is done with it.
//!
//! Dropping one of these futures does not cancel the operation: tokio-uring keeps its data until the
//! kernel has completed it. Whoever drops one early loses the outcome, so connections await them all.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::{cqueue, opcode, squeue, types};
use socket2::SockAddr;
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};

use super::buffers::{Buffer, Buffers};
use super::socket::Socket;

/// Puts `entry` on the ring of this thread's tokio-uring runtime.
///
/// # Safety
/// Every address in `entry` must point into heap memory owned by `data`, or into memory that outlives
/// the ring: `data` may be moved, and lives until the kernel has completed the operation.
unsafe fn submit<T: OneshotOutputTransform>(
    data: T::StoredData,
    finish: T,
    entry: squeue::Entry,
) -> InFlightOneshot<T::StoredData, T> {
    UnsubmittedOneshot::new(data, finish, entry).submit()
}

fn outcome(entry: &cqueue::Entry) -> io::Result<usize> {
    usize::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()))
}

/// [`accept`] in flight.
pub type Accept = InFlightOneshot<Socket, FinishAccept>;

pub struct FinishAccept;

impl OneshotOutputTransform for FinishAccept {
    type Output = io::Result<Socket>;
    type StoredData = Socket;

    fn transform_oneshot_output(self, _: Socket, entry: cqueue::Entry) -> Self::Output {
        if entry.result() < 0 {
            return Err(io::Error::from_raw_os_error(-entry.result()));
        }
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows of it.
        Ok(Socket::new(unsafe { OwnedFd::from_raw_fd(entry.result()) }))
    }
}

/// Accepts one connection. The peer's address is not asked for: who needs it asks the socket.
pub fn accept(listener: &Socket) -> Accept {
    let entry =
        opcode::Accept::new(types::Fd(listener.raw()), std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build();
    // SAFETY: the entry holds no address; `data` keeps the listener open.
    unsafe { submit(listener.clone(), FinishAccept, entry) }
}

/// [`receive`] in flight.
pub type Receive = InFlightOneshot<(Socket, Buffers), FinishReceive>;

pub struct FinishReceive;

impl OneshotOutputTransform for FinishReceive {
    type Output = io::Result<Option<Buffer>>;
    type StoredData = (Socket, Buffers);

    fn transform_oneshot_output(
        self,
        (_, buffers): Self::StoredData,
        entry: cqueue::Entry,
    ) -> Self::Output {
        let received = outcome(&entry)?;
        match cqueue::buffer_select(entry.flags()) {
            Some(id) => {
                // SAFETY: the kernel has just handed over this buffer with `received` bytes in it.
                let buffer = unsafe { buffers.taken(id, received) };
                Ok(Some(buffer).filter(|buffer| !buffer.is_empty()))
            }
            None => Ok(None),
        }
    }
}

/// Receives into a buffer that the kernel picks when bytes arrive, so that waiting holds none. `None` at
/// the end of the stream; ENOBUFS when all buffers are in use, then use [`readable`].
pub fn receive(socket: &Socket, buffers: &Buffers) -> Receive {
    let entry = opcode::Recv::new(types::Fd(socket.raw()), std::ptr::null_mut(), 0)
        .buf_group(buffers.group())
        .build()
        .flags(squeue::Flags::BUFFER_SELECT);
    // SAFETY: the entry holds no address; the buffers it picks from live as long as the process.
    unsafe { submit((socket.clone(), buffers.clone()), FinishReceive, entry) }
}

/// [`readable`] in flight.
pub type Readable = InFlightOneshot<Socket, FinishUnit<Socket>>;

/// [`connect`] in flight.
pub type Connect = InFlightOneshot<(Socket, Box<SockAddr>), FinishUnit<(Socket, Box<SockAddr>)>>;

pub struct FinishUnit<D>(std::marker::PhantomData<fn(D)>);

impl<D> OneshotOutputTransform for FinishUnit<D> {
    type Output = io::Result<()>;
    type StoredData = D;

    fn transform_oneshot_output(self, _: D, entry: cqueue::Entry) -> Self::Output {
        outcome(&entry).map(drop)
    }
}

/// Waits until [`Socket::receive_now`] has something to say: bytes, the end, or an error.
pub fn readable(socket: &Socket) -> Readable {
    let events = (libc::POLLIN | libc::POLLRDHUP) as u32;
    let entry = opcode::PollAdd::new(types::Fd(socket.raw()), events).build();
    // SAFETY: the entry holds no address; `data` keeps the socket open.
    unsafe { submit(socket.clone(), FinishUnit(std::marker::PhantomData), entry) }
}

/// Connects a fresh socket.
pub fn connect(socket: &Socket, to: SockAddr) -> Connect {
    let to = Box::new(to);
    let entry = opcode::Connect::new(types::Fd(socket.raw()), to.as_ptr().cast(), to.len()).build();
    // SAFETY: the address is in the box that `data` owns.
    unsafe { submit((socket.clone(), to), FinishUnit(std::marker::PhantomData), entry) }
}

/// [`send`] in flight.
pub type Send = InFlightOneshot<(Socket, Vec<u8>), FinishSend>;

pub struct FinishSend;

impl OneshotOutputTransform for FinishSend {
    type Output = (io::Result<usize>, Vec<u8>);
    type StoredData = (Socket, Vec<u8>);

    fn transform_oneshot_output(
        self,
        (_, bytes): Self::StoredData,
        entry: cqueue::Entry,
    ) -> Self::Output {
        (outcome(&entry), bytes)
    }
}

/// Sends `bytes[from..]`, waiting for room; gives back how many were sent, and the bytes.
pub fn send(socket: &Socket, bytes: Vec<u8>, from: usize) -> Send {
    let rest = bytes.get(from..).unwrap_or_default();
    let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
    let entry = opcode::Send::new(types::Fd(socket.raw()), rest.as_ptr(), length)
        .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
        .build();
    // SAFETY: the address is in the heap memory of the vector that `data` owns and nobody changes.
    unsafe { submit((socket.clone(), bytes), FinishSend, entry) }
}
