//! Which files a source of certificates names, by their names alone.
//!
//! - A file holds chain and private key, in any order (hitch's and HAProxy's form); with a `FILE.key` beside
//!   it that is the private key. `FILE.ocsp` is its staple.
//! - In a directory, a chain `X.crt`, `X.cert`, `X.cer` or `X.pem` goes with the private key `X.key`,
//!   `X-key.pem`, `X.key.pem` or `X.pem.key`, and `fullchain.pem` with `privkey.pem`; then certbot's `cert.pem`
//!   and `chain.pem` beside it are not missed. Any other chain is taken for a combined file, unless its name
//!   (`ca.pem`, `X-chain.crt`) says that it is an issuer's. `X.crt.ocsp` or `X.ocsp` is the staple.
//! - Of a directory's directories only those are served that hold what certbot (`fullchain.pem` and
//!   `privkey.pem`) or Kubernetes (`tls.crt` and `tls.key`) leave there: so `live/` and a folder of mounted
//!   secrets can be named as they are, and a folder `old/` does not come back to life.
//!
//! Names that begin with a dot (`..data`) or are no UTF-8 are passed over.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::config::CertificatePlace;
use crate::store::file;

use super::certified::Refused;

/// What a chain's file name ends in, best first: of several with one name the first is taken.
const CHAIN_ENDINGS: [&str; 4] = [".crt", ".cert", ".cer", ".pem"];
/// What its private key's file name ends in, after the stem.
const KEY_ENDINGS: [&str; 3] = [".key", "-key.pem", ".key.pem"];
/// What HAProxy puts after the whole name of a chain's file: its private key and its staple.
const KEY_AFTER: &str = ".key";
const STAPLE_AFTER: &str = ".ocsp";
/// certbot's and Caddy's name for a chain, and for its private key.
const FULL_CHAIN: (&str, &str) = ("fullchain", "privkey.pem");
const READABLE: &str = "name a directory or a PEM file that ringgate's user may read";
/// What makes a directory in a directory one of certbot or Kubernetes.
const FOLDERS: [(&str, &str); 2] = [("fullchain.pem", "privkey.pem"), ("tls.crt", "tls.key")];
/// Last words of names that issuers' certificates are kept under; nobody expects a private key there.
const NOT_LEAVES: [&str; 6] = ["ca", "chain", "root", "intermediate", "intermediates", "bundle"];

/// The files of one certified key; chain and private key may be one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ocsp: Option<PathBuf>,
}

/// How the files of a certified key came to be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// An entry of the configuration names them.
    Named,
    /// They lie in a directory that one names.
    InDirectory,
    /// It lies there and may hold a private key, or have lost it.
    PerhapsCombined,
}

/// What a source leads to.
#[derive(Debug, Default)]
pub struct Found {
    pub files: Vec<(Files, Meant)>,
    /// A change in one of these may change what is found.
    pub directories: Vec<PathBuf>,
    /// Files that are passed over, and why that may surprise.
    pub passed_over: Vec<Refused>,
}

/// Finds the files of a source.
///
/// # Errors
/// A path that leads nowhere, or to a directory that cannot be listed.
pub fn find(place: &CertificatePlace) -> Result<Found, Refused> {
    match place {
        CertificatePlace::Pair { cert, key, ocsp } => {
            // Where none is named, one may turn up beside the chain.
            let beside = ocsp.is_none().then(|| cert.parent()).flatten();
            let ocsp = ocsp.clone().or_else(|| staple_beside(cert));
            let files = Files { cert: cert.clone(), key: key.clone(), ocsp };
            let directories = beside.map(Path::to_owned).into_iter().collect();
            Ok(Found { files: vec![(files, Meant::Named)], directories, ..Found::default() })
        }
        CertificatePlace::Path(path) if file::is_directory(path) => in_directory(path),
        CertificatePlace::Path(path) => match file::stamp(path) {
            Ok(_) => Ok(combined(path)),
            Err(error) => Err(Refused::new(error.to_string(), READABLE)),
        },
    }
}

fn combined(path: &Path) -> Found {
    let key = beside(path, KEY_AFTER).unwrap_or_else(|| path.to_owned());
    let files = Files { cert: path.to_owned(), key, ocsp: staple_beside(path) };
    let directories = path.parent().map(Path::to_owned).into_iter().collect();
    Found { files: vec![(files, Meant::Named)], directories, ..Found::default() }
}

/// The file beside this one whose name goes on with `ending`, if it is there.
fn beside(path: &Path, ending: &str) -> Option<PathBuf> {
    with_ending(path, ending).filter(|path| file::stamp(path).is_ok())
}

fn staple_beside(cert: &Path) -> Option<PathBuf> {
    beside(cert, STAPLE_AFTER)
}

fn with_ending(path: &Path, ending: &str) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(ending);
    Some(path.with_file_name(name))
}

