//! Black-box tests of the comparison: what is broken is refused, and says so.
#![allow(clippy::disallowed_methods, reason = "tests write files and start programs")]

mod refusals;
mod running;
