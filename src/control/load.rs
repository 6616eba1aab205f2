//! Reads the certificates that an operator named and checks them, in parallel; what has not changed is kept.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::clock::Moment;
use crate::config::{CertificatePlace, CertificateSource};

use super::inventory::{Change, Complaint, Holding, Inventory, Item};
use super::item::{load_item, stamp};
use super::parallel::in_parallel;
use super::places::{Files, Found, Meant, find};

/// Threads that read for each core: after a boot most of the time is waiting for the disk. With one a hundred
/// thousand pairs took 13.5 s, with four 6.1, with sixteen 3.1 (perf/results/hundred-thousand-names.md).
const READERS: usize = 16;
/// More requests at once than this no disk takes, however many cores there are.
const MOST_READERS: usize = 64;

/// Loads all sources on `threads` cores as they are now; what did not change is taken from `previous`,
/// with its private key already parsed. What is broken in a directory and was good before stays in service.
/// What is missing does not: whoever starts or reloads means what is there.
pub fn load(
    sources: &[CertificateSource],
    threads: usize,
    previous: &Inventory,
    now: Moment,
) -> Inventory {
    let known: HashMap<&CertificatePlace, &Arc<Holding>> =
        previous.holdings.iter().map(|holding| (&holding.source.place, holding)).collect();
    let looked: Vec<_> = sources
        .iter()
        .map(|source| Looked::at(source, known.get(&source.place).copied(), now, false))
        .collect();
    let holdings = look_into(looked, threads, now, true);
    Inventory { holdings: holdings.into_iter().map(|(holding, _)| Arc::new(holding)).collect() }
}

/// What of a holding is to be looked at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// By their places among its items; and the stamps that directories were seen with, by their places, of
    /// which these items are all that changed.
    Items {
        items: Vec<usize>,
        directories: Vec<(usize, u64)>,
    },
}

/// Looks at parts of an inventory again, by their places in it. What is broken or gone stays as it was, with
/// a complaint. The second of the answer is what became of items; what did not change is not among them.
pub fn refresh(
    inventory: &Inventory,
    parts: Vec<(usize, Part)>,
    threads: usize,
    now: Moment,
) -> (Inventory, Vec<Change>) {
    let mut next = inventory.clone();
    let mut changes = Vec::new();
    let (mut places, mut looked) = (Vec::new(), Vec::new());
    for (at, part) in parts {
        let Some(holding) = inventory.holdings.get(at) else { continue };
        match part {
            Part::Whole => {
                places.push(at);
                looked.push(Looked::at(&holding.source, Some(holding), now, true));
            }
            Part::Items { items, directories } => {
                let items =
                    items.iter().filter_map(|item| Some((*item, holding.items.get(*item)?)));
                let items: Vec<_> = items.collect();
                let read = in_parallel(&items, threads, |(_, item)| {
                    load_item(&item.files, item.meant, Some(item), now, false)
                });
                let mut renewed = (**holding).clone();
                let before = changes.len();
                for ((place, item), read) in items.into_iter().zip(read) {
                    if !Arc::ptr_eq(item, &read) {
                        renewed.items[place] = read.clone();
                        changes.push(Change { before: Some(item.clone()), after: read });
                    }
                }
                renewed.restless = renewed.items.iter().any(|item| item.is_restless());
                for (place, stamp) in &directories {
                    if let Some((_, known)) = renewed.directories.get_mut(*place) {
                        *known = *stamp;
                    }
                }
                if changes.len() > before || !directories.is_empty() {
                    next.holdings[at] = Arc::new(renewed);
                }
            }
        }
    }
    for (at, (holding, changed)) in places.into_iter().zip(look_into(looked, threads, now, false)) {
        changes.extend(changed);
        next.holdings[at] = Arc::new(holding);
    }
    (next, changes)
}

/// A source that was looked into by name; its files are still to be read.
struct Looked<'a> {
    holding: Holding,
    /// With what was made of them before.
    files: Vec<(Files, Meant, Option<&'a Arc<Item>>)>,
}