fn in_directory(directory: &Path) -> Result<Found, Refused> {
    let listed =
        file::list(directory).map_err(|error| Refused::new(error.to_string(), READABLE))?;
    let names = visible_names(&listed.files);
    let paired = pairs(&names);
    let path = |name: &str| directory.join(name);
    let mut found = Found { directories: vec![directory.to_owned()], ..Found::default() };
    found.files.extend(paired.pairs.into_iter().map(|(cert, key, ocsp)| {
        let ocsp = ocsp.as_deref().map(path);
        (Files { cert: path(cert), key: path(&key), ocsp }, Meant::InDirectory)
    }));
    found.files.extend(paired.lonely.into_iter().map(|(name, ocsp)| {
        let ocsp = ocsp.as_deref().map(path);
        (Files { cert: path(name), key: path(name), ocsp }, Meant::PerhapsCombined)
    }));
    found.passed_over.extend(paired.doubled.into_iter().map(|(name, instead)| {
        let what = format!(
            "{} is not served, {instead} is, with the same private key",
            path(name).display()
        );
        Refused::new(what, "remove one of them, or give it a name of its own")
    }));
    for name in visible_names(&listed.directories) {
        let folder = path(name);
        let pair = FOLDERS.iter().map(|(cert, key)| (folder.join(cert), folder.join(key)));
        let there = |(cert, key): &(PathBuf, PathBuf)| {
            file::stamp(cert).is_ok() && file::stamp(key).is_ok()
        };
        found.files.extend(pair.filter(there).map(|(cert, key)| {
            let ocsp = staple_beside(&cert);
            (Files { cert, key, ocsp }, Meant::InDirectory)
        }));
        found.directories.push(folder);
    }
    Ok(found)
}

fn visible_names(paths: &[PathBuf]) -> Vec<&str> {
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// What the names of a directory's files say.
#[derive(Debug, Default, PartialEq)]
struct Paired<'a> {
    /// Chain, private key, and staple.
    pairs: Vec<(&'a str, String, Option<String>)>,
    /// Chains without a private key beside them, and their staples.
    lonely: Vec<(&'a str, Option<String>)>,
    /// Chains that another one of the same name is taken for.
    doubled: Vec<(&'a str, &'a str)>,
}

/// Pairs up sorted file names. Pure.
fn pairs<'a>(names: &[&'a str]) -> Paired<'a> {
    let all: HashSet<&str> = names.iter().copied().collect();
    // Best ending first within a stem, stems in the order of the names.
    let mut chains: Vec<_> = names.iter().filter_map(|name| chain_stem(name)).collect();
    chains.sort_unstable();
    let mut paired = Paired::default();
    let mut last: Option<(&str, &str)> = None;
    for (stem, _, name) in chains {
        let staple = [name, stem]
            .map(|before| format!("{before}{STAPLE_AFTER}"))
            .into_iter()
            .find(|staple| all.contains(staple.as_str()));
        let Some(key) = key_of(stem, name, &all) else {
            let of_certbot = matches!(stem, "cert" | "chain")
                && key_of(FULL_CHAIN.0, "fullchain.pem", &all).is_some();
            let word = stem.rsplit(['-', '.', '_']).next().unwrap_or(stem);
            if !of_certbot && !NOT_LEAVES.contains(&word) {
                paired.lonely.push((name, staple));
            }
            continue;
        };
        match last {
            Some((served, instead)) if served == stem => paired.doubled.push((name, instead)),
            _ => {
                paired.pairs.push((name, key, staple));
                last = Some((stem, name));
            }
        }
    }
    paired
}

/// The stem of a chain's file name, the rank of its ending, and the name.
fn chain_stem(name: &str) -> Option<(&str, usize, &str)> {
    let is_key = KEY_ENDINGS.iter().any(|ending| name.ends_with(ending)) || name == FULL_CHAIN.1;
    let (rank, stem) = CHAIN_ENDINGS
        .iter()
        .enumerate()
        .find_map(|(rank, ending)| Some((rank, name.strip_suffix(ending)?)))?;
    (!is_key && !stem.is_empty()).then_some((stem, rank, name))
}

