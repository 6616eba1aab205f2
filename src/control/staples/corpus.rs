//! What openssl wrote, read as it is and in every damaged form. Ordinary tests over kept files, which the fuzzer's
//! targets begin from too.
//!
//! A file that once broke something belongs into `corpus/`, with a line in the table.

use proptest::prelude::*;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Moment;

use super::crl::look_up;
use super::pointers::Pointers;
use super::request::{get_url, request};
use super::response::{Bad, judge, judge_unsigned};

/// A few days after they were made.
const NOW: Moment = Moment::from_unix_seconds(1_796_000_000);
const LIST_URL: &str = "http://lists.example/1.crl";
static ISSUER: &[u8] = include_bytes!("corpus/issuer.der");
static LEAF: &[u8] = include_bytes!("corpus/leaf.der");
static REVOKED_LEAF: &[u8] = include_bytes!("corpus/revoked.der");
static LIST: &[u8] = include_bytes!("corpus/list.crl");
static RESPONSES: [(&str, &[u8]); 6] = [
    ("good", include_bytes!("corpus/good.ocsp")),
    ("good", include_bytes!("corpus/delegated.ocsp")),
    ("good", include_bytes!("corpus/sha256.ocsp")),
    ("it is for another certificate", include_bytes!("corpus/unknown.ocsp")),
    ("it is for another certificate", include_bytes!("corpus/revoked.ocsp")),
    (
        "it says unauthorized: the responder does not know the certificate",
        include_bytes!("corpus/unauthorized.ocsp"),
    ),
];

fn serial(certificate: &[u8]) -> Vec<u8> {
    let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
    certificate.tbs_certificate.raw_serial().to_vec()
}

#[test]
fn each_response_is_what_it_is() {
    for (expected, response) in RESPONSES {
        let said = match judge(response, LEAF, ISSUER, NOW) {
            Ok(_) => "good".to_owned(),
            Err(Bad::Refused(why) | Bad::TryLater(why)) => why,
            Err(Bad::Revoked(_)) => "revoked".into(),
        };
        assert_eq!(said, expected);
    }
    let (_, revoked) = RESPONSES[4];
    let judged = judge(revoked, REVOKED_LEAF, ISSUER, NOW);
    assert!(matches!(judged, Err(Bad::Revoked(revoked)) if revoked.key_compromise), "{judged:?}");
}

#[test]
fn what_a_list_brings_along_is_not_looked_at_before_its_signature_is() {
    // Its number, with another tag where its identifier begins.
    let number = [0x06, 3, 0x55, 0x1d, 20];
    let at = LIST.windows(number.len()).position(|window| window == number).unwrap();
    let mut list = LIST.to_vec();
    list[at] = 0x07;
    let why = look_up(&list, &[LIST_URL], ISSUER, std::iter::empty(), NOW).unwrap_err();
    assert_eq!(why, "its signature is not the issuer's");
}

#[test]
fn the_list_names_the_one_and_not_the_other() {
    let serials = [serial(LEAF), serial(REVOKED_LEAF)];
    let look = |url: &str, issuer: &[u8], now| {
        look_up(
            LIST,
            &["http://other.example", url],
            issuer,
            serials.iter().map(Vec::as_slice),
            now,
        )
    };
    let listed = look(LIST_URL, ISSUER, NOW).unwrap();
    assert_eq!(listed.revoked.keys().collect::<Vec<_>>(), [&serials[1]]);
    assert!(listed.revoked.values().all(|revoked| revoked.key_compromise));
    assert!(listed.next_update.is_some_and(|next| next > NOW));
    let refused = |url, issuer, now| look(url, issuer, now).unwrap_err();
    assert!(refused("http://lists.example/2.crl", ISSUER, NOW).contains("distribution point"));
    assert_eq!(refused(LIST_URL, LEAF, NOW), "it is another issuer's");
    let early = Moment::from_unix_seconds(1_700_000_000);
    // Of what is not in it a list of another time says nothing; what is in it is revoked.
    let late = Moment::from_unix_seconds(2_200_000_000);
    for (when, why) in [(early, "yet to come"), (late, "it has expired")] {
        let other = look_up(LIST, &[LIST_URL], ISSUER, [serials[0].as_slice()].into_iter(), when);
        assert!(other.unwrap_err().contains(why), "{why}");
        assert_eq!(look(LIST_URL, ISSUER, when).unwrap().revoked.len(), 1);
    }
}

