//! One story from beginning to end: CA, directory, processes and what the sky does to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use ringgate::clock::Moment;
use ringgate::clock::simulated::{self as clock, true_time};
use ringgate::control::autocert::simulated::{
    Mutant, look, release_mutant, set_disk, set_private_keys,
};
use ringgate::name::ServerName;
use ringgate::snapshot::Cell;
use tokio::sync::mpsc;

use crate::ca::{Ca, DOMAIN, Probe};
use crate::caddy;
use crate::checker::{Broken, Checker};
use crate::dice::Dice;
use crate::histogram::Histogram;
use crate::node::{Cells, Node, Outside, Published, served};
use crate::panics;
use crate::responder::Responder;
use crate::sky::Sky;
use crate::stapled::{Occasion, Served, Stapled};
use crate::store::{Disk, Shared};
use crate::weather::{Story, What};

/// When every story begins.
pub const BEGUN: Moment = Moment::from_unix_seconds(1_800_000_000);
/// The longest time between two looks of the checker.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);
/// How soon it looks after something has begun or ended.
const AFTER_CHANGES: Duration = Duration::from_secs(120);
/// How soon a service manager starts again what was killed.
const RESTARTED_WITHIN: Duration = Duration::from_secs(60);
/// Starts of one crash loop, so that two seconds for three days do not cost more than all else.
const CRASHES_AT_MOST: u32 = 150;

/// What came of a story.
#[derive(Default)]
pub struct Outcome {
    pub broken: Option<Broken>,
    pub histogram: Histogram,
}

/// Runs a story, on this thread.
pub fn run(story: &Story, mutant: Option<Mutant>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    panics::forget();
    release_mutant(mutant);
    set_private_keys(Some(story.seed));
    set_disk(Duration::ZERO);
    let outcome = runtime.block_on(async {
        clock::begin(BEGUN);
        World::new(story).run().await
    });
    drop(runtime);
    release_mutant(None);
    outcome
}

struct World<'a> {
    story: &'a Story,
    names: Vec<ServerName>,
    checker: Arc<Checker>,
    skies: Vec<Arc<Sky>>,
    store: Shared,
    cas: Vec<Arc<Ca>>,
    responders: Vec<Arc<Responder>>,
    stapled: Arc<Stapled>,
    cells: Cells,
    nodes: Vec<Option<Node>>,
    /// Processes that have been started, of any node.
    processes: u64,
    /// When a node that was killed starts again.
    restarts: BTreeMap<usize, Moment>,
    next_crash: Option<(Moment, Duration)>,
    deaths: mpsc::UnboundedReceiver<usize>,
    died: mpsc::UnboundedSender<usize>,
    dice: Dice,
}

impl<'a> World<'a> {
    fn new(story: &'a Story) -> Self {
        let checker = Arc::new(Checker::new(story, BEGUN));
        let skies: Vec<_> = (0..story.setting.cas).map(|_| Arc::new(Sky::default())).collect();
        let cells: Cells = Arc::default();
        let probe = probe(cells.clone(), Dice::new(story.seed, 3));
        let ca = |(number, sky): (usize, &Arc<Sky>)| {
            let (checker, probe) = (checker.clone(), probe.clone());
            Arc::new(Ca::new(number, story.seed, &story.setting, sky.clone(), checker, probe))
        };
        let cas: Vec<_> = skies.iter().enumerate().map(ca).collect();
        let stapled = Arc::new(Stapled::new(story, BEGUN, checker.clone()));
        let responder = |(number, (ca, sky)): (usize, (&Arc<Ca>, &Arc<Sky>))| {
            let (ca, sky, stapled) = (ca.clone(), sky.clone(), stapled.clone());
            let responses = story.setting.responses?;
            Some(Arc::new(Responder::new(number, story.seed, responses, ca, sky, stapled)))
        };
        let responders = cas.iter().zip(&skies).enumerate().filter_map(responder).collect();
        let name = |number| ServerName::parse(&format!("n{number}.{DOMAIN}")).expect("a name");
        let mut names: Vec<_> = (0..story.setting.names).map(name).collect();
        // As ringgate takes them from its routes.
        names.sort_unstable();
        let (died, deaths) = mpsc::unbounded_channel();
        Self {
            story,
            names,
            store: Shared::new(checker.clone(), stapled.clone()),
            checker,
            skies,
            cas,
            responders,
            stapled,
            cells,
            nodes: (0..story.setting.nodes).map(|_| None).collect(),
            processes: 0,
            restarts: BTreeMap::new(),
            next_crash: None,
            deaths,
            died,
            dice: Dice::new(story.seed, 2),
        }
    }

