//! The state of one name in the store: our record, which is the truth, and CertMagic's three files, which
//! follow it or are taken over.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use tracing::debug;

use crate::clock::Moment;
use crate::name::{Pattern, ServerName};
use crate::store::record::{Certificate, Record};
use crate::store::{Expect, Store, layout};

use super::super::certified::{Certified, Source, certify};
use super::ari;
use super::renewal::Validity;
use super::triple::{Contents, digest_of, is_about};

/// Somebody else's file is judged only after it has been left alone for so long: CertMagic writes its three
/// one after the other.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// What is known of a name.
#[derive(Clone, Debug)]
pub struct Known {
    pub record: Record,
    /// The record's certificate, checked.
    pub certified: Option<Arc<Certified>>,
    /// The store does not hold all of this, or CertMagic's files do not follow it yet.
    pub unsettled: bool,
}

impl Known {
    /// A name without a certificate.
    pub fn nothing(record: Record) -> Self {
        Self { record, certified: None, unsettled: false }
    }

    /// Whether a certificate that was found counts instead: one that was issued later or, where ours was
    /// found there too, the one that is there now.
    fn gives_way_to(&self, found: &Certified) -> bool {
        self.certified.as_ref().is_none_or(|ours| {
            found.not_before > ours.not_before
                || (found.not_before == ours.not_before && !self.is_obtained())
        })
    }

    /// Whether we got the certificate from the issuer ourselves.
    pub fn is_obtained(&self) -> bool {
        self.record.certificate.as_ref().is_some_and(|certificate| certificate.obtained.is_some())
    }

    /// Whether the issuer has taken the certificate back.
    pub fn is_revoked(&self) -> bool {
        self.record.certificate.as_ref().is_some_and(|certificate| certificate.revoked)
    }

    /// The dates that decisions are made from.
    pub fn validity(&self) -> Option<Validity> {
        let certified = self.certified.as_ref()?;
        let leaf = certified.key.cert.first()?;
        let hash = digest(&SHA256, leaf);
        let seed = hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Some(Validity { not_before: certified.not_before, not_after: certified.not_after, seed })
    }

    /// Takes over a certificate that was just issued or found.
    ///
    /// # Errors
    /// Why it cannot be served.
    pub fn take(&mut self, name: &ServerName, certificate: Certificate) -> Result<(), String> {
        self.take_unless_held(name, certificate, None)
    }

    fn take_unless_held(
        &mut self,
        name: &ServerName,
        certificate: Certificate,
        held: Option<&Arc<Certified>>,
    ) -> Result<(), String> {
        let certified = check(&self.record.issuer, name, &certificate, held)?;
        self.record.certificate = Some(certificate);
        self.certified = Some(certified);
        Ok(())
    }
}

/// Checks a certificate of this issuer for this name, unless it is the one that is held.
fn check(
    issuer: &str,
    name: &ServerName,
    certificate: &Certificate,
    held: Option<&Arc<Certified>>,
) -> Result<Arc<Certified>, String> {
    let (chain, private_key) = (certificate.chain.as_bytes(), certificate.private_key.as_bytes());
    if let Some(held) = held.filter(|held| held.is_from(chain, private_key)) {
        return Ok(held.clone());
    }
    let source = Source::Issued { issuer: issuer.into() };
    let certified = certify(chain, private_key, source).map_err(|refused| refused.to_string())?;
    if !certified.patterns.contains(&Pattern::Exact(name.clone())) {
        let names: Vec<_> = certified.patterns.iter().map(ToString::to_string).collect();
        return Err(format!("the certificate is for {}, not for {name}", names.join(", ")));
    }
    Ok(Arc::new(certified))
}

/// Reads what the store knows of a name. Of two certificates that can be served the one that was issued
/// later counts: ours, or one that CertMagic left in its files.
///
/// # Errors
/// If the store cannot be read; then nothing is known, and nothing may be concluded from that.
pub fn read(store: &dyn Store, issuer: &str, name: &ServerName) -> io::Result<Known> {
    read_again(store, issuer, name, None)
}

