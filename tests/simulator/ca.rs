//! An ACME CA in the same process (RFC 8555, RFC 9773), as strict as Let's Encrypt where clients go wrong:
//! nonces, signatures, limits, `replaces`, one order at a time.
//!
//! It tells the checker what it is asked for, and looks at the sky for what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use ringgate::clock::simulated::true_time;
use ringgate::clock::{Moment, rfc3339};
use ringgate::config::autocert::LETS_ENCRYPT;
use ringgate::control::autocert::simulated::Trouble;
use serde_json::{Value, json};

use crate::buckets::{self, Buckets, Limit};
use crate::checker::{Checker, Placed};
use crate::dice::Dice;
use crate::jws::{self, Signature};
use crate::responses::Responses;
use crate::signing::{Signed, signer};
use crate::sky::Sky;
use crate::weather::Outage;

/// How long an order lives (Let's Encrypt: a week for long certificates, 8 hours for short ones).
const ORDER_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
const SHORT_ORDER_LIFE: Duration = Duration::from_secs(8 * 3600);
const SHORT: Duration = Duration::from_secs(10 * 24 * 3600);
/// How long a validation is believed.
const VALIDATION_LIFE: Duration = Duration::from_secs(7 * 3600);
/// Backdated, as every CA does for clients whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(3600);
/// How long after an incident what was issued is revoked (Baseline Requirements §4.9.1.1).
pub const REVOKED_AFTER: Duration = Duration::from_secs(5 * 24 * 3600);

/// The serial number of the first certificate.
const FIRST_SERIAL: u64 = 0x5000_0000_0000_0000;

/// The part of the signatures that is checked, those of new accounts apart: all would be a sixth of the time.
const CHECKED: f64 = 0.05;

/// What all names are below.
pub const DOMAIN: &str = "sim.example";

/// What the CA asks for to see whether a name is its account's: kind, name, token, key authorization.
pub type Probe = Arc<dyn Fn(&str, &str, &str, &str) -> Result<(), String> + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Pending,
    Ready,
    Valid,
    Invalid,
}

struct Order {
    account: usize,
    name: String,
    replaces: Option<String>,
    is_exempt: bool,
    is_new: bool,
    status: Status,
    expires: Moment,
    token: String,
    /// The challenge that the client has said is ready.
    begun: Option<&'static str>,
    error: Option<Value>,
    certificate: Option<usize>,
    /// Signed by then.
    done: Moment,
}

struct Account {
    point: Vec<u8>,
    thumbprint: String,
    is_forgotten: bool,
}

/// A certificate that was issued.
struct Issued {
    name: String,
    account: Option<usize>,
    signed: Signed,
    from: Moment,
    to: Moment,
    replaced_by: Option<u64>,
    incident: Option<Moment>,
    revoked: Option<Moment>,
}

struct State {
    dice: Dice,
    lifetime: Duration,
    nonces: BTreeSet<u64>,
    last_nonce: u64,
    accounts: Vec<Account>,
    orders: BTreeMap<u64, Order>,
    issued: Vec<Issued>,
    by_id: BTreeMap<String, usize>,
    validated: BTreeMap<(usize, String), Moment>,
    buckets: Buckets,
}

/// One CA.
pub struct Ca {
    number: usize,
    renewal_information: Option<Duration>,
    reuses_validations: bool,
    limits_known: bool,
    responses: Option<Responses>,
    state: Mutex<State>,
    sky: Arc<Sky>,
    checker: Arc<Checker>,
    probe: Probe,
}

/// What is answered, before it is bytes.
struct Answer {
    status: u16,
    body: Value,
    location: Option<String>,
    retry_after: Option<Duration>,
    text: Option<String>,
    /// The name whose orders `retry_after` forbids.
    forbids: Option<String>,
}

impl Answer {
    fn json(status: u16, body: Value) -> Self {
        Self { status, body, location: None, retry_after: None, text: None, forbids: None }
    }
}

