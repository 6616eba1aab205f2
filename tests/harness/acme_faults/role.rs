//! What a request is for, by the paths of Pebble.

/// RFC 8555 §7.1 and RFC 9773 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Directory,
    NewNonce,
    NewAccount,
    Account,
    NewOrder,
    Order,
    Orders,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
    Revoke,
    KeyChange,
    RenewalInfo,
    Unknown,
}

/// Where the proxy answers renewalInfo; Pebble 2.4.0 has nothing there.
pub const RENEWAL_INFO_PATH: &str = "/renewal-info";

impl Role {
    pub fn of(path: &str) -> Self {
        match path.split('/').nth(1).unwrap_or_default() {
            "dir" => Self::Directory,
            "nonce-plz" => Self::NewNonce,
            "sign-me-up" => Self::NewAccount,
            "my-account" => Self::Account,
            "order-plz" => Self::NewOrder,
            "my-order" => Self::Order,
            "list-orderz" => Self::Orders,
            "authZ" => Self::Authorization,
            "chalZ" => Self::Challenge,
            "finalize-order" => Self::Finalize,
            "certZ" => Self::Certificate,
            "revoke-cert" => Self::Revoke,
            "rollover-account-key" => Self::KeyChange,
            "renewal-info" => Self::RenewalInfo,
            _ => Self::Unknown,
        }
    }
}
