//! Server name to value: exact names first, then one-label wildcards, then `*`.
//!
//! Built for a million names: looking up allocates nothing, and a changed map shares every shard that
//! did not change with the map it came from.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::name::{Pattern, parent_of};

use super::short_name::ShortName;

/// Names in a shard of a freshly built map, on average. A publish copies one shard per changed name and
/// the list of shards once: at a million names that is 512 entries and 2,048 pointers.
const NAMES_PER_SHARD: usize = 512;
/// A map that has outgrown its shards by this factor is built anew at the next change.
const OUTGROWN: usize = 8;

/// An immutable, sharded index of names. `T` should be cheap to clone, such as an `Arc`.
#[derive(Clone)]
pub struct NameMap<T> {
    hasher: RandomState,
    /// A power of two of them, picked by the upper half of the hash.
    shards: Box<[Arc<Shard<T>>]>,
    any: Option<T>,
    len: usize,
}

#[derive(Clone)]
struct Shard<T> {
    entries: HashTable<Entry<T>>,
}

/// Aligned, for a lookup that finds an entry then reads one cache line and not two.
#[derive(Clone)]
#[repr(align(64))]
struct Entry<T> {
    name: ShortName,
    value: T,
}

impl<T: Clone> Default for NameMap<T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T: Clone> NameMap<T> {
    pub fn empty() -> Self {
        Self::new(RandomState::default(), 0)
    }

    fn new(hasher: RandomState, expected: usize) -> Self {
        let count = (expected / NAMES_PER_SHARD).next_power_of_two();
        let empty = Arc::new(Shard { entries: HashTable::new() });
        Self { hasher, shards: vec![empty; count].into(), any: None, len: 0 }
    }

    /// Builds a map at once. Of two values for one pattern the later one stays.
    pub fn build(entries: impl ExactSizeIterator<Item = (Pattern, T)>) -> Self {
        let mut map = Self::new(RandomState::default(), entries.len());
        for (pattern, value) in entries {
            map.set(&pattern, Some(value));
        }
        map
    }

    /// How many patterns the map holds.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value for a normalised name: exact, else the wildcard one label up, else `*`.
    pub fn lookup(&self, name: &str) -> Option<&T> {
        self.find(false, name).or_else(|| self.find(true, parent_of(name)?)).or(self.any.as_ref())
    }

    /// The value stored for exactly this pattern.
    pub fn get(&self, pattern: &Pattern) -> Option<&T> {
        match pattern {
            Pattern::Exact(name) => self.find(false, name.as_str()),
            Pattern::Wildcard(parent) => self.find(true, parent.as_str()),
            Pattern::Any => self.any.as_ref(),
        }
    }