/// Reads it as `read` does. `held` is what was read or taken before at this issuer for this name: where the
/// bytes are still its own, it is not made and checked again.
///
/// # Errors
/// If the store cannot be read.
pub fn read_again(
    store: &dyn Store,
    issuer: &str,
    name: &ServerName,
    held: Option<&Arc<Certified>>,
) -> io::Result<Known> {
    let issuer_key = layout::issuer_key(issuer);
    let text = name.as_str();
    let stored = store.get(&layout::record(&issuer_key, text))?;
    let decoded = stored.as_deref().and_then(Record::decode);
    let mut known = Known {
        unsettled: stored.is_some() && decoded.is_none(),
        record: decoded.unwrap_or_else(|| Record::new(text, issuer)),
        certified: None,
    };
    if let Some(certificate) = known.record.certificate.take()
        && let Err(_damaged) = known.take_unless_held(name, certificate, held)
    {
        known.unsettled = true;
    }
    let found = contents(store, &issuer_key, text)?;
    if let Some(mut certificate) = found.certificate()
        && known.record.certificate.as_ref().is_none_or(|ours| ours.chain != certificate.chain)
        && let Ok(theirs) = check(issuer, name, &certificate, held)
        && known.gives_way_to(&theirs)
    {
        // CertMagic keeps a window over a renewal until it asks again.
        let id = theirs.key.cert.first().and_then(|leaf| ari::identifier(leaf));
        let renewal = certificate.renewal.take();
        certificate.renewal = renewal.filter(|found| Some(&found.id) == id.as_ref());
        known.record.certificate = Some(certificate);
        known.certified = Some(theirs);
        known.record.written = found.digests();
        known.unsettled = true;
    }
    known.unsettled |= known.certified.is_some() && !follows(&known.record, &found);
    Ok(known)
}

fn contents(store: &dyn Store, issuer_key: &str, name: &str) -> io::Result<Contents> {
    let names = layout::triple(issuer_key, name);
    Ok(Contents {
        chain: store.get(&names.chain)?,
        private_key: store.get(&names.private_key)?,
        metadata: store.get(&names.metadata)?,
    })
}

fn follows(record: &Record, found: &Contents) -> bool {
    let Some(certificate) = &record.certificate else { return true };
    found.chain.as_deref() == Some(certificate.chain.as_bytes())
        && found.private_key.as_deref() == Some(certificate.private_key.as_bytes())
        && found.metadata.as_deref().is_some_and(|metadata| is_about(metadata, certificate))
}

/// Stores the record: one write that is there or is not. Under the name's lock only.
///
/// # Errors
/// If it could not be stored.
pub fn save(store: &dyn Store, record: &Record) -> io::Result<()> {
    let name = layout::record(&layout::issuer_key(&record.issuer), &record.name);
    store.put(&name, &record.encode(), Expect::Anything).map(drop)
}

/// Stores the record of a new certificate, then lets CertMagic's files follow. Under the name's lock only.
///
/// # Errors
/// If the record could not be stored. Files that do not follow yet are only `unsettled`.
pub fn commit(store: &dyn Store, known: &mut Known, now: Moment) -> io::Result<()> {
    if let Some(contents) = Contents::of(&known.record) {
        // What was ours before stays so until the files follow: a crash may leave any mixture.
        let new = contents.digests();
        let written = &mut known.record.written;
        written.retain(|digest| !new.contains(digest));
        let keep = written.len().min(new.len());
        written.drain(..written.len() - keep);
        written.extend(new);
    }
    known.unsettled = true;
    save(store, &known.record)?;
    known.unsettled = match follow(store, &known.record, now) {
        Ok(they_do) => !they_do,
        Err(error) => {
            let name = &known.record.name;
            debug!(name, %error, "CertMagic's files do not follow yet; our record is stored");
            true
        }
    };
    Ok(())
}

