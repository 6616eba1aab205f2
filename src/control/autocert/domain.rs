//! For what an issuer's limit per registered domain counts a name. Pure.

use std::net::IpAddr;

use crate::name::ServerName;

/// The registered domain (one label below a public suffix, by the list that is compiled in), or the name itself
/// where there is none. Let's Encrypt counts addresses by IPv4 address and by IPv6 /64.
pub fn registered_domain(name: &ServerName) -> String {
    match name.as_ip() {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Some(IpAddr::V4(address)) => address.to_string(),
        None => psl::domain_str(name.as_str()).unwrap_or(name.as_str()).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_one_registration_count_together() {
        for (name, expected) in [
            ("example.com", "example.com"),
            ("a.b.example.com", "example.com"),
            ("shop.example.co.uk", "example.co.uk"),
            // A suffix that a company has put on the list.
            ("me.github.io", "me.github.io"),
            ("com", "com"),
            ("x.internal", "x.internal"),
            ("xn--bcher-kva.example.de", "example.de"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(registered_domain(&ServerName::parse(name).unwrap()), expected, "{name}");
        }
    }
}
