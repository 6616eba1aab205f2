//! The proxy before Pebble breaks exactly what its script says, and adds what Pebble lacks.

use std::io::{ErrorKind, Result};
use std::process::Output;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::harness::http::Message;
use crate::harness::{
    AcmeFaults, Fault, Next, Pebble, PebbleOptions, Phase, RenewalInfo, RetryAfter, Role, Tls,
    When, command, root_store,
};

fn start() -> (Pebble, AcmeFaults) {
    let pebble = Pebble::start(PebbleOptions::default());
    let proxy = AcmeFaults::start(&pebble);
    (pebble, proxy)
}

/// Asks for the directory with curl; what it prints is headers and body.
fn curl(pebble: &Pebble, proxy: &AcmeFaults, more: &[&str]) -> Output {
    let (root, url) = (pebble.trusted_ca_file().display().to_string(), proxy.directory_url());
    let all = [&["-sS", "-i", "--max-time", "20", "--cacert", &root, &url], more].concat();
    command("curl", &all, "")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn each_fault_is_what_the_client_meets_and_then_it_is_over() {
    let (pebble, proxy) = start();
    let ask = |fault: Fault, more: &[&str]| {
        proxy.on(Role::Directory, When::Nth(1), fault);
        let output = curl(&pebble, &proxy, more);
        (output.status.code().unwrap(), text(&output))
    };
    let (code, said) = ask(Fault::bare(429, Some(RetryAfter::Seconds(7))), &[]);
    assert!(code == 0 && said.starts_with("HTTP/1.1 429 "), "{code} {said}");
    assert!(said.contains("Retry-After: 7\r\n") && said.ends_with("\r\n\r\n"), "{said}");
    let (_, said) = ask(Fault::problem(503, "rateLimited", None), &[]);
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("error:rateLimited"), "{said}");
    let (_, said) = ask(Fault::html(200), &[]);
    assert!(said.contains("Content-Type: text/html\r\n") && said.contains("<title>"), "{said}");

    // curl's own words: 28 is a time-out, 35 and 56 a reset, 18 a body that ended early.
    let (code, said) = ask(Fault::Hang, &["--max-time", "5"]);
    assert_eq!((code, said.as_str()), (28, ""));
    for fault in [Fault::Reset, Fault::LoseAnswer] {
        let (code, said) = ask(fault, &[]);
        assert!(matches!(code, 35 | 56) && said.is_empty(), "{code} {said}");
    }
    let (code, said) = ask(Fault::Truncate, &["--no-buffer"]);
    assert!(matches!(code, 18 | 56) && said.contains("keyChange"), "{code} {said}");
    assert!(!said.contains("revokeCert"), "{said}");

    let url = proxy.directory_url();
    let output = curl(&pebble, &proxy, &[&url, "-w", "connections %{num_connects}\n"]);
    let said = text(&output);
    assert_eq!(said.matches("revokeCert").count(), 2, "{said}");
    assert!(said.contains("connections 1\n") && said.contains("connections 0\n"), "{said}");
    assert_eq!(proxy.count(Role::Directory), 9);
}

#[test]
fn a_date_in_retry_after_is_as_far_ahead_as_was_asked() {
    let (pebble, proxy) = start();
    let later = RetryAfter::Date(Duration::from_secs(90));
    proxy.on(Role::Directory, When::Always, Fault::RetryAfter(later));
    let said = text(&curl(&pebble, &proxy, &[]));
    assert!(said.contains("newOrder"), "{said}");
    let line = said.lines().find_map(|line| line.strip_prefix("Retry-After: ")).unwrap();
    let parsed = command("date", &["-u", "+%s", "-d", line.trim()], "");
    let at: i64 = text(&parsed).trim().parse().unwrap();
    let ahead = at - OffsetDateTime::now_utc().unix_timestamp();
    assert!((60..=90).contains(&ahead), "{line}: {ahead} s ahead");
    proxy.heal();
    assert!(!text(&curl(&pebble, &proxy, &[])).contains("Retry-After"));
}

