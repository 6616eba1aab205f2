//! What /proc says of a process and all that it started.

use std::fs;
use std::io;
use std::time::Duration;

/// A process and its descendants, in no order.
pub fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // A process may end while the list is read.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            parents.extend(parent(&stat).map(|parent| (pid, parent)));
        }
    }
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(above) = tree.get(next).copied() {
        tree.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(tree)
}

/// The fourth field of proc_pid_stat(5). The second is a name in parentheses, of any characters.
fn parent(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

/// Time on a core of all threads of these processes, exact to the nanosecond.
pub fn cpu(tree: &[u32]) -> io::Result<Duration> {
    let mut time = Duration::ZERO;
    for pid in tree {
        time += threads(*pid)?.into_iter().map(|(_, time)| time).sum::<Duration>();
    }
    Ok(time)
}

/// The threads of a process: their names, and how long each has run on a core.
pub fn threads(pid: u32) -> io::Result<Vec<(String, Duration)>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path();
        let read = |file| fs::read_to_string(path.join(file));
        // A thread may end between being listed and being read.
        if let (Ok(name), Ok(time)) = (read("comm"), read("schedstat")) {
            threads.push((name.trim_end().to_owned(), on_core(&time)));
        }
    }
    Ok(threads)
}

/// The first field of /proc/PID/schedstat.
fn on_core(schedstat: &str) -> Duration {
    let nanos = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Resident memory of these processes. What they share counts in each, which does not matter where only
/// growth is looked at.
pub fn resident_bytes(tree: &[u32]) -> io::Result<u64> {
    let mut kib = 0;
    for pid in tree {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib += number.unwrap_or(0);
    }
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_hide_the_parent() {
        assert_eq!(parent("42 (a (b) c) S 7 42 42 0"), Some(7));
        assert_eq!(parent(""), None);
    }

    #[test]
    fn this_process_is_a_tree_that_uses_cpu_and_memory() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let tree = tree(std::process::id()).unwrap();
        let found = tree.contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found, "{tree:?}");
        let own = &tree[..1];
        assert!(cpu(own).unwrap() > Duration::ZERO && resident_bytes(own).unwrap() > 100_000);
    }
}
