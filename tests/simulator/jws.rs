//! What a client has signed (RFC 8555 §6.2), read as strictly as a CA does.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// A signed request.
pub struct Signature {
    pub url: String,
    pub nonce: String,
    pub key_id: Option<String>,
    /// The public key's point and its thumbprint (RFC 7638).
    pub jwk: Option<(Vec<u8>, String)>,
    /// `null` for POST-as-GET.
    pub payload: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Signature {
    /// Whether the signature is that of this P-256 public key.
    pub fn is_by(&self, point: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(self.signed.as_bytes(), &self.signature)
            .is_ok()
    }
}

/// `None` if it is no JWS that ACME knows.
pub fn read(body: &[u8]) -> Option<Signature> {
    let jws: Value = serde_json::from_slice(body).ok()?;
    let (protected, payload) = (jws["protected"].as_str()?, jws["payload"].as_str()?);
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(protected).ok()?).ok()?;
    if header["alg"] != "ES256" {
        return None;
    }
    let jwk = match &header["jwk"] {
        Value::Null => None,
        jwk => Some(public_key(jwk)?),
    };
    let content = URL_SAFE_NO_PAD.decode(payload).ok()?;
    Some(Signature {
        url: header["url"].as_str()?.to_owned(),
        nonce: header["nonce"].as_str()?.to_owned(),
        key_id: header["kid"].as_str().map(str::to_owned),
        jwk,
        payload: match content.as_slice() {
            b"" => Value::Null,
            content => serde_json::from_slice(content).ok()?,
        },
        signed: format!("{protected}.{payload}"),
        signature: URL_SAFE_NO_PAD.decode(jws["signature"].as_str()?).ok()?,
    })
}

fn public_key(jwk: &Value) -> Option<(Vec<u8>, String)> {
    let (x, y) = (jwk["x"].as_str()?, jwk["y"].as_str()?);
    let mut point = vec![4];
    point.extend(URL_SAFE_NO_PAD.decode(x).ok()?);
    point.extend(URL_SAFE_NO_PAD.decode(y).ok()?);
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    Some((point, URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))))
}
