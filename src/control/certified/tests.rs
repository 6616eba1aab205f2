//! From bytes to a certified key and back to words.

use super::samples::*;
use super::*;
use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256,
};

/// A leaf and its private key in one text.
fn self_signed_by_openssl(new_key: &str) -> String {
    let names = "-subj /CN=x -addext subjectAltName=DNS:a.example";
    openssl("", &format!("req -x509 -nodes {names} {new_key} -keyout - -out -"))
}

fn refused(chain: &str, key: &str) -> String {
    certified(chain, key).expect_err("it is refused").to_string()
}

#[test]
fn every_kind_and_form_of_private_key_is_recognised_and_signs() {
    let issuer = Issuer::new("kinds");
    let without_and_compressed =
        ["ec -in IN", "ec -in IN -no_public", "ec -in IN -conv_form compressed"];
    let cases: [(_, _, &[&str]); 5] = [
        (&PKCS_ECDSA_P256_SHA256, KeyKind::EcdsaP256, &without_and_compressed),
        (&PKCS_ECDSA_P384_SHA384, KeyKind::EcdsaP384, &["ec -in IN"]),
        (&PKCS_ECDSA_P521_SHA512, KeyKind::EcdsaP521, &["ec -in IN"]),
        (&PKCS_ED25519, KeyKind::Ed25519, &[]),
        (&PKCS_RSA_SHA256, KeyKind::Rsa, &["rsa -in IN -traditional"]),
    ];
    let mut pairs = Vec::new();
    for (algorithm, kind, forms) in cases {
        let (chain, key) = issuer.pair(&["a.example"], algorithm);
        let forms = forms.iter().map(|form| openssl(&key, form)).chain([key.clone()]);
        pairs.extend(forms.map(|key| (chain.clone(), key, kind)));
    }
    // openssl writes an Ed25519 private key without the public one.
    let both = self_signed_by_openssl("-newkey ed25519");
    pairs.push((both.clone(), both, KeyKind::Ed25519));
    for (chain, key, kind) in pairs {
        let certified =
            certified(&chain, &key).unwrap_or_else(|refused| panic!("{kind:?}: {refused}\n{key}"));
        assert_eq!((certified.kind, certified.notes.len()), (kind, 0));
        let all = [
            rustls::SignatureScheme::ECDSA_NISTP256_SHA256,
            rustls::SignatureScheme::ECDSA_NISTP384_SHA384,
            rustls::SignatureScheme::ECDSA_NISTP521_SHA512,
            rustls::SignatureScheme::ED25519,
            rustls::SignatureScheme::RSA_PSS_SHA256,
        ];
        let signer = certified.key.key.choose_scheme(&all).expect("the private key parses");
        assert!(!signer.sign(b"message").unwrap().is_empty());
    }
}

#[test]
fn the_chain_is_sent_without_its_root_and_intermediates_share_their_bytes() {
    let issuer = Issuer::new("chain");
    let (chain, key) = issuer.pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
    let with_root = chain.clone() + &issuer.root.pem();
    let certified_with_root = certified(&with_root, &key).unwrap();
    let plain = certified(&chain, &key).unwrap();
    assert_eq!(certified_with_root.key.cert, plain.key.cert);
    assert_eq!(plain.key.cert.len(), 2);
    assert!(std::ptr::eq(plain.key.cert[1].as_ref(), certified_with_root.key.cert[1].as_ref()));
    assert_eq!(
        certified_with_root.notes[0].to_string(),
        "certificate 3 in /etc/a.crt (CN=chain root) is a root and is not sent; remove it, as clients use their own copy"
    );
    assert!(plain.notes.is_empty());
    assert!(
        plain.is_from(chain.as_bytes(), key.as_bytes())
            && !plain.is_from(with_root.as_bytes(), key.as_bytes())
    );
}

#[test]
fn a_self_signed_leaf_is_served() {
    let key = KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    let leaf = params.self_signed(&key).unwrap().pem();
    assert_eq!(certified(&leaf, &key.serialize_pem()).unwrap().key.cert.len(), 1);
}

