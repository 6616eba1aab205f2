//! The three files in which CertMagic keeps a certificate: how they are written and read. Pure.

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;

use crate::clock::{Moment, from_rfc3339, rfc3339};
use crate::store::record::{Certificate, Record, Renewal};

/// The contents of the three files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub chain: Option<Vec<u8>>,
    pub private_key: Option<Vec<u8>>,
    pub metadata: Option<Vec<u8>>,
}

impl Contents {
    /// What the files should hold.
    pub fn of(record: &Record) -> Option<Self> {
        let certificate = record.certificate.as_ref()?;
        Some(Self {
            chain: Some(certificate.chain.clone().into_bytes()),
            private_key: Some(certificate.private_key.clone().into_bytes()),
            metadata: Some(metadata(&record.name, &record.issuer, certificate)),
        })
    }

    /// The certificate in the files; CertMagic takes it for one only if all three are there.
    pub fn certificate(&self) -> Option<Certificate> {
        let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone()?).ok();
        let (chain, private_key) = (text(&self.chain)?, text(&self.private_key)?);
        let data: Value = serde_json::from_slice(self.metadata.as_ref()?).ok()?;
        let issuer_data = data.get("issuer_data")?;
        let field = |name| issuer_data.get(name).and_then(Value::as_str).unwrap_or_default();
        Some(Certificate {
            chain,
            private_key,
            url: field("url").to_owned(),
            account: field("account").to_owned(),
            obtained: None,
            revoked: false,
            renewal: issuer_data.get("renewal_info").and_then(renewal),
            replaces_refused: false,
            ask_renewal_at: None,
        })
    }

    /// The digests of what is there.
    pub fn digests(&self) -> Vec<String> {
        let all = [&self.chain, &self.private_key, &self.metadata];
        all.into_iter().flatten().map(|content| digest_of(content)).collect()
    }
}

/// What tells one content from another.
pub fn digest_of(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a metadata file is about this certificate: CertMagic rewrites it when it asks for renewal
/// information, and need not be corrected.
pub fn is_about(metadata: &[u8], certificate: &Certificate) -> bool {
    let data: Option<Value> = serde_json::from_slice(metadata).ok();
    let url = data.as_ref().and_then(|data| data.get("issuer_data")?.get("url")?.as_str());
    url == Some(certificate.url.as_str())
}

/// The directory URL of the issuer that a metadata file names.
pub fn issuer_of(metadata: &[u8]) -> Option<String> {
    let data: Value = serde_json::from_slice(metadata).ok()?;
    data.get("issuer_data")?.get("ca")?.as_str().map(str::to_owned)
}

/// A window of zero times is CertMagic's word for "unknown".
fn renewal(value: &Value) -> Option<Renewal> {
    let window = value.get("suggestedWindow")?;
    let time = |value: Option<&Value>| from_rfc3339(value?.as_str()?);
    let (start, end) = (time(window.get("start"))?, time(window.get("end"))?);
    let selected = time(value.get("_selectedTime")).filter(|at| start <= *at && *at <= end)?;
    if start.unix_seconds() <= 0 || end <= start {
        return None;
    }
    Some(Renewal {
        id: value.get("_uniqueIdentifier").and_then(Value::as_str).unwrap_or_default().to_owned(),
        start,
        end,
        selected,
        explanation: value.get("explanationURL").and_then(Value::as_str).map(str::to_owned),
    })
}

#[derive(Serialize)]
struct Metadata<'a> {
    sans: [&'a str; 1],
    issuer_data: IssuerData<'a>,
}

#[derive(Serialize)]
struct IssuerData<'a> {
    url: &'a str,
    ca: &'a str,
    account: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    renewal_info: Option<RenewalInfo<'a>>,
}

