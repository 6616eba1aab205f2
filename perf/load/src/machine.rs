//! The machine that figures were taken on, in one line.

use std::fs;

/// Processor and kernel.
pub fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map_or("?", |(_, value)| value.trim()).to_owned()
    };
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} (family {}, model {}), {processors} processors, Linux {}",
        field("model name"),
        field("cpu family"),
        // "model" alone would be found in "model name" first where that comes first.
        field("model\t"),
        kernel.trim()
    )
}