#[test]
fn a_hook_is_called_where_the_request_is_and_may_block_and_cut() {
    let (pebble, proxy) = start();
    let (reached, arrivals) = mpsc::channel();
    let (release, go_on) = mpsc::channel();
    let go_on = Mutex::new(go_on);
    proxy.hook(move |point| {
        reached.send((point.phase, point.request.number)).unwrap();
        go_on.lock().unwrap().recv().unwrap()
    });
    proxy.on(Role::Directory, When::First(1), Fault::Reset);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| [(); 4].map(|()| curl(&pebble, &proxy, &[])));
        // The first one is never forwarded; the fourth goes through.
        let next = |next| {
            let at = arrivals.recv_timeout(crate::harness::PATIENCE).unwrap();
            release.send(next).unwrap();
            at
        };
        assert_eq!(next(Next::Cut), (Phase::Before, 2));
        assert_eq!(next(Next::Continue), (Phase::Before, 3));
        assert_eq!(next(Next::Cut), (Phase::After, 3));
        assert_eq!(next(Next::Continue), (Phase::Before, 4));
        assert_eq!(next(Next::Continue), (Phase::After, 4));
        let worked = asks.join().unwrap().map(|output| output.status.success());
        assert_eq!(worked, [false, false, false, true]);
    });
    assert_eq!(pebble.log().matches("GET /dir").count(), 2);
}

/// An ACME account with nothing but what these tests ask of it.
struct Account<'a> {
    pebble: &'a Pebble,
    proxy: &'a AcmeFaults,
    private_key: EcdsaKeyPair,
    /// Its URL; empty until there is one.
    url: String,
}

impl<'a> Account<'a> {
    fn new(pebble: &'a Pebble, proxy: &'a AcmeFaults) -> Self {
        let private_key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let mut account = Self { pebble, proxy, private_key, url: String::new() };
        let answer = account.post("newAccount", &json!({ "termsOfServiceAgreed": true }));
        assert_eq!(answer.status(), 201, "{answer:?}");
        account.url = answer.header("Location").unwrap().to_owned();
        account
    }

    fn send(&self, method: &str, url: &str, body: String) -> Result<Message> {
        let host = self.proxy.address.to_string();
        let path = url.strip_prefix(&format!("https://{host}")).unwrap();
        let roots = root_store(self.pebble.authority().pem());
        let tls = Tls::connect(roots, self.proxy.address, &self.proxy.address.ip().to_string());
        let mut request = Message::request(method, path, &host, body);
        request.set("Content-Type", "application/jose+json");
        request.exchange(tls.stream)
    }

    fn directory(&self) -> Value {
        let answer = self.send("GET", &self.proxy.directory_url(), String::new()).unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Signs and sends (RFC 8555 §6.2) to what the directory has under this name.
    fn post(&self, name: &str, payload: &Value) -> Message {
        self.post_to(self.directory()[name].as_str().unwrap(), &payload.to_string()).unwrap()
    }

    fn post_to(&self, url: &str, payload: &str) -> Result<Message> {
        let new_nonce = self.directory()["newNonce"].as_str().unwrap().to_owned();
        let answer = self.send("HEAD", &new_nonce, String::new()).unwrap();
        let nonce = answer.header("Replay-Nonce").unwrap();
        let mut protected = json!({ "alg": "ES256", "nonce": nonce, "url": url });
        if self.url.is_empty() {
            let point = self.private_key.public_key().as_ref();
            let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
            protected["jwk"] = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
        } else {
            protected["kid"] = json!(self.url);
        }
        let protected = base64url(protected.to_string().as_bytes());
        let payload = base64url(payload.as_bytes());
        let signed = format!("{protected}.{payload}");
        let signature = self.private_key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let signature = base64url(signature.as_ref());
        let jws = json!({ "protected": protected, "payload": payload, "signature": signature });
        self.send("POST", url, jws.to_string())
    }

    fn order(&self, more: Value) -> (Message, Value) {
        let mut payload = json!({ "identifiers": [{ "type": "dns", "value": "a.example" }] });
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.post("newOrder", &payload);
        let body = serde_json::from_slice(&answer.body).unwrap();
        (answer, body)
    }
}

/// RFC 4648 §5 without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let mut three = [0; 4];
        three[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(three);
        let four = [18, 12, 6, 0].map(|shift| DIGITS[(bits >> shift & 63) as usize] as char);
        four.into_iter().take(chunk.len() + 1)
    });
    digits.collect()
}

