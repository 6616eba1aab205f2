//! Black-box tests: the real program on loopback, with real backends (nginx), real clients (curl,
//! openssl, wrk) and a real CA (Pebble), a module per behaviour.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read clocks and files and wait for conditions"
)]

mod harness;

mod acme_faults;
mod acme_harness;
mod autocert_budget;
mod autocert_caddy;
mod autocert_certs;
mod autocert_crash;
mod autocert_environment;
mod autocert_faults;
mod autocert_issuers;
mod autocert_issuing;
mod autocert_names;
mod autocert_profiles;
mod autocert_renewal;
mod autocert_shared;
mod autocert_storage;
mod autocert_validation;
mod certificates;
mod configuration;
mod drain;
mod endpoints;
mod first_run;
mod hostile;
mod house;
mod inventory;
mod limits;
mod names;
mod proxy_protocol;
mod proxying;
mod redirect;
mod reload;
mod resumption;
mod revocation;
mod sockets;
mod sources;
mod staples;
mod system;
mod together;
mod upstream_tls;
mod upstreams;
