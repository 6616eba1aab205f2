//! One issuer as orders see it: how to reach it, the account there, and where its certificates are stored.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use instant_acme::{Account, Error};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::Mutex;
use tracing::warn;

use crate::clock;
use crate::config::autocert::{Autocert, ChallengeKind, IssuerConfig};
use crate::name::ServerName;
use crate::snapshot::ChallengeAnswer;
use crate::store::record::Certificate;
use crate::store::{Store, layout};

use super::super::publisher::Publisher;
use super::account::{self, StoredAccount};
use super::budget::{Counts, Order};
use super::directory::Directory;
use super::http_client::{AcmeHttp, NotAcme, last_answer};
use super::ledger::Ledger;
use super::prepared::PreparedIssuer;
use super::verdict::{Doing, Failed, LOST, judge};

/// How long a directory is believed: long before a CA drops an address that it announced otherwise.
const DIRECTORY_AGE: Duration = Duration::from_secs(24 * 3600);
/// For so long a failure to reach the CA stands for all names: a CA that hangs is not waited for by each.
const FAILURE_AGE: Duration = Duration::from_secs(2);

pub struct Ca {
    pub issuer: IssuerConfig,
    /// What is said for all issuers.
    pub settings: Autocert,
    /// PEM: what is trusted besides the system's roots.
    pub trusted_roots: Vec<u8>,
    pub issuer_key: String,
    pub store: Arc<dyn Store>,
    pub http: AcmeHttp,
    pub publisher: Publisher,
    /// In the order to try.
    pub challenges: Vec<ChallengeKind>,
    /// Tells these settings from others.
    pub fingerprint: String,
    /// What has been used of its limits, if they are known.
    pub ledger: Option<Ledger>,
    /// The issuer's staging environment, with an account of its own.
    pub trial: Option<Arc<Ca>>,
    entered: Mutex<Entered>,
    /// The account that was read or entered with, for a store that cannot be read any more.
    known_account: std::sync::Mutex<Option<StoredAccount>>,
}

/// Whether and since when there is an account to order with.
enum Entered {
    NotYet { forgotten: bool },
    Failed { failed: Failed, at: Instant, forgotten: bool },
    Ready { account: Account, at: Instant },
}

impl Ca {
    /// `has_http_listener`: HTTP-01 can be answered.
    pub fn new(
        prepared: &PreparedIssuer,
        settings: &Autocert,
        store: &Arc<dyn Store>,
        publisher: &Publisher,
        has_http_listener: bool,
    ) -> Self {
        let PreparedIssuer { issuer, transport, trusted_roots, account } = prepared;
        let mut challenges = settings.challenges.clone();
        challenges.retain(|kind| has_http_listener || *kind != ChallengeKind::Http01);
        let staging = |directory: &String| IssuerConfig {
            directory: directory.clone(),
            test_directory: None,
            // An external account is known to the issuer itself.
            external_account: None,
            ..issuer.clone()
        };
        let trial = issuer.test_directory.as_ref().map(|directory| {
            let prepared =
                PreparedIssuer { issuer: staging(directory), account: None, ..prepared.clone() };
            Arc::new(Self::new(&prepared, settings, store, publisher, has_http_listener))
        });
        Self {
            trial,
            ledger: Ledger::of(&issuer.directory, store),
            fingerprint: fingerprint(issuer, settings, trusted_roots, has_http_listener),
            issuer_key: layout::issuer_key(&issuer.directory),
            http: AcmeHttp::new(transport.clone(), &issuer.directory),
            issuer: issuer.clone(),
            settings: settings.clone(),
            trusted_roots: trusted_roots.clone(),
            store: store.clone(),
            publisher: publisher.clone(),
            challenges,
            entered: Mutex::new(Entered::NotYet { forgotten: false }),
            known_account: std::sync::Mutex::new(account.clone()),
        }
    }

