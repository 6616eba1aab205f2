//! What can go wrong with a request, and the script that says which one it happens to.

use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;

use super::{Request, Role};
use crate::harness::http::Message;

/// Both forms of RFC 9110 §10.2.3.
#[derive(Clone, Copy, Debug)]
pub enum RetryAfter {
    Seconds(u64),
    /// The date this long after the answer, and so up to a second less of a pause than that.
    Date(Duration),
}

impl RetryAfter {
    pub fn value(self, now: OffsetDateTime) -> String {
        match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Date(after) => http_date(now + after),
        }
    }
}

/// RFC 9110 §5.6.7.
fn http_date(at: OffsetDateTime) -> String {
    let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
    let (day, year) = (at.day(), at.year());
    let (hour, minute, second) = at.to_hms();
    format!("{weekday:.3}, {day:02} {month:.3} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

#[derive(Clone, Debug)]
pub enum Fault {
    /// This answer instead of Pebble's, which never sees the request.
    Answer {
        status: u16,
        content_type: &'static str,
        body: String,
        retry_after: Option<RetryAfter>,
    },
    /// No answer for as long as the client waits.
    Hang,
    /// A reset instead of forwarding.
    Reset,
    /// Pebble acts, but a reset is all that the client gets.
    LoseAnswer,
    /// Half of the body of Pebble's answer, then the end.
    Truncate,
    /// Pebble's answer with this beside it.
    RetryAfter(RetryAfter),
}

impl Fault {
    /// A problem document (RFC 8555 §6.7) of this type.
    pub fn problem(status: u16, kind: &str, retry_after: Option<RetryAfter>) -> Self {
        let body = json!({
            "type": format!("urn:ietf:params:acme:error:{kind}"),
            "detail": format!("the harness says {kind}"),
            "status": status,
        });
        let content_type = "application/problem+json";
        Self::Answer { status, content_type, body: body.to_string(), retry_after }
    }

    /// What a captive portal or a broken load balancer says.
    pub fn html(status: u16) -> Self {
        let body = "<!doctype html><title>Not what you want</title>".to_owned();
        Self::Answer { status, content_type: "text/html", body, retry_after: None }
    }

    /// A status and not a word more.
    pub fn bare(status: u16, retry_after: Option<RetryAfter>) -> Self {
        let content_type = "application/octet-stream";
        Self::Answer { status, content_type, body: String::new(), retry_after }
    }

    /// The answer that replaces Pebble's, if this is one.
    pub fn answer(&self, now: OffsetDateTime) -> Option<Message> {
        let Self::Answer { status, content_type, body, retry_after } = self else { return None };
        let mut answer = Message::answer(*status, content_type, body.as_str());
        if let Some(retry_after) = retry_after {
            answer.set("Retry-After", retry_after.value(now));
        }
        Some(answer)
    }
}

/// Which requests of a role a fault happens to, counted from when the script got its line.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Nth(usize),
    First(usize),
    Always,
    /// Those whose payload has this field.
    With(&'static str),
}

struct Line {
    role: Role,
    when: When,
    fault: Fault,
    seen: usize,
}

/// Lines in the order they were given; the first that fits a request decides.
#[derive(Default)]
pub struct Script(Vec<Line>);

impl Script {
    pub fn add(&mut self, role: Role, when: When, fault: Fault) {
        self.0.push(Line { role, when, fault, seen: 0 });
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn next(&mut self, request: &Request) -> Option<Fault> {
        let mut chosen = None;
        for line in self.0.iter_mut().filter(|line| line.role == request.role) {
            line.seen += 1;
            let fits = match line.when {
                When::Nth(number) => line.seen == number,
                When::First(count) => line.seen <= count,
                When::Always => true,
                When::With(field) => request.payload.get(field).is_some(),
            };
            if fits && chosen.is_none() {
                chosen = Some(line.fault.clone());
            }
        }
        chosen
    }
}
