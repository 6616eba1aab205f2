//! One pinned thread: its ring, its accepts in flight, its connections, its drain.

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::server::UnbufferedServerConnection;
use slab::Slab;
use tokio::sync::{Notify, mpsc};

use crate::clock;
use crate::observe::counters::{Counters, Report, Reporter};
use crate::observe::names::{Reason, Side};
use crate::ring::{self, Buffers, Runtime, Socket};
use crate::snapshot::{self, Snapshot};

use super::ahead::{Ahead, Computations, Wanted};
use super::balance::Balance;
use super::connection::serve;
use super::http::plain::serve_plain;
use super::limits::{ACCEPT_PAUSE, ACCEPTS_IN_FLIGHT, BURST, LULL};
use super::line::Line;
use super::listener::{Kind, Listener};
use super::rush::{Patience, Rush, UnderWay};
use super::scratch::Scratch;
use super::tls::Configs;
use super::unique_id::UniqueIds;
use super::upstream_tls::ClientConfigs;

/// What a worker is started with.
pub struct Plan {
    /// Counts up from 0.
    pub index: usize,
    pub cell: Arc<snapshot::Cell>,
    pub listeners: Vec<Listener>,
    pub counters: Arc<Counters>,
    pub reporter: Reporter,
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// Connections served at once; more wait in the listener's backlog.
    pub capacity: usize,
}

/// What the process may ask of a running worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Take what waits in the backlog, close the listeners, and end when the last connection has.
    Drain,
    /// End the connections that are left, as orderly as they allow.
    Interrupt,
}

/// Which way a connection came in.
#[derive(Clone, Copy)]
struct Way {
    port: u16,
    kind: Kind,
}

/// The deadlines of a connection, as they were when it was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub handshake: Duration,
    pub connect: Duration,
    pub idle: Duration,
}

/// Runs a worker on the calling thread until it has drained. `started` is called with the outcome of
/// making the ring.
pub fn run(plan: Plan, started: impl FnOnce(io::Result<()>)) {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return started(Err(error)),
    };
    started(Ok(()));
    let buffers = runtime.buffers();
    runtime.block_on(Worker::work(plan, buffers));
}

/// What the connections of one thread share.
pub struct Worker {
    cell: Arc<snapshot::Cell>,
    configs: Configs,
    client_configs: ClientConfigs,
    balance: Balance,
    unique_ids: UniqueIds,
    buffers: Buffers,
    scratch: RefCell<Scratch>,
    counters: Arc<Counters>,
    reporter: Reporter,
    capacity: usize,
    lines: RefCell<Slab<Rc<Line>>>,
    /// Told when a connection ends: accepting may go on, or the drain may be over.
    departure: Notify,
    computations: Computations,
    rush: Rush,
    /// Connections that came, shook hands or went.
    stirs: Cell<u64>,
    /// Told of the first of them after a while without.
    stirred: Notify,
    stirring: Cell<bool>,
    draining: Cell<bool>,
    /// shutdown_timeout has passed.
    interrupted: Cell<bool>,
    accepting_paused: Cell<bool>,
}

/// A connection's place among its worker's; dropping it leaves.
pub struct Entry {
    pub line: Rc<Line>,
    pub worker: Rc<Worker>,
    key: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What the ring has begun holds the sockets until it ends, and nobody is left to end it.
            self.line.cut();
        }
        let mut lines = self.worker.lines.borrow_mut();
        lines.try_remove(self.key);
        self.worker.counters.open.set(lines.len() as u64);
        self.worker.stir();
        if self.worker.draining.get() || self.worker.accepting_paused.get() {
            self.worker.departure.notify_waiters();
        }
    }
}

