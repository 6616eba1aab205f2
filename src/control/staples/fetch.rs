//! Asks responders and fetches lists: http and https only, few redirects, bounded, and never from where a
//! certificate must not send us.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};

use crate::clock::Moment;

use super::super::addresses::Vouched;
use super::super::autocert::http_client::retry_after;
use super::super::autocert::transport::{Bounds, Transport, Trouble};
use super::response::LONGEST_RESPONSE;

/// Responders answer within a second; one that takes longer than this is asked again later.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// The shards of Let's Encrypt's lists are under 1 MiB, the longest undivided lists of public CAs about 10.
const LONGEST_LIST: usize = 16 * 1024 * 1024;
/// Sixteen MiB by a line of 2 Mbit/s, and then some.
const LIST_TIMEOUT: Duration = Duration::from_secs(120);
/// From http to https, then to another name, and one to spare.
const REDIRECTS: usize = 3;
const OUR_USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("ringgate/", env!("CARGO_PKG_VERSION")));
const OCSP_REQUEST: HeaderValue = HeaderValue::from_static("application/ocsp-request");
const OCSP_RESPONSE: HeaderValue = HeaderValue::from_static("application/ocsp-response");

/// Why there is no answer, and before when it is of no use to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    pub what: String,
    pub not_before: Option<Moment>,
    /// The server's name has no address: others need not ask for it right after.
    pub is_unresolved: bool,
}

impl From<Trouble> for Unanswered {
    fn from(trouble: Trouble) -> Self {
        Self { what: trouble.what, not_before: None, is_unresolved: trouble.is_unresolved }
    }
}

/// Asks by GET (RFC 6960 appendix A.1): `url` holds the question.
pub async fn get(transport: &Transport, url: &str, vouched: Vouched) -> Result<Bytes, Unanswered> {
    let bounds = of_responses(vouched);
    let answer = ask(transport, &bounds, url, |uri| {
        Request::builder().uri(uri).header(ACCEPT, OCSP_RESPONSE).body(Bytes::new())
    });
    succeeded(answer.await?)
}

/// Asks by POST.
pub async fn post(
    transport: &Transport,
    url: &str,
    request: &Bytes,
    vouched: Vouched,
) -> Result<Bytes, Unanswered> {
    let bounds = of_responses(vouched);
    let answer = ask(transport, &bounds, url, |uri| {
        Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(CONTENT_TYPE, OCSP_REQUEST)
            .header(ACCEPT, OCSP_RESPONSE)
            .body(request.clone())
    });
    succeeded(answer.await?)
}

/// A list as it was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub der: Bytes,
    /// What to name it by when asking whether there is another.
    pub etag: Option<HeaderValue>,
}

/// Fetches a list; `None` if it is still the one of this tag.
pub async fn list(
    transport: &Transport,
    url: &str,
    known: Option<&HeaderValue>,
    vouched: Vouched,
) -> Result<Option<Fetched>, Unanswered> {
    let bounds =
        Bounds { timeout: LIST_TIMEOUT, longest_body: LONGEST_LIST, vouched: Some(vouched) };
    let answer = ask(transport, &bounds, url, |uri| {
        let request = Request::builder().uri(uri);
        let request = match known {
            Some(tag) => request.header(IF_NONE_MATCH, tag),
            None => request,
        };
        request.body(Bytes::new())
    })
    .await?;
    if answer.status() == StatusCode::NOT_MODIFIED && known.is_some() {
        return Ok(None);
    }
    let etag = answer.headers().get(ETAG).cloned();
    Ok(Some(Fetched { der: succeeded(answer)?, etag }))
}

fn of_responses(vouched: Vouched) -> Bounds {
    // One byte more shows that it is too long, in the words of whoever judges it.
    let longest_body = LONGEST_RESPONSE + 1;
    Bounds { timeout: RESPONSE_TIMEOUT, longest_body, vouched: Some(vouched) }
}

