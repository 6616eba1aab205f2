//! A challenge in the store, where the nodes that do not order find it, in CertMagic's words.

use std::io;

use serde::{Deserialize, Serialize};

use crate::config::autocert::ChallengeKind;
use crate::name::ServerName;
use crate::snapshot::{ChallengeAnswer, validated_name};
use crate::store::{Store, layout};

use super::challenge;

/// A token has at least 128 bits (RFC 8555 §8), and no CA's is longer than 64 bytes; a key authorization
/// adds 44.
const LONGEST: usize = 512;

/// A challenge that any node may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    pub kind: ChallengeKind,
    pub name: ServerName,
    pub url: String,
    pub token: String,
    pub key_authorization: String,
}

/// What the object holds: CertMagic's fields, and whose it is, which CertMagic passes over.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    r#type: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    status: String,
    token: String,
    #[serde(rename = "keyAuthorization")]
    key_authorization: String,
    identifier: Identifier,
    #[serde(default)]
    holder: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Identifier {
    r#type: String,
    value: String,
}

/// Our own mark.
const HOLDER: &str = "ringgate";

impl Shared {
    /// Reads an object; `None` if it is none of these challenges or cannot be right.
    pub fn read(content: &[u8]) -> Option<Self> {
        let content: Content = serde_json::from_slice(content).ok()?;
        let kinds = [ChallengeKind::TlsAlpn01, ChallengeKind::Http01];
        let kind = kinds.into_iter().find(|kind| kind.as_str() == content.r#type)?;
        let name = ServerName::parse(&content.identifier.value).ok()?;
        let is_right = content.key_authorization.len() <= LONGEST
            && content.key_authorization.bytes().all(|byte| byte.is_ascii_graphic())
            && content.key_authorization.split_once('.')?.0 == content.token;
        is_right.then_some(Self {
            kind,
            name,
            url: content.url,
            token: content.token,
            key_authorization: content.key_authorization,
        })
    }

    pub fn bytes(&self) -> Vec<u8> {
        let kind = if self.name.as_ip().is_some() { "ip" } else { "dns" };
        let content = Content {
            r#type: self.kind.as_str().into(),
            url: self.url.clone(),
            status: "pending".into(),
            token: self.token.clone(),
            key_authorization: self.key_authorization.clone(),
            identifier: Identifier { r#type: kind.into(), value: self.name.to_string() },
            holder: HOLDER.into(),
        };
        serde_json::to_vec(&content).unwrap_or_default()
    }

    /// Where it lies.
    pub fn object(&self, issuer_key: &str) -> String {
        object(issuer_key, &self.name, self.kind)
    }

    /// `None` if the random source fails.
    pub fn answer(&self) -> Option<ChallengeAnswer> {
        challenge::answer(self.kind, &self.name, &self.token, &self.key_authorization)
    }
}

fn object(issuer_key: &str, name: &ServerName, kind: ChallengeKind) -> String {
    match kind {
        ChallengeKind::TlsAlpn01 => layout::challenge_token(issuer_key, &validated_name(name)),
        ChallengeKind::Http01 => layout::challenge_token(issuer_key, name.as_str()),
    }
}

/// Removes what a process of ours has shared of this name; what is somebody else's stays.
///
/// # Errors
/// If the store cannot be read or changed.
pub fn remove_ours(store: &dyn Store, issuer_key: &str, name: &ServerName) -> io::Result<()> {
    for kind in [ChallengeKind::TlsAlpn01, ChallengeKind::Http01] {
        let object = object(issuer_key, name, kind);
        let Some(content) = store.get(&object)? else { continue };
        let ours = serde_json::from_slice::<Content>(&content)
            .is_ok_and(|content| content.holder == HOLDER);
        if ours {
            store.remove(&object)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::super::store::Expect;
    use super::super::super::super::store::directory::scratch::ScratchStore;
    use super::*;

    /// As Caddy 2.11 writes it.
    const CADDYS: &str = r#"{"type":"http-01","url":"https://ca/chalZ/x","status":"pending","token":"t1","keyAuthorization":"t1.thumb","identifier":{"type":"dns","value":"a.example"}}"#;

    fn shared(kind: ChallengeKind, name: &str) -> Shared {
        Shared {
            kind,
            name: ServerName::parse(name).unwrap(),
            url: "https://ca/x".into(),
            token: "t1".into(),
            key_authorization: "t1.thumb".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_so_is_what_caddy_writes() {
        for name in ["a.example", "192.0.2.1", "2001:db8::1"] {
            for kind in [ChallengeKind::TlsAlpn01, ChallengeKind::Http01] {
                let one = shared(kind, name);
                assert_eq!(Shared::read(&one.bytes()), Some(one));
            }
        }
        let theirs = Shared::read(CADDYS.as_bytes()).unwrap();
        assert_eq!((theirs.kind, theirs.name.as_str()), (ChallengeKind::Http01, "a.example"));
    }

    #[test]
    fn what_cannot_be_right_is_not_answered() {
        for (from, to) in [
            ("http-01", "dns-01"),
            ("\"t1\"", "\"t2\""),
            ("t1.thumb", "t1.th\\r\\numb"),
            ("t1.thumb", "t1"),
            ("a.example", "a/../example"),
            ("{", "["),
        ] {
            assert_eq!(Shared::read(CADDYS.replace(from, to).as_bytes()), None, "{from} {to}");
        }
    }

    #[test]
    fn it_lies_where_certmagic_looks() {
        for (kind, name, expected) in [
            (ChallengeKind::Http01, "a.example", "a.example"),
            (ChallengeKind::Http01, "2001:db8::1", "2001-db8--1"),
            (ChallengeKind::TlsAlpn01, "192.0.2.1", "1.2.0.192.in-addr.arpa"),
        ] {
            let expected = format!("acme/ca/challenge_tokens/{expected}.json");
            assert_eq!(shared(kind, name).object("ca"), expected);
        }
    }

    #[test]
    fn only_ours_is_removed() {
        let (_scratch, store) = ScratchStore::new("shared");
        let ours = shared(ChallengeKind::Http01, "a.example");
        let object = ours.object("ca");
        for (content, stays) in [(ours.bytes(), false), (CADDYS.as_bytes().to_vec(), true)] {
            store.put(&object, &content, Expect::Anything).unwrap();
            remove_ours(&store, "ca", &ours.name).unwrap();
            assert_eq!(store.get(&object).unwrap().is_some(), stays);
        }
    }
}
