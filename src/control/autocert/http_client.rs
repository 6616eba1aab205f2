//! The HTTP client under instant-acme: it mends what instant-acme loses.
//!
//! `Retry-After` and status of the last answer are kept for the task that asked; an answer that is not ACME
//! is an error that says so; the directory is remembered; `replaces` is reflected where a CA forgets to.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use serde_json::Value;

use crate::clock::Moment;

use super::directory::Directory;
use super::transport::{Transport, Trouble};

const OUR_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("ringgate/", env!("CARGO_PKG_VERSION"), " instant-acme/0.8"));
pub const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// Of an answer that is not ACME, so much is shown.
const SHOWN_CHARS: usize = 120;

/// What the last answer to this task said besides its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<Moment>,
    /// The URL of what was made.
    pub location: Option<String>,
}

tokio::task_local! {
    static LAST: RefCell<Answer>;
}

/// Runs work in whose course [`last_answer`] tells what the CA's last answer to it was.
pub async fn attended<T>(work: impl Future<Output = T>) -> T {
    LAST.scope(RefCell::default(), work).await
}

/// The last answer that the CA gave to this task.
pub fn last_answer() -> Answer {
    LAST.try_with(|last| last.borrow().clone()).unwrap_or_default()
}

/// An answer that no ACME server gives: a proxy's or a captive portal's page, or a wrong URL.
#[derive(Debug)]
pub struct NotAcme(pub String);

impl fmt::Display for NotAcme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotAcme {}

/// One issuer's HTTP client; clones share what they remember.
#[derive(Clone)]
pub struct AcmeHttp {
    transport: Transport,
    directory_url: Arc<str>,
    directory: Arc<Mutex<Option<Directory>>>,
}

impl AcmeHttp {
    pub fn new(transport: Transport, directory_url: &str) -> Self {
        Self { transport, directory_url: directory_url.into(), directory: Arc::default() }
    }

    /// The directory as it was last seen.
    pub fn directory(&self) -> Option<Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the directory.
    pub async fn fetch_directory(&self) -> Result<Directory, instant_acme::Error> {
        let url = self.directory_url.to_string();
        let answer = self.ask(Method::GET, &url, Bytes::new()).await?;
        if !answer.status().is_success() {
            return Err(not_acme(&url, &answer, "is no directory"));
        }
        self.directory().ok_or_else(|| not_acme(&url, &answer, "is no ACME directory"))
    }

    /// Sends a request that is not instant-acme's.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        body: Bytes,
    ) -> Result<Response<Bytes>, instant_acme::Error> {
        let mut request = Request::builder().method(method.clone()).uri(url);
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/jose+json");
        }
        self.exchange(request.body(body)?).await
    }

    async fn exchange(
        &self,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, instant_acme::Error> {
        request.headers_mut().insert(USER_AGENT, OUR_USER_AGENT);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let replaces = if method == Method::POST { replaces_of(request.body()) } else { None };
        let outcome = self.transport.exchange(request).await;
        let mut answer = outcome.map_err(|trouble: Trouble| {
            // What an earlier answer said is not about this request.
            note(Answer::default());
            instant_acme::Error::Other(Box::new(trouble))
        })?;
        note(Answer {
            status: answer.status().as_u16(),
            retry_after: retry_after_at(answer.headers(), Moment::now()),
            location: text_of(answer.headers(), &LOCATION),
        });
        check_form(&uri.to_string(), &answer)?;
        // As addresses, not as texts: `https://ca.example` asks for `https://ca.example/`.
        if self.directory_url.parse::<Uri>().is_ok_and(|directory| directory == uri) {
            let read = Directory::read(answer.body());
            if read.is_some() {
                *self.directory.lock().unwrap_or_else(PoisonError::into_inner) = read;
            }
        }
        if let Some(replaces) = replaces.filter(|_| answer.status() == StatusCode::CREATED) {
            reflect(&replaces, &mut answer);
        }
        Ok(answer)
    }
}

impl HttpClient for AcmeHttp {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            // Infallible.
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let answer = client.exchange(Request::from_parts(parts, body)).await?;
            Ok(answer.map(Full::new).into())
        })
    }
}

fn note(answer: Answer) {
    let _ = LAST.try_with(|last| last.replace(answer));
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// When an answer that was received just now allows to ask again.
pub fn retry_after(headers: &HeaderMap) -> Option<Moment> {
    retry_after_at(headers, Moment::now())
}

/// RFC 9110 §10.2.3: seconds or a date. Pure.
fn retry_after_at(headers: &HeaderMap, now: Moment) -> Option<Moment> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(now.plus(Duration::from_secs(seconds)));
    }
    let format = &time::format_description::well_known::Rfc2822;
    let date = time::OffsetDateTime::parse(text, format).ok()?;
    Some(Moment::from_unix_seconds(date.unix_timestamp()))
}

