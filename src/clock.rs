//! The one reader of clocks. Decisions are handed the time; whoever needs it asks here.
#![expect(clippy::disallowed_methods, reason = "the one file that reads the clocks")]

#[cfg(feature = "simulation")]
pub mod simulated;

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point of calendar time in whole seconds since 1970: what decisions about certificates are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment {
    unix_seconds: i64,
}

impl Moment {
    /// The calendar time of the machine.
    pub fn now() -> Self {
        #[cfg(feature = "simulation")]
        if let Some(shown) = simulated::now() {
            return shown;
        }
        Self::from_system(SystemTime::now())
    }

    /// A time of the file system.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX) }
    }

    pub const fn from_unix_seconds(unix_seconds: i64) -> Self {
        Self { unix_seconds }
    }

    pub const fn unix_seconds(self) -> i64 {
        self.unix_seconds
    }

    /// How long from `earlier` to this moment; zero if it is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_secs(self.unix_seconds.saturating_sub(earlier.unix_seconds).max(0) as u64)
    }

    pub fn plus(self, span: Duration) -> Self {
        let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        Self { unix_seconds: self.unix_seconds.saturating_add(seconds) }
    }

    pub fn minus(self, span: Duration) -> Self {
        let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        Self { unix_seconds: self.unix_seconds.saturating_sub(seconds) }
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match time::OffsetDateTime::from_unix_timestamp(self.unix_seconds) {
            Ok(t) => write!(
                f,
                "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
                t.year(),
                u8::from(t.month()),
                t.day(),
                t.hour(),
                t.minute(),
                t.second()
            ),
            Err(_) => write!(f, "{} s after 1970", self.unix_seconds),
        }
    }
}

/// RFC 3339 in UTC and whole seconds, as other programs read it.
pub fn rfc3339(moment: Moment) -> String {
    let text = moment.to_string();
    match text.strip_suffix(" UTC") {
        Some(text) => format!("{}Z", text.replacen(' ', "T", 1)),
        None => text,
    }
}

/// Reads RFC 3339, with or without fractions of a second and with any offset.
pub fn from_rfc3339(text: &str) -> Option<Moment> {
    let format = &time::format_description::well_known::Rfc3339;
    let read = time::OffsetDateTime::parse(text, format).ok()?;
    Some(Moment::from_unix_seconds(read.unix_timestamp()))
}

thread_local! {
    static OF_TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A turn of this thread's worker begins: what [`of_turn`] has answered is no longer true.
pub fn begin_turn() {
    OF_TURN.set(None);
}

/// The steady time of this turn of a worker, read when the first task asks. For what is asked with every
/// message and is compared with spans that are longer than any turn.
pub fn of_turn() -> Instant {
    OF_TURN.get().unwrap_or_else(|| {
        let now = steady();
        OF_TURN.set(Some(now));
        now
    })
}

/// The steady time, for deadlines and for measuring spans.
pub fn steady() -> Instant {
    #[cfg(feature = "simulation")]
    if let Some(steady) = simulated::steady() {
        return steady;
    }
    Instant::now()
}
