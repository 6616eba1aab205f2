//! Keeps a staple for every certificate that can have one, and an eye on the lists of those that cannot.
//!
//! One task of the control thread with one clock: what is due next stands first in one ordered set, however
//! many certificates there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
use tracing::{debug, error, info, warn};

use crate::clock::Moment;
use crate::store::record::Class;

use super::super::autocert::mutant::{Mutant, mutant};
use super::super::autocert::pace;
use super::super::certified::{Certified, Identity, Source};
use super::asking::{Answer, Means, Staple, ask};
use super::entry::{Entry, judged};
use super::fetch::Unanswered;
use super::lists::Looked;
use super::plan::{Plan, Use, dropped_at, list_due_at_last};
use super::responders::Responders;
use super::response::{Bad, Good, Revoked};
use super::state::State;
use super::told::{Telling, Told, and_more};
use super::watched_list::WatchedList;

/// How often the clock is looked at though nothing is due by it: for one that jumped.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A clock that is further back than this was set back.
const SET_BACK: Duration = Duration::from_secs(300);

/// A certificate to keep a staple for, with what is known of it.
pub struct Watched {
    pub certified: Arc<Certified>,
    pub good: Option<Good>,
    pub state: State,
}

/// What the keeper is to do.
pub struct Watch {
    pub gone: Vec<Identity>,
    pub new: Vec<Watched>,
    /// An operator has reloaded: what failed is tried again at once.
    pub again: bool,
}

/// What is known of a certificate's staple from now on.
pub struct News {
    pub identity: Identity,
    pub certified: Arc<Certified>,
    /// What is stapled; `None`: nothing.
    pub staple: Option<Staple>,
    pub state: State,
}

/// Starts the keeper. It ends when the sender is dropped.
pub fn start(means: Means) -> (mpsc::UnboundedSender<Watch>, mpsc::UnboundedReceiver<News>) {
    let (sender, commands) = mpsc::unbounded_channel();
    let (news, receiver) = mpsc::unbounded_channel();
    tokio::spawn(Keeper::new(means, commands, news).run());
    (sender, receiver)
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    Staple(Identity),
    /// The end of a staple, for the case that its successor is still waited for.
    End(Identity),
    List(Arc<str>),
}

pub(super) enum Done {
    Asked { identity: Identity, answer: Answer, by_post: bool },
    Looked { url: Arc<str>, looked: Looked },
}

pub(super) struct Keeper {
    pub(super) means: Means,
    commands: mpsc::UnboundedReceiver<Watch>,
    news: mpsc::UnboundedSender<News>,
    entries: HashMap<Identity, Box<Entry>>,
    pub(super) lists: HashMap<Arc<str>, WatchedList>,
    pub(super) due: BTreeSet<(Moment, Task)>,
    responders: Responders,
    pub(super) lists_at_work: usize,
    /// Lines of which one event may cause one for each of many certificates.
    told_dropped: Told,
    told_revoked: Told,
    told_by_hand: Told,
    told_unstored: Told,
    pub(super) working: JoinSet<Done>,
    /// Whose work each is, with the place of its responder, for the case that it panics.
    pub(super) workers: HashMap<task::Id, (Task, Arc<str>)>,
    looked: Moment,
}

impl Keeper {
    fn new(
        means: Means,
        commands: mpsc::UnboundedReceiver<Watch>,
        news: mpsc::UnboundedSender<News>,
    ) -> Self {
        Self {
            means,
            commands,
            news,
            entries: HashMap::new(),
            lists: HashMap::new(),
            due: BTreeSet::new(),
            responders: Responders::default(),
            lists_at_work: 0,
            told_dropped: Told::default(),
            told_revoked: Told::default(),
            told_by_hand: Told::default(),
            told_unstored: Told::default(),
            working: JoinSet::new(),
            workers: HashMap::new(),
            looked: Moment::now(),
        }
    }

