//! The chain of a certificate: read from PEM, in order, without its root, intermediates shared.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use rustls::pki_types::pem::{PemObject, SectionKind};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate, X509Name};

use super::{Note, Refused, Source, is_der};

pub(super) fn read_certificates(pem: &[u8], source: &Source) -> Result<Vec<Vec<u8>>, Refused> {
    let mut ders = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section {
            Ok((SectionKind::Certificate, der)) => ders.push(der),
            Ok(_) => {}
            Err(error) => {
                return Err(Refused::new(
                    format!("{} is no valid PEM: {error}", source.chain()),
                    "copy it again, from -----BEGIN to -----END",
                ));
            }
        }
    }
    Ok(ders)
}

pub(super) fn parse_certificates<'a>(
    ders: &'a [Vec<u8>],
    source: &Source,
) -> Result<Vec<X509Certificate<'a>>, Refused> {
    let parse = |(index, der): (usize, &'a Vec<u8>)| match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err((index, "bytes follow its end".to_owned())),
        Err(error) => Err((index, error.to_string())),
    };
    ders.iter().enumerate().map(parse).collect::<Result<_, _>>().map_err(|(index, why)| {
        Refused::new(
            format!("certificate {} in {} is damaged: {why}", index + 1, source.chain()),
            "copy it again from where it was issued",
        )
    })
}

pub(super) fn no_certificate(pem: &[u8], source: &Source) -> Refused {
    let chain = source.chain();
    let remedy = if is_der(pem) {
        format!(
            "it looks like DER; convert it: openssl x509 -inform DER -in {chain} -out {chain}.pem"
        )
    } else {
        "it must hold the leaf as -----BEGIN CERTIFICATE-----, then its intermediates".into()
    };
    Refused::new(format!("{chain} holds no certificate"), remedy)
}
/// Checks that each certificate issued the one before it. Returns the DER of those to send after the
/// leaf: all but a root, which a client has or does not trust (RFC 8446 §4.4.2).
pub(super) fn check_order<'a>(
    certificates: &[X509Certificate<'a>],
    source: &Source,
    notes: &mut Vec<Note>,
) -> Result<Vec<&'a [u8]>, Refused> {
    let mut send = Vec::new();
    for (index, pair) in certificates.windows(2).enumerate() {
        let [below, above] = pair else { continue };
        let position = index + 2;
        if !issued(above, below) || is_self_signed(below) {
            return Err(Refused::new(
                format!(
                    "certificate {position} in {} ({}) did not issue the one before it ({})",
                    source.chain(),
                    above.subject(),
                    below.subject()
                ),
                "remove it, or put the chain in order: the leaf, its issuer, the issuer of that",
            ));
        }
        if is_self_signed(above) {
            notes.push(Note::new(
                format!(
                    "certificate {position} in {} ({}) is a root and is not sent",
                    source.chain(),
                    above.subject()
                ),
                "remove it, as clients use their own copy",
            ));
        } else {
            send.push(above.as_raw());
        }
    }
    Ok(send)
}

/// Whether names and, where both have them, key identifiers say that `issuer` issued `certificate`
/// (RFC 5280 §4.2.1.1). The signature is for clients to check.
fn issued(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    let identifiers = authority_identifier(certificate).zip(subject_identifier(issuer));
    same_name(certificate.issuer(), issuer.subject()) && identifiers.is_none_or(|(of, by)| of == by)
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    issued(certificate, certificate)
}

/// Names are equal also if their strings are of different types (RFC 5280 §7.1).
fn same_name(one: &X509Name<'_>, other: &X509Name<'_>) -> bool {
    one.as_raw() == other.as_raw() || one.to_string() == other.to_string()
}

fn authority_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => {
            identifier.key_identifier.as_ref().map(|identifier| identifier.0)
        }
        _ => None,
    })
}

fn subject_identifier<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
        _ => None,
    })
}

/// The one copy of an intermediate that all chains share.
///
/// It is never freed. That is bounded: only files of the operator get here, after all checks, and they
/// name the few intermediates of their issuers however many leaves there are.
pub(super) fn intern(der: &[u8]) -> &'static [u8] {
    static INTERMEDIATES: LazyLock<Mutex<HashSet<&'static [u8]>>> = LazyLock::new(Mutex::default);
    let mut known = INTERMEDIATES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = known.get(der) {
        return shared;
    }
    let shared: &'static [u8] = Box::leak(Box::from(der));
    known.insert(shared);
    shared
}
