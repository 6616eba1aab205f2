//! What is known of a name, for people and programs.

use serde::{Deserialize, Serialize};

use crate::clock::{Moment, rfc3339};

/// One name in `ringgate certs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    /// What serves it: by hand, autocert, local CA, none.
    pub served: String,
    /// Which rule chose that.
    pub why: String,
    pub issuer: Option<String>,
    pub key_type: Option<String>,
    pub not_after: Option<String>,
    /// In hexadecimal, as CAs show it.
    pub serial: Option<String>,
    /// What is known of its staple; nothing where there is none to be had.
    #[serde(default)]
    pub staple: Option<String>,
    pub next: Option<String>,
    pub next_at: Option<String>,
    pub error: Option<String>,
    pub error_at: Option<String>,
}

impl Status {
    pub fn set_error(&mut self, what: &str, remedy: Option<&str>, at: Moment) {
        self.error = Some(match remedy {
            Some(remedy) => format!("{what}; {remedy}"),
            None => what.to_owned(),
        });
        self.error_at = Some(rfc3339(at));
    }
}