/// Lets pass what an ACME server may say: JSON, a chain, or nothing.
fn check_form(url: &str, answer: &Response<Bytes>) -> Result<(), instant_acme::Error> {
    let status = answer.status();
    if status.is_redirection() {
        let to = text_of(answer.headers(), &LOCATION).unwrap_or_default();
        return Err(not_acme(url, answer, &format!("redirects to {to:?}, which ACME does not")));
    }
    let kind = text_of(answer.headers(), &CONTENT_TYPE).unwrap_or_default();
    let is_chain = status.is_success() && kind.contains("pem-certificate-chain");
    let body = answer.body();
    if is_chain || (status.is_success() && body.is_empty()) {
        return Ok(());
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(_)) => Ok(()),
        _ => Err(not_acme(url, answer, "is not ACME")),
    }
}

fn not_acme(url: &str, answer: &Response<Bytes>, how: &str) -> instant_acme::Error {
    let text = String::from_utf8_lossy(answer.body());
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = words.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect();
    let status = answer.status();
    let what = format!("what {url} answered {how}: status {status}, {shown:?}");
    instant_acme::Error::Other(Box::new(NotAcme(what)))
}

/// The `replaces` of a newOrder request (RFC 9773 §5).
fn replaces_of(body: &[u8]) -> Option<Value> {
    let jws: Value = serde_json::from_slice(body).ok()?;
    let payload = URL_SAFE_NO_PAD.decode(jws.get("payload")?.as_str()?).ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    payload.get("replaces").cloned()
}

/// A CA must reflect `replaces` (RFC 9773 §5). instant-acme loses the order's URL when it does not, so we
/// add what it forgot: the order is placed.
fn reflect(replaces: &Value, answer: &mut Response<Bytes>) {
    if let Ok(Value::Object(mut order)) = serde_json::from_slice(answer.body()) {
        order.insert("replaces".into(), replaces.clone());
        if let Ok(body) = serde_json::to_vec(&order) {
            *answer.body_mut() = body.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, kind: &str, body: &str) -> Response<Bytes> {
        let builder = Response::builder().status(status).header(CONTENT_TYPE, kind);
        builder.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    #[test]
    fn seconds_and_dates_are_both_understood() {
        let now = Moment::from_unix_seconds(1_800_000_000);
        for (text, expected) in [
            ("120", Some(1_800_000_120)),
            (" 0 ", Some(1_800_000_000)),
            ("Fri, 15 Jan 2027 08:02:00 GMT", Some(1_800_000_120)),
            ("soon", None),
            ("-5", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            let found = retry_after_at(&headers, now).map(Moment::unix_seconds);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_acme_is_said_to_be_that() {
        let url = "https://ca.example/dir";
        for good in [
            answer(200, "application/json", "{}"),
            answer(201, "", ""),
            answer(400, "application/problem+json", "{\"type\":\"x\"}"),
            answer(200, "application/pem-certificate-chain", "-----BEGIN"),
        ] {
            assert!(check_form(url, &good).is_ok(), "{good:?}");
        }
        for (bad, words) in [
            (
                answer(502, "text/html", "<html>\n<h1>Bad\x07 Gateway"),
                "502 Bad Gateway, \"<html> <h1>Bad Gateway\"",
            ),
            (answer(200, "text/html", "<html>"), "is not ACME"),
            (answer(503, "", ""), "503"),
            (answer(302, "", ""), "redirects to"),
            (answer(500, "application/json", "[1]"), "500"),
        ] {
            let error = check_form(url, &bad).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(url), "{error}");
        }
    }

    #[test]
    fn a_forgotten_replaces_is_added() {
        let payload = URL_SAFE_NO_PAD.encode("{\"replaces\":\"a.b\",\"identifiers\":[]}");
        let body = format!("{{\"payload\":\"{payload}\"}}");
        let replaces = replaces_of(body.as_bytes()).unwrap();
        let mut order = answer(201, "application/json", "{\"status\":\"pending\"}");
        reflect(&replaces, &mut order);
        let order: Value = serde_json::from_slice(order.body()).unwrap();
        assert_eq!(
            (order["replaces"].as_str(), order["status"].as_str()),
            (Some("a.b"), Some("pending"))
        );
        for other in ["", "{}", "{\"payload\":\"\"}", "{\"payload\":7}"] {
            assert_eq!(replaces_of(other.as_bytes()), None, "{other}");
        }
    }
}
