//! The account at an issuer: the stored one, Caddy's and Pomerium's included, or a new one.

use std::io;

use serde_json::{Map, Value};
use tracing::{info, warn};

use crate::config::autocert::{KeyType, LETS_ENCRYPT};
use crate::store::layout::{self, AccountFiles};
use crate::store::{Expect, Store};

use super::ca::Ca;
use super::directory::Directory;
use super::held::Held;
use super::http_client::last_answer;
use super::keys::{account_key_pkcs8, generate};
use super::mutant::{Mutant, mutant};
use super::registration::register;
use super::verdict::{Doing, Failed, judge};
use super::{blocking, disk};

/// An account's private key, and its URL once the issuer has named it.
#[derive(Clone)]
pub struct StoredAccount {
    files: AccountFiles,
    pub key_pkcs8: Vec<u8>,
    pub location: Option<String>,
    status: Option<String>,
}

/// The account for these settings, if one is stored: the one of the e-mail address or, with none configured,
/// the one without an address, else the only one or the first that works.
///
/// # Errors
/// If the store cannot be read, or a private key there is damaged: another account is no answer to that.
pub fn find(
    store: &dyn Store,
    issuer_key: &str,
    email: Option<&str>,
) -> io::Result<Option<StoredAccount>> {
    let files = layout::account(issuer_key, email.unwrap_or_default());
    if let Some(found) = read(store, files)? {
        return Ok(Some(found));
    }
    if email.is_some() {
        return Ok(None);
    }
    for folder in store.list(&layout::accounts(issuer_key))? {
        if let Some(found) = read(store, layout::account_of_folder(issuer_key, &folder))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn read(store: &dyn Store, files: AccountFiles) -> io::Result<Option<StoredAccount>> {
    let Some(pem) = store.get(&files.private_key)? else { return Ok(None) };
    let Some(key_pkcs8) = account_key_pkcs8(&pem) else {
        let what = format!("{} is no ECDSA P-256 private key", files.private_key);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    };
    // Without its metadata an account is found by its key.
    let metadata = store.get(&files.metadata)?.unwrap_or_default();
    let metadata: Value = serde_json::from_slice(&metadata).unwrap_or_default();
    let text = |name| metadata.get(name).and_then(Value::as_str).map(str::to_owned);
    let (location, status) = (text("location"), text("status"));
    Ok(Some(StoredAccount { files, key_pkcs8, location, status }))
}

/// The account's metadata as CertMagic writes it.
fn metadata(account: &Value, location: &str, email: Option<&str>) -> Vec<u8> {
    let mut fields = Map::new();
    fields.insert("status".into(), "valid".into());
    if let Some(email) = email {
        fields.insert("contact".into(), vec![format!("mailto:{email}")].into());
    }
    fields.insert("termsOfServiceAgreed".into(), true.into());
    if let Some(orders) = account.get("orders").filter(|orders| orders.is_string()) {
        fields.insert("orders".into(), orders.clone());
    }
    fields.insert("location".into(), location.into());
    serde_json::to_vec_pretty(&fields).unwrap_or_default()
}

/// Finds the account or registers one: its private key is stored before it is sent. `forgotten`: the issuer
/// no longer knows the account that is stored.
///
/// # Errors
/// If there is none and none can be had.
pub async fn obtain(
    ca: &Ca,
    directory: &Directory,
    forgotten: bool,
) -> Result<StoredAccount, Failed> {
    let issuer = &ca.issuer;
    if let Some(found) = stored(ca).await?
        && !forgotten
        && !mutant(Mutant::AccountForgotten)
        && found.location.is_some()
    {
        return usable(found);
    }
    let email = issuer.email.clone();
    let name = layout::account_lock(email.as_deref().unwrap_or_default());
    let lock = Held::take(&ca.store, name).await?;
    let outcome = locked(ca, directory, forgotten).await;
    lock.release().await;
    outcome
}

async fn locked(ca: &Ca, directory: &Directory, forgotten: bool) -> Result<StoredAccount, Failed> {
    let issuer = &ca.issuer;
    let found = stored(ca).await?;
    let mut account = match found {
        _ if mutant(Mutant::AccountForgotten) => new_key(ca).await?,
        // Another node was faster.
        Some(found) if found.location.is_some() && !forgotten => return usable(found),
        Some(found) => found,
        None => new_key(ca).await?,
    };
    if forgotten {
        warn!(
            issuer = issuer.directory,
            account = account.location,
            "the CA no longer knows our account; registering the same private key again"
        );
    } else {
        say_what_is_agreed_to(&issuer.directory, directory);
    }
    if directory.meta.external_account_required && issuer.external_account.is_none() {
        return Err(Failed::refused(
            format!("{} wants an external account", issuer.directory),
            "set autocert_eab_key_id and autocert_eab_mac_key, which the CA gives you",
        ));
    }
    let email = issuer.email.as_deref();
    let registered =
        register(&ca.http, directory, &account.key_pkcs8, email, issuer.external_account.as_ref())
            .await
            .map_err(|error| judge(Doing::Registering, &error, &last_answer()))?;
    info!(issuer = issuer.directory, account = registered.location, "account registered");
    let content = metadata(&registered.account, &registered.location, email);
    let (store, name) = (ca.store.clone(), account.files.metadata.clone());
    // If it cannot be stored it is asked for by its key again.
    let stored = blocking(move || store.put(&name, &content, Expect::Anything)).await;
    if let Err(error) = stored {
        warn!(%error, "the account's URL is not stored");
    }
    account.location = Some(registered.location);
    Ok(account)
}

/// The account that is stored, or that was while the store could be read.
///
/// # Errors
/// As those of `find`.
pub async fn stored(ca: &Ca) -> Result<Option<StoredAccount>, Failed> {
    let (store, key, email) = (ca.store.clone(), ca.issuer_key.clone(), ca.issuer.email.clone());
    let found = blocking(move || find(&*store, &key, email.as_deref())).await;
    or_known(found, ca.known_account()).map_err(disk)
}

/// A certificate must not expire because the disk of its account cannot be read: then the account counts that
/// this process has ordered with. Pure.
fn or_known(
    found: io::Result<Option<StoredAccount>>,
    known: Option<StoredAccount>,
) -> io::Result<Option<StoredAccount>> {
    match (found, known) {
        (Err(_), Some(known)) => Ok(Some(known)),
        (found, _) => found,
    }
}

/// Makes and stores a private key. What cannot be stored is not registered: it would be lost, and a
/// restart would register another.
async fn new_key(ca: &Ca) -> Result<StoredAccount, Failed> {
    let files = layout::account(&ca.issuer_key, ca.issuer.email.as_deref().unwrap_or_default());
    let (store, name) = (ca.store.clone(), files.private_key.clone());
    let key = blocking(move || {
        let pem = generate(KeyType::P256)
            .ok_or_else(|| io::Error::other("the system's random source failed"))?;
        let expected =
            if mutant(Mutant::AccountForgotten) { Expect::Anything } else { Expect::Nothing };
        store.put(&name, pem.as_bytes(), expected)?;
        // Whoever's key is there now is the account's.
        let pem = store.get(&name)?.unwrap_or_default();
        account_key_pkcs8(&pem).ok_or_else(|| io::Error::other("the new account key is damaged"))
    });
    let key_pkcs8 = key.await.map_err(disk)?;
    Ok(StoredAccount { files, key_pkcs8, location: None, status: None })
}

fn usable(account: StoredAccount) -> Result<StoredAccount, Failed> {
    match account.status.as_deref() {
        None | Some("" | "valid") => Ok(account),
        Some(status) => Err(Failed::refused(
            format!("the account in {} is {status}", account.files.metadata),
            "move it away to register another one",
        )),
    }
}

fn say_what_is_agreed_to(issuer: &str, directory: &Directory) {
    let terms = directory.meta.terms_of_service.as_deref();
    info!(
        issuer,
        terms, "registering an account; with autocert on you agree to the CA's terms of service"
    );
    if issuer == LETS_ENCRYPT {
        info!(
            "Let's Encrypt issues 50 certificates a week per registered domain, 5 for the same names, and allows 5 failed validations per name and hour: try a new configuration with autocert_use_staging first"
        );
    }
}

/// A class for what the store refuses.
pub fn cannot_store(error: &io::Error) -> Failed {
    // A disk that is full now may have room in a minute.
    Failed::mendable(
        error.to_string(),
        "autocert_dir must be ringgate's to read and write, with space left",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::directory::scratch::ScratchStore;

    #[test]
    fn the_account_of_the_address_is_found_and_without_one_whichever_there_is() {
        let (_scratch, store) = ScratchStore::new("account");
        assert!(find(&store, "ca", None).unwrap().is_none());
        let files = layout::account("ca", "ops@x.com");
        let key = generate(KeyType::P256).unwrap();
        store.put(&files.private_key, key.as_bytes(), Expect::Anything).unwrap();
        let found = find(&store, "ca", None).unwrap().unwrap();
        assert_eq!((found.location, found.files.clone()), (None, files.clone()));
        let json = metadata(&Value::Null, "https://ca/acct/1", Some("ops@x.com"));
        store.put(&files.metadata, &json, Expect::Anything).unwrap();
        let found = find(&store, "ca", Some("Ops@X.com")).unwrap().unwrap();
        assert_eq!(found.location.as_deref(), Some("https://ca/acct/1"));
        assert!(usable(found).is_ok());
        assert!(find(&store, "ca", Some("other@x.com")).unwrap().is_none());
        assert!(find(&store, "other", None).unwrap().is_none());
    }

    #[test]
    fn an_account_outlives_a_store_that_cannot_be_read() {
        let broken = || Err(io::Error::other("Input/output error"));
        assert!(or_known(broken(), None).is_err());
        let known = StoredAccount {
            files: layout::account("ca", ""),
            key_pkcs8: vec![1],
            location: Some("https://ca/acct/1".into()),
            status: None,
        };
        let found = or_known(broken(), Some(known.clone())).unwrap().unwrap();
        assert_eq!(found.location, known.location);
        // What can be read counts, also that there is nothing.
        assert!(or_known(Ok(None), Some(known)).unwrap().is_none());
    }

    #[test]
    fn a_damaged_key_and_a_deactivated_account_are_for_a_person() {
        let (_scratch, store) = ScratchStore::new("account-damaged");
        let files = layout::account("ca", "");
        store.put(&files.private_key, b"x", Expect::Anything).unwrap();
        assert!(find(&store, "ca", None).is_err());
        let key = generate(KeyType::P256).unwrap();
        store.put(&files.private_key, key.as_bytes(), Expect::Anything).unwrap();
        store.put(&files.metadata, b"{\"status\":\"deactivated\"}", Expect::Anything).unwrap();
        let failed = usable(find(&store, "ca", None).unwrap().unwrap()).err().unwrap();
        assert!(failed.what.contains("deactivated"), "{failed}");
    }
}
