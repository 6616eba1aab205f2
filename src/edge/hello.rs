//! Reads a ClientHello, as far as choosing needs it, and chooses by it. Pure: bytes in, answer out.
//!
//! rustls parses the same bytes again and judges them. This reader exists because a rustls certificate
//! resolver comes too late: ALPN, suite order and versions belong to the `ServerConfig`, which is what is
//! chosen here.

use std::sync::Arc;

use rustls::crypto::SupportedKxGroup;
use rustls::sign::CertifiedKey;
use rustls::{NamedGroup, SignatureScheme};

use crate::name::{ServerName, WireName};
use crate::observe::names::Reason;
use crate::snapshot::{
    CertificateChoice, KeyKind, KeyKinds, Route, Snapshot, Target, Upstream, UpstreamId,
};

use super::limits::{LONGEST_HELLO_BYTES, LONGEST_HELLO_INPUT_BYTES};
use super::tls::ACME_TLS_1;

/// What the first bytes of a connection are.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one choice; a box would be an allocation per handshake"
)]
pub enum Reading {
    /// Not enough to tell.
    More,
    Hello(ClientHello),
    /// An HTTP request in the clear.
    PlainHttp,
    NotTls,
    TooLong,
    Malformed,
}

/// What choosing needs of a ClientHello (RFC 8446 §4.1.2).
#[derive(Debug)]
pub struct ClientHello {
    pub server_name: Sni,
    /// The kinds of certified key that the client can verify.
    pub key_kinds: KeyKinds,
    /// The first cipher suite on offer is a ChaCha20 one: a client without AES instructions.
    pub prefers_chacha20: bool,
    /// `acme-tls/1` is the only protocol on offer: an issuer's validation, and no client.
    pub is_validation: bool,
    pub x25519_shares: X25519Shares,
    /// It offers to resume (RFC 8446 §4.2.11), and then nothing is signed as a rule.
    pub offers_to_resume: bool,
}

/// The key shares (RFC 8446 §4.2.8) with a public key of X25519 in them, in the client's order: it may send one for
/// X25519 itself and one for X25519MLKEM768.
pub type X25519Shares = [Option<(NamedGroup, [u8; 32])>; 2];

/// The server_name extension (RFC 6066 §3).
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack for one choice; a box would be an allocation per handshake"
)]
pub enum Sni {
    Absent,
    /// Present, but no name that anything could be stored under.
    Invalid,
    Name(WireName),
}

const RECORD_HEADER: usize = 5;
const CONTENT_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
/// Largest plaintext record (RFC 8446 §5.1).
const LONGEST_RECORD: usize = 1 << 14;

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_SIGNATURE_ALGORITHMS: u16 = 13;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_PRE_SHARED_KEY: u16 = 41;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
const EXTENSION_KEY_SHARE: u16 = 51;
const TLS_1_3: u16 = 0x0304;

/// Reads the bytes received so far. Cheap to call again with more: until the hello is whole, only record
/// headers are looked at.
pub fn read(bytes: &[u8]) -> Reading {
    let Some(&first) = bytes.first() else { return Reading::More };
    if first != CONTENT_HANDSHAKE {
        return not_tls(bytes);
    }
    let mut message = Message::default();
    let mut rest = bytes;
    loop {
        match message.complete() {
            Ok(Some(body)) => return parse(body).map_or(Reading::Malformed, Reading::Hello),
            Ok(None) => {}
            Err(flaw) => return flaw.into(),
        }
        let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER>() else {
            let cut_short = rest.first().is_none_or(|kind| *kind == CONTENT_HANDSHAKE);
            return if !cut_short { Reading::Malformed } else { more(bytes) };
        };
        let [kind, major, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        // Empty handshake records are forbidden (RFC 8446 §5.1) and would let a client dribble forever.
        if kind != CONTENT_HANDSHAKE || major != 3 || length == 0 || length > LONGEST_RECORD {
            return Reading::Malformed;
        }
        let Some((payload, after)) = after.split_at_checked(length) else {
            message.add(after);
            return match message.complete() {
                Err(flaw) => flaw.into(),
                _ => more(bytes),
            };
        };
        message.add(payload);
        rest = after;
    }
}

fn more(bytes: &[u8]) -> Reading {
    if bytes.len() >= LONGEST_HELLO_INPUT_BYTES { Reading::TooLong } else { Reading::More }
}

fn not_tls(bytes: &[u8]) -> Reading {
    const METHODS: [&[u8]; 10] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"CONNECT ",
        b"TRACE ",
        b"PRI * HTTP/2",
    ];
    for method in METHODS {
        if bytes.starts_with(method) {
            return Reading::PlainHttp;
        }
        if method.starts_with(bytes) {
            return Reading::More;
        }
    }
    Reading::NotTls
}

