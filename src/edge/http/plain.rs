//! The life of a connection to the plain listener: one request, which is sent to https.

use crate::observe::counters::Report;
use crate::observe::names::{Reason, Side};
use crate::snapshot::Snapshot;

use super::super::client::identify;
use super::super::connection::linger;
use super::super::deadline::Timed;
use super::super::ended::Ended;
use super::super::handshake::receive;
use super::super::line::Line;
use super::super::transfer::send_all;
use super::super::worker::{Entry, Worker};
use super::head::{self, Reading, Request};

/// Serves one accepted connection to its end, and accounts for it.
pub async fn serve_plain(entry: Entry) {
    let worker = &entry.worker;
    let life = Box::pin(life(&entry.line, worker));
    if let Err(ended) = Timed::new(&entry.line, life).await {
        worker.counters().ended(ended.reason).add(1);
        worker.report(ended.reason, || Report {
            side: ended.side,
            reason: ended.reason,
            client: entry.line.source(),
            server_name: None,
            route: None,
            detail: ended.detail,
        });
    }
}

async fn life(line: &Line, worker: &Worker) -> Result<(), Ended> {
    let mut input = identify(line, worker).await?;
    let (answer, outcome) = loop {
        match head::read(&input) {
            Reading::More => {}
            Reading::Request(request) => {
                worker.counters().redirects.add(1);
                break (worker.read(|snapshot| answer(&request, snapshot)), Ok(()));
            }
            Reading::TooLong => {
                let reply = reply("431 Request Header Fields Too Large", "", "too long\n", true);
                break (reply, Err(Ended::new(Side::Client, Reason::BadRequest)));
            }
            Reading::Malformed => {
                let text = "this port speaks HTTP/1.1, and that was something else\n";
                let reply = reply("400 Bad Request", "", text, true);
                break (reply, Err(Ended::new(Side::Client, Reason::BadRequest)));
            }
        }
        receive(line, worker, &mut input).await?;
    };
    send_all(line.client(), answer.into_bytes())
        .await
        .map_err(|error| Ended::because(Side::Client, Reason::ClientGone, error))?;
    linger(line).await;
    outcome
}

/// The whole response. What it says of the client's own words is the path, which cannot leave the
/// Location; the host is ours, for it was found among the routes.
fn answer(request: &Request, snapshot: &Snapshot) -> String {
    if let Some(host) = &request.host
        && let Some(body) = snapshot.challenges.http(host, &request.path)
    {
        return reply("200 OK", "", body, !request.is_head);
    }
    let target = request.host.as_ref().and_then(|host| {
        let port = snapshot.routes.public_port(host.as_str())?;
        let authority = match host.as_ip().is_some_and(|ip| ip.is_ipv6()) {
            true => format!("[{host}]"),
            false => host.to_string(),
        };
        Some(match port {
            443 => format!("https://{authority}{}", request.path),
            port => format!("https://{authority}:{port}{}", request.path),
        })
    });
    match target {
        // 308 and not 301: a POST stays one (RFC 9110 §15.4.9).
        Some(target) => {
            let location = format!("Location: {target}\r\n");
            reply(
                "308 Permanent Redirect",
                &location,
                "this is served with https\n",
                !request.is_head,
            )
        }
        None => reply("404 Not Found", "", "nothing is served under this name\n", !request.is_head),
    }
}

fn reply(status: &str, field: &str, body: &str, with_body: bool) -> String {
    let len = body.len();
    let body = if with_body { body } else { "" };
    format!(
        "HTTP/1.1 {status}\r\n{field}Content-Type: text/plain\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
    )
}
