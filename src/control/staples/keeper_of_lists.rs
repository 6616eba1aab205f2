//! The keeper's part about issuers' lists of revoked certificates.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::Moment;
use crate::store::record::Class;

use super::super::certified::Certified;
use super::keeper::{Done, Keeper, Task};
use super::lists::{Looked, look};
use super::plan::list_again_at;
use super::pointers::Pointers;
use super::watched_list::WatchedList;

/// Lists in memory at once.
const LISTS_AT_ONCE: usize = 2;
/// How long one waits for its turn.
const TURN_PAUSE: Duration = Duration::from_secs(1);

impl Keeper {
    pub(super) fn watch_list(&mut self, certified: &Arc<Certified>, now: Moment) {
        let leaf = certified.key.cert.first();
        let points = leaf.map(|leaf| Pointers::of_der(leaf).crls).unwrap_or_default();
        let Some(url) = points.first().and_then(|point| point.first()) else { return };
        let url: Arc<str> = url.as_str().into();
        let list =
            self.lists.entry(url.clone()).or_insert_with(|| WatchedList::due_at(now, points));
        self.due.remove(&(list.due, Task::List(url.clone())));
        list.add(certified.clone(), now);
        if !list.at_work {
            self.due.insert((list.due, Task::List(url)));
        }
    }

    pub(super) fn start_list(&mut self, url: Arc<str>, now: Moment) {
        let Some(list) = self.lists.get_mut(&url) else { return };
        if self.lists_at_work >= LISTS_AT_ONCE {
            list.due = now.plus(TURN_PAUSE);
            self.due.insert((list.due, Task::List(url)));
            return;
        }
        list.begin();
        self.lists_at_work += 1;
        let (means, etag, points) = (self.means.clone(), list.etag.clone(), list.points.clone());
        let members = list.members.values().cloned().collect();
        let task = Task::List(url.clone());
        let spawned = self.working.spawn(async move {
            let looked = look(&means, &points, etag.as_ref(), members).await;
            Done::Looked { url, looked }
        });
        self.workers.insert(spawned.id(), (task, Arc::default()));
    }

    pub(super) fn finish_list(&mut self, url: &Arc<str>, looked: Looked, now: Moment) {
        self.lists_at_work = self.lists_at_work.saturating_sub(1);
        let Some(list) = self.lists.get_mut(url) else { return };
        if list.members.is_empty() {
            // All have gone while it was looked into.
            self.lists.remove(url);
            return;
        }
        let seed = list.seed;
        let mut lifted = Vec::new();
        let failed = match looked {
            Looked::Same if list.is_over(now) => {
                Some((Class::Operator, "it has expired".to_owned(), None))
            }
            Looked::Same => None,
            Looked::New { etag, mut found } => {
                let refused = found.refused.take();
                lifted = list.is_new(etag.filter(|_| refused.is_none()), found);
                refused.map(|what| (Class::Operator, what, None))
            }
            Looked::Refused(what) => {
                list.etag = None;
                Some((Class::Operator, what, None))
            }
            Looked::Unanswered(unanswered) => {
                Some((Class::Unreachable, unanswered.what, unanswered.not_before))
            }
        };
        let has_failed = failed.is_some();
        match failed {
            None => {
                if list.succeed(list_again_at(list.next_update, seed, now)) {
                    info!("the revocation list {url} can be looked into again");
                }
            }
            Some((class, what, not_before)) => {
                if list.fail(class, &what, not_before, now) {
                    warn!("the revocation list {url} says nothing: {what}; it is tried again");
                }
            }
        }
        let found = if has_failed { Vec::new() } else { list.named() };
        list.end(now);
        self.due.insert((list.due, Task::List(url.clone())));
        for (certified, revoked) in found {
            self.revoked(certified, revoked);
        }
        for certified in lifted {
            self.say_lifted(certified);
        }
    }
}
