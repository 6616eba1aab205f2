//! The deadlines that tasks of one thread wait for: a sorted list of them, and one timeout in the ring.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::clock;

use super::driver;

thread_local! {
    static TIMERS: RefCell<Option<Timers>> = const { RefCell::new(None) };
}

struct Timers {
    /// By deadline; the number tells equal ones apart.
    waiting: BTreeMap<(Instant, u64), Waker>,
    next_number: u64,
    /// Everything up to here has been woken.
    passed: Instant,
    /// What the ring has been asked to tell.
    asked: Option<Instant>,
}

/// Waits until `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, number: None, not_send: PhantomData }
}

/// A wait for a deadline. It belongs to the task that polls it first.
pub struct Sleep {
    deadline: Instant,
    /// In the list of its thread, unless the deadline has passed.
    number: Option<u64>,
    not_send: PhantomData<Rc<()>>,
}

impl Sleep {
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits for another deadline instead.
    pub fn reset(&mut self, deadline: Instant) {
        self.leave();
        self.deadline = deadline;
    }

    fn leave(&mut self) {
        if let Some(number) = self.number.take() {
            TIMERS.with_borrow_mut(|timers| {
                timers.as_mut().and_then(|timers| timers.waiting.remove(&(self.deadline, number)))
            });
        }
    }
}

impl Future for Sleep {
    type Output = ();

    #[expect(clippy::expect_used, reason = "only a runtime's tasks sleep")]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        TIMERS.with_borrow_mut(|timers| {
            let timers = timers.as_mut().expect("a thread with a runtime");
            if self.deadline <= timers.passed {
                self.number = None;
                return Poll::Ready(());
            }
            if self.number.is_none() {
                timers.next_number += 1;
                self.number = Some(timers.next_number);
                let key = (self.deadline, timers.next_number);
                timers.waiting.insert(key, context.waker().clone());
            }
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Begins with no deadlines.
pub(super) fn open() {
    TIMERS.set(Some(Timers {
        waiting: BTreeMap::new(),
        next_number: 0,
        passed: clock::steady(),
        asked: None,
    }));
}

pub(super) fn close() {
    TIMERS.set(None);
}

/// Before the ring waits: asks it to tell the nearest deadline, unless it will tell an earlier one anyway.
/// (Then that one turns out to be nobody's any more, and this asks again: most deadlines move away or are
/// given up, which thus costs nothing.)
pub(super) fn ask() {
    TIMERS.with_borrow_mut(|timers| {
        let Some(timers) = timers else { return };
        let Some((&(nearest, _), _)) = timers.waiting.first_key_value() else { return };
        if timers.asked.is_none_or(|asked| nearest < asked) {
            let span = nearest.saturating_duration_since(clock::steady());
            driver::watch_deadline(span, timers.asked.is_some());
            timers.asked = Some(nearest);
        }
    });
}

/// The ring has told a deadline: wakes who waits for it.
pub(super) fn tell() {
    loop {
        let due = TIMERS.with_borrow_mut(|timers| {
            let timers = timers.as_mut()?;
            timers.asked = None;
            timers.passed = clock::steady();
            let entry = timers.waiting.first_entry()?;
            (entry.key().0 <= timers.passed).then(|| entry.remove())
        });
        // Woken outside the borrow.
        let Some(waker) = due else { return };
        waker.wake();
    }
}