/// What can be wrong with a message before it is whole.
enum Flaw {
    TooLong,
    Malformed,
}

impl From<Flaw> for Reading {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::TooLong => Self::TooLong,
            Flaw::Malformed => Self::Malformed,
        }
    }
}

/// A handshake message that may lie in several records.
#[derive(Default)]
struct Message<'a> {
    /// The usual case: all of it in one record, borrowed.
    first: &'a [u8],
    /// Otherwise all of it, joined.
    joined: Vec<u8>,
}

impl<'a> Message<'a> {
    fn add(&mut self, payload: &'a [u8]) {
        if self.first.is_empty() && self.joined.is_empty() {
            self.first = payload;
        } else {
            self.joined.extend_from_slice(std::mem::take(&mut self.first));
            self.joined.extend_from_slice(payload);
        }
    }

    /// The body of the ClientHello once all of it is here.
    fn complete(&self) -> Result<Option<&[u8]>, Flaw> {
        let bytes = if self.joined.is_empty() { self.first } else { &self.joined };
        match bytes.first() {
            None => return Ok(None),
            Some(&HANDSHAKE_CLIENT_HELLO) => {}
            Some(_) => return Err(Flaw::Malformed),
        }
        let Some(([_, a, b, c], body)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if length > LONGEST_HELLO_BYTES {
            return Err(Flaw::TooLong);
        }
        Ok(body.get(..length))
    }
}

/// A cursor over the vectors of the presentation language (RFC 8446 §3.4).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*taken))
    }

    /// A vector with a length of one byte.
    fn short_vector(&mut self) -> Option<Reader<'a>> {
        let length = self.u8()?;
        self.bytes(length.into()).map(Reader)
    }

    /// A vector with a length of two bytes.
    fn vector(&mut self) -> Option<Reader<'a>> {
        let length = self.u16()?;
        self.bytes(length.into()).map(Reader)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse(body: &[u8]) -> Option<ClientHello> {
    let mut hello = Reader(body);
    hello.bytes(2 + 32)?; // legacy_version, random
    hello.short_vector()?; // legacy_session_id
    let mut suites = Suites::read(hello.vector()?)?;
    hello.short_vector()?; // legacy_compression_methods
    let mut server_name = Sni::Absent;
    let mut verifies = KeyKinds::default();
    let mut is_validation = false;
    let mut x25519_shares = X25519Shares::default();
    let mut offers_to_resume = false;
    if !hello.is_empty() {
        let mut extensions = hello.vector()?;
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let mut content = extensions.vector()?;
            match kind {
                EXTENSION_SERVER_NAME => server_name = read_server_name(content)?,
                EXTENSION_SIGNATURE_ALGORITHMS => verifies = read_signature_schemes(content)?,
                EXTENSION_ALPN => is_validation = offers_only_validation(content)?,
                EXTENSION_SUPPORTED_VERSIONS => {
                    let mut versions = content.short_vector()?;
                    while let Some(version) = versions.u16() {
                        suites.any_key_kind |= version == TLS_1_3;
                    }
                }
                EXTENSION_PRE_SHARED_KEY => offers_to_resume = true,
                EXTENSION_KEY_SHARE => x25519_shares = read_x25519_shares(content)?,
                _ => {}
            }
        }
    }
    Some(ClientHello {
        server_name,
        key_kinds: suites.limit(verifies),
        prefers_chacha20: suites.chacha20_first,
        is_validation,
        x25519_shares,
        offers_to_resume,
    })
}

