//! What the simulated processes log, by their own clock.

use std::fmt;

use ringgate::clock::Moment;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

struct Simulated;

impl FormatTime for Simulated {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{}", Moment::now())
    }
}

/// From here on all of it goes to stderr.
pub fn start() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_timer(Simulated)
        .with_target(false)
        .with_max_level(tracing::Level::DEBUG)
        .init();
}
