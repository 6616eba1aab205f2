//! When the operations of an open loop begin: at a given rate, whatever the server does.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// The schedule that the clients of a run share.
pub struct Pacer {
    begun: Instant,
    rate: f64,
    next: Cell<u64>,
}

impl Pacer {
    pub fn new(begun: Instant, rate: f64) -> Self {
        Self { begun, rate, next: Cell::new(0) }
    }

    /// The moment at which the next operation is due. It may have passed: then all clients were busy,
    /// and the operation's latency counts from it all the same.
    pub fn next(&self) -> Instant {
        let number = self.next.replace(self.next.get() + 1);
        self.begun + Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// A clock that wakes one client. tokio's timer counts milliseconds, many operations long; the kernel's is
/// exact to some ten microseconds.
pub struct Alarm(AsyncFd<OwnedFd>);

impl Alarm {
    #[expect(
        deprecated,
        reason = "its successor is unsafe to call; an OwnedFd is the same descriptor for all its life"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Waits until `due`.
    pub async fn wait_until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let at =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?)) {
                Ok(read) => return read.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_due_at_the_rate_however_late_they_are_taken() {
        let begun = Instant::now();
        let pacer = Pacer::new(begun, 4.0);
        let due: Vec<_> = (0..3).map(|_| pacer.next() - begun).collect();
        assert_eq!(due, [0, 250, 500].map(Duration::from_millis));
    }

    #[test]
    fn an_alarm_never_rings_early() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let alarm = Alarm::new().unwrap();
            for micros in [0, 1, 300, 2_000] {
                let due = Instant::now() + Duration::from_micros(micros);
                alarm.wait_until(due).await.unwrap();
                assert!(Instant::now() >= due);
            }
        });
    }
}