impl Worker {
    async fn work(plan: Plan, buffers: Buffers) {
        let Plan { index, cell, listeners, counters, reporter, mut orders, capacity } = plan;
        let worker = Rc::new(Self {
            configs: Configs::new(cell.clone()),
            client_configs: ClientConfigs::default(),
            balance: Balance::new(index),
            unique_ids: UniqueIds::new(),
            cell,
            buffers,
            scratch: RefCell::new(Scratch::new()),
            counters,
            reporter,
            capacity,
            lines: RefCell::default(),
            departure: Notify::new(),
            computations: Computations::new(),
            rush: Rush::default(),
            stirs: Cell::new(0),
            stirred: Notify::new(),
            stirring: Cell::new(false),
            draining: Cell::new(false),
            interrupted: Cell::new(false),
            accepting_paused: Cell::new(false),
        });
        ring::spawn(worker.clone().tidy());
        let mut accepting = Vec::new();
        for Listener { socket, port, kind } in listeners {
            let listener = Socket::new(socket);
            let way = Way { port, kind };
            let accepts: Vec<_> = (0..ACCEPTS_IN_FLIGHT)
                .map(|_| ring::spawn(worker.clone().accept(listener.clone(), way)))
                .collect();
            accepting.push((listener, way, accepts));
        }

        // A process that has dropped the other end wants the same as one that orders a drain.
        let interrupted = orders.recv().await == Some(Order::Interrupt);
        worker.draining.set(true);
        worker.departure.notify_waiters();
        if interrupted {
            worker.interrupt_all();
        }
        let closing = ring::spawn(worker.clone().close_all(accepting));
        let mut listening = true;
        while !(closing.is_finished() && worker.lines.borrow().is_empty()) {
            tokio::select! {
                biased;
                order = orders.recv(), if listening => match order {
                    Some(Order::Interrupt) => worker.interrupt_all(),
                    Some(Order::Drain) => {}
                    None => listening = false,
                },
                () = worker.departure.notified() => {}
            }
        }
    }

    /// One of the accepts in flight on one listener.
    async fn accept(self: Rc<Self>, listener: Socket, way: Way) {
        while !self.draining.get() {
            if self.lines.borrow().len() >= self.capacity {
                self.pause_accepting("every place for a connection is taken").await;
                continue;
            }
            match ring::accept(&listener).await {
                Ok(client) => {
                    // Others were accepted while this accept was in flight. It waits here as it would
                    // have waited in the backlog, at the price of one descriptor.
                    while self.lines.borrow().len() >= self.capacity && !self.draining.get() {
                        self.pause_accepting("every place for a connection is taken").await;
                    }
                    self.begin(client, way);
                    // Those that wait beside it wait on where this one has taken the last place.
                    if self.lines.borrow().len() < self.capacity {
                        self.accepting_paused.set(false);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    // The drain, or a client that gave up in the backlog (accept(2)).
                    Some(libc::ECANCELED | libc::ECONNABORTED | libc::EINTR) => {}
                    _ if self.draining.get() => {}
                    // Descriptors or memory, most likely.
                    _ => self.pause_accepting(&error.to_string()).await,
                },
            }
        }
    }

    fn begin(self: &Rc<Self>, client: Socket, way: Way) {
        self.counters.accepted.add(1);
        self.stir();
        let timeouts = self.timeouts();
        // It has its place from here on, so that whoever is accepted in the same turn is counted.
        let entry = self.enter(Line::new(client, clock::steady() + timeouts.handshake));
        if self.interrupted.get() {
            entry.line.interrupt(Reason::Drained, clock::steady());
        }
        match way.kind {
            Kind::Tls => ring::spawn(serve(entry, way.port, timeouts)),
            Kind::Plain => ring::spawn(serve_plain(entry)),
        };
    }

    /// Says so once, and waits.
    async fn pause_accepting(&self, why: &str) {
        if !self.accepting_paused.replace(true) {
            self.counters.accept_pauses.add(1);
            self.report(Reason::AcceptingPauses, || Report {
                side: Side::Ours,
                reason: Reason::AcceptingPauses,
                client: None,
                server_name: None,
                route: None,
                detail: Some(why.into()),
            });
        }
        self.wait_for_departure().await;
    }

    /// Waits until a connection has ended, or a moment.
    async fn wait_for_departure(&self) {
        tokio::select! {
            () = self.departure.notified() => {}
            () = ring::sleep_until(clock::steady() + ACCEPT_PAUSE) => {}
        }
    }

    async fn close_all(self: Rc<Self>, accepting: Vec<(Socket, Way, Vec<ring::Task>)>) {
        for (listener, way, accepts) in accepting {
            self.close(listener, way, accepts).await;
        }
        // Perhaps there is nobody left to end.
        self.departure.notify_waiters();
    }

    /// Ends the accepts, serves who waits in the backlog already, and closes the listener: closing it
    /// with a backlog would reset those connections.
    async fn close(self: &Rc<Self>, listener: Socket, way: Way, accepts: Vec<ring::Task>) {
        // An accept that was being submitted meanwhile is caught by asking again.
        for accept in accepts {
            while !accept.is_finished() {
                let _ = ring::cancel(&listener).await;
                ring::next_turn().await;
            }
        }
        if listener.set_nonblocking().is_err() {
            return;
        }
        loop {
            if self.lines.borrow().len() < self.capacity {
                match listener.accept_now() {
                    Ok(Some(client)) => {
                        self.begin(client, way);
                        continue;
                    }
                    Ok(None) => return,
                    Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => continue,
                    // Descriptors or memory, most likely.
                    Err(_) => {}
                }
            }
            // They wait for a place as they have done so far, until shutdown_timeout.
            if self.interrupted.get() {
                return;
            }
            self.wait_for_departure().await;
        }
    }

    fn interrupt_all(&self) {
        self.interrupted.set(true);
        let now = clock::steady();
        for (_, line) in self.lines.borrow().iter() {
            line.interrupt(Reason::Drained, now);
        }
    }

    /// Notes that memory is being taken or let go: a connection has come, has become a relay, or is gone.
    pub fn stir(&self) {
        self.stirs.update(|stirs| stirs + 1);
        if !self.stirring.replace(true) {
            self.stirred.notify_one();
        }
    }

    /// Gives back what a burst of connections needed, once nothing has stirred for a moment: handshakes take more than
    /// connections that stand.
    async fn tidy(self: Rc<Self>) {
        let mut tidied = 0;
        loop {
            self.stirred.notified().await;
            let stirs = loop {
                let stirs = self.stirs.get();
                ring::sleep_until(clock::steady() + LULL).await;
                if self.stirs.get() == stirs {
                    break stirs;
                }
            };
            self.stirring.set(false);
            if stirs - tidied >= BURST {
                tidied = stirs;
                ring::give_back_memory();
            }
        }
    }

    pub fn enter(self: &Rc<Self>, line: Line) -> Entry {
        let line = Rc::new(line);
        let mut lines = self.lines.borrow_mut();
        let key = lines.insert(line.clone());
        self.counters.open.set(lines.len() as u64);
        Entry { line, worker: self.clone(), key }
    }

    pub fn read<T>(&self, take: impl FnOnce(&Snapshot) -> T) -> T {
        self.cell.read(take)
    }

    pub fn timeouts(&self) -> Timeouts {
        self.read(|snapshot| Timeouts {
            handshake: snapshot.settings.handshake_timeout,
            connect: snapshot.settings.connect_timeout,
            idle: snapshot.settings.idle_timeout,
        })
    }

    pub fn configs(&self) -> &Configs {
        &self.configs
    }

    pub fn client_configs(&self) -> &ClientConfigs {
        &self.client_configs
    }

    /// A handshake begins of which something can be computed together with others'; it is under way until the answer
    /// is dropped.
    pub fn begin_handshake(&self) -> UnderWay<'_> {
        let now = clock::of_turn();
        let under_way = self.rush.begin(now);
        let Patience { completions, until } = self.rush.patience(now);
        ring::be_patient(completions, until);
        under_way
    }

