//! What each command does.

use std::process::ExitCode;

use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Command, Invocation};
use crate::clock::Moment;
use crate::config::check::check;
use crate::config::layers::{self, Layers, Written};
use crate::config::problem::Problem;
use crate::config::{Config, LogFormat, LogLevel};
use crate::control::local_ca::LocalCa;
use crate::control::prepare::{Mode, prepare};
use crate::observe::flood::shortened;
use crate::observe::log;

use super::{certs, cores, run, trust};

/// sysexits(3): configuration error.
const EX_CONFIG: u8 = 78;
/// sysexits(3): a service is unavailable: a port is taken, or io_uring is not to be had.
const EX_UNAVAILABLE: u8 = 69;

/// Why a command failed, as its exit status has it.
pub enum Failure {
    Configuration(Vec<Problem>),
    Unavailable(String),
    Other(String),
}

/// Runs the command and says what went wrong.
pub fn execute(invocation: Invocation) -> ExitCode {
    let Invocation { command, written } = invocation;
    let outcome = match command {
        Command::Run => configure(&written).and_then(|(config, layers)| {
            log::start(
                config.log_format.map(|format| match format {
                    LogFormat::Text => log::Format::Text,
                    LogFormat::Json => log::Format::Json,
                }),
                match config.log_level {
                    LogLevel::Error => LevelFilter::ERROR,
                    LogLevel::Warn => LevelFilter::WARN,
                    LogLevel::Info => LevelFilter::INFO,
                    LogLevel::Debug => LevelFilter::DEBUG,
                    LogLevel::Trace => LevelFilter::TRACE,
                },
            );
            run::run(config, &layers, written)
        }),
        Command::Check => {
            configure(&written).and_then(|(config, layers)| check_all(&config, &layers))
        }
        Command::Certs { json, asked } => configure(&written)
            .and_then(|(config, layers)| certs::certs(&config, &layers, json, asked)),
        Command::Trust { install } => {
            configure(&written).and_then(|(config, _)| trust_root(&config, install))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(problems)) => {
            eprint!("{}", in_words(&problems));
            ExitCode::from(EX_CONFIG)
        }
        Err(Failure::Unavailable(what)) => {
            eprintln!("{what}");
            ExitCode::from(EX_UNAVAILABLE)
        }
        Err(Failure::Other(what)) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn in_words(problems: &[Problem]) -> String {
    let mut text = String::new();
    for line in shortened(problems, Problem::option) {
        text.push_str(&format!("{line}\n"));
    }
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    text.push_str(&format!("{count}; nothing was changed\n"));
    text
}

/// Reads and checks the configuration: every problem at once.
pub fn configure(written: &Written) -> Result<(Config, Layers), Failure> {
    let layers = layers::read(written);
    match check(&layers) {
        Ok(config) => Ok((config, layers)),
        Err(problems) => Err(Failure::Configuration(problems)),
    }
}

fn check_all(config: &Config, layers: &Layers) -> Result<(), Failure> {
    run::worker_cores(config, layers)?;
    let threads = cores::allowed().map_or(1, |cores| cores.len());
    let ports: Vec<_> = config.address.iter().map(|address| address.port()).collect();
    let prepared = prepare(config, &ports, None, Mode::Check, threads, Moment::now())
        .map_err(|problems| Failure::Configuration(layers.placed(problems)))?;
    for warning in &prepared.warnings {
        println!("warning: {warning}");
    }
    println!(
        "the configuration is valid: {} routes, {} certificates by hand, {} names from the local CA",
        config.routes.len(),
        prepared.by_hand.len(),
        prepared.local_names.len()
    );
    Ok(())
}

fn trust_root(config: &Config, install: bool) -> Result<(), Failure> {
    let directory = config.data_dir.join("local-ca");
    // Another user's data_dir is another one: a root made here would be trusted for nothing.
    if !LocalCa::is_in(&directory) {
        return Err(Failure::Other(format!(
            "there is no local CA in {} yet; start ringgate once, or name its directory with --data-dir",
            directory.display()
        )));
    }
    let (ca, warnings) = LocalCa::open(&directory, Moment::now())
        .map_err(|error| Failure::Other(format!("the local CA cannot be used: {error}")))?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    if !install {
        print!("{}", ca.root_pem());
        return Ok(());
    }
    let path = trust::install(ca.root_pem(), &ca.fingerprint()).map_err(Failure::Other)?;
    println!("installed the local CA's root as {}", path.display());
    Ok(())
}
