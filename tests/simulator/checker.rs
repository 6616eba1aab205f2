//! What must hold after every step, and the evidence when it does not.
//!
//! 1. No served certificate ends (by its date, or by a revocation that renewal information announced) if,
//!    from the moment it was due, a CA would have issued for 24 hours together, 2 for lifetimes under ten
//!    days. That is measured by the story, not by our code: hours of an outage, of refused orders, of failing
//!    validations, of a machine that is down or crashes in a loop do not count; nor those that a `Retry-After`
//!    forbade; nor those in which the machine's clock is so far behind that by it nothing is due. A clock that
//!    is ahead is no excuse, nor is whatever is wrong with the disk, but for other CAs than the one that
//!    issued the certificate: their account may never have been read, and whose private key cannot be stored
//!    is not registered. Where certificates must be stapled, hours in which a responder gives no staple do not
//!    count either, nor those in which by the machine's clock a fresh one is not valid yet. A name that nothing valid is served for is owed a certificate within a day of such hours.
//! 2. At most one order per renewal: none while one is open whose URL the store has held, and none for a
//!    certificate in the store that is not due by the machine's clock.
//! 3. No limit of the CA is exceeded, and no order is sent that a `Retry-After` forbids.
//! 4. Nothing unreadable is in the store but what the story cut short.
//! 5. No finished work is repeated: one account, an order without `replaces` after one that is refused for it,
//!    and what is served is stored.
//! 6. Every wait has a reason and an end that an operator can read.
//! 7. Names whose certificates are of the same minute are not renewed in the same minute.
//!
//! Where the store has lost what it held (a full or broken disk, a record cut short), a CA its accounts, or where the
//! store is slower than a lock lives that keeps Caddy and a node apart, 2, 3 and 5 cannot be asked of anybody: they hold
//! again a day after. Two nodes give each other's locks more time on a slow store, and are apart until it is fast again:
//! the one then sees at once what the other has not been able to say yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringgate::clock::simulated::true_time;
use ringgate::clock::{Moment, from_rfc3339};
use ringgate::control::autocert::status::Status;
use ringgate::store::record::Record;

use crate::evidence::{Certificate, first_certificate, longest_free};
use crate::histogram::Histogram;
use crate::stapled::ASKED_AGAIN_WITHIN;
use crate::weather::{CROWD, Span, Story, What};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// To Caddy a lock that was not refreshed for ten seconds is anybody's; it is refreshed every four.
const SLOWER_THAN_LOCKS: Duration = Duration::from_secs(5);
/// No simulated CA asks for more patience between two questions for renewal information.
const ASKED_WITHIN: Duration = Duration::from_secs(48 * 3600);
/// Orders that may be refused in a row for their `replaces`: one per attempt whose second order was not
/// answered.
const REPLACES_REFUSED_AT_MOST: u32 = 5;
/// What a process was told so shortly before its end it may not have stored, on a disk that is slow.
const TOLD_AT_LAST: Duration = Duration::from_secs(300);
/// Names of one minute, by the part of their lifetime that they are apart.
const SAME_MINUTE_PART: u32 = 5000;
/// So many names renewed in the same minute are no coincidence, or of very many this part.
const NAMES_OF_SAME_MINUTE: usize = 4;
const PART_OF_SAME_MINUTE: usize = 4;

/// What has been broken, first of all.
#[derive(Clone, Debug)]
pub struct Broken {
    pub at: Moment,
    pub what: String,
}

/// An order that the CA accepts.
pub struct Placed<'a> {
    pub name: &'a str,
    /// Their URLs.
    pub order: String,
    /// Another one of the name at this CA that is not over.
    pub open: Option<String>,
    /// The last one there that is, with the certificate that came of it.
    pub finished: Option<(String, Vec<u8>)>,
    pub now: Moment,
}

