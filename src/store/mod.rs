//! What survives a restart.

pub mod file;
