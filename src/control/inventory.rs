//! What the sources of certificates hold, as it was last seen, and what is to be said of it. Pure.
//!
//! A file that is broken or gone leaves the certified key that was made of it before in service: half of a
//! swap (certbot removes a link before it makes the new one) must not put a site out. What is gone stays until
//! others cover its names, or a reload or a restart, with which an operator says that it is meant.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::Moment;
use crate::config::problem::Problem;
use crate::config::{CertificatePlace, CertificateSource};
use crate::name::Pattern;

use super::certified::{Certified, Note, Refused};
use super::places::{Files, Meant};
use super::precedence::Covering;

/// A complaint is said when it stands at the second look: by then a writer that was seen half-way is done.
const SAID_AT: u8 = 2;

/// Everything by hand. Cloning it shares the holdings.
#[derive(Clone, Default)]
pub struct Inventory {
    /// In the order of the sources.
    pub holdings: Vec<Arc<Holding>>,
}

/// What one source holds.
#[derive(Clone)]
pub struct Holding {
    pub source: CertificateSource,
    /// Where a change may add to the items, with the stamps of when they were last looked into.
    pub directories: Vec<(PathBuf, u64)>,
    /// Whether each directory was quiet for so long before it was looked into that its stamp tells all.
    pub settled: bool,
    pub items: Vec<Arc<Item>>,
    /// Whether one of them is; to spare looks going through all.
    pub restless: bool,
    pub passed_over: Vec<Refused>,
    /// Why the source as a whole cannot be looked into.
    pub complaint: Option<Complaint>,
}

/// One certified key and its files.
#[derive(Debug)]
pub struct Item {
    pub files: Files,
    pub meant: Meant,
    /// Of all the files together, taken before they were read.
    pub stamp: u64,
    /// Whether the files were quiet for so long before that the stamp tells all.
    pub settled: bool,
    /// The last good one.
    pub certified: Option<Arc<Certified>>,
    pub complaint: Option<Complaint>,
    /// A file of it has been removed.
    pub gone: bool,
}

impl Item {
    /// Whether it must be read again though its stamp is the same.
    pub fn is_restless(&self) -> bool {
        !self.settled || self.complaint.as_ref().is_some_and(|complaint| !complaint.is_said())
    }

    /// Whether nothing that counts tells them apart.
    pub fn is_like(&self, other: &Self) -> bool {
        let served = match (&self.certified, &other.certified) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        served
            && (self.stamp, self.settled, self.meant) == (other.stamp, other.settled, other.meant)
            && (&self.files, &self.complaint, self.gone)
                == (&other.files, &other.complaint, other.gone)
    }

    /// Whether its files were removed; not at the first look, for half of a swap may have been seen.
    fn is_gone(&self) -> bool {
        self.gone && self.complaint.as_ref().is_some_and(Complaint::is_said)
    }

    fn is_problem(&self) -> bool {
        self.meant == Meant::Named
            && self.complaint.as_ref().is_some_and(|complaint| !complaint.of_staple)
    }
}

/// What is wrong with files, and whether that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub refused: Refused,
    /// Only the staple is wrong; chain and private key are served without it.
    pub of_staple: bool,
    /// At how many looks in a row something was wrong, up to [`SAID_AT`].
    looks: u8,
}

impl Complaint {
    /// One more look, and something is wrong, perhaps another thing than before.
    pub fn after(before: Option<&Self>, refused: Refused, of_staple: bool) -> Self {
        let looks = before.map_or(0, |before| before.looks);
        Self { refused, of_staple, looks: (looks + 1).min(SAID_AT) }
    }

    /// As at a start or a reload, which say everything at once.
    pub fn said(refused: Refused, of_staple: bool) -> Self {
        Self { refused, of_staple, looks: SAID_AT }
    }

    pub fn is_said(&self) -> bool {
        self.looks >= SAID_AT
    }
}

impl Inventory {
    /// Whether both are one and the same, not only alike.
    pub fn is_same(&self, other: &Self) -> bool {
        let pairs = || self.holdings.iter().zip(&other.holdings);
        self.holdings.len() == other.holdings.len()
            && pairs().all(|(one, other)| Arc::ptr_eq(one, other))
    }

    /// What is served of it, in the order of the sources. One whose files were removed is served on, but for names
    /// that what is there covers and `serves_well`: who replaces a private key that leaked wants the old one gone.
    pub fn certified(&self, serves_well: impl Fn(&Arc<Certified>) -> bool) -> Vec<Arc<Certified>> {
        let all = || {
            self.items().filter_map(|(_, item)| Some((item.is_gone(), item.certified.as_ref()?)))
        };
        if !self.has_gone() {
            return all().map(|(_, certified)| certified.clone()).collect();
        }
        let there = all().filter(|(gone, certified)| !gone && serves_well(certified));
        let covering = Covering::of(there.map(|(_, certified)| certified));
        let is_replaced =
            |one: &Certified| one.patterns.iter().all(|pattern| covering.covers(pattern));
        all()
            .filter(|(gone, certified)| !gone || !is_replaced(certified))
            .map(|(_, certified)| certified.clone())
            .collect()
    }

