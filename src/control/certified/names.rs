//! The names of a certificate.

use std::net::IpAddr;

use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::name::{Pattern, ServerName};

use super::{Note, Refused, Source};

/// The leaf's names. The common name is none of them, as no client looks at it (RFC 9525 §2).
pub(super) fn read_names(
    leaf: &X509Certificate<'_>,
    source: &Source,
    notes: &mut Vec<Note>,
) -> Result<Vec<Pattern>, Refused> {
    let chain = source.chain();
    let remedy = "issue it with its names as subjectAltName, for example DNS:www.example.com";
    let names = match leaf.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) => {
            return Err(Refused::new(
                format!(
                    "the leaf in {chain} has no subjectAltName, and clients ignore its common name"
                ),
                remedy,
            ));
        }
        Err(error) => {
            return Err(Refused::new(
                format!("the leaf in {chain} has a damaged subjectAltName: {error}"),
                remedy,
            ));
        }
    };
    let mut patterns = Vec::with_capacity(names.len());
    for name in names {
        match pattern_of(name) {
            Some(Ok(pattern)) => patterns.push(pattern),
            Some(Err(text)) => notes.push(Note::new(
                format!("the leaf in {chain} names {text:?}, which no client can match"),
                "leave it out when the certificate is next issued",
            )),
            None => {}
        }
    }
    patterns.sort_unstable();
    patterns.dedup();
    patterns.shrink_to_fit();
    if patterns.is_empty() {
        return Err(Refused::new(
            format!("the leaf in {chain} names neither a DNS name nor an IP address"),
            remedy,
        ));
    }
    Ok(patterns)
}

/// `None` for a kind of name that is not for servers, `Err` for one that is written wrong.
fn pattern_of(name: &GeneralName<'_>) -> Option<Result<Pattern, String>> {
    match name {
        GeneralName::DNSName(text) => Some(match Pattern::parse(text) {
            // An address as a DNS name matches nothing, and a bare * neither (RFC 9525 §6.3).
            Ok(Pattern::Exact(name)) if name.as_ip().is_some() => Err((*text).to_owned()),
            Ok(Pattern::Any) | Err(_) => Err((*text).to_owned()),
            Ok(pattern) => Ok(pattern),
        }),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            Some(match address {
                Ok(address) => Ok(Pattern::Exact(ServerName::from_ip(address))),
                Err(_) => Err(format!("an IP address of {} bytes", bytes.len())),
            })
        }
        _ => None,
    }
}
