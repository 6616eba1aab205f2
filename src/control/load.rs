//! Reads and checks the certificates that were given by hand.
//!
//! In a directory, a private key stands beside its certificate: `X.crt` (or `.cert`, `.cer`, `.pem`) with
//! `X.key`, `X-key.pem` or `X.key.pem`; and certbot's `fullchain.pem` with `privkey.pem`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Moment;
use crate::config::problem::{Origin, Problem};
use crate::config::{CertificatePlace, CertificateSource};
use crate::store::file;

use super::certified::{Certified, LARGEST_PEM_BYTES, Remark, Source, certify};

/// A certificate that ends sooner than this is warned of at load.
const EXPIRES_SOON: Duration = Duration::from_secs(7 * 24 * 3600);
/// Warnings in full; of more only the number is said, for a flood hides what matters.
const MOST_WARNINGS: usize = 10;

/// What was read.
#[derive(Debug, Default)]
pub struct Loaded {
    pub certified: Vec<Arc<Certified>>,
    /// What keeps a configuration from being used: a named pair that is broken, a directory that cannot
    /// be read.
    pub problems: Vec<Problem>,
    /// What is left out or needs attention: a broken pair in a directory, an expired certificate.
    pub warnings: Vec<Problem>,
}

/// One pair to read.
struct Pair<'a> {
    source: &'a CertificateSource,
    cert: PathBuf,
    key: PathBuf,
    /// Found in a directory: one broken pair of thousands must not keep the others from being served.
    found: bool,
}

/// Reads all of `sources`, with `threads` threads. What `previous` holds already is taken from there, with
/// its private key parsed if it was.
pub fn load(
    sources: &[CertificateSource],
    threads: usize,
    previous: &[Arc<Certified>],
    now: Moment,
) -> Loaded {
    let mut loaded = Loaded::default();
    let mut pairs = Vec::new();
    for source in sources {
        match &source.place {
            CertificatePlace::Pair { cert, key } => {
                pairs.push(Pair { source, cert: cert.clone(), key: key.clone(), found: false });
            }
            CertificatePlace::Directory(dir) => find_pairs(source, dir, &mut pairs, &mut loaded),
        }
    }
    let known: HashMap<(&[u8], &[u8]), &Arc<Certified>> =
        previous.iter().map(|c| ((c.leaf(), &*c.private_key_der), c)).collect();
    for (pair, outcome) in pairs.iter().zip(read_all(&pairs, threads)) {
        match outcome {
            Ok((certified, remarks)) => {
                let certified = match known.get(&(certified.leaf(), &*certified.private_key_der)) {
                    Some(known) if known.key.cert == certified.key.cert => (*known).clone(),
                    _ => Arc::new(certified),
                };
                let validity = validity_remark(&certified, now);
                for remark in remarks.into_iter().chain(validity) {
                    loaded.warnings.push(problem(pair, remark));
                }
                loaded.certified.push(certified);
            }
            Err(remark) if pair.found => loaded.warnings.push(problem(pair, remark)),
            Err(remark) => loaded.problems.push(problem(pair, remark)),
        }
    }
    shorten(&mut loaded.warnings);
    loaded
}

fn problem(pair: &Pair<'_>, remark: Remark) -> Problem {
    let Pair { source, cert, key, .. } = pair;
    // What could not be read names its file itself.
    let what = if remark.what.starts_with("cannot ") {
        remark.what
    } else {
        format!("{} (with {}): {}", cert.display(), key.display(), remark.what)
    };
    Problem::new(&source.origin, &source.key, what, remark.remedy)
}

fn shorten(warnings: &mut Vec<Problem>) {
    if warnings.len() > MOST_WARNINGS {
        let more = warnings.len() - MOST_WARNINGS;
        warnings.truncate(MOST_WARNINGS);
        warnings.push(Problem::new(
            &Origin::Default,
            "certificates",
            format!("{more} more like these"),
            "mend the first ones and run 'ringgate check'",
        ));
    }
}

type Outcome = Result<(Certified, Vec<Remark>), Remark>;

/// Reads the pairs in their order, a chunk per thread at a time.
fn read_all(pairs: &[Pair<'_>], threads: usize) -> Vec<Outcome> {
    /// Large enough that threads seldom meet, small enough that they end together.
    const CHUNK: usize = 64;
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = pairs.chunks(CHUNK).nth(chunk) else { return done };
            done.push((chunk, part.iter().map(read_pair).collect::<Vec<_>>()));
        }
    };
    let mut chunks = std::thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads.min(pairs.len() / CHUNK + 1)).map(|_| scope.spawn(work)).collect();
        let mut chunks = work();
        for other in others {
            match other.join() {
                Ok(done) => chunks.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        chunks
    });
    chunks.sort_by_key(|(chunk, _)| *chunk);
    chunks.into_iter().flat_map(|(_, outcomes)| outcomes).collect()
}