/// What the cipher suites on offer say about the client.
#[derive(Default)]
struct Suites {
    chacha20_first: bool,
    /// TLS 1.2 suites name the kind of signature (RFC 8422 §5.1).
    ecdsa: bool,
    rsa: bool,
    /// TLS 1.3 is on offer, whose suites leave the signature open.
    any_key_kind: bool,
}

impl Suites {
    fn read(mut suites: Reader<'_>) -> Option<Self> {
        let mut seen = Self::default();
        let mut first = true;
        while !suites.is_empty() {
            let suite = suites.u16()?;
            // GREASE values (RFC 8701) are no preference.
            if suite & 0x0f0f == 0x0a0a && suite >> 8 == suite & 0xff {
                continue;
            }
            match suite {
                // ECDHE_ECDSA with AES-GCM and with ChaCha20 (RFC 5289, RFC 7905)
                0xc02b | 0xc02c | 0xcca9 => seen.ecdsa = true,
                // ECDHE_RSA, likewise
                0xc02f | 0xc030 | 0xcca8 => seen.rsa = true,
                _ => {}
            }
            if first {
                seen.chacha20_first = matches!(suite, 0x1303 | 0xcca8 | 0xcca9);
                first = false;
            }
        }
        Some(seen)
    }

    fn limit(&self, mut verifies: KeyKinds) -> KeyKinds {
        if self.any_key_kind {
            return verifies;
        }
        if !self.ecdsa {
            for kind in
                [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::EcdsaP521, KeyKind::Ed25519]
            {
                verifies.remove(kind);
            }
        }
        if !self.rsa {
            verifies.remove(KeyKind::Rsa);
        }
        verifies
    }
}

fn read_server_name(mut content: Reader<'_>) -> Option<Sni> {
    let mut list = content.vector()?;
    while !list.is_empty() {
        let kind = list.u8()?;
        let name = list.vector()?;
        const HOST_NAME: u8 = 0;
        if kind == HOST_NAME {
            return Some(WireName::read(name.0).map_or(Sni::Invalid, Sni::Name));
        }
    }
    Some(Sni::Invalid)
}

/// RFC 8737 §3: the list of a validation is exactly this one protocol. A client that offers it among others
/// is a client.
fn offers_only_validation(mut content: Reader<'_>) -> Option<bool> {
    let mut protocols = content.vector()?;
    let first = protocols.short_vector()?;
    Some(first.0 == ACME_TLS_1 && protocols.is_empty())
}

fn read_signature_schemes(mut content: Reader<'_>) -> Option<KeyKinds> {
    let mut schemes = content.vector()?;
    let mut kinds = KeyKinds::default();
    while !schemes.is_empty() {
        match SignatureScheme::from(schemes.u16()?) {
            SignatureScheme::ECDSA_NISTP256_SHA256 => kinds.insert(KeyKind::EcdsaP256),
            SignatureScheme::ECDSA_NISTP384_SHA384 => kinds.insert(KeyKind::EcdsaP384),
            SignatureScheme::ECDSA_NISTP521_SHA512 => kinds.insert(KeyKind::EcdsaP521),
            SignatureScheme::ED25519 => kinds.insert(KeyKind::Ed25519),
            SignatureScheme::RSA_PSS_SHA256
            | SignatureScheme::RSA_PSS_SHA384
            | SignatureScheme::RSA_PSS_SHA512
            | SignatureScheme::RSA_PKCS1_SHA256
            | SignatureScheme::RSA_PKCS1_SHA384
            | SignatureScheme::RSA_PKCS1_SHA512 => kinds.insert(KeyKind::Rsa),
            _ => {}
        }
    }
    Some(kinds)
}

fn read_x25519_shares(mut content: Reader<'_>) -> Option<X25519Shares> {
    let mut entries = content.vector()?;
    let mut shares = X25519Shares::default();
    let mut places = shares.iter_mut();
    while !entries.is_empty() {
        let group = NamedGroup::from(entries.u16()?);
        let share = entries.vector()?.0;
        // Behind a key of ML-KEM-768 (draft-ietf-tls-ecdhe-mlkem §4.1). Whether the rest is well-formed is for rustls to say.
        if matches!(group, NamedGroup::X25519 | NamedGroup::X25519MLKEM768)
            && let Some(public) = share.last_chunk()
            && let Some(place) = places.next()
        {
            *place = Some((group, *public));
        }
    }
    Some(shares)
}

