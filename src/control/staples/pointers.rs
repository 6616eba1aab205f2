//! What a leaf says of its own revocation: whom to ask, and whether it needs a staple. Pure.

use der::Decode;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::DistributionPointName;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// RFC 5280 §4.2.2.1, RFC 6960 §3.1.
const OCSP: Oid<'static> = oid!(1.3.6.1.5.5.7.48.1);
/// RFC 7633 §4.
const TLS_FEATURE: Oid<'static> = oid!(1.3.6.1.5.5.7.1.24);
/// The TLS extension that a must-staple leaf names: status_request (RFC 6066 §8).
const STATUS_REQUEST: u32 = 5;

/// Where the revocation of one leaf can be asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    /// URLs, in the leaf's order.
    pub responders: Vec<String>,
    /// Distribution points, each with the URLs of one list of all revocations of its issuer's leaves like this
    /// one.
    pub crls: Vec<Vec<String>>,
    pub must_staple: bool,
}

/// The same in three bits: what is kept of each of a million leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub responder: bool,
    pub crl: bool,
    pub must_staple: bool,
}

impl Pointers {
    pub fn of(leaf: &X509Certificate<'_>) -> Self {
        let mut pointers = Self::default();
        for extension in leaf.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityInfoAccess(access) => {
                    let ocsp = access.iter().filter(|access| access.access_method == OCSP);
                    pointers.responders.extend(ocsp.filter_map(|one| url(&one.access_location)));
                }
                ParsedExtension::CRLDistributionPoints(points) => {
                    // One that lists some reasons only, or that another issuer signs, does not tell all.
                    let whole = points
                        .iter()
                        .filter(|point| point.reasons.is_none() && point.crl_issuer.is_none());
                    for point in whole {
                        if let Some(DistributionPointName::FullName(names)) =
                            &point.distribution_point
                        {
                            let urls: Vec<_> = names.iter().filter_map(url).collect();
                            pointers.crls.extend((!urls.is_empty()).then_some(urls));
                        }
                    }
                }
                _ if extension.oid == TLS_FEATURE => {
                    let features =
                        <Vec<u32> as Decode>::from_der(extension.value).unwrap_or_default();
                    pointers.must_staple |= features.contains(&STATUS_REQUEST);
                }
                _ => {}
            }
        }
        pointers
    }

    /// The same of a leaf in DER; nothing of one that is damaged.
    pub fn of_der(leaf: &[u8]) -> Self {
        X509Certificate::from_der(leaf).map(|(_, leaf)| Self::of(&leaf)).unwrap_or_default()
    }

    pub fn named(&self) -> Named {
        Named {
            responder: !self.responders.is_empty(),
            crl: !self.crls.is_empty(),
            must_staple: self.must_staple,
        }
    }
}

/// The longest URL of a public CA's is under 100 characters.
const LONGEST_URL: usize = 1024;

/// Only http and https are asked; some leaves name ldap too. What is no URL at all is not asked either, nor
/// shown in the log as an issuer wrote it.
fn url(name: &GeneralName<'_>) -> Option<String> {
    let GeneralName::URI(uri) = name else { return None };
    let (scheme, _) = uri.split_once("://")?;
    let known = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let is_url = uri.len() <= LONGEST_URL && uri.bytes().all(|byte| byte.is_ascii_graphic());
    (known && is_url).then(|| (*uri).to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::samples::Authority;
    use super::*;

    #[test]
    fn what_is_no_url_or_too_long_for_one_names_nobody() {
        let fine = "HTTP://ocsp.example/a?b".to_owned();
        let long = format!("http://ocsp.example/{}", "x".repeat(LONGEST_URL));
        let names = [
            "ldap://ocsp.example/",
            "http://ocsp.example/\nERROR all is lost",
            "http://ocsp.example/a b",
            &long,
            &fine,
        ];
        let (chain, _) = Authority::new("urls").pair_naming("a.example", &names.map(str::to_owned));
        let (_, pem) = x509_parser::pem::parse_x509_pem(chain.as_bytes()).unwrap();
        assert_eq!(Pointers::of_der(&pem.contents).responders, [fine]);
    }
}
