//! The control plane: one low-priority thread that learns, stores, and publishes.

pub mod admin;
mod answers;
pub mod autocert;
pub mod certified;
pub mod inventory;
pub mod issuing;
pub mod item;
pub mod listing;
pub mod load;
pub mod local_ca;
pub mod looking;
pub mod parallel;
pub mod places;
pub mod plane;
pub mod precedence;
pub mod prepare;
pub mod publisher;
pub mod reload;
pub mod reports;
pub mod resolver;
pub mod staple;
pub mod tickets;
pub mod upstream_tls;
pub mod upstreams;
pub mod watch;
