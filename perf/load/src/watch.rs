//! What the server uses during a window, and what else ran on its core.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use crate::processes;

/// Watches the processes of one server and the core that they are pinned to.
pub struct Watch {
    tree: Vec<u32>,
    core: Option<usize>,
}

/// The counters at one moment.
pub struct Reading {
    at: Instant,
    cpu: Duration,
    core_idle: Option<Duration>,
}

/// What a window used.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub wall: Duration,
    /// By the server, on whatever core.
    pub cpu: Duration,
    /// By anything else on the server's core, as far as that is known.
    pub foreign: Option<Duration>,
}

impl Watch {
    /// Watches the server whose first process is `pid`, and all that it has started so far.
    pub fn new(pid: u32, core: Option<usize>) -> io::Result<Self> {
        Ok(Self { tree: processes::tree(pid)?, core })
    }

    pub fn read(&self) -> io::Result<Reading> {
        let core_idle = match self.core {
            Some(core) => idle(&fs::read_to_string("/proc/stat")?, core),
            None => None,
        };
        Ok(Reading { at: Instant::now(), cpu: processes::cpu(&self.tree)?, core_idle })
    }

    pub fn resident_bytes(&self) -> io::Result<u64> {
        processes::resident_bytes(&self.tree)
    }
}

impl Reading {
    /// What was used from here to `later`.
    pub fn until(&self, later: &Self) -> Used {
        let wall = later.at - self.at;
        let cpu = later.cpu.saturating_sub(self.cpu);
        let foreign = match (self.core_idle, later.core_idle) {
            (Some(before), Some(after)) => {
                // Time that the hypervisor took from the core counts as foreign too: it leaves the
                // server with cold caches like any other process.
                Some(wall.saturating_sub(after.saturating_sub(before)).saturating_sub(cpu))
            }
            _ => None,
        };
        Used { wall, cpu, foreign }
    }
}

/// Idle time of a core (proc_stat(5): the fourth and fifth number of its line).
fn idle(stat: &str, core: usize) -> Option<Duration> {
    let name = format!("cpu{core}");
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name))?;
    let ticks = line.split_whitespace().skip(4).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().ok()?;
    Some(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_that_of_the_core_asked_for() {
        let stat = "cpu 1 1 1 900 9 0 0 0\ncpu0 1 0 1 300 5 0 0 0\ncpu1 0 1 0 600 4 0 0 0\n";
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(idle(stat, 1), Some(Duration::from_secs(604) / ticks as u32));
        assert_eq!(idle(stat, 2), None);
    }

    #[test]
    fn what_is_neither_idle_nor_the_servers_is_foreign() {
        let at = Instant::now();
        let reading = |millis: u64, cpu: u64, idle: u64| Reading {
            at: at + Duration::from_millis(millis),
            cpu: Duration::from_millis(cpu),
            core_idle: Some(Duration::from_millis(idle)),
        };
        let used = reading(0, 50, 7_000).until(&reading(1_000, 650, 7_300));
        assert_eq!(used.cpu, Duration::from_millis(600));
        assert_eq!(used.foreign, Some(Duration::from_millis(100)));
        // Ticks of 10 ms can make idle and CPU time more than the wall's.
        let used = reading(0, 50, 7_000).until(&reading(1_000, 650, 7_410));
        assert_eq!(used.foreign, Some(Duration::ZERO));
    }
}
