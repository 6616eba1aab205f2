//! How many file descriptors there may be, and how many connections that makes.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for files, the control plane's sockets and what a library opens unasked.
const RESERVED: u64 = 32;
/// Of a connection: the client's socket and the upstream's.
const PER_CONNECTION: u64 = 2;
/// Without a limit there is still memory to think of: about 6 KiB per connection.
const MOST: u64 = 4_000_000;

/// Raises the soft limit to the hard one. Returns the limit in force.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    in_force.unwrap_or(u64::MAX).min(MOST * PER_CONNECTION)
}

/// Connections per worker under `limit`, with `open` descriptors open already. At least one.
pub fn connections_per_worker(limit: u64, open: u64, workers: usize) -> usize {
    let free = limit.saturating_sub(open).saturating_sub(RESERVED);
    let connections = free / PER_CONNECTION / workers.max(1) as u64;
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}

/// Descriptors open now.
#[expect(clippy::disallowed_methods, reason = "start-up only: counts /proc/self/fd")]
pub fn open_now() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_leaves_room_for_a_connection_and_a_large_one_is_shared() {
        assert_eq!(connections_per_worker(64, 20, 2), 3);
        assert_eq!(connections_per_worker(20, 20, 2), 1);
        assert_eq!(connections_per_worker(20_052, 20, 2), 5_000);
    }
}
