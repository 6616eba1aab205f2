//! One measured window: clients on this thread, the server watched from outside.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::answers::{Answers, Nonces};
use crate::connection::Destination;
use crate::failure::{Failure, Kind};
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::pacer::Pacer;
use crate::plan::{Plan, Scenario};
use crate::scenario::{self, Shared};
use crate::stage::SERVER_NAME;
use crate::trust::Trust;
use crate::watch::{Used, Watch};

/// How long it may take until all clients are ready, or one operation is done, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that a run needs.
pub struct Setup {
    pub plan: Plan,
    pub address: SocketAddr,
    pub trust: Trust,
    pub answers: Rc<Answers>,
    /// Where the upstream stores uploads.
    pub uploads: PathBuf,
    pub watch: Option<Watch>,
    /// A command that runs beside the window, for profilers; it ends by itself.
    pub beside: Option<Vec<String>>,
}

/// Runs the plan to its end.
///
/// # Errors
/// If this machine does not let it: everything about the system under test is in the outcome.
pub fn run(setup: Setup) -> Result<Outcome, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start a runtime: {error}"))?;
    tokio::task::LocalSet::new().block_on(&runtime, measure(setup))
}

async fn measure(setup: Setup) -> Result<Outcome, String> {
    let Setup { plan, address, trust, answers, uploads, watch, beside } = setup;
    let name = SERVER_NAME.try_into().map_err(|_| "the server name is none".to_owned())?;
    let shared = Rc::new(Shared {
        pacer: plan.rate.map(|rate| Pacer::new(Instant::now(), rate)),
        to: Destination { address, name, group: plan.scenario.group() },
        nonces: Nonces::new(seed()),
        metrics: Metrics::default(),
        ready: std::cell::Cell::new(0),
        plan: plan.clone(),
        trust,
        answers,
        uploads,
    });
    let metrics = &shared.metrics;
    let memory = |watch: &Option<Watch>| match watch {
        Some(watch) => watch.resident_bytes().map(Some).map_err(|error| gone(&error)),
        None => Ok(None),
    };
    let start_one = |_| tokio::task::spawn_local(scenario::client(shared.clone()));
    // What a process needs once, its code for one, comes in with the first connections: a connection weighs
    // what each one after those adds.
    let first = if plan.scenario == Scenario::Idle { plan.clients / 8 } else { 0 };
    let mut clients: Vec<_> = (0..first).map(start_one).collect();
    patiently(&shared, || shared.ready.get() >= first).await;
    let before = memory(&watch)?;
    clients.extend((first..plan.clients).map(start_one));
    let progress = tokio::task::spawn_local(progress(shared.clone()));
    let all_ready = || shared.ready.get() >= shared.plan.clients;
    match plan.scenario {
        Scenario::Idle => {
            metrics.count(true);
            patiently(&shared, all_ready).await;
        }
        Scenario::Resumed => {
            pause(&shared, plan.warm_up).await;
            patiently(&shared, all_ready).await;
        }
        _ => pause(&shared, plan.warm_up).await,
    }
    let beside = beside.map(|command| start(&command)).transpose()?;
    let (used, seconds) = window(&shared, watch.as_ref()).await?;
    let after = memory(&watch)?;
    metrics.end();
    for client in clients {
        client.await.map_err(|error| format!("a client ended badly: {error}"))?;
    }
    progress.abort();
    for error in shared.trust.verify_signatures() {
        metrics.failed(Failure::new(Kind::Handshake, error));
    }
    if let Some(mut beside) = beside {
        beside.wait().map_err(|error| error.to_string())?;
    }
    let idle_bytes = match (before, after) {
        (Some(before), Some(after)) if plan.scenario == Scenario::Idle => {
            let added = shared.ready.get().saturating_sub(first).max(1);
            Some(after.saturating_sub(before) as f64 / added as f64)
        }
        _ => None,
    };
    Ok(Outcome {
        scenario: plan.scenario,
        seconds,
        operations: metrics.operations.get(),
        bytes: metrics.bytes.get(),
        full: metrics.full.get(),
        resumed: metrics.resumed.get(),
        latency_micros: [0.5, 0.99, 0.999].map(|share| metrics.latency_micros(share)),
        failures: metrics.failures(),
        used,
        resident_bytes: after,
        idle_bytes,
    })
}