fn problem(status: u16, kind: &str, detail: impl Into<String>) -> Answer {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    let detail: String = detail.into();
    Answer::json(status, json!({ "type": kind, "detail": detail, "status": status }))
}

impl Ca {
    pub fn new(
        number: usize,
        seed: u64,
        setting: &crate::weather::Setting,
        sky: Arc<Sky>,
        checker: Arc<Checker>,
        probe: Probe,
    ) -> Self {
        let state = State {
            dice: Dice::new(seed, 100 + number as u64),
            lifetime: setting.lifetime,
            nonces: BTreeSet::new(),
            last_nonce: 0,
            accounts: Vec::new(),
            orders: BTreeMap::new(),
            issued: Vec::new(),
            by_id: BTreeMap::new(),
            validated: BTreeMap::new(),
            buckets: Buckets::default(),
        };
        Self {
            number,
            renewal_information: setting.renewal_information,
            reuses_validations: setting.reuses_validations,
            limits_known: setting.limits_known,
            state: Mutex::new(state),
            responses: setting.responses,
            sky,
            checker,
            probe,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory's URL: that of Let's Encrypt where its limits are to be known.
    pub fn directory_url(&self) -> String {
        match self.limits_known && self.number == 0 {
            true => LETS_ENCRYPT.into(),
            false => self.url("directory"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://ca{}.sim/{path}", self.number)
    }

    pub fn set_lifetime(&self, lifetime: Duration) {
        self.state().lifetime = lifetime;
    }

    pub fn forget_accounts(&self) {
        for account in &mut self.state().accounts {
            account.is_forgotten = true;
        }
        self.checker.accounts_forgotten(self.number);
    }

    /// All that was issued must be revoked.
    pub fn incident(&self) {
        let now = true_time();
        let is_announced = self.renewal_information.is_some() || self.responses.is_some();
        for one in self.state().issued.iter_mut().filter(|one| one.to > now) {
            let is_long = one.to.since(one.from) >= SHORT;
            if one.incident.is_none() && is_long && is_announced {
                one.incident = Some(now);
                self.checker.incident(&one.signed.der, now);
            }
        }
    }

    /// All that was issued is revoked at once; its responder says so, and nobody else.
    pub fn revoke(&self) {
        let now = true_time();
        for one in self.state().issued.iter_mut().filter(|one| one.to > now) {
            if one.revoked.is_none() {
                one.revoked = Some(now);
                self.checker.revoked(&one.signed.der, now);
            }
        }
    }

    /// A certificate by its serial number, and since when it is revoked.
    pub fn revocation(&self, serial: u64) -> Option<(Vec<u8>, Option<Moment>)> {
        let state = self.state();
        let one = state.issued.get(usize::try_from(serial.checked_sub(FIRST_SERIAL)?).ok()?)?;
        let announced = one.incident.map(|at| at.plus(REVOKED_AFTER));
        let announced = announced.filter(|at| *at <= true_time());
        Some((one.signed.der.clone(), one.revoked.into_iter().chain(announced).min()))
    }

    /// Issues to a client that is not watched, by its private key.
    pub fn issue_to_caddy(&self, request: &[u8], name: &str) -> Option<(String, String)> {
        let now = true_time();
        if self.sky.outage().is_some() || self.sky.is_limited() || self.sky.validations_fail() {
            return None;
        }
        let mut state = self.state();
        let index = self.sign(&mut state, request, name, None, now).ok()?;
        let chain = state.issued[index].signed.chain.clone();
        Some((chain, self.url(&format!("cert/{index}"))))
    }

    /// One exchange: on its way, at the CA, and back.
    pub async fn exchange(
        self: Arc<Self>,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Trouble> {
        let latency = {
            let mut state = self.state();
            state.dice.between(Duration::from_millis(20), Duration::from_millis(400))
        };
        tokio::time::sleep(latency).await;
        match self.sky.outage() {
            Some(Outage::Refused) => {
                return Err(Trouble::new("cannot connect to the CA: Connection refused"));
            }
            Some(Outage::Silent) => std::future::pending().await,
            Some(Outage::Broken) => {
                return Ok(self.bytes(problem(500, "serverInternal", "it is broken")));
            }
            Some(Outage::Page) => {
                let page = Response::builder().status(502).header("content-type", "text/html");
                return Ok(page.body("<html>Bad Gateway".into()).expect("a response"));
            }
            Some(Outage::Maintenance { retry_after }) => {
                let mut answer = problem(503, "serverInternal", "down for maintenance");
                answer.retry_after = Some(retry_after);
                self.checker.retry_after(self.number, None, true_time(), retry_after);
                return Ok(self.bytes(answer));
            }
            None => {}
        }
        let answer = self.clone().answer(&request);
        if self.sky.answers_are_lost() && self.state().dice.chance(0.2) {
            return Err(Trouble::lost("the CA broke off"));
        }
        if let (Some(name), Some(after)) = (&answer.forbids, answer.retry_after) {
            self.checker.retry_after(self.number, Some(name), true_time(), after);
        }
        Ok(self.bytes(answer))
    }

    fn bytes(&self, answer: Answer) -> Response<Bytes> {
        let mut state = self.state();
        state.last_nonce += 1;
        let nonce = state.last_nonce;
        state.nonces.insert(nonce);
        // Nonces age out.
        while state.nonces.len() > 100 {
            state.nonces.pop_first();
        }
        drop(state);
        let kind = match (&answer.text, answer.status) {
            (Some(_), _) => "application/pem-certificate-chain",
            (None, 400..) => "application/problem+json",
            (None, _) => "application/json",
        };
        let mut response = Response::builder()
            .status(answer.status)
            .header("content-type", kind)
            .header("replay-nonce", format!("nonce{nonce}"));
        if let Some(location) = answer.location {
            response = response.header("location", location);
        }
        if let Some(after) = answer.retry_after {
            response = response.header("retry-after", after.as_secs().to_string());
        }
        let body = answer.text.unwrap_or_else(|| answer.body.to_string());
        response.body(body.into()).expect("a response")
    }

    fn answer(self: Arc<Self>, request: &Request<Bytes>) -> Answer {
        let path = request.uri().path().trim_start_matches('/').to_owned();
        let (place, rest) = path.split_once('/').unwrap_or((&path, ""));
        match place {
            "directory" => return self.directory(),
            "nonce" => return Answer::json(200, json!({})),
            "ari" => return self.renewal_info(rest),
            _ => {}
        }
        let Some(signed) = jws::read(request.body()) else {
            return problem(400, "malformed", "no JWS");
        };
        if signed.url != request.uri().to_string() {
            return problem(400, "malformed", "another url");
        }
        {
            let refused = self.sky.refuses_nonces();
            let mut state = self.state();
            let nonce = signed.nonce.strip_prefix("nonce").and_then(|text| text.parse().ok());
            let is_known = nonce.is_some_and(|nonce: u64| state.nonces.remove(&nonce));
            if !is_known || (refused && state.dice.chance(0.5)) {
                return problem(400, "badNonce", "try another one");
            }
        }
        if place == "account" {
            return self.account(&signed);
        }
        let account = match self.who(&signed) {
            Ok(account) => account,
            Err(answer) => return *answer,
        };
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        match place {
            "neworder" => self.new_order(account, &signed.payload),
            "order" => self.with_order(account, number(rest), |ca, state, id| ca.order(state, id)),
            "authz" => {
                self.with_order(account, number(rest), |ca, state, id| ca.authorization(state, id))
            }
            "challenge" => self.challenge(account, rest),
            "finalize" => self.finalize(account, number(rest), &signed.payload),
            "cert" => self.certificate(number(rest)),
            _ => problem(404, "malformed", "no such thing"),
        }
    }

    fn directory(&self) -> Answer {
        let mut directory = json!({
            "newNonce": self.url("nonce"),
            "newAccount": self.url("account"),
            "newOrder": self.url("neworder"),
            "revokeCert": self.url("revoke"),
            "keyChange": self.url("keychange"),
        });
        if self.renewal_information.is_some() {
            directory["renewalInfo"] = self.url("ari").into();
        }
        Answer::json(200, directory)
    }

    fn limited(&self, state: &State, limit: Limit, key: &str) -> Option<Answer> {
        let empty_for = state.buckets.empty_for(limit, key, true_time())?;
        self.checker.limit_exceeded(limit.what, key);
        let mut answer = problem(429, "rateLimited", format!("too many {}", limit.what));
        answer.retry_after = Some(empty_for);
        Some(answer)
    }

    fn account(&self, signed: &Signature) -> Answer {
        let Some((point, thumbprint)) = &signed.jwk else {
            return problem(400, "malformed", "no jwk");
        };
        if !signed.is_by(point) {
            return problem(400, "malformed", "a wrong signature");
        }
        let mut state = self.state();
        let found = state.accounts.iter().position(|one| one.point == *point && !one.is_forgotten);
        let index = match found {
            Some(index) => index,
            None => {
                if let Some(limited) = self.limited(&state, buckets::ACCOUNTS, "") {
                    return limited;
                }
                state.buckets.spend(buckets::ACCOUNTS, "", true_time());
                let (point, thumbprint) = (point.clone(), thumbprint.clone());
                state.accounts.push(Account { point, thumbprint, is_forgotten: false });
                self.checker.account_made(self.number);
                state.accounts.len() - 1
            }
        };
        let mut answer = Answer::json(201, json!({ "status": "valid" }));
        answer.location = Some(self.url(&format!("acct/{index}")));
        answer
    }

    fn who(&self, signed: &Signature) -> Result<usize, Box<Answer>> {
        let mut state = self.state();
        let is_checked = state.dice.chance(CHECKED);
        let index = signed.key_id.as_ref().and_then(|id| {
            id.strip_prefix(&self.url("acct/")).and_then(|number| number.parse::<usize>().ok())
        });
        let known = index.and_then(|index| Some((index, state.accounts.get(index)?)));
        match known {
            Some((index, account)) if !account.is_forgotten => {
                if !is_checked || signed.is_by(&account.point) {
                    Ok(index)
                } else {
                    Err(problem(403, "unauthorized", "a wrong signature").into())
                }
            }
            _ => Err(problem(400, "accountDoesNotExist", "no such account").into()),
        }
    }

    fn new_order(&self, account: usize, payload: &Value) -> Answer {
        let now = true_time();
        let Some(name) = payload["identifiers"][0]["value"].as_str() else {
            return problem(400, "malformed", "no identifier");
        };
        self.checker.order_wanted(self.number, name, now);
        if let Some(retry_after) = self.sky.limited() {
            let mut answer = problem(429, "rateLimited", "too many of whatever");
            answer.retry_after = retry_after;
            answer.forbids = Some(name.to_owned());
            return answer;
        }
        let mut state = self.state();
        let replaces = payload["replaces"].as_str().map(str::to_owned);
        let mut is_exempt = false;
        if let Some(id) = &replaces {
            let Some(index) = state.by_id.get(id).copied() else {
                return problem(404, "malformed", "no such certificate is to be replaced");
            };
            let before = &state.issued[index];
            if before.account != Some(account) {
                return problem(403, "unauthorized", "the certificate to replace is another's");
            }
            let is_open = before.replaced_by.is_some_and(|order| {
                let order = &state.orders[&order];
                order.certificate.is_some()
                    || (order.status != Status::Invalid && order.expires > now)
            });
            if is_open {
                self.checker.replaces_refused(name);
                return problem(409, "alreadyReplaced", "it has been replaced already");
            }
            let (start, end) = self.window(before, now);
            is_exempt = (start..=end).contains(&now);
        }
        // The same names again are a renewal, which counts for the same names alone.
        let is_new = !is_exempt && !state.issued.iter().any(|one| one.name == name);
        for (limit, key, exempt) in [
            (buckets::ORDERS, account.to_string(), !is_new),
            (buckets::DOMAIN, DOMAIN.to_owned(), !is_new),
            (buckets::EXACT_SET, name.to_owned(), is_exempt),
            (buckets::FAILED, name.to_owned(), false),
        ] {
            if !exempt && let Some(limited) = self.limited(&state, limit, &key) {
                return limited;
            }
        }
        if is_new {
            state.buckets.spend(buckets::ORDERS, &account.to_string(), now);
            // Stricter than Let's Encrypt, which counts what it has issued: orders placed together are as many.
            state.buckets.spend(buckets::DOMAIN, DOMAIN, now);
        }
        let id = state.orders.len() as u64 + 1;
        let open = state.orders.iter().rev().find(|(_, order)| {
            let is_open = order.status != Status::Invalid && order.certificate.is_none();
            order.name == name && order.account == account && is_open && order.expires > now
        });
        let url = |id: u64| self.url(&format!("order/{id}"));
        let open = open.map(|(id, _)| url(*id));
        let its = |order: &&Order| order.name == name && order.account == account;
        let last = state.orders.iter().rev().find(|(_, order)| its(order));
        let finished = last.and_then(|(id, order)| {
            let certificate = &state.issued[order.certificate?];
            (order.done <= now).then(|| (url(*id), certificate.signed.der.clone()))
        });
        self.checker.placed(&Placed { name, order: url(id), open, finished, now });
        let is_short = state.lifetime < SHORT;
        let is_validated = self.reuses_validations
            && state
                .validated
                .get(&(account, name.to_owned()))
                .is_some_and(|at| now.since(*at) < VALIDATION_LIFE);
        let order = Order {
            account,
            name: name.to_owned(),
            replaces: replaces.clone(),
            is_exempt,
            is_new,
            status: if is_validated { Status::Ready } else { Status::Pending },
            expires: now.plus(if is_short { SHORT_ORDER_LIFE } else { ORDER_LIFE }),
            token: format!("token-{}-{id}-{:016x}", self.number, state.dice.next()),
            begun: None,
            error: None,
            certificate: None,
            done: now,
        };
        if let Some(index) = replaces.and_then(|id| state.by_id.get(&id).copied()) {
            state.issued[index].replaced_by = Some(id);
        }
        state.orders.insert(id, order);
        let mut answer = self.order(&mut state, id);
        answer.status = 201;
        answer.location = Some(self.url(&format!("order/{id}")));
        answer
    }

    fn with_order(
        &self,
        account: usize,
        id: u64,
        then: impl FnOnce(&Self, &mut State, u64) -> Answer,
    ) -> Answer {
        let mut state = self.state();
        let now = true_time();
        match state.orders.get_mut(&id) {
            Some(order) if order.account == account => {
                if order.expires <= now && order.certificate.is_none() {
                    order.status = Status::Invalid;
                }
                then(self, &mut state, id)
            }
            Some(_) => problem(403, "unauthorized", "another's order"),
            None => problem(404, "malformed", "no such order"),
        }
    }

    fn order(&self, state: &mut State, id: u64) -> Answer {
        let order = &state.orders[&id];
        let now = true_time();
        let is_processing = order.certificate.is_some() && now < order.done;
        let status = match order.status {
            Status::Pending => "pending",
            Status::Ready => "ready",
            Status::Invalid => "invalid",
            Status::Valid if is_processing => "processing",
            Status::Valid => "valid",
        };
        let mut body = json!({
            "status": status,
            "expires": rfc3339(order.expires),
            "identifiers": [{ "type": "dns", "value": order.name }],
            "authorizations": [self.url(&format!("authz/{id}"))],
            "finalize": self.url(&format!("finalize/{id}")),
        });
        if let Some(replaces) = &order.replaces {
            body["replaces"] = replaces.as_str().into();
        }
        if let Some(error) = &order.error {
            body["error"] = error.clone();
        }
        if let Some(index) = order.certificate.filter(|_| status == "valid") {
            body["certificate"] = self.url(&format!("cert/{index}")).into();
        }
        let mut answer = Answer::json(200, body);
        answer.retry_after =
            is_processing.then(|| order.done.since(now).min(Duration::from_secs(60)));
        answer
    }

    fn authorization(&self, state: &mut State, id: u64) -> Answer {
        let order = &state.orders[&id];
        let status = match order.status {
            Status::Pending => "pending",
            Status::Ready | Status::Valid => "valid",
            Status::Invalid => "invalid",
        };
        let challenges = ["tls-alpn-01", "http-01"].map(|kind| {
            let mut challenge = json!({
                "type": kind,
                "url": self.url(&format!("challenge/{id}/{kind}")),
                "status": "pending",
                "token": order.token,
            });
            if order.begun == Some(kind) {
                challenge["status"] =
                    if status == "pending" { "processing" } else { status }.into();
                if let Some(error) = &order.error {
                    challenge["error"] = error.clone();
                }
            }
            challenge
        });
        Answer::json(
            200,
            json!({
                "status": status,
                "expires": rfc3339(order.expires),
                "identifier": { "type": "dns", "value": order.name },
                "challenges": challenges,
            }),
        )
    }

    fn challenge(self: Arc<Self>, account: usize, rest: &str) -> Answer {
        let (id, kind) = rest.split_once('/').unwrap_or((rest, ""));
        let kind = if kind == "http-01" { "http-01" } else { "tls-alpn-01" };
        let id = id.parse::<u64>().unwrap_or_default();
        let ca = self.clone();
        self.with_order(account, id, move |_, state, id| {
            let takes = state.dice.between(Duration::from_millis(300), Duration::from_secs(4));
            let order = state.orders.get_mut(&id).expect("the order");
            if order.status != Status::Pending {
                return problem(400, "malformed", "the challenge is not pending");
            }
            if order.begun.is_none() {
                order.begun = Some(kind);
                tokio::spawn(async move {
                    tokio::time::sleep(takes).await;
                    ca.validate(id, kind);
                });
            }
            let url = ca_url(rest, &state.orders[&id].token, kind);
            Answer::json(200, url)
        })
    }

    fn validate(&self, id: u64, kind: &'static str) {
        let now = true_time();
        let (name, account, token, key_authorization) = {
            let state = self.state();
            let order = &state.orders[&id];
            let thumbprint = &state.accounts[order.account].thumbprint;
            let key_authorization = format!("{}.{thumbprint}", order.token);
            (order.name.clone(), order.account, order.token.clone(), key_authorization)
        };
        let proved = if self.sky.is_forbidden_by_caa() {
            Err(("caa", "CAA record for the name prevents issuance".to_owned()))
        } else if self.sky.validations_fail() {
            Err(("connection", "Timeout during connect (likely firewall problem)".to_owned()))
        } else {
            (self.probe)(kind, &name, &token, &key_authorization)
                .map_err(|why| ("unauthorized", why))
        };
        let mut state = self.state();
        match proved {
            Ok(()) => {
                state.validated.insert((account, name), now);
                if let Some(order) = state.orders.get_mut(&id) {
                    order.status = Status::Ready;
                }
            }
            Err((error, detail)) => {
                state.buckets.spend(buckets::FAILED, &name, now);
                let Some(order) = state.orders.get_mut(&id) else { return };
                order.status = Status::Invalid;
                order.error = Some(problem(403, error, detail).body);
                if order.is_new {
                    state.buckets.give_back(buckets::DOMAIN, DOMAIN, now);
                }
            }
        }
    }

    fn finalize(&self, account: usize, id: u64, payload: &Value) -> Answer {
        let is_slow = self.sky.is_slow();
        self.with_order(account, id, |ca, state, id| {
            let order = &state.orders[&id];
            if order.status != Status::Ready {
                return problem(403, "orderNotReady", "the order is not ready");
            }
            let (name, exempt) = (order.name.clone(), order.is_exempt);
            let request = payload["csr"].as_str().unwrap_or_default();
            let Ok(request) = URL_SAFE_NO_PAD.decode(request) else {
                return problem(400, "badCSR", "no base64url");
            };
            let now = true_time();
            let index = match ca.sign(state, &request, &name, Some(account), now) {
                Ok(index) => index,
                Err(why) => return problem(400, "badCSR", why),
            };
            if !exempt {
                state.buckets.spend(buckets::EXACT_SET, &name, now);
            }
            let takes = match is_slow {
                true => state.dice.between(Duration::from_secs(30), Duration::from_secs(900)),
                false => state.dice.between(Duration::ZERO, Duration::from_secs(4)),
            };
            let order = state.orders.get_mut(&id).expect("the order");
            order.status = Status::Valid;
            order.certificate = Some(index);
            order.done = now.plus(takes);
            ca.order(state, id)
        })
    }

    fn sign(
        &self,
        state: &mut State,
        request: &[u8],
        name: &str,
        account: Option<usize>,
        now: Moment,
    ) -> Result<usize, String> {
        let index = state.issued.len();
        let (from, to) = (now.minus(BACKDATED), now.minus(BACKDATED).plus(state.lifetime));
        let serial = FIRST_SERIAL + index as u64;
        let responses = self.responses.as_ref();
        let signed = signer(self.number).sign(request, name, serial, from, to, responses)?;
        self.checker.issued(self.number, name, &signed.der, from, to);
        state.by_id.insert(signed.id.clone(), index);
        let name = name.to_owned();
        let (replaced_by, incident, revoked) = (None, None, None);
        state.issued.push(Issued {
            name,
            account,
            signed,
            from,
            to,
            replaced_by,
            incident,
            revoked,
        });
        Ok(index)
    }

    fn certificate(&self, index: u64) -> Answer {
        let state = self.state();
        match state.issued.get(index as usize) {
            Some(one) => {
                let mut answer = Answer::json(200, Value::Null);
                answer.text = Some(one.signed.chain.clone());
                answer
            }
            None => problem(404, "malformed", "no such certificate"),
        }
    }

    /// When the certificate should be renewed.
    fn window(&self, one: &Issued, now: Moment) -> (Moment, Moment) {
        let life = one.to.since(one.from);
        if let Some(incident) = one.incident {
            return (
                incident.minus(Duration::from_secs(3600)),
                incident.minus(Duration::from_secs(1800)),
            );
        }
        if self.sky.windows_are_late() {
            return (one.to.plus(Duration::from_secs(3600)), one.to.plus(life / 10));
        }
        let _ = now;
        let middle = one.to.minus(life / if life < SHORT { 2 } else { 3 });
        (middle.minus(life / 100), middle.plus(life / 100))
    }

    fn renewal_info(&self, id: &str) -> Answer {
        let now = true_time();
        if self.sky.has_no_renewal_information() {
            return problem(500, "serverInternal", "renewal information is out of order");
        }
        let state = self.state();
        let Some(one) = state.by_id.get(id).map(|index| &state.issued[*index]) else {
            return problem(404, "malformed", "no such certificate");
        };
        let (start, end) = self.window(one, now);
        self.checker.window_served(&one.signed.der, now, start, end);
        let window = json!({ "start": rfc3339(start), "end": rfc3339(end) });
        let mut answer = Answer::json(200, json!({ "suggestedWindow": window }));
        answer.retry_after = self.renewal_information;
        answer
    }
}

fn ca_url(rest: &str, token: &str, kind: &str) -> Value {
    json!({ "type": kind, "url": format!("https://ca.sim/challenge/{rest}"), "status": "processing", "token": token })
}
