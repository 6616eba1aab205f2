//! What Pebble 2.4.0 lacks: renewal information (RFC 9773) and profiles.

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::role::RENEWAL_INFO_PATH;
use super::{Fault, Request, RetryAfter, Role};
use crate::harness::http::Message;

/// RFC 9773 §4.2.
#[derive(Clone, Debug)]
pub struct RenewalInfo {
    pub start: OffsetDateTime,
    pub end: OffsetDateTime,
    pub explanation_url: Option<String>,
    pub retry_after: Option<RetryAfter>,
}

impl RenewalInfo {
    fn answer(&self, now: OffsetDateTime) -> Message {
        let mut body = json!({
            "suggestedWindow": { "start": rfc3339(self.start), "end": rfc3339(self.end) },
        });
        if let Some(url) = &self.explanation_url {
            body["explanationURL"] = json!(url);
        }
        let mut answer = Message::answer(200, "application/json", body.to_string());
        if let Some(retry_after) = self.retry_after {
            answer.set("Retry-After", retry_after.value(now));
        }
        answer
    }
}

fn rfc3339(at: OffsetDateTime) -> String {
    let (hour, minute, second) = at.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", at.date())
}

#[derive(Default)]
pub struct Extensions {
    /// For every certificate that has none of its own; without one the directory has no renewalInfo.
    pub renewal_info: Option<RenewalInfo>,
    /// By the identifier of RFC 9773 §4.1.
    pub renewal_info_of: HashMap<String, RenewalInfo>,
    /// Names and descriptions.
    pub profiles: Map<String, Value>,
    /// What new orders said of themselves, by the last part of their URL.
    orders: HashMap<String, Map<String, Value>>,
}

impl Extensions {
    /// The answer to what Pebble would not understand.
    pub fn answer(&self, request: &Request, now: OffsetDateTime) -> Option<Message> {
        match request.role {
            Role::RenewalInfo => {
                let default = self.renewal_info.as_ref();
                let known = self.renewal_info_of.get(request.object()).or(default);
                let absent = || Fault::problem(404, "malformed", None).answer(now);
                known.map(|info| info.answer(now)).or_else(absent)
            }
            Role::NewOrder if !self.profiles.is_empty() => {
                let profile = request.payload.get("profile")?.as_str()?;
                let absent = !self.profiles.contains_key(profile);
                absent.then(|| Fault::problem(400, "invalidProfile", None).answer(now))?
            }
            _ => None,
        }
    }

    /// Adds to an answer of Pebble's what a CA with these abilities would have said.
    pub fn complete(&mut self, request: &Request, answer: &mut Message) {
        let Ok(Value::Object(mut body)) = serde_json::from_slice(&answer.body) else { return };
        if answer.status() >= 400 {
            return;
        }
        match request.role {
            Role::Directory => self.complete_directory(request, &mut body),
            Role::NewOrder => {
                let said = self.said(&request.payload);
                body.extend(said.clone());
                let url = answer.header("Location").unwrap_or_default();
                let object = url.rsplit('/').next().unwrap_or_default();
                self.orders.insert(object.to_owned(), said);
            }
            Role::Order | Role::Finalize => {
                body.extend(self.orders.get(request.object()).cloned().unwrap_or_default());
            }
            _ => return,
        }
        answer.set_body(Value::Object(body).to_string());
    }

    fn complete_directory(&self, request: &Request, directory: &mut Map<String, Value>) {
        if self.renewal_info.is_some() {
            let host = request.message.header("Host").unwrap_or_default();
            let url = format!("https://{host}{RENEWAL_INFO_PATH}");
            directory.insert("renewalInfo".to_owned(), url.into());
        }
        if !self.profiles.is_empty() {
            let meta = directory.entry("meta").or_insert_with(|| json!({}));
            meta["profiles"] = self.profiles.clone().into();
        }
    }

    /// The fields of a new order that this CA understands and its orders repeat.
    fn said(&self, payload: &Value) -> Map<String, Value> {
        let understood =
            [("replaces", self.renewal_info.is_some()), ("profile", !self.profiles.is_empty())];
        let fields = understood.into_iter().filter(|(_, understood)| *understood);
        fields.filter_map(|(name, _)| Some((name.to_owned(), payload.get(name)?.clone()))).collect()
    }
}
