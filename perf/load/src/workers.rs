//! Two workers beside one: what a handshake costs, and how they share the connections.
//!
//! The load needs cores too, and this machine may have only two. So the cores are equal, each with a load of
//! its own, or unequal, with all of the load on the second.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cores::{Cores, pin, raise_open_files};
use crate::filled;
use crate::outcome::Outcome;
use crate::plan::{Plan, Scenario};
use crate::processes;
use crate::run::{Setup, run};
use crate::stage::{Scene, Stage};
use crate::started::Started;
use crate::system::System;
use crate::verdict::{Spread, judge};
use crate::watch::Watch;

const SCENARIO: Scenario = Scenario::Full;
/// Of all loads together.
const CLIENTS: usize = 64;
/// How worker threads are called.
const WORKER: &str = "worker-";

/// What is downloaded: nothing.
const BULK_BYTES: u64 = 0;

/// What to measure, and for how long.
pub struct Order {
    pub system: System,
    pub rounds: u64,
    pub window: Duration,
    /// Where the upstream's configuration is.
    pub peers: PathBuf,
}

/// Whose cores are which.
struct Arrangement {
    name: &'static str,
    workers: Vec<usize>,
    loads: Vec<usize>,
}

/// What one window gave.
struct Window {
    /// Server CPU per connection, in microseconds.
    cost: f64,
    per_second: f64,
    /// The share of each worker in the time that all have had on a core. Where the cores are equal that is its
    /// share of the connections, for they cost the same.
    shares: Vec<f64>,
}

/// Measures all arrangements in alternating rounds, and says what they gave. `progress` is told what comes next.
///
/// # Errors
/// If it cannot be run, or a connection failed.
pub fn compare(order: &Order, progress: impl Fn(&str)) -> Result<String, String> {
    raise_open_files().map_err(|error| format!("cannot raise the limit of open files: {error}"))?;
    let Cores { server: first, load: second } =
        Cores::of_this_machine().map_err(|error| error.to_string())?;
    let arrangements = [
        ("one worker on the first core, the load on the second", vec![first], vec![second]),
        ("two workers, a load on either core", vec![first, second], vec![first, second]),
        ("two workers, all of the load on the second core", vec![first, second], vec![second]),
    ];
    let arrangements =
        arrangements.map(|(name, workers, loads)| Arrangement { name, workers, loads });
    let mut windows: [Vec<Window>; 3] = Default::default();
    for round in 0..order.rounds {
        for turn in 0..arrangements.len() {
            let at = (round as usize + turn) % arrangements.len();
            progress(&format!("round {} {}", round + 1, arrangements[at].name));
            windows[at].push(measure(order, &arrangements[at])?);
        }
    }
    let mut text = format!("{}: server CPU per connection, µs\n", SCENARIO.title());
    for (arrangement, taken) in arrangements.iter().zip(&windows) {
        let spread = |of: &dyn Fn(&Window) -> f64| Spread::of(taken.iter().map(of));
        let over = taken.iter().zip(&windows[0]).map(|(window, one)| window.cost / one.cost);
        text += &format!(
            "{}\n  cost {}  over one worker {}  per second {}\n",
            arrangement.name,
            shown(spread(&|window| window.cost), 1),
            shown(Spread::of(over), 2),
            shown(spread(&|window| window.per_second), 0),
        );
        for (worker, core) in arrangement.workers.iter().enumerate() {
            let share = spread(&|window| 100.0 * window.shares.get(worker).unwrap_or(&0.0));
            text += &format!("  worker on core {core}: {} % of the work\n", shown(share, 0));
        }
    }
    Ok(text)
}

fn shown(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or("-".to_owned(), |spread| spread.show(digits))
}

/// One window on a freshly started server and upstream. The upstream runs where the loads do.
fn measure(order: &Order, cores: &Arrangement) -> Result<Window, String> {
    let system = &order.system;
    pin(&cores.loads).map_err(not_pinned)?;
    let stage = Stage::set(&order.peers, BULK_BYTES)?;
    let list: Vec<_> = cores.workers.iter().map(ToString::to_string).collect();
    let command = filled::command(system, &stage, SCENARIO.key())?;
    let command = format!("taskset -c {} {command}", list.join(","));
    let address = (stage.host, system.port).into();
    let dir = stage.scene.dir();
    let started = Started::start(&system.name, &command, None, address, dir)?;
    let pid = started.pid();
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let loads = cores.loads.iter().map(|core| {
            let clients = CLIENTS / cores.loads.len();
            scope.spawn(move || {
                pin(&[*core]).map_err(not_pinned)?;
                load(dir, address, pid, clients, order.window)
            })
        });
        let loads: Vec<_> = loads.collect();
        let ended = |load: std::thread::ScopedJoinHandle<'_, Result<Outcome, String>>| {
            load.join().unwrap_or_else(|_| Err("a load ended badly".to_owned()))
        };
        loads.into_iter().map(ended).collect::<Result<_, String>>()
    })?;
    // Of all its life: it was started for this window.
    let times = worker_times(pid)?;
    if let Some(refusal) = outcomes.iter().flat_map(judge).next() {
        return Err(format!("{}: {refusal}", cores.name));
    }
    // The windows of two loads are the same but for milliseconds.
    let busy = |outcome: &Outcome| {
        outcome.used.map_or(0.0, |used| used.cpu.as_secs_f64() / used.wall.as_secs_f64())
    };
    let busy = outcomes.iter().map(busy).sum::<f64>() / outcomes.len() as f64;
    let per_second = outcomes.iter().map(Outcome::rate).sum::<f64>();
    let all = times.iter().sum::<Duration>().as_secs_f64();
    let shares = times.iter().map(|time| time.as_secs_f64() / all).collect();
    Ok(Window { cost: 1e6 * busy / per_second, per_second, shares })
}

/// One load's window, on the thread that calls.
fn load(
    dir: &Path,
    address: std::net::SocketAddr,
    pid: u32,
    clients: usize,
    window: Duration,
) -> Result<Outcome, String> {
    let scene = Scene::open(dir.to_owned())?;
    let watch = Watch::new(pid, None).map_err(|error| format!("it cannot be watched: {error}"))?;
    run(Setup {
        plan: Plan { clients, at_least: 1, ..Plan::new(SCENARIO, window) },
        address,
        trust: scene.trust(SCENARIO.key(), SCENARIO.group())?,
        answers: scene.answers.clone(),
        uploads: scene.uploads(),
        watch: Some(watch),
        beside: None,
    })
}

/// The time that each worker of a server has had on a core, in the order of their cores.
fn worker_times(pid: u32) -> Result<Vec<Duration>, String> {
    let times = processes::threads(pid).map_err(|error| format!("its threads: {error}"))?;
    let mut workers: Vec<_> = times
        .into_iter()
        .filter_map(|(name, time)| Some((name.strip_prefix(WORKER)?.parse::<usize>().ok()?, time)))
        .collect();
    workers.sort_unstable();
    Ok(workers.into_iter().map(|(_, time)| time).collect())
}

fn not_pinned(error: std::io::Error) -> String {
    format!("cannot pin to a core: {error}")
}
