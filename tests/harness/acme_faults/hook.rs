//! Where a test may stop a request, look at it, and decide what becomes of it.

use std::sync::Arc;

use super::Request;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Pebble does not know of the request.
    Before,
    /// Pebble has acted, the client does not know.
    After,
}

/// Where a request is when a hook is called.
pub struct Point<'a> {
    pub phase: Phase,
    pub request: &'a Request,
}

/// What happens after a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Continue,
    /// The connection is reset: not forwarded, or the answer lost.
    Cut,
}

pub type Hook = Arc<dyn Fn(&Point) -> Next + Send + Sync>;
