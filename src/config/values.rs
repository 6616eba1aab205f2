//! Pure: the text of one value to what it means, or what is wrong with it and what to write.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use rustls::{CipherSuite, NamedGroup};

use super::{ListenAddress, LogLevel};

/// Why a text is no value, and what to write.
pub(super) type Wrong = (String, String);

pub(super) const SUITES_1_3: [(&str, CipherSuite); 3] = [
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
];
pub(super) const SUITES_1_2: [(&str, CipherSuite); 6] = [
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];
/// IANA names first, then the names that people use.
pub(super) const GROUPS: [(&str, NamedGroup); 6] = [
    ("X25519MLKEM768", NamedGroup::X25519MLKEM768),
    ("X25519", NamedGroup::X25519),
    ("secp256r1", NamedGroup::secp256r1),
    ("secp384r1", NamedGroup::secp384r1),
    ("P-256", NamedGroup::secp256r1),
    ("P-384", NamedGroup::secp384r1),
];

pub(super) fn not_empty(text: &str) -> Result<&str, Wrong> {
    if text.is_empty() {
        return Err(("is empty".into(), "write a path, or drop the key".into()));
    }
    Ok(text)
}

pub(super) fn named<T: Copy>(
    text: &str,
    names: impl IntoIterator<Item = (&'static str, T)> + Clone,
    kind: &str,
) -> Result<T, Wrong> {
    let found = names.clone().into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, value)| value).ok_or_else(|| {
        let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
        (
            format!("{text:?} is no {kind} that is supported"),
            format!("choose of {}", names.join(", ")),
        )
    })
}

/// One of YAML's words, or a digit as people write in the environment.
pub(super) fn read_bool(text: &str) -> Result<bool, Wrong> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err((format!("{text:?} is neither true nor false"), "write true or false".into())),
    }
}

/// `10.0.0.0/8`, or one address.
pub(super) fn read_network(text: &str) -> Result<IpNet, Wrong> {
    let network = match IpAddr::from_str(text) {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => IpNet::from_str(text),
    };
    match network {
        // Host bits that are set are more likely a mistake in the length than a decoration.
        Ok(network) if network.trunc() != network => Err((
            format!("{text:?} is an address within a network"),
            format!("write {} for the network", network.trunc()),
        )),
        Ok(network) => Ok(network),
        Err(_) => {
            Err((format!("{text:?} is no network"), "write one like 10.0.0.0/8 or fd00::/8".into()))
        }
    }
}

pub(super) fn read_log_level(text: &str) -> Result<LogLevel, Wrong> {
    Ok(match text {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => {
            let remedy = "write error, warn, info, debug or trace";
            return Err((format!("{text:?} is no level"), remedy.into()));
        }
    })
}

/// `10s`, `5m`, `36h`, `7d`, `500ms`; more than nothing.
pub(super) fn read_duration(text: &str) -> Result<Duration, Wrong> {
    let wrong = |what: &str| {
        Err((
            format!("{text:?} {what}"),
            "write a number and ms, s, m, h or d, like 30s".to_owned(),
        ))
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let Ok(number) = number.parse::<u64>() else { return wrong("is no duration") };
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return wrong("has no unit"),
        _ => return wrong("has a unit that is not known"),
    };
    /// Longer is a mistake, and deadlines must stay within what clocks can add.
    const LONGEST_MILLIS: u64 = 366 * 86_400_000;
    match number.checked_mul(millis) {
        Some(0) => wrong("is no time at all"),
        Some(total) if total <= LONGEST_MILLIS => Ok(Duration::from_millis(total)),
        _ => wrong("is longer than a year"),
    }
}

/// `3` or `2-5`.
pub(super) fn read_core_range(text: &str) -> Result<std::ops::RangeInclusive<usize>, Wrong> {
    /// The most cores that Linux is built for (CONFIG_NR_CPUS).
    const MOST_CORES: usize = 8192;
    let wrong = || (format!("{text:?} is no core"), "write numbers like 0,2-5".to_owned());
    let number = |text: &str| {
        usize::from_str(text.trim()).ok().filter(|core| *core < MOST_CORES).ok_or_else(wrong)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last { Err(wrong()) } else { Ok(first..=last) }
}

pub(super) fn read_address(text: &str) -> Result<ListenAddress, Wrong> {
    let wrong = |what: &str, remedy: String| Err((format!("{text:?} {what}"), remedy));
    if let Ok(address) = SocketAddr::from_str(text) {
        return Ok(ListenAddress::Ip(address));
    }
    if let Ok(ip) = IpAddr::from_str(text) {
        return wrong("has no port", format!("write {}", SocketAddr::new(ip, 443)));
    }
    if text == "localhost" || (text.starts_with('[') && text.ends_with(']')) {
        return wrong("has no port", format!("write {text}:443"));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return wrong("has no port", "write HOST:PORT or :PORT, like :443".into());
    };
    let Some(port) = read_port(port) else {
        return wrong("has no valid port", "write a number up to 65535 after the colon".into());
    };
    match host {
        "" | "*" => Ok(ListenAddress::Every { port }),
        "localhost" => Ok(ListenAddress::Localhost { port }),
        _ => wrong(
            "names no address",
            "write an IP address, localhost, or nothing before the colon".into(),
        ),
    }
}

/// A port in digits only: `+80` is a number for Rust, and a mistake here.
fn read_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    u16::from_str(text).ok().filter(|_| digits)
}

/// `host`, `host:port`, `[::1]` and `[::1]:port`; the brackets stay.
pub(super) fn split_port(authority: &str) -> Result<(&str, Option<u16>), Wrong> {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_brackets..].rfind(':') else { return Ok((authority, None)) };
    let (host, port) = authority.split_at(after_brackets + colon);
    if after_brackets == 0 && host.contains(':') {
        let what = format!("{authority:?} is an IPv6 address without brackets");
        return Err((what, format!("write [{authority}]")));
    }
    match read_port(&port[1..]) {
        Some(port) => Ok((host, Some(port))),
        None => {
            let what = format!("{:?} is no port", &port[1..]);
            Err((what, "write a number up to 65535".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn durations_read_back(number in 1u64..100_000, unit in 0usize..4) {
            let (unit, millis) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)][unit];
            let read = read_duration(&format!("{number}{unit}"));
            if number * millis <= 366 * 86_400_000 {
                prop_assert_eq!(read, Ok(Duration::from_millis(number * millis)));
            } else {
                prop_assert!(read.is_err());
            }
        }

        #[test]
        fn cores_read_back(first in 0usize..100, more in 0usize..9) {
            let last = first + more;
            prop_assert_eq!(read_core_range(&format!("{first}-{last}")), Ok(first..=last));
            prop_assert_eq!(read_core_range(&first.to_string()), Ok(first..=first));
        }
    }
}