/// Asks, and follows where it is sent: with the same method, and by the same rules for each address. An
/// operator vouches for the server that a certificate names, not for where an answer leads that anybody on the
/// way may have given.
async fn ask(
    transport: &Transport,
    bounds: &Bounds,
    url: &str,
    build: impl Fn(Uri) -> http::Result<Request<Bytes>>,
) -> Result<Response<Bytes>, Unanswered> {
    let wrong = |what: String| Unanswered { what, not_before: None, is_unresolved: false };
    let mut bounds = *bounds;
    let mut uri: Uri = url.parse().map_err(|error| wrong(format!("{url:?} is no URL: {error}")))?;
    for _ in 0..=REDIRECTS {
        let mut request =
            build(uri.clone()).map_err(|error| wrong(format!("{uri} cannot be asked: {error}")))?;
        request.headers_mut().insert(USER_AGENT, OUR_USER_AGENT);
        let answer = transport.exchange_within(&bounds, request).await?;
        let status = answer.status().as_u16();
        if !matches!(status, 301 | 302 | 307 | 308) {
            return Ok(answer);
        }
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let next = location
            .and_then(|location| resolved(&uri, location))
            .ok_or_else(|| wrong(format!("{uri} sends us to no URL")))?;
        if next.host() != uri.host() {
            bounds.vouched = Some(Vouched::ByIssuer);
        }
        uri = next;
    }
    Err(wrong(format!("{url} sends us on more than {REDIRECTS} times")))
}

/// A URL, or a path on the same server.
fn resolved(base: &Uri, location: &str) -> Option<Uri> {
    let to = location.parse::<Uri>().ok()?;
    if to.scheme().is_some() {
        return Some(to);
    }
    let path = location.starts_with('/').then(|| to.path_and_query().cloned())??;
    Uri::builder()
        .scheme(base.scheme()?.clone())
        .authority(base.authority()?.clone())
        .path_and_query(path)
        .build()
        .ok()
}

fn succeeded(answer: Response<Bytes>) -> Result<Bytes, Unanswered> {
    if answer.status() == StatusCode::OK {
        return Ok(answer.into_body());
    }
    let not_before = retry_after(answer.headers());
    let what = format!("it answered {}", answer.status());
    Err(Unanswered { what, not_before, is_unresolved: false })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers once, at this address, and gives the URL of it.
    async fn serve(host: &str, answer: String) -> String {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let place = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        format!("http://{place}/")
    }

    #[tokio::test]
    async fn an_operator_vouches_for_the_server_that_is_named_and_not_for_where_it_leads() {
        let transport = Transport::over(rustls::RootCertStore::empty(), None).unwrap();
        for (host, is_followed) in [("127.0.0.1", true), ("127.0.0.2", false)] {
            let fine = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".to_owned();
            let to = serve(host, fine).await;
            let moved = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n";
            let url = serve("127.0.0.1", format!("{moved}Location: {to}\r\n\r\n")).await;
            let answer = get(&transport, &url, Vouched::ByOperator).await;
            match answer {
                Ok(body) => assert!(is_followed && *body == *b"x", "{host}"),
                Err(unanswered) => {
                    let what = unanswered.what;
                    assert!(!is_followed && what.contains("this machine itself"), "{host} {what}");
                }
            }
        }
    }

    #[test]
    fn redirects_lead_to_urls_and_to_paths_of_the_same_server() {
        let base: Uri = "http://ocsp.example:8080/a/b?c".parse().unwrap();
        let to = |location: &str| resolved(&base, location).map(|uri| uri.to_string());
        assert_eq!(to("https://x.example/y").as_deref(), Some("https://x.example/y"));
        assert_eq!(to("/y?z").as_deref(), Some("http://ocsp.example:8080/y?z"));
        for wrong in ["y", "", "//x.example/y z"] {
            assert_eq!(to(wrong), None, "{wrong}");
        }
    }
}