#[test]
fn a_leaf_names_whom_to_ask() {
    let pointers = Pointers::of_der(LEAF);
    assert_eq!(pointers.responders, ["http://ocsp.example/x"]);
    assert_eq!(
        (pointers.crls.concat().as_slice(), pointers.must_staple),
        (&[LIST_URL.to_owned()][..], true)
    );
    assert_eq!(Pointers::of_der(ISSUER), Pointers::default());
}

#[test]
fn a_question_by_get_is_short_and_encoded() {
    let parsed = |der| X509Certificate::from_der(der).unwrap().1;
    let question = request(&parsed(LEAF), &parsed(ISSUER)).unwrap();
    let url = get_url("http://ocsp.example/x/", &question).unwrap();
    assert!(url.starts_with("http://ocsp.example/x/M") && url.len() <= 255, "{url}");
    assert!(!url["http://ocsp.example/x/".len()..].contains(['+', '/', '=']), "{url}");
    assert_eq!(get_url(&format!("http://{}.example", "x".repeat(200)), &question), None);
    assert_eq!(get_url("http://ocsp.example/?a", &question), None);
}

fn damaged(seed: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let place = any::<prop::sample::Index>();
    (prop::collection::vec((place.clone(), any::<u8>()), 0..4), place, any::<bool>()).prop_map(
        move |(changes, cut, is_cut)| {
            let mut bytes = seed.to_vec();
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            if is_cut {
                bytes.truncate(cut.index(seed.len()));
            }
            bytes
        },
    )
}

proptest! {
    /// A byte of a response that its signature covers cannot change without its being refused; and nothing
    /// panics, whichever byte it is.
    #[test]
    fn a_damaged_response_is_refused_or_means_the_same(
        which in 0usize..6, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (_, seed) = RESPONSES[which];
        let mut bytes = seed.to_vec();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(good) = judge(&bytes, LEAF, ISSUER, NOW) {
            prop_assert_eq!(Ok(good), judge(seed, LEAF, ISSUER, NOW));
        }
        let _ = judge_unsigned(&bytes, LEAF, NOW);
    }

    #[test]
    fn a_damaged_list_is_refused_or_means_the_same(bytes in damaged(LIST)) {
        let serials = [serial(LEAF), serial(REVOKED_LEAF)];
        let look = |der: &[u8]| look_up(der, &[LIST_URL], ISSUER, serials.iter().map(Vec::as_slice), NOW);
        if let Ok(listed) = look(&bytes) {
            prop_assert_eq!(Ok(listed), look(LIST));
        }
    }

    #[test]
    fn damaged_certificates_break_nothing(leaf in damaged(LEAF), issuer in damaged(ISSUER)) {
        let _ = Pointers::of_der(&leaf);
        let _ = judge(RESPONSES[0].1, &leaf, &issuer, NOW);
        let _ = look_up(LIST, &[LIST_URL], &issuer, [&[1][..]].into_iter(), NOW);
        if let (Ok((_, leaf)), Ok((_, issuer))) =
            (X509Certificate::from_der(&leaf), X509Certificate::from_der(&issuer))
        {
            let _ = request(&leaf, &issuer);
        }
    }

    #[test]
    fn any_bytes_are_no_response_and_no_list(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(judge(&bytes, LEAF, ISSUER, NOW).is_err());
        prop_assert!(look_up(&bytes, &[LIST_URL], ISSUER, std::iter::empty(), NOW).is_err());
    }
}
