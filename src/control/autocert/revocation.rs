//! Revokes a certificate at its issuer (RFC 8555 §7.6).

use std::sync::Arc;

use instant_acme::{RevocationReason, RevocationRequest};

use crate::clock::Moment;
use crate::name::ServerName;
use crate::store::layout;

use super::ca::Ca;
use super::held::Held;
use super::http_client::{attended, last_answer};
use super::stored::{self, Known};
use super::verdict::{Doing, Failed, judge};
use super::{LOCK_POLL, blocking, disk};
use crate::store::record::Class;

/// The reasons that a subscriber may give (RFC 5280 §5.3.1), as people write them.
pub fn reason(text: &str) -> Option<RevocationReason> {
    Some(match text {
        "unspecified" => RevocationReason::Unspecified,
        "keyCompromise" | "key-compromise" => RevocationReason::KeyCompromise,
        "affiliationChanged" | "affiliation-changed" => RevocationReason::AffiliationChanged,
        "superseded" => RevocationReason::Superseded,
        "cessationOfOperation" | "cessation-of-operation" => RevocationReason::CessationOfOperation,
        _ => return None,
    })
}

/// Revokes what is served and stores that it is revoked, so that it is replaced at once.
///
/// # Errors
/// In the CA's words.
pub async fn revoke(
    ca: Arc<Ca>,
    name: ServerName,
    reason: RevocationReason,
) -> Result<Known, Failed> {
    attended(async {
        let lock_name = layout::issue_lock(name.as_str());
        let lock = loop {
            match Held::try_take(&ca.store, lock_name.clone()).await.map_err(disk)? {
                Some(lock) => break lock,
                None => tokio::time::sleep(LOCK_POLL).await,
            }
        };
        let outcome = locked(&ca, &name, reason).await;
        lock.release().await;
        outcome
    })
    .await
}

async fn locked(ca: &Ca, name: &ServerName, reason: RevocationReason) -> Result<Known, Failed> {
    let (store, issuer, text) = (ca.store.clone(), ca.settings.ca.clone(), name.clone());
    let mut known = blocking(move || stored::read(&*store, &issuer, &text)).await.map_err(disk)?;
    let leaf = known.certified.as_ref().and_then(|certified| certified.key.cert.first().cloned());
    let Some(leaf) = leaf else {
        let what = format!("{name} has no certificate of this issuer");
        return Err(Failed::new(Class::Unreachable, what));
    };
    let (account, _) = ca.account().await?;
    let compromised = matches!(reason, RevocationReason::KeyCompromise);
    let request = RevocationRequest { certificate: &leaf, reason: Some(reason) };
    if let Err(error) = account.revoke(&request).await {
        let failed = judge(Doing::Ordering, &error, &last_answer());
        // Whoever asks for it again after a crash gets on.
        if !failed.is("alreadyRevoked") {
            return Err(failed);
        }
    }
    if let Some(certificate) = &mut known.record.certificate {
        certificate.revoked = true;
    }
    // A private key that was about to be used may be compromised with the other.
    if compromised {
        known.record.order = None;
    }
    let store = ca.store.clone();
    let (known, outcome) = blocking(move || {
        let outcome = stored::commit(&*store, &mut known, Moment::now());
        (known, outcome)
    })
    .await;
    outcome.map_err(disk)?;
    Ok(known)
}
