//! The flags that the programs share.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::comparison::Order;
use crate::cores::Cores;
use crate::plan::{BULK_BYTES, Scenario};
use crate::system::System;

/// What is compared unless told otherwise.
const SYSTEMS: &str = "ringgate,nginx,haproxy,hitch";

/// A flag with a value.
pub fn value(name: &'static str, placeholder: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(placeholder).help(help)
}

/// Adds the flags that say what to run and how.
pub fn add_to(command: Command) -> Command {
    let seconds =
        value("seconds", "SECONDS", "One measured window; a third of it warms up before.")
            .default_value("2")
            .value_parser(seconds);
    let bytes = value("bulk-mib", "MIB", "Content of one download or upload.")
        .value_parser(clap::value_parser!(u64).range(1..=4096));
    command
        .arg(seconds)
        .arg(bytes)
        .arg(
            value(
                "rate",
                "PER_SECOND",
                "Open loop: so many operations per second, whatever the server does.",
            )
            .value_parser(rate),
        )
        .arg(
            value("clients", "NUMBER", "Clients at once, instead of as many as suit the scenario.")
                .value_parser(clap::value_parser!(u64).range(1..=20_000)),
        )
        .arg(
            value("server-core", "CORE", "The server's core, instead of the first allowed one.")
                .value_parser(clap::value_parser!(usize)),
        )
        .arg(
            value(
                "load-core",
                "CORE",
                "The core of load and upstream, instead of the second allowed one.",
            )
            .value_parser(clap::value_parser!(usize)),
        )
        .arg(
            value("peers", "DIR", "Descriptions of systems, and the upstream's configuration.")
                .default_value(concat!(env!("CARGO_MANIFEST_DIR"), "/../peers")),
        )
        .arg(
            Arg::new("smoke")
                .long("smoke")
                .action(ArgAction::SetTrue)
                .help("Show that everything works; no figures, so other load does not matter."),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON."))
}

/// Adds the flags of a comparison.
pub fn add_comparison_to(command: Command) -> Command {
    add_to(command)
        .arg(
            value(
                "systems",
                "LIST",
                "Names of descriptions in perf/peers, or paths of such files.",
            )
            .default_value(SYSTEMS)
            .value_delimiter(','),
        )
        .arg(
            value("scenario", "LIST", "Scenarios, instead of all.")
                .value_delimiter(',')
                .value_parser(scenario),
        )
        .arg(
            value("rounds", "NUMBER", "Windows per system and scenario.")
                .default_value("5")
                .value_parser(clap::value_parser!(u64).range(1..=1000)),
        )
        .arg(value(
            "beside",
            "COMMAND",
            "A command that runs beside each window; {pid} is the server.",
        ))
}

/// The order that the flags of a comparison add up to.
pub fn order(matches: &ArgMatches) -> Result<Order, String> {
    let peers = PathBuf::from(text(matches, "peers").unwrap_or_default());
    let named = matches.get_many::<String>("systems").into_iter().flatten();
    let systems = named.map(|named| System::load(named, &peers)).collect::<Result<_, _>>()?;
    let scenarios: Vec<Scenario> =
        matches.get_many("scenario").into_iter().flatten().copied().collect();
    let mut order = alone(matches, peers, systems)?;
    if !scenarios.is_empty() {
        order.scenarios = scenarios;
    }
    order.rounds = matches.get_one("rounds").map_or(1, |rounds: &u64| *rounds as usize);
    order.beside = text(matches, "beside").map(str::to_owned);
    Ok(order)
}

/// One round of every scenario, with the flags that all programs have.
pub fn alone(matches: &ArgMatches, peers: PathBuf, systems: Vec<System>) -> Result<Order, String> {
    let mut cores = Cores::of_this_machine().map_err(|error| error.to_string())?;
    cores.server = matches.get_one("server-core").copied().unwrap_or(cores.server);
    cores.load = matches.get_one("load-core").copied().unwrap_or(cores.load);
    Ok(Order {
        scenarios: Scenario::ALL.to_vec(),
        systems,
        rounds: 1,
        window: matches.get_one("seconds").copied().unwrap_or_default(),
        cores,
        rate: matches.get_one("rate").copied(),
        clients: matches.get_one("clients").map(|clients: &u64| *clients as usize),
        bulk_bytes: matches.get_one("bulk-mib").map_or(BULK_BYTES, |mib: &u64| mib << 20),
        smoke: matches.get_flag("smoke"),
        beside: None,
        peers,
    })
}

/// The text of a flag.
pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

/// A span of more than no seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "a number of seconds is expected".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "a number above 0 is expected".to_owned())
}

/// A scenario by its name.
pub fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::named(name).ok_or_else(|| {
        let names: Vec<_> = Scenario::ALL.iter().map(|scenario| scenario.name()).collect();
        format!("the scenarios are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_mean_nothing_are_refused() {
        let command = || add_comparison_to(Command::new("compare"));
        for flags in [
            ["--seconds", "0"],
            ["--seconds", "soon"],
            ["--rate", "-1"],
            ["--rate", "inf"],
            ["--scenario", "fast"],
            ["--rounds", "0"],
        ] {
            let parsed = command().try_get_matches_from([&["compare"][..], &flags].concat());
            assert!(parsed.is_err(), "{flags:?}");
        }
        let flags = ["compare", "--scenario", "full,idle", "--systems", "ringgate"];
        let order = order(&command().try_get_matches_from(flags).unwrap()).unwrap();
        assert_eq!(order.scenarios, [Scenario::Full, Scenario::Idle]);
        assert_eq!(order.systems.len(), 1);
    }
}
