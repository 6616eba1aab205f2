//! Installs the local CA's root into the machine's trust store.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::store::file;

/// A trust store: the directory that takes anchors, and the command that reads it.
struct TrustStore {
    anchors: &'static str,
    refresh: &'static [&'static str],
}

/// Debian's and Alpine's, Fedora's, SUSE's, Arch's.
const TRUST_STORES: [TrustStore; 4] = [
    TrustStore {
        anchors: "/usr/local/share/ca-certificates",
        refresh: &["update-ca-certificates"],
    },
    TrustStore {
        anchors: "/etc/pki/ca-trust/source/anchors",
        refresh: &["update-ca-trust", "extract"],
    },
    TrustStore { anchors: "/etc/pki/trust/anchors", refresh: &["update-ca-certificates"] },
    TrustStore {
        anchors: "/etc/ca-certificates/trust-source/anchors",
        refresh: &["trust", "extract-compat"],
    },
];

/// Copies the root to the trust store and refreshes that. Returns where it went.
///
/// # Errors
/// In words, with what to do.
pub fn install(root_pem: &str, fingerprint: &str) -> Result<PathBuf, String> {
    let store = TRUST_STORES
        .iter()
        .find(|store| Path::new(store.anchors).is_dir())
        .ok_or("this system's trust store is not one that ringgate knows; run 'ringgate trust' and add what it prints by hand")?;
    // Named for the root, so that those of several data_dirs live side by side.
    let path = Path::new(store.anchors).join(format!("ringgate-{fingerprint}.crt"));
    file::write(&path, root_pem.as_bytes(), 0o644).map_err(|error| {
        format!("{error}; run it as root, or add what 'ringgate trust' prints by hand")
    })?;
    let (program, arguments) = store.refresh.split_first().ok_or("no command to refresh")?;
    let refreshed = Command::new(program).args(arguments).output();
    match refreshed {
        Ok(output) if output.status.success() => Ok(path),
        Ok(output) => {
            Err(format!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => {
            Err(format!("cannot run {program}: {error}; install the package ca-certificates"))
        }
    }
}
