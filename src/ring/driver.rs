//! The ring of one thread: what is to be submitted, what is in flight, and who waits for it.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

use crate::clock;

/// Submissions that wait for one turn; more are submitted early, which costs a system call. The kernel
/// makes the completion queue twice as large and keeps what overflows.
const ENTRIES: u32 = 1024;

/// How long a patient wait lasts at most once something has completed.
const PATIENCE_MICROS: u32 = 200;

/// What completes without belonging to an operation: the bell of `tasks.rs`, the nearest deadline of
/// `timers.rs`, and what nobody asks for. Operations are numbered from 0 and never reach these.
const BELL: u64 = u64::MAX;
const NEAREST_DEADLINE: u64 = u64::MAX - 1;
const NOBODYS: u64 = u64::MAX - 2;

thread_local! {
    static DRIVER: RefCell<Option<Driver>> = const { RefCell::new(None) };
}

/// What the kernel said of an operation.
#[derive(Clone, Copy)]
pub(super) struct Completion {
    result: i32,
    flags: u32,
}

impl Completion {
    /// The number that the system call would have returned.
    pub(super) fn outcome(self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }

    /// Which buffer the kernel picked, if it did.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

enum State {
    /// In flight; nobody has asked for it yet.
    Submitted,
    Awaited(Waker),
    Completed(Completion),
    /// In flight; its future is gone. What the kernel may still touch lives on in here.
    Abandoned(Box<dyn FnOnce(Completion)>),
}

struct Driver {
    ring: IoUring,
    operations: Slab<State>,
    /// The nearest deadline, as the kernel reads it when it is submitted: at an address that stays.
    timeout: Box<types::Timespec>,
    /// What was reaped besides, and not yet told.
    turned: Turned,
    enter_flags: EnterFlags,
    /// The kernel can be told to wait for several completions but not for long.
    can_be_patient: bool,
    /// For how many completions a wait that begins before the second moment waits.
    patience: Option<(u32, Instant)>,
}

/// Makes the ring of this thread, which has none yet and alone may use it.
pub(super) fn open() -> io::Result<()> {
    if DRIVER.with_borrow(Option::is_some) {
        return Err(io::Error::other("this thread has a ring already"));
    }
    let ring = IoUring::builder()
        // Completions are worked out when this thread asks for them, not by interrupting it
        // (perf/results/own-loop.md); that needs the promise that nobody else submits. Kernel 6.1.
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .build(ENTRIES)?;
    let mut enter_flags = EnterFlags::GETEVENTS;
    if ring.params().is_feature_no_iowait() {
        // Waiting for clients is no waiting for a disk: without this an idle machine shows iowait and I/O
        // pressure. Older kernels (before 6.15) know no such flag.
        enter_flags |= EnterFlags::NO_IOWAIT;
    }
    let driver = Driver {
        operations: Slab::new(),
        timeout: Box::default(),
        turned: Turned::default(),
        enter_flags,
        // Kernel 6.12.
        can_be_patient: ring.params().is_feature_min_timeout(),
        patience: None,
        ring,
    };
    DRIVER.set(Some(driver));
    Ok(())
}

/// Lets go of the ring of this thread. What operations in flight own is never freed: the kernel ends them
/// in its own time, and may write until then.
pub(super) fn close() {
    if let Some(Driver { ring, operations, timeout, .. }) = DRIVER.take() {
        std::mem::forget((operations, timeout));
        drop(ring);
    }
}

/// Calls `with` with the ring, to register something.
pub(super) fn register<T>(with: impl FnOnce(io_uring::Submitter<'_>) -> T) -> T {
    with_driver(|driver| with(driver.ring.submitter()))
}

#[expect(clippy::expect_used, reason = "operations are made by tasks, which only a runtime runs")]
fn with_driver<T>(work: impl FnOnce(&mut Driver) -> T) -> T {
    DRIVER.with_borrow_mut(|driver| work(driver.as_mut().expect("a thread with a ring")))
}

/// An operation in flight. Dropping it does not end the operation, it only gives the outcome up: whoever
/// needs it gone cancels it, then awaits it.
pub struct InFlight<D: Unpin + 'static, O: 'static> {
    key: usize,
    /// What the kernel may read and write, until it is done.
    data: Option<D>,
    finish: fn(D, Completion) -> O,
}

/// Puts `entry` on the ring of this thread; `finish` turns its completion into an outcome.
///
/// # Safety
/// Every address in `entry` must point into heap memory owned by `data`, or into memory that outlives
/// the ring: `data` may be moved, and lives until the kernel has completed the operation. It must be one
/// that completes once.
pub(super) unsafe fn submit<D: Unpin + 'static, O: 'static>(
    data: D,
    finish: fn(D, Completion) -> O,
    entry: squeue::Entry,
) -> InFlight<D, O> {
    let key = with_driver(|driver| {
        let key = driver.operations.insert(State::Submitted);
        driver.push(entry.user_data(key as u64));
        key
    });
    InFlight { key, data: Some(data), finish }
}

impl<D: Unpin, O> Future for InFlight<D, O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O> {
        let key = self.key;
        // Its number may be another's by now.
        assert!(self.data.is_some(), "an operation completes once");
        let Some(completion) = with_driver(|driver| driver.poll(key, context.waker())) else {
            return Poll::Pending;
        };
        match self.data.take() {
            Some(data) => Poll::Ready((self.finish)(data, completion)),
            None => Poll::Pending,
        }
    }
}

impl<D: Unpin, O> Drop for InFlight<D, O> {
    fn drop(&mut self) {
        let Some(data) = self.data.take() else { return };
        let finish = self.finish;
        DRIVER.with_borrow_mut(|driver| match driver {
            // Its outcome is taken all the same, and dropped: a descriptor is closed, a buffer given back.
            Some(driver) => {
                driver.abandon(self.key, Box::new(move |completion| drop(finish(data, completion))))
            }
            // The ring is gone, but not what the kernel has begun.
            None => std::mem::forget(data),
        });
    }
}

/// What a turn of the ring brought that is not an operation's.
#[derive(Default)]
pub(super) struct Turned {
    /// Another thread rang.
    pub(super) bell: bool,
    /// The nearest deadline has passed.
    pub(super) deadline: bool,
}

/// Submits what is to be submitted and takes what has completed. `wait`: sleeps until something has.
pub(super) fn turn(wait: bool) -> Turned {
    with_driver(|driver| {
        // What a full queue has brought meanwhile is news already, and nothing else may come.
        driver.enter(wait && !driver.turned.bell && !driver.turned.deadline);
        driver.reap();
        std::mem::take(&mut driver.turned)
    })
}

/// Lets waits that begin before `until` last until so many operations have completed, or for 200 µs; a worker
/// that has much to do then is woken less often. Whatever has completed is told after that time, and if nothing has,
/// then the first that does.
pub fn be_patient(completions: u32, until: Instant) {
    with_driver(|driver| {
        driver.patience =
            Some((completions, until)).filter(|_| driver.can_be_patient && completions > 1)
    });
}

/// Asks to be told once when `fd` is readable.
pub(super) fn watch_bell(fd: RawFd) {
    with_driver(|driver| {
        let entry = opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build();
        driver.push(entry.user_data(BELL));
    });
}

/// Asks to be told in `span`. `moved`: the last request has not been answered, and is moved.
pub(super) fn watch_deadline(span: std::time::Duration, moved: bool) {
    with_driver(|driver| {
        *driver.timeout = span.into();
        let at = &raw const *driver.timeout;
        driver.push(match moved {
            false => opcode::Timeout::new(at).build().user_data(NEAREST_DEADLINE),
            // If it has just passed, there is nothing to move, and it is told as always.
            true => opcode::TimeoutUpdate::new(NEAREST_DEADLINE, at).build().user_data(NOBODYS),
        });
    });
}

impl Driver {
    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: `submit` has its caller's promise about addresses; of our own entries only the timeouts'
        // hold one, and that is read when they are submitted.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // Full: the kernel takes what is there, unless what has completed must be taken first.
            self.enter(false);
            self.reap();
        }
    }

    fn enter(&mut self, wait: bool) {
        let to_submit = u32::try_from(self.ring.submission().len()).unwrap_or(ENTRIES);
        match self.call(to_submit, wait) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN)) => {
                // No memory for more, or completions have to be taken first. What has been submitted is
                // worked on by a call that submits nothing, and gives memory back.
                let _ = self.call(0, false);
            }
            // A signal, or the end of a patient wait.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ETIME)) => {}
            // Nothing would ever complete again.
            Err(error) => panic!("the kernel does not let this thread use its ring: {error}"),
            Ok(_) => {}
        }
    }

    fn call(&mut self, to_submit: u32, wait: bool) -> io::Result<usize> {
        if wait && let Some((completions, until)) = self.patience {
            if clock::of_turn() < until {
                return self.wait_patiently(completions);
            }
            self.patience = None;
        }
        let (submitter, flags) = (self.ring.submitter(), self.enter_flags.bits());
        // SAFETY: without extended arguments the kernel reads nothing but the queue.
        unsafe { submitter.enter::<libc::sigset_t>(to_submit, u32::from(wait), flags, None) }
    }

    fn wait_patiently(&self, completions: u32) -> io::Result<usize> {
        // Without an end of its own the wait would end with the patience.
        const END: types::Timespec = types::Timespec::new().sec(3600);
        let arguments = types::SubmitArgs::new().timespec(&END).min_wait_usec(PATIENCE_MICROS);
        let flags = self.enter_flags & EnterFlags::NO_IOWAIT;
        self.ring.submitter().submit_with_args_and_flags(completions as usize, &arguments, flags)
    }

    fn reap(&mut self) {
        let Self { ring, operations, turned, .. } = self;
        for entry in ring.completion() {
            match entry.user_data() {
                BELL => turned.bell = true,
                NEAREST_DEADLINE => turned.deadline = true,
                NOBODYS => {}
                key => {
                    let completion = Completion { result: entry.result(), flags: entry.flags() };
                    complete(operations, key as usize, completion);
                }
            }
        }
    }

    fn poll(&mut self, key: usize, waker: &Waker) -> Option<Completion> {
        match self.operations.get_mut(key) {
            Some(State::Completed(completion)) => {
                let completion = *completion;
                self.operations.remove(key);
                return Some(completion);
            }
            Some(State::Awaited(known)) if known.will_wake(waker) => {}
            Some(state) => *state = State::Awaited(waker.clone()),
            None => {}
        }
        None
    }

    fn abandon(&mut self, key: usize, finish: Box<dyn FnOnce(Completion)>) {
        match self.operations.get_mut(key) {
            Some(State::Completed(completion)) => {
                let completion = *completion;
                self.operations.remove(key);
                finish(completion);
            }
            Some(state) => *state = State::Abandoned(finish),
            None => {}
        }
    }
}

fn complete(operations: &mut Slab<State>, key: usize, completion: Completion) {
    let Some(state) = operations.get_mut(key) else { return };
    match std::mem::replace(state, State::Completed(completion)) {
        State::Submitted | State::Completed(_) => {}
        State::Awaited(waker) => waker.wake(),
        State::Abandoned(finish) => {
            operations.remove(key);
            finish(completion);
        }
    }
}
