//! Which certificate serves each name, and which rule chose it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::{Moment, rfc3339};
use crate::name::Pattern;
use crate::snapshot::KeyKind;

use super::autocert::status::Status;
use super::certified::{Certified, Identity, Source};
use super::precedence::Index;

/// A row for each name: those of certificates by hand, of the local CA, and those that autocert manages, whose
/// rows bring along what is next.
/// `staples` says what is known of theirs.
pub fn listing(
    certified: &[Arc<Certified>],
    managed: Vec<Status>,
    staples: &HashMap<Identity, String>,
    now: Moment,
) -> Vec<Status> {
    let mut managed: BTreeMap<String, Status> =
        managed.into_iter().map(|status| (status.name.clone(), status)).collect();
    let patterns: BTreeSet<Pattern> = certified
        .iter()
        .flat_map(|certified| certified.patterns.iter().cloned())
        .chain(managed.keys().filter_map(|name| Pattern::parse(name).ok()))
        .collect();
    let index = Index::new(certified);
    patterns
        .iter()
        .map(|pattern| {
            let name = pattern.to_string();
            let status = managed.remove(&name).unwrap_or_default();
            let is_managed = status.next.is_some();
            let status = Status { name, ..status };
            match index.serving(pattern, now) {
                Some(certified) => {
                    let staple = staples.get(&certified.identity()).cloned();
                    describe(Status { staple, ..status }, certified, is_managed, now)
                }
                None => Status {
                    served: "none".into(),
                    why: "no certificate yet; clients are refused".into(),
                    ..status
                },
            }
        })
        .collect()
}

fn describe(status: Status, certified: &Certified, is_managed: bool, now: Moment) -> Status {
    let (served, issuer, why) = match &certified.source {
        Source::ByHand { cert, .. } => {
            let why = match certified.is_valid(now) {
                true if certified.is_revoked => "revoked, and there is nothing else",
                true => "a valid certificate by hand wins",
                false => "not valid, and there is nothing else",
            };
            ("by hand", Some(cert.display().to_string()), why)
        }
        Source::Issued { issuer } => {
            ("autocert", Some(issuer.to_string()), "no certificate by hand covers it")
        }
        Source::LocalCa if is_managed => ("local CA", None, "until autocert has obtained one"),
        Source::LocalCa => ("local CA", None, "no other certificate covers it"),
    };
    Status {
        served: served.into(),
        why: why.into(),
        issuer: issuer.or(status.issuer),
        key_type: Some(key_type(certified.kind).into()),
        not_after: Some(rfc3339(certified.not_after)),
        serial: certified.key.cert.first().and_then(|leaf| serial(leaf)),
        ..status
    }
}

fn key_type(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::EcdsaP256 => "p256",
        KeyKind::EcdsaP384 => "p384",
        KeyKind::EcdsaP521 => "p521",
        KeyKind::Ed25519 => "ed25519",
        KeyKind::Rsa => "rsa",
    }
}

fn serial(leaf: &[u8]) -> Option<String> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    Some(leaf.tbs_certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use rcgen::PKCS_ECDSA_P256_SHA256;

    use super::super::certified::certify;
    use super::super::certified::samples::{DAY, Issuer, NOW};
    use super::*;

    #[test]
    fn each_row_says_which_rule_chose() {
        let issuer = Issuer::new("listing");
        let certified = |name: &str, source| {
            let (chain, key) = issuer.pair(&[name], &PKCS_ECDSA_P256_SHA256);
            Arc::new(certify(chain.as_bytes(), key.as_bytes(), source).unwrap())
        };
        let by_hand = || Source::ByHand { cert: "c.pem".into(), key: "k.pem".into() };
        let issued = || Source::Issued { issuer: "https://ca/dir".into() };
        let all = [
            certified("a.example", by_hand()),
            certified("a.example", issued()),
            certified("*.w.example", by_hand()),
            certified("x.w.example", issued()),
            certified("b.example", issued()),
            certified("c.example", Source::LocalCa),
        ];
        let next = |name: &str| Status {
            name: name.into(),
            next: Some("renewal".into()),
            ..Status::default()
        };
        let managed = || vec![next("b.example"), next("c.example"), next("d.example")];
        let rows = |now| -> Vec<(String, String)> {
            let rows = listing(&all, managed(), &HashMap::new(), now);
            rows.into_iter().map(|row| (row.name, row.served)).collect()
        };
        let expected = |rows: [(&str, &str); 6]| rows.map(|(a, b)| (a.to_owned(), b.to_owned()));
        let mut found = rows(NOW);
        found.sort();
        let served = [
            ("*.w.example", "by hand"),
            ("a.example", "by hand"),
            ("b.example", "autocert"),
            ("c.example", "local CA"),
            ("d.example", "none"),
            ("x.w.example", "by hand"),
        ];
        assert_eq!(found, expected(served));
        assert!(rows(NOW.plus(90 * DAY)).contains(&("d.example".into(), "none".into())));
    }
}
