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

/// Where clouds tell a machine its secrets: AWS (and most others), Google's IPv6 twin, Oracle's, Alibaba's and
/// Azure's. Nobody's responder is there, whoever vouches.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// The ranges of which AWS uses several: fd00:ec2::/32 and 169.254.170.0/24, where containers get credentials.
fn is_metadata(address: IpAddr) -> bool {
    let is_aws = match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [169, 254, 170, _]),
        IpAddr::V6(v6) => matches!(v6.segments(), [0xfd00, 0xec2, ..]),
    };
    is_aws || METADATA.contains(&address)
}

/// Why this address is not connected to, if it is not.
pub fn refused(address: IpAddr, vouched: Vouched) -> Option<&'static str> {
    stands_for(address).into_iter().flatten().find_map(|address| refused_itself(address, vouched))
}

fn refused_itself(address: IpAddr, vouched: Vouched) -> Option<&'static str> {
    if is_metadata(address) {
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

/// The address, and the IPv4 ones that it may lead to: those inside IPv6 ones (RFC 4291 §2.5.5, RFC 6052 §2,
/// RFC 8215, RFC 3056 §2).
fn stands_for(address: IpAddr) -> [Option<IpAddr>; 3] {
    let IpAddr::V6(v6) = address else { return [Some(address), None, None] };
    let o = v6.octets();
    let v4 = |a, b, c, d| Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
    let [.., w, x, y, z] = o;
    match (v6.segments(), o) {
        ([0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..], _) => {
            [v4(w, x, y, z), None, None]
        }
        ([0, 0, 0, 0, 0, 0, high, _], _) if high != 0 => [v4(w, x, y, z), None, None],
        // Local translators: with a prefix of 48 bits the address lies around the ninth octet, with one of 96
        // at the end.
        ([0x64, 0xff9b, 1, ..], [_, _, _, _, _, _, a, b, _, c, d, ..]) => {
            [Some(address), v4(a, b, c, d), v4(w, x, y, z)]
        }
        ([0x2002, ..], [_, _, a, b, c, d, ..]) => [Some(address), v4(a, b, c, d), None],
        _ => [Some(address), None, None],
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
            ("64:ff9b:1:7f00:0:100::", issuer),
            ("64:ff9b:1::7f00:1", issuer),
            ("64:ff9b:1:c000:2:100:c000:201", both),
            ("2002:7f00:1::1", issuer),
            ("2002:c000:201::1", both),
            ("169.254.169.254", nobody),
            ("169.254.170.2", nobody),
            ("169.254.170.23", nobody),
            ("fd00:ec2::23", nobody),
            ("2002:a9fe:a9fe::", nobody),
            ("64:ff9b:1:a9fe:a9:fe00::", nobody),
            ("64:ff9b:1::a9fe:a9fe", nobody),
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
