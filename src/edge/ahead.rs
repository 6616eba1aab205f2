//! Computes the public-key operations of handshakes before rustls asks for them, those whose ClientHellos are complete
//! in the same turn together.
//!
//! A connection that has read its hello lets the others that are ready read theirs, and then computes for all. A hello
//! that comes alone, and every hello where the processor cannot ([`crypto`]), is left to aws-lc.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::sync::Notify;

use crate::crypto::x25519::{self, Agreed};
use crate::crypto::{self, Ifma, Nonce};
use crate::observe::counters::Counters;
use crate::ring;

use super::exchange::with_exchange;
use super::limits::MOST_TOGETHER;

/// Fewer are not computed together: all lanes cost as much as one in use. On Zen 4 a key exchange costs aws-lc 32 µs,
/// one alone here 44, and each of two 23; a signature there 15, alone here 26, and each of two 13
/// (perf/results/together.md).
const FEWEST: usize = 2;

/// What a handshake will need.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// The client's public key.
    pub peer: x25519::Bytes,
    /// It signs with a key of P-256.
    pub signs: bool,
}

/// What is there of it.
#[derive(Default)]
pub struct Ahead {
    agreed: Option<Agreed>,
    nonce: Option<Nonce>,
}

impl Ahead {
    /// Runs `work`, in which rustls takes what it needs of this.
    pub fn lend<T>(self, work: impl FnOnce() -> T) -> T {
        crypto::with_nonce(self.nonce, || with_exchange(self.agreed, work))
    }
}

/// The computations of one worker.
pub struct Computations {
    engine: Option<RefCell<Engine>>,
    /// The one that may still be joined.
    next: RefCell<Option<Rc<Computation>>>,
}

/// Computes, for one thread.
pub struct Engine {
    ifma: Ifma,
    x25519: x25519::Engine,
}

/// What is computed at once, for those who wait for it.
#[derive(Default)]
struct Computation {
    wanted: RefCell<Vec<Wanted>>,
    /// As long as `wanted`, once it is over; taken by those who wanted it.
    ahead: RefCell<Vec<Ahead>>,
    is_over: Cell<bool>,
    over: Notify,
}

impl Computations {
    pub fn new() -> Self {
        Self { engine: Engine::new().map(RefCell::new), next: RefCell::default() }
    }

    /// What can be had of `wanted` with others; takes two turns of the ring, in which nothing is waited for.
    pub async fn join(&self, wanted: Wanted, counters: &Counters) -> Ahead {
        let Some(engine) = &self.engine else { return Ahead::default() };
        let joined = self.next.borrow().clone();
        let (computation, place) = match joined {
            Some(computation) => {
                let place = computation.add(wanted);
                if place + 1 == MOST_TOGETHER {
                    self.next.take();
                }
                computation.wait().await;
                (computation, place)
            }
            None => {
                let computation = Rc::new(Computation::default());
                let place = computation.add(wanted);
                self.next.replace(Some(computation.clone()));
                let first = First { computations: self, computation: &computation };
                // Whoever is ready has read its hello after this, and whomever that turn woke after the next.
                ring::next_turn().await;
                ring::next_turn().await;
                first.compute(&mut engine.borrow_mut(), counters);
                (computation, place)
            }
        };
        let mut ahead = computation.ahead.borrow_mut();
        ahead.get_mut(place).map(std::mem::take).unwrap_or_default()
    }
}

impl Computation {
    fn add(&self, wanted: Wanted) -> usize {
        let mut all = self.wanted.borrow_mut();
        all.push(wanted);
        all.len() - 1
    }

    async fn wait(&self) {
        let over = self.over.notified();
        if !self.is_over.get() {
            over.await;
        }
    }
}

/// The connection that computes for all. However it ends, the others do not wait for it any longer.
struct First<'c> {
    computations: &'c Computations,
    computation: &'c Computation,
}

impl First<'_> {
    /// Nobody joins any more. Where there were many, another may have begun to gather.
    fn close(&self) {
        let mut next = self.computations.next.borrow_mut();
        next.take_if(|next| std::ptr::eq(&**next, self.computation));
    }

    fn compute(self, engine: &mut Engine, counters: &Counters) {
        self.close();
        let ahead = engine.compute(&self.computation.wanted.borrow(), counters);
        self.computation.ahead.replace(ahead);
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.close();
        self.computation.is_over.set(true);
        self.computation.over.notify_waiters();
    }
}

impl Engine {
    /// `None` where the processor lacks the instructions. Makes the tables that the process needs if it has none
    /// yet, in a millisecond.
    pub fn new() -> Option<Self> {
        let ifma = Ifma::detect()?;
        crypto::prepare(ifma);
        Some(Self { ifma, x25519: x25519::Engine::new(ifma) })
    }