impl ClientHello {
    /// The client's public key of X25519 that a server with these groups will need, if it needs one: rustls takes the
    /// first group of the client's that it has, and a client's shares are in the same order as its groups. (Where that
    /// group has no share, rustls asks for one, and what was computed with another is not used.)
    pub fn x25519_share(&self, groups: &[&dyn SupportedKxGroup]) -> Option<[u8; 32]> {
        let has = |name: NamedGroup| groups.iter().any(|group| group.name() == name);
        let share = self.x25519_shares.iter().flatten().find(|(group, _)| has(*group));
        share.map(|(_, public)| *public)
    }

    /// The certified key that answers an issuer's validation (RFC 8737 §3); none but that may be shown.
    pub fn choose_validation(&self, snapshot: &Snapshot) -> Result<Arc<CertifiedKey>, Reason> {
        let Sni::Name(name) = &self.server_name else { return Err(Reason::NoChallenge) };
        snapshot.challenges.tls_alpn(name.as_str()).cloned().ok_or(Reason::NoChallenge)
    }
}

/// What one connection takes from the snapshot.
pub struct Choice {
    pub route: Arc<Route>,
    pub certified_key: Arc<CertifiedKey>,
    pub key_kind: KeyKind,
    pub destination: Destination,
}

/// Where the connection goes: the route's target, looked up in the same snapshot.
pub enum Destination {
    Upstream(UpstreamId, Arc<Upstream>),
    Page,
}

impl ClientHello {
    /// The route and the certified key for this client on the listener of `port`. `local_address` is
    /// asked only when it matters: an absent name is looked up as the address the client connected to.
    pub fn choose(
        &self,
        snapshot: &Snapshot,
        port: u16,
        local_address: impl FnOnce() -> Option<ServerName>,
    ) -> Result<Choice, Reason> {
        let own = match &self.server_name {
            Sni::Name(name) => find(snapshot, port, name.as_str()),
            Sni::Invalid => None,
            Sni::Absent if snapshot.settings.default_server_name.is_some() => None,
            Sni::Absent => local_address().and_then(|name| find(snapshot, port, name.as_str())),
        };
        let default = || {
            let name = snapshot.settings.default_server_name.as_ref()?;
            find(snapshot, port, name.as_str())
        };
        let (route, certified_keys) = own.or_else(default).ok_or(Reason::UnknownServerName)?;
        let (key_kind, certified_key) = certified_keys
            .and_then(|keys| keys.choose(self.key_kinds))
            .ok_or(Reason::NoCertificate)?;
        let destination = match route.target {
            Target::Page => Destination::Page,
            Target::Upstream(id) => {
                let upstream = snapshot.upstreams.get(id.0 as usize).ok_or(Reason::Unresolved)?;
                Destination::Upstream(id, upstream.clone())
            }
        };
        let (route, certified_key) = (route.clone(), certified_key.clone());
        Ok(Choice { route, certified_key, key_kind, destination })
    }
}

