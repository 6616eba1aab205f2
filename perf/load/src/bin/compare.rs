//! Compares ringgate with its peers: the same certificates, upstream and clients, in alternating rounds.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Command;
use load::{comparison, json, machine, options, table};

fn main() -> ExitCode {
    let command = Command::new("compare").about(
        "Server CPU and memory of several TLS front ends under the same verified load.\n\
         Prints no ratio if anything is wrong, and exits with 1.",
    );
    let matches = options::add_comparison_to(command).get_matches();
    let progress = |what: &str| match std::io::stderr().is_terminal() {
        true => eprint!("\r\x1b[K\n\x1b[A{what:>60}\r"),
        false => eprintln!("{what}"),
    };
    let done = options::order(&matches)
        .and_then(|order| Ok((comparison::compare(&order, progress)?, order)));
    match done {
        Err(problem) => {
            eprintln!("compare: {problem}");
            ExitCode::FAILURE
        }
        Ok((results, order)) => {
            if matches.get_flag("json") {
                println!("{:#}", json::results(&results));
            } else if order.smoke && !results.refused() {
                println!("{} runs, each verified", results.cells.len());
            } else {
                println!("{}", machine::describe());
                for (system, version) in &results.versions {
                    println!("{system}: {version}");
                }
                let seconds = order.window.as_secs_f64();
                println!("{} rounds of {seconds} s", order.rounds);
                print!("{}", table::print(&results, &order.scenarios));
            }
            if results.refused() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
