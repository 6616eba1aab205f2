//! Which cores workers run on: all that the process may use, capped by the cgroup's quota.

use std::io;
use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may run on, in order.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Pins the calling thread to one core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// The cores for workers when none are configured.
pub fn default_cores() -> io::Result<Vec<usize>> {
    let mut cores = allowed()?;
    if let Some(quota) = cgroup_quota() {
        cores.truncate(quota.max(1));
    }
    Ok(cores)
}

/// How many cores' worth of time the cgroup may use, rounded up; `None` without a quota.
fn cgroup_quota() -> Option<usize> {
    let own = read("/proc/self/cgroup")?;
    // cgroup v2 (cgroups(7)): one line "0::/path"; a quota of any ancestor counts.
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(path.trim_start_matches('/'));
    own.ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| quota_in_cores(&read(dir.join("cpu.max"))?))
        .min()
}

/// `cpu.max` holds "quota period" in microseconds, or "max period".
fn quota_in_cores(cpu_max: &str) -> Option<usize> {
    let mut fields = cpu_max.split_whitespace().map(|field| field.parse::<usize>().ok());
    let (quota, period) = (fields.next()??, fields.next()??);
    (period > 0).then(|| quota.div_ceil(period))
}

#[expect(clippy::disallowed_methods, reason = "start-up only: reads /proc and /sys")]
fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up_to_cores() {
        for (cpu_max, cores) in [
            ("max 100000", None),
            ("150000 100000", Some(2)),
            ("100000 100000", Some(1)),
            ("50000 100000", Some(1)),
            ("", None),
            ("1 0", None),
        ] {
            assert_eq!(quota_in_cores(cpu_max), cores, "{cpu_max}");
        }
    }
}