    async fn run(mut self) {
        loop {
            let now = Moment::now();
            if now.plus(SET_BACK) < self.looked {
                self.decide_all(now);
                self.bring_lists_forward(now);
            }
            self.looked = now;
            self.start_due(now);
            let look_every = pace::between_looks(LOOK_EVERY);
            let next = self.due.first().map_or(now.plus(look_every), |(at, _)| *at);
            let pause = next.since(now).clamp(Duration::from_millis(200), look_every);
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(watch) => self.watch(watch),
                    None => return,
                },
                Some(done) = self.working.join_next_with_id() => match done {
                    Ok((id, done)) => {
                        let work = self.workers.remove(&id);
                        let place = work.as_ref().map(|(_, place)| &**place);
                        self.finish(done, place.unwrap_or_default());
                    }
                    Err(panicked) => self.survive(&panicked),
                },
                () = pace::pause(pause) => {}
            }
        }
    }

    fn watch(&mut self, Watch { gone, new, again }: Watch) {
        let now = Moment::now();
        for identity in gone {
            self.forget(identity);
            for list in self.lists.values_mut() {
                list.remove(&identity);
            }
        }
        self.entries.reserve(new.len());
        for Watched { certified, good, state } in new {
            let identity = certified.identity();
            let named = certified.named;
            if named.crl && !named.responder {
                self.watch_list(&certified, now);
            }
            // It may have been there with another staple by hand.
            self.forget(identity);
            if named.responder || good.is_some() {
                let place = self.responders.place_of(&certified);
                let entry = Entry::new(certified, place, good, state);
                self.entries.insert(identity, Box::new(entry));
                self.decide(identity, now);
            }
        }
        self.responders.forget_unused();
        self.lists.retain(|url, list| {
            let is_watched = !list.members.is_empty() || list.at_work;
            if !is_watched {
                self.due.remove(&(list.due, Task::List(url.clone())));
            }
            is_watched
        });
        if again {
            self.try_again(now);
        }
    }

    fn forget(&mut self, identity: Identity) {
        if let Some(due) = self.entries.remove(&identity).and_then(|entry| entry.due) {
            self.due.remove(&(due, Task::Staple(identity)));
        }
    }

    fn try_again(&mut self, now: Moment) {
        self.responders.tell_again();
        for entry in self.entries.values_mut() {
            entry.again();
        }
        for (url, list) in &mut self.lists {
            if !list.at_work {
                self.due.remove(&(list.due, Task::List(url.clone())));
                list.again(now);
                self.due.insert((list.due, Task::List(url.clone())));
            }
        }
        self.decide_all(now);
    }

    /// After the clock was set back: no list waits until the wrong time comes again.
    fn bring_lists_forward(&mut self, now: Moment) {
        for (url, list) in &mut self.lists {
            let task = Task::List(url.clone());
            // One that is at work is not in the set, and gets its moment by the right clock.
            if self.due.remove(&(list.due, task.clone())) {
                list.due = list_due_at_last(list.due, now);
                self.due.insert((list.due, task));
            }
        }
    }

    fn decide_all(&mut self, now: Moment) {
        let resting = self.entries.iter().filter(|(_, entry)| entry.due.is_some());
        let resting: Vec<_> = resting.map(|(identity, _)| *identity).collect();
        for identity in resting {
            self.decide(identity, now);
        }
    }

    /// Does what the plan says, or notes when to look again.
    fn decide(&mut self, identity: Identity, now: Moment) {
        let Some(entry) = self.entries.get_mut(&identity) else { return };
        if let Some(due) = entry.due.take() {
            self.due.remove(&(due, Task::Staple(identity)));
        }
        match entry.plan(now) {
            Plan::Rest { until, .. } => {
                entry.due = Some(until);
                self.due.insert((until, Task::Staple(identity)));
            }
            Plan::Ask { why } => {
                debug!(certificate = %entry.certified, %why, "a staple is asked for");
                if let Some(good) = &entry.good {
                    self.due.insert((dropped_at(good), Task::End(identity)));
                }
                self.responders.wait(&entry.place, entry.wanted_by(), identity);
            }
            Plan::Drop => {
                self.expire(identity, now);
                self.decide(identity, now);
            }
        }
    }

    fn expire(&mut self, identity: Identity, now: Moment) {
        let Some(entry) = self.entries.get_mut(&identity) else { return };
        let why = entry.last_failure().unwrap_or("it was not replaced in time").to_owned();
        let telling = self.told_dropped.one_more_at(now);
        if telling != Telling::Silent {
            let more = and_more(telling);
            warn!("the staple of {} is dropped, for it expires: {why}{more}", entry.certified);
        }
        entry.expire(why);
        self.tell(identity, None);
    }

    fn start_due(&mut self, now: Moment) {
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, task)) = self.due.pop_first()
        {
            match task {
                Task::Staple(identity) => {
                    if let Some(entry) = self.entries.get_mut(&identity) {
                        entry.due = None;
                    }
                    self.decide(identity, now);
                }
                Task::End(identity) => {
                    // One that rests finds out by itself.
                    if let Some(entry) = self.entries.get(&identity)
                        && entry.due.is_none()
                        && entry.plan(now) == Plan::Drop
                    {
                        self.expire(identity, now);
                    }
                }
                Task::List(url) => self.start_list(url, now),
            }
        }
        loop {
            let started = self.responders.start();
            if started.is_empty() {
                return;
            }
            for (identity, place, by_post) in started {
                self.start_asking(identity, place, by_post);
            }
        }
    }

    fn start_asking(&mut self, identity: Identity, place: Arc<str>, by_post: bool) {
        let Some(entry) = self.entries.get(&identity) else {
            // Gone while it waited.
            return self.responders.finish(&place, by_post);
        };
        let (means, certified) = (self.means.clone(), entry.certified.clone());
        let known = entry.known();
        let spawned = self.working.spawn(async move {
            let (answer, by_post) = ask(&means, &certified, known, by_post).await;
            Done::Asked { identity, answer, by_post }
        });
        self.workers.insert(spawned.id(), (Task::Staple(identity), place));
    }

    fn finish(&mut self, done: Done, place: &str) {
        let now = Moment::now();
        match done {
            Done::Asked { identity, answer, by_post } => {
                self.responders.finish(place, by_post);
                self.finish_asked(identity, place, answer, now);
            }
            Done::Looked { url, looked } => self.finish_list(&url, looked, now),
        }
    }

    fn finish_asked(&mut self, identity: Identity, place: &str, answer: Answer, now: Moment) {
        let Some(entry) = self.entries.get_mut(&identity) else { return };
        let is_answered = matches!(answer, Answer::Fetched(..) | Answer::Bad(_));
        if is_answered && self.responders.answers(place) {
            info!("the OCSP responder at {place} answers again");
        }
        match answer {
            Answer::Found(staple) => self.take(identity, place, staple, None, now),
            Answer::Fetched(staple, unstored) => {
                if let Some(error) = unstored {
                    let telling = self.told_unstored.one_more_at(now);
                    if telling != Telling::Silent {
                        let (certified, more) = (&entry.certified, and_more(telling));
                        warn!(%error, "the staple of {certified} is served and not stored{more}");
                    }
                }
                self.take(identity, place, staple, Some(now), now);
            }
            Answer::Bad(Bad::Revoked(revoked)) if !mutant(Mutant::StapleRevokedIgnored) => {
                let (class, what) = judged(&Bad::Revoked(revoked));
                entry.fail(class, &what, None, now);
                let certified = entry.certified.clone();
                self.revoked(certified, revoked);
            }
            Answer::Bad(bad) => {
                let (class, what) = judged(&bad);
                self.refuse(identity, place, class, &what, now);
            }
            Answer::Unasked(what) => {
                self.refuse(identity, place, Class::Operator, &what, now);
            }
            Answer::Unanswered(unanswered) => {
                let telling = self.responders.is_silent(place, &unanswered.what, now);
                if telling != Telling::Silent {
                    let (what, more) = (&unanswered.what, and_more(telling));
                    warn!(
                        "no staple from the OCSP responder at {place}: {what}; it is asked again{more}"
                    );
                }
                // Each would wait for the same lookup, which one has just waited for in vain.
                let others = match unanswered.is_unresolved {
                    true => self.responders.give_up(place),
                    false => Vec::new(),
                };
                self.unanswered(identity, &unanswered, now);
                for other in others {
                    self.unanswered(other, &unanswered, now);
                    self.decide(other, now);
                }
            }
        }
        self.decide(identity, now);
    }

    fn unanswered(&mut self, identity: Identity, unanswered: &Unanswered, now: Moment) {
        let Some(entry) = self.entries.get_mut(&identity) else { return };
        let had_none = entry.good.is_none();
        entry.fail(Class::Unreachable, &unanswered.what, unanswered.not_before, now);
        if had_none {
            self.tell(identity, None);
        }
    }

    /// Takes a good response, if it is better than what there is.
    fn take(
        &mut self,
        identity: Identity,
        place: &str,
        staple: Staple,
        fetched: Option<Moment>,
        now: Moment,
    ) {
        let Some(entry) = self.entries.get_mut(&identity) else { return };
        match entry.known().weigh(&staple.good, now) {
            Use::Staple => {
                entry.take(staple.good, fetched);
                self.good(identity, staple);
            }
            Use::KeepStanding => entry.keep_standing(now),
            Use::Refuse(what) => self.refuse(identity, place, Class::Operator, &what, now),
        }
    }

    fn good(&mut self, identity: Identity, staple: Staple) {
        let Some(entry) = self.entries.get_mut(&identity) else { return };
        let until = staple.good.until;
        match entry.hush() {
            true => info!("the staple of {} is good again, until {until}", entry.certified),
            false => debug!("the staple of {} is good until {until}", entry.certified),
        }
        self.tell(identity, Some(staple));
    }

    fn refuse(&mut self, identity: Identity, place: &str, class: Class, what: &str, now: Moment) {
        let Some(entry) = self.entries.get_mut(&identity) else { return };
        let stands = entry.good.is_some();
        entry.fail(class, what, None, now);
        if entry.complain(what) {
            let meanwhile = if stands { "the one before is stapled on" } else { "none is stapled" };
            let certified = &entry.certified;
            match self.responders.telling(place) {
                Telling::Tell => {
                    warn!("no staple for {certified} from {place}: {what}; {meanwhile}")
                }
                Telling::TellThereAreMore => warn!(
                    "no staple for {certified} from {place}: {what}; {meanwhile}; 'ringgate certs' shows what it refuses from here on"
                ),
                Telling::Silent => {}
            }
        }
        if !stands {
            self.tell(identity, None);
        }
    }

    /// The staple goes, whatever it says: the issuer says otherwise by now.
    pub(super) fn revoked(&mut self, certified: Arc<Certified>, revoked: Revoked) {
        let identity = certified.identity();
        if let Some(entry) = self.entries.get_mut(&identity) {
            entry.drop_staple(State::Revoked(revoked));
        }
        let at = revoked.at;
        let is_by_hand = matches!(certified.source, Source::ByHand { .. });
        let told = if is_by_hand { &mut self.told_by_hand } else { &mut self.told_revoked };
        let telling = told.one_more_at(Moment::now());
        let more = and_more(telling);
        match telling {
            Telling::Silent => {}
            _ if is_by_hand => error!(
                "{certified} IS REVOKED by its issuer since {at} and is served all the same; replace it NOW, with a new private key{more}"
            ),
            _ => warn!(
                "{certified} is revoked by its issuer since {at}; it is replaced at once{more}"
            ),
        }
        let state = State::Revoked(revoked);
        let _ = self.news.send(News { identity, certified, staple: None, state });
    }

    /// Its list says that it is good again.
    pub(super) fn say_lifted(&mut self, certified: Arc<Certified>) {
        let identity = certified.identity();
        match self.entries.get_mut(&identity) {
            // Another staple by hand has said so already, and is stapled.
            Some(entry) if !matches!(entry.state, State::Revoked(_)) => return,
            Some(entry) => drop(entry.drop_staple(State::None)),
            None => {}
        }
        info!("{certified} is no longer revoked: its issuer has lifted the hold");
        let _ = self.news.send(News { identity, certified, staple: None, state: State::None });
    }

    fn tell(&self, identity: Identity, staple: Option<Staple>) {
        if let Some(entry) = self.entries.get(&identity) {
            let (certified, state) = (entry.certified.clone(), entry.state.clone());
            let _ = self.news.send(News { identity, certified, staple, state });
        }
    }

    /// A bug met in the work on one certificate is that certificate's misfortune alone.
    fn survive(&mut self, panicked: &task::JoinError) {
        error!(%panicked, "this is a bug, please report it with the log");
        let now = Moment::now();
        match self.workers.remove(&panicked.id()) {
            Some((Task::Staple(identity), place)) => {
                self.responders.finish(&place, false);
                if let Some(entry) = self.entries.get_mut(&identity) {
                    entry.fail(Class::Operator, "it failed by a bug of ringgate", None, now);
                }
                self.decide(identity, now);
            }
            Some((Task::List(url), _)) => {
                let what = "it failed by a bug of ringgate".to_owned();
                self.finish_list(&url, Looked::Refused(what), now);
            }
            Some((Task::End(_), _)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests;
