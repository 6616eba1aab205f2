//! What is known of a certificate that was issued: when it ends, from when on it may be renewed, and from when
//! on it must be. Pure.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringgate::clock::Moment;

use crate::ca::REVOKED_AFTER;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// What lives shorter is renewed at a half of its lifetime, and what lives longer with a third left: what
/// Let's Encrypt advises where there is no renewal information.
pub const SHORT: Duration = Duration::from_secs(10 * 24 * 3600);

/// A certificate that was issued.
pub struct Certificate {
    pub ca: usize,
    pub name: String,
    pub from: Moment,
    pub to: Moment,
    /// When the CA said, and which window.
    pub windows: Vec<(Moment, Moment, Moment)>,
    pub incident: Option<Moment>,
    /// Since when its responder says so.
    pub revoked: Option<Moment>,
    pub is_judged: bool,
}

impl Certificate {
    pub fn life(&self) -> Duration {
        self.to.since(self.from)
    }

    /// Before when it is not due by anybody's reckoning.
    pub fn earliest(&self) -> Moment {
        let life = self.life();
        let left = life / if life < SHORT { 2 } else { 3 };
        let by_lifetime = self.to.minus(left + life / 20 + Duration::from_secs(2));
        let starts = self.windows.iter().map(|(_, start, _)| *start);
        starts.chain([by_lifetime]).min().unwrap_or(by_lifetime)
    }

    /// Whether its CA has taken it back, announced or not.
    pub fn is_revoked(&self, now: Moment) -> bool {
        let announced = self.incident.map(|at| at.plus(REVOKED_AFTER));
        self.revoked.into_iter().chain(announced).any(|at| at <= now)
    }

    /// How long a CA has to be able to issue together for a new one to be owed.
    pub fn needed(&self) -> Duration {
        if self.life() < SHORT { Duration::from_secs(2 * 3600) } else { DAY }
    }

    pub fn end(&self) -> Moment {
        self.incident.map_or(self.to, |at| self.to.min(at.plus(REVOKED_AFTER)))
    }

    /// From when on an attempt is owed.
    pub fn due(&self) -> Moment {
        let life = self.life();
        let by_lifetime = self.to.minus(life / if life < SHORT { 2 } else { 3 });
        let windows = self.windows.iter().map(|(served, _, end)| (*end).max(*served)).min();
        let usual = windows.unwrap_or(by_lifetime).min(self.to.minus(life / 10));
        // Clients ask once a day at least (RFC 9773 §4.3.2).
        self.incident.map_or(usual, |incident| usual.min(incident.plus(DAY)))
    }
}

/// The first certificate in PEM, also where its line ends are escaped in JSON.
pub fn first_certificate(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let base64 = body.replace("\\r", "").replace("\\n", "").replace(['\r', '\n'], "");
    STANDARD.decode(base64).ok()
}

/// The longest span within that no other touches, and its beginning. Pure.
pub fn longest_free(hindered: &[(Moment, Moment)], from: Moment, to: Moment) -> (Duration, Moment) {
    let mut spans: Vec<_> =
        hindered.iter().filter(|(begin, end)| *end > from && *begin < to).copied().collect();
    spans.sort_unstable();
    spans.push((to, to));
    let (mut free, mut since, mut reached) = (Duration::ZERO, from, from);
    for (begin, end) in spans {
        if begin.since(reached) > free {
            (free, since) = (begin.since(reached), reached);
        }
        reached = reached.max(end);
    }
    (free, since)
}
