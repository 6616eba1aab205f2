//! The names of what a handshake negotiated, as people and PROXY headers have them.

use rustls::ProtocolVersion;
use rustls::server::UnbufferedServerConnection;

/// `TLSv1.3` or `TLSv1.2`, as OpenSSL and PROXY headers write them.
pub fn version(tls: &UnbufferedServerConnection) -> &'static str {
    match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "unknown",
    }
}

/// The IANA name of the cipher suite.
pub fn cipher_suite(tls: &UnbufferedServerConnection) -> String {
    match tls.negotiated_cipher_suite() {
        // rustls writes TLS13_AES…; the IANA name is TLS_AES….
        Some(suite) => format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1),
        None => "unknown".to_owned(),
    }
}
