//! All that perf/results keeps of one machine and day, in one run of a quarter of an hour or so.

use crate::comparison::{self, Order, Results};
use crate::cores::raise_open_files;
use crate::packages;
use crate::plan::Scenario;
use crate::publishing::{self, Point};
use crate::stage::Stage;
use crate::system::System;

/// Idle connections at which memory is looked at. The last is what the report quotes, and all that the common
/// limit of 20,000 descriptors lets a server have, two each.
pub const IDLE: [usize; 3] = [1_000, 4_000, 9_900];
/// ringgate, serving its built-in page.
const ALONE: &str = "ringgate-page";
/// Rounds of each: memory spreads little, and so many handshakes take seconds.
const IDLE_ROUNDS: usize = 2;

pub struct Everything {
    /// Every scenario but idle connections.
    pub results: Results,
    pub idle: Vec<(usize, Results)>,
    /// Handshakes of the first system, ringgate unless it is told otherwise, and of the one that dials no upstream.
    pub alone: Results,
    pub published: Vec<Point>,
}

/// Runs all of it. `progress` is told what comes next.
///
/// # Errors
/// If it cannot be run.
pub fn run(order: &Order, progress: impl Fn(&str)) -> Result<Everything, String> {
    raise_open_files().map_err(|error| format!("cannot raise the limit of open files: {error}"))?;
    let mut alone = Order { scenarios: vec![Scenario::Handshake], ..order.clone() };
    alone.systems.truncate(1);
    alone.systems.push(System::load(ALONE, &order.peers)?);
    for system in &order.systems {
        packages::install(system)?;
    }
    order.cores.pin_load().map_err(|error| format!("cannot pin to a core: {error}"))?;
    let stage = Stage::set(&order.peers, order.bulk_bytes)?;
    let mut scenarios = Scenario::ALL.to_vec();
    scenarios.retain(|scenario| *scenario != Scenario::Idle);
    let results = comparison::compare_on(&stage, &Order { scenarios, ..order.clone() }, &progress)?;
    let alone = comparison::compare_on(&stage, &alone, &progress)?;
    let idle = IDLE.iter().map(|connections| {
        let order = Order {
            scenarios: vec![Scenario::Idle],
            clients: Some(*connections),
            rounds: IDLE_ROUNDS.min(order.rounds),
            ..order.clone()
        };
        Ok((*connections, comparison::compare_on(&stage, &order, &progress)?))
    });
    let idle = idle.collect::<Result<_, String>>()?;
    // Only the first system's: the others do not watch files.
    let published = match order.systems.first() {
        Some(system) => publishing::measure(order, &stage, system, &progress)?,
        None => Vec::new(),
    };
    Ok(Everything { results, idle, alone, published })
}
