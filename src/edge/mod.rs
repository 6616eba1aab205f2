//! The data plane: what one worker owns; nothing shared but the snapshot's cell.
//!
//! Nothing here takes a lock, opens a file, resolves a name or waits without a deadline.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

mod ahead;
mod balance;
mod client;
mod connection;
mod deadline;
mod dial;
mod ended;
mod exchange;
mod handshake;
mod hello;
mod http;
pub mod limits;
mod line;
pub mod listener;
mod negotiated;
mod page;
mod proxy_protocol;
mod records;
mod relay;
mod rush;
mod scratch;
mod ticketer;
mod tls;
mod transfer;
mod unique_id;
mod upstream_tls;
pub mod worker;

#[doc(hidden)]
pub mod bench {
    //! What the criterion benches measure and nobody else may name.
    pub use super::ahead::{Ahead, Engine, Wanted};
    pub use super::hello::{Reading, read as read_hello};
    pub use super::proxy_protocol::{
        Addresses, Reading as ProxyReading, TlsFacts, UNIQUE_ID_BYTES, read as read_proxy_header,
        write_v1, write_v2,
    };
    pub use super::records::Records;
    pub use super::scratch::Scratch;
    pub use super::tls::{Configs, with_certified_key};
}
