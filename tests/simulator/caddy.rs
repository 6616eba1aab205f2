//! A Caddy that works on the same directory, as far as CertMagic's policy goes: it renews in the last third,
//! under the name's lock, writes three files one after the other, and cleans away what has expired.

use std::sync::Arc;
use std::time::Duration;

use ringgate::clock::{Moment, steady};
use ringgate::config::autocert::KeyType;
use ringgate::control::autocert::simulated::{generate, request};
use ringgate::name::ServerName;
use ringgate::store::{Expect, Store, layout};
use serde_json::json;
use x509_parser::pem::Pem;

use crate::ca::Ca;
use crate::dice::Dice;
use crate::life::Life;
use crate::store::Shared;

/// CertMagic looks every ten minutes; every few hours finds the same.
const LOOK_EVERY: Duration = Duration::from_secs(3 * 3600);
/// How long what has expired is kept.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long it holds the lock before it has a certificate.
const TAKES: Duration = Duration::from_secs(5);
/// How often it dies between two of its files.
const DIES: f64 = 0.03;

pub async fn run(store: Shared, ca: Arc<Ca>, names: Vec<ServerName>, mut dice: Dice) {
    let store = store.seen_by(Arc::new(Life::default()));
    loop {
        tokio::time::sleep(LOOK_EVERY.mul_f64(0.5 + dice.fraction())).await;
        for name in &names {
            // What fails is tried at the next look.
            let _ = look(&store, &ca, name, &mut dice).await;
        }
    }
}

async fn look(
    store: &dyn Store,
    ca: &Arc<Ca>,
    name: &ServerName,
    dice: &mut Dice,
) -> std::io::Result<()> {
    let issuer_key = layout::issuer_key(&ca.directory_url());
    let files = layout::triple(&issuer_key, name.as_str());
    let now = Moment::now();
    let dates = |store: &dyn Store| Ok(store.get(&files.chain)?.and_then(|chain| dates_of(&chain)));
    let found: std::io::Result<_> = dates(store);
    // Names that ringgate has not got a certificate for are left to it.
    let Some((from, to)) = found? else { return Ok(()) };
    if now.since(to) > KEPT {
        for file in [&files.chain, &files.private_key, &files.metadata] {
            store.remove(file)?;
        }
        return Ok(());
    }
    let is_due = |from: Moment, to: Moment| now > to.minus(to.since(from) / 3);
    if !is_due(from, to) {
        return Ok(());
    }
    let Some(mut lock) = store.try_lock(&layout::issue_lock(name.as_str()), now, steady())? else {
        return Ok(());
    };
    tokio::time::sleep(TAKES).await;
    let found: std::io::Result<_> = dates(store);
    if let Some((from, to)) = found?
        && is_due(from, to)
        && let Some(key) = generate(KeyType::P256)
        && let Some(csr) = request(&key, name, false)
        && let Some((chain, url)) = ca.issue_to_caddy(&csr, name.as_str())
    {
        let issuer = json!({ "url": url, "ca": ca.directory_url() });
        let metadata = json!({ "sans": [name.as_str()], "issuer_data": issuer });
        let contents = [key.into_bytes(), chain.into_bytes(), metadata.to_string().into_bytes()];
        let files = [&files.private_key, &files.chain, &files.metadata];
        for (file, content) in files.into_iter().zip(contents) {
            store.put(file, &content, Expect::Anything)?;
            if dice.chance(DIES) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    lock.release()
}

fn dates_of(chain: &[u8]) -> Option<(Moment, Moment)> {
    let pem = Pem::iter_from_buffer(chain).next()?.ok()?;
    let leaf = pem.parse_x509().ok()?;
    let at = |time: x509_parser::time::ASN1Time| Moment::from_unix_seconds(time.timestamp());
    Some((at(leaf.validity().not_before), at(leaf.validity().not_after)))
}
