//! Answers to challenges that an issuer may ask for now.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::name::ServerName;

/// The answer to one challenge.
#[derive(Clone, Debug)]
pub enum ChallengeAnswer {
    /// RFC 8737: shown on a handshake that offers only `acme-tls/1`.
    TlsAlpn01(Arc<CertifiedKey>),
    /// RFC 8555 §8.3: the body under `/.well-known/acme-challenge/TOKEN`.
    Http01 { token: Arc<str>, key_authorization: Arc<str> },
}

/// The answers of all orders that are being validated: at most one per name. A handful; copied when one
/// comes or goes.
#[derive(Clone, Debug, Default)]
pub struct Challenges {
    by_name: HashMap<Arc<str>, ChallengeAnswer>,
    /// For orders of other nodes; asked when there is none of our own for the name.
    elsewhere: Arc<HashMap<Arc<str>, ChallengeAnswer>>,
}

impl Challenges {
    /// The same with this answer for the name, or with none.
    pub fn with(&self, name: &ServerName, answer: Option<ChallengeAnswer>) -> Self {
        let mut by_name = self.by_name.clone();
        let key = validated_name(name);
        match answer {
            Some(answer) => by_name.insert(key, answer),
            None => by_name.remove(&key),
        };
        Self { by_name, elsewhere: self.elsewhere.clone() }
    }

    /// The same with these answers, and no others, for orders of other nodes.
    pub fn with_elsewhere<'a>(
        &self,
        answers: impl IntoIterator<Item = (&'a ServerName, ChallengeAnswer)>,
    ) -> Self {
        let answers = answers.into_iter().map(|(name, answer)| (validated_name(name), answer));
        Self { by_name: self.by_name.clone(), elsewhere: Arc::new(answers.collect()) }
    }

    /// Whether an order of our own is being validated for the name.
    pub fn is_ours(&self, name: &ServerName) -> bool {
        self.by_name.contains_key(&validated_name(name))
    }

    fn answer(&self, validated_name: &str) -> Option<&ChallengeAnswer> {
        self.by_name.get(validated_name).or_else(|| self.elsewhere.get(validated_name))
    }

    /// The certified key for a validation of this server name, normalised and without a final dot.
    pub fn tls_alpn(&self, server_name: &str) -> Option<&Arc<CertifiedKey>> {
        match self.answer(server_name)? {
            ChallengeAnswer::TlsAlpn01(certified_key) => Some(certified_key),
            ChallengeAnswer::Http01 { .. } => None,
        }
    }

    /// The body for a GET of `path` at this host.
    pub fn http(&self, host: &ServerName, path: &str) -> Option<&Arc<str>> {
        let asked = path.strip_prefix("/.well-known/acme-challenge/")?;
        let answer = match host.as_ip() {
            Some(address) => self.answer(&reverse_name(address))?,
            None => self.answer(host.as_str())?,
        };
        match answer {
            ChallengeAnswer::Http01 { token, key_authorization } if **token == *asked => {
                Some(key_authorization)
            }
            _ => None,
        }
    }
}

/// The server name under which TLS-ALPN-01 asks for a name.
pub fn validated_name(name: &ServerName) -> Arc<str> {
    match name.as_ip() {
        Some(address) => reverse_name(address).into(),
        None => name.as_str().into(),
    }
}

/// The server name under which an address is validated (RFC 8738 §6).
fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let mut name = String::with_capacity(72);
            for byte in v6.octets().iter().rev() {
                name.push_str(&format!("{:x}.{:x}.", byte & 0xf, byte >> 4));
            }
            name.push_str("ip6.arpa");
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(token: &str) -> ChallengeAnswer {
        ChallengeAnswer::Http01 {
            token: token.into(),
            key_authorization: format!("{token}.thumbprint").into(),
        }
    }

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    #[test]
    fn only_the_right_token_of_the_right_name_is_answered() {
        let challenges = Challenges::default()
            .with(&name("a.example"), Some(http("t1")))
            .with(&name("10.0.0.1"), Some(http("t2")))
            .with(&name("::1"), Some(http("t3")));
        for (host, path, expected) in [
            ("a.example", "/.well-known/acme-challenge/t1", Some("t1.thumbprint")),
            ("10.0.0.1", "/.well-known/acme-challenge/t2", Some("t2.thumbprint")),
            ("::1", "/.well-known/acme-challenge/t3", Some("t3.thumbprint")),
            ("a.example", "/.well-known/acme-challenge/t2", None),
            ("b.example", "/.well-known/acme-challenge/t1", None),
            ("a.example", "/.well-known/acme-challenge/t1/..", None),
            ("a.example", "/.well-known/acme-challenge/t1?x", None),
            ("a.example", "/.well-known/acme-challenge/", None),
            ("a.example", "/t1", None),
        ] {
            let found = challenges.http(&name(host), path).map(|body| &**body);
            assert_eq!(found, expected, "{host} {path}");
        }
        assert!(challenges.tls_alpn("a.example").is_none());
        let emptied = challenges.with(&name("a.example"), None);
        assert!(emptied.http(&name("a.example"), "/.well-known/acme-challenge/t1").is_none());
    }

    #[test]
    fn other_nodes_orders_are_answered_where_there_is_none_of_our_own() {
        let (a, b) = (name("a.example"), name("10.0.0.1"));
        let challenges = Challenges::default()
            .with(&a, Some(http("ours")))
            .with_elsewhere([(&a, http("theirs")), (&b, http("t2"))]);
        let body = |challenges: &Challenges, host: &ServerName, token: &str| {
            let path = format!("/.well-known/acme-challenge/{token}");
            challenges.http(host, &path).map(|body| body.to_string())
        };
        assert_eq!(body(&challenges, &a, "ours").as_deref(), Some("ours.thumbprint"));
        assert_eq!(body(&challenges, &a, "theirs"), None);
        assert_eq!(body(&challenges, &b, "t2").as_deref(), Some("t2.thumbprint"));
        assert!(challenges.is_ours(&a) && !challenges.is_ours(&b));
        let withdrawn = challenges.with(&a, None);
        assert_eq!(body(&withdrawn, &a, "theirs").as_deref(), Some("theirs.thumbprint"));
        assert_eq!(body(&withdrawn.with_elsewhere([]), &b, "t2"), None);
    }

    #[test]
    fn addresses_are_validated_under_their_reverse_names() {
        assert_eq!(reverse_name([192, 0, 2, 1].into()), "1.2.0.192.in-addr.arpa");
        let v6 = reverse_name("2001:db8::1".parse().unwrap());
        assert!(v6.starts_with("1.0.0.0.") && v6.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"), "{v6}");
    }
}
