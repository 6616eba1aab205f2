//! The PROXY protocol, versions 1 and 2: bytes to header and back. Pure.
//!
//! The source is HAProxy's `doc/proxy-protocol.txt`; section numbers below are its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::limits::LONGEST_PROXY_HEADER_BYTES;

/// Who connected to which address, as a header says or as the sockets do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not enough to tell.
    More,
    /// A header of `len` bytes; what follows belongs to the connection itself.
    Header {
        /// `None`: the proxy speaks for itself (LOCAL) or does not know (UNKNOWN, UNSPEC), and the
        /// socket's own addresses count.
        addresses: Option<Addresses>,
        len: usize,
    },
    /// No header at all.
    Absent,
    TooLong,
    Malformed,
}

/// §2.1
const V1_SIGNATURE: &[u8] = b"PROXY ";
/// §2.1: the longest line that anyone may send, with its CRLF.
const V1_LONGEST: usize = 107;
/// §2.2
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family, length.
const V2_HEAD: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const TCP_4: u8 = 0x11;
const TCP_6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// Reads the bytes received so far.
pub fn read(bytes: &[u8]) -> Reading {
    if let Some(rest) = after_signature(bytes, &V2_SIGNATURE) {
        return match rest {
            Some(rest) => read_v2(rest),
            None => Reading::More,
        };
    }
    match after_signature(bytes, V1_SIGNATURE) {
        Some(Some(rest)) => read_v1(rest),
        Some(None) => Reading::More,
        None => Reading::Absent,
    }
}

/// What follows the signature; `Some(None)` while it is not whole, `None` if it is another.
fn after_signature<'b>(bytes: &'b [u8], signature: &[u8]) -> Option<Option<&'b [u8]>> {
    match bytes.strip_prefix(signature) {
        Some(rest) => Some(Some(rest)),
        None => signature.starts_with(bytes).then_some(None),
    }
}

fn read_v1(rest: &[u8]) -> Reading {
    let longest = V1_LONGEST - V1_SIGNATURE.len();
    let window = rest.get(..longest).unwrap_or(rest);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() == longest { Reading::TooLong } else { Reading::More };
    };
    let len = V1_SIGNATURE.len() + end + 2;
    let line = window.get(..end).and_then(|line| std::str::from_utf8(line).ok());
    match line.and_then(read_v1_line) {
        Some(addresses) => Reading::Header { addresses, len },
        None => Reading::Malformed,
    }
}

fn read_v1_line(line: &str) -> Option<Option<Addresses>> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // §2.1: whatever follows is ignored.
        return Some(None);
    }
    let mut ip = || {
        let word = words.next()?;
        match family {
            "TCP4" => Ipv4Addr::from_str(word).ok().map(IpAddr::V4),
            "TCP6" => Ipv6Addr::from_str(word).ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (ip()?, ip()?);
    let (source_port, destination_port) =
        (read_v1_port(words.next()?)?, read_v1_port(words.next()?)?);
    if words.next().is_some() {
        return None;
    }
    Some(Some(Addresses {
        source: SocketAddr::new(source.to_canonical(), source_port),
        destination: SocketAddr::new(destination.to_canonical(), destination_port),
    }))
}

/// Digits without sign and without leading zeros (§2.1).
fn read_v1_port(word: &str) -> Option<u16> {
    let port = u16::from_str(word).ok()?;
    (port.to_string() == word).then_some(port)
}

fn read_v2(rest: &[u8]) -> Reading {
    let Some(([version_command, family, high, low], body)) = rest.split_first_chunk::<4>() else {
        return Reading::More;
    };
    let body_len = usize::from(u16::from_be_bytes([*high, *low]));
    let len = V2_HEAD + body_len;
    if !matches!(*version_command, LOCAL | PROXY) {
        return Reading::Malformed;
    }
    if len > LONGEST_PROXY_HEADER_BYTES {
        return Reading::TooLong;
    }
    let Some(body) = body.get(..body_len) else { return Reading::More };
    let addresses = match (*version_command, *family) {
        // §2.2: the addresses of LOCAL are to be ignored, whatever they are.
        (LOCAL, _) | (_, UNSPEC | UNIX_STREAM) => None,
        (_, TCP_4) => match read_addresses::<4>(body) {
            Some(addresses) => Some(addresses),
            None => return Reading::Malformed,
        },
        (_, TCP_6) => match read_addresses::<16>(body) {
            Some(addresses) => Some(addresses),
            None => return Reading::Malformed,
        },
        // Datagrams do not come over TCP.
        _ => return Reading::Malformed,
    };
    Reading::Header { addresses, len }
}

/// Two addresses of `N` octets and two ports. What follows them, TLVs that nothing here needs, is left.
fn read_addresses<const N: usize>(body: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let ([a, b, c, d], _) = rest.split_first_chunk::<4>()?;
    let address = |ip: [u8; N], port| SocketAddr::new(IpAddr::from(ip).to_canonical(), port);
    Some(Addresses {
        source: address(*source, u16::from_be_bytes([*a, *b])),
        destination: address(*destination, u16::from_be_bytes([*c, *d])),
    })
}

/// What a header of version 2 tells of the client's TLS connection.
#[derive(Clone, Copy, Debug)]
pub struct TlsFacts<'a> {
    /// Such as `TLSv1.3`.
    pub version: &'a str,
    /// The IANA name.
    pub cipher_suite: &'a str,
    pub alpn: Option<&'a [u8]>,
    pub server_name: Option<&'a str>,
}

