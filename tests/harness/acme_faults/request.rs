//! What the proxy remembers of a request: its role and what its JWS said.

use serde_json::Value;

use super::Role;
use crate::harness::http::Message;

#[derive(Clone, Debug)]
pub struct Request {
    pub role: Role,
    /// 1 for the first of its role.
    pub number: usize,
    pub message: Message,
    /// The protected header of its JWS (RFC 8555 §6.2); null if it is none.
    pub protected: Value,
    /// The payload of its JWS; null if it is none, and for POST-as-GET (RFC 8555 §6.3).
    pub payload: Value,
}

impl Request {
    pub fn new(message: Message, number: impl FnOnce(Role) -> usize) -> Self {
        let role = Role::of(message.word(1));
        let jws: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        let part = |name: &str| {
            let bytes = base64url(jws[name].as_str().unwrap_or_default()).unwrap_or_default();
            serde_json::from_slice(&bytes).unwrap_or_default()
        };
        let (protected, payload) = (part("protected"), part("payload"));
        Self { role, number: number(role), protected, payload, message }
    }

    pub fn path(&self) -> &str {
        self.message.word(1)
    }

    /// The last part of its path: which order, authorization or certificate it is about.
    pub fn object(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

/// RFC 4648 §5, without padding as JWS has it (RFC 7515 §2).
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for c in four {
            let six = match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        // Two characters carry one byte, three carry two, four carry three.
        let three = (bits << (6 * (4 - four.len()))).to_be_bytes();
        bytes.extend(&three[1..four.len()]);
    }
    Some(bytes)
}
