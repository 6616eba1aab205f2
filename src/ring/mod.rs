//! A thread's ring and the tasks that wait on it; one of two rooms with unsafe code.
#![expect(
    unsafe_code,
    reason = "the kernel reads and writes memory by address; every block names who owns that memory and which event ends the kernel's claim to it"
)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod buffers;
mod cancel;
mod driver;
mod memory;
mod oneshot;
mod runtime;
mod socket;
mod tasks;
mod timers;
mod unavailable;

pub use buffers::{BUFFER_BYTES, Buffer, Buffers, PAGE_BYTES, WITHIN_PAGE_BYTES};
pub use cancel::{Cancel, cancel};
pub use driver::be_patient;
pub use memory::give_back_memory;
pub use oneshot::{
    Accept, Connect, Readable, Receive, Send, accept, connect, readable, receive, receive_later,
    send,
};
pub use runtime::Runtime;
pub use socket::Socket;
pub use tasks::{Task, next_turn, spawn};
pub use timers::{Sleep, sleep_until};
pub use unavailable::{Unavailable, probe};
