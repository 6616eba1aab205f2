//! Renews certificates of minutes under load and says whether any client noticed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Command;
use load::cores::raise_open_files;
use load::machine;
use load::options::{text, value};
use load::renewals::{Plan, run};

fn main() -> ExitCode {
    let matches = Command::new("renewals")
        .about(
            "Renews certificates of minutes, from Pebble, while clients connect at a given rate and others stay.\n\
             Every certificate is verified each time it is shown. Exits with 1 if anything failed.",
        )
        .arg(value("minutes", "MINUTES", "How long.").default_value("30").value_parser(positive))
        .arg(
            value("rate", "PER_SECOND", "Full handshakes per second, whatever the server does.")
                .default_value("1000")
                .value_parser(positive),
        )
        .arg(
            value("validity", "SECONDS", "Lifetime of a certificate.")
                .default_value("180")
                .value_parser(clap::value_parser!(u64).range(20..)),
        )
        .arg(
            value("peers", "DIR", "Where the upstream's configuration is.")
                .default_value(concat!(env!("CARGO_MANIFEST_DIR"), "/../peers")),
        )
        .get_matches();
    let number = |name| matches.get_one::<f64>(name).copied().unwrap_or_default();
    let validity = matches.get_one("validity").copied().unwrap_or_default();
    let done = bin().and_then(|bin| {
        raise_open_files()
            .map_err(|error| format!("cannot raise the limit of open files: {error}"))?;
        run(&Plan {
            window: Duration::from_secs_f64(60.0 * number("minutes")),
            rate: number("rate"),
            validity: Duration::from_secs(validity),
            peers: PathBuf::from(text(&matches, "peers").unwrap_or_default()),
            bin,
        })
    });
    match done {
        Err(problem) => {
            eprintln!("renewals: {problem}");
            ExitCode::FAILURE
        }
        Ok(report) => {
            println!("{}", machine::describe());
            print!("{}", report.print());
            let faults = report.faults();
            faults.iter().for_each(|fault| println!("fault: {fault}"));
            if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}

/// Where this program is, and ringgate beside it.
fn bin() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(program.parent().ok_or("a program lies in a directory")?.to_owned())
}

/// Ten thousand minutes and as many handshakes a thousand times over are more than anybody means.
fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && *number < 1e7);
    number.ok_or_else(|| "a number above 0 is expected".to_owned())
}
