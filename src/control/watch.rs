//! Which certificates by hand have changed on disk, found cheaply enough to ask every other second.
//!
//! Three ways, each for what the others miss. The stamps of directories tell what was added, removed or
//! renamed there, wherever they are mounted. What the kernel notices tells which files, so that a change costs
//! what changed, and it tells of files that were written in place. Going through all files in turn, a share of
//! them at each look, finds the rest: links that lead elsewhere and writes of other machines.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::store::notices::{Happened, Notices};

use super::inventory::{Change, Inventory, Item};
use super::item::stamp;
use super::load::{Part, refresh};

/// How often to look. A change must be in force within 5 seconds, and a half-written file that is complained
/// of needs two looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How many directories and how many items a look asks the disk about: all, for nearly everybody. At a hundred
/// thousand names that is 8 ms, 0.4 % of a core, and each has its turn after 100 seconds (perf/results/hundred-thousand-names.md).
const SHARE: usize = 2048;

/// Where the looks are.
pub struct Watch {
    /// `None` where the system has none for us; the other ways remain.
    notices: Option<Notices>,
    next_directory: usize,
    next_item: usize,
    /// The directories to follow may be others.
    others: bool,
    /// Something that was found was not put into force.
    lost: bool,
}

impl Watch {
    pub fn new(inventory: &Inventory) -> Self {
        let notices = Notices::new().ok();
        let mut watch =
            Self { notices, next_directory: 0, next_item: 0, others: false, lost: false };
        watch.follow(inventory);
        watch
    }

    /// The next look is at another inventory.
    pub fn follow_anew(&mut self) {
        self.others = true;
    }

    /// What the last look found did not come into force: the next one is at everything.
    pub fn distrust(&mut self) {
        (self.others, self.lost) = (true, true);
    }

    fn follow(&mut self, inventory: &Inventory) {
        let Some(notices) = &mut self.notices else { return };
        let mut directories: Vec<&Path> = Vec::new();
        for holding in &inventory.holdings {
            directories.extend(holding.directories.iter().map(|(path, _)| path.as_path()));
            for item in &holding.items {
                for directory in paths(item).filter_map(|path| path.parent()) {
                    // Most lie beside one another.
                    if directories.last() != Some(&directory) {
                        directories.push(directory);
                    }
                }
            }
        }
        notices.follow(directories);
    }

    /// Looks what has changed and reads it; `None` if nothing has.
    pub fn look(
        &mut self,
        inventory: &Inventory,
        threads: usize,
        now: Moment,
    ) -> Option<(Inventory, Vec<Change>)> {
        if std::mem::take(&mut self.others) {
            self.follow(inventory);
        }
        // In this order: what happens between the two is seen by both.
        let directories = self.changed_directories(inventory, now);
        let mut happened = self.notices.as_mut().map(Notices::take).unwrap_or_default();
        happened.anything |= std::mem::take(&mut self.lost);
        let items = self.changed_items(inventory, now);
        let parts = parts(inventory, &directories, &happened, items);
        if parts.is_empty() {
            return None;
        }
        let is_whole = |(_, part): &(usize, Part)| *part == Part::Whole;
        let any_whole = parts.iter().any(is_whole);
        let (next, changes) = refresh(inventory, parts, threads, now);
        if any_whole {
            self.follow(&next);
        }
        Some((next, changes))
    }

    /// Those of this look's share whose stamp is another one.
    fn changed_directories(&mut self, inventory: &Inventory, now: Moment) -> Stamps {
        let all = inventory.holdings.iter().flat_map(|holding| &holding.directories);
        let total = all.clone().count();
        let (skip, take) = share(&mut self.next_directory, total);
        all.skip(skip)
            .take(take)
            .filter_map(|(path, known)| {
                let (stamp, _) = stamp([path.as_path()], now);
                (stamp != *known).then(|| (path.clone(), stamp))
            })
            .collect()
    }