/// Makes CertMagic's files follow the record. Returns whether they do: not while somebody else's file
/// there is too young to be judged. Under the name's lock only.
fn follow(store: &dyn Store, record: &Record, now: Moment) -> io::Result<bool> {
    let (Some(wanted), Some(certificate)) = (Contents::of(record), &record.certificate) else {
        return Ok(true);
    };
    let issuer_key = layout::issuer_key(&record.issuer);
    let names = layout::triple(&issuer_key, &record.name);
    let found = contents(store, &issuer_key, &record.name)?;
    let about = found.metadata.as_deref().is_some_and(|found| is_about(found, certificate));
    // In CertMagic's order.
    let files = [
        (&names.private_key, &found.private_key, &wanted.private_key, false),
        (&names.chain, &found.chain, &wanted.chain, false),
        (&names.metadata, &found.metadata, &wanted.metadata, about),
    ];
    let differing: Vec<_> =
        files.into_iter().filter(|(_, found, wanted, good)| found != wanted && !good).collect();
    let is_foreign =
        |found: &[u8]| !found.is_empty() && !record.written.contains(&digest_of(found));
    for (name, found, ..) in &differing {
        if found.as_deref().is_some_and(is_foreign) {
            // What is from the future was written by a wrong clock, some time ago.
            let is_young = |at: Moment| now.since(at).max(at.since(now)) < LEFT_ALONE;
            if store.modified(name)?.is_some_and(is_young) {
                return Ok(false);
            }
        }
    }
    for (name, found, wanted, _) in differing {
        if found.as_deref().is_some_and(is_foreign) {
            store.rename(name, &layout::set_aside(name, now.unix_seconds()))?;
        }
        store.put(name, wanted.as_deref().unwrap_or_default(), Expect::Anything)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use rcgen::PKCS_ECDSA_P256_SHA256;

    use super::super::super::certified::samples::{Issuer, NOW};
    use super::*;
    use crate::store::directory::Directory;
    use crate::store::directory::scratch::ScratchStore;
    use crate::store::record::Renewal;

    const CA: &str = "https://ca.example/dir";

    fn name() -> ServerName {
        ServerName::parse("a.example").unwrap()
    }

    fn certificate(url: &str) -> Certificate {
        let (chain, private_key) =
            Issuer::new("stored").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
        Certificate { chain, private_key, url: url.into(), ..Certificate::default() }
    }

    fn committed(store: &Directory, url: &str) -> Known {
        let mut known = read(store, CA, &name()).unwrap();
        known.take(&name(), certificate(url)).unwrap();
        commit(store, &mut known, NOW).unwrap();
        known
    }

    fn put_triple(store: &Directory, certificate: &Certificate) {
        let mut record = Record::new("a.example", CA);
        record.certificate = Some(certificate.clone());
        let (contents, names) =
            (Contents::of(&record).unwrap(), layout::triple("ca.example-dir", "a.example"));
        for (name, content) in [
            (names.private_key, contents.private_key),
            (names.chain, contents.chain),
            (names.metadata, contents.metadata),
        ] {
            store.put(&name, &content.unwrap(), Expect::Anything).unwrap();
        }
    }

    fn list(store: &Directory) -> Vec<String> {
        store.list("certificates/ca.example-dir/a.example").unwrap()
    }

    #[test]
    fn what_is_committed_is_read_and_certmagic_finds_it_too() {
        let (_scratch, store) = ScratchStore::new("stored-commit");
        assert!(read(&store, CA, &name()).unwrap().certified.is_none());
        let known = committed(&store, "u1");
        assert!(!known.unsettled);
        let again = read(&store, CA, &name()).unwrap();
        assert_eq!((again.record, again.unsettled), (known.record, false));
        assert_eq!(list(&store), ["a.example.crt", "a.example.json", "a.example.key"]);
    }

    #[test]
    fn what_is_held_already_is_not_made_again() {
        let (_scratch, store) = ScratchStore::new("stored-again");
        let held = committed(&store, "u1").certified.unwrap();
        let again = |held| read_again(&store, CA, &name(), held).unwrap().certified.unwrap();
        assert!(Arc::ptr_eq(&again(Some(&held)), &held));
        assert!(!Arc::ptr_eq(&again(None), &held));
        let newer = committed(&store, "u2").certified.unwrap();
        assert_eq!(again(Some(&held)).identity(), newer.identity());
    }

    #[test]
    fn a_mixture_that_a_crash_left_is_repaired_and_nothing_of_ours_is_set_aside() {
        let (_scratch, store) = ScratchStore::new("stored-mixture");
        let first = committed(&store, "u1");
        let before = first.record.certificate.clone().unwrap();
        committed(&store, "u2");
        let names = layout::triple("ca.example-dir", "a.example");
        // As if only the private key had been written before the crash.
        store.put(&names.chain, before.chain.as_bytes(), Expect::Anything).unwrap();
        let mut known = read(&store, CA, &name()).unwrap();
        assert!(known.unsettled);
        assert_eq!(known.record.certificate.as_ref().unwrap().url, "u2");
        commit(&store, &mut known, NOW).unwrap();
        assert!(!read(&store, CA, &name()).unwrap().unsettled);
        assert_eq!(list(&store).len(), 3);
    }

    #[test]
    fn a_triple_of_certmagics_is_adopted() {
        let (_scratch, store) = ScratchStore::new("stored-adopt");
        put_triple(&store, &certificate("theirs"));
        let mut known = read(&store, CA, &name()).unwrap();
        assert!(known.certified.is_some() && known.unsettled);
        commit(&store, &mut known, NOW).unwrap();
        let again = read(&store, CA, &name()).unwrap();
        assert_eq!(again.record.certificate.unwrap().url, "theirs");
        assert!(!again.unsettled);
        assert_eq!(list(&store).len(), 3);
    }

    #[test]
    fn files_that_cannot_follow_leave_the_record_stored() {
        let (_scratch, store) = ScratchStore::new("stored-follow");
        let mut known = read(&store, CA, &name()).unwrap();
        known.take(&name(), certificate("u1")).unwrap();
        // A folder in the place of a file.
        let in_the_way = layout::triple("ca.example-dir", "a.example").chain + "/x";
        store.put(&in_the_way, b"x", Expect::Anything).unwrap();
        commit(&store, &mut known, NOW).unwrap();
        assert!(known.unsettled);
        let stored = store.get(&layout::record("ca.example-dir", "a.example")).unwrap().unwrap();
        assert_eq!(Record::decode(&stored).unwrap(), known.record);
    }

    #[test]
    fn a_found_window_is_believed_only_if_it_is_that_certificates() {
        for (id, believed) in [(Some("another.one"), false), (None, true)] {
            let (_scratch, store) =
                ScratchStore::new(if believed { "window-own" } else { "window-other" });
            let mut theirs = certificate("theirs");
            let leaf =
                check(CA, &name(), &theirs, None).unwrap().key.cert.first().cloned().unwrap();
            let id = id.map_or_else(|| ari::identifier(&leaf).unwrap(), str::to_owned);
            let (start, end) = (NOW, NOW.plus(Duration::from_secs(1000)));
            theirs.renewal = Some(Renewal { id, start, end, selected: start, explanation: None });
            put_triple(&store, &theirs);
            let known = read(&store, CA, &name()).unwrap();
            assert_eq!(known.record.certificate.unwrap().renewal.is_some(), believed);
        }
    }

    #[test]
    fn of_two_of_the_same_time_the_one_in_the_files_counts_unless_ours_was_obtained() {
        for obtained in [None, Some(NOW)] {
            let (_scratch, store) =
                ScratchStore::new(if obtained.is_some() { "same-ours" } else { "same" });
            let mut known = Known::nothing(Record::new("a.example", CA));
            let first = Certificate { obtained, ..certificate("first") };
            known.take(&name(), first).unwrap();
            commit(&store, &mut known, NOW).unwrap();
            put_triple(&store, &certificate("second"));
            let url = read(&store, CA, &name()).unwrap().record.certificate.unwrap().url;
            assert_eq!(url, if obtained.is_some() { "first" } else { "second" });
        }
    }

    #[test]
    fn a_foreign_file_that_a_wrong_clock_wrote_is_not_waited_for() {
        let (_scratch, store) = ScratchStore::new("stored-future");
        let names = layout::triple("ca.example-dir", "a.example");
        store.put(&names.chain, b"half of somebody's", Expect::Anything).unwrap();
        let mut known = read(&store, CA, &name()).unwrap();
        known.take(&name(), certificate("ours")).unwrap();
        commit(&store, &mut known, Moment::now().minus(LEFT_ALONE * 60)).unwrap();
        assert!(!known.unsettled);
        assert_eq!(list(&store).len(), 4);
    }

    #[test]
    fn foreign_files_are_overwritten_only_when_old_and_only_with_a_copy() {
        let (_scratch, store) = ScratchStore::new("stored-foreign");
        let names = layout::triple("ca.example-dir", "a.example");
        store.put(&names.chain, b"half of somebody's", Expect::Anything).unwrap();
        let mut known = read(&store, CA, &name()).unwrap();
        assert!(known.certified.is_none());
        known.take(&name(), certificate("ours")).unwrap();
        let now = Moment::now();
        commit(&store, &mut known, now).unwrap();
        assert!(known.unsettled);
        assert_eq!(list(&store), ["a.example.crt"]);
        let later = now.plus(LEFT_ALONE * 2);
        commit(&store, &mut known, later).unwrap();
        assert!(!known.unsettled);
        let aside = format!("a.example.crt.set-aside-by-ringgate-{}", later.unix_seconds());
        assert_eq!(list(&store), ["a.example.crt", &aside, "a.example.json", "a.example.key"]);
        let kept = store.get(&format!("certificates/ca.example-dir/a.example/{aside}")).unwrap();
        assert_eq!(kept.as_deref(), Some(&b"half of somebody's"[..]));
    }

    #[test]
    fn damaged_records_and_certificates_for_other_names_are_not_served() {
        let (_scratch, store) = ScratchStore::new("stored-damaged");
        committed(&store, "u1");
        let record = layout::record("ca.example-dir", "a.example");
        store.put(&record, b"{", Expect::Anything).unwrap();
        // The three files are whole and take its place.
        let known = read(&store, CA, &name()).unwrap();
        assert!(known.certified.is_some() && known.unsettled);
        let other = ServerName::parse("b.example").unwrap();
        let mut known = read(&store, CA, &other).unwrap();
        let error = known.take(&other, certificate("x")).unwrap_err();
        assert_eq!(error, "the certificate is for a.example, not for b.example");
    }
}