#[test]
fn chain_and_key_may_share_a_file() {
    let (chain, key) = Issuer::new("shared").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
    for both in [chain.clone() + &key, key + &chain] {
        assert_eq!(certified(&both, &both).unwrap().key.cert.len(), 2);
    }
}

#[test]
fn a_chain_in_the_wrong_order_or_with_strangers_is_refused() {
    let issuer = Issuer::new("order");
    let stranger = Issuer::new("stranger");
    // One of the same name, but with another key.
    let renewed = Issuer::new("order");
    let key = KeyPair::generate().unwrap();
    let leaf = issuer.leaf(&["a.example"], &key, NOW);
    let key = key.serialize_pem();
    let (above, root) = (issuer.intermediate.pem(), issuer.root.pem());
    assert_eq!(
        refused(&(above.clone() + &leaf), &key),
        "the chain is in the wrong order, the leaf must come first: /etc/a.crt has it as certificate 2; \
         move the leaf to the top, its issuer below it, and so on"
    );
    for (chain, position) in [
        ([&leaf, &root, &above], 2),
        ([&leaf, &above, &stranger.intermediate.pem()], 3),
        ([&leaf, &stranger.root.pem(), &above], 2),
        ([&leaf, &above, &leaf], 3),
        ([&leaf, &renewed.intermediate.pem(), &root], 2),
        ([&leaf, &leaf, &above], 2),
    ] {
        let chain: String = chain.into_iter().map(String::as_str).collect();
        let words = refused(&chain, &key);
        assert!(
            words.starts_with(&format!("certificate {position} in /etc/a.crt (CN=")),
            "{words}"
        );
        assert!(words.contains("did not issue the one before it"), "{words}");
    }
    let after_root = [leaf, above.clone(), root, above].concat();
    assert!(refused(&after_root, &key).contains("certificate 4 in"));
}

#[test]
fn a_private_key_of_another_certificate_is_refused_naming_both_files() {
    let issuer = Issuer::new("owner");
    let (chain, _) = issuer.pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519, &PKCS_RSA_SHA256] {
        let (_, other) = issuer.pair(&["a.example"], algorithm);
        let words = refused(&chain, &other);
        assert!(
            words.starts_with(
                "the private key does not belong to the certificate: /etc/a.key and /etc/a.crt"
            ),
            "{words}"
        );
    }
}

#[test]
fn an_encrypted_private_key_is_refused_with_those_words() {
    let issuer = Issuer::new("encrypted");
    let (chain, ec) = issuer.pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
    let pkcs8 = openssl(&ec, "pkey -in IN -aes256 -passout pass:secret");
    let traditional = openssl(&ec, "ec -in IN -aes256 -passout pass:secret");
    for key in [pkcs8, traditional] {
        assert_eq!(
            refused(&chain, &key),
            "the private key is encrypted: /etc/a.key; decrypt it: \
             openssl pkey -in /etc/a.key -out /etc/a.key.decrypted, and use that file"
        );
    }
}

#[test]
fn files_of_other_kinds_are_refused_in_words() {
    let (chain, key) = Issuer::new("files").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256);
    for (cert, private_key, expected) in [
        ("", &*key, "/etc/a.crt holds no certificate; it must"),
        ("hello\n", &key, "/etc/a.crt holds no certificate; it must"),
        (&key, &key, "/etc/a.crt holds no certificate; it must"),
        ("0\u{2}", &key, "/etc/a.crt holds no certificate; it must"),
        (&chain[..200], &key, "/etc/a.crt is no valid PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            "certificate 1 in /etc/a.crt is damaged",
        ),
        (&chain, "", "/etc/a.key holds no private key; it must"),
        (&chain, &chain, "/etc/a.key holds no private key; it must"),
        (&chain, &key[..100], "/etc/a.key is no valid PEM"),
        (
            &chain,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "the private key in /etc/a.key cannot be used",
        ),
    ] {
        let words = refused(cert, private_key);
        assert!(words.starts_with(expected), "{words}");
    }
    let der = certify(&[0x30, 0x82, 1, 2], key.as_bytes(), source()).unwrap_err();
    assert!(der.remedy.contains("openssl x509 -inform DER -in /etc/a.crt"), "{der}");
}

