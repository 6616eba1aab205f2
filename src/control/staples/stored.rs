//! Staples in the store, under the names by which CertMagic keeps them too.

use std::io;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::store::{Expect, Store, layout};

use super::super::certified::Certified;

/// What is stored for this certificate, not judged yet. What cannot be read is fetched again.
pub fn read(store: &dyn Store, certified: &Certified) -> Option<Vec<u8>> {
    store.get(&name(certified)).ok().flatten()
}

/// Stores a staple.
///
/// # Errors
/// If the store does not take it.
pub fn put(store: &dyn Store, certified: &Certified, der: &[u8]) -> io::Result<()> {
    store.put(&name(certified), der, Expect::Anything).map(drop)
}

/// Removes what is stored, for a certificate that is revoked.
///
/// # Errors
/// If the store cannot.
pub fn remove(store: &dyn Store, certified: &Certified) -> io::Result<()> {
    store.remove(&name(certified))
}

fn name(certified: &Certified) -> String {
    let first = certified.key.cert.first().and_then(|leaf| first_name(leaf));
    layout::staple(first.as_deref(), certified.chain_hash)
}

/// CertMagic's order: the common name, then DNS names, then addresses.
fn first_name(leaf: &[u8]) -> Option<String> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let common = leaf.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if let Some(name) = common.filter(|name| !name.is_empty()) {
        return Some(name.to_owned());
    }
    let names = leaf.subject_alternative_name().ok()??.value;
    let dns = names.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.or_else(|| names.general_names.iter().find_map(address))
}

fn address(name: &GeneralName<'_>) -> Option<String> {
    let GeneralName::IPAddress(bytes) = name else { return None };
    let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
    address.ok().map(|address| address.to_string())
}
