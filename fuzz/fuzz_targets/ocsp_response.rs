//! What a responder may answer: whatever it is, nothing panics, and what is taken for good is in force.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringgate::clock::Moment;
use ringgate::control::staples::response::{judge, judge_unsigned};

/// A few days after the corpus was made.
const NOW: Moment = Moment::from_unix_seconds(1_796_000_000);
static ISSUER: &[u8] = include_bytes!("../../src/control/staples/corpus/issuer.der");
static LEAF: &[u8] = include_bytes!("../../src/control/staples/corpus/leaf.der");

fuzz_target!(|answer: &[u8]| {
    if let Ok(good) = judge(answer, LEAF, ISSUER, NOW) {
        assert!(good.this_update < good.until && NOW < good.until);
        // What its signature vouches for is also right without it, if not for as long.
        let unsigned = judge_unsigned(answer, LEAF, NOW).expect("it is good");
        assert!(unsigned.this_update == good.this_update && unsigned.until >= good.until);
    }
    let _ = judge_unsigned(answer, LEAF, NOW);
});