/// `_selectedTime` is always there: without it CertMagic renews at once.
#[derive(Serialize)]
struct RenewalInfo<'a> {
    #[serde(rename = "suggestedWindow")]
    window: Window,
    #[serde(rename = "explanationURL", skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a str>,
    #[serde(rename = "_uniqueIdentifier")]
    id: &'a str,
    #[serde(rename = "_retryAfter", skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
    #[serde(rename = "_selectedTime")]
    selected: String,
}

#[derive(Serialize)]
struct Window {
    start: String,
    end: String,
}

fn metadata(name: &str, issuer: &str, certificate: &Certificate) -> Vec<u8> {
    let time = |moment: Moment| rfc3339(moment);
    let renewal_info = certificate.renewal.as_ref().map(|renewal| RenewalInfo {
        window: Window { start: time(renewal.start), end: time(renewal.end) },
        explanation: renewal.explanation.as_deref(),
        id: &renewal.id,
        retry_after: certificate.ask_renewal_at.map(time),
        selected: time(renewal.selected),
    });
    let metadata = Metadata {
        sans: [name],
        issuer_data: IssuerData {
            url: &certificate.url,
            ca: issuer,
            account: &certificate.account,
            renewal_info,
        },
    };
    // Tabs and no final newline, as CertMagic writes it.
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // Strings only: it cannot fail.
    let _ = metadata.serialize(&mut serializer);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(renewal: Option<Renewal>) -> Record {
        let mut record = Record::new("a.example", "https://ca.example/dir");
        record.certificate = Some(Certificate {
            chain: "chain".into(),
            private_key: "key".into(),
            url: "https://ca.example/cert/1".into(),
            account: "https://ca.example/account/1".into(),
            renewal,
            ..Certificate::default()
        });
        record
    }

    #[test]
    fn metadata_is_what_certmagic_writes() {
        let contents = Contents::of(&record(None)).unwrap();
        assert_eq!(
            String::from_utf8(contents.metadata.clone().unwrap()).unwrap(),
            "{\n\t\"sans\": [\n\t\t\"a.example\"\n\t],\n\t\"issuer_data\": {\n\t\t\"url\": \"https://ca.example/cert/1\",\n\t\t\"ca\": \"https://ca.example/dir\",\n\t\t\"account\": \"https://ca.example/account/1\"\n\t}\n}"
        );
        assert_eq!(contents.certificate(), record(None).certificate);
        assert_eq!(contents.digests().len(), 3);
        let part = Contents { metadata: None, ..contents };
        assert_eq!(part.certificate(), None);
    }

    #[test]
    fn windows_survive_the_way_there_and_back_and_zero_ones_are_unknown() {
        let at = Moment::from_unix_seconds;
        let renewal = Renewal {
            id: "a.b".into(),
            start: at(1_800_000_000),
            end: at(1_800_100_000),
            selected: at(1_800_000_500),
            explanation: None,
        };
        let contents = Contents::of(&record(Some(renewal.clone()))).unwrap();
        let text = String::from_utf8(contents.metadata.clone().unwrap()).unwrap();
        assert!(text.contains("\"_selectedTime\": \"2027-01-15T08:08:20Z\""), "{text}");
        assert_eq!(contents.certificate().unwrap().renewal, Some(renewal));
        let zero = text.replace("2027-01-15T08:08:20Z", "0001-01-01T00:00:00Z");
        let zero = Contents { metadata: Some(zero.into_bytes()), ..contents };
        assert_eq!(zero.certificate().unwrap().renewal, None);
    }

    #[test]
    fn metadata_that_certmagic_rewrote_is_left_alone() {
        let record = record(None);
        let certificate = record.certificate.as_ref().unwrap();
        let rewritten = b"{\"sans\":[\"a.example\"],\"issuer_data\":{\"url\":\"https://ca.example/cert/1\",\"renewal_info\":{}}}";
        assert!(is_about(rewritten, certificate));
        assert!(!is_about(b"{}", certificate) && !is_about(b"", certificate));
    }
}
