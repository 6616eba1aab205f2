//! From the `tls_` keys of a route to what workers verify and show at `tls://` upstreams.

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

/// Builds the settings of `tls://` upstreams, equal ones once, and those of the configuration before
/// again, by which workers find their sessions.
pub struct UpstreamTlsPool {
    known: Vec<Known>,
    used: Vec<Known>,
    system_roots: Option<Arc<RootCertStore>>,
}

/// Settings with what they were made from.
#[derive(Clone)]
pub struct Known {
    digest: [u8; 32],
    tls: Arc<UpstreamTls>,
}

impl UpstreamTlsPool {
    /// `known` is what the pool before was left with.
    pub fn new(known: Vec<Known>) -> Self {
        Self { known, used: Vec::new(), system_roots: None }
    }

    pub fn into_used(self) -> Vec<Known> {
        self.used
    }

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
        let name = config.server_name.as_ref().map_or(host, |name| name.as_str());
        let mut context = Context::new(&SHA256);
        let mut part = |bytes: &[u8]| {
            context.update(&bytes.len().to_be_bytes());
            context.update(bytes);
        };
        part(name.as_bytes());
        part(&[u8::from(config.skip_verify), u8::from(authority.is_some())]);
        part(authority.as_ref().map(|(_, pem)| pem.as_slice()).unwrap_or_default());
        if let Some((_, chain, key)) = &client {
            part(chain);
            part(key);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        let mut known = self.used.iter().chain(&self.known);
        if let Some(found) = known.find(|known| known.digest == digest) {
            let found = found.clone();
            return Ok(self.using(found));
        }

        let roots = match (config.skip_verify, &authority) {
            (true, _) => None,
            (false, Some((path, pem))) => Some(Arc::new(read_roots(pem).map_err(|what| {
                let key = format!("{}.tls_custom_ca_file", route.key);
                let remedy = "it must hold the issuing CA as -----BEGIN CERTIFICATE-----";
                Problem::new(&route.origin, key, format!("{} {what}", path.display()), remedy)
            })?)),
            (false, None) => Some(self.system_roots(route)?),
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
        let tls = Arc::new(UpstreamTls { server_name, roots, certified_key });
        Ok(self.using(Known { digest, tls }))
    }

    fn using(&mut self, known: Known) -> Arc<UpstreamTls> {
        let tls = known.tls.clone();
        if self.used.iter().all(|used| used.digest != known.digest) {
            self.used.push(known);
        }
        tls
    }

    fn system_roots(&mut self, route: &RouteConfig) -> Result<Arc<RootCertStore>, Problem> {
        if let Some(roots) = &self.system_roots {
            return Ok(roots.clone());
        }
        let mut roots = RootCertStore::empty();
        // Old roots that do not parse are in every system's store; the others count.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Problem::new(
                &route.origin,
                format!("{}.to", route.key),
                "cannot be verified: this system has no roots",
                "install the package ca-certificates, or name the upstream's CA as tls_custom_ca_file",
            ));
        }
        Ok(self.system_roots.insert(Arc::new(roots)).clone())
    }
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