#[derive(Default)]
struct Inner {
    broken: Option<Broken>,
    certificates: Vec<Certificate>,
    by_der: BTreeMap<Vec<u8>, usize>,
    stored_orders: BTreeSet<String>,
    stored_certificates: BTreeSet<usize>,
    cut: BTreeSet<String>,
    /// Spans that do not count for 1, by CA: from, to.
    hindered: Vec<Vec<(Moment, Moment)>>,
    no_windows: Vec<Vec<(Moment, Moment)>>,
    /// Spans in which the machine's clock is behind, and how far.
    behind: Vec<(Moment, Moment, Duration)>,
    /// By node and name: since when nothing valid is served.
    unserved: BTreeMap<(usize, String), Moment>,
    /// Spans in which the disk is full or gone.
    disk: Vec<(Moment, Moment)>,
    /// Spans after which 2, 3 and 5 are not asked for a day.
    forgetful: Vec<(Moment, Moment)>,
    /// By CA and name: when a `Retry-After` was sent, and until when it forbids orders.
    forbidden: BTreeMap<(usize, String), (Moment, Moment)>,
    /// By name: orders refused for their `replaces` since one was accepted.
    replaces_refused: BTreeMap<String, u32>,
    accounts: Vec<u32>,
    orders_since: BTreeMap<String, u32>,
    renewed: BTreeMap<String, (Moment, Moment)>,
    histogram: Histogram,
    /// By CA.
    outages: Vec<(usize, Moment, Moment)>,
}

/// Watches one world.
pub struct Checker {
    has_renewal_information: bool,
    names: usize,
    disturbed: Vec<(Moment, Moment)>,
    inner: Mutex<Inner>,
}

