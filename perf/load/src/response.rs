//! One HTTP/1.1 response: its head, and a body that is checked as it arrives.

use crate::answers::{Answers, Nonce};
use crate::connection::{Connection, Incoming};
use crate::failure::{Failure, Kind};

/// The longest head that an upstream of ours sends, several times over.
const LONGEST_HEAD: usize = 4 * 1024;

/// What the real upstream would answer.
pub enum Expected {
    /// A small response.
    Small(Nonce),
    /// A download of this many bytes.
    Content(Nonce, u64),
    /// An upload was stored.
    Stored,
}

/// Reads one response and checks all of it. `moved` is told of content as it arrives.
pub async fn read(
    connection: &mut Connection,
    answers: &Answers,
    expected: &Expected,
    mut moved: impl FnMut(usize),
) -> Result<(), Failure> {
    let mut head = Vec::new();
    let mut body = None;
    loop {
        let incoming = connection
            .receive(|plain| {
                let Some(body) = &mut body else {
                    // A head split over records is rare, a body behind it in the same record is not.
                    let before = head.len();
                    head.extend_from_slice(&plain[..plain.len().min(LONGEST_HEAD - before)]);
                    let Some((length, parsed)) = parse_head(&head, answers, expected)? else {
                        return Ok(head.len() - before);
                    };
                    body = Some(parsed);
                    return Ok(length - before);
                };
                let taken = Body::take(body, plain, answers, expected)?;
                moved(taken);
                Ok(taken)
            })
            .await?;
        match &body {
            Some(body) if body.offset == body.length => return Ok(()),
            _ if incoming == Incoming::End => {
                return Err(Failure::new(Kind::Closed, "in the middle of a response"));
            }
            _ => {}
        }
    }
}

/// How far a body has come.
#[derive(Debug, PartialEq, Eq)]
struct Body {
    length: u64,
    offset: u64,
}

impl Body {
    /// Checks the next bytes; says how many of them belong to this body.
    fn take(
        &mut self,
        plain: &[u8],
        answers: &Answers,
        expected: &Expected,
    ) -> Result<usize, Failure> {
        let left = usize::try_from(self.length - self.offset).unwrap_or(usize::MAX);
        let piece = &plain[..plain.len().min(left)];
        let right = match expected {
            Expected::Small(nonce) => {
                let small = answers.small(*nonce);
                small.as_bytes()[self.offset as usize..].starts_with(piece)
            }
            Expected::Content(..) => answers.is_content(self.offset, piece),
            Expected::Stored => true,
        };
        if !right {
            let detail = format!("byte {} and on are not the upstream's", self.offset);
            return Err(Failure::new(Kind::Content, detail));
        }
        self.offset += piece.len() as u64;
        Ok(piece.len())
    }
}

/// The length of the head and the body that follows it; nothing while the head is not whole.
fn parse_head(
    bytes: &[u8],
    answers: &Answers,
    expected: &Expected,
) -> Result<Option<(usize, Body)>, Failure> {
    let wrong = |detail: String| Failure::new(Kind::Response, detail);
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_length) =
        response.parse(bytes).map_err(|error| wrong(error.to_string()))?
    else {
        return match bytes.len() {
            LONGEST_HEAD.. => Err(wrong("its head has no end".to_owned())),
            _ => Ok(None),
        };
    };
    let header = |name: &str| {
        let found = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let status = response.code.unwrap_or_default();
    let length = match header("content-length").map(str::parse) {
        Some(Ok(length)) => length,
        None if status == 204 => 0,
        _ => return Err(wrong(format!("status {status}, no usable content-length"))),
    };
    match expected {
        Expected::Small(nonce) if status != 200 || length != answers.small(*nonce).len() as u64 => {
            Err(wrong(format!("status {status}, {length} bytes")))
        }
        Expected::Content(_, bytes) if status != 200 || length != *bytes => {
            Err(wrong(format!("status {status}, {length} bytes instead of {bytes}")))
        }
        Expected::Content(nonce, _)
            if header("x-answer") != Some(answers.header(*nonce).as_str()) =>
        {
            Err(Failure::new(Kind::Content, "X-Answer is not the upstream's"))
        }
        Expected::Stored if !matches!(status, 201 | 204) => {
            Err(wrong(format!("status {status} to an upload")))
        }
        _ => Ok(Some((head_length, Body { length, offset: 0 }))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::Nonces;

    fn kind(result: Result<Option<(usize, Body)>, Failure>) -> Option<Kind> {
        result.err().map(|failure| failure.kind)
    }

    #[test]
    fn a_head_must_be_the_one_expected() {
        let answers = Answers::new("secret");
        let nonce = Nonces::new(1).next();
        let small = Expected::Small(nonce);
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
        let body = Body { length: 100, offset: 0 };
        assert_eq!(parse_head(whole, &answers, &small).unwrap(), Some((whole.len(), body)));
        assert_eq!(parse_head(&whole[..20], &answers, &small).unwrap(), None);
        for (head, expected, wrong) in [
            ("HTTP/1.1 502 Bad\r\nContent-Length: 100\r\n\r\n", &small, Kind::Response),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", &small, Kind::Response),
            ("HTTP/1.1 200 OK\r\n\r\n", &small, Kind::Response),
            ("SSH-2.0\r\n\r\n", &small, Kind::Response),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nX-Answer: no\r\n\r\n",
                &Expected::Content(nonce, 9),
                Kind::Content,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", &Expected::Stored, Kind::Response),
        ] {
            assert_eq!(
                kind(parse_head(head.as_bytes(), &answers, expected)),
                Some(wrong),
                "{head}"
            );
        }
        let endless = [b'a'; LONGEST_HEAD];
        let endless = [b"HTTP/1.1 200 OK\r\nA: ", &endless[20..]].concat();
        assert_eq!(kind(parse_head(&endless, &answers, &small)), Some(Kind::Response));
    }

    #[test]
    fn a_body_of_another_upstream_or_request_is_refused() {
        let (ours, other) = (Answers::new("secret"), Answers::new("Secret"));
        let nonces = Nonces::new(1);
        let (asked, before) = (nonces.next(), nonces.next());
        let take = |text: String| {
            Body { length: 100, offset: 0 }.take(text.as_bytes(), &ours, &Expected::Small(asked))
        };
        assert_eq!(take(ours.small(asked)).unwrap(), 100);
        assert_eq!(take(ours.small(before)).unwrap_err().kind, Kind::Content);
        assert_eq!(take(other.small(asked)).unwrap_err().kind, Kind::Content);
    }
}
