//! io_uring operations that tokio-uring lacks, on tokio-uring's own ring; the only room with unsafe code.
#![expect(
    unsafe_code,
    reason = "the kernel reads and writes memory by address; every block names who owns that memory and which event ends the kernel's claim to it"
)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod buffers;
mod cancel;
mod oneshot;
mod runtime;
mod socket;

pub use buffers::{BUFFER_BYTES, Buffer, Buffers};
pub use cancel::cancel;
pub use oneshot::{
    Accept, Connect, Readable, Receive, Send, accept, connect, readable, receive, send,
};
pub use runtime::{Runtime, Unavailable, probe};
pub use socket::Socket;