    async fn run(mut self) -> Outcome {
        let end = BEGUN.plus(self.story.setting.length);
        let mut changes = self.changes();
        let caddy = self.story.setting.has_caddy.then(|| {
            let (store, names) = (self.store.clone(), self.names.clone());
            let ca = self.cas[0].clone();
            tokio::spawn(caddy::run(store, ca, names, Dice::new(self.story.seed, 4)))
        });
        let mut next_look = BEGUN.plus(LOOK_EVERY);
        self.start_all();
        while true_time() < end && self.checker.broken().is_none() {
            let now = true_time();
            while changes.last().is_some_and(|at| *at <= now) {
                changes.pop();
                self.begin_and_end(now);
                next_look = next_look.min(now.plus(AFTER_CHANGES));
            }
            self.tend(now);
            if now >= next_look {
                next_look = now.plus(LOOK_EVERY);
                self.look().await;
            }
            let wakes = [changes.last().copied(), self.restarts.values().min().copied()];
            let wakes = wakes.into_iter().chain([self.next_crash.map(|(at, _)| at)]).flatten();
            let wake = wakes.chain([next_look, end]).min().unwrap_or(end);
            let pause = wake.since(now).max(Duration::from_millis(100));
            tokio::select! {
                biased;
                Some(node) = self.deaths.recv() => self.bury(node),
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Some(caddy) = caddy {
            caddy.abort();
        }
        for node in &mut self.nodes {
            if let Some(node) = node.take() {
                node.stop();
            }
        }
        let mut histogram = self.checker.take_histogram();
        let (staples, most_asked) = self.stapled.counts();
        histogram.staples(staples, most_asked);
        Outcome { broken: self.checker.broken(), histogram }
    }

    /// When something begins or ends, the next one last.
    fn changes(&self) -> Vec<Moment> {
        let events = self.story.events.iter();
        let mut changes: Vec<_> = events
            .flat_map(|event| [BEGUN.plus(event.at), BEGUN.plus(event.at + event.lasts)])
            .collect();
        changes.sort_unstable_by(|one, other| other.cmp(one));
        changes.dedup();
        changes
    }

    /// Sets the world to what is under way now, and does what happens at this moment.
    fn begin_and_end(&mut self, now: Moment) {
        let story = self.story;
        let active = || {
            story.events.iter().filter(|event| {
                BEGUN.plus(event.at) <= now && now < BEGUN.plus(event.at + event.lasts)
            })
        };
        for (number, sky) in self.skies.iter().enumerate() {
            let its = active().filter(|event| event.ca == number);
            sky.set(its.map(|event| event.what).collect());
        }
        let mut disk = Disk::Fine;
        let (mut ahead, mut pause, mut is_down) = (0, Duration::ZERO, false);
        let mut crashing = None;
        for event in active() {
            match &event.what {
                What::DiskGone => disk = Disk::Gone,
                What::DiskFull if disk == Disk::Fine => disk = Disk::Full,
                What::DiskSlow { pause: of } => pause = pause.max(*of),
                What::ClockAhead { seconds } => ahead += seconds,
                What::Restart => is_down = true,
                What::CrashLoop { each } => crashing = Some(*each),
                _ => {}
            }
        }
        self.store.set_disk(disk);
        set_disk(pause);
        if clock::ahead() != ahead {
            clock::set_ahead(ahead);
            self.checker.clock_was_set();
            look();
        }
        for event in story.events.iter().filter(|event| BEGUN.plus(event.at) == now) {
            let ca = &self.cas[event.ca];
            match event.what {
                What::Lifetime(lifetime) => {
                    self.cas.iter().for_each(|ca| ca.set_lifetime(lifetime));
                }
                What::Incident => ca.incident(),
                What::Revocation => ca.revoke(),
                What::AccountsForgotten => ca.forget_accounts(),
                What::RecordCut => self.store.cut_record(self.dice.next()),
                What::CrashLoop { each } => {
                    let each = each.max(event.lasts / CRASHES_AT_MOST);
                    self.next_crash = Some((now.plus(each), each));
                }
                What::Killed(death) => {
                    let node = self.dice.below(self.nodes.len() as u64) as usize;
                    if let Some(Some(node)) = self.nodes.get(node) {
                        node.life.is_to_die(death);
                    }
                }
                _ => {}
            }
        }
        if crashing.is_none() {
            self.next_crash = None;
        }
        if is_down {
            self.restarts.clear();
            for node in 0..self.nodes.len() {
                self.stop(node);
            }
        } else {
            self.start_all();
        }
    }

    /// Restarts and crashes that are due.
    fn tend(&mut self, now: Moment) {
        let due: Vec<_> =
            self.restarts.iter().filter(|(_, at)| **at <= now).map(|(node, _)| *node).collect();
        for node in due {
            self.restarts.remove(&node);
            self.start(node);
        }
        if let Some((at, each)) = self.next_crash
            && at <= now
        {
            self.next_crash = Some((now.plus(each), each));
            for node in 0..self.nodes.len() {
                self.stop(node);
                self.start(node);
            }
        }
    }

    fn start_all(&mut self) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_none() && !self.restarts.contains_key(&node) {
                self.start(node);
            }
        }
    }