    /// Those of this look's share whose stamp is another one, and all that are restless.
    fn changed_items(&mut self, inventory: &Inventory, now: Moment) -> Vec<(usize, usize)> {
        let total = inventory.holdings.iter().map(|holding| holding.items.len()).sum();
        let (skip, take) = share(&mut self.next_item, total);
        let turn = skip..skip + take;
        let mut changed = Vec::new();
        let mut first = 0;
        for (at, holding) in inventory.holdings.iter().enumerate() {
            let length = holding.items.len();
            let mine = turn.start.clamp(first, first + length) - first
                ..turn.end.clamp(first, first + length) - first;
            let is_changed = |item: &Arc<Item>| stamp(paths(item), now).0 != item.stamp;
            let in_turn = holding.items.get(mine.clone()).unwrap_or_default().iter().zip(mine);
            changed
                .extend(in_turn.filter(|(item, _)| is_changed(item)).map(|(_, place)| (at, place)));
            if holding.restless {
                let items = holding.items.iter().enumerate();
                changed.extend(
                    items.filter(|(_, item)| item.is_restless()).map(|(place, _)| (at, place)),
                );
            }
            first += length;
        }
        changed
    }
}

type Stamps = HashMap<PathBuf, u64>;

fn paths(item: &Arc<Item>) -> impl Iterator<Item = &Path> {
    let files = &item.files;
    let key = (files.key != files.cert).then_some(&files.key);
    [Some(&files.cert), key, files.ocsp.as_ref()].into_iter().flatten().map(PathBuf::as_path)
}

/// Which of `total` are asked about at this look: how many to skip, how many to take.
fn share(next: &mut usize, total: usize) -> (usize, usize) {
    let skip = if *next < total { *next } else { 0 };
    *next = skip + SHARE;
    (skip, SHARE)
}

/// What is to be looked at again. Pure.
fn parts(
    inventory: &Inventory,
    stamps: &Stamps,
    happened: &Happened,
    items: Vec<(usize, usize)>,
) -> Vec<(usize, Part)> {
    let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
    for (at, place) in items {
        add(&mut parts, at, place);
    }
    let noticed = Noticed::of(inventory, happened);
    for (at, holding) in inventory.holdings.iter().enumerate() {
        let is_unexplained = |directory: &Path| {
            noticed.unknown.contains(directory)
                || (stamps.contains_key(directory) && !noticed.busy.contains(directory))
        };
        let mut directories = holding.directories.iter().map(|(path, _)| path.as_path());
        if !holding.settled || happened.anything || directories.any(is_unexplained) {
            parts.insert(at, Part::Whole);
            continue;
        }
        if noticed.busy.is_empty() {
            continue;
        }
        for (place, item) in holding.items.iter().enumerate() {
            let is_meant = |path: &Path| {
                noticed.paths.contains(path)
                    || path.parent().is_some_and(|directory| noticed.unknown.contains(directory))
            };
            if paths(item).any(is_meant) {
                add(&mut parts, at, place);
            }
        }
        let explained: Vec<_> = holding
            .directories
            .iter()
            .enumerate()
            .filter_map(|(place, (path, _))| Some((place, *stamps.get(path)?)))
            .collect();
        if !explained.is_empty() {
            let part =
                parts.entry(at).or_insert(Part::Items { items: vec![], directories: vec![] });
            if let Part::Items { directories, .. } = part {
                *directories = explained;
            }
        }
    }
    for part in parts.values_mut() {
        if let Part::Items { items, .. } = part {
            items.sort_unstable();
            items.dedup();
        }
    }
    parts.into_iter().collect()
}

fn add(parts: &mut BTreeMap<usize, Part>, at: usize, place: usize) {
    let part = parts.entry(at).or_insert(Part::Items { items: vec![], directories: vec![] });
    if let Part::Items { items, .. } = part {
        items.push(place);
    }
}

/// What the kernel noticed, as far as it concerns certificates.
#[derive(Default)]
struct Noticed<'a> {
    paths: HashSet<&'a Path>,
    /// Directories in which something happened.
    busy: HashSet<&'a Path>,
    /// Those of them in which it happened to something that is no file of an item.
    unknown: HashSet<&'a Path>,
}

impl<'a> Noticed<'a> {
    fn of(inventory: &Inventory, happened: &'a Happened) -> Self {
        if happened.paths.is_empty() {
            return Self::default();
        }
        let all: HashSet<&Path> = happened.paths.iter().map(PathBuf::as_path).collect();
        let busy = all.iter().filter_map(|path| path.parent()).collect();
        let items = inventory.holdings.iter().flat_map(|holding| &holding.items);
        let known: HashSet<&Path> =
            items.flat_map(paths).filter(|path| all.contains(path)).collect();
        let unknown = all
            .iter()
            .filter(|path| !known.contains(*path) && !is_passed_over(path))
            .filter_map(|path| path.parent())
            .collect();
        Self { paths: all, busy, unknown }
    }
}

