//! Ends the operations in flight on one socket; their futures then complete with ECANCELED.

use std::io;

use io_uring::{opcode, types};

use super::driver::{Completion, InFlight, submit};
use super::socket::Socket;

/// [`cancel`] in flight.
pub type Cancel = InFlight<Socket, io::Result<()>>;

/// Asks the kernel to end every operation on `socket`. The request is made at once; the future says when
/// it has been looked at and may be dropped. Who waits for the operations themselves goes on waiting:
/// one of them may have succeeded meanwhile.
pub fn cancel(socket: &Socket) -> Cancel {
    let all = types::CancelBuilder::fd(types::Fd(socket.raw())).all();
    let entry = opcode::AsyncCancel2::new(all).build();
    // SAFETY: the entry holds no address; the data keeps the socket open until the kernel has seen it.
    unsafe { submit(socket.clone(), cancelled, entry) }
}

fn cancelled(_: Socket, completion: Completion) -> io::Result<()> {
    match completion.outcome() {
        // Nothing was in flight, or it completed meanwhile.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EALREADY)) => Ok(()),
        outcome => outcome.map(drop),
    }
}
