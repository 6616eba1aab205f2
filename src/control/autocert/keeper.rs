//! Keeps a certificate for every managed name: an entry for each, and turns taken when something is due.
//!
//! A task of its own on the control thread. What it obtains it has stored before it tells the control
//! plane, which publishes it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::RevocationReason;
use rustls::pki_types::CertificateDer;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinSet};
use tracing::{error, info, warn};

use crate::clock::Moment;
use crate::name::ServerName;

use super::super::certified::Certified;
use super::attempt::{Outcome, Turn, take_turn};
use super::dossier::Dossier;
use super::elsewhere::Elsewhere;
use super::entry::{Entry, Reply, SETTLE_PAUSE};
use super::events::{Event, Events};
use super::issuers::Issuers;
use super::outlook::Outlook;
use super::pace;
use super::plan::{Asked, Plan};
use super::revocation;
use super::status::Status;
use super::told_revoked::ToldRevoked;
use super::verdict::Failed;

/// Turns at once. Let's Encrypt allows 300 orders in three hours and answers in about a second: more at
/// once would only reach its limits sooner.
const TURNS_AT_ONCE: usize = 16;
/// Revocations at once, each asked for by a person or a person's script; more are refused.
const REVOCATIONS_AT_ONCE: usize = 64;
/// How often everything is decided anew: often enough for a clock that jumped and for certificates of
/// minutes.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// What is due already when it is looked at waits for no more than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
/// How long a name waits that somebody else is at work on.
const BUSY_PAUSE: Duration = Duration::from_secs(2);

/// A certificate that is served for a name from now on.
pub struct News {
    pub name: ServerName,
    pub certified: Arc<Certified>,
}

/// What the keeper is to do.
pub enum Command {
    /// Keep certificates for these names and no others, with these issuers.
    Assign {
        issuers: Arc<Issuers>,
        names: Vec<(ServerName, Dossier)>,
    },
    Status(oneshot::Sender<Vec<Status>>),
    Renew {
        name: ServerName,
        force: bool,
        reply: Reply,
    },
    Revoke {
        name: ServerName,
        reason: RevocationReason,
        reply: Reply,
    },
    /// The issuer has revoked this certificate: it is replaced at once.
    Revoked {
        name: ServerName,
        leaf: CertificateDer<'static>,
        key_compromise: bool,
    },
}

/// Starts the keeper. It ends when the sender is dropped.
pub fn start() -> (mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<News>) {
    let (sender, commands) = mpsc::unbounded_channel();
    let (news, receiver) = mpsc::unbounded_channel();
    tokio::spawn(
        Keeper {
            commands,
            news,
            assigned: None,
            working: JoinSet::new(),
            revoking: JoinSet::new(),
            noting: JoinSet::new(),
            told_revoked: ToldRevoked::default(),
            workers: HashMap::new(),
        }
        .run(),
    );
    (sender, receiver)
}

struct Keeper {
    commands: mpsc::UnboundedReceiver<Command>,
    news: mpsc::UnboundedSender<News>,
    assigned: Option<Assigned>,
    working: JoinSet<Done>,
    /// Revocations wait for locks: they take no turn's place.
    revoking: JoinSet<Done>,
    noting: JoinSet<Done>,
    told_revoked: ToldRevoked,
    /// Whose work each is, for the case that it panics.
    workers: HashMap<task::Id, ServerName>,
}

struct Assigned {
    issuers: Arc<Issuers>,
    events: Events,
    entries: HashMap<ServerName, Entry>,
    elsewhere: Elsewhere,
    outlook: Outlook,
}

/// Work that is done.
enum Done {
    Turn {
        name: ServerName,
        turn: Box<Turn>,
    },
    Revoked {
        name: ServerName,
        issuer: String,
        reason: RevocationReason,
        leaf: CertificateDer<'static>,
        outcome: Result<(), Failed>,
        reply: Reply,
    },
}

