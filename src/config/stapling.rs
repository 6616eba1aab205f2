//! What is configured about staples, and how responders are reached.

use std::path::PathBuf;

use super::autocert::Proxy;

/// The settings of stapling while it is on.
#[derive(Clone, Debug, PartialEq)]
pub struct Stapling {
    /// The store of certificates, which keeps staples whether autocert is on or off.
    pub dir: PathBuf,
    /// Most responders are asked by plain http: their answers are signed.
    pub http_proxy: Option<Proxy>,
    pub https_proxy: Option<Proxy>,
    /// What is wrong with a proxy that is therefore not used.
    pub notes: Vec<String>,
}