/// A route without a certificate is found too: that is another mistake than an unknown name.
fn find<'s>(
    snapshot: &'s Snapshot,
    port: u16,
    name: &str,
) -> Option<(&'s Arc<Route>, Option<&'s CertificateChoice>)> {
    let route = snapshot.routes.lookup(port, name)?;
    Some((route, snapshot.certificates.lookup(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend((content.len() as u16).to_be_bytes());
        bytes.extend(content);
        bytes
    }

    fn sni(name: &[u8]) -> Vec<u8> {
        let mut list = vec![0];
        list.extend((name.len() as u16).to_be_bytes());
        list.extend(name);
        let mut content = (list.len() as u16).to_be_bytes().to_vec();
        content.extend(list);
        extension(EXTENSION_SERVER_NAME, &content)
    }

    fn message(suites: &[u16], extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(((suites.len() * 2) as u16).to_be_bytes());
        suites.iter().for_each(|suite| body.extend(suite.to_be_bytes()));
        body.extend([1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![1];
        message.extend(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend(body);
        message
    }

    /// The message in records of at most `size` bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|chunk| {
                let mut record = vec![22, 3, 1];
                record.extend((chunk.len() as u16).to_be_bytes());
                record.extend(chunk);
                record
            })
            .collect()
    }

    fn schemes(schemes: &[u16]) -> Vec<u8> {
        let mut content = ((schemes.len() * 2) as u16).to_be_bytes().to_vec();
        schemes.iter().for_each(|scheme| content.extend(scheme.to_be_bytes()));
        extension(EXTENSION_SIGNATURE_ALGORITHMS, &content)
    }

    fn hello(bytes: &[u8]) -> ClientHello {
        match read(bytes) {
            Reading::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hello_is_read_whole_however_it_is_cut() {
        let message =
            message(&[0x1301, 0xc02b], &[sni(b"App.Example"), schemes(&[0x0403])].concat());
        for size in [1, 2, 7, 100, 16_000] {
            let bytes = records(&message, size);
            for end in 0..bytes.len() {
                assert!(matches!(read(&bytes[..end]), Reading::More), "{end} of {}", bytes.len());
            }
            let hello = hello(&bytes);
            assert!(matches!(hello.server_name, Sni::Name(name) if name.as_str() == "app.example"));
            assert!(hello.key_kinds.contains(KeyKind::EcdsaP256));
            assert!(!hello.key_kinds.contains(KeyKind::Rsa));
        }
    }

    #[test]
    fn tls_1_2_suites_limit_the_certificate_and_tls_1_3_does_not() {
        let both = schemes(&[0x0403, 0x0804]);
        let versions = extension(EXTENSION_SUPPORTED_VERSIONS, &[2, 3, 4]);
        let rsa_only = hello(&records(&message(&[0xc02f], &both), 1000));
        assert!(rsa_only.key_kinds.contains(KeyKind::Rsa));
        assert!(!rsa_only.key_kinds.contains(KeyKind::EcdsaP256));
        let tls_1_3 =
            hello(&records(&message(&[0x1301, 0xc02f], &[both, versions].concat()), 1000));
        assert!(tls_1_3.key_kinds.contains(KeyKind::Rsa));
        assert!(tls_1_3.key_kinds.contains(KeyKind::EcdsaP256));
    }

    #[test]
    fn chacha20_is_preferred_only_by_who_puts_it_first() {
        let prefers =
            |suites: &[u16]| hello(&records(&message(suites, &[]), 1000)).prefers_chacha20;
        assert!(prefers(&[0x1303, 0x1301]));
        assert!(prefers(&[0x2a2a, 0xcca9, 0xc02b]));
        assert!(!prefers(&[0x1302, 0x1303]));
    }

    #[test]
    fn what_is_no_hello_is_told_apart() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], "PlainHttp"),
            (b"PRI * HTTP/2.0\r\n", "PlainHttp"),
            (b"POS", "More"),
            (b"SSH-2.0-OpenSSH", "NotTls"),
            (b"\x80\x2e\x01\x03\x01", "NotTls"),
            (b"\x16\x03\x01\x00\x00", "Malformed"),
            (b"\x16\x02\x01\x00\x05", "Malformed"),
            (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", "Malformed"),
            (b"\x16\x03\x01\x40\x00\x01\x01\x00\x00", "TooLong"),
            (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", "Malformed"),
        ] {
            assert_eq!(format!("{:?}", read(bytes)), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_that_never_ends_is_too_long() {
        let long = message(&[0x1301], &extension(21, &vec![0; 16_000]));
        let dribbled = records(&long, 1);
        assert!(
            matches!(read(&dribbled), Reading::Hello(_))
                || matches!(read(&dribbled[..30_000]), Reading::TooLong)
        );
        let endless = records(&[&[1, 0, 0x3f, 0xff][..], &[0; 30_000]].concat(), 10);
        assert!(matches!(
            read(&endless[..LONGEST_HELLO_INPUT_BYTES]),
            Reading::TooLong | Reading::Malformed
        ));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            read(&bytes);
        }

        #[test]
        fn a_damaged_hello_never_panics(at in 0usize..200, value in any::<u8>(), size in 1usize..300) {
            let mut bytes = records(&message(&[0x1301, 0xc02b], &[sni(b"app.example"), schemes(&[0x0403])].concat()), size);
            let at = at % bytes.len();
            bytes[at] = value;
            read(&bytes);
        }
    }
}
