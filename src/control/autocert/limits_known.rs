//! The limits of issuers that publish theirs, in one table. Pure.
//!
//! Let's Encrypt's as of late 2026 (<https://letsencrypt.org/docs/rate-limits/>). Each is a bucket that gives one
//! back after a time, so that nobody need wait for a week to pass. Not here: new accounts per address, for an
//! account is registered once; and failures in a row, of which back-off reaches 1,152 after years.

use std::time::Duration;

/// So many at once, and one more after each `refill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub capacity: u32,
    pub refill: Duration,
}

/// What an issuer allows.
#[derive(Debug, PartialEq, Eq)]
pub struct Limits {
    /// New orders of an account.
    pub orders: Bucket,
    /// Certificates for names below a registered domain; `None`: more than anyone can order.
    pub domain: Option<Bucket>,
    /// Certificates for exactly the same names.
    pub same_names: Bucket,
    /// Failed validations of a name.
    pub failed: Bucket,
    /// An order is a renewal, and exempt from the first two, if the same names have had a certificate since.
    pub renewal_within: Duration,
}

const fn bucket(capacity: u32, refill_seconds: u64) -> Bucket {
    Bucket { capacity, refill: Duration::from_secs(refill_seconds) }
}

const DAY: u64 = 24 * 3600;

static LETS_ENCRYPT: Limits = Limits {
    orders: bucket(300, 3 * 3600 / 300),
    domain: Some(bucket(50, 7 * DAY / 50)),
    same_names: bucket(5, 7 * DAY / 5),
    failed: bucket(5, 3600 / 5),
    renewal_within: Duration::from_secs(120 * DAY),
};

static LETS_ENCRYPT_STAGING: Limits = Limits {
    // 7.2 seconds: times are in whole ones.
    orders: bucket(1500, 8),
    domain: None,
    // A week's 30,000, in 20.2 seconds each.
    same_names: bucket(30_000, 21),
    failed: bucket(200, 3600 / 200),
    renewal_within: Duration::from_secs(120 * DAY),
};

/// The limits of the issuer with this directory; of any other nothing is known, and only orders in flight are
/// bounded.
pub fn limits_of(directory: &str) -> Option<&'static Limits> {
    let authority = directory.split_once("://")?.1.split('/').next()?;
    match authority.strip_suffix(":443").unwrap_or(authority) {
        "acme-v02.api.letsencrypt.org" => Some(&LETS_ENCRYPT),
        "acme-staging-v02.api.letsencrypt.org" => Some(&LETS_ENCRYPT_STAGING),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::autocert::{LETS_ENCRYPT as PRODUCTION, LETS_ENCRYPT_STAGING as STAGING};

    #[test]
    fn the_directory_decides() {
        assert_eq!(limits_of(PRODUCTION), Some(&LETS_ENCRYPT));
        assert_eq!(limits_of(STAGING), Some(&LETS_ENCRYPT_STAGING));
        for other in
            ["https://localhost:14000/dir", "https://acme-v02.api.letsencrypt.org.example/", ""]
        {
            assert_eq!(limits_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_refills_are_those_that_are_published() {
        let minutes = |bucket: Bucket| bucket.refill.as_secs() / 60;
        assert_eq!(LETS_ENCRYPT.orders.refill, Duration::from_secs(36));
        assert_eq!(LETS_ENCRYPT.domain.map(minutes), Some(201));
        assert_eq!(minutes(LETS_ENCRYPT.same_names) / 60, 33);
        assert_eq!(minutes(LETS_ENCRYPT.failed), 12);
    }
}