#[test]
fn weak_and_unknown_keys_are_refused() {
    for (new, expected) in [
        ("-newkey rsa:1024", "/etc/a.crt: its RSA key has 1024 bits, not 2048 to 8192"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:secp256k1", "its elliptic curve is none of"),
        ("-newkey ed448", "its public key is none of"),
    ] {
        let both = self_signed_by_openssl(new);
        let words = refused(&both, &both);
        assert!(words.contains(expected), "{words}");
    }
}

#[test]
fn names_come_from_the_subject_alternative_name_alone() {
    let issuer = Issuer::new("names");
    let key = KeyPair::generate().unwrap();
    let names = ["b.Example", "*.a.example", "127.0.0.1", "::1", "b.example"];
    let leaf = issuer.leaf(&names, &key, NOW);
    let key_pem = key.serialize_pem();
    let served = certified(&leaf, &key_pem).unwrap();
    let mut expected: Vec<_> = ["b.example", "*.a.example", "127.0.0.1", "::1"]
        .map(|text| Pattern::parse(text).unwrap())
        .into();
    expected.sort_unstable();
    assert_eq!(served.patterns, expected);

    let without = issuer.leaf(&[], &key, NOW);
    assert!(
        refused(&without, &key_pem)
            .contains("has no subjectAltName, and clients ignore its common name")
    );
    let odd = issuer.leaf(&["*", "a b", "w*.example", "good.example"], &key, NOW);
    let odd = certified(&odd, &key_pem).unwrap();
    assert_eq!((odd.patterns.len(), odd.notes.len()), (1, 3));
    assert!(odd.notes[1].what.contains("\"a b\", which no client can match"), "{}", odd.notes[1]);
    let useless = issuer.leaf(&["*"], &key, NOW);
    assert!(refused(&useless, &key_pem).contains("names neither a DNS name nor an IP address"));
}

#[test]
fn dates_are_noted_and_do_not_refuse() {
    let issuer = Issuer::new("dates");
    let begins = NOW.minus(30 * DAY);
    for (not_after, now, valid, expected) in [
        (NOW.plus(30 * DAY), NOW, true, None),
        (NOW.plus(7 * DAY), NOW, true, None),
        (
            NOW.plus(6 * DAY),
            NOW,
            true,
            Some("expires on 2027-01-21 08:00:00 UTC, for a.example and 1 more; replace it"),
        ),
        (NOW, NOW, true, Some("expires on")),
        (
            NOW,
            NOW.plus(Duration::from_secs(1)),
            false,
            Some("HAS EXPIRED on 2027-01-15 08:00:00 UTC and is served"),
        ),
        (NOW.plus(30 * DAY), begins.minus(DAY), false, Some("IS NOT VALID before 2026-12-16")),
        (NOW.plus(30 * DAY), begins, true, None),
    ] {
        let certified = issuer.certified(&["a.example", "b.example"], not_after);
        assert_eq!(certified.is_valid(now), valid);
        let note = certified.note_of_dates(now).map(|note| note.to_string());
        match expected {
            Some(expected) => {
                assert!(note.as_ref().is_some_and(|note| note.contains(expected)), "{note:?}")
            }
            None => assert_eq!(note, None),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn bytes_of_any_kind_never_panic(chain in any::<Vec<u8>>(), key in any::<Vec<u8>>()) {
        prop_assert!(certify(&chain, &key, source()).is_err());
    }

    #[test]
    fn a_changed_file_never_panics(at in any::<prop::sample::Index>(), to in b'A'..=b'Z', in_chain in any::<bool>()) {
        static PAIR: LazyLock<(String, String)> =
            LazyLock::new(|| Issuer::new("changed").pair(&["a.example"], &PKCS_ECDSA_P256_SHA256));
        let (mut chain, mut key) = (PAIR.0.clone().into_bytes(), PAIR.1.clone().into_bytes());
        let file = if in_chain { &mut chain } else { &mut key };
        let at = at.index(file.len());
        file[at] = to;
        let _ = certify(&chain, &key, source());
    }
}
