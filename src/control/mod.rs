//! The control plane: one low-priority thread that learns, stores, and publishes.

pub mod certified;
pub mod load;
pub mod local_ca;
pub mod plane;
pub mod precedence;
pub mod prepare;
pub mod publisher;
pub mod reload;
pub mod reports;
pub mod resolver;
pub mod tickets;
pub mod upstream_tls;
pub mod upstreams;
