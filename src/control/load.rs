//! Reads the certificates that an operator named and checks them, in parallel.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::clock::Moment;
use crate::config::problem::Problem;
use crate::config::{CertificatePlace, CertificateSource};
use crate::store::file;

use super::certified::{Certified, Note, Refused, Source, certify};

/// A chain or private key is a few KiB; this leaves room for a file with all of an issuer's roots.
const LONGEST_FILE: usize = 1024 * 1024;
/// What a chain's file name ends in, best first: of several with one name the first is taken.
const CHAIN_ENDINGS: [&str; 4] = [".crt", ".cert", ".cer", ".pem"];
/// What its private key's file name ends in.
const KEY_ENDINGS: [&str; 3] = [".key", "-key.pem", ".key.pem"];
/// certbot's and Caddy's name for a chain, and for its private key.
const FULL_CHAIN: (&str, &str) = ("fullchain", "privkey.pem");
/// Last words of names that issuers' certificates are kept under; nobody expects a private key there.
const NOT_LEAVES: [&str; 6] = ["ca", "chain", "root", "intermediate", "intermediates", "bundle"];

/// What was found in all sources.
#[derive(Default)]
pub struct Loaded {
    /// In the order of the sources, within a directory by file name.
    pub certified: Vec<Arc<Certified>>,
    /// What must be put right before any of it is served.
    pub problems: Vec<Problem>,
    /// What an operator should know though the rest is served.
    pub warnings: Vec<Problem>,
}

/// Loads the certificates of all sources on `threads` threads. A pair whose bytes are those of one in
/// `previous` is that one, with its private key already parsed.
///
/// A pair that was named and cannot be served is a problem; one in a directory is a warning, as the
/// others there are served. A directory is flat. In it, a chain `X.crt`, `X.cert`, `X.cer` or `X.pem`
/// goes with the private key `X.key`, `X-key.pem` or `X.key.pem`, and `fullchain.pem` with `privkey.pem`;
/// then certbot's `cert.pem` and `chain.pem` beside it are not missed. Any other chain without a private
/// key is a warning, unless its name (`ca.pem`, `X-chain.crt`) says that it is an issuer's. Names that
/// begin with a dot or are no UTF-8 are passed over.
pub fn load(
    sources: &[CertificateSource],
    threads: usize,
    previous: &[Arc<Certified>],
    now: Moment,
) -> Loaded {
    let mut loaded = Loaded::default();
    let mut tasks = Vec::new();
    for source in sources {
        match &source.place {
            CertificatePlace::Pair { cert, key } => {
                tasks.push(Task { source, in_directory: false, pair: (cert.clone(), key.clone()) });
            }
            CertificatePlace::Directory(path) => {
                let pairs = pairs_of_directory(source, path, &mut loaded);
                tasks.extend(pairs.into_iter().map(|pair| Task {
                    source,
                    in_directory: true,
                    pair,
                }));
            }
        }
    }
    let known = previous.iter().filter_map(|certified| match &certified.source {
        Source::ByHand { cert, key } => Some(((&**cert, &**key), certified)),
        Source::LocalCa => None,
    });
    let known: Known<'_> = known.collect();
    let outcomes = in_parallel(&tasks, threads, |task| load_pair(&task.pair, &known));
    for (task, outcome) in tasks.iter().zip(outcomes) {
        let problem =
            |what, remedy| Problem::new(&task.source.origin, &task.source.key, what, remedy);
        match outcome {
            Ok(certified) => {
                let notes = certified.note_of_dates(now).into_iter().chain(certified.notes.clone());
                loaded.warnings.extend(notes.map(|Note { what, remedy }| problem(what, remedy)));
                loaded.certified.push(certified);
            }
            Err(Refused { what, remedy }) if task.in_directory => {
                loaded.warnings.push(problem(what, remedy))
            }
            Err(Refused { what, remedy }) => loaded.problems.push(problem(what, remedy)),
        }
    }
    loaded
}

/// What was loaded before, by the paths of chain and private key.
type Known<'a> = HashMap<(&'a Path, &'a Path), &'a Arc<Certified>>;

struct Task<'a> {
    source: &'a CertificateSource,
    in_directory: bool,
    /// Chain and private key.
    pair: (PathBuf, PathBuf),
}

fn load_pair(
    (cert, key): &(PathBuf, PathBuf),
    known: &Known<'_>,
) -> Result<Arc<Certified>, Refused> {
    let read = |path: &Path| {
        file::read(path, LONGEST_FILE).map_err(|error| {
            Refused::new(error.to_string(), "name a PEM file that ringgate's user may read")
        })
    };
    let (chain_pem, key_pem) = (read(cert)?, read(key)?);
    if let Some(same) =
        known.get(&(&**cert, &**key)).filter(|known| known.is_from(&chain_pem, &key_pem))
    {
        return Ok(Arc::clone(same));
    }
    let source = Source::ByHand { cert: cert.clone(), key: key.clone() };
    certify(&chain_pem, &key_pem, source).map(Arc::new)
}