    /// What there is of each, in the same order.
    pub fn compute(&mut self, wanted: &[Wanted], counters: &Counters) -> Vec<Ahead> {
        let last = wanted.len() % crypto::WIDTH;
        let together = if last < FEWEST { wanted.len() - last } else { wanted.len() };
        let peers: Vec<_> = wanted.iter().take(together).map(|wanted| wanted.peer).collect();
        counters.computations.add(together.div_ceil(crypto::WIDTH) as u64);
        counters.computed_together.add(together as u64);
        let mut agreed = self.x25519.agree(&peers).into_iter();
        let mut unsigned = wanted.iter().filter(|wanted| wanted.signs).count();
        // What nobody needs of them is dropped here: no nonce waits for a handshake that has not begun.
        let mut nonces = Vec::new();
        let ahead = wanted.iter().map(|wanted| {
            let agreed = agreed.next().flatten();
            if !wanted.signs {
                return Ahead { agreed, nonce: None };
            }
            if nonces.is_empty() && unsigned >= FEWEST {
                nonces.extend(crypto::nonces(self.ifma).into_iter().flatten());
            }
            unsigned -= 1;
            Ahead { agreed, nonce: nonces.pop() }
        });
        ahead.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Runtime;
    use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};

    /// Joins `count` at once, and says what each got.
    fn joined(count: usize, signs: bool) -> (Vec<(PrivateKey, Ahead)>, Counters) {
        let computations = Rc::new(Computations::new());
        let counters = Rc::new(Counters::default());
        let results = Rc::new(RefCell::new(Vec::new()));
        let runtime = Runtime::new().expect("io_uring works on this machine");
        runtime.block_on(async {
            let tasks: Vec<_> = (0..count)
                .map(|_| {
                    let (computations, counters) = (computations.clone(), counters.clone());
                    let results = results.clone();
                    ring::spawn(async move {
                        let private = PrivateKey::generate(&X25519).unwrap();
                        let peer = private.compute_public_key().unwrap();
                        let peer = peer.as_ref().try_into().unwrap();
                        let ahead = computations.join(Wanted { peer, signs }, &counters).await;
                        results.borrow_mut().push((private, ahead));
                    })
                })
                .collect();
            while tasks.iter().any(|task| !task.is_finished()) {
                ring::next_turn().await;
            }
        });
        drop(runtime);
        (results.take(), Rc::into_inner(counters).expect("all tasks have ended"))
    }

    #[test]
    fn what_is_computed_together_is_everyones_own() {
        for count in [2, 7, 8, 9, 10, 40, 63, 64, 66, 200] {
            let (results, counters) = joined(count, true);
            if Ifma::detect().is_none() {
                assert_eq!(counters.computations.get(), 0);
                continue;
            }
            // The last one is alone behind eight others.
            let alone = usize::from(count == 9);
            assert_eq!(counters.computed_together.get() as usize, count - alone);
            assert_eq!(results.iter().filter(|(_, ahead)| ahead.agreed.is_none()).count(), alone);
            for (private, ahead) in &results {
                let Some(agreed) = &ahead.agreed else { continue };
                let public = UnparsedPublicKey::new(&X25519, agreed.public);
                let secret = agreement::agree(private, public, (), |secret| Ok(secret.to_vec()));
                assert_eq!(secret, Ok(agreed.secret.to_vec()));
            }
            assert_eq!(results.iter().filter(|(_, ahead)| ahead.nonce.is_none()).count(), alone);
        }
    }

    #[test]
    fn one_alone_is_left_to_aws_lc() {
        let (results, counters) = joined(1, true);
        let (_, ahead) = &results[0];
        assert!(ahead.agreed.is_none() && ahead.nonce.is_none());
        assert_eq!(counters.computations.get(), 0);
    }

    #[test]
    fn nonces_are_made_for_those_who_sign() {
        let (results, _) = joined(8, false);
        assert!(results.iter().all(|(_, ahead)| ahead.nonce.is_none()));
    }

    #[test]
    fn nobody_waits_for_a_first_that_is_gone() {
        Runtime::new().expect("io_uring works on this machine").block_on(async {
            let computations = Rc::new(Computations::new());
            let wanted = Wanted { peer: [9; 32], signs: false };
            let counters = Rc::new(Counters::default());
            let mut first = Box::pin(computations.join(wanted, &counters));
            // It has begun, and never goes on.
            tokio::select! {
                biased;
                _ = &mut first => {}
                () = std::future::ready(()) => {}
            }
            let (theirs, counted) = (computations.clone(), counters.clone());
            let second = ring::spawn(async move {
                theirs.join(wanted, &counted).await;
            });
            for _ in 0..5 {
                ring::next_turn().await;
            }
            // Where nothing can be computed, nobody waits.
            assert_eq!(second.is_finished(), Ifma::detect().is_none());
            drop(first);
            ring::next_turn().await;
            ring::next_turn().await;
            assert!(second.is_finished());
        });
    }
}