impl Checker {
    pub fn new(story: &Story, begun: Moment) -> Self {
        let cas = story.setting.cas;
        let mut inner = Inner {
            hindered: vec![Vec::new(); cas],
            no_windows: vec![Vec::new(); cas],
            accounts: vec![0; cas],
            ..Inner::default()
        };
        let must_staple = story.setting.responses.is_some_and(|responses| responses.must_staple);
        let mut disturbed = Vec::new();
        for event in &story.events {
            let span = (begun.plus(event.at), begun.plus(event.at + event.lasts));
            for ca in 0..cas {
                if event.what.hinders_us() || (event.ca == ca && event.what.hinders_ca()) {
                    inner.hindered[ca].push(span);
                }
                // What must be stapled takes nothing's place before it is, and while its CA issues no
                // other is asked.
                let hinders_staples = match event.what {
                    What::Responder(fault) => fault.hinders(),
                    // By a clock that is behind a fresh one is not valid yet.
                    What::ClockAhead { seconds } => seconds < 0,
                    _ => false,
                };
                if must_staple && hinders_staples {
                    inner.hindered[ca].push((span.0, span.1.plus(ASKED_AGAIN_WITHIN)));
                }
            }
            if matches!(event.what, What::Outage(_)) {
                inner.outages.push((event.ca, span.0, span.1));
            }
            if let What::ClockAhead { seconds: seconds @ ..0 } = event.what {
                inner.behind.push((span.0, span.1, Duration::from_secs(seconds.unsigned_abs())));
            }
            if matches!(event.what, What::NoRenewalInformation | What::Outage(_)) {
                inner.no_windows[event.ca].push(span);
            }
            if matches!(event.what, What::DiskFull | What::DiskGone) {
                inner.disk.push(span);
            }
            let outlives_locks =
                matches!(event.what, What::DiskSlow { pause } if pause >= SLOWER_THAN_LOCKS);
            if event.what.forgets() || (outlives_locks && story.setting.has_caddy) {
                inner.forgetful.push((span.0, span.1.plus(DAY)));
            } else if outlives_locks && story.setting.nodes > 1 {
                inner.forgetful.push((span.1, span.1.plus(DAY)));
            }
            disturbed.push(span);
        }
        let setting = &story.setting;
        let (has_renewal_information, names) =
            (setting.renewal_information.is_some(), setting.names);
        Self { has_renewal_information, names, disturbed, inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn broken(&self) -> Option<Broken> {
        self.inner().broken.clone()
    }

    pub fn take_histogram(&self) -> Histogram {
        std::mem::take(&mut self.inner().histogram)
    }

    pub fn bug(&self, what: String) {
        self.inner().breaks(what);
    }

    // What the CA tells.

    pub fn issued(&self, ca: usize, name: &str, der: &[u8], from: Moment, to: Moment) {
        let mut inner = self.inner();
        let now = true_time();
        let before = inner.latest(name).map(|at| {
            let before = &inner.certificates[at];
            (before.ca, before.earliest(), before.life(), before.to)
        });
        let orders = inner.orders_since.remove(name);
        if let (Some((before_ca, due, life, ends)), Some(orders)) = (before, orders) {
            // Those of its CA that were in the way of this renewal.
            let outages = inner.outages.iter().filter(|(of, begin, end)| {
                *of == before_ca && *end > due && *begin < now && *end <= now
            });
            let bridged = outages.map(|(_, begin, end)| end.since(*begin)).max();
            inner.histogram.renewal(life, ends.since(now), orders, bridged);
        }
        let index = inner.certificates.len();
        inner.by_der.insert(der.to_vec(), index);
        let (windows, incident, revoked) = (Vec::new(), None, None);
        let name = name.to_owned();
        let is_judged = false;
        inner.certificates.push(Certificate {
            ca,
            name,
            from,
            to,
            windows,
            incident,
            revoked,
            is_judged,
        });
    }

    pub fn window_served(&self, der: &[u8], now: Moment, start: Moment, end: Moment) {
        let mut inner = self.inner();
        if let Some(one) = inner.by_der.get(der).copied() {
            let windows = &mut inner.certificates[one].windows;
            if windows.last().is_none_or(|(_, from, to)| (*from, *to) != (start, end)) {
                windows.push((now, start, end));
            }
        }
    }

    pub fn incident(&self, der: &[u8], now: Moment) {
        let mut inner = self.inner();
        if let Some(one) = inner.by_der.get(der).copied() {
            inner.certificates[one].incident = Some(now);
        }
    }

    pub fn revoked(&self, der: &[u8], now: Moment) {
        let mut inner = self.inner();
        if let Some(one) = inner.by_der.get(der).copied() {
            inner.certificates[one].revoked = Some(now);
        }
    }

    /// The number of a certificate that was issued.
    pub fn number_of(&self, der: &[u8]) -> Option<usize> {
        self.inner().by_der.get(der).copied()
    }

    /// Whether a CA could have issued another in this one's place for long enough together meanwhile.
    pub fn could_be_replaced(&self, at: usize, from: Moment, to: Moment) -> bool {
        let inner = self.inner();
        inner.free(at, from, to).0 > inner.certificates[at].needed()
    }

    pub fn has_ended(&self, at: usize, now: Moment) -> bool {
        self.inner().certificates[at].to <= now
    }

    /// The CA of a certificate, and its name.
    pub fn whose(&self, at: usize) -> (usize, String) {
        let one = &self.inner().certificates[at];
        (one.ca, one.name.clone())
    }

    pub fn accounts_forgotten(&self, ca: usize) {
        self.inner().accounts[ca] = 0;
    }

    pub fn account_made(&self, ca: usize) {
        let mut inner = self.inner();
        inner.accounts[ca] += 1;
        if inner.accounts[ca] > 1 && !inner.is_forgetful() {
            inner.breaks(format!("a second account is registered at CA {ca}"));
        }
    }

    pub fn limit_exceeded(&self, what: &str, key: &str) {
        let mut inner = self.inner();
        if !inner.is_forgetful() {
            inner.breaks(format!("a limit of the CA is exceeded: {what} ({key})"));
        }
    }

    pub fn replaces_refused(&self, name: &str) {
        let mut inner = self.inner();
        let count = inner.replaces_refused.entry(name.to_owned()).or_default();
        *count += 1;
        if *count > REPLACES_REFUSED_AT_MOST {
            inner.breaks(format!("{name}: refused {REPLACES_REFUSED_AT_MOST} times for the same 'replaces', and asked again"));
        }
    }

    /// The CA asked not to be asked before; `None`: by nobody, for anything.
    pub fn retry_after(&self, ca: usize, name: Option<&str>, now: Moment, after: Duration) {
        let mut inner = self.inner();
        let until = now.plus(after);
        inner.hindered[ca].push((now, until));
        if let Some(name) = name {
            inner.forbidden.insert((ca, name.to_owned()), (now, until));
        }
    }

    /// The machine's clock was set: what it knows of moments says nothing any more.
    pub fn clock_was_set(&self) {
        self.inner().forbidden.clear();
    }

    /// A process ended: what it was told at last may not have been stored.
    pub fn process_ended(&self) {
        let now = true_time();
        self.inner().forbidden.retain(|_, (told, _)| now.since(*told) > TOLD_AT_LAST);
    }

    pub fn order_wanted(&self, ca: usize, name: &str, now: Moment) {
        let mut inner = self.inner();
        let until = inner.forbidden.get(&(ca, name.to_owned())).map(|(_, until)| *until);
        // Seconds are counted from the answer's arrival, and in whole ones.
        if let Some(until) = until.filter(|until| until.since(now) > Duration::from_secs(2))
            && !inner.is_forgetful()
        {
            inner.breaks(format!(
                "{name}: an order is sent that Retry-After forbids before {until}"
            ));
        }
    }

    pub fn placed(&self, placed: &Placed<'_>) {
        let mut inner = self.inner();
        let Placed { name, order, open, finished, now } = placed;
        let (name, now) = (*name, *now);
        *inner.orders_since.entry(name.to_owned()).or_default() += 1;
        inner.replaces_refused.remove(name);
        if !inner.is_forgetful() {
            if let Some(open) = open.as_ref().filter(|open| inner.stored_orders.contains(*open)) {
                inner.breaks(format!("{name}: order {order} is placed while order {open} is open"));
            }
            // What a finished order gave is to be had there, unless it has been replaced meanwhile.
            if let Some((before, der)) = finished
                && inner.stored_orders.contains(before)
                && let Some(at) = inner.by_der.get(der).copied()
                && inner.latest(name) == Some(at)
                && !inner.stored_certificates.contains(&at)
                && !inner.certificates[at].is_revoked(now)
                && inner.certificates[at].to > now
            {
                inner.breaks(format!("{name}: order {order} is placed while the certificate of order {before} waits to be fetched"));
            }
            let shown = Moment::now();
            let latest = inner.latest(name).filter(|at| inner.stored_certificates.contains(at));
            if let Some(one) = latest.map(|at| &inner.certificates[at])
                && shown < one.earliest()
                && !one.is_revoked(now)
            {
                let why = format!(
                    "{name}: order {order} is placed though the certificate is not due before {} (by the machine's clock it is {shown})",
                    one.earliest()
                );
                inner.breaks(why);
            }
        }
        self.check_spread(&mut inner, name, now);
    }

    /// Rule 7: of names whose certificates are of the same minute and met nothing, some are apart.
    fn check_spread(&self, inner: &mut Inner, name: &str, now: Moment) {
        let Some(at) = inner.latest(name) else { return };
        let (from, life) = {
            let one = &inner.certificates[at];
            (one.from, one.to.since(one.from))
        };
        inner.renewed.insert(name.to_owned(), (from, now));
        if self.names < NAMES_OF_SAME_MINUTE {
            return;
        }
        let apart = |one: Moment, other: Moment| one.since(other).max(other.since(one));
        let close = inner.renewed.values().filter(|(of, at)| {
            apart(*of, from) < Duration::from_secs(600) && apart(*at, now) < life / SAME_MINUTE_PART
        });
        let count = close.count();
        let is_calm = !self.disturbed.iter().any(|(begin, end)| *begin <= now && *end >= from);
        let is_chance = count < NAMES_OF_SAME_MINUTE.max(self.names / PART_OF_SAME_MINUTE);
        if !is_chance && is_calm {
            inner.breaks(format!(
                "{count} names with certificates of the same minute are renewed in the same minute"
            ));
        }
    }

    // What the store tells.

    pub fn stored(&self, name: &str, content: &[u8]) {
        if !name.starts_with("ringgate/certificates/") && !name.ends_with(".crt") {
            return;
        }
        let text = String::from_utf8_lossy(content);
        let mut inner = self.inner();
        inner.cut.remove(name);
        for (at, mark) in text.match_indices(".sim/order/") {
            let (before, after) = (&text[..at], &text[at + mark.len()..]);
            let host = before.rsplit('"').next().unwrap_or_default();
            let number: String = after.chars().take_while(char::is_ascii_digit).collect();
            inner.stored_orders.insert(format!("{host}{mark}{number}"));
        }
        if let Some(at) = first_certificate(&text).and_then(|der| inner.by_der.get(&der).copied()) {
            inner.stored_certificates.insert(at);
        }
    }

    pub fn cut(&self, name: &str) {
        let mut inner = self.inner();
        inner.cut.insert(name.to_owned());
        inner.stored_orders.clear();
        inner.forbidden.clear();
    }

    /// Whether an object can be read.
    pub fn object(&self, name: &str, content: &[u8]) {
        let mut inner = self.inner();
        let is_good = match name.rsplit_once('.') {
            _ if name.starts_with("ringgate/certificates/") => Record::decode(content).is_some(),
            Some((_, "json")) => serde_json::from_slice::<serde_json::Value>(content).is_ok(),
            Some((_, "key" | "crt")) => {
                content.starts_with(b"-----BEGIN") && content.ends_with(b"-----\n")
            }
            _ => true,
        };
        if !is_good && !inner.cut.contains(name) {
            inner.breaks(format!("{name} in the store cannot be read"));
        }
    }

    // What is served.

    /// A leaf that is served, and whether it has begun to be just now.
    pub fn served(&self, name: &str, der: &[u8], is_new: bool, disk_is_fine: bool) {
        let mut inner = self.inner();
        let Some(at) = inner.by_der.get(der).copied() else {
            inner.breaks(format!("{name}: a certificate is served that no CA issued"));
            return;
        };
        if is_new
            && disk_is_fine
            && !inner.is_forgetful()
            && !inner.stored_certificates.contains(&at)
        {
            inner.breaks(format!("{name}: a certificate is served that is not in the store"));
        }
        let now = true_time();
        let end = inner.certificates[at].end();
        if now > end && !inner.certificates[at].is_judged {
            inner.certificates[at].is_judged = true;
            inner.judge_end(at, self.has_renewal_information);
        }
    }

    /// What this node serves for a name now, if anything.
    pub fn serves(&self, node: usize, name: &str, der: Option<&[u8]>) {
        let mut inner = self.inner();
        let now = true_time();
        let at = der.and_then(|der| inner.by_der.get(der).copied());
        let key = (node, name.to_owned());
        if at.is_some_and(|at| now <= inner.certificates[at].to) {
            inner.unserved.remove(&key);
            return;
        }
        let since = *inner.unserved.entry(key).or_insert(now);
        let (free, from) = inner.free_of_any(since, now);
        // The last names of a crowd wait for their CA's limits.
        if free > DAY && self.names < CROWD {
            inner.breaks(format!(
                "{name}: nothing valid is served since {since}, and a CA would have issued for {} together from {from}",
                Span(free)
            ));
        }
    }

    /// What `ringgate certs` says.
    pub fn statuses(&self, all: &[Status], shown: Moment) {
        let mut inner = self.inner();
        for one in all {
            let next = one.next.as_deref().unwrap_or_default();
            let at = one.next_at.as_deref().and_then(from_rfc3339);
            let is_at_work = next == "being obtained";
            let has_failed =
                next.starts_with("try again: a pause") || next.starts_with("your help");
            let what = match at {
                _ if next.is_empty() => "no reason is given for the wait",
                None if !is_at_work => "no end is given for the wait",
                _ if has_failed && one.error.as_deref().is_none_or(str::is_empty) => {
                    "it waits after failures, and does not say which"
                }
                Some(at) if shown.since(at) > DAY => "it waits for a moment that is long past",
                _ => continue,
            };
            let status = format!("{}: {what}: {one:?}", one.name);
            inner.breaks(status);
        }
    }
}

impl Inner {
    fn breaks(&mut self, what: String) {
        if self.broken.is_none() {
            self.broken = Some(Broken { at: true_time(), what });
        }
    }

    fn is_forgetful(&self) -> bool {
        let now = true_time();
        self.forgetful.iter().any(|(from, to)| *from <= now && now <= *to)
    }

    fn latest(&self, name: &str) -> Option<usize> {
        self.certificates.iter().rposition(|one| one.name == name)
    }

    /// The longest time in that a CA would have issued another in this one's place, and its beginning.
    fn free(&self, at: usize, from: Moment, to: Moment) -> (Duration, Moment) {
        self.free_at(Some(self.certificates[at].ca), from, to)
    }

    fn free_of_any(&self, from: Moment, to: Moment) -> (Duration, Moment) {
        self.free_at(None, from, to)
    }

    /// `known`: the CA whose account has been read.
    fn free_at(&self, known: Option<usize>, from: Moment, to: Moment) -> (Duration, Moment) {
        // By a clock that is behind nothing is due before that time has passed once more.
        let behind =
            self.behind.iter().map(|(begin, end, by)| (*begin, (*end).min(from.plus(*by))));
        let behind: Vec<_> = behind.filter(|(begin, end)| begin < end).collect();
        let free = self.hindered.iter().enumerate().map(|(ca, spans)| match Some(ca) == known {
            true => longest_free(&[spans.as_slice(), &behind].concat(), from, to),
            false => longest_free(&[spans.as_slice(), &behind, &self.disk].concat(), from, to),
        });
        free.max().unwrap_or((Duration::ZERO, from))
    }

    /// By when everybody has asked for renewal information since the incident.
    fn known_by(&self, one: &Certificate) -> Moment {
        let Some(incident) = one.incident else { return one.to };
        let mut spans = self.no_windows[one.ca].clone();
        spans.sort_unstable();
        let asked = incident.plus(ASKED_WITHIN);
        spans.into_iter().fold(asked, |asked, (begin, end)| match begin <= asked && asked < end {
            true => end.plus(Duration::from_secs(3600)),
            false => asked,
        })
    }

    fn judge_end(&mut self, at: usize, has_windows: bool) {
        let one = &self.certificates[at];
        let (due, end, needed) = (one.due(), one.end(), one.needed());
        let is_revoked = end < one.to;
        // A revocation that no renewal information announces is nobody's to notice, and before it was to be had
        // nobody could know.
        let could_know = !is_revoked || has_windows;
        let due = if is_revoked { due.max(self.known_by(one)) } else { due };
        let (free, from) = self.free(at, due, end);
        if free > needed && could_know {
            let how = if is_revoked { "was revoked" } else { "expired" };
            let what = format!(
                "{}: a served certificate {how} on {end}; it was due on {due}, and a CA would have issued for {} together from {from}",
                one.name,
                Span(free)
            );
            self.breaks(what);
        }
    }
}
