//! Runs the life of a connection against its line's deadline, with one timer for all of it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use crate::clock;
use crate::ring::{Sleep, sleep_until};

use super::line::Line;

pin_project! {
    /// Polls `life`; when the line's deadline passes, the line interrupts the present wait, and `life` is
    /// polled on until it has seen its operations complete: a wait is ended, never abandoned.
    ///
    /// A deadline that moves away costs nothing: the timer is set again when it fires.
    pub struct Timed<'l, F> {
        line: &'l Line,
        #[pin]
        life: F,
        timer: Sleep,
    }
}

impl<'l, F: Future> Timed<'l, F> {
    pub fn new(line: &'l Line, life: F) -> Self {
        Self { line, life, timer: sleep_until(line.deadline()) }
    }
}

impl<F: Future> Future for Timed<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.line.watched_by(context.waker());
        if let Poll::Ready(output) = this.life.poll(context) {
            return Poll::Ready(output);
        }
        loop {
            let deadline = this.line.deadline();
            if deadline < this.timer.deadline() {
                this.timer.reset(deadline);
            }
            ready!(Pin::new(&mut *this.timer).poll(context));
            let now = clock::steady();
            if this.line.deadline() <= now {
                this.line.on_deadline(now);
            }
            this.timer.reset(this.line.deadline());
        }
    }
}