impl<'a> Looked<'a> {
    /// With `keep`, what was found before and is not any more is among the files still.
    fn at(
        source: &CertificateSource,
        previous: Option<&'a Arc<Holding>>,
        now: Moment,
        keep: bool,
    ) -> Self {
        let before = previous.map(|holding| holding.items.as_slice()).unwrap_or_default();
        let mut holding = Holding {
            source: source.clone(),
            directories: Vec::new(),
            settled: true,
            items: Vec::new(),
            restless: false,
            passed_over: Vec::new(),
            complaint: None,
        };
        let found = match find(&source.place) {
            Ok(found) => found,
            Err(refused) if keep => {
                let complaint = previous.and_then(|holding| holding.complaint.as_ref());
                holding.complaint = Some(Complaint::after(complaint, refused, false));
                if let Some(previous) = previous {
                    holding.directories.clone_from(&previous.directories);
                    holding.items.clone_from(&previous.items);
                    holding.restless = previous.restless;
                }
                holding.settled = false;
                return Self { holding, files: Vec::new() };
            }
            Err(refused) => {
                holding.complaint = Some(Complaint::said(refused, false));
                return Self { holding, files: Vec::new() };
            }
        };
        let Found { files, directories, passed_over } = found;
        holding.passed_over = passed_over;
        for directory in directories {
            let (stamp, settled) = stamp([directory.as_path()], now);
            holding.directories.push((directory, stamp));
            holding.settled &= settled;
        }
        let known: HashMap<(&Path, &Path), &Arc<Item>> =
            before.iter().map(|item| (both(&item.files), item)).collect();
        let mut files: Vec<_> = files
            .into_iter()
            .map(|(files, meant)| {
                let item = known.get(&both(&files)).copied();
                (files, meant, item)
            })
            .collect();
        if keep {
            let found: HashSet<_> = files.iter().map(|(files, ..)| both(files)).collect();
            let is_gone = |item: &&Arc<Item>| !found.contains(&both(&item.files));
            let gone: Vec<_> =
                before.iter().filter(|item| item.certified.is_some()).filter(is_gone).collect();
            // The chain that is left of a pair is not taken for a new one that lacks a private key.
            let halves: HashSet<_> = gone.iter().map(|item| item.files.cert.as_path()).collect();
            files.retain(|(files, meant, _)| {
                *meant != Meant::PerhapsCombined || !halves.contains(files.cert.as_path())
            });
            files.extend(gone.iter().map(|item| (item.files.clone(), item.meant, Some(*item))));
        }
        Self { holding, files }
    }
}

/// What tells one certified key's files from another's.
fn both(files: &Files) -> (&Path, &Path) {
    (&files.cert, &files.key)
}

