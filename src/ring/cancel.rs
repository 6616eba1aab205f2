//! Ends the operations in flight on one socket; their futures then complete with ECANCELED.

use std::future::Future;
use std::io;

use io_uring::{cqueue, opcode, types};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

use super::socket::Socket;

struct FinishCancel;

impl OneshotOutputTransform for FinishCancel {
    type Output = io::Result<()>;
    type StoredData = Socket;

    fn transform_oneshot_output(self, _: Socket, entry: cqueue::Entry) -> Self::Output {
        match -entry.result() {
            // Nothing was in flight, or it completed meanwhile.
            libc::ENOENT | libc::EALREADY => Ok(()),
            error if error > 0 => Err(io::Error::from_raw_os_error(error)),
            _ => Ok(()),
        }
    }
}

/// Asks the kernel to end every operation on `socket`. The request is made at once; the future says when
/// it has been looked at and may be dropped. Who waits for the operations themselves goes on waiting:
/// one of them may have succeeded meanwhile.
pub fn cancel(socket: &Socket) -> impl Future<Output = io::Result<()>> + use<> {
    let all = types::CancelBuilder::fd(types::Fd(socket.raw())).all();
    let entry = opcode::AsyncCancel2::new(all).build();
    // The entry holds no address, and the socket stays open until the kernel has seen it.
    UnsubmittedOneshot::new(socket.clone(), FinishCancel, entry).submit()
}
