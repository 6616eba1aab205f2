//! Black-box tests: the real program on loopback, with real backends (nginx) and real clients (curl,
//! openssl, wrk), a module per behaviour.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read clocks and files and wait for conditions"
)]

mod harness;

mod certificates;
mod configuration;
mod drain;
mod first_run;
mod hostile;
mod house;
mod limits;
mod proxying;
mod reload;
mod resumption;
mod system;
mod upstreams;
