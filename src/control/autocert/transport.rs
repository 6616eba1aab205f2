//! One HTTP exchange with a CA or a responder: a deadline over all of it, a bounded body, and errors that say
//! which step failed.
//!
//! Each exchange has a connection of its own. An idle one that the server closes just then would turn a
//! request that was never sent into an answer that may have been lost.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::config::autocert::Proxy;

use super::super::addresses::{self, Vouched};
use super::connect::{connect, refuse_by_addresses, tunnel};

/// From resolving the name to the last byte. Let's Encrypt answers within a second; a loaded private CA
/// that signs with an HSM within ten.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer is a chain; ten RSA certificates are under 32 KiB.
const LONGEST_BODY: usize = 256 * 1024;

/// Why an exchange failed, told where it happened.
#[derive(Debug)]
pub struct Trouble {
    pub what: String,
    pub remedy: Option<String>,
    /// The server's name has no address, or nobody could say which.
    pub is_unresolved: bool,
    /// It was reached, and its answer was lost.
    pub is_lost: bool,
}

impl Trouble {
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: None, is_unresolved: false, is_lost: false }
    }

    pub fn lost(what: impl Into<String>) -> Self {
        Self { is_lost: true, ..Self::new(what) }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Trouble {}

/// How to reach CAs and responders: which roots to trust, and through which proxies.
#[derive(Clone)]
pub struct Transport {
    tls: Arc<ClientConfig>,
    proxy: Option<Proxy>,
    /// For plain http.
    http_proxy: Option<Proxy>,
    #[cfg(feature = "simulation")]
    simulated: Option<Arc<dyn super::simulated::Exchange>>,
}

/// What an exchange may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub timeout: Duration,
    pub longest_body: usize,
    /// Who vouches for the URL that somebody's certificate names: plain http will do, and some addresses are
    /// refused. `None` for one that is configured.
    pub vouched: Option<Vouched>,
}

/// An exchange with a CA.
const WITH_A_CA: Bounds =
    Bounds { timeout: EXCHANGE_TIMEOUT, longest_body: LONGEST_BODY, vouched: None };

