//! Years of certificates in seconds: the real control code under a simulated clock, CA and directory, through
//! a story of faults for each seed. `ARCHITECTURE.md` says how; `scripts/simulate` runs it.
#![allow(clippy::disallowed_methods, reason = "the test measures itself")]

mod buckets;
mod ca;
mod caddy;
mod checker;
mod dice;
mod evidence;
mod histogram;
mod jws;
mod life;
mod logging;
mod node;
mod panics;
mod responder;
mod responses;
mod runs;
mod shrink;
mod signing;
mod sky;
mod stapled;
mod store;
mod weather;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use ringgate::control::autocert::simulated::{MUTANTS, Mutant};

use runs::Runs;

/// The product's allocator: a simulation is small allocations above all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// A mutant that so many seeds do not find is not found.
const SEEDS_FOR_A_MUTANT: u64 = 400;
/// How the names of mistakes begin that only stories with staples can show.
const OF_STAPLES: &str = "staple";
/// Mistakes that few stories show, with a seed that does: where none is asked for by name, that one is run first.
const SHOWN_BY: [(&str, u64); 4] = [
    ("pause-by-wrong-clock", 43),
    ("budget-forgotten", 98),
    ("budget-unstored", 297),
    ("staples-in-step", 129),
];
/// What `scripts/test` runs besides the mutants.
const SEEDS: u64 = 200;
const YEARS: u32 = 2;

const HELP: &str = "\
simulator [N] [--years Y] [--seed S] [--mutant NAME|all]
  N             seeds to run, from S on
  --years Y     how long each story is (2)
  --seed S      the first seed (0); with N = 1 a failure is shown again
  --stapled     only stories whose certificates name OCSP responders
  --all         go on after a seed that fails, and name each
  --log         what ringgate logs, by the simulated clock
  --mutant M    make this mistake on purpose and count the seeds until it is found; all: each in turn
Without arguments: what scripts/test runs, 200 seeds of two years and then all mutants, by seeds known to find them.";

struct Arguments {
    seeds: Option<u64>,
    years: u32,
    first: u64,
    mutant: Option<String>,
    goes_on: bool,
    only_stapled: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        seeds: None,
        years: YEARS,
        first: 0,
        mutant: None,
        goes_on: false,
        only_stapled: false,
    };
    let mut all = std::env::args().skip(1);
    while let Some(argument) = all.next() {
        let mut value = || all.next().ok_or(format!("{argument} needs a value"));
        let number =
            |text: String| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
        match argument.as_str() {
            "--years" => found.years = number(value()?)? as u32,
            "--seed" => found.first = number(value()?)?,
            "--log" => logging::start(),
            "--all" => found.goes_on = true,
            "--stapled" => found.only_stapled = true,
            "--mutant" => found.mutant = Some(value()?),
            "--help" | "-h" => return Err(HELP.into()),
            // What cargo adds to every test.
            "--nocapture" | "--quiet" | "-q" => {}
            _ => found.seeds = Some(number(argument)?),
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    panics::watch();
    let length = YEAR * arguments.years;
    let first = arguments.first;
    let passed = match (&arguments.mutant, arguments.seeds) {
        (Some(name), seeds) => {
            let chosen: Vec<_> =
                MUTANTS.into_iter().filter(|(one, _)| name == "all" || name == one).collect();
            if chosen.is_empty() {
                let names: Vec<_> = MUTANTS.iter().map(|(name, _)| *name).collect();
                eprintln!("no mutant {name:?}; there are {}", names.join(", "));
                return ExitCode::from(2);
            }
            find(&chosen, first, seeds.unwrap_or(SEEDS_FOR_A_MUTANT), length)
        }
        (None, Some(seeds)) => pass(&arguments, seeds, length),
        (None, None) => pass(&arguments, SEEDS, length) && find_again(length),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs seeds until one fails.
fn pass(arguments: &Arguments, seeds: u64, length: Duration) -> bool {
    let begun = std::time::Instant::now();
    let mut runs = Runs::new(arguments.first, seeds, length, None);
    runs.goes_on = arguments.goes_on;
    runs.only_stapled = arguments.only_stapled;
    let runs = runs.run();
    let took = begun.elapsed().as_secs_f64();
    if arguments.goes_on || runs.failed.is_none() {
        println!("{}", runs.histogram);
        println!(
            "{} of {} seeds of {} years passed in {took:.1} s: {} renewals",
            runs.count - runs.failures,
            runs.count,
            length.as_secs() / YEAR.as_secs(),
            runs.histogram.renewals()
        );
    }
    if let Some((story, broken)) = runs.failed {
        println!("{}", shrink::tell(&story, &broken));
        let (story, broken) = shrink::shrink(&story, broken, None);
        println!("in short:\n{}", shrink::tell(&story, &broken));
        let years = length.as_secs() / YEAR.as_secs();
        println!("again: scripts/simulate 1 --seed {} --years {years}", story.seed);
        return false;
    }
    true
}

/// Finds all mutants, where a seed is known by that one, and otherwise as `find` does.
fn find_again(length: Duration) -> bool {
    let mut are_found = true;
    for one @ (name, mutant) in MUTANTS {
        let shown_by = SHOWN_BY.iter().find(|(shown, _)| *shown == name).map(|(_, seed)| *seed);
        let shown = shown_by.and_then(|seed| Runs::new(seed, 1, length, Some(mutant)).run().failed);
        match shown {
            Some((story, broken)) => {
                println!("mutant {name:<24} found by seed {:>5}: {}", story.seed, broken.what);
            }
            None => are_found &= find(&[one], 0, SEEDS_FOR_A_MUTANT, length),
        }
    }
    are_found
}

/// Runs seeds with each mutant until one fails, which is what is wanted.
fn find(mutants: &[(&str, Mutant)], first: u64, seeds: u64, length: Duration) -> bool {
    let mut are_found = true;
    for (name, mutant) in mutants {
        let mut runs = Runs::new(first, seeds, length, Some(*mutant));
        runs.only_stapled = name.starts_with(OF_STAPLES);
        let runs = runs.run();
        match runs.failed {
            Some((story, broken)) => {
                let needed = story.seed - first + 1;
                println!("mutant {name:<24} found after {needed:>4} seeds: {}", broken.what);
            }
            None => {
                println!("mutant {name:<24} NOT FOUND in {seeds} seeds");
                are_found = false;
            }
        }
    }
    are_found
}
