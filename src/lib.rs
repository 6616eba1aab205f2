//! Ringgate: a TLS front end for Linux edge nodes.
//!
//! The map, in the order a byte travels:
//!
//! - [`edge`] — the data plane. One pinned thread per core accepts, shakes hands, dials the upstream
//!   and relays, on an io_uring of its own ([`ring`]).
//! - [`crypto`] — the public-key operations of handshakes, eight at a time where the processor can.
//! - [`snapshot`] — the one thing both planes share: an immutable picture of certificates, routes,
//!   upstreams and ticket keys behind one atomic pointer.
//! - [`control`] — the control plane. One low-priority thread loads, renews, resolves, reloads and
//!   publishes the next snapshot.
//! - [`config`] — what the user wrote, turned into a checked `Config`; [`store`] — what survives a
//!   restart; [`observe`] — how we are seen.
//! - [`process`] — what the process is to the machine; [`cli`] — the commands a person types.
//! - [`name`] and [`clock`] — two small words that every room uses.
//!
//! Who may import whom is a table in ARCHITECTURE.md, and a test reads it.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod crypto;
pub mod edge;
pub mod name;
pub mod observe;
pub mod process;
pub mod ring;
pub mod snapshot;
pub mod store;
