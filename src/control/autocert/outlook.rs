//! Says weeks ahead that an issuer's limits will not suffice for what becomes due, with the names.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::clock::{Moment, rfc3339};
use crate::name::Pattern;

use super::blocking;
use super::ca::Ca;
use super::domain::registered_domain;
use super::entry::Entry;
use super::facts::counts;
use super::forecast::{Late, Needed, too_late};
use super::issuers::Issuers;
use super::names::obstacle_at;
use super::renewal::renewed_at;

/// How often it is looked at; the first time when first orders have had an hour.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);
const FIRST_LOOK: Duration = Duration::from_secs(3600);
/// How often it is said.
const SAY_EVERY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Names that are said; the others are counted.
const NAMED: usize = 10;

pub struct Outlook {
    next: Moment,
}

impl Outlook {
    pub fn new(now: Moment) -> Self {
        Self { next: now.plus(FIRST_LOOK) }
    }

    /// Looks, if it is time, beside everything else.
    pub fn look<'a>(
        &mut self,
        issuers: &Issuers,
        entries: impl Iterator<Item = &'a Entry> + Clone,
        now: Moment,
    ) {
        // Also when the clock was set back.
        if self.next > now && self.next <= now.plus(LOOK_EVERY) {
            return;
        }
        self.next = now.plus(LOOK_EVERY);
        for (at, ca) in issuers.all.iter().enumerate().filter(|(_, ca)| ca.ledger.is_some()) {
            let asked_here =
                entries.clone().filter(|entry| asked_first(entry, issuers) == Some(at));
            let needed = asked_here.filter_map(|entry| needed(entry, at, ca, now)).collect();
            tokio::spawn(say(ca.clone(), needed, now));
        }
    }
}

/// The issuer that is asked first for a name.
fn asked_first(entry: &Entry, issuers: &Issuers) -> Option<usize> {
    let pattern = Pattern::Exact(entry.name.clone());
    issuers.all.iter().position(|ca| obstacle_at(&pattern, &ca.issuer).is_none())
}

fn needed(entry: &Entry, at: usize, ca: &Ca, now: Moment) -> Option<Needed> {
    let ledger = ca.ledger.as_ref()?;
    let serving = entry.dossier.serving();
    let renewal = serving.and_then(|known| known.record.certificate.as_ref()?.renewal.as_ref());
    let validity = serving.and_then(|known| known.validity());
    let due = validity.as_ref().map_or(now, |validity| renewed_at(validity, renewal).0);
    Some(Needed {
        due,
        ends: validity.map(|validity| validity.not_after),
        name: entry.name.to_string(),
        domain: registered_domain(&entry.name),
        account: ca.issuer.email.clone().unwrap_or_default(),
        counts: counts(&entry.dossier, at, ca, ledger.limits, due.max(now)),
    })
}

async fn say(ca: Arc<Ca>, needed: Vec<Needed>, now: Moment) {
    let Some(ledger) = &ca.ledger else { return };
    let (budget, limits) = (ledger.current().await, ledger.limits);
    let late = blocking(move || too_late(&budget, limits, needed, now)).await;
    if late.is_empty() || ledger.warn(now.minus(SAY_EVERY), now).await.is_err() {
        return;
    }
    let (issuer, names, count) = (&ca.issuer.directory, first_names(&late), late.len());
    let room_at = late.iter().map(|late| late.free).min().map(rfc3339);
    warn!(
        issuer,
        names,
        count,
        room_at,
        "the CA's limits will not suffice for these names in time; name another CA after it in autocert_ca, or give them a wildcard certificate by hand"
    );
}

fn first_names(late: &[Late]) -> String {
    let mut words: Vec<_> = late.iter().take(NAMED).map(|late| late.name.clone()).collect();
    if let Some(more) = late.len().checked_sub(NAMED).filter(|more| *more > 0) {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_names_are_said_and_the_others_counted() {
        let late = |count: usize| -> Vec<_> {
            let free = Moment::from_unix_seconds(0);
            (0..count).map(|number| Late { name: format!("n{number}"), free }).collect()
        };
        assert_eq!(first_names(&late(2)), "n0, n1");
        assert!(first_names(&late(10)).ends_with("n8, n9"));
        assert!(first_names(&late(13)).ends_with("n9, and 3 more"));
    }
}
