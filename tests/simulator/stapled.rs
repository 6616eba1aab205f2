//! What must hold of staples after every step, in stories whose certificates name responders. The rules go on
//! from those in `checker.rs`.
//!
//! 8. What is stapled was signed by a responder for this certificate, says that it is good, and has not ended
//!    by the true time, unless the machine's clock is behind.
//! 9. A certificate is served with a staple in its first six tenths if its responder would have given one for
//!    long enough together since there was none, or since those were over: for a day where there is none and
//!    none must be (`plan.rs` asks again within 22 hours of what only a person can mend); else for two hours
//!    and an eighth of the staple's life (within 75 minutes of a failure; after a quarter of what is left, which
//!    is a tenth of the life at most, where the responder had nothing better). Hours of an outage or of old
//!    responses do not count, nor those that a `Retry-After` forbade, nor those of a wrong clock.
//! 10. What is stapled is stored, and stapled again at the next start while it is good.
//! 11. No process asks about a certificate more than `ASKED_AT_MOST` times in a day, nor while it has a staple
//!     in the first half of its life.
//! 12. After a response that says 'revoked' the process that heard it staples nothing to that certificate, and
//!     it is replaced if a CA would have issued for long enough together since (rule 1).
//! 13. Where there is no staple there is a reason that an operator can read.
//! 14. Staples of the same minute are not refreshed in the same minute.
//! 15. What must be stapled and has no staple does not take the place of what serves well.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringgate::clock::Moment;
use ringgate::clock::simulated::{ahead, true_time};

use crate::checker::Checker;
use crate::evidence::longest_free;
use crate::responses::BRIEF;
use crate::weather::{Span, Story, What};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What must be stapled, or is, is asked about again within so much and an eighth of its life.
pub const ASKED_AGAIN_WITHIN: Duration = Duration::from_secs(2 * 3600);
const AND_OF_LIFE: u32 = 8;
/// A staple is refreshed by this part of its life.
const REFRESHED_BY: f64 = 0.6;
/// A day of failures has 8 pauses that grow to half an hour and some 20 of 75 minutes; where a staple ends in
/// them, about 60 more that are an eighth of what is left. Each is a GET and a POST.
const ASKED_AT_MOST: usize = 200;
/// From the answer to what is served.
const AT_ONCE: Duration = Duration::from_secs(60);
/// How long after the clock was set what is done by it may be of the time before.
const CLOCK_SETTLES: Duration = Duration::from_secs(300);
/// Staples of one minute, by the part of their life that they are apart.
const SAME_MINUTE_PART: u32 = 5000;
/// So many names refreshed in the same minute are no coincidence.
const NAMES_OF_SAME_MINUTE: usize = 4;

/// What a response says.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// The number of the certificate.
    pub leaf: usize,
    pub this_update: Moment,
    pub until: Moment,
    pub is_good: bool,
}

impl Said {
    fn life(&self) -> Duration {
        self.until.since(self.this_update)
    }

    /// How long before its end it is served no more.
    fn dropped_before(&self) -> Duration {
        (self.life() / 20).min(HOUR)
    }
}

/// When a staple is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    Start,
    Change,
    Look,
}

/// What is served for a name, and how.
pub struct Served<'a> {
    pub process: u64,
    pub name: &'a str,
    pub leaf: &'a [u8],
    pub staple: Option<&'a [u8]>,
    pub occasion: Occasion,
    pub disk_is_fine: bool,
}

/// What was served from then on.
struct Standing {
    leaf: usize,
    staple: Option<Vec<u8>>,
    since: Moment,
}

#[derive(Default)]
struct Process {
    by_name: BTreeMap<String, Standing>,
    /// By certificate: when it asked, in the last day.
    asked: BTreeMap<usize, VecDeque<Moment>>,
    /// By certificate: when it was first told that it is revoked, and when with no trouble of the disk since.
    revoked: BTreeMap<usize, (Moment, Moment)>,
    /// By name: the staple that it asked for another of, from when that is, and when it asked.
    refreshed: BTreeMap<String, (Moment, Moment)>,
    /// By name: since when a staple, of what is served or of what waits to take its place, is said to come.
    none_yet: BTreeMap<String, Moment>,
}

#[derive(Default)]
struct Inner {
    said: HashMap<Vec<u8>, Said>,
    stored: BTreeMap<String, Vec<u8>>,
    ever_stored: BTreeSet<Vec<u8>>,
    processes: BTreeMap<u64, Process>,
    /// Spans in which a responder gives no good responses, by CA.
    hindered: Vec<Vec<(Moment, Moment)>>,
    most_asked: usize,
    taken: u64,
}