    fn start(&mut self, number: usize) {
        let (checker, store, names) =
            (self.checker.clone(), self.store.clone(), self.names.clone());
        let stapled = self.stapled.clone();
        let process = self.processes;
        self.processes += 1;
        let before: Mutex<Vec<Option<(Vec<u8>, _)>>> = Mutex::new(vec![None; names.len()]);
        let is_started = Mutex::new(false);
        let published: Published = Arc::new(move |cell: &Cell| {
            let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
            let mut is_started = is_started.lock().unwrap_or_else(PoisonError::into_inner);
            let disk_is_fine = store.disk() == Disk::Fine;
            for (name, before) in names.iter().zip(before.iter_mut()) {
                let now = served(cell, name);
                if *before == now {
                    continue;
                }
                let leaf_before = before.as_ref().map(|(leaf, _)| leaf);
                let leaf = now.as_ref().map(|(leaf, _)| leaf);
                if leaf_before != leaf {
                    // What was served until this moment may have ended.
                    if let Some(before) = leaf_before {
                        checker.served(name.as_str(), before, false, disk_is_fine);
                    }
                    if let Some(leaf) = leaf {
                        checker.served(name.as_str(), leaf, *is_started, disk_is_fine);
                    }
                }
                if let Some((leaf, staple)) = &now {
                    let occasion = if *is_started { Occasion::Change } else { Occasion::Start };
                    let (name, staple) = (name.as_str(), staple.as_deref());
                    let served = Served { process, name, leaf, staple, occasion, disk_is_fine };
                    stapled.served(&served);
                }
                *before = now;
            }
            *is_started = true;
        });
        let outside =
            Outside { cas: &self.cas, responders: &self.responders, stapled: &self.stapled };
        let node = Node::start(process, &self.names, &self.store, &outside, published);
        let (life, died) = (node.life.clone(), self.died.clone());
        tokio::spawn(async move {
            life.over().await;
            let _ = died.send(number);
        });
        self.nodes[number] = Some(node);
        self.show_cells();
    }

    fn stop(&mut self, number: usize) {
        if let Some(node) = self.nodes[number].take() {
            self.stapled.process_ended(node.number);
            node.stop();
            self.checker.process_ended();
        }
        self.show_cells();
    }

    /// A process was killed by its story.
    fn bury(&mut self, number: usize) {
        let is_dead = self.nodes[number].as_ref().is_some_and(|node| node.life.is_over());
        if is_dead {
            self.stop(number);
            let after = self.dice.between(Duration::from_secs(1), RESTARTED_WITHIN);
            self.restarts.insert(number, true_time().plus(after));
        }
    }

    fn show_cells(&self) {
        let cells = self.nodes.iter().map(|node| node.as_ref().map(|node| node.cell.clone()));
        *self.cells.lock().unwrap_or_else(PoisonError::into_inner) = cells.collect();
    }

    /// What must hold at any time.
    async fn look(&self) {
        self.store.each(|name, content| self.checker.object(name, content));
        let disk_is_fine = self.store.disk() == Disk::Fine;
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            for name in &self.names {
                let found = served(&node.cell, name);
                let leaf = found.as_ref().map(|(leaf, _)| leaf.as_slice());
                self.checker.serves(at, name.as_str(), leaf);
                if let Some((leaf, staple)) = found {
                    self.checker.served(name.as_str(), &leaf, false, disk_is_fine);
                    self.stapled.served(&Served {
                        process: node.number,
                        name: name.as_str(),
                        leaf: &leaf,
                        staple: staple.as_deref(),
                        occasion: Occasion::Look,
                        disk_is_fine,
                    });
                }
            }
            let statuses = node.statuses().await;
            self.checker.statuses(&statuses, Moment::now());
            if self.story.setting.responses.is_some() {
                self.stapled.states(node.number, &node.states_of_staples().await);
            }
        }
        if let Some(panic) = panics::seen() {
            self.checker.bug(format!("a panic: {panic}"));
        }
    }
}

/// How the CA validates: it asks one of the nodes that run, through the snapshot that its edge reads.
fn probe(cells: Cells, dice: Dice) -> Probe {
    let dice = Mutex::new(dice);
    Arc::new(move |kind, name, token, key_authorization| {
        let cells = cells.lock().unwrap_or_else(PoisonError::into_inner);
        let running: Vec<_> = cells.iter().flatten().collect();
        let mut dice = dice.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cell) = running.get(dice.below(running.len() as u64) as usize) else {
            return Err("nobody listens".to_owned());
        };
        let name = ServerName::parse(name).map_err(|_| "no name".to_owned())?;
        let is_right = cell.read(|snapshot| match kind {
            "http-01" => {
                let path = format!("/.well-known/acme-challenge/{token}");
                let body = snapshot.challenges.http(&name, &path);
                body.is_some_and(|body| **body == *key_authorization)
            }
            _ => {
                // RFC 8737 §3: an OCTET STRING of the digest.
                let digest = digest(&SHA256, key_authorization.as_bytes());
                let expected = [&[0x04, 0x20], digest.as_ref()].concat();
                let certified = snapshot.challenges.tls_alpn(name.as_str());
                certified.and_then(|certified| certified.cert.first()).is_some_and(|leaf| {
                    leaf.windows(expected.len()).any(|window| window == expected.as_slice())
                })
            }
        });
        if is_right { Ok(()) } else { Err("no answer to the challenge".to_owned()) }
    })
}
