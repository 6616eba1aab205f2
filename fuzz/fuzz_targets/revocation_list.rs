//! What may be served for a list of revoked certificates: whatever it is, nothing panics, and nobody is revoked
//! by a list that the issuer has not signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::clock::Moment;
use ringgate::control::staples::crl::look_up;

/// A few days after the corpus was made.
const NOW: Moment = Moment::from_unix_seconds(1_796_000_000);
const URL: &str = "http://lists.example/1.crl";
static ISSUER: &[u8] = include_bytes!("../../src/control/staples/corpus/issuer.der");
static LEAF: &[u8] = include_bytes!("../../src/control/staples/corpus/leaf.der");
static LIST: &[u8] = include_bytes!("../../src/control/staples/corpus/list.crl");

fuzz_target!(|list: &[u8]| {
    // The issuer's own serial is in no list of its.
    let serials: [&[u8]; 2] = [&[1], &[0x7f; 20]];
    let own = look_up(list, &[URL], ISSUER, serials.into_iter(), NOW);
    if let Ok(listed) = &own {
        assert!(listed.revoked.is_empty() || list == LIST);
    }
    let others = look_up(list, &[URL], LEAF, serials.into_iter(), NOW);
    assert!(others.is_err(), "the leaf has signed nothing");
});