    /// The account that this process has read or ordered with.
    pub fn known_account(&self) -> Option<StoredAccount> {
        self.known_account.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it was ordered with the account that is known.
    pub fn is_ours(&self, held: &Certificate) -> bool {
        let known = self.known_account.lock().unwrap_or_else(PoisonError::into_inner);
        let location = known.as_ref().and_then(|account| account.location.as_deref());
        location.is_none_or(|account| held.is_of(account))
    }

    /// Reads the account while it can be read: a node that never orders, for another is always faster, has to
    /// when that one's certificates cannot be read any more.
    pub async fn know_account(&self) {
        if self.known_account().is_none()
            && let Ok(Some(found)) = account::stored(self).await
        {
            self.keep_account(found);
        }
    }

    fn keep_account(&self, account: StoredAccount) {
        *self.known_account.lock().unwrap_or_else(PoisonError::into_inner) = Some(account);
    }

    /// The account, and the directory it was entered by.
    ///
    /// # Errors
    /// If the CA cannot be reached or has no account for us.
    pub async fn account(&self) -> Result<(Account, Directory), Failed> {
        let mut entered = self.entered.lock().await;
        let now = clock::steady();
        let forgotten = match &*entered {
            Entered::Ready { account, at } if now.duration_since(*at) < DIRECTORY_AGE => {
                if let Some(directory) = self.http.directory() {
                    return Ok((account.clone(), directory));
                }
                false
            }
            Entered::Ready { .. } => false,
            Entered::Failed { failed, at, .. } if now.duration_since(*at) < FAILURE_AGE => {
                return Err(failed.clone());
            }
            Entered::Failed { forgotten, .. } | Entered::NotYet { forgotten } => *forgotten,
        };
        match self.enter(forgotten).await {
            Ok((account, directory)) => {
                *entered = Entered::Ready { account: account.clone(), at: clock::steady() };
                Ok((account, directory))
            }
            // That one answer was lost says nothing of the next.
            Err(failed) if failed.is(LOST) => {
                *entered = Entered::NotYet { forgotten };
                Err(failed)
            }
            Err(failed) => {
                let at = clock::steady();
                *entered = Entered::Failed { failed: failed.clone(), at, forgotten };
                Err(failed)
            }
        }
    }

    async fn enter(&self, forgotten: bool) -> Result<(Account, Directory), Failed> {
        let judged = |error| judge(Doing::Registering, &error, &last_answer());
        let directory = self.http.fetch_directory().await.map_err(|error| {
            // A page where the directory should be is more often a wrong URL than the CA's fault.
            let page = matches!(&error, Error::Other(other) if other.is::<NotAcme>())
                && matches!(last_answer().status, 200..=299 | 404);
            let mut failed = judged(error);
            if page {
                failed.what.push_str("; is autocert_ca the URL of an ACME directory?");
            }
            failed
        })?;
        if self.issuer.profile.is_some() && self.profile(&directory).is_none() {
            let offered: Vec<_> = directory.meta.profiles.keys().collect();
            warn!(
                issuer = self.issuer.directory,
                profile = self.issuer.profile,
                ?offered,
                "the CA does not list this profile; it is left out"
            );
        }
        let stored = account::obtain(self, &directory, forgotten).await?;
        self.keep_account(stored.clone());
        let location = stored.location.unwrap_or_default();
        let key = PrivatePkcs8KeyDer::from(stored.key_pkcs8);
        let account = Account::builder_with_http(Box::new(self.http.clone()))
            .from_parts(location, key, self.issuer.directory.clone())
            .await
            .map_err(judged)?;
        Ok((account, directory))
    }

    /// The CA does not know the account (any more): the next order registers it again.
    pub async fn account_is_forgotten(&self) {
        *self.entered.lock().await = Entered::NotYet { forgotten: true };
    }

    /// An address that the directory gave is not there any more: it is fetched anew.
    pub async fn directory_is_stale(&self) {
        *self.entered.lock().await = Entered::NotYet { forgotten: false };
    }

    /// How the issuer counts an order.
    pub fn order<'a>(&'a self, name: &'a str, domain: &'a str, counts: Counts) -> Order<'a> {
        let account = self.issuer.email.as_deref().unwrap_or_default();
        Order { account, domain, name, counts }
    }

    /// The profile to ask for: the configured one, if the CA lists it.
    pub fn profile(&self, directory: &Directory) -> Option<&str> {
        let wanted = self.issuer.profile.as_deref()?;
        directory.meta.profiles.contains_key(wanted).then_some(wanted)
    }

    /// Publishes the answer to a challenge; it is withdrawn when the guard is dropped.
    pub fn answer(&self, name: &ServerName, answer: ChallengeAnswer) -> Answering {
        self.publisher.challenge(name, Some(answer));
        Answering { publisher: self.publisher.clone(), name: name.clone() }
    }
}

/// Of all settings that an order's fate may depend on, secrets and the content of files included: a digest
/// cannot be read back.
fn fingerprint(
    issuer: &IssuerConfig,
    settings: &Autocert,
    trusted_roots: &[u8],
    has_http_listener: bool,
) -> String {
    // The other issuers have nothing to do with it.
    let settings = Autocert { issuers: Vec::new(), ..settings.clone() };
    let mac_key = issuer.external_account.as_ref().map(|account| account.mac_key.as_slice());
    let text = format!("{issuer:?} {settings:?} {has_http_listener} {mac_key:?} {trusted_roots:?}");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A challenge that is answered for as long as this lives.
pub struct Answering {
    publisher: Publisher,
    name: ServerName,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.publisher.challenge(&self.name, None);
    }
}
