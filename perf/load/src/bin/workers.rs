//! Measures two workers beside one: what a handshake costs, and how they share the connections.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Command};
use load::machine;
use load::options::{seconds, text, value};
use load::system::System;
use load::workers::{Order, compare};

fn main() -> ExitCode {
    let matches = Command::new("workers")
        .about(
            "Server CPU per connection of ringgate with one worker and with two, and what share of the work each\n\
             does, with equal cores and unequal. It takes the first two cores that it may run on.",
        )
        .arg(
            value("rounds", "NUMBER", "Windows of each arrangement.")
                .default_value("5")
                .value_parser(clap::value_parser!(u64).range(1..=1000)),
        )
        .arg(
            value("seconds", "SECONDS", "One measured window; a third of it warms up before.")
                .default_value("2")
                .value_parser(seconds),
        )
        .arg(
            value("peers", "DIR", "Where ringgate's description and the upstream's configuration are.")
                .default_value(concat!(env!("CARGO_MANIFEST_DIR"), "/../peers")),
        )
        .get_matches();
    let progress = |what: &str| match std::io::stderr().is_terminal() {
        true => eprint!("\r\x1b[K{what}\r"),
        false => eprintln!("{what}"),
    };
    match order(&matches).and_then(|order| compare(&order, progress)) {
        Ok(text) => {
            println!("{}", machine::describe());
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("workers: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn order(matches: &ArgMatches) -> Result<Order, String> {
    let peers = PathBuf::from(text(matches, "peers").unwrap_or_default());
    Ok(Order {
        system: System::load("ringgate", &peers)?,
        rounds: matches.get_one("rounds").copied().unwrap_or(1),
        window: matches.get_one::<Duration>("seconds").copied().unwrap_or_default(),
        peers,
    })
}