/// Counts for as long as the plan says.
async fn window(shared: &Shared, watch: Option<&Watch>) -> Result<(Option<Used>, f64), String> {
    let read = || watch.map(Watch::read).transpose().map_err(|error| gone(&error));
    let before = read()?;
    shared.metrics.count(true);
    let begun = Instant::now();
    pause(shared, shared.plan.window).await;
    patiently(shared, || shared.metrics.operations.get() >= shared.plan.at_least).await;
    let seconds = begun.elapsed().as_secs_f64();
    shared.metrics.count(false);
    let used = before.zip(read()?).map(|(before, after)| before.until(&after));
    Ok((used, seconds))
}

/// Waits, but not for a run that has failed.
async fn pause(shared: &Shared, duration: Duration) {
    tokio::select! {
        () = tokio::time::sleep(duration) => {}
        () = shared.metrics.until_end() => {}
    }
}

/// Waits until `condition` holds, for so long as a loaded machine may need.
async fn patiently(shared: &Shared, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() && Instant::now() < deadline && !shared.metrics.has_ended() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A line that shows a person that it goes on.
async fn progress(shared: Rc<Shared>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let begun = Instant::now();
    let mut every = tokio::time::interval(Duration::from_millis(500));
    loop {
        every.tick().await;
        let metrics = &shared.metrics;
        let failed: u64 = metrics.failures().values().map(|failed| failed.times).sum();
        eprint!(
            "\r{:>5.1} s  {} operations, {} MiB, {failed} failed\x1b[K\r",
            begun.elapsed().as_secs_f64(),
            metrics.operations.get(),
            metrics.bytes.get() >> 20,
        );
    }
}

fn start(command: &[String]) -> Result<Child, String> {
    let [program, arguments @ ..] = command else { return Err("an empty command".to_owned()) };
    Command::new(program).args(arguments).spawn().map_err(|error| format!("{program}: {error}"))
}

fn gone(error: &std::io::Error) -> String {
    format!("the server's processes cannot be read (has it ended?): {error}")
}

/// Differs from run to run, so that no two runs send the same nonces.
pub(crate) fn seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() as u64 ^ u64::from(std::process::id()) << 40
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::Arc;

    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    /// Ends each connection when the client ends it.
    fn serve(listener: &TcpListener, config: &Arc<ServerConfig>) {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut tls = ServerConnection::new(config.clone()).unwrap();
            while tls.complete_io(&mut socket).is_ok_and(|(read, _)| read > 0) {}
            tls.send_close_notify();
            let _ = tls.write_tls(&mut socket);
        }
    }

    #[test]
    fn a_run_with_a_wrong_signature_has_failed() {
        for right_key in [true, false] {
            let (server, trust) = crate::trust::tests::server(SERVER_NAME, right_key);
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || serve(&listener, &server));
            let plan = Plan {
                clients: 1,
                at_least: 1,
                ..Plan::new(Scenario::Handshake, Duration::from_millis(20))
            };
            let outcome = run(Setup {
                plan,
                address,
                trust,
                answers: Rc::new(Answers::new("none are asked for")),
                uploads: PathBuf::new(),
                watch: None,
                beside: None,
            });
            let outcome = outcome.unwrap();
            assert!(outcome.operations > 0);
            let kinds: Vec<_> = outcome.failures.keys().copied().collect();
            assert_eq!(kinds, if right_key { vec![] } else { vec![Kind::Handshake] });
        }
    }
}