/// Runs `work` on every item; the outcomes are in the order of the items.
fn in_parallel<I: Sync, O: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> O + Sync,
) -> Vec<O> {
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut done = Vec::new();
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(item) = items.get(at)
        {
            done.push((at, work(item)));
        }
        done
    };
    let mut outcomes = thread::scope(|scope| {
        // This thread is one of them; where the system gives no more threads it does all the work.
        let others: Vec<_> = (1..threads.min(items.len()))
            .map_while(|_| thread::Builder::new().spawn_scoped(scope, take_turns).ok())
            .collect();
        let mut outcomes = take_turns();
        for other in others {
            match other.join() {
                Ok(done) => outcomes.extend(done),
                Err(panicked) => std::panic::resume_unwind(panicked),
            }
        }
        outcomes
    });
    outcomes.sort_unstable_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn pairs_of_directory(
    source: &CertificateSource,
    directory: &Path,
    loaded: &mut Loaded,
) -> Vec<(PathBuf, PathBuf)> {
    let problem = |what, remedy: &str| Problem::new(&source.origin, &source.key, what, remedy);
    let files = match file::list(directory) {
        Ok(files) => files,
        Err(error) => {
            let remedy = "name a directory that ringgate's user may read";
            loaded.problems.push(problem(error.to_string(), remedy));
            return Vec::new();
        }
    };
    let names: Vec<_> = files
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .filter(|name| !name.starts_with('.'))
        .collect();
    let found = pairs(&names);
    if found.pairs.is_empty() {
        loaded.problems.push(problem(
            format!("{} holds no certificate with a private key", directory.display()),
            "put pairs there, such as example.crt with example.key",
        ));
    }
    let path = |name: &str| directory.join(name);
    for name in found.lonely {
        loaded.warnings.push(problem(
            format!("{} has no private key beside it and is not served", path(name).display()),
            "put it there under the same name with the ending .key",
        ));
    }
    for (name, instead) in found.doubled {
        loaded.warnings.push(problem(
            format!(
                "{} is not served, {instead} is, with the same private key",
                path(name).display()
            ),
            "remove one of them, or give it a name of its own",
        ));
    }
    found.pairs.into_iter().map(|(chain, key)| (path(chain), path(&key))).collect()
}

/// What the names of a directory's files say.
#[derive(Debug, Default, PartialEq)]
struct Found<'a> {
    /// Chain and private key.
    pairs: Vec<(&'a str, String)>,
    /// Chains without a private key.
    lonely: Vec<&'a str>,
    /// Chains that another one of the same name is taken for.
    doubled: Vec<(&'a str, &'a str)>,
}

/// Pairs up sorted file names; [`load`] says by which rule. Pure.
fn pairs<'a>(names: &[&'a str]) -> Found<'a> {
    let all: HashSet<&str> = names.iter().copied().collect();
    // Best ending first within a stem, stems in the order of the names.
    let mut chains: Vec<_> = names.iter().filter_map(|name| chain_stem(name)).collect();
    chains.sort_unstable();
    let mut found = Found::default();
    let mut last: Option<(&str, &str)> = None;
    for (stem, _, name) in chains {
        let Some(key) = key_of(stem, &all) else {
            let of_certbot =
                matches!(stem, "cert" | "chain") && key_of(FULL_CHAIN.0, &all).is_some();
            let word = stem.rsplit(['-', '.', '_']).next().unwrap_or(stem);
            if !of_certbot && !NOT_LEAVES.contains(&word) {
                found.lonely.push(name);
            }
            continue;
        };
        match last {
            Some((served, instead)) if served == stem => found.doubled.push((name, instead)),
            _ => {
                found.pairs.push((name, key));
                last = Some((stem, name));
            }
        }
    }
    found
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

