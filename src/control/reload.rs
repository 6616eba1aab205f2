//! Pure: the configuration in force and the next one to what a reload can change and what it cannot.

use crate::config::Config;

/// The next configuration with everything kept that a running process cannot change, and the keys for
/// which that was needed.
pub fn merge(running: &Config, mut next: Config) -> (Config, Vec<&'static str>) {
    let mut kept = Vec::new();
    let mut keep = |key: &'static str, changed: bool| {
        if changed {
            kept.push(key);
        }
    };
    keep("address", running.address != next.address);
    keep("http_redirect_addr", running.http_redirect_addr != next.http_redirect_addr);
    keep("cores", running.cores != next.cores);
    keep("data_dir", running.data_dir != next.data_dir);
    keep("log_format", running.log_format != next.log_format);
    keep("log_level", running.log_level != next.log_level);
    next.address.clone_from(&running.address);
    next.http_redirect_addr = running.http_redirect_addr;
    next.cores.clone_from(&running.cores);
    next.data_dir.clone_from(&running.data_dir);
    next.log_format = running.log_format;
    next.log_level = running.log_level;
    (next, kept)
}
