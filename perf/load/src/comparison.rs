//! Several systems under the same scenarios, in rounds that alternate between them.

use std::path::PathBuf;
use std::time::Duration;

use crate::cores::{Cores, raise_open_files};
use crate::filled;
use crate::outcome::Outcome;
use crate::packages;
use crate::plan::{Plan, Scenario};
use crate::run::{Setup, run};
use crate::stage::Stage;
use crate::started::Started;
use crate::system::System;
use crate::verdict::{Refusal, judge};
use crate::watch::Watch;

/// How often a window is tried on a machine that does not keep quiet, and the pause between two tries. What
/// disturbs now and then (a timer, an update, a login) is over in ten seconds; what runs longer than that
/// stays.
const TRIES: usize = 8;
const PAUSE: Duration = Duration::from_secs(1);

/// What to compare, and how.
#[derive(Clone)]
pub struct Order {
    pub scenarios: Vec<Scenario>,
    pub systems: Vec<System>,
    pub rounds: usize,
    pub window: Duration,
    pub cores: Cores,
    pub rate: Option<f64>,
    pub clients: Option<usize>,
    pub bulk_bytes: u64,
    /// Shows that everything works, and takes no figures: whoever else runs does not matter.
    pub smoke: bool,
    /// A command beside each window; `{pid}` is the server's first process.
    pub beside: Option<String>,
    /// Descriptions of systems, and the upstream's configuration.
    pub peers: PathBuf,
}

/// What the rounds gave.
pub struct Results {
    pub cells: Vec<Cell>,
    /// Name and version of each system.
    pub versions: Vec<(String, String)>,
}

/// One system under one scenario.
pub struct Cell {
    pub scenario: Scenario,
    pub system: String,
    pub measured: Measured,
}

pub enum Measured {
    /// One outcome per round.
    Rounds(Vec<Outcome>),
    Refused(Vec<Refusal>),
    /// The system has not got what the scenario asks for.
    Lacks(&'static str),
}

impl Measured {
    /// What the rounds gave, if there were some and all of them count.
    pub fn rounds(&self) -> Option<&[Outcome]> {
        match self {
            Self::Rounds(outcomes) if !outcomes.is_empty() => Some(outcomes),
            _ => None,
        }
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl Results {
    /// The cells of a scenario, in the order of the systems.
    pub fn of(&self, scenario: Scenario) -> Vec<&Cell> {
        self.cells.iter().filter(|cell| cell.scenario == scenario).collect()
    }

    pub fn refused(&self) -> bool {
        self.cells.iter().any(|cell| cell.measured.is_refused())
    }
}

/// Runs all of it. `progress` is told what comes next.
///
/// # Errors
/// If it cannot be run: a system does not start, or this machine lacks something.
pub fn compare(order: &Order, progress: impl Fn(&str)) -> Result<Results, String> {
    raise_open_files().map_err(|error| format!("cannot raise the limit of open files: {error}"))?;
    for system in &order.systems {
        packages::install(system)?;
    }
    order.cores.pin_load().map_err(|error| format!("cannot pin to a core: {error}"))?;
    compare_on(&Stage::set(&order.peers, order.bulk_bytes)?, order, &progress)
}

/// The same on a stage that is set.
pub(crate) fn compare_on(
    stage: &Stage,
    order: &Order,
    progress: &impl Fn(&str),
) -> Result<Results, String> {
    let mut cells: Vec<Cell> = Vec::new();
    for &scenario in &order.scenarios {
        cells.extend(order.systems.iter().map(|system| Cell {
            scenario,
            system: system.name.clone(),
            measured: match system.has(scenario.group()) {
                true => Measured::Rounds(Vec::new()),
                false => Measured::Lacks(scenario.group().name()),
            },
        }));
    }
    for round in 0..order.rounds {
        for (place, &scenario) in order.scenarios.iter().enumerate() {
            let row = place * order.systems.len();
            // Each round begins with another system: what follows on what is not always the same.
            for turn in 0..order.systems.len() {
                let at = (round + turn) % order.systems.len();
                let Measured::Rounds(outcomes) = &mut cells[row + at].measured else { continue };
                let system = &order.systems[at];
                progress(&format!("round {} {} {}", round + 1, scenario.name(), system.name));
                match quietly(order, stage, system, scenario)? {
                    Ok(outcome) => outcomes.push(outcome),
                    Err(refusals) => cells[row + at].measured = Measured::Refused(refusals),
                }
            }
        }
    }
    let versions =
        order.systems.iter().map(|system| (system.name.clone(), packages::version(system)));
    Ok(Results { cells, versions: versions.collect() })
}

/// One window that may be compared, or what is wrong with the system or the machine.
pub(crate) fn quietly(
    order: &Order,
    stage: &Stage,
    system: &System,
    scenario: Scenario,
) -> Result<Result<Outcome, Vec<Refusal>>, String> {
    let mut tries = 0;
    loop {
        tries += 1;
        let outcome = measure(order, stage, system, scenario)?;
        let mut refusals = judge(&outcome);
        if order.smoke {
            refusals.retain(|refusal| !refusal.is_noise());
        }
        if refusals.is_empty() {
            return Ok(Ok(outcome));
        }
        if tries == TRIES || !refusals.iter().all(Refusal::is_noise) {
            return Ok(Err(refusals));
        }
        std::thread::sleep(PAUSE);
    }
}

/// One window on a freshly started system, so that none inherits memory or tickets from the scenario before.
fn measure(
    order: &Order,
    stage: &Stage,
    system: &System,
    scenario: Scenario,
) -> Result<Outcome, String> {
    let address = (stage.host, system.port).into();
    let command = filled::command(system, stage, scenario.key())?;
    let core = Some(order.cores.server);
    let started = Started::start(&system.name, &command, core, address, stage.scene.dir())?;
    let mut plan = Plan::new(scenario, order.window);
    plan.at_least = u64::from(order.smoke);
    plan.rate = order.rate;
    plan.bulk_bytes = order.bulk_bytes;
    plan.clients = order.clients.unwrap_or(plan.clients);
    let pid = started.pid();
    let watch = Watch::new(pid, core)
        .map_err(|error| format!("{}: its processes cannot be read: {error}", system.name))?;
    run(Setup {
        plan,
        address,
        trust: stage.scene.trust(scenario.key(), scenario.group())?,
        answers: stage.scene.answers.clone(),
        uploads: stage.scene.uploads(),
        watch: Some(watch),
        beside: order.beside.as_ref().map(|command| {
            let words = command.split_whitespace();
            words.map(|word| word.replace("{pid}", &pid.to_string())).collect()
        }),
    })
}
