//! Which addresses a certificate may send us to. Pure.
//!
//! A leaf names whom to ask about it, and whoever issued it chose that name: it must not become a way to
//! reach what only this machine can reach. It is judged by the very address that is connected to, after the
//! name has been resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who vouches for what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vouched {
    /// An operator set the certificate by hand: loopback and link-local responders are theirs to use.
    ByOperator,
    /// An issuer somewhere: only what lies beyond this link.
    ByIssuer,
}

/// Where clouds tell a machine its secrets: AWS (and most others), its IPv6 twin, Google's, Oracle's, Alibaba's
/// and Azure's. Nobody's responder is there, whoever vouches.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// Why this address is not connected to, if it is not.
pub fn refused(address: IpAddr, vouched: Vouched) -> Option<&'static str> {
    let address = plain(address);
    if METADATA.contains(&address) {
        return Some("is a cloud's metadata service");
    }
    let (is_here, is_link, is_nowhere) = match address {
        IpAddr::V4(v4) => (
            // The kernel takes 0.0.0.0/8 for this host.
            v4.is_loopback() || v4.octets().first() == Some(&0),
            v4.is_link_local(),
            v4.is_multicast() || v4.is_broadcast(),
        ),
        IpAddr::V6(v6) => {
            (v6.is_loopback() || v6.is_unspecified(), v6.is_unicast_link_local(), v6.is_multicast())
        }
    };
    match vouched {
        _ if is_nowhere => Some("is no single machine's"),
        Vouched::ByIssuer if is_here => Some("is this machine itself"),
        Vouched::ByIssuer if is_link => Some("is link-local"),
        _ => None,
    }
}

/// The same for an address that is not known, since a proxy resolves the name: what the name itself says.
pub fn refused_name(host: &str, vouched: Vouched) -> Option<&'static str> {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if let Ok(address) = host.parse() {
        return refused(address, vouched);
    }
    let host = host.to_ascii_lowercase();
    let is_local = host == "localhost" || host.ends_with(".localhost");
    (is_local && vouched == Vouched::ByIssuer).then_some("is this machine itself")
}

/// The IPv4 address inside the IPv6 ones that stand for one (RFC 4291 §2.5.5, RFC 6052 §2.1).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let embedded = || {
        let ([g1, g2], [h1, h2]) = (g.to_be_bytes(), h.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(g1, g2, h1, h2))
    };
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => embedded(),
        [0, 0, 0, 0, 0, 0] if g != 0 => embedded(),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_address_is_refused_to_whom_it_should_be() {
        let (both, issuer, nobody) = ((true, true), (true, false), (false, false));
        // Allowed to an operator's certificate, and to any.
        for (address, (by_operator, by_issuer)) in [
            ("192.0.2.1", both),
            ("10.0.0.1", both),
            ("2001:db8::1", both),
            ("fd12::1", both),
            ("127.0.0.1", issuer),
            ("127.200.0.1", issuer),
            ("::1", issuer),
            ("0.0.0.0", issuer),
            ("0.1.2.3", issuer),
            ("::", issuer),
            ("::ffff:127.0.0.1", issuer),
            ("::127.0.0.1", issuer),
            ("64:ff9b::7f00:1", issuer),
            ("169.254.1.1", issuer),
            ("fe80::1", issuer),
            ("::ffff:169.254.1.1", issuer),
            ("169.254.169.254", nobody),
            ("::ffff:169.254.169.254", nobody),
            ("64:ff9b::a9fe:a9fe", nobody),
            ("fd00:ec2::254", nobody),
            ("fd20:ce::254", nobody),
            ("168.63.129.16", nobody),
            ("224.0.0.1", nobody),
            ("255.255.255.255", nobody),
            ("ff02::1", nobody),
        ] {
            let parsed = address.parse().unwrap();
            assert_eq!(refused(parsed, Vouched::ByOperator).is_none(), by_operator, "{address}");
            assert_eq!(refused(parsed, Vouched::ByIssuer).is_none(), by_issuer, "{address}");
        }
    }

    #[test]
    fn names_that_mean_this_machine_are_refused_before_a_proxy_is_asked() {
        for name in ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "[::1]"] {
            assert!(refused_name(name, Vouched::ByIssuer).is_some(), "{name}");
            assert!(refused_name(name, Vouched::ByOperator).is_none(), "{name}");
        }
        assert!(refused_name("[fd00:ec2::254]", Vouched::ByOperator).is_some());
        assert!(refused_name("ocsp.example", Vouched::ByIssuer).is_none());
    }
}
