//! What survives a restart.

pub mod file;
pub mod notices;
