//! Loads a TLS front end, checks every answer, and compares what front ends cost.
//!
//! The map, in the order of one measurement:
//!
//! - [`plan`] — what to run: the scenario, for how long, by how many clients, at which rate.
//! - [`stage`] — where it runs: certificates, the upstream, the secret that only the upstream holds.
//! - [`system`] — a front end as its file in `perf/peers/` describes it; [`packages`] — where it comes from;
//!   [`filled`] — its command on this stage; [`started`] — one that runs.
//! - [`run`] — one measured window: clients of a [`scenario`] on this thread, each [`connection`]
//!   verified by [`trust`] ([`signatures`] when it is over), each response by [`answers`], while [`watch`] reads what the server uses.
//! - [`outcome`] — what a window gave; [`verdict`] — whether it may be compared, and the ratios;
//!   [`table`] and [`json`] — how that is shown, [`machine`] — on what it was taken.
//! - [`comparison`] — all of it for several systems, in rounds that alternate between them.
//! - [`everything`] — the comparison with all that perf/results keeps beside it, [`publishing`] for one;
//!   [`report`] — its page; [`chart`] — its pictures.
//! - [`renewals`] — another question on the same stage: do clients notice that certificates are renewed?
//! - [`workers`] — and another: what do two workers cost, and how do they share the connections?
//!
//! Everything runs on one thread, pinned beside the upstream, away from the server's core; but two loads of
//! [`workers`] are a thread each, and share the cores with the server.
#![allow(
    clippy::disallowed_methods,
    reason = "measures from outside: reads clocks, /proc and files, and runs nowhere but here"
)]

/// Clients share a core with the upstream: what they save, the server under test gets as load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod answers;
pub mod chart;
pub mod comparison;
pub mod connection;
pub mod cores;
pub mod everything;
pub mod failure;
pub mod filled;
pub mod json;
pub mod machine;
pub mod metrics;
pub mod options;
pub mod outcome;
pub mod pacer;
pub mod packages;
pub mod plan;
pub mod processes;
pub mod publishing;
pub mod renewals;
pub mod report;
pub mod response;
pub mod run;
pub mod scenario;
pub mod signatures;
pub mod stage;
pub mod started;
pub mod system;
pub mod table;
pub mod trust;
pub mod verdict;
pub mod watch;
pub mod workers;
