//! Revokes a certificate at its issuer (RFC 8555 §7.6).

use std::sync::Arc;

use instant_acme::{RevocationReason, RevocationRequest};
use rustls::pki_types::CertificateDer;
use tracing::warn;

use crate::name::ServerName;
use crate::store::record::Class;
use crate::store::{Store, layout};

use super::ca::Ca;
use super::entry::Reply;
use super::held::Held;
use super::http_client::{attended, last_answer};
use super::stored::{self, Known};
use super::verdict::{Doing, Failed, judge};
use super::{blocking, disk, writes};

/// The reasons that a subscriber may give (RFC 5280 §5.3.1), as people write them.
///
/// # Errors
/// Which there are.
pub fn reason(text: &str) -> Result<RevocationReason, String> {
    Ok(match text {
        "unspecified" => RevocationReason::Unspecified,
        "keyCompromise" | "key-compromise" => RevocationReason::KeyCompromise,
        "affiliationChanged" | "affiliation-changed" => RevocationReason::AffiliationChanged,
        "superseded" => RevocationReason::Superseded,
        "cessationOfOperation" | "cessation-of-operation" => RevocationReason::CessationOfOperation,
        _ => {
            return Err(format!(
                "{text:?} is no reason to revoke; write keyCompromise, superseded, cessationOfOperation, affiliationChanged or unspecified"
            ));
        }
    })
}

/// Revokes the certificate that was served when this was asked, and stores that it is revoked if it has not
/// been replaced meanwhile. Waits for nothing when nobody waits for the answer any more.
///
/// # Errors
/// In the CA's words.
pub async fn revoke(
    ca: &Ca,
    name: &ServerName,
    leaf: &CertificateDer<'static>,
    reason: &RevocationReason,
    reply: &mut Reply,
) -> Result<(), Failed> {
    attended(async {
        let lock = lock(&ca.store, name, reply).await?;
        let outcome = locked(ca, name, leaf, reason, &lock).await;
        lock.release().await;
        outcome
    })
    .await
}

/// Stores that the issuer has revoked this certificate, if it has not been replaced meanwhile.
///
/// # Errors
/// If the store does not take it; the issuer's responder says it again.
pub async fn note(
    store: &Arc<dyn Store>,
    issuer: &str,
    name: &ServerName,
    leaf: &CertificateDer<'static>,
    reason: &RevocationReason,
) -> Result<(), Failed> {
    let lock = Held::take(store, layout::issue_lock(name.as_str())).await?;
    let read = {
        let (store, issuer, text) = (store.clone(), issuer.to_owned(), name.clone());
        blocking(move || stored::read(&*store, &issuer, &text)).await.map_err(disk)
    };
    let outcome = match read {
        Ok(mut known) => match mark(&mut known, leaf, reason) {
            true => writes::commit(store, Some(&lock), &mut known).await.map_err(disk),
            false => Ok(()),
        },
        Err(failed) => Err(failed),
    };
    lock.release().await;
    outcome
}

/// The lock of the name, waited for as long as whoever asked waits.
async fn lock(
    store: &Arc<dyn Store>,
    name: &ServerName,
    reply: &mut Reply,
) -> Result<Held, Failed> {
    tokio::select! {
        lock = Held::take(store, layout::issue_lock(name.as_str())) => lock,
        () = reply.closed() => {
            warn!(%name, "not revoked: whoever asked for it waited no longer");
            Err(Failed::new(Class::Unreachable, "nobody waits for it"))
        }
    }
}

async fn locked(
    ca: &Ca,
    name: &ServerName,
    leaf: &CertificateDer<'static>,
    reason: &RevocationReason,
    lock: &Held,
) -> Result<(), Failed> {
    let (store, issuer, text) = (ca.store.clone(), ca.issuer.directory.clone(), name.clone());
    let mut known = blocking(move || stored::read(&*store, &issuer, &text)).await.map_err(disk)?;
    let (account, _) = ca.account().await?;
    let request = RevocationRequest { certificate: leaf, reason: Some(reason.clone()) };
    if let Err(error) = account.revoke(&request).await {
        let failed = judge(Doing::Ordering, &error, &last_answer());
        // Whoever asks for it again after a crash gets on.
        if !failed.is("alreadyRevoked") {
            return Err(failed);
        }
    }
    if mark(&mut known, leaf, reason) {
        writes::commit(&ca.store, Some(lock), &mut known).await.map_err(disk)?;
    }
    Ok(())
}

/// Notes that this certificate is revoked. Returns whether it is the one that is known. Pure.
pub fn mark(known: &mut Known, leaf: &CertificateDer<'_>, reason: &RevocationReason) -> bool {
    let held = known.certified.as_ref().and_then(|certified| certified.key.cert.first());
    if held != Some(leaf) {
        return false;
    }
    if let Some(certificate) = &mut known.record.certificate {
        certificate.revoked = true;
    }
    // A private key that was about to be used may be compromised with the other.
    if matches!(reason, RevocationReason::KeyCompromise) {
        known.record.order = None;
    }
    true
}

#[cfg(test)]
mod tests {
    use rcgen::PKCS_ECDSA_P256_SHA256;

    use super::super::super::certified::samples::Issuer;
    use super::*;
    use crate::store::directory::scratch::ScratchStore;
    use crate::store::record::{Certificate, Record};

    #[tokio::test]
    async fn the_wait_for_a_lock_ends_with_whoever_asked() {
        let (_scratch, store) = ScratchStore::new("revocation-wait");
        let store: Arc<dyn Store> = Arc::new(store);
        let name = ServerName::parse("a.example").unwrap();
        let held = Held::take(&store, layout::issue_lock("a.example")).await.unwrap();
        let (mut reply, asked) = tokio::sync::oneshot::channel();
        drop(asked);
        assert!(lock(&store, &name, &mut reply).await.is_err());
        held.release().await;
    }

    #[test]
    fn what_replaced_a_certificate_meanwhile_is_not_taken_for_it() {
        let (name, issuer) = (ServerName::parse("a.example").unwrap(), Issuer::new("revocation"));
        let mut known = Known::nothing(Record::new("a.example", "https://ca.example/dir"));
        let mut leaves = Vec::new();
        for _ in 0..2 {
            let (chain, private_key) = issuer.pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
            let certificate = Certificate { chain, private_key, ..Certificate::default() };
            known.take(&name, certificate).unwrap();
            leaves.push(known.certified.as_ref().unwrap().key.cert[0].clone().into_owned());
        }
        let reason = RevocationReason::KeyCompromise;
        assert!(!mark(&mut known, &leaves[0], &reason));
        assert!(!known.record.certificate.as_ref().unwrap().revoked);
        assert!(mark(&mut known, &leaves[1], &reason));
        assert!(known.record.certificate.unwrap().revoked);
    }
}
