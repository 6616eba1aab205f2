//! One certificate, from order to chain: order, authorizations, finalize, download.
//!
//! Each thing that must not be lost is stored before the request that depends on it: the private key before
//! the order, the order's URL before its validation.

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeStatus,
    ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus,
};
use tracing::{debug, info, warn};

use crate::clock::{self, Moment};
use crate::config::autocert::ChallengeKind;
use crate::name::ServerName;
use crate::store::Expect;
use crate::store::record::{Certificate, Class, OpenOrder, Record};

use super::blocking;
use super::budget::{Counts, Vain};
use super::ca::{Answering, Ca};
use super::directory::Directory;
use super::elsewhere::SEEN_AFTER;
use super::held::Held;
use super::http_client::last_answer;
use super::keys;
use super::mutant::{Mutant, mutant};
use super::patience::{FIRST, TIMEOUT, longer, may_pass, pause};
use super::shared::{self, Shared};
use super::spending::Spending;
use super::verdict::{Doing, Failed, Verdict, judge, judge_problem};
use super::writes;

/// instant-acme tries a refused nonce three times; so many times three are enough at a CA that refuses half.
const NONCE_ROUNDS: usize = 6;
/// Repeats a request whose nonce was refused: the CA has done nothing.
macro_rules! with_fresh_nonces {
    ($request:expr) => {{
        let mut rounds = 0;
        loop {
            rounds += 1;
            match $request.await {
                Err(Error::Api(problem))
                    if rounds < NONCE_ROUNDS
                        && problem.r#type.as_deref()
                            == Some("urn:ietf:params:acme:error:badNonce") => {}
                outcome => break outcome,
            }
        }
    }};
}

/// What becomes of an order that cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// It ends.
    Must,
    /// It goes on in memory.
    Should,
    /// Nothing is to be stored of it.
    Not,
}

/// An order in progress.
pub struct Ordering<'a> {
    pub ca: &'a Ca,
    pub account: Account,
    pub directory: Directory,
    pub name: &'a ServerName,
    pub record: &'a mut Record,
    pub keeping: Keeping,
    /// How it counts against the issuer's limits.
    pub counts: Counts,
    /// Of the name: nothing is stored once it is lost.
    pub lock: Option<&'a Held>,
}