    /// What could be computed of it; takes two turns.
    pub async fn compute(&self, wanted: Wanted) -> Ahead {
        self.computations.join(wanted, &self.counters).await
    }

    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    pub fn unique_ids(&self) -> &UniqueIds {
        &self.unique_ids
    }

    /// Whether the connection comes from a network that must send a PROXY header.
    pub fn expects_proxy_header(&self, line: &Line) -> bool {
        self.read(|snapshot| {
            let settings = &snapshot.settings;
            !settings.accept_proxy.is_empty()
                && line
                    .client()
                    .peer_address()
                    .is_some_and(|peer| settings.expects_proxy_header(peer.ip()))
        })
    }

    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The scratch memory, until the next wait.
    pub fn scratch(&self) -> RefMut<'_, Scratch> {
        self.scratch.borrow_mut()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn report(&self, reason: Reason, report: impl FnOnce() -> Report) {
        self.reporter.report(&self.counters, reason, report);
    }

    /// Whether a receive failed only because all buffers are in use; counts it.
    pub fn out_of_buffers(&self, error: &io::Error) -> bool {
        let out = error.raw_os_error() == Some(libc::ENOBUFS);
        if out {
            self.counters.out_of_buffers.add(1);
        }
        out
    }

    pub fn count_hello(&self) {
        self.counters.hellos.add(1);
    }

    pub fn count_handshake(&self, tls: &UnbufferedServerConnection) {
        match tls.handshake_kind() {
            Some(HandshakeKind::Resumed) => self.counters.resumed_handshakes.add(1),
            _ => self.counters.full_handshakes.add(1),
        }
    }
}
