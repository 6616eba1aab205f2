//! Reads the head of a plain HTTP request, as far as answering it needs. Pure: bytes in, answer out.

use crate::name::ServerName;

use super::super::limits::PLAIN_HEAD_BYTES;

/// Longer is no host (RFC 1035 §2.3.4: 253 characters, and brackets), and would cost time to find that out: for
/// Unicode labels it grows with the square of their length.
const LONGEST_HOST: usize = 255;
/// Most header fields of a request that is answered; browsers send about 20.
const MOST_FIELDS: usize = 100;

/// What the bytes received so far are.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not a whole head yet.
    More,
    Request(Request),
    TooLong,
    Malformed,
}

/// A request that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub is_head: bool,
    /// The authority's host; `None` if it is no name that anything could be found under.
    pub host: Option<ServerName>,
    /// Path and query in the characters of a URI (RFC 3986 §2), beginning with a slash.
    pub path: String,
}

/// Reads the bytes received so far.
pub fn read(bytes: &[u8]) -> Reading {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) if bytes.len() < PLAIN_HEAD_BYTES => return Reading::More,
        Ok(httparse::Status::Complete(len)) if len <= PLAIN_HEAD_BYTES => {}
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Reading::TooLong,
        Err(_) => return Reading::Malformed,
    }
    let mut hosts = request.headers.iter().filter(|field| field.name.eq_ignore_ascii_case("host"));
    let (host, more) = (hosts.next(), hosts.next());
    // RFC 9112 §3.2: without a Host, or with two, a request of HTTP/1.1 is to be refused.
    let at_least_1_1 = request.version.is_some_and(|minor| minor >= 1);
    if more.is_some() || (host.is_none() && at_least_1_1) {
        return Reading::Malformed;
    }
    let host = host.and_then(|field| std::str::from_utf8(field.value).ok()).unwrap_or_default();
    let Some((authority, path)) = split(request.path.unwrap_or_default()) else {
        return Reading::Malformed;
    };
    // Whoever goes on to write the path into a header must not be led astray by it.
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Reading::Malformed;
    }
    Reading::Request(Request {
        is_head: request.method == Some("HEAD"),
        host: host_of(authority.unwrap_or(host)),
        path: path.to_owned(),
    })
}

/// The authority, if the target has one, and the path (RFC 9112 §3.2).
fn split(target: &str) -> Option<(Option<&str>, &str)> {
    if target.starts_with('/') {
        return Some((None, target));
    }
    if target == "*" {
        return Some((None, "/"));
    }
    // The absolute form. Its authority beats the Host field.
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    match rest.find('/') {
        Some(slash) => Some((Some(rest.get(..slash)?), rest.get(slash..)?)),
        None => Some((Some(rest), "/")),
    }
}

/// The host of `host`, `host:port` or `[::1]:port`.
fn host_of(authority: &str) -> Option<ServerName> {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let colon = authority.get(after_brackets..)?.find(':');
    let host =
        authority.get(..after_brackets + colon.unwrap_or(authority.len() - after_brackets))?;
    if host.len() > LONGEST_HOST {
        return None;
    }
    ServerName::parse(host).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(host: &str, path: &str) -> Reading {
        let host = Some(host).filter(|host| !host.is_empty());
        let host = host.map(|host| ServerName::parse(host).unwrap());
        Reading::Request(Request { is_head: false, host, path: path.into() })
    }

    #[test]
    fn host_and_path_are_found_in_every_form() {
        let long = format!("GET / HTTP/1.1\r\nHost: {}.example\r\n\r\n", "\u{4e00}".repeat(1000));
        for (text, expected) in [
            (
                "GET /a?b=c HTTP/1.1\r\nHost: App.Example:8080\r\n\r\n",
                request("app.example", "/a?b=c"),
            ),
            ("GET / HTTP/1.1\r\nhost: [::1]:80\r\nA: b\r\n\r\n", request("::1", "/")),
            ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", request("127.0.0.1", "/")),
            (
                "GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
                request("b.example", "/x"),
            ),
            ("GET http://b.example HTTP/1.1\r\nHost: a.example\r\n\r\n", request("b.example", "/")),
            ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", request("a.example", "/")),
            (
                "GET //evil.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
                request("a.example", "//evil.example/"),
            ),
            ("GET / HTTP/1.0\r\n\r\n", request("", "/")),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", request("", "/")),
            ("GET / HTTP/1.1\r\nHost: a.example/x@y\r\n\r\n", request("", "/")),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", request("", "/")),
            (&long, request("", "/")),
        ] {
            assert_eq!(read(text.as_bytes()), expected, "{text}");
            assert_eq!(read(&text.as_bytes()[..text.len() - 1]), Reading::More, "{text}");
        }
        let head = read(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(matches!(head, Reading::Request(Request { is_head: true, .. })));
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET x HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\u{0}",
        ] {
            assert_eq!(read(text.as_bytes()), Reading::Malformed, "{text}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(PLAIN_HEAD_BYTES));
        assert_eq!(read(long.as_bytes()), Reading::TooLong);
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(MOST_FIELDS));
        assert_eq!(read(many.as_bytes()), Reading::TooLong);
    }

    proptest! {
        #[test]
        fn a_path_can_always_stand_in_a_header(bytes in proptest::collection::vec(any::<u8>(), 0..200), path in "\\PC{0,30}") {
            let _ = read(&bytes);
            for target in [format!("/{path}"), path.clone(), format!("http://{path}")] {
                let text = format!("GET {target} HTTP/1.1\r\nHost: {path}\r\n\r\n");
                if let Reading::Request(request) = read(text.as_bytes()) {
                    prop_assert!(request.path.starts_with('/'));
                    prop_assert!(request.path.bytes().all(|byte| byte.is_ascii_graphic()));
                }
            }
        }
    }
}
