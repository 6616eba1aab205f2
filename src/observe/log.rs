//! Sets up the log: standard error, for a person on a terminal and as JSON otherwise.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Starts logging to standard error; once per process. `None` picks the format by whether standard error
/// is a terminal.
pub fn start(format: Option<Format>, level: LevelFilter) {
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .with_target(false);
    let format = format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    // A second call can only come from a second start in one process; the first one stays in force.
    let _ = match format {
        Format::Text => builder.with_ansi(terminal).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    // One connection or one name ends by it; the log is where it is looked for.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "this is a bug, please report it with the log");
    }));
}
