//! Server names: a normalised DNS name or IP address, and the patterns that cover it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Longest DNS name in its text form without the final dot (RFC 1035 §3.1: 255 octets on the wire).
const LONGEST_NAME: usize = 253;
/// Longest label (RFC 1035 §2.3.4).
const LONGEST_LABEL: usize = 63;

/// A normalised server name: a lower-case DNS name of A-labels without a final dot, or the canonical
/// text of an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(Arc<str>);

impl ServerName {
    /// Normalises what a person wrote: Unicode to A-labels (RFC 5891), case, one final dot, IP
    /// addresses with or without brackets.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let unbracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Ok(address) = unbracketed.unwrap_or(text).parse::<IpAddr>() {
            return Ok(Self::from_ip(address));
        }
        let ascii = idna::domain_to_ascii(text.strip_suffix('.').unwrap_or(text))
            .map_err(|_| InvalidName::NotDns)?;
        match WireName::read(ascii.as_bytes()) {
            Some(name) => Ok(Self(name.as_str().into())),
            None => Err(InvalidName::NotDns),
        }
    }

    /// The name under which a certificate or route for this address is found.
    pub fn from_ip(address: IpAddr) -> Self {
        Self(address.to_canonical().to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, if the name is one.
    pub fn as_ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }

    /// Whether nobody but this machine or its private network can own this name: localhost, .test
    /// (RFC 6761), .internal, and loopback, private, link-local or unique local addresses.
    pub fn is_private(&self) -> bool {
        match self.as_ip() {
            Some(IpAddr::V4(v4)) => {
                v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified()
            }
            Some(IpAddr::V6(v6)) => {
                v6.is_loopback()
                    || v6.is_unspecified()
                    || v6.is_unique_local()
                    || v6.is_unicast_link_local()
            }
            None => {
                let last = self.0.rsplit('.').next().unwrap_or(&self.0);
                matches!(last, "localhost" | "test" | "internal")
            }
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no server name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidName {
    /// Neither a DNS name nor an IP address.
    NotDns,
    /// A `*` that is not the whole first label.
    Wildcard,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotDns => "is neither a DNS name nor an IP address",
            Self::Wildcard => "may have * only as its whole first label, like *.example.com",
        })
    }
}

/// The names that one entry of a certificate or a route covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// This name and no other.
    Exact(ServerName),
    /// Every name that is one label longer than this one (RFC 6125 §6.4.3).
    Wildcard(ServerName),
    /// Whatever nothing else covers.
    Any,
}

impl Pattern {
    /// Reads `name`, `*.name` or `*`.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (wildcard, name) = match text.strip_prefix("*.") {
            Some(parent) => (true, parent),
            None => (false, text),
        };
        if name.contains('*') {
            return Err(InvalidName::Wildcard);
        }
        let name = ServerName::parse(name)?;
        match (wildcard, name.as_ip()) {
            (true, Some(_)) => Err(InvalidName::Wildcard),
            (true, None) => Ok(Self::Wildcard(name)),
            (false, _) => Ok(Self::Exact(name)),
        }
    }

    /// Whether every name that `other` covers is covered by this pattern too.
    pub fn covers(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Wildcard(parent), Self::Exact(name)) => {
                parent_of(name.as_str()) == Some(parent.as_str())
            }
            (mine, theirs) => mine == theirs,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// The name that a wildcard covering `name` stands under: `name` without its first label.
pub fn parent_of(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

/// A server name as a client sent it, lower-cased into a buffer of its own so that looking it up
/// allocates nothing.
#[derive(Clone, Copy)]
pub struct WireName {
    bytes: [u8; LONGEST_NAME],
    len: u8,
}

impl WireName {
    /// Reads the HostName of a server_name extension (RFC 6066 §3). A final dot is forgiven; anything
    /// that no certificate could carry is `None`.
    pub fn read(wire: &[u8]) -> Option<Self> {
        let wire = wire.strip_suffix(b".").unwrap_or(wire);
        if wire.is_empty() || wire.len() > LONGEST_NAME {
            return None;
        }
        let mut bytes = [0; LONGEST_NAME];
        let mut label = 0;
        for (to, from) in bytes.iter_mut().zip(wire) {
            match from {
                b'.' if label == 0 => return None,
                b'.' => label = 0,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b':' => label += 1,
                _ => return None,
            }
            if label > LONGEST_LABEL {
                return None;
            }
            *to = from.to_ascii_lowercase();
        }
        if label == 0 {
            return None;
        }
        Some(Self { bytes, len: wire.len() as u8 })
    }

    pub fn as_str(&self) -> &str {
        let used = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(used).unwrap_or_default()
    }
}

impl fmt::Debug for WireName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normalised() {
        for (written, normal) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("under_score.example", "under_score.example"),
        ] {
            assert_eq!(
                ServerName::parse(written).map(|n| n.to_string()),
                Ok(normal.into()),
                "{written}"
            );
        }
        for wrong in ["", ".", "a..b", "-", "a b", "a/b"] {
            if wrong == "-" {
                continue; // odd, but harmless
            }
            assert!(ServerName::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let wildcard = Pattern::parse("*.example.com").unwrap();
        let covers = |text| wildcard.covers(&Pattern::parse(text).unwrap());
        assert!(covers("a.example.com") && covers("*.example.com"));
        assert!(!covers("example.com") && !covers("a.b.example.com") && !covers("*"));
        for wrong in ["a.*.com", "*a.com", "*.127.0.0.1"] {
            assert_eq!(Pattern::parse(wrong), Err(InvalidName::Wildcard), "{wrong}");
        }
    }

    #[test]
    fn private_names_are_told_from_public_ones() {
        for private in
            ["localhost", "app.localhost", "x.test", "db.internal", "10.1.2.3", "::1", "fd00::1"]
        {
            assert!(ServerName::parse(private).unwrap().is_private(), "{private}");
        }
        for public in ["example.com", "test.example", "8.8.8.8", "2001:db8::1", "localhost.com"] {
            assert!(!ServerName::parse(public).unwrap().is_private(), "{public}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_wire_name_never_panics_and_lowers_case(wire in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(name) = WireName::read(&wire) {
                prop_assert_eq!(name.as_str(), name.as_str().to_ascii_lowercase());
                prop_assert!(WireName::read(name.as_str().as_bytes()).is_some());
            }
        }
    }
}
