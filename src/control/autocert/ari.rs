//! Asks an issuer for its renewal information (RFC 9773).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::clock::{Moment, from_rfc3339};
use crate::store::record::Renewal;

use super::directory::Directory;
use super::http_client::{AcmeHttp, last_answer};
use super::renewal::select;

/// RFC 9773 §4.3.2: what Retry-After may be, and what it is when the answer has none or is wrong.
const SOONEST: Duration = Duration::from_secs(60);
const LATEST: Duration = Duration::from_secs(24 * 3600);
const USUAL: Duration = Duration::from_secs(6 * 3600);
/// After a timeout or a 5xx: the window seldom changes, and the one we have stays in force.
pub const AFTER_FAILURE: Duration = Duration::from_secs(15 * 60);

/// What the issuer said, and when to ask again.
pub struct Asked {
    /// `None`: nothing that can be used.
    pub renewal: Option<Renewal>,
    pub ask_again: Moment,
    pub failure: Option<String>,
}

/// A certificate's identifier (RFC 9773 §4.1): authority key identifier and serial number, its leading
/// zero kept.
pub fn identifier(leaf_der: &[u8]) -> Option<String> {
    let (_, leaf) = X509Certificate::from_der(leaf_der).ok()?;
    let authority =
        leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(identifier) => {
                Some(identifier.key_identifier.as_ref()?.0)
            }
            _ => None,
        })?;
    let serial = leaf.tbs_certificate.raw_serial();
    Some(format!("{}.{}", URL_SAFE_NO_PAD.encode(authority), URL_SAFE_NO_PAD.encode(serial)))
}

/// Asks. `None` if the issuer has no renewal information.
pub async fn ask(
    http: &AcmeHttp,
    directory: &Directory,
    id: &str,
    seed: u64,
    before: Option<&Renewal>,
    now: Moment,
) -> Option<Asked> {
    let url = format!("{}/{id}", directory.renewal_info.as_deref()?.trim_end_matches('/'));
    let answered = http.ask(Method::GET, &url, Bytes::new()).await;
    let (status, body) = match &answered {
        Ok(answer) => (answer.status().as_u16(), answer.body().as_ref()),
        Err(_) => (last_answer().status, &b""[..]),
    };
    let why = answered.as_ref().err().map(ToString::to_string);
    Some(read(id, status, body, why, last_answer().retry_after, seed, before, now))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenewalInfo {
    suggested_window: Window,
    #[serde(rename = "explanationURL", default)]
    explanation: Option<String>,
}

#[derive(Deserialize)]
struct Window {
    start: String,
    end: String,
}

/// Reads an answer. Pure. A window that stays the same keeps its chosen time.
#[expect(clippy::too_many_arguments, reason = "an answer and what it is read against")]
fn read(
    id: &str,
    status: u16,
    body: &[u8],
    why: Option<String>,
    retry_after: Option<Moment>,
    seed: u64,
    before: Option<&Renewal>,
    now: Moment,
) -> Asked {
    let failed = |pause: Duration, words: String| Asked {
        renewal: before.cloned(),
        ask_again: now.plus(pause),
        failure: Some(words),
    };
    if status == 0 || status >= 500 || status == 429 {
        let asked =
            retry_after.map_or(AFTER_FAILURE, |at| at.since(now)).clamp(AFTER_FAILURE, LATEST);
        return failed(asked, why.unwrap_or_else(|| format!("status {status}")));
    }
    let parsed = serde_json::from_slice::<RenewalInfo>(body).ok().filter(|_| status == 200);
    let Some(info) = parsed else {
        return failed(
            USUAL,
            why.unwrap_or_else(|| format!("status {status}, no renewal information")),
        );
    };
    let window =
        from_rfc3339(&info.suggested_window.start).zip(from_rfc3339(&info.suggested_window.end));
    let Some((start, end, selected)) =
        window.and_then(|(start, end)| Some((start, end, select(start, end, seed)?)))
    else {
        return failed(USUAL, "the window ends before it starts".into());
    };
    let kept =
        before.filter(|before| before.id == id && (before.start, before.end) == (start, end));
    let renewal = Renewal {
        id: id.to_owned(),
        start,
        end,
        selected: kept.map_or(selected, |kept| kept.selected),
        explanation: info.explanation,
    };
    let pause = retry_after.map_or(USUAL, |at| at.since(now).clamp(SOONEST, LATEST));
    Asked { renewal: Some(renewal), ask_again: now.plus(pause), failure: None }
}

#[cfg(test)]
mod tests {
    use super::super::super::certified::samples::Issuer;
    use super::*;
    use proptest::prelude::*;

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);

    fn body(start: &str, end: &str) -> String {
        format!(
            "{{\"suggestedWindow\":{{\"start\":\"{start}\",\"end\":\"{end}\"}},\"explanationURL\":\"https://why\"}}"
        )
    }

    fn answered(status: u16, body: &str, after: Option<u64>) -> Asked {
        let after = after.map(|seconds| NOW.plus(Duration::from_secs(seconds)));
        read("a.b", status, body.as_bytes(), None, after, 1, None, NOW)
    }

    #[test]
    fn windows_are_read_and_asked_for_again_when_the_issuer_says() {
        let good = body("2027-01-20T00:00:00Z", "2027-01-22T00:00:00.5+01:00");
        let asked = answered(200, &good, Some(3600));
        let renewal = asked.renewal.unwrap();
        assert!(renewal.start <= renewal.selected && renewal.selected < renewal.end);
        assert_eq!(renewal.explanation.as_deref(), Some("https://why"));
        assert_eq!(asked.ask_again.since(NOW), Duration::from_secs(3600));
        for (status, text, after, pause) in [
            (200, good.as_str(), None, USUAL),
            (200, good.as_str(), Some(1), SOONEST),
            (200, good.as_str(), Some(1_000_000), LATEST),
            (404, "{}", None, USUAL),
            (200, "<html>", None, USUAL),
            (503, "", Some(7200), Duration::from_secs(7200)),
            (0, "", None, AFTER_FAILURE),
        ] {
            assert_eq!(
                answered(status, text, after).ask_again.since(NOW),
                pause,
                "{status} {text}"
            );
        }
        let backwards = body("2027-01-22T00:00:00Z", "2027-01-20T00:00:00Z");
        assert!(answered(200, &backwards, None).renewal.is_none());
    }

    #[test]
    fn an_unchanged_window_keeps_its_time_and_a_failure_keeps_the_window() {
        let text = body("2027-01-20T00:00:00Z", "2027-01-22T00:00:00Z");
        let mut first = answered(200, &text, None).renewal.unwrap();
        first.selected = first.start;
        let again = read("a.b", 200, text.as_bytes(), None, None, 2, Some(&first), NOW);
        assert_eq!(again.renewal.unwrap(), first);
        let failed = read("a.b", 500, b"", None, None, 2, Some(&first), NOW);
        assert_eq!(failed.renewal, Some(first));
    }

    #[test]
    fn a_certificate_is_told_by_issuer_and_serial_number() {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;
        let (chain, _) = Issuer::new("ari").pair(&["a.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        let id = identifier(&leaf).unwrap();
        let (authority, serial) = id.split_once('.').unwrap();
        assert!(!authority.is_empty() && !serial.is_empty() && !id.contains('='));
        assert_eq!(identifier(b"nothing"), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic_or_ask_at_once(status in 0u16..600, text in "\\PC{0,80}", after in any::<u32>()) {
            let asked = answered(status, &text, Some(after.into()));
            prop_assert!(asked.ask_again.since(NOW) >= SOONEST && asked.ask_again.since(NOW) <= LATEST);
        }
    }
}
