//! What of a connection can be reached from outside its task: its sockets, its deadline, its end.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::observe::names::Reason;
use crate::ring::{self, Socket};

use super::limits::CLOSING;
use super::proxy_protocol::Addresses;

/// How far the connection is, which decides how it can be interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the ClientHello and shaking hands.
    Handshake,
    /// Connecting to an endpoint, and shaking hands with it if it speaks TLS.
    Connecting,
    /// Moving bytes.
    Relaying,
    /// Only the end is left.
    Closing,
}

/// One connection, as its deadline and the draining worker see it.
pub struct Line {
    client: Socket,
    /// What a PROXY header said. Boxed: most connections have none.
    proxied: OnceCell<Box<Addresses>>,
    upstream: RefCell<Option<Socket>>,
    stage: Cell<Stage>,
    deadline: Cell<Instant>,
    interrupted: Cell<Option<Reason>>,
    upstream_may_end: Cell<bool>,
    /// Of the task: a deadline that comes nearer from outside has to be looked at.
    waker: RefCell<Option<Waker>>,
}

impl Line {
    pub fn new(client: Socket, deadline: Instant) -> Self {
        Self {
            client,
            proxied: OnceCell::new(),
            upstream: RefCell::default(),
            stage: Cell::new(Stage::Handshake),
            deadline: Cell::new(deadline),
            interrupted: Cell::default(),
            upstream_may_end: Cell::default(),
            waker: RefCell::default(),
        }
    }

    pub fn client(&self) -> &Socket {
        &self.client
    }

    /// Notes who the client is, as a trusted proxy has it.
    pub fn set_proxied(&self, addresses: Addresses) {
        // A connection has one header.
        let _ = self.proxied.set(Box::new(addresses));
    }

    /// Who connected to which address: by the PROXY header, else by the socket.
    pub fn addresses(&self) -> Option<Addresses> {
        if let Some(proxied) = self.proxied.get() {
            return Some(**proxied);
        }
        Some(Addresses {
            source: self.client.peer_address()?,
            destination: self.client.local_address()?,
        })
    }

    /// The client's address, for the log.
    pub fn source(&self) -> Option<SocketAddr> {
        self.proxied.get().map_or_else(|| self.client.peer_address(), |known| Some(known.source))
    }

    /// The address that the client connected to.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.proxied
            .get()
            .map_or_else(|| self.client.local_address(), |known| Some(known.destination))
    }

    /// When the present wait ends.
    pub fn deadline(&self) -> Instant {
        self.deadline.get()
    }

    /// Why the connection is being ended from outside, if it is.
    pub fn interrupted(&self) -> Option<Reason> {
        self.interrupted.get()
    }

    /// Notes whom to wake when the deadline comes nearer.
    pub fn watched_by(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        // A task has one waker all its life, so this is set once.
        if known.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Enters a stage; an interruption stays one.
    pub fn enter(&self, stage: Stage, deadline: Instant) {
        if self.stage.get() != Stage::Closing {
            self.stage.set(stage);
            self.deadline.set(deadline);
        }
    }

    /// Enters [`Stage::Connecting`] with the socket to interrupt.
    pub fn connecting(&self, upstream: Socket, deadline: Instant) {
        *self.upstream.borrow_mut() = Some(upstream);
        self.enter(Stage::Connecting, deadline);
    }

    /// Something moved: the deadline starts again.
    pub fn touch(&self, now: Instant, timeout: Duration) {
        if self.stage.get() == Stage::Relaying {
            self.deadline.set(now + timeout);
        }
    }

    /// The deadline has passed: ends the present wait. The task stays and sees its operations complete.
    pub fn on_deadline(&self, now: Instant) {
        match self.stage.get() {
            Stage::Handshake => self.interrupt(Reason::HandshakeTimeout, now),
            Stage::Connecting => {
                // Only this endpoint took too long: the dial goes on with another.
                self.cancel_connect();
                self.deadline.set(now + CLOSING);
            }
            Stage::Relaying => self.interrupt(Reason::Idle, now),
            Stage::Closing => {
                self.cut();
                self.deadline.set(now + CLOSING);
            }
        }
    }

    /// Ends the connection as orderly as its stage allows; what does not end within [`CLOSING`] is cut.
    pub fn interrupt(&self, reason: Reason, now: Instant) {
        if self.interrupted.get().is_none() {
            self.interrupted.set(Some(reason));
        }
        match self.stage.replace(Stage::Closing) {
            Stage::Handshake => self.client.interrupt(),
            Stage::Connecting => self.cancel_connect(),
            Stage::Relaying => {
                // Both directions read an end, so the client gets its close_notify.
                self.client.stop_receiving();
                if let Some(upstream) = &*self.upstream.borrow() {
                    upstream.stop_receiving();
                }
            }
            Stage::Closing => {}
        }
        self.deadline.set(now + CLOSING);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// From here on the upstream may take the end of the connection for the end of what it was sent.
    pub fn upstream_may_end(&self) {
        self.upstream_may_end.set(true);
    }

    /// Ends every wait on both sockets. The client sees an end without close_notify.
    pub fn cut(&self) {
        self.client.interrupt();
        self.cut_upstream();
    }

    /// Ends every wait on the upstream's socket. It sees a reset, unless it may take an end for one. (A Unix
    /// socket knows no reset: there it sees an end all the same.)
    pub fn cut_upstream(&self) {
        if let Some(upstream) = &*self.upstream.borrow() {
            match self.upstream_may_end.get() {
                true => upstream.interrupt(),
                false => upstream.abort(),
            }
        }
    }

    fn cancel_connect(&self) {
        // shutdown(2) does not end a connect; the ring can. The dial awaits the outcome.
        if let Some(upstream) = &*self.upstream.borrow() {
            drop(ring::cancel(upstream));
        }
    }
}
