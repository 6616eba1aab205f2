//! The tasks of one thread, and the queue of those that may go on.
//!
//! A task is woken by its own thread, but for orders of the process: then its number goes into a channel, and a
//! bell that the ring waits for is rung.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;

use super::driver;

/// The number of the future that the runtime was started with.
const ROOT: usize = usize::MAX;

thread_local! {
    static TASKS: Tasks = const {
        Tasks { lives: RefCell::new(Slab::new()), ready: RefCell::new(VecDeque::new()) }
    };
}

struct Tasks {
    /// `None` while it runs.
    lives: RefCell<Slab<Option<Life>>>,
    ready: RefCell<VecDeque<usize>>,
}

struct Life {
    future: Pin<Box<dyn Future<Output = ()>>>,
    call: Arc<Call>,
    waker: Waker,
}

/// Wakes one task.
struct Call {
    key: usize,
    queued: AtomicBool,
    ended: AtomicBool,
    bell: Arc<Bell>,
}

/// How other threads wake tasks of this one.
struct Bell {
    /// Which thread this is, by the address of what only it can see.
    home: usize,
    keys: Sender<usize>,
    event: OwnedFd,
}

impl Bell {
    fn is_home(&self) -> bool {
        TASKS.try_with(|tasks| address(tasks) == self.home).unwrap_or(false)
    }
}

fn address(tasks: &Tasks) -> usize {
    std::ptr::from_ref(tasks) as usize
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.bell.is_home() {
            TASKS.with(|tasks| tasks.ready.borrow_mut().push_back(self.key));
        } else if self.bell.keys.send(self.key).is_ok() {
            // It fails only if the counter is full, and then the bell rings already.
            let _ = rustix::io::write(&self.bell.event, &1u64.to_ne_bytes());
        }
    }
}

/// A task that was spawned.
pub struct Task {
    call: Arc<Call>,
}

impl Task {
    /// Whether it has run to its end. (One that panicked has.)
    pub fn is_finished(&self) -> bool {
        self.call.ended.load(Ordering::Acquire)
    }
}

thread_local! {
    static BELL: RefCell<Option<Arc<Bell>>> = const { RefCell::new(None) };
}

/// Runs `future` as a task of this thread's runtime. One that panics ends alone.
#[expect(clippy::expect_used, reason = "only tasks spawn, and only a runtime runs them")]
pub fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    let bell = BELL.with_borrow(Clone::clone).expect("a thread with a runtime");
    TASKS.with(|tasks| {
        let mut lives = tasks.lives.borrow_mut();
        let place = lives.vacant_entry();
        let call = Arc::new(Call {
            key: place.key(),
            queued: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            bell,
        });
        tasks.ready.borrow_mut().push_back(call.key);
        let waker = Waker::from(call.clone());
        place.insert(Some(Life { future: Box::pin(future), call: call.clone(), waker }));
        Task { call }
    })
}

/// Lets every other task that is ready run, and the ring turn once.
pub async fn next_turn() {
    let mut turned = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut turned, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// This thread's end of its bell.
pub(super) struct Home {
    bell: Arc<Bell>,
    keys: Receiver<usize>,
}

impl Home {
    pub(super) fn new() -> io::Result<Self> {
        let (sender, keys) = channel();
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let bell = Arc::new(Bell { home: TASKS.with(address), keys: sender, event });
        BELL.set(Some(bell.clone()));
        driver::watch_bell(bell.event.as_raw_fd());
        Ok(Self { bell, keys })
    }

    /// Another thread rang: whom it means may go on.
    pub(super) fn answer(&self) {
        let mut count = [0; 8];
        // Silence first: who rings after this is heard by the next turn.
        let _ = rustix::io::read(&self.bell.event, &mut count);
        TASKS.with(|tasks| tasks.ready.borrow_mut().extend(self.keys.try_iter()));
        driver::watch_bell(self.bell.event.as_raw_fd());
    }

    /// Drops all tasks, wherever they are.
    pub(super) fn drop_tasks(&self) {
        BELL.set(None);
        // Dropped outside the borrow: what ends may wake others.
        let lives = TASKS.with(|tasks| tasks.lives.take());
        drop(lives);
        TASKS.with(|tasks| tasks.ready.borrow_mut().clear());
    }

    /// The waker of the future that the runtime was started with.
    pub(super) fn root(&self) -> Root {
        let call = Arc::new(Call {
            key: ROOT,
            queued: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            bell: self.bell.clone(),
        });
        TASKS.with(|tasks| tasks.ready.borrow_mut().push_back(ROOT));
        Root { waker: Waker::from(call.clone()), call }
    }
}

pub(super) struct Root {
    call: Arc<Call>,
    waker: Waker,
}

impl Root {
    /// Runs every task that is ready, once, and `root` if it is; what becomes ready meanwhile is for the
    /// next turn.
    pub(super) fn run<F: Future>(&self, mut root: Pin<&mut F>) -> Option<F::Output> {
        let ready = TASKS.with(|tasks| tasks.ready.borrow().len());
        for _ in 0..ready {
            let key = TASKS.with(|tasks| tasks.ready.borrow_mut().pop_front())?;
            if key != ROOT {
                run(key);
                continue;
            }
            self.call.queued.swap(false, Ordering::AcqRel);
            let mut context = Context::from_waker(&self.waker);
            if let Poll::Ready(output) = root.as_mut().poll(&mut context) {
                return Some(output);
            }
        }
        None
    }
}

/// Whether nothing is left to run before something completes.
pub(super) fn all_wait() -> bool {
    TASKS.with(|tasks| tasks.ready.borrow().is_empty())
}

fn run(key: usize) {
    // A wake-up may come after the end of its task, and for its successor in the same place too.
    let life = TASKS.with(|tasks| tasks.lives.borrow_mut().get_mut(key).and_then(Option::take));
    let Some(Life { mut future, call, waker }) = life else { return };
    // Whoever wakes it from here on is heard; what whoever did so before has done is seen.
    call.queued.swap(false, Ordering::AcqRel);
    let mut context = Context::from_waker(&waker);
    // A panic is the end of one connection, not of its worker; the panic hook has said where it was.
    let left = catch_unwind(AssertUnwindSafe(|| match future.as_mut().poll(&mut context) {
        Poll::Pending => Some(future),
        Poll::Ready(()) => {
            drop(future);
            None
        }
    }));
    TASKS.with(|tasks| {
        let mut lives = tasks.lives.borrow_mut();
        if let Ok(Some(future)) = left {
            if let Some(place) = lives.get_mut(key) {
                *place = Some(Life { future, call, waker });
            }
        } else {
            lives.try_remove(key);
            call.ended.store(true, Ordering::Release);
        }
    });
}
