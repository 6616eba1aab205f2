//! One certified key by hand: its files read and checked, or what there was kept.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::store::file;

use super::certified::{Certified, Refused, Source, certify};
use super::inventory::{Complaint, Item};
use super::places::{Files, Meant};
use super::staple;
use super::staples::response::LONGEST_RESPONSE;

/// A chain or private key is a few KiB; this leaves room for a file with all of an issuer's roots.
const LONGEST_FILE: usize = 1024 * 1024;
/// How long a file must have been quiet for its stamp to tell all. The kernel stamps writes to a few
/// milliseconds, other systems to a second: a second write within that would look the same.
const QUIET: Duration = Duration::from_secs(2);

/// Reads one certified key, or keeps what there was. `at_once` says complaints at the first look.
pub fn load_item(
    files: &Files,
    meant: Meant,
    before: Option<&Arc<Item>>,
    now: Moment,
    at_once: bool,
) -> Arc<Item> {
    let paths =
        [Some(&files.cert), (files.key != files.cert).then_some(&files.key), files.ocsp.as_ref()];
    let (stamp, settled) = stamp(paths.into_iter().flatten().map(PathBuf::as_path), now);
    if let Some(before) = before
        && (before.stamp, before.meant, &before.files) == (stamp, meant, files)
        && !before.is_restless()
    {
        return before.clone();
    }
    let standing = before.and_then(|before| before.certified.as_ref());
    let Read { certified, refused } = read(files, meant, standing);
    let complaint = refused.map(|(refused, of_staple)| {
        let before = before.and_then(|before| before.complaint.as_ref());
        match at_once {
            true => Complaint::said(refused, of_staple),
            false => Complaint::after(before, refused, of_staple),
        }
    });
    let gone = complaint.as_ref().is_some_and(|complaint| !complaint.of_staple)
        && [&files.cert, &files.key].into_iter().any(|path| is_missing(path));
    let item = Item { files: files.clone(), meant, stamp, settled, certified, complaint, gone };
    match before {
        Some(before) if before.is_like(&item) => before.clone(),
        _ => Arc::new(item),
    }
}

fn is_missing(path: &Path) -> bool {
    file::stamp(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The stamp of files together, and whether all of them have been quiet.
pub fn stamp<'a>(paths: impl IntoIterator<Item = &'a Path>, now: Moment) -> (u64, bool) {
    let mut hasher = DefaultHasher::new();
    let mut settled = true;
    for path in paths {
        let stamp = file::stamp(path).map_err(|error| error.kind());
        if let Ok(stamp) = &stamp {
            let changed = Moment::from_unix_seconds(stamp.changed_seconds());
            // One from the future is of another machine's clock, and says nothing.
            settled &= changed > now.plus(QUIET) || now.since(changed) > QUIET;
        }
        stamp.hash(&mut hasher);
    }
    (hasher.finish(), settled)
}

/// What was read.
struct Read {
    /// The new one, or the one that stands.
    certified: Option<Arc<Certified>>,
    /// What is wrong, and whether only with the staple.
    refused: Option<(Refused, bool)>,
}

fn read(files: &Files, meant: Meant, standing: Option<&Arc<Certified>>) -> Read {
    let keep = |refused| Read { certified: standing.cloned(), refused: Some((refused, false)) };
    let (chain_pem, key_pem) = match read_pems(files, standing.is_some()) {
        Ok(pems) => pems,
        Err(refused) => return keep(refused),
    };
    let key_pem = key_pem.as_deref().unwrap_or(&chain_pem);
    if meant == Meant::PerhapsCombined && !holds_private_key(&chain_pem) {
        let what =
            format!("{} has no private key beside it and is not served", files.cert.display());
        return keep(Refused::new(what, "put it there under the same name with the ending .key"));
    }
    let same = standing.filter(|standing| standing.is_from(&chain_pem, key_pem));
    let staple = files.ocsp.as_deref().map(read_staple).transpose();
    if let Some(same) = same {
        match &staple {
            // A broken staple leaves the one before, which has its own end.
            Err(refused) => {
                let refused = Some((refused.clone(), true));
                return Read { certified: Some(same.clone()), refused };
            }
            Ok(staple) if *staple == same.key.ocsp => {
                return Read { certified: Some(same.clone()), refused: None };
            }
            Ok(_) => {}
        }
    }
    let source = Source::ByHand { cert: files.cert.clone(), key: files.key.clone() };
    let mut certified = match certify(&chain_pem, key_pem, source) {
        Ok(certified) => certified,
        Err(refused) => return keep(refused),
    };
    let (staple, refused) = match staple {
        Ok(staple) => (staple, None),
        Err(refused) => (None, Some((refused, true))),
    };
    staple::attach(&mut certified, staple);
    Read { certified: Some(Arc::new(certified)), refused }
}

/// The chain's file and, if it is another one, the private key's.
fn read_pems(files: &Files, served: bool) -> Result<(Vec<u8>, Option<Vec<u8>>), Refused> {
    let read = |path: &Path| {
        file::read(path, LONGEST_FILE).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if served => Refused::new(
                format!("{} is gone", path.display()),
                "put it back, or reload to serve it no more",
            ),
            io::ErrorKind::PermissionDenied => {
                Refused::new(error.to_string(), "let ringgate's user read it (chgrp and chmod g+r)")
            }
            _ => Refused::new(error.to_string(), "name a PEM file that ringgate's user may read"),
        })
    };
    let chain = read(&files.cert)?;
    let key = (files.key != files.cert).then(|| read(&files.key)).transpose()?;
    Ok((chain, key))
}

/// Whether it looks like it: the label is PKCS#8's, SEC1's or PKCS#1's, encrypted or not.
fn holds_private_key(pem: &[u8]) -> bool {
    const END_OF_LABEL: &[u8] = b"PRIVATE KEY-----";
    pem.windows(END_OF_LABEL.len()).any(|window| window == END_OF_LABEL)
}

fn read_staple(path: &Path) -> Result<Vec<u8>, Refused> {
    let remedy = "put an OCSP response there in DER, as 'openssl ocsp -respout' writes it";
    let der = file::read(path, LONGEST_RESPONSE)
        .map_err(|error| Refused::new(format!("no staple: {error}"), remedy))?;
    match staple::check(&der) {
        Ok(()) => Ok(der),
        Err(why) => Err(Refused::new(format!("no staple: {} {why}", path.display()), remedy)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::certified::samples::{DAY, Scratch};
    use super::*;

    #[test]
    fn a_file_that_was_just_written_is_read_again_though_its_stamp_is_the_same() {
        let scratch = Scratch::new("load-quiet");
        let path = scratch.write("a", "x");
        let written = Moment::from_unix_seconds(file::stamp(&path).unwrap().changed_seconds());
        let settled = |now| stamp([path.as_path()], now).1;
        assert!(!settled(written) && !settled(written.plus(QUIET)));
        assert!(settled(written.plus(2 * QUIET)));
        // Another machine's clock is ahead: waiting for it would be in vain.
        assert!(settled(written.minus(DAY)));
    }
}
