//! `ringgate run`: start-up, signals and shut-down, in their order.

use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::clock::{self, Moment};
use crate::config::Config;
use crate::config::layers::{Layers, Written};
use crate::config::problem::Problem;
use crate::control::plane::Plane;
use crate::control::prepare::{Mode, prepare};
use crate::control::reports::Reports;
use crate::edge::limits::ACCEPTS_IN_FLIGHT;
use crate::edge::listener::Listener;
use crate::edge::worker::{self, Order};
use crate::observe::counters::{Counters, Report, Reporter};
use crate::observe::flood::shortened;
use crate::observe::names::Reason;
use crate::ring;

use super::command::{Failure, configure};
use super::listeners::{self, Listening};
use super::systemd::{State, notify};
use super::{cores, descriptors};

/// The nice value of the control plane: the edge always goes first.
const CONTROL_NICE: i32 = 19;
/// Threads for what blocks: files, getaddrinfo, generating private keys.
const BLOCKING_THREADS: usize = 4;
/// After connections were interrupted at shutdown_timeout, how long they may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(6);

/// Runs until a signal ends it.
pub fn run(config: Config, layers: &Layers, mut written: Written) -> Result<(), Failure> {
    written.read_before.clone_from(&layers.file);
    ring::probe().map_err(|why| Failure::Unavailable(why.to_string()))?;
    let limit = descriptors::raise_limit();
    let cores = worker_cores(&config, layers)?;
    let Listening { mut listeners, ports, redirect_port } =
        listeners::open(&config, cores.len(), layers)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| Failure::Other(format!("cannot start the control plane: {error}")))?;
    let no_signals = |error| Failure::Other(format!("cannot handle signals: {error}"));
    // A reload that is asked for while certificates are loaded comes after it. What ends us still does at once.
    let hangup = runtime.block_on(async { signal(SignalKind::hangup()) }).map_err(no_signals)?;
    let prepared = prepare(&config, &ports, None, Mode::Serve, cores.len(), Moment::now())
        .map_err(|problems| Failure::Configuration(layers.placed(problems)))?;
    for warning in &prepared.warnings {
        warn!("{warning}");
    }
    let root = prepared.local_ca.as_ref().map(|ca| ca.root_path().to_owned());
    let nothing_configured = config.nothing_configured;
    let mut plane = Plane::start(config, ports.clone(), cores.len(), prepared)
        .map_err(|_| Failure::Other("the system's random source failed".into()))?;

    let outcome = runtime.block_on(async {
        // Handlers stand before READY, so that no signal of the supervisor kills us.
        let mut signals = Signals::new(hangup).map_err(no_signals)?;
        // The first connections find their upstreams resolved.
        plane.resolve_upstreams().await;

        let (reporter, mut reports) = Reporter::channel(plane.config().log_level.shows_debug());
        // Each worker opens two more, its ring and its bell; and where every place is taken, each accept in
        // flight may hold a client that waits for one.
        let per_worker = 2 + listeners.len() as u64 * ACCEPTS_IN_FLIGHT as u64;
        let open = descriptors::open_now() + per_worker * cores.len() as u64;
        let capacity = descriptors::connections_per_worker(limit, open, cores.len());
        let mut fleet = Fleet::start(&cores, &mut listeners, &plane, &reporter, capacity)?;
        lower_priority();

        // Whoever reads that it is ready may ask: what is asked waits until the loop below.
        plane.open_admin();
        announce(&plane, &cores, capacity, &ports, redirect_port);
        if nothing_configured && let Some(root) = root {
            let port = ports.first().copied().unwrap_or_default();
            let url = format!("https://localhost:{port}/");
            println!("{url}\n{root}\ncurl --cacert {root} {url}", root = root.display());
        }
        notify(State::Ready);
        // What is stored is served by now; whatever a CA is needed for comes after.
        plane.start_issuing();

        let mut log = Reports::default();
        let stopped_by = loop {
            let done = tokio::select! {
                biased;
                asked = signals.next() => match asked {
                    Asked::Stop(signal) => break signal,
                    Asked::Reload => signals.unless_stopped(reload(&mut plane, &mut written)).await,
                },
                ended = fleet.ended.recv() => {
                    notify(State::Stopping);
                    let which = ended.unwrap_or_default();
                    return Err(Failure::Other(format!("worker {which} has ended on its own; this is a bug, please report it with the log")));
                }
                due = plane.next() => signals.unless_stopped(plane.act(due)).await,
                // Last: a flood of them must not keep what is due waiting.
                Some(report) = reports.recv() => {
                    write(&mut log, &report);
                    Ok(())
                }
            };
            if let Err(signal) = done {
                break signal;
            }
        };
        info!(signal = stopped_by, "draining");
        notify(State::Stopping);
        plane.close_admin();
        let shutdown_timeout = plane.config().shutdown_timeout;
        fleet.drain(shutdown_timeout, &mut signals, &mut reports, &mut log).await
    });
    // What is under way there reads, or writes so that a crash loses nothing; a mount that hangs must not
    // keep the process.
    runtime.shutdown_background();
    outcome
}

