//! Compares ringgate with its peers: the same certificates, upstream and clients, in alternating rounds.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use load::comparison::{self, Order};
use load::{everything, json, machine, options, report, table};

fn main() -> ExitCode {
    let command = Command::new("compare").about(
        "Server CPU and memory of several TLS front ends under the same verified load.\n\
         Prints no ratio if anything is wrong, and exits with 1.",
    );
    let command = options::add_comparison_to(command).arg(options::value(
        "report",
        "FILE.md",
        "Every scenario and more, into this file and charts beside it: what perf/compare --all does.",
    ));
    let matches = command.get_matches();
    let progress = |what: &str| match std::io::stderr().is_terminal() {
        true => eprint!("\r\x1b[K\n\x1b[A{what:>60}\r"),
        false => eprintln!("{what}"),
    };
    if let Some(page) = options::text(&matches, "report") {
        let done = options::order(&matches).and_then(|order| keep(page.as_ref(), &order, progress));
        return match done {
            Ok(code) => code,
            Err(problem) => {
                eprintln!("compare: {problem}");
                ExitCode::FAILURE
            }
        };
    }
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

/// Runs everything and writes its page.
fn keep(page: &Path, order: &Order, progress: impl Fn(&str)) -> Result<ExitCode, String> {
    let everything = everything::run(order, progress)?;
    report::write(page, &everything, order)?;
    println!("{}", page.display());
    let everything::Everything { results, alone, idle, published } = everything;
    let idle = idle.iter().map(|(_, results)| results);
    let refused = [&results, &alone].into_iter().chain(idle).any(|results| results.refused())
        || published.iter().any(|point| point.measured.is_refused());
    Ok(match refused {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}