#[test]
fn renewal_information_is_in_the_directory_and_orders_say_what_they_replace() {
    let (pebble, proxy) = start();
    let account = Account::new(&pebble, &proxy);
    assert_eq!(account.directory().get("renewalInfo"), None);
    let (_, order) = account.order(json!({ "replaces": "AAA.BBB" }));
    assert_eq!(order.get("replaces"), None);

    let start = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    let window = RenewalInfo {
        start,
        end: start + Duration::from_secs(7200),
        explanation_url: None,
        retry_after: Some(RetryAfter::Seconds(21_600)),
    };
    proxy.set_renewal_info(window.clone());
    let explanation_url = Some("https://example.com/incident".to_owned());
    proxy.set_renewal_info_of(
        "AAA.CCC",
        RenewalInfo { end: start + Duration::from_secs(60), explanation_url, ..window },
    );
    let url = account.directory()["renewalInfo"].as_str().unwrap().to_owned();
    let info = |certificate: &str| {
        let answer = account.send("GET", &format!("{url}/{certificate}"), String::new()).unwrap();
        assert_eq!(answer.header("Retry-After"), Some("21600"));
        serde_json::from_slice::<Value>(&answer.body).unwrap()
    };
    let window = json!({ "start": "2027-01-15T08:00:00Z", "end": "2027-01-15T10:00:00Z" });
    assert_eq!(info("AAA.BBB"), json!({ "suggestedWindow": window }));
    let window = json!({ "start": "2027-01-15T08:00:00Z", "end": "2027-01-15T08:01:00Z" });
    let explained = json!({
        "suggestedWindow": window, "explanationURL": "https://example.com/incident",
    });
    assert_eq!(info("AAA.CCC"), explained);
    assert_eq!(proxy.requests(Role::RenewalInfo)[1].object(), "AAA.CCC");

    let (answer, order) = account.order(json!({ "replaces": "AAA.BBB" }));
    assert_eq!((answer.status(), &order["replaces"]), (201, &json!("AAA.BBB")));
    let again = account.post_to(answer.header("Location").unwrap(), "").unwrap();
    let again: Value = serde_json::from_slice(&again.body).unwrap();
    assert_eq!(again, order);

    let fault = Fault::problem(409, "alreadyReplaced", None);
    proxy.on(Role::NewOrder, When::With("replaces"), fault);
    let (answer, problem) = account.order(json!({ "replaces": "AAA.BBB" }));
    assert_eq!(answer.status(), 409);
    assert_eq!(problem["type"], "urn:ietf:params:acme:error:alreadyReplaced");
    assert_eq!(account.order(json!({})).0.status(), 201);
}

#[test]
fn profiles_are_listed_and_an_unknown_one_is_refused() {
    let (pebble, proxy) = start();
    let account = Account::new(&pebble, &proxy);
    proxy.set_profiles(&[("shortlived", "six days")]);
    let directory = account.directory();
    assert_eq!(directory["meta"]["profiles"], json!({ "shortlived": "six days" }));
    assert!(directory["meta"]["termsOfService"].is_string(), "{directory}");
    let (_, order) = account.order(json!({ "profile": "shortlived" }));
    assert_eq!(order["profile"], "shortlived");
    let (answer, problem) = account.order(json!({ "profile": "eternal" }));
    assert_eq!(answer.status(), 400);
    assert_eq!(problem["type"], "urn:ietf:params:acme:error:invalidProfile");
}

#[test]
fn an_answer_lost_after_forwarding_leaves_an_order_that_pebble_knows() {
    let (pebble, proxy) = start();
    let account = Account::new(&pebble, &proxy);
    proxy.on(Role::NewOrder, When::Nth(1), Fault::LoseAnswer);
    let payload = json!({ "identifiers": [{ "type": "dns", "value": "a.example" }] });
    let url = account.directory()["newOrder"].as_str().unwrap().to_owned();
    let lost = account.post_to(&url, &payload.to_string()).unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.count(Role::NewOrder), 1);
    assert_eq!(pebble.log().matches("Added order").count(), 1);
}
