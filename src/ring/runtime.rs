//! Runs the tasks of one thread: all that are ready, then a turn of the ring, over and over.
//!
//! Each turn is one system call, which submits, waits and takes what has completed.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::clock;

use super::buffers::Buffers;
use super::tasks::Home;
use super::{driver, tasks, timers};

/// The runtime of one thread: its ring, its tasks, its deadlines, and buffers registered with the ring.
pub struct Runtime {
    home: Home,
    buffers: Buffers,
    /// All of it lives in the thread.
    not_send: PhantomData<Rc<()>>,
}

impl Runtime {
    /// Makes the runtime of the calling thread, which has none yet.
    ///
    /// # Errors
    /// What the kernel said; [`super::probe`] turns it into words.
    pub fn new() -> io::Result<Self> {
        driver::open()?;
        timers::open();
        let made = Buffers::register().and_then(|buffers| Ok((buffers, Home::new()?)));
        match made {
            Ok((buffers, home)) => Ok(Self { home, buffers, not_send: PhantomData }),
            Err(error) => {
                driver::close();
                Err(error)
            }
        }
    }

    pub fn buffers(&self) -> Buffers {
        self.buffers.clone()
    }

    /// Runs `future` to its end, and meanwhile every task that is spawned.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let root = self.home.root();
        loop {
            if let Some(output) = root.run(future.as_mut()) {
                return output;
            }
            timers::ask();
            let turned = driver::turn(tasks::all_wait());
            clock::begin_turn();
            if turned.deadline {
                timers::tell();
            }
            if turned.bell {
                self.home.answer();
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Tasks first: what they have in flight is the driver's to keep.
        self.home.drop_tasks();
        timers::close();
        driver::close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::super::{Socket, be_patient, cancel, receive, sleep_until, spawn};

    fn runtime() -> Runtime {
        Runtime::new().expect("io_uring works on this machine")
    }

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        (Socket::new(ours.into()), theirs)
    }

    #[test]
    fn a_ring_with_buffers_can_be_made_and_used() {
        let runtime = runtime();
        runtime.block_on(async {
            let (socket, theirs) = pair();
            let buffers = runtime.buffers();
            for round in 0..1000u32 {
                (&theirs).write_all(&round.to_be_bytes()).expect("the pair is open");
                let buffer = receive(&socket, &buffers).await.expect("bytes arrive");
                assert_eq!(buffer.as_deref(), Some(&round.to_be_bytes()[..]));
            }
            drop(theirs);
            assert!(receive(&socket, &buffers).await.expect("the end").is_none());
        });
    }

    #[test]
    fn a_receive_that_is_given_up_costs_no_buffer() {
        let runtime = runtime();
        runtime.block_on(async {
            let buffers = runtime.buffers();
            // Four times as many as there are buffers.
            for _ in 0..1024 {
                let (socket, theirs) = pair();
                drop(receive(&socket, &buffers));
                (&theirs).write_all(b"late").expect("the pair is open");
                cancel(&socket).await.expect("the receive is over");
            }
            let (socket, theirs) = pair();
            (&theirs).write_all(b"bytes").expect("the pair is open");
            let buffer = receive(&socket, &buffers).await.expect("there is a buffer");
            assert_eq!(buffer.as_deref(), Some(&b"bytes"[..]));
        });
    }

    #[test]
    fn deadlines_pass_in_their_order_also_when_they_are_moved() {
        runtime().block_on(async {
            let begun = clock::steady();
            let passed = Rc::new(Cell::new(0));
            let late = passed.clone();
            let task = spawn(async move {
                sleep_until(begun + Duration::from_millis(40)).await;
                assert_eq!(late.replace(2), 1);
            });
            let mut moved = sleep_until(begun + Duration::from_secs(3600));
            moved.reset(begun + Duration::from_millis(20));
            // Never polled, and polled once and given up: neither is in the way.
            drop(sleep_until(begun + Duration::from_millis(1)));
            tokio::select! {
                biased;
                () = sleep_until(begun + Duration::from_secs(3600)) => unreachable!("an hour"),
                () = moved => assert_eq!(passed.replace(1), 0),
            }
            assert!(clock::steady() >= begun + Duration::from_millis(20));
            while !task.is_finished() {
                sleep_until(clock::steady() + Duration::from_millis(1)).await;
            }
            assert_eq!(passed.get(), 2);
            assert!(clock::steady() >= begun + Duration::from_millis(40));
        });
    }

    #[test]
    fn a_patient_wait_ends_with_fewer_completions_than_it_waits_for() {
        let (asks, asked) = std::sync::mpsc::channel();
        let (socket, theirs) = pair();
        let peer = std::thread::spawn(move || {
            // The first byte comes while the wait may last, the second long after that: nothing is ever sent here.
            theirs.set_read_timeout(Some(Duration::from_millis(5))).expect("a span");
            for late in [false, true] {
                asked.recv().expect("the test goes on");
                assert!(!late || (&theirs).read(&mut [0]).is_err());
                (&theirs).write_all(b"!").expect("the pair is open");
            }
            theirs
        });
        let runtime = runtime();
        runtime.block_on(async {
            let buffers = runtime.buffers();
            be_patient(16, clock::steady() + Duration::from_secs(3600));
            for _ in 0..2 {
                asks.send(()).expect("the peer waits");
                let received = receive(&socket, &buffers).await.expect("bytes arrive");
                assert_eq!(received.as_deref(), Some(&b"!"[..]));
            }
            sleep_until(clock::steady() + Duration::from_millis(1)).await;
        });
        peer.join().expect("no panic");
    }

    #[test]
    fn a_patient_wait_does_not_end_while_there_is_nothing() {
        let _runtime = runtime();
        // The bell's watch and whatever else a start submits.
        driver::turn(false);
        be_patient(16, clock::steady() + Duration::from_secs(3600));
        driver::watch_deadline(Duration::from_millis(20), false);
        let turns =
            std::iter::repeat_with(|| driver::turn(true)).take_while(|turned| !turned.deadline);
        assert!(turns.take(20).count() < 20, "it woke each time that its patience was over");
    }

    #[test]
    fn a_task_that_panics_ends_alone() {
        runtime().block_on(async {
            let task = spawn(async { panic!("as a bug would") });
            while !task.is_finished() {
                super::super::next_turn().await;
            }
        });
    }

    #[test]
    fn another_thread_wakes_a_task_that_sleeps_in_the_ring() {
        let (orders, mut received) = tokio::sync::mpsc::unbounded_channel();
        let (answers, answered) = std::sync::mpsc::channel();
        let worker = std::thread::spawn(move || {
            runtime().block_on(async move {
                while let Some(order) = received.recv().await {
                    answers.send(order).expect("the test waits");
                }
            });
        });
        for order in 0..1000 {
            orders.send(order).expect("the worker runs");
            assert_eq!(answered.recv().expect("the worker was woken"), order);
        }
        drop(orders);
        worker.join().expect("it ends when nobody can order any more");
    }
}
