//! Measures two workers beside one: what a handshake costs, and how they share the connections.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Command;
use load::{machine, options, workers};

fn main() -> ExitCode {
    let command = Command::new("workers").about(
        "Server CPU per connection of one worker and of two, and what share of the connections each takes,\n\
         with equal cores and unequal. Of the systems the first is measured; it takes all cores it is given.",
    );
    let matches = options::add_comparison_to(command).get_matches();
    let progress = |what: &str| match std::io::stderr().is_terminal() {
        true => eprint!("\r\x1b[K{what}\r"),
        false => eprintln!("{what}"),
    };
    match options::order(&matches).and_then(|order| workers::compare(&order, progress)) {
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