impl Keeper {
    async fn run(mut self) {
        loop {
            let now = Moment::now();
            self.start_notes();
            let wake = match &mut self.assigned {
                Some(assigned) => {
                    assigned.start_due(&mut self.working, &mut self.workers, now);
                    assigned.next_wake(now)
                }
                None => now.plus(LOOK_EVERY),
            };
            let pause = wake.since(now).clamp(SHORTEST_PAUSE, pace::between_looks(LOOK_EVERY));
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(done) = self.working.join_next_with_id() => match done {
                    Ok((id, done)) => {
                        self.workers.remove(&id);
                        self.finish(done);
                    }
                    Err(panicked) => self.survive(&panicked),
                },
                Some(revoked) = self.revoking.join_next() => self.finish_revocation(revoked),
                Some(noted) = self.noting.join_next() => self.finish_revocation(noted),
                () = pace::pause(pause) => {
                    if let Some(assigned) = &mut self.assigned {
                        assigned.look_at_all(Moment::now());
                    }
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Assign { issuers, names } => self.assign(issuers, names),
            Command::Status(reply) => {
                let status = self.assigned.as_ref().map(|assigned| assigned.status(Moment::now()));
                let _ = reply.send(status.unwrap_or_default());
            }
            Command::Renew { name, force, reply } => {
                let entry = self.assigned.as_mut().and_then(|all| all.entries.get_mut(&name));
                match entry {
                    Some(entry) => {
                        entry.asked = Some(if force { Asked::Force } else { Asked::Renew });
                        entry.wake = Moment::now();
                        entry.waiting.push(reply);
                    }
                    None => drop(reply.send(Err(format!("autocert does not manage {name}")))),
                }
            }
            Command::Revoke { name, reason, reply } => self.revoke(name, reason, reply),
            Command::Revoked { name, leaf, key_compromise } => {
                let is_managed =
                    self.assigned.as_ref().is_some_and(|all| all.entries.contains_key(&name));
                if is_managed {
                    self.told_revoked.add(name, leaf, key_compromise);
                }
            }
        }
    }

    /// Begins to revoke what is served now.
    fn revoke(&mut self, name: ServerName, reason: RevocationReason, mut reply: Reply) {
        let begin = || {
            let managed =
                self.assigned.as_ref().and_then(|all| Some((all.entries.get(&name)?, all)));
            let (entry, all) = managed.ok_or_else(|| format!("autocert does not manage {name}"))?;
            let serving = entry.dossier.serving();
            let leaf = serving.and_then(|known| known.certified.as_ref()?.key.cert.first());
            let (serving, leaf) = serving
                .zip(leaf)
                .ok_or_else(|| format!("{name} has no certificate of an issuer's"))?;
            // Only whoever issued it can revoke it.
            let issuer = &serving.record.issuer;
            let ca = all.issuers.of(issuer).cloned().ok_or_else(|| {
                format!("{name} has a certificate of {issuer}, which autocert_ca does not name; name it there to revoke it")
            })?;
            if self.revoking.len() >= REVOCATIONS_AT_ONCE {
                return Err("too many revocations at once; try again".to_owned());
            }
            Ok((ca, leaf.clone().into_owned()))
        };
        match begin() {
            Ok((ca, leaf)) => {
                self.revoking.spawn(async move {
                    let outcome = revocation::revoke(&ca, &name, &leaf, &reason, &mut reply).await;
                    Done::Revoked {
                        issuer: ca.issuer.directory.clone(),
                        name,
                        reason,
                        leaf,
                        outcome,
                        reply,
                    }
                });
            }
            Err(why) => drop(reply.send(Err(why))),
        }
    }

    /// Begins to note what issuers have revoked, a few at once.
    fn start_notes(&mut self) {
        while let Some((name, (leaf, key_compromise))) = self.told_revoked.next(self.noting.len()) {
            self.start_note(name, leaf, key_compromise);
        }
    }

    fn start_note(
        &mut self,
        name: ServerName,
        leaf: CertificateDer<'static>,
        key_compromise: bool,
    ) {
        let Some(assigned) = &self.assigned else { return };
        let serving = assigned.entries.get(&name).and_then(|entry| entry.dossier.serving());
        let Some(known) = serving.filter(|known| !known.is_revoked()) else { return };
        let (store, issuer) = (assigned.issuers.store.clone(), known.record.issuer.clone());
        let reason = match key_compromise {
            true => RevocationReason::KeyCompromise,
            false => RevocationReason::Unspecified,
        };
        self.noting.spawn(async move {
            let outcome = revocation::note(&store, &issuer, &name, &leaf, &reason).await;
            if let Err(failed) = &outcome {
                warn!(%name, %failed, "its certificate is revoked, which could not be stored");
            }
            let (reply, _) = oneshot::channel();
            Done::Revoked { name, issuer, reason, leaf, outcome, reply }
        });
    }

    fn assign(&mut self, issuers: Arc<Issuers>, names: Vec<(ServerName, Dossier)>) {
        let now = Moment::now();
        let before = self.assigned.take();
        let (mut old, same_issuers, elsewhere, outlook) = match before {
            Some(before) => {
                let same_dir = before.issuers.settings.dir == issuers.settings.dir;
                let elsewhere = same_dir.then_some(before.elsewhere);
                let same_issuers = before.issuers.are_those_of(&issuers);
                (before.entries, same_issuers, elsewhere, before.outlook)
            }
            None => (HashMap::new(), false, None, Outlook::new(now)),
        };
        let elsewhere = elsewhere
            .unwrap_or_else(|| Elsewhere::start(issuers.store.clone(), issuers.publisher.clone()));
        let missing = names.iter().filter(|(_, dossier)| dossier.certified().is_none()).count();
        let asked: Vec<_> = issuers.directories().collect();
        info!(
            names = names.len(),
            without_certificate = missing,
            issuer = asked.join(", then "),
            "autocert"
        );
        let entries = names.into_iter().map(|(name, dossier)| {
            let entry = old.remove(&name).filter(|_| same_issuers);
            let mut entry = entry.unwrap_or_else(|| Entry::new(&name, dossier));
            entry.decide(&issuers, now);
            (name, entry)
        });
        let entries = entries.collect();
        let events = Events::new(issuers.settings.hook.as_deref());
        self.assigned = Some(Assigned { events, entries, issuers, elsewhere, outlook });
    }

    /// A bug met in the work on one name is that name's misfortune alone.
    fn survive(&mut self, panicked: &task::JoinError) {
        let name = self.workers.remove(&panicked.id());
        error!(name = name.as_ref().map(ServerName::as_str), %panicked, "this is a bug, please report it with the log");
        let entry = name.zip(self.assigned.as_mut());
        if let Some(entry) = entry.and_then(|(name, all)| all.entries.get_mut(&name)) {
            entry.at_work = false;
            entry.wake = Moment::now().plus(SETTLE_PAUSE);
            entry.answer(Err("it failed by a bug of ringgate; the log says more".into()));
        }
    }

    /// One that was asked for, or noted.
    fn finish_revocation(&mut self, ended: Result<Done, task::JoinError>) {
        match ended {
            Ok(done) => self.finish(done),
            Err(panicked) => error!(%panicked, "this is a bug, please report it with the log"),
        }
    }

    fn finish(&mut self, done: Done) {
        let Some(assigned) = &mut self.assigned else { return };
        match done {
            Done::Turn { name, turn } => {
                if let Some(news) = assigned.finish_turn(&name, *turn, Moment::now()) {
                    let _ = self.news.send(News { name, certified: news });
                }
            }
            Done::Revoked { name, issuer, reason, leaf, outcome, reply } => {
                let said = outcome.map(|()| {
                    let said = format!("{reason:?}");
                    assigned.events.tell(&name, &issuer, Event::Revoked { reason: said });
                    let issuers = assigned.issuers.clone();
                    let entry = assigned.entries.get_mut(&name);
                    let held = entry.is_some_and(|entry| {
                        let known = entry.dossier.serving_mut();
                        let held =
                            known.is_some_and(|known| revocation::mark(known, &leaf, &reason));
                        entry.decide(&issuers, Moment::now());
                        held
                    });
                    if held {
                        format!("{name} is revoked and will be replaced")
                    } else {
                        format!("what {name} had is revoked; it was replaced meanwhile")
                    }
                });
                let _ = reply.send(said.map_err(|failed| failed.to_string()));
            }
        }
    }
}

impl Assigned {
    /// Starts turns for what is due, the most pressing first.
    fn start_due(
        &mut self,
        working: &mut JoinSet<Done>,
        workers: &mut HashMap<task::Id, ServerName>,
        now: Moment,
    ) {
        let issuers = self.issuers.clone();
        let room = TURNS_AT_ONCE.saturating_sub(working.len());
        let mut due: Vec<(Option<Moment>, ServerName)> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.at_work && entry.wake <= now)
            .map(|(name, entry)| {
                let ends = entry.dossier.certified().map(|certified| certified.not_after);
                (ends, name.clone())
            })
            .collect();
        due.sort_unstable();
        let mut started = 0;
        for (_, name) in due {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            if !entry.needs_turn(&issuers, now) {
                entry.decide(&issuers, now);
                continue;
            }
            if started == room {
                break;
            }
            started += 1;
            entry.at_work = true;
            if let Plan::Order { at, why } | Plan::Resume { at, why } = entry.plan(&issuers, now)
                && !std::mem::replace(&mut entry.is_told, true)
            {
                let issuer = issuers.directories().nth(at).unwrap_or_default();
                self.events.tell(&name, issuer, Event::Obtaining { why: why.to_string() });
            }
            entry.turn_asked = entry.asked.take();
            entry.turn_waiting = std::mem::take(&mut entry.waiting);
            let (issuers, dossier, asked, seed) =
                (issuers.clone(), entry.dossier.clone(), entry.turn_asked, entry.seed);
            let whose = name.clone();
            let spawned = working.spawn(async move {
                let turn = Box::new(take_turn(issuers, name.clone(), dossier, asked, seed).await);
                Done::Turn { name, turn }
            });
            workers.insert(spawned.id(), whose);
        }
    }