/// Whether it is a hidden file, which nobody serves: a writer's temporary one, as a rule. Not `..data`,
/// through which Kubernetes' links lead.
fn is_passed_over(path: &Path) -> bool {
    let name = path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
    name.starts_with(b".") && !name.starts_with(b"..")
}

#[cfg(test)]
mod tests {
    use super::super::inventory::Holding;
    use super::super::places::{Files, Meant};
    use super::*;
    use crate::config::problem::Origin;
    use crate::config::{CertificatePlace, CertificateSource};

    /// A directory `/d` with `a` and `b` in it, and a pair that is named, `/n/a`.
    fn inventory() -> Inventory {
        let item = |at: &str| {
            let (cert, key) = (format!("{at}.crt").into(), format!("{at}.key").into());
            let files = Files { cert, key, ocsp: None };
            let (meant, complaint) = (Meant::InDirectory, None);
            Item { files, meant, stamp: 0, settled: true, certified: None, complaint, gone: false }
                .into()
        };
        let holding = |directories: Vec<(PathBuf, u64)>, items| Holding {
            source: CertificateSource {
                origin: Origin::Default,
                key: "certificates[0]".into(),
                place: CertificatePlace::Path("/d".into()),
            },
            directories,
            settled: true,
            items,
            restless: false,
            passed_over: Vec::new(),
            complaint: None,
        };
        let directory = holding(vec![("/d".into(), 7)], vec![item("/d/a"), item("/d/b")]);
        Inventory { holdings: vec![directory.into(), holding(vec![], vec![item("/n/a")]).into()] }
    }

    #[test]
    fn a_change_costs_what_changed() {
        let items = |items: &[usize], stamp: Option<u64>| Part::Items {
            items: items.to_vec(),
            directories: stamp.map(|stamp| (0, stamp)).into_iter().collect(),
        };
        let cases = [
            ("", None, vec![], "nothing"),
            ("/d/a.crt /d/a.key", Some(8), vec![(0, items(&[0], Some(8)))], "renamed over"),
            ("/d/b.crt", None, vec![(0, items(&[1], None))], "written in place"),
            ("/d/c.crt", Some(8), vec![(0, Part::Whole)], "new"),
            ("/d/a.crt /d/c.key", Some(8), vec![(0, Part::Whole)], "known and new"),
            ("/d/.tmp", Some(8), vec![(0, items(&[], Some(8)))], "a writer's temporary file"),
            ("/d/..data", Some(8), vec![(0, Part::Whole)], "Kubernetes' swap in a directory"),
            ("/n/..data", None, vec![(1, items(&[0], None))], "and under a pair"),
            ("", Some(8), vec![(0, Part::Whole)], "by another machine"),
            ("/elsewhere/x", None, vec![], "nobody's"),
        ];
        for (paths, stamp, expected, why) in cases {
            let paths = paths.split_whitespace().map(PathBuf::from).collect();
            let happened = Happened { paths, anything: false };
            let stamps = stamp.map(|stamp| ("/d".into(), stamp)).into_iter().collect();
            assert_eq!(parts(&inventory(), &stamps, &happened, vec![]), expected, "{why}");
        }
        let happened = Happened { paths: vec![], anything: true };
        let all = parts(&inventory(), &Stamps::new(), &happened, vec![(1, 0)]);
        assert_eq!(all, [(0, Part::Whole), (1, Part::Whole)]);
        let turn = parts(&inventory(), &Stamps::new(), &Happened::default(), vec![(0, 1), (0, 1)]);
        assert_eq!(turn, [(0, items(&[1], None))]);
    }

    #[test]
    fn every_item_has_its_turn() {
        let (mut next, mut seen) = (0, vec![false; 2 * SHARE + 5]);
        for _ in 0..3 {
            let (skip, take) = share(&mut next, seen.len());
            seen.iter_mut().skip(skip).take(take).for_each(|seen| *seen = true);
        }
        assert!(seen.iter().all(|seen| *seen));
        assert_eq!(share(&mut next, 0), (0, SHARE));
    }
}
