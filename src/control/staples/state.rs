//! What is known of a certificate's staple, for people.

use std::fmt;

use crate::clock::Moment;

use super::response::Revoked;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Good {
        until: Moment,
    },
    /// Nobody has been asked yet, or nobody is to be.
    None,
    /// Nobody could be asked, or what was answered or given is not stapled.
    Refused(String),
    Revoked(Revoked),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good { until } => write!(f, "good until {until}"),
            Self::None => f.write_str("none yet"),
            Self::Refused(why) => write!(f, "none: {why}"),
            Self::Revoked(Revoked { at, .. }) => write!(f, "REVOKED on {at}"),
        }
    }
}