/// The length of our unique ids (§2.2.5 allows 128).
pub const UNIQUE_ID_BYTES: usize = 32;

const TYPE_ALPN: u8 = 0x01;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_UNIQUE_ID: u8 = 0x05;
const TYPE_SSL: u8 = 0x20;
const SUBTYPE_SSL_VERSION: u8 = 0x21;
const SUBTYPE_SSL_CIPHER: u8 = 0x23;
/// The client came over TLS; it showed no certificate (§2.2.6).
const CLIENT_SSL: u8 = 0x01;
const NOT_VERIFIED: u32 = 1;

/// A header of version 1 (§2.1).
pub fn write_v1(addresses: Option<&Addresses>) -> Vec<u8> {
    let Some(addresses) = addresses else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (source, destination) = same_family(addresses);
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (addresses.source.port(), addresses.destination.port());
    format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes()
}

/// A header of version 2 (§2.2), with TLVs for the protocol, the server name, TLS and a unique id.
pub fn write_v2(
    addresses: Option<&Addresses>,
    tls: &TlsFacts<'_>,
    unique_id: &[u8; UNIQUE_ID_BYTES],
) -> Vec<u8> {
    let mut header = Vec::with_capacity(256);
    header.extend_from_slice(&V2_SIGNATURE);
    header.push(PROXY);
    let mut body = Vec::with_capacity(224);
    match addresses.map(|addresses| (addresses, same_family(addresses))) {
        Some((addresses, (source, destination))) => {
            header.push(if source.is_ipv4() { TCP_4 } else { TCP_6 });
            for ip in [source, destination] {
                match ip {
                    IpAddr::V4(ip) => body.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => body.extend_from_slice(&ip.octets()),
                }
            }
            body.extend_from_slice(&addresses.source.port().to_be_bytes());
            body.extend_from_slice(&addresses.destination.port().to_be_bytes());
        }
        None => header.push(UNSPEC),
    }
    if let Some(protocol) = tls.alpn {
        tlv(&mut body, TYPE_ALPN, protocol);
    }
    if let Some(name) = tls.server_name {
        tlv(&mut body, TYPE_AUTHORITY, name.as_bytes());
    }
    tlv(&mut body, TYPE_UNIQUE_ID, unique_id);
    let mut ssl = vec![CLIENT_SSL];
    ssl.extend_from_slice(&NOT_VERIFIED.to_be_bytes());
    tlv(&mut ssl, SUBTYPE_SSL_VERSION, tls.version.as_bytes());
    tlv(&mut ssl, SUBTYPE_SSL_CIPHER, tls.cipher_suite.as_bytes());
    tlv(&mut body, TYPE_SSL, &ssl);
    // A protocol has at most 255 bytes and a server name 253, so the body is far below 64 KiB.
    header.extend_from_slice(&(body.len() as u16).to_be_bytes());
    header.append(&mut body);
    header
}