    fn next_wake(&self, now: Moment) -> Moment {
        let idle = self.entries.values().filter(|entry| !entry.at_work);
        idle.map(|entry| entry.wake).min().unwrap_or(now.plus(pace::between_looks(LOOK_EVERY)))
    }

    fn look_at_all(&mut self, now: Moment) {
        self.outlook.look(&self.issuers, self.entries.values(), now);
        let issuers = self.issuers.clone();
        for entry in self.entries.values_mut().filter(|entry| !entry.at_work) {
            // What is due takes its turn; a name that waits a moment on purpose goes on waiting.
            if entry.wake.since(now) > SETTLE_PAUSE {
                entry.decide(&issuers, now);
            }
        }
    }

    fn finish_turn(
        &mut self,
        name: &ServerName,
        turn: Turn,
        now: Moment,
    ) -> Option<Arc<Certified>> {
        let issuers = self.issuers.clone();
        // A name that was removed meanwhile: what was obtained is in the store.
        let entry = self.entries.get_mut(name)?;
        let Turn { dossier, outcome, storable } = turn;
        let directories = dossier.at.iter().map(|known| known.record.issuer.as_str());
        if !directories.eq(issuers.directories()) {
            entry.at_work = false;
            entry.decide(&issuers, now);
            return None;
        }
        let before = std::mem::replace(&mut entry.dossier, dossier);
        let leaf = |dossier: &Dossier| {
            dossier.certified().and_then(|certified| certified.key.cert.first().cloned())
        };
        // Still served, whatever became of the store.
        for (known, before) in entry.dossier.at.iter_mut().zip(&before.at) {
            if known.certified.is_none() {
                known.certified.clone_from(&before.certified);
            }
        }
        let changed = leaf(&entry.dossier) != leaf(&before);
        entry.at_work = false;
        entry.storable = storable;
        let is_busy = matches!(outcome, Outcome::Busy);
        entry.is_told &= is_busy;
        entry.is_busy_told &= is_busy;
        match outcome {
            Outcome::Busy => {
                if !std::mem::replace(&mut entry.is_busy_told, true) {
                    info!(%name, "another node is at work on this name; waiting for it");
                }
                entry.wake = now.plus(BUSY_PAUSE);
                entry.asked = entry.asked.take().or(entry.turn_asked.take());
                entry.waiting.append(&mut entry.turn_waiting);
                return None;
            }
            Outcome::Nothing => {
                if let Some(certified) = entry.dossier.certified().filter(|_| changed) {
                    let not_after = certified.not_after;
                    info!(%name, %not_after, "the certificate of another node is served");
                }
                entry.answer(Ok(format!(
                    "{name} needs no renewal (certs renew --force renews it all the same)"
                )));
            }
            Outcome::Obtained { why, renewed } => {
                entry.said = None;
                if let Some((known, certified)) =
                    entry.dossier.serving().zip(entry.dossier.certified())
                {
                    let (not_after, why) = (certified.not_after, why.to_string());
                    let issuer = &known.record.issuer;
                    self.events.tell(name, issuer, Event::Obtained { renewed, not_after, why });
                    entry.answer(Ok(format!("{name} has a certificate until {not_after}")));
                }
            }
            Outcome::Failed { at, failed } => self.events.tell(
                name,
                issuers.directories().nth(at).unwrap_or_default(),
                entry.fail(&failed, &issuers, now),
            ),
            Outcome::CannotStore(failed) => {
                let issuer = issuers.directories().next().unwrap_or_default();
                self.events.tell(name, issuer, entry.fail(&failed, &issuers, now));
            }
        }
        entry.decide(&issuers, now);
        changed.then(|| entry.dossier.certified().cloned()).flatten()
    }

    fn status(&self, now: Moment) -> Vec<Status> {
        let mut all: Vec<_> =
            self.entries.values().map(|entry| entry.status(&self.issuers, now)).collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        all
    }
}
