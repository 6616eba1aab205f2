//! Staples and lists of revoked certificates: fetched, checked, stored, and dropped before they expire.
//!
//! `pointers` says whom a leaf names; `plan` when to ask; `request` and `fetch` ask; `response` and `crl` judge
//! the answer; `stored` keeps it; the control plane publishes it.

pub mod asking;
#[cfg(test)]
mod corpus;
pub mod crl;
mod entry;
mod fetch;
pub mod issuer;
pub mod keeper;
mod keeper_of_lists;
mod lists;
pub mod plan;
pub mod pointers;
mod request;
mod responders;
pub mod response;
#[cfg(test)]
pub mod samples;
mod signed;
pub mod state;
mod stored;
mod told;
mod watched_list;