    /// Whether files of something that may still be served have been removed.
    pub fn has_gone(&self) -> bool {
        self.items().any(|(_, item)| item.is_gone())
    }

    fn items(&self) -> impl Iterator<Item = (&CertificateSource, &Arc<Item>)> {
        self.holdings
            .iter()
            .flat_map(|holding| holding.items.iter().map(|item| (&holding.source, item)))
    }

    /// What must be put right before any of it is served: what an entry names and cannot be had.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for holding in &self.holdings {
            if let Some(complaint) = &holding.complaint {
                problems.push(problem(&holding.source, &complaint.refused));
            } else if let CertificatePlace::Path(path) = &holding.source.place
                && holding
                    .items
                    .iter()
                    .all(|item| item.meant == Meant::PerhapsCombined && item.certified.is_none())
            {
                let what = format!("{} holds no certificate with a private key", path.display());
                let remedy = "put pairs there, such as example.crt with example.key";
                problems.push(problem(&holding.source, &Refused::new(what, remedy)));
            }
        }
        let complaints = self.items().filter(|(_, item)| item.is_problem());
        problems.extend(
            complaints.filter_map(|(source, item)| {
                Some(problem(source, &item.complaint.as_ref()?.refused))
            }),
        );
        problems
    }

    /// What an operator should know though the rest is served, the worst first.
    pub fn warnings(&self, now: Moment) -> Vec<Problem> {
        let passed_over = self.holdings.iter().flat_map(|holding| {
            holding.passed_over.iter().map(|refused| problem(&holding.source, refused))
        });
        let complaints = self
            .items()
            .filter(|(_, item)| !item.is_problem())
            .filter_map(|(source, item)| Some(problem(source, &item.complaint.as_ref()?.refused)));
        let notes = self.items().flat_map(|(source, item)| {
            notes(item, now)
                .into_iter()
                .map(|Note { what, remedy }| problem(source, &Refused { what, remedy }))
        });
        complaints.chain(passed_over).chain(notes).collect()
    }
}

fn problem(source: &CertificateSource, refused: &Refused) -> Problem {
    Problem::new(&source.origin, &source.key, &refused.what, &refused.remedy)
}

fn notes(item: &Item, now: Moment) -> Vec<Note> {
    let Some(certified) = &item.certified else { return Vec::new() };
    certified.note_of_dates(now).into_iter().chain(certified.notes.iter().cloned()).collect()
}

/// One item before and after a look.
#[derive(Debug)]
pub struct Change {
    pub before: Option<Arc<Item>>,
    pub after: Arc<Item>,
}

/// What the log is told of a look.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    pub warnings: Vec<String>,
    /// What is served from now on, or good again.
    pub good: Vec<String>,
}

/// What a look means, with what is `served` after it: the patterns for which another certified key may be the
/// best, and what is to be said.
pub fn news(
    before: &Inventory,
    after: &Inventory,
    changes: &[Change],
    served: &[Arc<Certified>],
    now: Moment,
) -> (HashSet<Pattern>, News) {
    let mut patterns = HashSet::new();
    let mut news = News::default();
    let said = |complaint: &Option<Complaint>| complaint.as_ref().is_some_and(Complaint::is_said);
    for (before, after) in before.holdings.iter().zip(&after.holdings) {
        match (said(&before.complaint), &after.complaint) {
            (false, Some(complaint)) if complaint.is_said() => {
                let what = &complaint.refused;
                news.warnings.push(format!("{what}; what was there is served on"));
            }
            (true, None) => news.good.push(format!("{} is good again", after.source.key)),
            _ => {}
        }
    }
    let any_gone = changes.iter().any(|change| change.after.gone);
    let served: HashSet<_> = served.iter().filter(|_| any_gone).map(Arc::as_ptr).collect();
    let is_replaced = |certified: &Arc<Certified>| !served.contains(&Arc::as_ptr(certified));
    for Change { before, after } in changes {
        let before = before.as_deref();
        let (old, new) = (before.and_then(|item| item.certified.as_ref()), &after.certified);
        let is_new = match (old, new) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if is_new {
            let both = old.into_iter().chain(new);
            patterns.extend(both.flat_map(|certified| certified.patterns.iter().cloned()));
            news.good.extend(new.iter().map(|certified| certified.to_string()));
            news.warnings.extend(notes(after, now).iter().map(ToString::to_string));
        }
        let was_said = before.is_some_and(|item| said(&item.complaint));
        match (was_said, &after.complaint) {
            (false, Some(complaint)) if complaint.is_said() => {
                let meanwhile = match (&after.certified, complaint.of_staple) {
                    (None, _) => "it is not served",
                    (Some(certified), true) if certified.key.ocsp.is_none() => {
                        "its chain is served without a staple"
                    }
                    (Some(certified), _) if after.gone && is_replaced(certified) => {
                        "others serve its names"
                    }
                    (Some(_), _) => "the one before is served on",
                };
                news.warnings.push(format!("{}; {meanwhile}", complaint.refused));
            }
            (true, None) if !is_new => {
                news.good.push(format!("{} is good again", after.files.cert.display()));
            }
            _ => {}
        }
    }
    (patterns, news)
}
