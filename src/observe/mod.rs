//! How we are seen: counters, reports and logs. Imports nothing that acts.

pub mod counters;
pub mod flood;
pub mod log;
pub mod names;