fn key_of(stem: &str, all: &HashSet<&str>) -> Option<String> {
    let mut candidates: Vec<_> =
        KEY_ENDINGS.iter().map(|ending| format!("{stem}{ending}")).collect();
    if stem == FULL_CHAIN.0 {
        candidates.push(FULL_CHAIN.1.into());
    }
    candidates.into_iter().find(|name| all.contains(name.as_str()))
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::super::certified::samples::{DAY, Issuer, NOW, Scratch};
    use super::*;
    use crate::config::problem::Origin;

    fn source(place: CertificatePlace) -> CertificateSource {
        let origin = Origin::File { path: "ringgate.yaml".into(), line: 2 };
        CertificateSource { origin, key: "certificates[0]".into(), place }
    }

    fn directory(scratch: &Scratch) -> [CertificateSource; 1] {
        [source(CertificatePlace::Directory(scratch.0.clone()))]
    }

    fn words(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    fn names(loaded: &Loaded) -> Vec<String> {
        loaded.certified.iter().map(|certified| certified.patterns[0].to_string()).collect()
    }

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
        ];
        for (files, expected) in cases {
            let mut files: Vec<_> = files.split(' ').collect();
            files.sort_unstable();
            let found = pairs(&files);
            let mut words: Vec<_> =
                found.pairs.iter().map(|(chain, key)| format!("{chain}+{key}")).collect();
            words.extend(found.lonely.iter().map(|name| format!("lonely:{name}")));
            words.extend(
                found.doubled.iter().map(|(name, instead)| format!("doubled:{name}/{instead}")),
            );
            assert_eq!(words.join(" "), *expected, "{files:?}");
        }
    }

    #[test]
    fn a_directory_serves_its_good_pairs_and_warns_of_the_others() {
        let scratch = Scratch::new("load-directory");
        let issuer = Issuer::new("load");
        for name in ["b.example", "a.example", "c.example"] {
            let (chain, key) = issuer.pair(&[name], &PKCS_ECDSA_P256_SHA256);
            scratch.write(&format!("{name}.crt"), &chain);
            scratch
                .write(&format!("{name}.key"), if name == "b.example" { "nothing" } else { &key });
        }
        scratch.write("lonely.pem", "x");
        scratch.write(".hidden.pem", "x");
        for threads in [0, 1, 2, 16] {
            let loaded = load(&directory(&scratch), threads, &[], NOW);
            assert_eq!(names(&loaded), ["a.example", "c.example"]);
            assert_eq!(words(&loaded.problems), [""; 0]);
            let warnings = words(&loaded.warnings);
            let path = scratch.0.display();
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            assert!(
                warnings[0].starts_with(&format!(
                    "ringgate.yaml:2 certificates[0]: {path}/lonely.pem has no private key"
                )),
                "{warnings:?}"
            );
            assert!(
                warnings[1].contains(&format!("{path}/b.example.key holds no private key")),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn what_was_named_and_cannot_be_served_is_a_problem() {
        let scratch = Scratch::new("load-problems");
        let good = Issuer::new("problems").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        let cert = scratch.write("a.crt", &good.0);
        let key = scratch.write("a.key", &good.1);
        let empty = scratch.0.join("empty");
        file::create_directory(&empty).unwrap();
        let sources = [
            source(CertificatePlace::Pair { cert: cert.clone(), key: key.clone() }),
            source(CertificatePlace::Pair { cert: "/nowhere/a.pem".into(), key: key.clone() }),
            source(CertificatePlace::Pair { cert: cert.clone(), key: cert.clone() }),
            source(CertificatePlace::Directory("/nowhere".into())),
            source(CertificatePlace::Directory(empty)),
        ];
        let loaded = load(&sources, 2, &[], NOW);
        assert_eq!(names(&loaded), ["a.example"]);
        let mut problems = words(&loaded.problems);
        problems.sort_unstable();
        assert_eq!(problems.len(), 4);
        for expected in [
            "cannot list /nowhere: No such file or directory; name a directory",
            "cannot read /nowhere/a.pem: No such file or directory; name a PEM file",
            "a.crt holds no private key; it must",
            "empty holds no certificate with a private key; put pairs there",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{expected} in {problems:?}"
            );
        }
    }

    #[test]
    fn dates_and_notes_are_warnings_at_every_load() {
        let scratch = Scratch::new("load-dates");
        let issuer = Issuer::new("dates");
        let key = KeyPair::generate().unwrap();
        let root = issuer.intermediate.pem() + &issuer.root.pem();
        scratch.write("late.crt", &(issuer.leaf(&["late.example"], &key, NOW.minus(DAY)) + &root));
        scratch.write("late.key", &key.serialize_pem());
        scratch.write("soon.crt", &issuer.leaf(&["soon.example"], &key, NOW.plus(DAY)));
        scratch.write("soon.key", &key.serialize_pem());
        let mut previous = Vec::new();
        for _ in 0..2 {
            let loaded = load(&directory(&scratch), 2, &previous, NOW);
            assert_eq!(names(&loaded), ["late.example", "soon.example"]);
            let warnings = words(&loaded.warnings);
            assert_eq!(warnings.len(), 3, "{warnings:?}");
            for (warning, expected) in warnings.iter().zip([
                "HAS EXPIRED on 2027-01-14",
                "is a root",
                "expires on 2027-01-16",
            ]) {
                assert!(warning.contains(expected), "{warning}");
            }
            previous = loaded.certified;
        }
    }

    #[test]
    fn an_unchanged_pair_is_taken_from_the_previous_load() {
        let scratch = Scratch::new("load-previous");
        let issuer = Issuer::new("previous");
        let write = |name: &str| {
            let (chain, key) = issuer.pair(&[name], &PKCS_ECDSA_P256_SHA256);
            scratch.write(&format!("{name}.crt"), &chain);
            scratch.write(&format!("{name}.key"), &key);
        };
        write("changed.example");
        write("kept.example");
        let before = load(&directory(&scratch), 1, &[], NOW).certified;
        write("changed.example");
        let after = load(&directory(&scratch), 1, &before, NOW).certified;
        let same: Vec<_> =
            before.iter().zip(&after).map(|(one, other)| Arc::ptr_eq(one, other)).collect();
        assert_eq!(same, [false, true]);
    }
}