fn tlv(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    to.push(kind);
    to.extend_from_slice(&(value.len() as u16).to_be_bytes());
    to.extend_from_slice(value);
}

/// A header names one family; where the two differ, IPv4 is written as IPv6.
fn same_family(addresses: &Addresses) -> (IpAddr, IpAddr) {
    let as_v6 = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip => ip,
    };
    let source = addresses.source.ip().to_canonical();
    let destination = addresses.destination.ip().to_canonical();
    if source.is_ipv4() == destination.is_ipv4() {
        (source, destination)
    } else {
        (as_v6(source), as_v6(destination))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses(source: &str, destination: &str) -> Addresses {
        Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    fn v2(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = V2_SIGNATURE.to_vec();
        header.extend([version_command, family]);
        header.extend((body.len() as u16).to_be_bytes());
        header.extend(body);
        header
    }

    const TLS: TlsFacts<'static> = TlsFacts {
        version: "TLSv1.3",
        cipher_suite: "TLS_AES_128_GCM_SHA256",
        alpn: Some(b"h2"),
        server_name: Some("app.example.com"),
    };

    #[test]
    fn version_1_is_read_to_its_end_and_no_further() {
        let four = addresses("192.0.2.1:56324", "198.51.100.2:443");
        let six = addresses("[2001:db8::1]:4124", "[2001:db8::2]:443");
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", Some(four)),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 4124 443\r\n", Some(six)),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff:f::1 anything 1 2\r\n", None),
        ] {
            let glued = [line.as_bytes(), b"\x16\x03\x01"].concat();
            let whole = Reading::Header { addresses: expected, len: line.len() };
            assert_eq!(read(&glued), whole, "{line}");
            for cut in 0..line.len() {
                assert_eq!(read(&glued[..cut]), Reading::More, "{cut} bytes of {line}");
            }
        }
    }

    #[test]
    fn version_1_is_strict() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 056 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +56 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 56 443 7\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 56 443\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY \r\n",
            "PROXY TCP4 \u{661}92.0.2.1 198.51.100.2 1 2\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Reading::Malformed, "{line}");
        }
        let endless = [V1_SIGNATURE, &[b'x'; 200]].concat();
        assert_eq!(read(&endless), Reading::TooLong);
        assert_eq!(read(&endless[..V1_LONGEST - 1]), Reading::More);
    }

    #[test]
    fn version_2_is_read_to_its_end_and_no_further() {
        let four = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 187];
        let six = [&Ipv6Addr::LOCALHOST.octets()[..], &[0xfd; 16], &[0, 7, 1, 187]].concat();
        let with_tlvs = [&four[..], &[0x04, 0, 2, 0, 0, 0xee, 0, 1, 9]].concat();
        let expected = addresses("192.0.2.1:56324", "198.51.100.2:443");
        for (header, expected) in [
            (v2(PROXY, TCP_4, &four), Some(expected)),
            (v2(PROXY, TCP_4, &with_tlvs), Some(expected)),
            (
                v2(PROXY, TCP_6, &six),
                Some(addresses("[::1]:7", "[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:443")),
            ),
            (v2(LOCAL, UNSPEC, &[]), None),
            (v2(LOCAL, TCP_4, &four), None),
            (v2(PROXY, UNSPEC, &[1, 2, 3]), None),
            (v2(PROXY, UNIX_STREAM, &[0; 216]), None),
        ] {
            let glued = [&header[..], b"\x16\x03\x01"].concat();
            assert_eq!(read(&glued), Reading::Header { addresses: expected, len: header.len() });
            for cut in 0..header.len() {
                assert_eq!(read(&glued[..cut]), Reading::More, "{cut} bytes of {header:?}");
            }
        }
    }

    #[test]
    fn version_2_is_refused_when_it_is_not_for_tcp_or_too_short_or_too_long() {
        for (header, expected) in [
            (v2(PROXY, TCP_4, &[0; 11]), Reading::Malformed),
            (v2(PROXY, TCP_6, &[0; 35]), Reading::Malformed),
            (v2(PROXY, 0x12, &[0; 12]), Reading::Malformed),
            (v2(PROXY, 0x41, &[0; 12]), Reading::Malformed),
            (v2(0x22, TCP_4, &[0; 12]), Reading::Malformed),
            (v2(0x11, TCP_4, &[0; 12]), Reading::Malformed),
            (v2(PROXY, TCP_4, &[0; LONGEST_PROXY_HEADER_BYTES]), Reading::TooLong),
        ] {
            assert_eq!(read(&header), expected);
        }
        // Its length alone says so, before the bytes have come.
        let longest = v2(PROXY, TCP_4, &vec![0; usize::from(u16::MAX)]);
        assert_eq!(read(&longest[..V2_HEAD]), Reading::TooLong);
    }

    #[test]
    fn what_is_no_header_is_told_at_once() {
        for bytes in [&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\r\n", b"PROXX", b"\r\n\r\nX", b"P\0"] {
            assert_eq!(read(bytes), Reading::Absent, "{bytes:?}");
        }
        assert_eq!(read(b""), Reading::More);
    }

    #[test]
    fn what_is_written_holds_the_facts() {
        let both = addresses("192.0.2.1:56324", "198.51.100.2:443");
        assert_eq!(write_v1(Some(&both)), b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
        assert_eq!(write_v1(None), b"PROXY UNKNOWN\r\n");
        let mixed = addresses("192.0.2.1:1", "[2001:db8::2]:2");
        assert_eq!(write_v1(Some(&mixed)), b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
        // As a socket that listens for IPv4 and IPv6 has it.
        let mapped = addresses("[::ffff:192.0.2.1]:56324", "[::ffff:198.51.100.2]:443");
        assert_eq!(write_v1(Some(&mapped)), write_v1(Some(&both)));

        let id = [b'7'; UNIQUE_ID_BYTES];
        let header = write_v2(Some(&both), &TLS, &id);
        let mut expected = vec![192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 187];
        expected.extend(b"\x01\x00\x02h2\x02\x00\x0fapp.example.com\x05\x00\x20");
        expected.extend(id);
        expected.extend(b"\x20\x00\x28\x01\0\0\0\x01\x21\x00\x07TLSv1.3\x23\x00\x16");
        expected.extend(b"TLS_AES_128_GCM_SHA256");
        assert_eq!(header, v2(PROXY, TCP_4, &expected));
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        (any::<bool>(), any::<[u8; 16]>(), any::<u16>()).prop_map(|(four, octets, port)| {
            let ip = match four {
                true => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
                false => IpAddr::from(octets),
            };
            SocketAddr::new(ip.to_canonical(), port)
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(source in address(), destination in address()) {
            let written = Addresses { source, destination };
            for header in [
                write_v1(Some(&written)),
                write_v2(Some(&written), &TLS, &[0; UNIQUE_ID_BYTES]),
            ] {
                let len = header.len();
                prop_assert_eq!(read(&header), Reading::Header { addresses: Some(written), len });
            }
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read(&[&V2_SIGNATURE[..], &bytes].concat());
            let _ = read(&[V1_SIGNATURE, &bytes].concat());
        }

        /// More bytes never change what was decided, and what is decided lies within them.
        #[test]
        fn reading_is_the_same_however_the_bytes_arrive(
            version_command in prop_oneof![Just(LOCAL), Just(PROXY), any::<u8>()],
            family in prop_oneof![Just(TCP_4), Just(TCP_6), Just(UNIX_STREAM), any::<u8>()],
            body in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = v2(version_command, family, &body);
            let last = read(&bytes);
            for cut in 0..bytes.len() {
                let reading = read(&bytes[..cut]);
                prop_assert!(reading == Reading::More || reading == last);
            }
            if let Reading::Header { len, .. } = last {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