impl Transport {
    /// Trusts the system's roots and those of `extra_roots`, which is PEM. Also returns what was wrong with
    /// roots that cannot be used.
    ///
    /// # Errors
    /// If nothing at all can be trusted.
    pub fn new(extra_roots: &[u8], proxy: Option<Proxy>) -> Result<(Self, Vec<String>), String> {
        let mut roots = RootCertStore::empty();
        let mut notes = Vec::new();
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            let why = system.errors.first().map_or_else(String::new, |error| format!(": {error}"));
            notes.push(format!(
                "this system has no root certificates{why}; install the package ca-certificates"
            ));
        }
        for der in CertificateDer::pem_slice_iter(extra_roots) {
            let added = der
                .map_err(|error| error.to_string())
                .and_then(|der| roots.add(der.into_owned()).map_err(|error| error.to_string()));
            if let Err(why) = added {
                notes.push(format!("a root of autocert_trusted_ca cannot be used: {why}"));
            }
        }
        if roots.is_empty() {
            return Err(notes.join("; "));
        }
        Ok((Self::over(roots, proxy)?, notes))
    }

    /// Trusts these roots; none are needed where all that is asked for is signed and fetched by plain http.
    ///
    /// # Errors
    /// If the crypto library has no TLS.
    pub fn over(roots: RootCertStore, proxy: Option<Proxy>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: Arc::new(tls),
            proxy,
            http_proxy: None,
            #[cfg(feature = "simulation")]
            simulated: None,
        })
    }

    /// Every exchange is one with this CA.
    ///
    /// # Errors
    /// If TLS cannot be set up at all.
    #[cfg(feature = "simulation")]
    pub fn simulated(ca: Arc<dyn super::simulated::Exchange>) -> Result<Self, String> {
        Ok(Self { simulated: Some(ca), ..Self::over(RootCertStore::empty(), None)? })
    }

    /// The same with a proxy for plain http.
    pub fn with_http_proxy(mut self, proxy: Option<Proxy>) -> Self {
        self.http_proxy = proxy;
        self
    }

    /// Sends a request to an absolute https URL and receives all of the answer.
    pub async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Trouble> {
        self.exchange_within(&WITH_A_CA, request).await
    }

    /// The same within these bounds.
    pub async fn exchange_within(
        &self,
        bounds: &Bounds,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Trouble> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        match tokio::time::timeout(bounds.timeout, self.exchange_in_time(bounds, request)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let seconds = bounds.timeout.as_secs();
                Err(Trouble::new(format!("{host} did not answer within {seconds} s")))
            }
        }
    }

    async fn exchange_in_time(
        &self,
        bounds: &Bounds,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Trouble> {
        #[cfg(feature = "simulation")]
        if let Some(ca) = &self.simulated {
            return ca.exchange(request).await;
        }
        let (mut parts, body) = request.into_parts();
        let uri = parts.uri.clone();
        let is_plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") if bounds.vouched.is_some() => true,
            _ => return Err(Trouble::new(format!("{uri} is no https URL"))),
        };
        let authority = uri.authority().ok_or_else(|| Trouble::new(format!("{uri} is no URL")))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
        let place = authority.as_str();
        let host_value = HeaderValue::from_str(place)
            .map_err(|_| Trouble::new(format!("{place:?} is no name of a server")))?;
        parts.headers.insert(HOST, host_value);

        let proxy = if is_plain { &self.http_proxy } else { &self.proxy };
        let proxy = proxy.as_ref().filter(|proxy| proxy.serves(host));
        let tcp = match (proxy, is_plain) {
            (None, _) => connect(host, port, bounds.vouched).await?,
            (Some(proxy), _) => {
                let named = bounds.vouched.and_then(|by| addresses::refused_name(host, by));
                if let Some(why) = named {
                    return Err(Trouble::new(format!("{host} {why} and is not asked")));
                }
                let name = if is_plain { "HTTP_PROXY" } else { "HTTPS_PROXY" };
                let tcp = connect(&proxy.host, proxy.port, None)
                    .await
                    .map_err(|trouble| Trouble::new(format!("the proxy of {name}: {trouble}")))?;
                // A proxy on this machine reaches what this machine alone can reach.
                let is_here = tcp.peer_addr().is_ok_and(|proxy| proxy.ip().is_loopback());
                if let Some(by) = bounds.vouched.filter(|_| is_here) {
                    refuse_by_addresses(host, port, by).await?;
                }
                if is_plain { tcp } else { tunnel(tcp, proxy, host, port).await? }
            }
        };
        match proxy {
            // The absolute form: a proxy is told where to (RFC 9112 §3.2.2).
            Some(proxy) if is_plain => {
                let credentials = proxy.credentials.as_ref().and_then(|credentials| {
                    HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(credentials))).ok()
                });
                if let Some(credentials) = credentials {
                    parts.headers.insert(PROXY_AUTHORIZATION, credentials);
                }
            }
            // The origin form: HTTP/1.1 to the server itself.
            _ => {
                parts.uri =
                    uri.path_and_query().map_or("/", |path| path.as_str()).parse().map_err(
                        |error| Trouble::new(format!("{uri} cannot be asked for: {error}")),
                    )?;
            }
        }
        let request = Request::from_parts(parts, Full::new(body));
        if is_plain {
            return converse(tcp, place, request, bounds.longest_body).await;
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Trouble::new(format!("{host:?} is no name of a server")))?;
        let tls = TlsConnector::from(self.tls.clone())
            .connect(name, tcp)
            .await
            .map_err(|error| tls_trouble(place, &error))?;
        converse(tls, place, request, bounds.longest_body).await
    }
}

/// One request and its answer on a connection of their own.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    place: &str,
    request: Request<Full<Bytes>>,
    longest_body: usize,
) -> Result<Response<Bytes>, Trouble> {
    let failed =
        |error: hyper::Error| Trouble::lost(format!("{place} broke off: {}", innermost(&error)));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answered = async {
        let (parts, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let body = Limited::new(body, longest_body).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Trouble::new(format!("{place} answered with more than {longest_body} bytes"))
            } else {
                Trouble::lost(format!("{place} broke off in the middle of its answer: {error}"))
            }
        })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    tokio::pin!(answered);
    // The connection ends first when the server closes it; what it sent before is still to be read.
    tokio::select! {
        biased;
        outcome = &mut answered => outcome,
        _ = connection => answered.await,
    }
}

fn tls_trouble(place: &str, error: &io::Error) -> Trouble {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let remedy = matches!(tls, Some(rustls::Error::InvalidCertificate(_))).then(|| {
        "if this is the CA that you mean, name its root with autocert_trusted_ca_file; else check autocert_ca and the machine's clock".to_owned()
    });
    match remedy {
        Some(remedy) => Trouble {
            remedy: Some(remedy),
            ..Trouble::new(format!("{place} has a certificate that is not trusted: {error}"))
        },
        None => Trouble::new(format!("no TLS with {place}: {error}")),
    }
}

/// hyper's own words say little; the cause beneath them does.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