fn write(log: &mut Reports, report: &Report) {
    log.write(report, clock::steady());
}

/// Reads the configuration again and puts it into force, or says why not.
async fn reload(plane: &mut Plane, written: &mut Written) {
    notify(State::Reloading);
    let outcome = match configure(written) {
        Ok((config, layers)) => {
            let outcome = plane.reload(config).await.map_err(|problems| layers.placed(problems));
            if outcome.is_ok() {
                written.read_before = layers.file;
            }
            outcome
        }
        Err(Failure::Configuration(problems)) => Err(problems),
        Err(Failure::Unavailable(_) | Failure::Other(_)) => Ok(()),
    };
    if let Err(problems) = outcome {
        for line in shortened(&problems, Problem::option) {
            error!("{line}");
        }
        error!(problems = problems.len(), "the configuration is not reloaded; nothing was changed");
    }
    notify(State::Ready);
}

/// The cores that workers are pinned to.
pub fn worker_cores(config: &Config, layers: &Layers) -> Result<Vec<usize>, Failure> {
    let cannot = |error| Failure::Other(format!("cannot tell which cores there are: {error}"));
    let Some(wanted) = &config.cores else { return cores::default_cores().map_err(cannot) };
    let allowed = cores::allowed().map_err(cannot)?;
    let problems: Vec<_> = wanted
        .iter()
        .filter(|core| !allowed.contains(core))
        .map(|core| {
            Problem::new(
                &layers.origin("cores"),
                "cores",
                format!(
                    "core {core} is not one that this process may run on ({})",
                    ranges(&allowed)
                ),
                "name some of those, or leave it unset for all of them",
            )
        })
        .collect();
    if problems.is_empty() { Ok(wanted.clone()) } else { Err(Failure::Configuration(problems)) }
}

/// `[0, 1, 2, 5]` as `0-2,5`.
fn ranges(cores: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *core => *last = *core,
            _ => runs.push((*core, *core)),
        }
    }
    let written = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    written.collect::<Vec<_>>().join(",")
}

/// The control plane runs when the edge has nothing to do. (Its pool's threads inherit this.)
fn lower_priority() {
    let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    // A container may forbid either; the control plane then competes with the workers a little.
    let zero = ThreadPriority::from_posix(thread_priority::ScheduleParams { sched_priority: 0 });
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), zero, batch) {
        tracing::debug!(?error, "SCHED_BATCH is not to be had");
    }
    if let Err(error) = setpriority_process(None, CONTROL_NICE) {
        tracing::debug!(%error, "cannot lower the control plane's priority");
    }
}

fn announce(
    plane: &Plane,
    cores: &[usize],
    capacity: usize,
    ports: &[u16],
    redirect_port: Option<u16>,
) {
    let prepared = plane.prepared();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        workers = cores.len(),
        cores = ranges(cores),
        ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
        redirect_port,
        routes = plane.config().routes.len(),
        certificates = prepared.by_hand.len() + prepared.local.len(),
        most_connections = capacity.saturating_mul(cores.len()),
        "ready"
    );
}

/// The signals that matter.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    /// A reload was asked for while something else was being done.
    reload_is_due: bool,
}

impl Signals {
    fn new(hangup: Signal) -> std::io::Result<Self> {
        Ok(Self {
            hangup,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload_is_due: false,
        })
    }

    async fn next(&mut self) -> Asked {
        if std::mem::take(&mut self.reload_is_due) {
            return Asked::Reload;
        }
        self.next_signal().await
    }

    async fn next_signal(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop("TERM"),
            _ = self.interrupt.recv() => Asked::Stop("INT"),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Does `work`, which may read disks or wait for others, to its end, unless the process is to stop
    /// before that: then `work` is dropped, and the error is the signal.
    async fn unless_stopped(&mut self, work: impl Future<Output = ()>) -> Result<(), &'static str> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = &mut work => return Ok(()),
                asked = self.next_signal() => match asked {
                    Asked::Stop(signal) => return Err(signal),
                    Asked::Reload => self.reload_is_due = true,
                },
            }
        }
    }
}

/// What a signal asks for.
enum Asked {
    Reload,
    Stop(&'static str),
}

/// The running workers.
struct Fleet {
    workers: Vec<Worker>,
    /// Told which worker has ended.
    ended: mpsc::UnboundedReceiver<usize>,
}

struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    counters: Arc<Counters>,
    thread: JoinHandle<()>,
}

