//! Eight numbers at once, one per lane of a 512-bit register, and whether this processor multiplies them.
//!
//! Everything that computes carries `#[target_feature]`, and can be called from elsewhere only with an
//! [`Ifma`], which exists only where the processor has the instructions. No lane decides a branch or an address:
//! what is secret takes the same time whatever it is.

use std::arch::x86_64::{__m512i, _mm512_set1_epi64};

/// Eight unsigned integers of 64 bits.
pub type Lanes = __m512i;

pub use super::WIDTH;

/// The proof that this processor has AVX-512 with IFMA, multiplication of 52-bit integers.
#[derive(Clone, Copy, Debug)]
pub struct Ifma(());

impl Ifma {
    /// `None` where the instructions are missing.
    pub fn detect() -> Option<Self> {
        // The standard library remembers what CPUID said.
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512ifma");
        has.then_some(Self(()))
    }
}

#[cfg(test)]
impl Ifma {
    /// For tests: says so where there is nothing to test.
    pub fn or_skip() -> Option<Self> {
        let ifma = Self::detect();
        if ifma.is_none() {
            eprintln!("not tested: this processor has no AVX-512 IFMA");
        }
        ifma
    }
}

/// One number per lane, the first in lane 0.
#[inline]
pub fn load(numbers: [u64; WIDTH]) -> Lanes {
    // SAFETY: both types are 64 bytes of which every pattern is a value.
    unsafe { std::mem::transmute::<[u64; WIDTH], Lanes>(numbers) }
}

#[inline]
pub fn store(lanes: Lanes) -> [u64; WIDTH] {
    // SAFETY: as in `load`.
    unsafe { std::mem::transmute::<Lanes, [u64; WIDTH]>(lanes) }
}

/// The same number in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn splat(number: u64) -> Lanes {
    _mm512_set1_epi64(number.cast_signed())
}

/// Five limbs of `BITS` bits each, least significant first, of eight little-endian integers of 32 bytes. The last limb
/// takes what is left, up to 52 bits.
#[inline]
pub fn split<const BITS: u32>(integers: &[[u8; 32]; WIDTH]) -> [Lanes; 5] {
    let mut limbs = [[0; WIDTH]; 5];
    for (lane, integer) in integers.iter().enumerate() {
        for (at, limb) in limbs.iter_mut().enumerate() {
            limb[lane] = bits(integer, at as u32 * BITS, if at == 4 { 52 } else { BITS });
        }
    }
    limbs.map(load)
}

/// `count` bits from bit `from` on.
fn bits(integer: &[u8; 32], from: u32, count: u32) -> u64 {
    let byte = (from / 8) as usize;
    let mut window = [0; 8];
    for (to, from) in window.iter_mut().zip(&integer[byte..]) {
        *to = *from;
    }
    // At most 7 + 52 bits of the window are needed.
    (u64::from_le_bytes(window) >> (from % 8)) & ((1 << count) - 1)
}

/// The reverse of [`split`], of limbs of exactly `BITS` bits.
#[inline]
pub fn join<const BITS: u32>(limbs: &[Lanes; 5]) -> [[u8; 32]; WIDTH] {
    let limbs = limbs.map(store);
    std::array::from_fn(|lane| {
        let mut words = [0u64; 4];
        for (at, limb) in limbs.iter().enumerate() {
            let from = at as u32 * BITS;
            let (word, shift) = ((from / 64) as usize, from % 64);
            words[word] |= limb[lane] << shift;
            if shift != 0 && word < 3 {
                words[word + 1] |= limb[lane] >> (64 - shift);
            }
        }
        let mut bytes = [0; 32];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_split_is_joined_again(integers: [[u8; 32]; WIDTH]) {
            prop_assert_eq!(join::<52>(&split::<52>(&integers)), integers);
            // 4 times 51 bits and 51 of the last: bit 255 and beyond do not fit.
            let short = integers.map(|mut integer| { integer[31] &= 0x7f; integer });
            prop_assert_eq!(join::<51>(&split::<51>(&short)), short);
        }
    }
}
