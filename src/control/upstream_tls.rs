//! From the `tls_` keys of a route to what workers verify and show at `tls://` upstreams.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;

use crate::config::problem::Problem;
use crate::config::{RouteConfig, UpstreamAddress, UpstreamTlsConfig};
use crate::snapshot::UpstreamTls;
use crate::store::file;

/// A bundle of every public root has a quarter of a megabyte.
const LONGEST_FILE: usize = 4 * 1024 * 1024;

/// Builds the settings of `tls://` upstreams, equal ones once.
#[derive(Default)]
pub struct UpstreamTlsPool {
    by_id: HashMap<u64, Arc<UpstreamTls>>,
    system: Option<SystemRoots>,
}

/// The roots of this system, as they are now.
#[derive(Clone)]
struct SystemRoots {
    digest: Vec<u8>,
    roots: Arc<RootCertStore>,
}

impl UpstreamTlsPool {
    /// The settings for each address of the route's upstream.
    ///
    /// # Errors
    /// What keeps them from being used, with the key.
    pub fn of_route(
        &mut self,
        route: &RouteConfig,
    ) -> Result<Vec<Option<Arc<UpstreamTls>>>, Problem> {
        let addresses = route.upstream.to.iter();
        addresses
            .map(|address| match address {
                UpstreamAddress::Tls { host, .. } => {
                    self.get(route, &route.upstream.tls, host).map(Some)
                }
                UpstreamAddress::Tcp { .. } | UpstreamAddress::Unix(_) => Ok(None),
            })
            .collect()
    }

    fn get(
        &mut self,
        route: &RouteConfig,
        config: &UpstreamTlsConfig,
        host: &str,
    ) -> Result<Arc<UpstreamTls>, Problem> {
        let read = |path: &Path, key: &str| {
            file::read(path, LONGEST_FILE).map_err(|error| {
                let remedy = "name a PEM file that ringgate's user may read";
                Problem::new(
                    &route.origin,
                    format!("{}.{key}", route.key),
                    error.to_string(),
                    remedy,
                )
            })
        };
        let authority = match &config.custom_ca_file {
            Some(path) => Some((path, read(path, "tls_custom_ca_file")?)),
            None => None,
        };
        let client = match &config.client_certificate {
            Some((chain, key)) => {
                let chain_pem = read(chain, "tls_client_cert_file")?;
                Some((chain, chain_pem, read(key, "tls_client_key_file")?))
            }
            None => None,
        };
        let system = match (config.skip_verify, &authority) {
            (false, None) => Some(self.system_roots(route)?),
            _ => None,
        };
        let name = config.server_name.as_ref().map_or(host, |name| name.as_str());
        let verified_by = match (&authority, &system) {
            (Some((_, pem)), _) => pem.as_slice(),
            (None, Some(system)) => &system.digest,
            (None, None) => &[],
        };
        let (chain, key) = match &client {
            Some((_, chain, key)) => (chain.as_slice(), key.as_slice()),
            None => (&[][..], &[][..]),
        };
        let skip = [u8::from(config.skip_verify)];
        let credentials = digest_of(&[&skip, verified_by, chain, key]);
        let id = digest_of(&[&credentials.to_be_bytes(), name.as_bytes()]);
        if let Some(found) = self.by_id.get(&id) {
            return Ok(found.clone());
        }

        let roots = match (config.skip_verify, &authority, system) {
            (true, ..) | (false, None, None) => None,
            (false, Some((path, pem)), _) => Some(Arc::new(read_roots(pem).map_err(|what| {
                let key = format!("{}.tls_custom_ca_file", route.key);
                let remedy = "it must hold the issuing CA as -----BEGIN CERTIFICATE-----";
                Problem::new(&route.origin, key, format!("{} {what}", path.display()), remedy)
            })?)),
            (false, None, Some(system)) => Some(system.roots),
        };
        let certified_key = match client {
            Some((path, chain, key)) => {
                Some(read_client_certificate(&chain, &key).map_err(|(what, remedy)| {
                    let key = format!("{}.tls_client_cert_file", route.key);
                    Problem::new(&route.origin, key, format!("{} {what}", path.display()), remedy)
                })?)
            }
            None => None,
        };
        let server_name = ServerName::try_from(name.to_owned()).map_err(|_| {
            let what = format!("{name:?} is no name that a certificate can have");
            let remedy = "write the name in the upstream's certificate as tls_server_name";
            Problem::new(&route.origin, format!("{}.to", route.key), what, remedy)
        })?;
        let tls = UpstreamTls { id, credentials, server_name, roots, certified_key };
        Ok(self.by_id.entry(id).or_insert(Arc::new(tls)).clone())
    }

    fn system_roots(&mut self, route: &RouteConfig) -> Result<SystemRoots, Problem> {
        if let Some(system) = &self.system {
            return Ok(system.clone());
        }
        let certificates = rustls_native_certs::load_native_certs().certs;
        let mut context = Context::new(&SHA256);
        certificates.iter().for_each(|certificate| context.update(certificate));
        let mut roots = RootCertStore::empty();
        // Old roots that do not parse are in every system's store; the others count.
        roots.add_parsable_certificates(certificates);
        if roots.is_empty() {
            return Err(Problem::new(
                &route.origin,
                format!("{}.to", route.key),
                "cannot be verified: this system has no roots",
                "install the package ca-certificates, or name the upstream's CA as tls_custom_ca_file",
            ));
        }
        let digest = context.finish().as_ref().to_vec();
        Ok(self.system.insert(SystemRoots { digest, roots: Arc::new(roots) }).clone())
    }
}

/// The first eight bytes of a SHA-256: enough to tell an operator's settings apart.
fn digest_of(parts: &[&[u8]]) -> u64 {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

fn read_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("is no valid PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("holds a damaged certificate: {error}"))?;
    }
    if roots.is_empty() { Err("holds no certificate".into()) } else { Ok(roots) }
}

/// A client certificate needs no names, so it is not checked as one that is served.
fn read_client_certificate(
    chain_pem: &[u8],
    key_pem: &[u8],
) -> Result<Arc<CertifiedKey>, (String, String)> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_pem).collect();
    let chain = match chain {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => {
            return Err((
                "holds no certificate".into(),
                "it must hold the client's leaf as -----BEGIN CERTIFICATE-----".into(),
            ));
        }
        Err(error) => return Err((format!("is no valid PEM: {error}"), "copy it again".into())),
    };
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| {
        let what = format!("has a private key that is no valid PEM: {error}");
        (what, "use an unencrypted PKCS#8, SEC1 or PKCS#1 private key".to_owned())
    })?;
    CertifiedKey::from_der(chain, key, &default_provider()).map(Arc::new).map_err(|error| {
        let what = format!("and its private key cannot be used: {error}");
        (what, "use the private key that the certificate was asked for with".to_owned())
    })
}
