//! What to run: the scenarios, and how much of one.

use std::time::Duration;

/// What clients do. The order is the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    Full,
    Handshake,
    Resumed,
    KeepAlive,
    BulkDown,
    BulkUp,
    Rsa,
    PostQuantum,
    Idle,
}

/// The private key of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    EcdsaP256,
    Rsa2048,
}

/// The one key exchange group that clients offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    X25519,
    X25519Mlkem768,
}

/// What a cost is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Server CPU per connection or request, in microseconds.
    Operation,
    /// Server CPU per KiB of content, in microseconds.
    Kib,
    /// Server memory per idle connection, in KiB.
    Connection,
}

impl Scenario {
    pub const ALL: [Self; 9] = [
        Self::Full,
        Self::Handshake,
        Self::Resumed,
        Self::KeepAlive,
        Self::BulkDown,
        Self::BulkUp,
        Self::Rsa,
        Self::PostQuantum,
        Self::Idle,
    ];

    /// As `--scenario` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Handshake => "handshake",
            Self::Resumed => "resumed",
            Self::KeepAlive => "keep-alive",
            Self::BulkDown => "bulk-down",
            Self::BulkUp => "bulk-up",
            Self::Rsa => "rsa",
            Self::PostQuantum => "post-quantum",
            Self::Idle => "idle",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// What one operation is, as the report's heading says it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Full => "full handshake, request of 100 bytes, close",
            Self::Handshake => "full handshake, close",
            Self::Resumed => "resumed handshake, request of 100 bytes, close",
            Self::KeepAlive => "request of 100 bytes on a kept-alive connection",
            Self::BulkDown => "download",
            Self::BulkUp => "upload",
            Self::Rsa => "full handshake (RSA-2048), request of 100 bytes, close",
            Self::PostQuantum => "full handshake (X25519MLKEM768), request of 100 bytes, close",
            Self::Idle => "idle connection",
        }
    }

    pub fn key(self) -> Key {
        if self == Self::Rsa { Key::Rsa2048 } else { Key::EcdsaP256 }
    }

    pub fn group(self) -> Group {
        if self == Self::PostQuantum { Group::X25519Mlkem768 } else { Group::X25519 }
    }

    pub fn unit(self) -> Unit {
        match self {
            Self::BulkDown | Self::BulkUp => Unit::Kib,
            Self::Idle => Unit::Connection,
            _ => Unit::Operation,
        }
    }

    /// Clients at once. Handshakes: enough that the server never waits for one client's turn, few enough
    /// that queues do not grow. Keep-alive: 64, so that one wake-up of the server finds several ready.
    /// Bulk: 4, more would only share the same core. Idle: 9,900, so that what a process weighs by itself
    /// does not count.
    pub fn clients(self) -> usize {
        match self {
            Self::KeepAlive => 64,
            Self::BulkDown | Self::BulkUp => 4,
            Self::Idle => 9_900,
            _ => 32,
        }
    }
}

impl Group {
    /// The IANA name.
    pub fn name(self) -> &'static str {
        match self {
            Self::X25519 => "X25519",
            Self::X25519Mlkem768 => "X25519MLKEM768",
        }
    }
}

impl Unit {
    /// What the numbers are.
    pub fn cost(self) -> &'static str {
        match self {
            Self::Operation => "server CPU per operation, µs",
            Self::Kib => "server CPU per KiB, µs",
            Self::Connection => "server memory per connection, KiB",
        }
    }
}

/// One measurement of one scenario.
#[derive(Clone, Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub clients: usize,
    /// Before the window: caches, allocator and branch predictors settle, every client gets its ticket.
    pub warm_up: Duration,
    pub window: Duration,
    /// The window goes on until so many operations are done: a smoke has to see one, however loaded the
    /// machine is.
    pub at_least: u64,
    /// Operations per second whatever the server does (open loop); without it each client starts its next
    /// operation when the last is over.
    pub rate: Option<f64>,
    /// Content of one download or upload.
    pub bulk_bytes: u64,
}

/// Enough for a thousand times what a socket buffer holds, so that starts and ends do not count.
pub const BULK_BYTES: u64 = 100 << 20;

impl Plan {
    pub fn new(scenario: Scenario, window: Duration) -> Self {
        Self {
            scenario,
            clients: scenario.clients(),
            // A third: long enough for a thousand handshakes in the shortest sensible window.
            warm_up: window / 3,
            window,
            at_least: 0,
            rate: None,
            bulk_bytes: BULK_BYTES,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_found_by_its_name() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::named(scenario.name()), Some(scenario));
        }
        assert_eq!(Scenario::named("fast"), None);
    }
}
