//! Pure: the configuration in force and the next one to what a reload can change and what it cannot.

use std::path::PathBuf;

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
    let is_open = |port: &u16| running.address.iter().any(|address| address.port() == *port);
    let ports = next.address.iter().map(|address| address.port());
    next.unopened_ports = ports.filter(|port| !is_open(port)).collect();
    next.address.clone_from(&running.address);
    next.http_redirect_addr = running.http_redirect_addr;
    next.cores.clone_from(&running.cores);
    // What lies in `data_dir` unless it is said otherwise stays there too.
    let stays = |dir: &mut PathBuf| {
        if let Ok(inside) = dir.strip_prefix(&next.data_dir) {
            *dir = running.data_dir.join(inside);
        }
    };
    next.autocert.iter_mut().for_each(|autocert| stays(&mut autocert.dir));
    next.stapling.iter_mut().for_each(|stapling| stays(&mut stapling.dir));
    next.data_dir.clone_from(&running.data_dir);
    next.log_format = running.log_format;
    next.log_level = running.log_level;
    (next, kept)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::check_yaml;

    #[test]
    fn what_only_a_restart_opens_is_known() {
        let config = |text: &str| check_yaml(text).unwrap();
        let running = config("address: [':443', ':8443']\n");
        let (merged, kept) = merge(&running, config("address: [':443', '10.0.0.1:8444']\n"));
        assert_eq!((merged.unopened_ports, kept), (vec![8444], vec!["address"]));
        assert_eq!(merged.address, running.address);
        assert!(merge(&running, config("address: ':8443'\n")).0.unopened_ports.is_empty());
    }

    #[test]
    fn what_lies_in_data_dir_stays_where_it_is_and_what_lies_elsewhere_may_move() {
        let config = |text: &str| check_yaml(text).unwrap();
        let running = config("data_dir: /one\nautocert: true\n");
        let (merged, kept) = merge(&running, config("data_dir: /two\nautocert: true\n"));
        assert_eq!(kept, ["data_dir"]);
        assert_eq!(merged.data_dir, Path::new("/one"));
        assert_eq!(merged.autocert.unwrap().dir, Path::new("/one/autocert"));
        assert_eq!(merged.stapling.unwrap().dir, Path::new("/one/autocert"));
        let next = config("data_dir: /one\nautocert: true\nautocert_dir: /shared\n");
        assert_eq!(merge(&running, next).0.autocert.unwrap().dir, Path::new("/shared"));
    }
}
