//! What the process is to the machine: order of start-up, signals, order of shut-down.

mod certs;
pub mod command;
mod cores;
mod descriptors;
mod listeners;
mod run;
mod systemd;
mod trust;