fn read_pair(pair: &Pair<'_>) -> Outcome {
    let unreadable = |error: std::io::Error| Remark {
        what: error.to_string(),
        remedy: "make it readable for ringgate's user, or mend the path".into(),
    };
    let chain = file::read(&pair.cert, LARGEST_PEM_BYTES).map_err(unreadable)?;
    let key = file::read(&pair.key, LARGEST_PEM_BYTES).map_err(unreadable)?;
    certify(&chain, &key, Source::ByHand { cert: pair.cert.clone(), key: pair.key.clone() })
}

fn validity_remark(certified: &Certified, now: Moment) -> Option<Remark> {
    let remark = |what: String, remedy: &str| Some(Remark { what, remedy: remedy.into() });
    if certified.not_after <= now {
        remark(
            format!("HAS EXPIRED on {}, and clients will refuse it", certified.not_after),
            "replace it now; it is served only where nothing else is",
        )
    } else if certified.not_before > now {
        remark(
            format!("is not valid before {}", certified.not_before),
            "check this machine's clock, or wait",
        )
    } else if certified.not_after.since(now) < EXPIRES_SOON {
        remark(format!("expires on {}", certified.not_after), "replace it in time")
    } else {
        None
    }
}

fn find_pairs<'a>(
    source: &'a CertificateSource,
    dir: &Path,
    pairs: &mut Vec<Pair<'a>>,
    loaded: &mut Loaded,
) {
    let report =
        |what: String, remedy: &str| Problem::new(&source.origin, &source.key, what, remedy);
    let files = match file::list(dir) {
        Ok(files) => files,
        Err(error) => {
            let remedy = "name a directory of certificates, or a pair as CERT:KEY";
            loaded.problems.push(report(error.to_string(), remedy));
            return;
        }
    };
    let before = pairs.len();
    let is_there = |path: &Path| files.binary_search_by(|file| file.as_path().cmp(path)).is_ok();
    for cert in &files {
        let Some(candidates) = private_keys_of(cert) else { continue };
        match candidates.into_iter().find(|key| is_there(key)) {
            Some(key) => pairs.push(Pair { source, cert: cert.clone(), key, found: true }),
            None if is_lone_certificate(cert) => loaded.warnings.push(report(
                format!("{} has no private key beside it", cert.display()),
                "put it there under the same name, ending in .key",
            )),
            None => {}
        }
    }
    if pairs.len() == before {
        let what = format!("{} holds no pair of certificate and private key", dir.display());
        loaded.problems.push(report(what, "put NAME.crt and NAME.key into it"));
    }
}

/// Where the private key of a certificate file may be; `None` if the file is no certificate by its name.
fn private_keys_of(cert: &Path) -> Option<Vec<PathBuf>> {
    let name = cert.file_name()?.to_str()?;
    let (stem, extension) = name.rsplit_once('.')?;
    let is_key = stem.ends_with("-key") || stem.ends_with(".key") || stem == "privkey";
    if !matches!(extension, "crt" | "cert" | "cer" | "pem") || is_key || stem.is_empty() {
        return None;
    }
    let beside = |name: String| cert.with_file_name(name);
    let mut keys = vec![
        beside(format!("{stem}.key")),
        beside(format!("{stem}-key.pem")),
        beside(format!("{stem}.key.pem")),
    ];
    if name == "fullchain.pem" {
        keys.push(beside("privkey.pem".into()));
    }
    Some(keys)
}

/// Whether a certificate without a private key is a mistake: a `.pem` may as well be a chain or a CA.
fn is_lone_certificate(cert: &Path) -> bool {
    cert.extension().is_some_and(|extension| extension != "pem")
        && cert.file_stem().is_none_or(|stem| stem != "ca")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_keys_are_sought_under_the_usual_names() {
        let keys = |name: &str| {
            private_keys_of(&Path::new("/c").join(name)).map(|keys| {
                let names = keys.iter().map(|key| key.file_name().unwrap().to_str().unwrap());
                names.collect::<Vec<_>>().join(" ")
            })
        };
        assert_eq!(keys("a.crt").as_deref(), Some("a.key a-key.pem a.key.pem"));
        assert_eq!(keys("a.b.pem").as_deref(), Some("a.b.key a.b-key.pem a.b.key.pem"));
        assert!(keys("fullchain.pem").unwrap().ends_with(" privkey.pem"));
        for none in ["a.key", "a-key.pem", "a.key.pem", "privkey.pem", "README", ".crt"] {
            assert_eq!(keys(none), None, "{none}");
        }
    }

    #[test]
    fn a_flood_of_warnings_is_cut_to_the_first_and_a_number() {
        let one = Problem::new(&Origin::Default, "k", "w", "r");
        let mut warnings = vec![one; 500];
        shorten(&mut warnings);
        assert_eq!(warnings.len(), MOST_WARNINGS + 1);
        assert!(warnings[MOST_WARNINGS].what.starts_with("490 more"));
    }
}