    /// A map with these patterns set (`Some`) or removed (`None`), sharing all other shards.
    pub fn changed<'a>(&self, changes: impl IntoIterator<Item = (&'a Pattern, Option<T>)>) -> Self {
        let mut next = if self.len > self.shards.len() * NAMES_PER_SHARD * OUTGROWN {
            self.regrown()
        } else {
            self.clone()
        };
        for (pattern, value) in changes {
            next.set(pattern, value);
        }
        next
    }

    fn regrown(&self) -> Self {
        let mut next = Self::new(self.hasher.clone(), self.len);
        for entry in self.shards.iter().flat_map(|shard| shard.entries.iter()) {
            let hash = next.hash(entry.name.wildcard(), entry.name.bytes());
            next.insert(hash, entry.clone());
        }
        next.any = self.any.clone();
        next.len = self.len;
        next
    }

    fn set(&mut self, pattern: &Pattern, value: Option<T>) {
        let (wildcard, name) = match pattern {
            Pattern::Exact(name) => (false, name.as_str()),
            Pattern::Wildcard(parent) => (true, parent.as_str()),
            Pattern::Any => {
                self.len =
                    self.len - usize::from(self.any.is_some()) + usize::from(value.is_some());
                self.any = value;
                return;
            }
        };
        let hash = self.hash(wildcard, name.as_bytes());
        let shard = self.shard_index(hash);
        let shard = Arc::make_mut(&mut self.shards[shard]);
        if let Ok(found) = shard.entries.find_entry(hash, |entry| entry.name.is(wildcard, name)) {
            found.remove();
            self.len -= 1;
        }
        if let Some(value) = value {
            self.insert(hash, Entry { name: ShortName::new(wildcard, name), value });
            self.len += 1;
        }
    }

    fn insert(&mut self, hash: u64, entry: Entry<T>) {
        let index = self.shard_index(hash);
        let hasher = self.hasher.clone();
        Arc::make_mut(&mut self.shards[index]).entries.insert_unique(hash, entry, |entry| {
            hash_with(&hasher, entry.name.wildcard(), entry.name.bytes())
        });
    }

    fn find(&self, wildcard: bool, name: &str) -> Option<&T> {
        let hash = self.hash(wildcard, name.as_bytes());
        let shard = self.shards.get(self.shard_index(hash))?;
        let entry = shard.entries.find(hash, |entry| entry.name.is(wildcard, name))?;
        Some(&entry.value)
    }

    fn hash(&self, wildcard: bool, name: &[u8]) -> u64 {
        hash_with(&self.hasher, wildcard, name)
    }

    fn shard_index(&self, hash: u64) -> usize {
        // The table inside the shard uses the lowest and the highest bits; these are between.
        (hash >> 24) as usize & (self.shards.len() - 1)
    }
}

fn hash_with(hasher: &RandomState, wildcard: bool, name: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(name);
    state.write_u8(u8::from(wildcard));
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn the_exact_name_wins_then_the_wildcard_then_any() {
        let map = NameMap::build(
            ["a.example.com", "*.example.com", "*", "10.0.0.1"]
                .map(|text| (pattern(text), text))
                .into_iter(),
        );
        for (name, expected) in [
            ("a.example.com", "a.example.com"),
            ("b.example.com", "*.example.com"),
            ("example.com", "*"),
            ("x.a.example.com", "*"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(map.lookup(name), Some(&expected), "{name}");
        }
        let without = map.changed([(&Pattern::Any, None)]);
        assert_eq!(without.lookup("example.com"), None);
        assert_eq!((map.len(), without.len()), (4, 3));
    }

    #[test]
    fn a_change_copies_one_shard_and_shares_the_rest() {
        let names: Vec<_> = (0..10_000).map(|n| (pattern(&format!("n{n}.example")), n)).collect();
        let before = NameMap::build(names.into_iter());
        let after = before.changed([(&pattern("n77.example"), Some(0))]);
        let copied =
            before.shards.iter().zip(&after.shards).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!(copied, 1);
        assert_eq!(
            (before.lookup("n77.example"), after.lookup("n77.example")),
            (Some(&77), Some(&0))
        );
    }

    proptest! {
        #[test]
        fn it_answers_like_a_plain_map(changes in proptest::collection::vec((0u8..30, any::<bool>(), proptest::option::of(any::<u32>())), 0..200)) {
            let mut plain: HashMap<Pattern, u32> = HashMap::new();
            let mut map = NameMap::empty();
            for (n, wildcard, value) in changes {
                let pattern = pattern(&format!("{}n{n}.example", if wildcard { "*." } else { "" }));
                map = map.changed([(&pattern, value)]);
                match value {
                    Some(value) => plain.insert(pattern, value),
                    None => plain.remove(&pattern),
                };
            }
            prop_assert_eq!(map.len(), plain.len());
            for (pattern, value) in &plain {
                prop_assert_eq!(map.get(pattern), Some(value));
            }
        }

        #[test]
        fn growing_one_by_one_loses_nothing(count in 0usize..6000) {
            let mut map = NameMap::empty();
            let names: Vec<_> = (0..count).map(|n| pattern(&format!("n{n}.example"))).collect();
            for chunk in names.chunks(500) {
                map = map.changed(chunk.iter().map(|name| (name, Some(()))));
            }
            prop_assert!(names.iter().all(|name| map.get(name).is_some()));
            prop_assert_eq!(map.len(), count);
        }
    }
}
