//! The limits of the simulated CA: token buckets with Let's Encrypt's numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use ringgate::clock::Moment;

/// A limit: so many at once, one more each `refill`.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub what: &'static str,
    burst: u32,
    refill: Duration,
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
const WEEK: u64 = 7 * 24 * 3600;

pub const ACCOUNTS: Limit = Limit { what: "new accounts", burst: 10, refill: seconds(18 * 60) };
pub const ORDERS: Limit = Limit { what: "new orders per account", burst: 300, refill: seconds(36) };
pub const EXACT_SET: Limit =
    Limit { what: "certificates per exact set", burst: 5, refill: seconds(WEEK / 5) };
pub const DOMAIN: Limit =
    Limit { what: "certificates per registered domain", burst: 50, refill: seconds(WEEK / 50) };
pub const FAILED: Limit =
    Limit { what: "failed validations per name", burst: 5, refill: seconds(12 * 60) };

/// How full each bucket was when it was last used.
#[derive(Debug, Default)]
pub struct Buckets(BTreeMap<(&'static str, String), (f64, Moment)>);

impl Buckets {
    fn level(&self, limit: Limit, key: &str, now: Moment) -> f64 {
        let burst = f64::from(limit.burst);
        match self.0.get(&(limit.what, key.to_owned())) {
            Some((level, at)) => {
                (level + now.since(*at).as_secs_f64() / limit.refill.as_secs_f64()).min(burst)
            }
            None => burst,
        }
    }

    /// `None` if there is something left, else how long until there is.
    pub fn empty_for(&self, limit: Limit, key: &str, now: Moment) -> Option<Duration> {
        let level = self.level(limit, key, now);
        (level < 1.0).then(|| limit.refill.mul_f64(1.0 - level) + Duration::from_secs(1))
    }

    pub fn spend(&mut self, limit: Limit, key: &str, now: Moment) {
        self.change(limit, key, now, -1.0);
    }

    pub fn give_back(&mut self, limit: Limit, key: &str, now: Moment) {
        self.change(limit, key, now, 1.0);
    }

    fn change(&mut self, limit: Limit, key: &str, now: Moment, by: f64) {
        let level = self.level(limit, key, now) + by;
        self.0.insert((limit.what, key.to_owned()), (level, now));
    }
}
