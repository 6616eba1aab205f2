//! What an issuer's directory says (RFC 8555 §7.1.1), as far as instant-acme does not tell.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Directory {
    pub new_nonce: String,
    pub new_account: String,
    /// RFC 9773 §4.
    #[serde(default)]
    pub renewal_info: Option<String>,
    #[serde(default)]
    pub meta: Meta,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    #[serde(default)]
    pub terms_of_service: Option<String>,
    #[serde(default)]
    pub external_account_required: bool,
    /// Name to description.
    #[serde(default)]
    pub profiles: BTreeMap<String, String>,
}

impl Directory {
    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_and_without_its_optional_parts_is_read() {
        let least = Directory::read(b"{\"newNonce\":\"n\",\"newAccount\":\"a\",\"x\":1}").unwrap();
        assert_eq!((least.renewal_info, least.meta.terms_of_service), (None, None));
        let full = Directory::read(
            b"{\"newNonce\":\"n\",\"newAccount\":\"a\",\"renewalInfo\":\"r\",\"meta\":{\"termsOfService\":\"t\",\"externalAccountRequired\":true,\"profiles\":{\"p\":\"d\"}}}",
        )
        .unwrap();
        assert_eq!(full.renewal_info.as_deref(), Some("r"));
        assert!(full.meta.external_account_required && full.meta.profiles.contains_key("p"));
        assert_eq!(Directory::read(b"<html>"), None);
    }
}