fn key_of(stem: &str, name: &str, all: &HashSet<&str>) -> Option<String> {
    let mut candidates: Vec<_> =
        KEY_ENDINGS.iter().map(|ending| format!("{stem}{ending}")).collect();
    candidates.push(format!("{name}{KEY_AFTER}"));
    if stem == FULL_CHAIN.0 {
        candidates.push(FULL_CHAIN.1.into());
    }
    candidates.into_iter().find(|name| all.contains(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::certified::samples::Scratch;
    use super::*;

    #[test]
    fn file_names_are_paired() {
        let cases: &[(&str, &str)] = &[
            (
                "a.crt a.key b.pem b-key.pem c.cer c.key.pem d.cert d.key",
                "a.crt+a.key b.pem+b-key.pem c.cer+c.key.pem d.cert+d.key",
            ),
            ("tls.crt tls.key ca.crt", "tls.crt+tls.key"),
            ("cert.pem chain.pem fullchain.pem privkey.pem README", "fullchain.pem+privkey.pem"),
            ("fullchain.pem fullchain.key", "fullchain.pem+fullchain.key"),
            ("a.example.com.crt a.example.com.key", "a.example.com.crt+a.example.com.key"),
            ("_.a.example.pem _.a.example-key.pem", "_.a.example.pem+_.a.example-key.pem"),
            ("a.cer a.crt a.key a.pem", "a.crt+a.key doubled:a.cer/a.crt doubled:a.pem/a.crt"),
            ("a.pem b.crt cert.pem", "lonely:a.pem lonely:b.crt lonely:cert.pem"),
            ("ca.pem chain.pem example-chain.crt my_root.cer ca-bundle.crt", ""),
            ("a.key b-key.pem privkey.pem .crt dhparam.txt", ""),
            ("a.pem a.pem.key a.pem.ocsp", "a.pem+a.pem.key+a.pem.ocsp"),
            ("a.crt a.key a.ocsp b.pem b.pem.ocsp", "a.crt+a.key+a.ocsp lonely:b.pem+b.pem.ocsp"),
        ];
        for (files, expected) in cases {
            let mut files: Vec<_> = files.split(' ').collect();
            files.sort_unstable();
            let paired = pairs(&files);
            let staple =
                |ocsp: &Option<String>| ocsp.as_ref().map_or(String::new(), |o| format!("+{o}"));
            let mut words: Vec<_> = paired
                .pairs
                .iter()
                .map(|(chain, key, ocsp)| format!("{chain}+{key}{}", staple(ocsp)))
                .collect();
            words.extend(
                paired.lonely.iter().map(|(name, ocsp)| format!("lonely:{name}{}", staple(ocsp))),
            );
            words.extend(
                paired.doubled.iter().map(|(name, instead)| format!("doubled:{name}/{instead}")),
            );
            assert_eq!(words.join(" "), *expected, "{files:?}");
        }
    }

    #[test]
    fn folders_of_certbot_and_kubernetes_are_found_and_no_others() {
        let scratch = Scratch::new("places-folders");
        let write = |name: &str| {
            file::create_directory(scratch.0.join(name).parent().unwrap()).unwrap();
            scratch.write(name, "");
        };
        for name in [
            "live/a.example/fullchain.pem",
            "live/a.example/privkey.pem",
            "live/a.example/cert.pem",
            "live/half.example/fullchain.pem",
            "live/old/b.crt",
            "live/old/b.key",
            "live/..data/tls.crt",
            "live/..data/tls.key",
            "live/shop/tls.crt",
            "live/shop/tls.key",
            "live/README",
        ] {
            write(name);
        }
        let live = scratch.0.join("live");
        let found = find(&CertificatePlace::Path(live.clone())).unwrap();
        let pairs: Vec<_> = found
            .files
            .iter()
            .map(|(files, meant)| (files.cert.strip_prefix(&live).unwrap(), *meant))
            .collect();
        assert_eq!(
            pairs,
            [
                (Path::new("a.example/fullchain.pem"), Meant::InDirectory),
                (Path::new("shop/tls.crt"), Meant::InDirectory)
            ]
        );
        // The half one is looked at again when something appears in it.
        assert!(found.directories.contains(&live.join("half.example")));
        assert_eq!(found.directories.len(), 5);
    }

    #[test]
    fn a_staple_beside_a_pair_is_found_unless_another_is_named() {
        let scratch = Scratch::new("places-pair");
        let (cert, key) = (scratch.write("a.crt", ""), scratch.write("a.key", ""));
        let find = |ocsp: Option<PathBuf>| {
            let place = CertificatePlace::Pair { cert: cert.clone(), key: key.clone(), ocsp };
            let found = find(&place).unwrap();
            (found.files[0].0.ocsp.clone(), found.directories)
        };
        assert_eq!(find(None), (None, vec![scratch.0.clone()]));
        let beside = scratch.write("a.crt.ocsp", "");
        assert_eq!(find(None).0, Some(beside));
        let named = Some(scratch.0.join("other"));
        assert_eq!(find(named.clone()), (named, Vec::new()));
    }

    #[test]
    fn a_file_is_combined_unless_its_private_key_lies_beside() {
        let scratch = Scratch::new("places-file");
        let cert = scratch.write("a.pem", "");
        let find = || find(&CertificatePlace::Path(cert.clone())).unwrap().files[0].0.clone();
        assert_eq!(find(), Files { cert: cert.clone(), key: cert.clone(), ocsp: None });
        let (key, ocsp) = (scratch.write("a.pem.key", ""), Some(scratch.write("a.pem.ocsp", "")));
        assert_eq!(find(), Files { cert: cert.clone(), key, ocsp });
    }
}