impl Fleet {
    fn start(
        cores: &[usize],
        listeners: &mut [Vec<Listener>],
        plane: &Plane,
        reporter: &Reporter,
        capacity: usize,
    ) -> Result<Self, Failure> {
        let (end, ended) = mpsc::unbounded_channel();
        let mut workers = Vec::with_capacity(cores.len());
        for (index, core) in cores.iter().copied().enumerate() {
            let (orders, received) = mpsc::unbounded_channel();
            let counters = Arc::new(Counters::default());
            let plan = worker::Plan {
                index,
                cell: plane.cell(),
                listeners: listeners.iter_mut().filter_map(Vec::pop).collect(),
                counters: counters.clone(),
                reporter: reporter.clone(),
                orders: received,
                capacity,
            };
            let (started, outcome) = blocking::sync_channel(1);
            // Tells the end also when the thread panics.
            let end = Farewell { index, end: end.clone() };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let _end = end;
                    if let Err(error) = cores::pin(core) {
                        warn!(core, %error, "a worker cannot be pinned to its core");
                    }
                    worker::run(plan, |outcome| drop(started.send(outcome)));
                })
                .map_err(|error| Failure::Other(format!("cannot start a worker: {error}")))?;
            outcome
                .recv()
                .unwrap_or_else(|_| Err(std::io::Error::other("the worker died")))
                .map_err(|error| {
                    Failure::Unavailable(format!("worker {index} has no ring: {error}"))
                })?;
            workers.push(Worker { orders, counters, thread });
        }
        Ok(Self { workers, ended })
    }

    /// Lets every worker drain; interrupts what is left at `shutdown_timeout`; a second signal ends at
    /// once.
    async fn drain(
        mut self,
        shutdown_timeout: Duration,
        signals: &mut Signals,
        reports: &mut mpsc::Receiver<Report>,
        log: &mut Reports,
    ) -> Result<(), Failure> {
        let begun = clock::steady();
        self.order(Order::Drain);
        let mut deadline = begun + shutdown_timeout;
        let mut interrupted = false;
        let mut running = self.workers.len();
        while running > 0 {
            tokio::select! {
                biased;
                asked = signals.next() => match asked {
                    Asked::Stop(signal) => {
                        let open = self.sum(|counters| counters.open.get());
                        warn!(signal, connections = open, "second signal: ending at once");
                        return Ok(());
                    }
                    Asked::Reload => warn!("not reloading: draining"),
                },
                Some(_) = self.ended.recv() => running -= 1,
                () = tokio::time::sleep_until(deadline.into()) => {
                    let open = self.sum(|counters| counters.open.get());
                    if interrupted {
                        return Err(Failure::Other(format!("{open} connections did not end; ending anyway")));
                    }
                    warn!(connections = open, "shutdown_timeout is over: ending the connections that are left");
                    interrupted = true;
                    self.order(Order::Interrupt);
                    deadline = clock::steady() + FAREWELL;
                }
                // Last: a flood of them must not keep the deadline waiting.
                Some(report) = reports.recv() => write(log, &report),
            }
        }
        self.say_what_was_done(begun);
        for worker in self.workers {
            if worker.thread.join().is_err() {
                return Err(Failure::Other("a worker panicked; the log says where".into()));
            }
        }
        Ok(())
    }

    fn order(&self, order: Order) {
        for worker in &self.workers {
            // A worker that is gone needs no order.
            let _ = worker.orders.send(order);
        }
    }

    fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.workers.iter().map(|worker| of(&worker.counters)).sum()
    }

    fn say_what_was_done(&self, begun: Instant) {
        let ended: Vec<String> = Reason::ALL
            .iter()
            .map(|reason| (reason, self.sum(|counters| counters.ended(*reason).get())))
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{}={count}", reason.label()))
            .collect();
        info!(
            accepted = self.sum(|counters| counters.accepted.get()),
            full_handshakes = self.sum(|counters| counters.full_handshakes.get()),
            resumed_handshakes = self.sum(|counters| counters.resumed_handshakes.get()),
            hellos = self.sum(|counters| counters.hellos.get()),
            computed_together = self.sum(|counters| counters.computed_together.get()),
            computations = self.sum(|counters| counters.computations.get()),
            accept_pauses = self.sum(|counters| counters.accept_pauses.get()),
            out_of_buffers = self.sum(|counters| counters.out_of_buffers.get()),
            reports_dropped = self.sum(|counters| counters.reports_dropped.get()),
            ended_early = ended.join(" "),
            drained_ms = clock::steady().duration_since(begun).as_millis() as u64,
            "stopped"
        );
    }
}

/// Says that a worker's thread is over when it is dropped, however that comes.
struct Farewell {
    index: usize,
    end: mpsc::UnboundedSender<usize>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.end.send(self.index);
    }
}
