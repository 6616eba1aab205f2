//! Registers an account (RFC 8555 §7.3) with a private key of ours, contact and external account binding.
//!
//! instant-acme makes the private key itself when it sends either of those, so that it could not be stored
//! before it is sent; and an account whose key is lost is an account too many.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Response};
use instant_acme::{Error, Problem};
use serde_json::{Value, json};

use crate::config::autocert::ExternalAccount;

use super::directory::Directory;
use super::http_client::{AcmeHttp, REPLAY_NONCE, last_answer};

/// Nonces that a CA may refuse in a row: they age out, and a CA of several nodes may not know its own. As
/// many as an order's requests have.
const NONCE_TRIES: usize = 18;

/// What an account says when it is made or found.
pub struct Registered {
    pub location: String,
    /// The account object (RFC 8555 §7.1.2).
    pub account: Value,
}

/// Registers the private key, or finds the account that it already has: the answer is the same.
pub async fn register(
    http: &AcmeHttp,
    directory: &Directory,
    key_pkcs8: &[u8],
    contact: Option<&str>,
    external: Option<&ExternalAccount>,
) -> Result<Registered, Error> {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key_pkcs8)
        .map_err(|_| Error::KeyRejected)?;
    let jwk = jwk(&key)?;
    let url = &directory.new_account;
    let mut payload = json!({ "termsOfServiceAgreed": true });
    if let Some(contact) = contact {
        payload["contact"] = json!([format!("mailto:{contact}")]);
    }
    if let Some(external) = external {
        payload["externalAccountBinding"] = binding(external, url, &jwk);
    }
    let mut nonce = None;
    for _ in 0..NONCE_TRIES {
        let fresh = match nonce.take() {
            Some(nonce) => nonce,
            None => new_nonce(http, directory).await?,
        };
        let protected = json!({ "alg": "ES256", "jwk": jwk, "nonce": fresh, "url": url });
        let body = signed(&key, &protected, &payload)?;
        let answer = http.ask(Method::POST, url, body.into()).await?;
        if answer.status().is_success() {
            let location =
                last_answer().location.ok_or(Error::Str("the CA named no account URL"))?;
            let account = serde_json::from_slice(answer.body()).unwrap_or(Value::Null);
            return Ok(Registered { location, account });
        }
        let problem: Problem = serde_json::from_slice(answer.body())?;
        let refused = problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce");
        if !refused {
            return Err(Error::Api(problem));
        }
        nonce = nonce_of(&answer);
    }
    Err(Error::Str("the CA refuses every nonce"))
}

async fn new_nonce(http: &AcmeHttp, directory: &Directory) -> Result<String, Error> {
    let answer = http.ask(Method::HEAD, &directory.new_nonce, Bytes::new()).await?;
    nonce_of(&answer).ok_or(Error::Str("the CA gave no nonce"))
}

fn nonce_of(answer: &Response<Bytes>) -> Option<String> {
    answer.headers().get(REPLAY_NONCE)?.to_str().ok().map(str::to_owned)
}

/// The public key as a JWK (RFC 7518 §6.2.1).
fn jwk(key: &EcdsaKeyPair) -> Result<Value, Error> {
    // Uncompressed: 4, then both coordinates.
    let point = key.public_key().as_ref();
    let (x, y) =
        point.get(1..).and_then(|point| point.split_at_checked(32)).ok_or(Error::Crypto)?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    Ok(json!({ "crv": "P-256", "kty": "EC", "x": x, "y": y }))
}

/// The external account's JWS over our public key (RFC 8555 §7.3.4).
fn binding(external: &ExternalAccount, url: &str, jwk: &Value) -> Value {
    let protected = encoded(&json!({ "alg": "HS256", "kid": external.key_id, "url": url }));
    let payload = encoded(jwk);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &external.mac_key);
    let tag = hmac::sign(&key, format!("{protected}.{payload}").as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(tag.as_ref());
    json!({ "protected": protected, "payload": payload, "signature": signature })
}

fn signed(key: &EcdsaKeyPair, protected: &Value, payload: &Value) -> Result<Vec<u8>, Error> {
    let (protected, payload) = (encoded(protected), encoded(payload));
    let signature = key
        .sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes())
        .map_err(|_| Error::Crypto)?;
    let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
    let jws = json!({ "protected": protected, "payload": payload, "signature": signature });
    Ok(jws.to_string().into_bytes())
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