/// Reads the files of all that was looked at; in the order of what was given, with what changed.
fn look_into(
    looked: Vec<Looked<'_>>,
    threads: usize,
    now: Moment,
    at_once: bool,
) -> Vec<(Holding, Vec<Change>)> {
    let all: Vec<_> = looked.iter().flat_map(|looked| &looked.files).collect();
    let readers = threads.saturating_mul(READERS).min(MOST_READERS).max(threads);
    let items = in_parallel(&all, readers, |(files, meant, before)| {
        load_item(files, *meant, *before, now, at_once)
    });
    let mut items = items.into_iter();
    let mut holdings = Vec::with_capacity(looked.len());
    for Looked { mut holding, files } in looked {
        let mut changes = Vec::new();
        // Where the directory could not be listed, the items are those of before.
        if !files.is_empty() {
            holding.items.reserve_exact(files.len());
        }
        for ((_, _, before), item) in files.iter().zip(items.by_ref()) {
            if before.is_none_or(|before| !Arc::ptr_eq(before, &item)) {
                changes.push(Change { before: before.cloned(), after: item.clone() });
            }
            holding.restless |= item.is_restless();
            holding.items.push(item);
        }
        holdings.push((holding, changes));
    }
    holdings
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::super::certified::samples::{DAY, Issuer, NOW, Scratch};
    use super::super::inventory::{News, news};
    use super::super::staple::samples::staple;
    use super::*;
    use crate::config::problem::{Origin, Problem};
    use crate::store::file;

    fn source(place: CertificatePlace) -> CertificateSource {
        let origin = Origin::File { path: "ringgate.yaml".into(), line: 2 };
        CertificateSource { origin, key: "certificates[0]".into(), place }
    }

    fn directory(scratch: &Scratch) -> [CertificateSource; 1] {
        [source(CertificatePlace::Path(scratch.0.clone()))]
    }

    fn load_now(sources: &[CertificateSource]) -> Inventory {
        load(sources, 2, &Inventory::default(), NOW)
    }

    fn words(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(ToString::to_string).collect()
    }

    fn names(inventory: &Inventory) -> Vec<String> {
        let certified = inventory.certified(|one| one.is_valid(NOW));
        certified.iter().map(|certified| certified.patterns[0].to_string()).collect()
    }

    /// The inventory after another look at all of it, and what is said of that.
    fn look(inventory: &Inventory) -> (Inventory, News) {
        let parts = (0..inventory.holdings.len()).map(|at| (at, Part::Whole)).collect();
        let (next, changes) = refresh(inventory, parts, 2, NOW);
        let served = next.certified(|one| one.is_valid(NOW));
        let (_, news) = news(inventory, &next, &changes, &served, NOW);
        (next, news)
    }

    /// An issuer whose pairs are written as `NAME.crt` and `NAME.key`.
    fn write_pair(scratch: &Scratch, issuer: &Issuer, name: &str) {
        let (chain, key) = issuer.pair(&[name], &PKCS_ECDSA_P256_SHA256);
        scratch.write(&format!("{name}.crt"), &chain);
        scratch.write(&format!("{name}.key"), &key);
    }

    #[test]
    fn a_directory_serves_its_good_pairs_and_warns_of_the_others() {
        let scratch = Scratch::new("load-directory");
        let issuer = Issuer::new("load");
        for name in ["b.example", "a.example", "c.example"] {
            write_pair(&scratch, &issuer, name);
        }
        scratch.write("b.example.key", "nothing");
        scratch.write("lonely.pem", "x");
        scratch.write(".hidden.pem", "x");
        for threads in [0, 1, 2, 16] {
            let loaded = load(&directory(&scratch), threads, &Inventory::default(), NOW);
            assert_eq!(names(&loaded), ["a.example", "c.example"]);
            assert_eq!(words(&loaded.problems()), [""; 0]);
            let warnings = words(&loaded.warnings(NOW));
            let path = scratch.0.display();
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            assert!(
                warnings[0].contains(&format!("{path}/b.example.key holds no private key")),
                "{warnings:?}"
            );
            assert!(
                warnings[1].starts_with(&format!(
                    "ringgate.yaml:2 certificates[0]: {path}/lonely.pem has no private key"
                )),
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
        let pair = |cert: &Path, key: &Path| CertificatePlace::Pair {
            cert: cert.into(),
            key: key.into(),
            ocsp: None,
        };
        let sources = [
            source(pair(&cert, &key)),
            source(pair(Path::new("/nowhere/a.pem"), &key)),
            source(pair(&cert, &cert)),
            source(CertificatePlace::Path("/nowhere".into())),
            source(CertificatePlace::Path(empty)),
        ];
        let loaded = load_now(&sources);
        assert_eq!(names(&loaded), ["a.example"]);
        let mut problems = words(&loaded.problems());
        problems.sort_unstable();
        assert_eq!(problems.len(), 4);
        for expected in [
            "cannot look at /nowhere: No such file or directory; name a directory or a PEM file",
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
        let mut previous = Inventory::default();
        for _ in 0..2 {
            let loaded = load(&directory(&scratch), 2, &previous, NOW);
            assert_eq!(names(&loaded), ["late.example", "soon.example"]);
            let warnings = words(&loaded.warnings(NOW));
            assert_eq!(warnings.len(), 3, "{warnings:?}");
            for (warning, expected) in warnings.iter().zip([
                "HAS EXPIRED on 2027-01-14",
                "is a root",
                "expires on 2027-01-16",
            ]) {
                assert!(warning.contains(expected), "{warning}");
            }
            previous = loaded;
        }
    }

    #[test]
    fn an_unchanged_pair_is_taken_from_the_previous_load() {
        let scratch = Scratch::new("load-previous");
        let issuer = Issuer::new("previous");
        write_pair(&scratch, &issuer, "changed.example");
        write_pair(&scratch, &issuer, "kept.example");
        let before = load_now(&directory(&scratch));
        write_pair(&scratch, &issuer, "changed.example");
        // A write that changes nothing makes no other certified key of it.
        let touched = file::read(&scratch.0.join("kept.example.crt"), 10_000).unwrap();
        scratch.write("kept.example.crt", std::str::from_utf8(&touched).unwrap());
        let after = load(&directory(&scratch), 1, &before, NOW);
        let (before, after) =
            (before.certified(|one| one.is_valid(NOW)), after.certified(|one| one.is_valid(NOW)));
        let same: Vec<_> =
            before.iter().zip(&after).map(|(one, other)| Arc::ptr_eq(one, other)).collect();
        assert_eq!(same, [false, true]);
    }

    #[test]
    fn combined_files_hold_both_in_any_order_beside_what_else_openssl_writes() {
        let scratch = Scratch::new("load-combined");
        let issuer = Issuer::new("combined");
        let parameters =
            "-----BEGIN DH PARAMETERS-----\nMAYCAQUCAQI=\n-----END DH PARAMETERS-----\n";
        for (name, key_first) in [("a.example", true), ("b.example", false)] {
            let (chain, key) = issuer.pair(&[name], &PKCS_ECDSA_P256_SHA256);
            let (first, last) = if key_first { (key, chain) } else { (chain, key) };
            scratch.write(&format!("{name}.pem"), &(first + parameters + &last));
        }
        let loaded = load_now(&directory(&scratch));
        assert_eq!(names(&loaded), ["a.example", "b.example"]);
        assert_eq!((words(&loaded.problems()), words(&loaded.warnings(NOW))), (vec![], vec![]));
        let one = load_now(&[source(CertificatePlace::Path(scratch.0.join("b.example.pem")))]);
        assert_eq!(names(&one), ["b.example"]);
    }

    #[test]
    fn what_breaks_is_served_on_and_said_once_and_what_is_gone_until_a_reload() {
        let scratch = Scratch::new("load-breaks");
        let issuer = Issuer::new("breaks");
        write_pair(&scratch, &issuer, "a.example");
        let sources = directory(&scratch);
        let first = load_now(&sources);
        let same = |inventory: &Inventory| {
            Arc::ptr_eq(
                &inventory.certified(|one| one.is_valid(NOW))[0],
                &first.certified(|one| one.is_valid(NOW))[0],
            )
        };
        let whole = file::read(&scratch.0.join("a.example.crt"), 10_000).unwrap();
        let whole = String::from_utf8(whole).unwrap();

        scratch.write("a.example.crt", &whole[..whole.len() / 3]);
        let (half, said) = look(&first);
        assert!(same(&half) && said == News::default(), "{said:?}");
        let (half, said) = look(&half);
        assert!(same(&half) && said.warnings.len() == 1, "{said:?}");
        assert!(said.warnings[0].ends_with("the one before is served on"), "{said:?}");
        let (half, said) = look(&half);
        assert!(same(&half) && said == News::default(), "said once: {said:?}");

        scratch.write("a.example.crt", &whole);
        let (good, said) = look(&half);
        assert!(same(&good) && said.warnings.is_empty(), "{said:?}");
        assert!(said.good[0].ends_with("a.example.crt is good again"), "{said:?}");

        file::remove(&scratch.0.join("a.example.key")).unwrap();
        let (gone, _) = look(&good);
        let (gone, said) = look(&gone);
        assert!(same(&gone) && said.warnings[0].contains("a.example.key is gone"), "{said:?}");
        assert_eq!(gone.certified(|one| one.is_valid(NOW)).len(), 1);
        assert!(load(&sources, 1, &gone, NOW).certified(|one| one.is_valid(NOW)).is_empty());
    }

    #[test]
    fn what_is_gone_is_served_no_more_once_others_cover_its_names() {
        let scratch = Scratch::new("load-replaced");
        let issuer = Issuer::new("replaced");
        write_pair(&scratch, &issuer, "a.example");
        let first = load_now(&directory(&scratch));
        let (chain, key) = issuer.pair(&["*.example"], &PKCS_ECDSA_P256_SHA256);
        for ending in ["crt", "key"] {
            file::remove(&scratch.0.join(format!("a.example.{ending}"))).unwrap();
        }
        let (gone, _) = look(&first);
        assert_eq!(names(&gone), ["a.example"]);
        scratch.write("new.crt", &chain);
        scratch.write("new.key", &key);
        let (next, said) = look(&gone);
        assert_eq!(names(&next), ["*.example"]);
        assert!(said.warnings[0].ends_with("others serve its names"), "{said:?}");
        // Half of a swap is not taken for a removal.
        let (half, _) = look(&first);
        assert_eq!(names(&half), ["*.example", "a.example"]);
    }

    #[test]
    fn a_directory_that_cannot_be_listed_keeps_what_was_in_it() {
        let scratch = Scratch::new("load-unmounted");
        let (mount, there) = (scratch.0.join("mount"), scratch.0.join("there"));
        file::create_directory(&there).unwrap();
        let mount_it = || std::os::unix::fs::symlink("there", &mount).unwrap();
        mount_it();
        let (chain, key) = Issuer::new("unmounted").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        scratch.write("mount/a.crt", &chain);
        scratch.write("mount/a.key", &key);
        let first = load_now(&[source(CertificatePlace::Path(mount.clone()))]);
        file::remove(&mount).unwrap();
        let (next, _) = look(&first);
        let (next, said) = look(&next);
        assert_eq!(names(&next), ["a.example"]);
        assert_eq!(said.warnings.len(), 1, "{said:?}");
        mount_it();
        let (back, said) = look(&next);
        assert!(Arc::ptr_eq(
            &back.certified(|one| one.is_valid(NOW))[0],
            &first.certified(|one| one.is_valid(NOW))[0]
        ));
        assert_eq!(said.good.len(), 1, "{said:?}");
        assert!(back.problems().is_empty());
    }

    #[test]
    fn a_staple_is_put_beside_the_chain_and_a_broken_one_leaves_the_one_before() {
        let scratch = Scratch::new("load-staple");
        write_pair(&scratch, &Issuer::new("staple"), "a.example");
        let path = scratch.0.join("a.example.crt.ocsp");
        let write = |der: &[u8]| file::write(&path, der, 0o600).unwrap();
        let shown = |inventory: &Inventory| {
            inventory.certified(|one| one.is_valid(NOW))[0].key.ocsp.clone()
        };
        let first = load_now(&directory(&scratch));
        assert_eq!(shown(&first), None);
        write(&staple(0));
        let (with, said) = look(&first);
        assert_eq!((shown(&with), said.good.len()), (Some(staple(0)), 1));
        write(&staple(3));
        let (broken, _) = look(&with);
        let (broken, said) = look(&broken);
        assert_eq!(shown(&broken), Some(staple(0)));
        assert!(said.warnings[0].contains("says tryLater"), "{said:?}");
        // At a start there is none before.
        let started = load_now(&directory(&scratch));
        assert_eq!(shown(&started), None);
        assert!(started.problems().is_empty() && started.warnings(NOW).len() == 1);
    }
}
