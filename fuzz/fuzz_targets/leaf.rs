//! What a certificate may say of whom to ask, and of itself: whatever it is, nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::clock::Moment;
use ringgate::control::staples::pointers::Pointers;
use ringgate::control::staples::response::judge;

/// A few days after the corpus was made.
const NOW: Moment = Moment::from_unix_seconds(1_796_000_000);
static ISSUER: &[u8] = include_bytes!("../../src/control/staples/corpus/issuer.der");
static GOOD: &[u8] = include_bytes!("../../src/control/staples/corpus/good.ocsp");

fuzz_target!(|certificate: &[u8]| {
    let _ = Pointers::of_der(certificate);
    let _ = judge(GOOD, certificate, ISSUER, NOW);
    let _ = judge(GOOD, certificate, certificate, NOW);
});
