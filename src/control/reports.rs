//! Turns the edge's reports into log lines, without letting a busy edge flood the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::observe::counters::Report;
use crate::observe::names::Reason;

/// How often the same warning about the same route is written. Server names do not count: clients invent
/// them.
const REPEAT_AFTER: Duration = Duration::from_secs(10);
/// Different warnings remembered; beyond, all are forgotten and may repeat.
const REMEMBERED: usize = 1024;

/// What was warned of lately.
#[derive(Default)]
pub struct Reports {
    lately: HashMap<(Reason, Option<Arc<str>>), Lately>,
}

struct Lately {
    written: Instant,
    suppressed: u64,
}

impl Reports {
    /// Writes a report, or counts it if its like was written a moment ago.
    pub fn write(&mut self, report: &Report, now: Instant) {
        let reason = report.reason;
        let client = report.client.map(|address| address.to_string());
        let (client, server_name, route, detail) = (
            client.as_deref(),
            report.server_name.as_deref(),
            report.route.as_deref(),
            report.detail.as_deref(),
        );
        let side = match report.side {
            crate::observe::names::Side::Client => "client",
            crate::observe::names::Side::Upstream => "upstream",
            crate::observe::names::Side::Ours => "ringgate",
        };
        if !reason.concerns_operator() {
            debug!(
                reason = reason.label(),
                side,
                client,
                server_name,
                route,
                detail,
                "{}",
                reason.help()
            );
            return;
        }
        let Some(suppressed) = self.due(reason, report.route.clone(), now) else { return };
        let suppressed = Some(suppressed).filter(|count| *count > 0);
        warn!(
            reason = reason.label(),
            side,
            client,
            server_name,
            route,
            detail,
            suppressed,
            "{}",
            reason.help()
        );
    }

    /// How many like it were suppressed before this one, or `None` if this one is suppressed too.
    fn due(&mut self, reason: Reason, route: Option<Arc<str>>, now: Instant) -> Option<u64> {
        if self.lately.len() >= REMEMBERED {
            self.lately.clear();
        }
        let key = (reason, route);
        match self.lately.get_mut(&key) {
            Some(lately) if now.duration_since(lately.written) < REPEAT_AFTER => {
                lately.suppressed += 1;
                None
            }
            Some(lately) => {
                lately.written = now;
                Some(std::mem::take(&mut lately.suppressed))
            }
            None => {
                self.lately.insert(key, Lately { written: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_warning_is_counted_and_written_again_later() {
        let mut reports = Reports::default();
        let start = crate::clock::steady();
        let route = || Some(Arc::from("https://app.example"));
        let mut due = |after: u64| {
            reports.due(Reason::ConnectRefused, route(), start + Duration::from_secs(after))
        };
        assert_eq!(due(0), Some(0));
        assert_eq!((due(1), due(9)), (None, None));
        assert_eq!(due(11), Some(2));
        assert_eq!(due(12), None);
        assert_eq!(reports.due(Reason::ConnectRefused, None, start), Some(0));
    }
}
