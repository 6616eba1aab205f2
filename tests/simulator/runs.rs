//! Many seeds over all cores, with a progress bar.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use ringgate::control::autocert::simulated::Mutant;

use crate::checker::Broken;
use crate::histogram::Histogram;
use crate::weather::Story;
use crate::world::{self, Outcome};

/// Where nobody sees a bar, so many seeds are a line.
const SAID_EVERY: u64 = 250;

/// Seeds to run.
pub struct Runs {
    first: u64,
    seeds: u64,
    length: Duration,
    mutant: Option<Mutant>,
    /// Tells each seed that fails, and runs all the same.
    pub goes_on: bool,
    /// Runs only stories whose certificates name responders.
    pub only_stapled: bool,
}

/// What came of them.
#[derive(Default)]
pub struct Ran {
    pub count: u64,
    pub failures: u64,
    pub histogram: Histogram,
    /// The first seed that failed, by its number.
    pub failed: Option<(Story, Broken)>,
}

impl Runs {
    pub fn new(first: u64, seeds: u64, length: Duration, mutant: Option<Mutant>) -> Self {
        Self { first, seeds, length, mutant, goes_on: false, only_stapled: false }
    }

    /// Runs them all, or those before the first that fails.
    pub fn run(&self) -> Ran {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicU64::new(0);
        // No seed from here on need be run.
        let end = AtomicU64::new(self.seeds);
        let (sender, outcomes) = mpsc::channel();
        let mut ran = Ran::default();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (sender, next, end) = (sender.clone(), &next, &end);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= end.load(Ordering::Relaxed) {
                            return;
                        }
                        let story = Story::of(self.first + number, self.length);
                        let is_left_out = self.only_stapled && story.setting.responses.is_none();
                        let outcome = match is_left_out {
                            true => Outcome::default(),
                            false => world::run(&story, self.mutant),
                        };
                        if outcome.broken.is_some() && !self.goes_on {
                            end.fetch_min(number, Ordering::Relaxed);
                        }
                        if sender.send((story, outcome)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            for (story, outcome) in outcomes {
                ran.count += 1;
                ran.failures += u64::from(outcome.broken.is_some());
                ran.histogram.add(outcome.histogram);
                let is_first = ran.failed.as_ref().is_none_or(|(other, _)| story.seed < other.seed);
                if let Some(broken) = outcome.broken.as_ref().filter(|_| self.goes_on) {
                    println!("seed {}: {}", story.seed, broken.what);
                }
                if let Some(broken) = outcome.broken.filter(|_| is_first) {
                    ran.failed = Some((story, broken));
                }
                self.show(ran.count);
            }
        });
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        ran
    }

    fn show(&self, count: u64) {
        const WIDTH: u64 = 40;
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            let filled = (count * WIDTH / self.seeds.max(1)).min(WIDTH) as usize;
            let bar = "#".repeat(filled) + &"-".repeat(WIDTH as usize - filled);
            let _ = write!(stderr, "\r[{bar}] {count}/{} seeds", self.seeds);
            let _ = stderr.flush();
        } else if count.is_multiple_of(SAID_EVERY) {
            let _ = writeln!(stderr, "{count}/{} seeds", self.seeds);
        }
    }
}
