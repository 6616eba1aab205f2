//! HTTP, as far as the edge speaks it itself.

pub mod head;
pub mod plain;
