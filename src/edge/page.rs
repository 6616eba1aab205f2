//! The built-in page: shows what was negotiated, for the first run of a new user.

use crate::clock;
use crate::observe::names::{Reason, Side};

use super::connection::linger;
use super::ended::Ended;
use super::limits::PAGE_HEAD_BYTES;
use super::line::{Line, Stage};
use super::negotiated;
use super::records::{Incoming, Records};
use super::scratch::Scratch;
use super::transfer::{receive_into, send_all};
use super::worker::{Timeouts, Worker};

/// Most header fields of a request that is answered; browsers send about 20.
const MOST_FIELDS: usize = 64;

/// Reads one HTTP/1.1 request and answers it.
pub async fn serve(
    line: &Line,
    worker: &Worker,
    timeouts: &Timeouts,
    mut records: Records,
    server_name: Option<Box<str>>,
) -> Result<(), Ended> {
    line.enter(Stage::Relaying, clock::steady() + timeouts.handshake);
    let mut head = Vec::new();
    open(&mut records, worker, &[], &mut head)?;
    let response = loop {
        if let Some(response) = answer(&head, &records, server_name.as_deref()) {
            break response;
        }
        if records.peer_finished() {
            break String::new();
        }
        let mut received = Vec::new();
        match receive_into(line.client(), worker, &mut received).await.map_err(gone)? {
            0 => break String::new(),
            _ => open(&mut records, worker, &received, &mut head)?,
        };
    };
    let sealed = seal(&mut records, worker, response.as_bytes())?;
    send_all(line.client(), sealed).await.map_err(gone)?;
    drop(records);
    linger(line).await;
    Ok(())
}

fn open(
    records: &mut Records,
    worker: &Worker,
    received: &[u8],
    head: &mut Vec<u8>,
) -> Result<Incoming, Ended> {
    let mut input = [records.pending(), received].concat();
    let mut scratch = worker.scratch();
    scratch.output.clear();
    let opened = records.open(&mut input, &mut scratch.output);
    head.extend_from_slice(scratch.output.filled());
    opened.map_err(|error| Ended::because(Side::Client, Reason::BadRecord, error))
}

fn seal(records: &mut Records, worker: &Worker, response: &[u8]) -> Result<Vec<u8>, Ended> {
    let mut scratch = worker.scratch();
    let Scratch { output, .. } = &mut *scratch;
    output.clear();
    if !response.is_empty() {
        records
            .seal(response, output)
            .map_err(|error| Ended::because(Side::Ours, Reason::Failed, error))?;
    }
    records
        .seal_close(output)
        .map_err(|error| Ended::because(Side::Ours, Reason::Failed, error))?;
    Ok(output.filled().to_vec())
}

fn gone(error: std::io::Error) -> Ended {
    Ended::because(Side::Client, Reason::ClientGone, error)
}

/// The whole response once the request's head is complete or cannot be.
fn answer(head: &[u8], records: &Records, server_name: Option<&str>) -> Option<String> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Partial) if head.len() <= PAGE_HEAD_BYTES => return None,
        Ok(httparse::Status::Complete(length)) if length <= PAGE_HEAD_BYTES => {}
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Some(response(
                "431 Request Header Fields Too Large",
                "text/plain",
                "too long\n",
                true,
            ));
        }
        Err(_) => {
            return Some(response(
                "400 Bad Request",
                "text/plain",
                "this is no HTTP request\n",
                true,
            ));
        }
    }
    let wants_html = request.headers.iter().any(|field| {
        field.name.eq_ignore_ascii_case("accept")
            && field.value.windows(9).any(|part| part.eq_ignore_ascii_case(b"text/html"))
    });
    let with_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => {
            return Some(response(
                "405 Method Not Allowed",
                "text/plain",
                "only GET and HEAD\n",
                true,
            ));
        }
    };
    let path = request.path.unwrap_or_default();
    if path.split('?').next() != Some("/") {
        return Some(response("404 Not Found", "text/plain", "the page is at /\n", with_body));
    }
    let facts = Facts::read(records, server_name);
    Some(if wants_html {
        response("200 OK", "text/html; charset=utf-8", &facts.html(), with_body)
    } else {
        response("200 OK", "text/plain; charset=utf-8", &facts.text(), with_body)
    })
}

fn response(status: &str, kind: &str, body: &str, with_body: bool) -> String {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if with_body { head + body } else { head }
}

/// What was negotiated, as pairs of label and value.
struct Facts([(&'static str, String); 6]);

impl Facts {
    fn read(records: &Records, server_name: Option<&str>) -> Self {
        let tls = records.tls();
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "none".into());
        Self([
            ("protocol", negotiated::version(tls).replacen('v', " ", 1)),
            ("cipher suite", negotiated::cipher_suite(tls)),
            (
                "key exchange",
                or_none(
                    tls.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name())),
                ),
            ),
            ("server name (SNI)", or_none(server_name.map(str::to_owned))),
            (
                "ALPN",
                or_none(tls.alpn_protocol().map(|protocol| protocol.escape_ascii().to_string())),
            ),
            (
                "resumed",
                match tls.handshake_kind() {
                    Some(rustls::HandshakeKind::Resumed) => "yes".into(),
                    _ => "no".into(),
                },
            ),
        ])
    }

    fn text(&self) -> String {
        let mut text = String::from("Ringgate is running. This connection negotiated:\n\n");
        for (label, value) in &self.0 {
            text.push_str(&format!("  {label:<18} {value}\n"));
        }
        text.push_str(
            "\nNext: put it in front of a service with --route https://NAME=tcp://HOST:PORT\n",
        );
        text
    }

    /// No value needs escaping: they are names from tables, and the server name has passed `WireName`'s
    /// check of its letters; ALPN is one that the route offered, shown escaped as ASCII.
    fn html(&self) -> String {
        let rows: String = self
            .0
            .iter()
            .map(|(label, value)| format!("<tr><th>{label}</th><td>{value}</td></tr>\n"))
            .collect();
        format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Ringgate</title>\n\
             <style>body{{font:16px/1.5 system-ui,sans-serif;margin:4em auto;max-width:40em;padding:0 1em}}\
             th{{text-align:left;padding-right:2em;font-weight:normal;color:#666}}code{{background:#eee;padding:.1em .3em}}</style>\n\
             <h1>Ringgate is running</h1>\n<p>This connection negotiated:</p>\n<table>\n{rows}</table>\n\
             <p>Next: put it in front of a service with <code>--route https://NAME=tcp://HOST:PORT</code></p>\n</html>\n"
        )
    }
}