impl Ordering<'_> {
    /// Goes on with the open order, if there is one, else places one, and proves control of the name by
    /// this challenge. `replaces` identifies the certificate that is renewed.
    pub async fn certificate(
        &mut self,
        kind: ChallengeKind,
        replaces: Option<&str>,
    ) -> Result<Certificate, Failed> {
        let outcome = self.order(kind, replaces).await;
        // An order that is still open may be resumed and may lead to a certificate. Whoever has lost the lock finds it in
        // the store again, as the other node does.
        if let Err(failed) = &outcome
            && self.record.order.is_none()
            && !self.has_lost_lock()
        {
            let vain = if failed.is_about_name() { Vain::Unproved } else { Vain::Lost };
            self.spend().in_vain(self.counts, vain).await;
        }
        outcome
    }

    async fn order(
        &mut self,
        kind: ChallengeKind,
        replaces: Option<&str>,
    ) -> Result<Certificate, Failed> {
        let mut order = match self.resume(kind).await? {
            Some(order) => order,
            None => self.place(replaces).await?,
        };
        if order.state().status == OrderStatus::Pending {
            let validated = self.validate(&mut order, kind).await;
            // One invalid authorization is the end of the order (RFC 8555 §7.1.6). Whatever else kept us from learning of
            // that is no word of the CA's on the name: resumed, the order tells it.
            let is_invalid = order.state().status == OrderStatus::Invalid;
            if validated.as_ref().is_err_and(|failed| is_invalid || failed.is_about_name()) {
                self.forget_if_over(&mut order).await;
            }
            validated?;
        } else {
            self.stop_sharing().await;
        }
        if order.state().status == OrderStatus::Ready {
            self.finalize(&mut order).await?;
        }
        self.download(&mut order).await
    }

    /// The open order. One that failed meanwhile is a failure like any other: a process that dies again and
    /// again would else place order after order.
    async fn resume(&mut self, kind: ChallengeKind) -> Result<Option<Order>, Failed> {
        let key_type = self.ca.settings.key_type;
        let is_of_another_type =
            |open: &OpenOrder| keys::type_of(&open.private_key) != Some(key_type);
        let is_given_up = mutant(Mutant::OrderForgotten);
        if self.record.order.as_ref().is_some_and(is_of_another_type) || is_given_up {
            self.forget().await?;
        }
        let Some(open) = &self.record.order else { return Ok(None) };
        let Some(url) = open.url.clone() else { return Ok(None) };
        let counted = open.counts;
        match with_fresh_nonces!(self.account.order(url.clone())) {
            Ok(mut order) => {
                self.counts = counted.unwrap_or(self.counts);
                if order.state().status == OrderStatus::Invalid {
                    let failed = self.why_invalid(&mut order, kind).await;
                    self.record.order = None;
                    return Err(failed);
                }
                info!(name = %self.name, order = url, "order resumed");
                Ok(Some(order))
            }
            Err(error) => {
                let failed = judge(Doing::Ordering, &error, &last_answer());
                // The CA's own word: a page of whatever stands before it says nothing of the order.
                let gone = matches!(error, Error::Api(_))
                    && (matches!(last_answer().status, 403 | 404) || failed.is("malformed"));
                if gone && !failed.is("accountDoesNotExist") {
                    debug!(name = %self.name, order = url, %error, "the CA does not know the order");
                    self.forget().await?;
                    return Ok(None);
                }
                Err(failed)
            }
        }
    }

    async fn place(&mut self, replaces: Option<&str>) -> Result<Order, Failed> {
        // A private key that no order was placed with is as good as a new one.
        if self.record.order.is_none() {
            let key_type = self.ca.settings.key_type;
            let private_key =
                blocking(move || keys::generate(key_type)).await.ok_or_else(|| {
                    Failed::new(Class::Unreachable, "the system's random source failed")
                })?;
            self.record.order = Some(OpenOrder {
                private_key,
                url: None,
                begun: Moment::now(),
                challenge: None,
                counts: None,
            });
            self.save().await?;
        }
        let identifiers = [match self.name.as_ip() {
            Some(address) => Identifier::Ip(address),
            None => Identifier::Dns(self.name.as_str().to_owned()),
        }];
        // Refused once, it would be refused at each attempt, and each would cost a request for nothing.
        let is_refused = self.record.certificate.as_ref().is_some_and(|held| held.replaces_refused);
        let replaces = replaces.filter(|_| self.directory.renewal_info.is_some() && !is_refused);
        if replaces.is_none() && self.counts == Counts::Exempt {
            self.counts = Counts::Renewal;
        }
        self.spend().take(self.counts).await?;
        let order = match self.request(&identifiers, replaces).await {
            Ok(order) => order,
            Err(failed) => {
                self.spend().in_vain(self.counts, Vain::NotPlaced).await;
                return Err(failed);
            }
        };
        if let Some(open) = &mut self.record.order {
            open.url = Some(order.url().to_owned());
            open.counts = Some(self.counts);
        }
        if let Err(failed) = self.save().await {
            // Whoever has the lock now does not know of it, and we may tell nobody.
            if self.has_lost_lock() {
                self.spend().in_vain(self.counts, Vain::Lost).await;
            }
            return Err(failed);
        }
        Ok(order)
    }

    /// Asks for the order, and once more without what the CA refuses of it.
    async fn request(
        &mut self,
        identifiers: &[Identifier],
        mut replaces: Option<&str>,
    ) -> Result<Order, Failed> {
        let mut order = self.new_order(identifiers, replaces).await;
        // Whatever the CA has against `replaces` (RFC 9773 §5), it is no reason not to renew.
        if let Err(error) = &order
            && replaces.is_some()
            && is_about_replaces(error)
            && !mutant(Mutant::ReplacesKept)
        {
            info!(name = %self.name, %error, "ordering without 'replaces'");
            replaces = None;
            if let Some(held) = &mut self.record.certificate {
                held.replaces_refused = true;
                self.save().await?;
            }
            if self.counts == Counts::Exempt {
                self.spend().take(Counts::Renewal).await?;
                self.counts = Counts::Renewal;
            }
            order = self.new_order(identifiers, replaces).await;
        }
        // Nor is a profile that the CA had when its directory was fetched.
        if let Err(error) = &order
            && is_about_profile(error)
            && self.ca.profile(&self.directory).is_some()
        {
            self.directory = self.without_profile(error).await?;
            order = self.new_order(identifiers, replaces).await;
        }
        order.map_err(|error| judge(Doing::Ordering, &error, &last_answer()))
    }

    fn spend(&self) -> Spending<'_> {
        Spending { ca: self.ca, name: self.name }
    }

    /// The directory as it is now, and in any case without the profile that was refused.
    async fn without_profile(&self, refused: &Error) -> Result<Directory, Failed> {
        let profile = self.ca.issuer.profile.as_deref().unwrap_or_default();
        let issuer = &self.ca.issuer.directory;
        warn!(name = %self.name, issuer, profile, error = %refused, "the CA refuses this profile; ordering without it");
        let fetched = self.ca.http.fetch_directory().await;
        let mut directory =
            fetched.map_err(|error| judge(Doing::Ordering, &error, &last_answer()))?;
        directory.meta.profiles.remove(profile);
        Ok(directory)
    }

    async fn new_order(
        &self,
        identifiers: &[Identifier],
        replaces: Option<&str>,
    ) -> Result<Order, Error> {
        let build = || {
            let mut new = NewOrder::new(identifiers);
            if let Some((authority, serial)) = replaces.and_then(|id| id.split_once('.')) {
                new = new.replaces(CertificateIdentifier {
                    authority_key_identifier: authority.into(),
                    serial: serial.into(),
                });
            }
            match self.ca.profile(&self.directory) {
                Some(profile) => new.profile(profile),
                None => new,
            }
        };
        with_fresh_nonces!(self.account.new_order(&build()))
    }

    /// Proves control of the name, and waits until the CA has seen it.
    async fn validate(&mut self, order: &mut Order, kind: ChallengeKind) -> Result<(), Failed> {
        let mut answering = Vec::new();
        let status = self.prove(order, kind, &mut answering).await;
        self.stop_sharing().await;
        drop(answering);
        match status? {
            OrderStatus::Invalid => Err(self.why_invalid(order, kind).await),
            _ => {
                info!(name = %self.name, challenge = kind.as_str(), "the CA accepts the challenge");
                Ok(())
            }
        }
    }

    async fn prove(
        &mut self,
        order: &mut Order,
        kind: ChallengeKind,
        answering: &mut Vec<Answering>,
    ) -> Result<OrderStatus, Failed> {
        let judged = |error: Error| judge(Doing::Validating, &error, &last_answer());
        // Fetched here, where a refused nonce can be made good: below they are only handed out.
        with_fresh_nonces!(async {
            let mut authorizations = order.authorizations();
            while let Some(next) = authorizations.next().await {
                next?;
            }
            Ok(())
        })
        .map_err(judged)?;
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next.map_err(judged)?;
            // A CA may find an authorization of before still valid.
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let asked = match kind {
                ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
                ChallengeKind::Http01 => ChallengeType::Http01,
            };
            let Some(mut challenge) = authorization.challenge(asked) else {
                let what = format!("the CA offers no {} for {}", kind.as_str(), self.name);
                return Err(Failed::new(Class::Validation, what));
            };
            let shared = Shared {
                kind,
                name: self.name.clone(),
                url: challenge.url.clone(),
                token: challenge.token.clone(),
                key_authorization: challenge.key_authorization().as_str().to_owned(),
            };
            let answer = shared.answer().ok_or_else(|| {
                Failed::new(Class::Unreachable, "the system's random source failed")
            })?;
            answering.push(self.ca.answer(self.name, answer));
            self.share(shared).await;
            // The CA has been told before if we were killed just then.
            if challenge.status == ChallengeStatus::Pending {
                self.begin(kind).await?;
                self.tell(&mut challenge).await?;
            }
            info!(name = %self.name, challenge = kind.as_str(), "waiting for the CA to check the challenge");
        }
        self.poll(order, |status| status != OrderStatus::Pending).await
    }

    /// Puts the challenge where the other nodes look, for one of them may be the one that the CA asks, and
    /// gives them time to see it.
    async fn share(&self, challenge: Shared) {
        let store = self.ca.store.clone();
        let (object, content) = (challenge.object(&self.ca.issuer_key), challenge.bytes());
        match blocking(move || store.put(&object, &content, Expect::Anything)).await {
            Ok(_) => tokio::time::sleep(SEEN_AFTER).await,
            Err(error) => {
                warn!(name = %self.name, %error, "other nodes cannot answer this challenge");
            }
        }
    }

    /// Takes away what was shared, by this process or by one of ours that was killed. The name's lock is
    /// held, so nobody else of ours is at work on it.
    async fn stop_sharing(&self) {
        let (store, name) = (self.ca.store.clone(), self.name.clone());
        let issuer_key = self.ca.issuer_key.clone();
        let removed = blocking(move || shared::remove_ours(&*store, &issuer_key, &name)).await;
        if let Err(error) = removed {
            debug!(name = %self.name, %error, "a challenge that is over stays in the store for a while");
        }
    }

    /// Stores which challenge the CA is told to look at.
    async fn begin(&mut self, kind: ChallengeKind) -> Result<(), Failed> {
        let Some(open) = &mut self.record.order else { return Ok(()) };
        let begun = Some(kind.as_str().to_owned());
        if open.challenge == begun {
            return Ok(());
        }
        open.challenge = begun;
        self.save().await
    }

    /// Tells the CA that the challenge is answered. While that is uncertain the answer stays up, for the CA
    /// may be asking for it.
    async fn tell(&self, challenge: &mut ChallengeHandle<'_>) -> Result<(), Failed> {
        let (begun, mut own) = (clock::steady(), FIRST);
        let mut is_uncertain = false;
        loop {
            let Err(error) = with_fresh_nonces!(challenge.set_ready()) else { return Ok(()) };
            let answer = last_answer();
            let failed = judge(Doing::Validating, &error, &answer);
            if !may_pass(&failed, answer.status) {
                // Told twice, a CA may refuse: the order's state says what came of it.
                return if is_uncertain { Ok(()) } else { Err(failed) };
            }
            is_uncertain = true;
            let pause = pause(own, answer.retry_after, Moment::now());
            if clock::steady().duration_since(begun) + pause > TIMEOUT {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
            own = longer(own);
        }
    }

    /// Asks for the order's state until `done`. One bad answer is no reason to give up what the CA may be
    /// at work on.
    async fn poll(
        &mut self,
        order: &mut Order,
        done: impl Fn(OrderStatus) -> bool,
    ) -> Result<OrderStatus, Failed> {
        let begun = clock::steady();
        let (mut own, mut next) = (FIRST, FIRST);
        loop {
            tokio::time::sleep(next).await;
            let refreshed = with_fresh_nonces!(order.refresh());
            let answer = last_answer();
            let failed = match refreshed {
                Ok(state) if done(state.status) => return Ok(state.status),
                Ok(_) => {
                    let mut failed = Failed::new(
                        Class::Unreachable,
                        format!(
                            "the CA is not done with the order for {}; it is resumed",
                            self.name
                        ),
                    );
                    failed.verdict = Verdict::Retry { not_before: answer.retry_after };
                    failed
                }
                Err(error) => {
                    let failed = judge(Doing::Finalizing, &error, &answer);
                    if !may_pass(&failed, answer.status) {
                        return Err(failed);
                    }
                    debug!(name = %self.name, %error, "the order's state is asked for again");
                    failed
                }
            };
            own = longer(own);
            next = pause(own, answer.retry_after, Moment::now());
            if clock::steady().duration_since(begun) + next > TIMEOUT {
                return Err(failed);
            }
        }
    }

    /// The challenge's own error says more than the order's.
    async fn why_invalid(&self, order: &mut Order, kind: ChallengeKind) -> Failed {
        let order_error = order.state().error.clone();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if with_fresh_nonces!(authorization.refresh()).is_err() {
                break;
            }
            let problem = authorization.challenges.iter().find_map(|one| one.error.as_ref());
            if let Some(problem) = problem {
                let mut failed = judge_problem(Doing::Validating, problem, &last_answer());
                failed.what = format!("{}: {}", kind.as_str(), failed.what);
                return failed;
            }
        }
        match order_error {
            Some(problem) => judge_problem(Doing::Validating, &problem, &last_answer()),
            None => {
                Failed::new(Class::Validation, "the CA calls the order invalid and says no more")
            }
        }
    }

    async fn finalize(&mut self, order: &mut Order) -> Result<(), Failed> {
        let Some(open) = &self.record.order else {
            return Err(Failed::new(Class::Unreachable, "the order's private key is gone"));
        };
        let (key, name) = (open.private_key.clone(), self.name.clone());
        let must_staple = self.ca.settings.must_staple;
        let request = blocking(move || keys::request(&key, &name, must_staple)).await;
        let Some(request) = request else {
            self.forget().await?;
            return Err(Failed::new(Class::Unreachable, "the order's private key is damaged"));
        };
        let outcome = with_fresh_nonces!(order.finalize_csr(&request));
        if let Err(error) = outcome {
            let failed = judge(Doing::Finalizing, &error, &last_answer());
            if failed.class == Class::Operator {
                // What the operator changes, such as the type of the private key, is for another order.
                self.record.order = None;
            } else {
                self.forget_if_over(order).await;
            }
            return Err(failed);
        }
        Ok(())
    }

    async fn download(&mut self, order: &mut Order) -> Result<Certificate, Failed> {
        if order.state().status == OrderStatus::Processing {
            let done = |status| matches!(status, OrderStatus::Valid | OrderStatus::Invalid);
            self.poll(order, done).await?;
        }
        if order.state().status == OrderStatus::Invalid {
            let problem = order.state().error.clone();
            self.record.order = None;
            return Err(match problem {
                Some(problem) => judge_problem(Doing::Finalizing, &problem, &last_answer()),
                None => Failed::new(
                    Class::Unreachable,
                    "the CA calls the order invalid and says no more",
                ),
            });
        }
        let url = order.state().certificate.clone().unwrap_or_default();
        let chain = with_fresh_nonces!(order.certificate())
            .map_err(|error| judge(Doing::Finalizing, &error, &last_answer()))?
            .ok_or_else(|| Failed::new(Class::Unreachable, "the CA is not done with the order"))?;
        let private_key = match &self.record.order {
            Some(open) => open.private_key.clone(),
            None => String::new(),
        };
        Ok(Certificate {
            chain,
            private_key,
            url,
            account: self.account.id().to_owned(),
            ..Certificate::default()
        })
    }

    /// Forgets the order if the CA says that it is over, so that the next attempt places another. The store forgets it
    /// with the next thing that is stored, be it the failure or the next order: killed before, we find the order there
    /// and that it failed.
    async fn forget_if_over(&mut self, order: &mut Order) {
        // Where the answer is lost, what it was before counts.
        let _ = with_fresh_nonces!(order.refresh());
        if order.state().status == OrderStatus::Invalid {
            self.record.order = None;
        }
    }

    fn has_lost_lock(&self) -> bool {
        self.lock.is_some_and(Held::is_lost)
    }

    async fn forget(&mut self) -> Result<(), Failed> {
        self.record.order = None;
        self.save().await
    }

    async fn save(&self) -> Result<(), Failed> {
        if self.keeping == Keeping::Not {
            return Ok(());
        }
        match writes::save(&self.ca.store, self.lock, self.record).await {
            Err(error) if self.keeping == Keeping::Must => {
                Err(super::account::cannot_store(&error))
            }
            _ => Ok(()),
        }
    }
}

fn is_about_replaces(error: &Error) -> bool {
    let Error::Api(problem) = error else { return false };
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let status = problem.status.unwrap_or_else(|| last_answer().status);
    let detail = problem.detail.as_deref().unwrap_or_default().to_lowercase();
    kind.ends_with(":alreadyReplaced")
        || status == 409
        || detail.contains("replace")
        || (status == 404 && !kind.ends_with(":accountDoesNotExist"))
}

fn is_about_profile(error: &Error) -> bool {
    let Error::Api(problem) = error else { return false };
    problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":invalidProfile"))
}
