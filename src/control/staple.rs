//! A staple from a file: whether it looks like one, and its place beside the chain.
//!
//! Whether it is for this leaf, signed and current is not judged here.

use std::sync::Arc;

use super::certified::Certified;
use super::staples::response::shape;

/// Checks that these bytes are an OCSPResponse (RFC 6960 §4.2.1) that says something of a certificate.
///
/// # Errors
/// What they are instead.
pub fn check(der: &[u8]) -> Result<(), String> {
    if der.starts_with(b"-----BEGIN") {
        return Err("is PEM, not DER".into());
    }
    shape(der).map_err(|what| what.strip_prefix("it ").unwrap_or(&what).to_owned())
}

/// Puts a checked staple, or none, beside the chain.
pub fn attach(certified: &mut Certified, der: Option<Vec<u8>>) {
    if certified.key.ocsp != der {
        let mut key = (*certified.key).clone();
        key.ocsp = der;
        certified.key = Arc::new(key);
    }
}

#[cfg(test)]
pub(super) mod samples {
    /// The outside of a response: what [`super::check`] looks at, with nothing in its parts.
    pub fn staple(status: u8) -> Vec<u8> {
        let mut basic = vec![0x06, 9, 0x2b, 6, 1, 5, 5, 7, 48, 1, 1];
        // In it three things that are to be a response, an algorithm and a signature.
        basic.extend([0x04, 9, 0x30, 7, 0x30, 0, 0x30, 0, 0x03, 1, 0]);
        let mut der = vec![0x30, 29, 0x0a, 1, status, 0xa0, 24, 0x30, 22];
        der.extend(basic);
        der
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::certified::samples::Scratch;
    use super::super::staples::response::LONGEST_RESPONSE;
    use super::samples::staple;
    use super::*;

    #[test]
    fn only_a_successful_response_is_a_staple() {
        assert_eq!(check(&staple(0)), Ok(()));
        assert_eq!(check(&staple(3)), Err("says tryLater".into()));
        for damaged in [&b""[..], b"HTTP/1.1 404 Not Found", &staple(0)[..10]] {
            assert_eq!(check(damaged), Err("is no OCSP response".into()), "{damaged:?}");
        }
        assert_eq!(check(b"-----BEGIN OCSP"), Err("is PEM, not DER".into()));
        let mut longer = staple(0);
        longer.push(0);
        assert!(check(&longer).is_err());
    }

    #[test]
    fn what_openssl_answers_is_a_staple() {
        let scratch = Scratch::new("staple");
        let path = |name: &str| scratch.0.join(name).display().to_string();
        let openssl = |line: &str| {
            let output = std::process::Command::new("openssl").args(line.split(' ')).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let (ca, key, index, out) = (path("ca.pem"), path("ca.key"), path("index"), path("staple"));
        scratch.write("index", "");
        openssl(&format!("req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout {key} -out {ca}"));
        openssl(&format!(
            "ocsp -index {index} -CA {ca} -rsigner {ca} -rkey {key} -issuer {ca} -serial 1 -ndays 1 -respout {out}"
        ));
        let der = crate::store::file::read(&scratch.0.join("staple"), LONGEST_RESPONSE).unwrap();
        assert_eq!(check(&der), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..31, byte: u8, cut in 0usize..32) {
            let mut der = staple(0);
            if let Some(place) = der.get_mut(at) {
                *place = byte;
            }
            der.truncate(cut);
            let _ = check(&der);
        }
    }
}
