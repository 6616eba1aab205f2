//! Loads one server: a system that it starts itself, or one that runs already.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use load::comparison::{self, Measured, Order, Results};
use load::cores::raise_open_files;
use load::options::{add_to, alone, scenario, text, value};
use load::outcome::Outcome;
use load::plan::{Plan, Scenario};
use load::run::{Setup, run};
use load::stage::{Scene, Stage};
use load::system::System;
use load::verdict::judge;
use load::watch::Watch;
use load::{json, table};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let done = match matches.get_flag("upstream") {
        true => stand(&matches),
        false => load(&matches),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("load: {problem}");
        ExitCode::FAILURE
    })
}

fn command() -> Command {
    let command = Command::new("load").about(
        "Loads a TLS front end with verified connections, and says what it cost.\n\
         Either it starts a system of perf/peers, or the server is there already: --address, --scene.",
    );
    add_to(command)
        .arg(Arg::new("scenario").value_parser(scenario).required_unless_present("upstream"))
        .arg(
            value("system", "NAME", "A description in perf/peers, or the path of such a file.")
                .default_value("ringgate")
                .conflicts_with("address"),
        )
        .arg(
            value("address", "ADDRESS:PORT", "A server that runs.")
                .value_parser(|text: &str| text.parse::<SocketAddr>())
                .requires("scene"),
        )
        .arg(value(
            "scene",
            "DIR",
            "What --upstream printed: the server's certificates and secret.",
        ))
        .arg(
            value("pid", "PID", "The first process of that server, to be watched.")
                .value_parser(clap::value_parser!(u32))
                .requires("address"),
        )
        .arg(
            Arg::new("upstream")
                .long("upstream")
                .action(ArgAction::SetTrue)
                .help("Only run the upstream, print its address and scene, and stay."),
        )
}

/// The upstream alone, for a server that somebody else starts.
fn stand(matches: &ArgMatches) -> Result<ExitCode, String> {
    let order = order(matches, Vec::new())?;
    order.cores.pin_load().map_err(|error| error.to_string())?;
    let stage = Stage::set(&order.peers, order.bulk_bytes)?;
    println!("upstream: {}", stage.upstream());
    println!("scene:    {}", stage.scene.dir().display());
    loop {
        std::thread::park();
    }
}

fn load(matches: &ArgMatches) -> Result<ExitCode, String> {
    let scenario = *matches.get_one("scenario").ok_or("which scenario?")?;
    let (name, outcome) = match matches.get_one::<SocketAddr>("address") {
        Some(address) => (address.to_string(), running(matches, scenario, *address)?),
        None => {
            let name = text(matches, "system").unwrap_or_default();
            let peers = PathBuf::from(text(matches, "peers").unwrap_or_default());
            let mut order = order(matches, vec![System::load(name, &peers)?])?;
            order.scenarios = vec![scenario];
            let mut results = comparison::compare(&order, |_| {})?;
            let cell = results.cells.pop().ok_or("nothing was run")?;
            match cell.measured {
                Measured::Rounds(mut outcomes) if outcomes.len() == 1 => {
                    (name.to_owned(), outcomes.remove(0))
                }
                refused => return Ok(show_refused(name, scenario, refused)),
            }
        }
    };
    let mut refusals = judge(&outcome);
    refusals.retain(|refusal| !matches.get_flag("smoke") || !refusal.is_noise());
    if matches.get_flag("json") {
        println!("{:#}", json::outcome(&outcome));
    } else {
        print!(
            "{}",
            table::print(&one(&name, scenario, Measured::Rounds(vec![outcome])), &[scenario])
        );
        refusals.iter().for_each(|refusal| println!("{refusal}"));
    }
    Ok(if refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show_refused(name: &str, scenario: Scenario, measured: Measured) -> ExitCode {
    print!("{}", table::print(&one(name, scenario, measured), &[scenario]));
    ExitCode::FAILURE
}

fn one(name: &str, scenario: Scenario, measured: Measured) -> Results {
    let cell = comparison::Cell { scenario, system: name.to_owned(), measured };
    Results { cells: vec![cell], versions: Vec::new() }
}

/// A window on a server that runs already.
fn running(
    matches: &ArgMatches,
    scenario: Scenario,
    address: SocketAddr,
) -> Result<Outcome, String> {
    let order = order(matches, Vec::new())?;
    raise_open_files().map_err(|error| format!("cannot raise the limit of open files: {error}"))?;
    order.cores.pin_load().map_err(|error| error.to_string())?;
    let scene = Scene::open(text(matches, "scene").unwrap_or_default().into())?;
    let mut plan = Plan::new(scenario, order.window);
    plan.at_least = u64::from(order.smoke);
    plan.rate = order.rate;
    plan.clients = order.clients.unwrap_or(plan.clients);
    plan.bulk_bytes = scene.bulk_bytes()?;
    let pid: Option<&u32> = matches.get_one("pid");
    // Where that server runs is its starter's choice: without --server-core no core is judged.
    let core = matches.get_one("server-core").copied();
    let watch = pid.map(|pid| Watch::new(*pid, core)).transpose();
    run(Setup {
        plan,
        address,
        trust: scene.trust(scenario.key(), scenario.group())?,
        answers: scene.answers.clone(),
        uploads: scene.uploads(),
        watch: watch.map_err(|error| format!("--pid: {error}"))?,
        beside: None,
    })
}

fn order(matches: &ArgMatches, systems: Vec<System>) -> Result<Order, String> {
    let peers = PathBuf::from(text(matches, "peers").unwrap_or_default());
    alone(matches, peers, systems)
}
