//! The Montgomery ladder of X25519 (RFC 7748 §5) in eight lanes.

use std::arch::x86_64::{__mmask8, _mm512_test_epi64_mask};

use zeroize::Zeroizing;

use super::field25519::{Field, Wide};
use super::lanes::{Ifma, WIDTH, load, splat};

/// (486662 - 2) / 4.
const A24: u64 = 121_665;

/// The u coordinate of each number's multiple of the point whose u coordinate is beside it; all little-endian, and
/// the numbers clamped. Zero for points of small order.
pub fn multiply(
    _: Ifma,
    numbers: &[[u8; 32]; WIDTH],
    us: &[[u8; 32]; WIDTH],
) -> Zeroizing<[[u8; 32]; WIDTH]> {
    // SAFETY: an `Ifma` says that the processor has the instructions.
    Zeroizing::new(unsafe { ladder(numbers, us) })
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn ladder(numbers: &[[u8; 32]; WIDTH], us: &[[u8; 32]; WIDTH]) -> [[u8; 32]; WIDTH] {
    let u = Field::from_bytes(us);
    let words = Zeroizing::new(words(numbers));
    let (one, zero) = (Field::one().wide(), Field::zero().wide());
    let mut low = Multiple { x: one, z: zero };
    let mut high = Multiple { x: u.wide(), z: one };
    // Which lanes have the two the other way round.
    let mut swapped = 0;
    for at in (0..255).rev() {
        let bits = bit(&words, at);
        (low, high) = step(low, high, swapped ^ bits, u);
        swapped = bits;
    }
    // The last bit of a clamped number is 0: nothing is the other way round now.
    low.x.carried().times(low.z.carried().inverted()).carried().to_bytes()
}

/// A multiple's u coordinate is x / z.
#[derive(Clone, Copy)]
struct Multiple {
    x: Wide,
    z: Wide,
}

/// Doubles `low`, in the lanes of `swap` `high`, and adds both, whose difference is the point with this `u`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn step(low: Multiple, high: Multiple, swap: __mmask8, u: Field) -> (Multiple, Multiple) {
    let a = low.x.plus(low.z).carried();
    let b = low.x.minus(low.z).carried();
    let c = high.x.plus(high.z).carried();
    let d = high.x.minus(high.z).carried();
    // What follows of these is the same for low and high exchanged.
    let da = d.times(a);
    let cb = c.times(b);
    let aa = a.or(c, swap).squared().carried();
    let bb = b.or(d, swap).squared().carried();
    let e = aa.minus(bb);
    let doubled = Multiple { x: aa.times(bb), z: e.times(aa.plus_small_times(A24, e)) };
    let sum = Multiple {
        x: da.plus(cb).carried().squared(),
        z: da.minus(cb).carried().squared().carried().times(u),
    };
    (doubled, sum)
}

/// Each number in four words of 64 bits, a lane a number.
#[inline]
fn words(numbers: &[[u8; 32]; WIDTH]) -> [[u64; WIDTH]; 4] {
    let mut words = [[0; WIDTH]; 4];
    for (lane, number) in numbers.iter().enumerate() {
        for (word, bytes) in words.iter_mut().zip(number.as_chunks().0) {
            word[lane] = u64::from_le_bytes(*bytes);
        }
    }
    words
}

/// Which numbers have this bit.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn bit(words: &[[u64; WIDTH]; 4], at: usize) -> __mmask8 {
    let word = load(words[at / 64]);
    _mm512_test_epi64_mask(word, splat(1 << (at % 64)))
}
