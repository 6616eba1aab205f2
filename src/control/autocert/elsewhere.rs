//! Challenges of other nodes' orders: found in the store and answered by this node, for the CA may ask it.
//!
//! While nobody orders, a look costs the stamps of a few folders.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::clock::Moment;
use crate::name::ServerName;
use crate::snapshot::{ChallengeAnswer, Challenges};
use crate::store::{Store, layout};

use super::super::publisher::Publisher;
use super::blocking;
use super::pace;
use super::shared::Shared;

/// How often the store is looked at. A CA asks some hundred milliseconds after CertMagic has placed a
/// challenge, for CertMagic does not wait.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long an order of ours waits before it lets the CA ask: two looks of the others, and their reading.
pub const SEEN_AFTER: Duration = Duration::from_millis(500);
/// A folder that has rested for so long holds what it held at the last look. Stamps are in whole seconds.
const RESTED: Duration = Duration::from_secs(3);
/// What is older was left by a process that was killed: no CA takes so long.
const LEFT_OVER: Duration = Duration::from_secs(3600);
/// Challenges answered at once for others: more orders than all nodes of a fleet have under way. What is
/// beyond, in the order of the names, is answered when there is room.
const MOST_ANSWERS: usize = 1024;
/// Objects that are looked at in one folder, left-overs included.
const MOST_OBJECTS: usize = 4096;
/// Issuers whose challenges are looked for: Caddy has three by default.
const MOST_ISSUERS: usize = 16;

/// Answers for as long as it lives.
pub struct Elsewhere {
    looking: JoinHandle<()>,
    publisher: Publisher,
}

impl Elsewhere {
    /// Begins to look. Within the runtime.
    pub fn start(store: Arc<dyn Store>, publisher: Publisher) -> Self {
        let looking = tokio::spawn(look_for_ever(store, publisher.clone()));
        Self { looking, publisher }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.looking.abort();
        self.publisher.challenges_elsewhere([]);
    }
}

async fn look_for_ever(store: Arc<dyn Store>, publisher: Publisher) {
    let mut seen = Seen::default();
    loop {
        pace::pause(pace::between_looks(LOOK_EVERY)).await;
        let (store, ours) = (store.clone(), publisher.current().challenges);
        let (looked, changed) = blocking(move || {
            let changed = seen.look(&*store, &ours, Moment::now());
            (seen, changed)
        })
        .await;
        seen = looked;
        if changed {
            let found = seen.answered.values();
            publisher.challenges_elsewhere(found.map(|one| (&one.name, one.answer.clone())));
        }
    }
}

/// What was there at the last look.
#[derive(Default)]
struct Seen {
    /// The issuers' folders, and when their list last changed.
    issuers: (Option<Moment>, Vec<String>),
    /// When each folder of challenges last changed.
    folders: HashMap<String, Moment>,
    /// By object.
    answered: BTreeMap<String, Found>,
    is_full: bool,
}

#[derive(Clone)]
struct Found {
    content: Vec<u8>,
    name: ServerName,
    answer: ChallengeAnswer,
}

impl Seen {
    /// Looks at the store. Returns whether other answers are to be given. What cannot be read is not there.
    fn look(&mut self, store: &dyn Store, ours: &Challenges, now: Moment) -> bool {
        self.look_for_issuers(store, now);
        let mut next = BTreeMap::new();
        for issuer_key in &self.issuers.1 {
            let folder = layout::challenge_tokens(issuer_key);
            let Ok(Some(modified)) = store.modified(&folder) else { continue };
            let before = self.folders.insert(folder.clone(), modified);
            let rests = before == Some(modified) && now.since(modified) > RESTED;
            if rests && self.answered.is_empty() {
                continue;
            }
            let objects = store.list(&folder).unwrap_or_default();
            for object in objects.into_iter().take(MOST_OBJECTS) {
                let object = format!("{folder}/{object}");
                if let Some(found) = self.find(store, &object, issuer_key, ours, now) {
                    next.insert(object, found);
                }
            }
        }
        let is_full = next.len() > MOST_ANSWERS;
        if is_full && !self.is_full {
            let (most, found) = (MOST_ANSWERS, next.len());
            warn!(most, found, "too many challenges of other nodes to answer them all");
        }
        self.is_full = is_full;
        let next: BTreeMap<_, _> = next.into_iter().take(MOST_ANSWERS).collect();
        let same = |(one, other): (_, _)| {
            let ((object, found), (other, before)): ((&String, &Found), (&String, &Found)) =
                (one, other);
            object == other && found.content == before.content
        };
        let changed =
            next.len() != self.answered.len() || !next.iter().zip(&self.answered).all(same);
        self.answered = next;
        changed
    }

    fn look_for_issuers(&mut self, store: &dyn Store, now: Moment) {
        let modified = store.modified(layout::ISSUERS).ok().flatten();
        let rests = modified.is_some_and(|modified| now.since(modified) > RESTED);
        if self.issuers.0 != modified || !rests {
            let mut issuers = store.list(layout::ISSUERS).unwrap_or_default();
            issuers.truncate(MOST_ISSUERS);
            self.issuers = (modified, issuers);
        }
    }

    /// The challenge in this object, if it is one to be answered for somebody else.
    fn find(
        &self,
        store: &dyn Store,
        object: &str,
        issuer_key: &str,
        ours: &Challenges,
        now: Moment,
    ) -> Option<Found> {
        let modified = store.modified(object).ok()??;
        if now.since(modified) > LEFT_OVER {
            return None;
        }
        let content = store.get(object).ok()??;
        if let Some(before) = self.answered.get(object)
            && before.content == content
        {
            return (!ours.is_ours(&before.name)).then(|| before.clone());
        }
        let shared = Shared::read(&content)?;
        if shared.object(issuer_key) != object || ours.is_ours(&shared.name) {
            return None;
        }
        let answer = shared.answer()?;
        info!(name = %shared.name, challenge = shared.kind.as_str(), "another node orders; its challenge is answered here too");
        Some(Found { content, name: shared.name, answer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::autocert::ChallengeKind;
    use crate::store::Expect;
    use crate::store::directory::scratch::ScratchStore;

    #[test]
    fn what_is_placed_is_found_once_until_it_is_taken_away_or_old() {
        let (_scratch, store) = ScratchStore::new("elsewhere");
        let shared = Shared {
            kind: ChallengeKind::Http01,
            name: ServerName::parse("a.example").unwrap(),
            url: String::new(),
            token: "t".into(),
            key_authorization: "t.thumb".into(),
        };
        let (nobody, now) = (Challenges::default(), Moment::now());
        let mut seen = Seen::default();
        assert!(!seen.look(&store, &nobody, now), "an empty store");
        let object = shared.object("ca");
        store.put(&object, &shared.bytes(), Expect::Anything).unwrap();
        assert!(seen.look(&store, &nobody, now));
        assert_eq!(seen.answered.keys().collect::<Vec<_>>(), [&object]);
        assert!(!seen.look(&store, &nobody, now), "nothing has changed");
        let ours = nobody.with(&shared.name, shared.answer());
        assert!(seen.look(&store, &ours, now) && seen.answered.is_empty(), "our own order");
        assert!(seen.look(&store, &nobody, now) && !seen.answered.is_empty());
        let later = now.plus(LEFT_OVER + Duration::from_secs(60));
        assert!(seen.look(&store, &nobody, later) && seen.answered.is_empty(), "left over");
        assert!(seen.look(&store, &nobody, now));
        store.remove(&object).unwrap();
        assert!(seen.look(&store, &nobody, now) && seen.answered.is_empty(), "taken away");
    }
}