/// Watches the staples of one world.
pub struct Stapled {
    checker: Arc<Checker>,
    is_on: bool,
    must_staple: bool,
    names: usize,
    /// When there is nothing in the way of what is said to live long, by CA.
    brief: Vec<Vec<(Moment, Moment)>>,
    /// Spans in which the machine's clock is wrong, and those in which it is behind.
    wrong_clock: Vec<(Moment, Moment)>,
    clock_behind: Vec<(Moment, Moment)>,
    /// Spans in which the store may not take or give what it should.
    disk: Vec<(Moment, Moment)>,
    disturbed: Vec<(Moment, Moment)>,
    inner: Mutex<Inner>,
}

impl Stapled {
    pub fn new(story: &Story, begun: Moment, checker: Arc<Checker>) -> Self {
        let spans = |which: &dyn Fn(&What) -> bool| -> Vec<_> {
            let events = story.events.iter().filter(|event| which(&event.what));
            events.map(|event| (begun.plus(event.at), begun.plus(event.at + event.lasts))).collect()
        };
        let of_ca = |ca: usize, which: &dyn Fn(&What) -> bool| -> Vec<_> {
            let events = story.events.iter().filter(|event| event.ca == ca && which(&event.what));
            events.map(|event| (begun.plus(event.at), begun.plus(event.at + event.lasts))).collect()
        };
        let settled = |spans: Vec<(Moment, Moment)>| -> Vec<_> {
            spans.into_iter().map(|(from, to)| (from, to.plus(CLOCK_SETTLES))).collect()
        };
        let wrong_clock = settled(spans(&|what| matches!(what, What::ClockAhead { .. })));
        let is_behind = |what: &What| matches!(what, What::ClockAhead { seconds } if *seconds < 0);
        let cas = 0..story.setting.cas;
        let hinders = |what: &What| matches!(what, What::Responder(fault) if fault.hinders());
        let hindered = cas.clone().map(|ca| [of_ca(ca, &hinders), wrong_clock.clone()].concat());
        Self {
            checker,
            is_on: story.setting.responses.is_some(),
            must_staple: story.setting.responses.is_some_and(|responses| responses.must_staple),
            names: story.setting.names,
            brief: cas.map(|ca| of_ca(ca, &|what| *what == What::BriefResponses)).collect(),
            clock_behind: settled(spans(&is_behind)),
            disk: settled(spans(&|what| {
                matches!(what, What::DiskFull | What::DiskGone | What::DiskSlow { .. })
            })),
            disturbed: spans(&|_| true),
            inner: Mutex::new(Inner { hindered: hindered.collect(), ..Inner::default() }),
            wrong_clock,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bug(&self, what: String) {
        self.checker.bug(what);
    }

    /// The number of a certificate.
    pub fn leaf(&self, der: &[u8]) -> Option<usize> {
        self.checker.number_of(der)
    }

    /// How many staples were taken, and how often a process asked about one certificate in a day at most.
    pub fn counts(&self) -> (u64, usize) {
        let inner = self.inner();
        (inner.taken, inner.most_asked)
    }

    // What responders tell.

    pub fn said(&self, der: Vec<u8>, said: Said) {
        self.inner().said.insert(der, said);
    }

    pub fn retry_after(&self, ca: usize, now: Moment, after: Duration) {
        self.inner().hindered[ca].push((now, now.plus(after)));
    }

    /// A process asks about a certificate.
    pub fn asked(&self, process: u64, leaf: usize, now: Moment) {
        let mut inner = self.inner();
        let Inner { processes, said, most_asked, .. } = &mut *inner;
        let process = processes.entry(process).or_default();
        let asked = process.asked.entry(leaf).or_default();
        asked.push_back(now);
        while asked.front().is_some_and(|at| now.since(*at) > DAY) {
            asked.pop_front();
        }
        *most_asked = asked.len().max(*most_asked);
        let (ca, name) = self.checker.whose(leaf);
        if asked.len() > ASKED_AT_MOST {
            let count = asked.len();
            self.bug(format!("{name}: the responder of CA {ca} is asked {count} times in a day"));
        }
        let standing = process.by_name.get(&name).filter(|standing| standing.leaf == leaf);
        let staple = standing.and_then(|standing| said.get(standing.staple.as_ref()?));
        let Some(staple) = staple else { return };
        let half = staple.this_update.plus(staple.life() / 2);
        if Moment::now() < half && !within(&self.wrong_clock, now) {
            self.bug(format!(
                "{name}: a responder is asked before {half}, half of the staple's life"
            ));
        }
        self.check_spread(process, &name, staple, now);
    }

    /// Rule 14.
    fn check_spread(&self, process: &mut Process, name: &str, staple: &Said, now: Moment) {
        let of = staple.this_update;
        let before = process.refreshed.get(name);
        if self.names < NAMES_OF_SAME_MINUTE || before.is_some_and(|(before, _)| *before == of) {
            return;
        }
        process.refreshed.insert(name.to_owned(), (of, now));
        let apart = |one: Moment, other: Moment| one.since(other).max(other.since(one));
        let close = process.refreshed.values().filter(|(other, at)| {
            apart(*other, of) < Duration::from_secs(600)
                && apart(*at, now) < staple.life() / SAME_MINUTE_PART
        });
        let count = close.count();
        let is_calm = !self.disturbed.iter().any(|(begin, end)| *begin <= now && *end >= of);
        if count >= NAMES_OF_SAME_MINUTE && is_calm {
            self.bug(format!(
                "{count} staples of the same minute are refreshed in the same minute"
            ));
        }
    }

    /// An answer has reached a process.
    pub fn answered(&self, process: u64, body: &[u8]) {
        let mut inner = self.inner();
        let Inner { processes, said, .. } = &mut *inner;
        let Some(said) = said.get(body).filter(|said| !said.is_good) else { return };
        let now = true_time();
        let told = processes.entry(process).or_default().revoked.entry(said.leaf);
        let (_, since) = told.or_insert((now, now));
        if self.disk.iter().any(|(begin, end)| *begin <= now && *end >= *since) {
            *since = now;
        }
    }

    // What the store tells.

    pub fn stored(&self, name: &str, content: Option<&[u8]>) {
        if !name.starts_with("ocsp/") {
            return;
        }
        let mut inner = self.inner();
        match content {
            Some(content) => {
                inner.ever_stored.insert(content.to_vec());
                inner.stored.insert(name.to_owned(), content.to_vec());
            }
            None => drop(inner.stored.remove(name)),
        }
    }

    // What processes tell.

    pub fn process_ended(&self, process: u64) {
        self.inner().processes.remove(&process);
    }

    /// What is served for a name.
    pub fn served(&self, served: &Served<'_>) {
        let Some(leaf) = self.leaf(served.leaf).filter(|_| self.is_on) else { return };
        let now = true_time();
        let mut inner = self.inner();
        let process = inner.processes.get(&served.process);
        let standing = process.and_then(|process| process.by_name.get(served.name));
        if let (Some(process), Some(standing)) = (process, standing)
            && let Some(what) = self.judge(&inner, process, standing, now)
        {
            self.bug(format!("{}: {what}", served.name));
        }
        let is_same = standing.is_some_and(|standing| {
            standing.leaf == leaf && standing.staple.as_deref() == served.staple
        });
        if is_same {
            return;
        }
        let what = self.judge_new(&inner, leaf, served, now);
        let what = what.or_else(|| {
            self.judge_successor(&inner, process?, standing?, served.staple.is_some(), now)
        });
        if let Some(what) = what {
            self.bug(format!("{}: {what}", served.name));
        }
        let staple = served.staple.map(<[u8]>::to_vec);
        inner.taken += u64::from(staple.is_some());
        let process = inner.processes.entry(served.process).or_default();
        process.by_name.insert(served.name.to_owned(), Standing { leaf, staple, since: now });
    }

    /// Rule 10.
    fn judge_new(
        &self,
        inner: &Inner,
        leaf: usize,
        served: &Served<'_>,
        now: Moment,
    ) -> Option<String> {
        let is_troubled = !served.disk_is_fine || within(&self.disk, now);
        match served.staple {
            Some(staple) => {
                let is_stored = inner.ever_stored.contains(staple);
                (!is_stored && !is_troubled).then(|| "a staple is served and not stored".to_owned())
            }
            None if served.occasion == Occasion::Start => {
                let is_good = |said: &&Said| {
                    said.leaf == leaf
                        && said.is_good
                        && said.this_update <= now
                        && now < said.until.minus(said.dropped_before())
                };
                let stored = inner.stored.values().filter_map(|der| inner.said.get(der));
                let good = stored.clone().find(is_good).filter(|_| ahead() == 0 && !is_troubled)?;
                let until = good.until;
                Some(format!("a start does not staple what is stored and good until {until}"))
            }
            None => None,
        }
    }

    /// Rule 15: of what has been served until now, when something else is.
    fn judge_successor(
        &self,
        inner: &Inner,
        process: &Process,
        standing: &Standing,
        is_stapled: bool,
        now: Moment,
    ) -> Option<String> {
        let staple = inner.said.get(standing.staple.as_ref()?)?;
        let is_good = !process.revoked.contains_key(&standing.leaf)
            && now < staple.until.minus(staple.dropped_before())
            && !self.checker.has_ended(standing.leaf, now)
            && !within(&self.wrong_clock, now);
        (self.must_staple && !is_stapled && is_good).then(|| {
            "what must be stapled and is not takes the place of what serves well".to_owned()
        })
    }

    /// Rules 8, 9 and 12, of what has been served until now.
    fn judge(
        &self,
        inner: &Inner,
        process: &Process,
        standing: &Standing,
        now: Moment,
    ) -> Option<String> {
        let leaf = standing.leaf;
        let staple = match &standing.staple {
            Some(der) => match inner.said.get(der) {
                Some(said) => Some(said),
                None => return Some("a staple is served that no responder signed".to_owned()),
            },
            None => None,
        };
        if let Some(staple) = staple {
            if staple.leaf != leaf || !staple.is_good {
                return Some("a staple is served that says something else".to_owned());
            }
            if now > staple.until && !within(&self.clock_behind, now) {
                return Some(format!("a staple is served that ended on {}", staple.until));
            }
        }
        if let Some((told, since)) = process.revoked.get(&leaf) {
            if staple.is_some() && now.since(*told) > AT_ONCE {
                return Some(format!(
                    "it is stapled to though its responder said REVOKED on {told}"
                ));
            }
            let is_troubled = self.disk.iter().any(|(begin, end)| *begin <= now && *end >= *since);
            if !is_troubled && self.checker.could_be_replaced(leaf, *since, now) {
                return Some(format!(
                    "it is served though its responder said REVOKED on {told} and a CA would have issued another"
                ));
            }
            return None;
        }
        let (ca, _) = self.checker.whose(leaf);
        let spans = &inner.hindered[ca];
        let (owed, needed, what) = match staple {
            Some(staple) => {
                let by = staple.this_update.plus(staple.life().mul_f64(REFRESHED_BY));
                let needed = ASKED_AGAIN_WITHIN + staple.life() / AND_OF_LIFE;
                (by.max(standing.since), needed, format!("a staple of {}", staple.this_update))
            }
            None => {
                let needed = if self.must_staple { ASKED_AGAIN_WITHIN } else { DAY };
                (standing.since, needed, "no staple".to_owned())
            }
        };
        let is_long = staple.is_some_and(|staple| staple.life() > BRIEF);
        let (free, from) = match is_long {
            true => longest_free(&[spans.as_slice(), &self.brief[ca]].concat(), owed, now),
            false => longest_free(spans, owed, now),
        };
        (free > needed).then(|| {
            format!(
                "{what} is served, though the responder would have given one for {} together from {from}",
                Span(free)
            )
        })
    }

    /// Rule 13: what `ringgate certs` says of the staple of each certificate.
    pub fn states(&self, process: u64, all: &[(String, Option<String>)]) {
        let mut inner = self.inner();
        let Inner { processes, hindered, .. } = &mut *inner;
        let Some(process) = processes.get_mut(&process).filter(|_| self.is_on) else { return };
        let now = true_time();
        let is_to_come = |state: &Option<String>| state.as_deref() == Some("none yet");
        process
            .none_yet
            .retain(|name, _| all.iter().any(|(other, state)| other == name && is_to_come(state)));
        for (name, state) in all {
            let Some(standing) = process.by_name.get(name) else { continue };
            let (ca, _) = self.checker.whose(standing.leaf);
            let since = match is_to_come(state) {
                true => *process.none_yet.entry(name.clone()).or_insert(now),
                false => now,
            };
            let what = match state.as_deref() {
                None => "nothing is said of its staple".to_owned(),
                Some(state) if state.trim_end_matches([' ', ':']) == "none" => {
                    "no reason is given for its having no staple".to_owned()
                }
                Some("none yet") if longest_free(&hindered[ca], since, now).0 > DAY => {
                    format!("its staple is said to come for {}", Span(now.since(since)))
                }
                Some(_) => continue,
            };
            self.bug(format!("{name}: {what}"));
        }
    }
}

fn within(spans: &[(Moment, Moment)], now: Moment) -> bool {
    spans.iter().any(|(begin, end)| *begin <= now && now <= *end)
}
