//! Which core is whose: the server's, and that of everything else.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The server's core, and the one that the load and the upstream share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    pub server: usize,
    pub load: usize,
}

impl Cores {
    /// The first two that this process may run on; the same twice on a machine with one, where nothing
    /// can be measured but everything can be shown to work.
    pub fn of_this_machine() -> io::Result<Self> {
        let set = sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
        let server = allowed.next().unwrap_or_default();
        Ok(Self { server, load: allowed.next().unwrap_or(server) })
    }

    /// Pins this process, and what it starts without a core of its own, to the load's core.
    pub fn pin_load(self) -> io::Result<()> {
        pin(&[self.load])
    }
}

/// Lets this thread, and what it starts, run on these cores only.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Enough for 10,000 idle connections: two on the server, and one on each side of it, which are other
/// processes.
const OPEN_FILES: u64 = 65_536;

/// Lets this process, and so the servers and the upstream, open as many files as they need; or, if it may not
/// ask for that, all that it may.
pub fn raise_open_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let maximum = limit.maximum.map(|maximum| maximum.max(OPEN_FILES));
    if setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}
