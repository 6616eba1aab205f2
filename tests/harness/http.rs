//! HTTP/1.1 messages as the harness speaks them: read whole, changed at will, written with their length.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};

/// The largest body taken in; a chain with alternates is under 10 KiB.
const BODY_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub struct Message {
    /// The request line or the status line, without its end.
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn request(method: &str, path: &str, host: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Host".to_owned(), host.to_owned())];
        Self { start: format!("{method} {path} HTTP/1.1"), headers, body: body.into() }
    }

    pub fn answer(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Self { start: format!("HTTP/1.1 {status} -"), headers, body: body.into() }
    }

    /// The next request of a connection; none when its client has gone.
    pub fn read_request(from: &mut impl BufRead) -> Result<Option<Self>> {
        let Some(mut request) = Self::read_head(from)? else { return Ok(None) };
        request.read_body(from, 0)?;
        Ok(Some(request))
    }

    /// Sends this request and reads the answer to it.
    pub fn exchange(&self, mut stream: impl Read + Write) -> Result<Self> {
        self.write(&mut stream)?;
        let mut from = BufReader::new(stream);
        let mut answer = Self::read_head(&mut from)?.ok_or(ErrorKind::UnexpectedEof)?;
        // RFC 9112 §6.3: what these answers say of a length is not followed by a body.
        if self.word(0) != "HEAD" && !matches!(answer.status(), 204 | 304) {
            answer.read_body(&mut from, BODY_BYTES)?;
        }
        Ok(answer)
    }

    fn read_head(from: &mut impl BufRead) -> Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let start = line.trim_end().to_owned();
        let mut headers = Vec::new();
        loop {
            line.clear();
            from.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None if line == "\r\n" => return Ok(Some(Self { start, headers, body: vec![] })),
                None => return Err(Error::new(ErrorKind::InvalidData, line)),
            }
        }
    }

    /// Reads the body; one that says nothing of its length has `otherwise` bytes at most.
    fn read_body(&mut self, from: &mut impl BufRead, otherwise: u64) -> Result<()> {
        let number = |text: &str, radix| {
            u64::from_str_radix(text.trim(), radix)
                .map_err(|_| Error::new(ErrorKind::InvalidData, text))
        };
        if self.header("Transfer-Encoding") == Some("chunked") {
            let mut line = String::new();
            loop {
                line.clear();
                from.read_line(&mut line)?;
                let length = number(&line, 16)?.min(BODY_BYTES);
                from.take(length).read_to_end(&mut self.body)?;
                from.read_line(&mut line)?;
                if length == 0 {
                    self.remove("Transfer-Encoding");
                    return Ok(());
                }
            }
        }
        let length = self.header("Content-Length").map(|text| number(text, 10)).transpose()?;
        from.take(length.unwrap_or(otherwise).min(BODY_BYTES)).read_to_end(&mut self.body)?;
        match length {
            Some(length) if length > self.body.len() as u64 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The bytes on the wire, with a length that fits the body unless one is given.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.start).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        if self.header("Content-Length").is_none() {
            bytes.extend(format!("Content-Length: {}\r\n", self.body.len()).into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    pub fn write(&self, to: &mut impl Write) -> Result<()> {
        to.write_all(&self.bytes())?;
        to.flush()
    }

    /// A word of the request or status line.
    pub fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.into()));
    }

    /// Another body, and whatever length it has.
    pub fn set_body(&mut self, body: impl Into<Vec<u8>>) {
        self.remove("Content-Length");
        self.body = body.into();
    }
}
