//! A proxy in front of Pebble: sees what the client says to its CA, breaks what a test wants broken, and
//! adds what Pebble 2.4.0 lacks.

mod connection;
mod extensions;
mod fault;
mod hook;
mod proxy;
mod request;
mod role;

pub use extensions::RenewalInfo;
pub use fault::{Fault, RetryAfter, When};
use hook::Point;
pub use hook::{Next, Phase};
pub use proxy::AcmeFaults;
use request::Request;
pub use role::Role;
