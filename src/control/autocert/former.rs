//! Certificates of issuers that are configured no more: they serve until they are due.

use std::collections::HashSet;

use crate::config::autocert::LETS_ENCRYPT_STAGING;
use crate::name::ServerName;
use crate::store::record::Record;
use crate::store::{Store, layout};

use super::stored::{self, Known};
use super::triple::issuer_of;

/// Folders of issuers that are looked into: Caddy has three issuers by default.
const MOST_ISSUERS: usize = 16;

/// Which names have something in which issuer's folder, for issuers that are not configured.
#[derive(Debug, Default)]
pub struct Former {
    issuers: Vec<(String, HashSet<String>)>,
}

impl Former {
    /// Lists the folders once. What cannot be listed is not there.
    pub fn look<'a>(store: &dyn Store, configured: impl Iterator<Item = &'a str>) -> Self {
        let mut passed_over: HashSet<_> = configured.map(layout::issuer_key).collect();
        // Whoever has tried autocert out wants the real thing at once, and no client trusts this.
        passed_over.insert(layout::issuer_key(LETS_ENCRYPT_STAGING));
        let list = |below: &str| store.list(below).unwrap_or_default();
        let mut keys: Vec<_> =
            [list(layout::RECORDS), list(layout::CERTIFICATES)].into_iter().flatten().collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| !passed_over.contains(key) && key != LOCAL);
        keys.truncate(MOST_ISSUERS);
        let names = |key: &str| {
            let records = list(&format!("{}/{key}", layout::RECORDS));
            let records =
                records.into_iter().filter_map(|one| Some(one.strip_suffix(".json")?.into()));
            records.chain(list(&format!("{}/{key}", layout::CERTIFICATES))).collect()
        };
        let issuers = keys.into_iter().map(|key| {
            let names = names(&key);
            (key, names)
        });
        Self { issuers: issuers.collect() }
    }

    /// The certificate of this name that was issued last. What cannot be read is not there.
    pub fn read(&self, store: &dyn Store, name: &ServerName) -> Option<Known> {
        let part = layout::safe(name.as_str());
        let folders = self.issuers.iter().filter(|(_, names)| names.contains(&part));
        folders
            .filter_map(|(issuer_key, _)| {
                let directory = directory_of(store, issuer_key, name)?;
                stored::read(store, &directory, name).ok()
            })
            .filter(|known| known.certified.is_some())
            .max_by_key(|known| known.certified.as_ref().map(|one| one.not_before))
    }
}

/// Caddy's own authority.
const LOCAL: &str = "local";

/// The directory URL of the issuer with this folder, by what lies there.
fn directory_of(store: &dyn Store, issuer_key: &str, name: &ServerName) -> Option<String> {
    let ours = store.get(&layout::record(issuer_key, name.as_str())).ok().flatten();
    let directory = match ours.and_then(|bytes| Record::decode(&bytes)) {
        Some(record) => record.issuer,
        None => issuer_of(&store.get(&layout::triple(issuer_key, name.as_str()).metadata).ok()??)?,
    };
    (layout::issuer_key(&directory) == issuer_key).then_some(directory)
}

#[cfg(test)]
mod tests {
    use rcgen::PKCS_ECDSA_P256_SHA256;

    use super::super::super::certified::samples::{Issuer, NOW};
    use super::*;
    use crate::store::Expect;
    use crate::store::directory::scratch::ScratchStore;
    use crate::store::record::Certificate;

    #[test]
    fn what_another_issuer_left_is_found_by_record_and_by_certmagics_files_and_staging_is_not() {
        let (_scratch, store) = ScratchStore::new("former");
        let name = ServerName::parse("a.example").unwrap();
        let find = |store: &dyn Store| {
            let former = Former::look(store, ["https://new/dir"].into_iter());
            former.read(store, &name).map(|known| known.record.issuer)
        };
        assert_eq!(find(&store), None);
        for directory in [LETS_ENCRYPT_STAGING, "https://new/dir", "https://old/dir"] {
            let mut known = Known::nothing(Record::new("a.example", directory));
            let (chain, private_key) =
                Issuer::new("former").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
            let certificate = Certificate { chain, private_key, ..Certificate::default() };
            known.take(&name, certificate).unwrap();
            stored::commit(&store, &mut known, NOW).unwrap();
        }
        assert_eq!(find(&store).as_deref(), Some("https://old/dir"));
        // As Caddy leaves it.
        store.remove(&layout::record("old-dir", "a.example")).unwrap();
        assert_eq!(find(&store).as_deref(), Some("https://old/dir"));
        let metadata = layout::triple("old-dir", "a.example").metadata;
        store.put(&metadata, b"{}", Expect::Anything).unwrap();
        assert_eq!(find(&store), None);
    }
}
