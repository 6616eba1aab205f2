//! Eight elements at once of the field of curve25519, the integers modulo p = 2^255 - 19.
//!
//! An element is five limbs of 51 bits. Products come back [`Wide`], before their carries, since a sum or a difference
//! of two needs these once and not twice.

use std::arch::x86_64::{
    __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_mask_blend_epi64, _mm512_mullo_epi64, _mm512_permutexvar_epi64, _mm512_slli_epi64,
    _mm512_srli_epi64, _mm512_sub_epi64,
};

use super::lanes::{Lanes, WIDTH, join, load, splat, split, store};

const BITS: u32 = 51;
const MASK: u64 = (1 << BITS) - 1;

/// The limbs of p.
const P: [u64; 5] = [MASK - 18, MASK, MASK, MASK, MASK];

/// Eight elements, one per lane. Limbs are below 2^51 + 2^17. Multiplication reads 52 bits of them, so a sum of two
/// must be carried first. An element has several such representations.
#[derive(Clone, Copy, Debug)]
pub struct Field([Lanes; 5]);

/// Eight elements with limbs that go beyond 52 bits: below 2^60.1 in a product, below 2^63 in sums.
#[derive(Clone, Copy, Debug)]
pub struct Wide([Lanes; 5]);

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn blended(a: [Lanes; 5], b: [Lanes; 5], mask: __mmask8) -> [Lanes; 5] {
    std::array::from_fn(|at| _mm512_mask_blend_epi64(mask, a[at], b[at]))
}

impl Wide {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| _mm512_add_epi64(self.0[at], other.0[at])))
    }

    /// Where `mask` has a lane's bit, that of `other`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn or(self, other: Self, mask: __mmask8) -> Self {
        Self(blended(self.0, other.0, mask))
    }

    /// `product` is one product or element and no sum, so that no limb becomes negative, and `self` is below 2^62.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn minus(self, product: Self) -> Self {
        // 2^10 p: its limbs are 2^61 and a little less.
        let above = P.map(|limb| splat(limb << 10));
        let difference =
            |at| _mm512_sub_epi64(_mm512_add_epi64(self.0[at], above[at]), product.0[at]);
        Self(std::array::from_fn(difference))
    }

    /// Makes them limbs of 51 bits. One pass for all limbs at once: from below 2^63 at most 2^12 goes to the next
    /// limb, and 19 times as much from the last to the first, for 2^255 is 19.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn carried(self) -> Field {
        let mask = splat(MASK);
        let carry: [Lanes; 5] = self.0.map(|limb| _mm512_srli_epi64::<BITS>(limb));
        let [a, b, c, d, e] = self.0.map(|limb| _mm512_and_si512(limb, mask));
        Field([
            _mm512_madd52lo_epu64(a, carry[4], splat(19)),
            _mm512_add_epi64(b, carry[0]),
            _mm512_add_epi64(c, carry[1]),
            _mm512_add_epi64(d, carry[2]),
            _mm512_add_epi64(e, carry[3]),
        ])
    }
}

impl Field {
    /// The same element in every lane, from five limbs below 2^51.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn splat(limbs: [u64; 5]) -> Self {
        Self(limbs.map(|limb| splat(limb)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn one() -> Self {
        Self::splat([1, 0, 0, 0, 0])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn zero() -> Self {
        Self::splat([0; 5])
    }

    /// From little-endian integers whose bit 255 is ignored (RFC 7748 §5). They may be p or more.
    #[inline]
    pub fn from_bytes(integers: &[[u8; 32]; WIDTH]) -> Self {
        let mut limbs = split::<BITS>(integers).map(store);
        limbs[4] = limbs[4].map(|limb| limb & MASK);
        Self(limbs.map(load))
    }

    /// As the integers below p, little-endian.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn to_bytes(self) -> [[u8; 32]; WIDTH] {
        // One pass in order leaves a number below 2^255: where the last limb carries, almost nothing is left in it. So
        // it is p once too much at most.
        let (mut limbs, carry) = carried_in_order(self.0);
        limbs[0] = _mm512_madd52lo_epu64(limbs[0], carry, splat(19));
        // With 19 more, bit 255 says whether it is p or more; then those 19 are what is left beside 2^255.
        let mut carry = splat(19);
        for limb in limbs {
            carry = _mm512_srli_epi64::<BITS>(_mm512_add_epi64(limb, carry));
        }
        limbs[0] = _mm512_madd52lo_epu64(limbs[0], carry, splat(19));
        join::<BITS>(&carried_in_order(limbs).0)
    }

    /// The element as a product's equal, for sums with one.
    #[inline]
    pub fn wide(self) -> Wide {
        Wide(self.0)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn plus(self, other: Self) -> Self {
        self.wide().plus(other.wide()).carried()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn minus(self, other: Self) -> Self {
        self.wide().minus(other.wide()).carried()
    }

    /// The product of limbs i and j has the weight 2^(51 (i + j)). What vpmadd52 calls its low half are 52 bits of it,
    /// so that the high half counts twice in the next column. Columns 5 to 9 are 19 times 0 to 4. At most
    /// 1 + 19 (4 + 2 * 5) times 2^52 meet in one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn times(self, other: Self) -> Wide {
        let (a, b) = (self.0, other.0);
        let mut columns = [splat(0); 10];
        for i in 0..5 {
            for j in 0..5 {
                columns[i + j + 1] = _mm512_madd52hi_epu64(columns[i + j + 1], a[i], b[j]);
            }
        }
        for column in &mut columns[1..] {
            *column = _mm512_slli_epi64::<1>(*column);
        }
        for i in 0..5 {
            for j in 0..5 {
                columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], a[i], b[j]);
            }
        }
        fold(columns)
    }

    /// As [`Field::times`] with itself: what is there twice is added once and doubled.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn squared(self) -> Wide {
        let a = self.0;
        let mut columns = [splat(0); 10];
        for i in 0..5 {
            for j in i + 1..5 {
                columns[i + j + 1] = _mm512_madd52hi_epu64(columns[i + j + 1], a[i], a[j]);
            }
        }
        for column in &mut columns[2..9] {
            *column = _mm512_slli_epi64::<1>(*column);
        }
        for i in 0..5 {
            columns[2 * i + 1] = _mm512_madd52hi_epu64(columns[2 * i + 1], a[i], a[i]);
            for j in i + 1..5 {
                columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], a[i], a[j]);
            }
        }
        for column in &mut columns[1..] {
            *column = _mm512_slli_epi64::<1>(*column);
        }
        for i in 0..5 {
            columns[2 * i] = _mm512_madd52lo_epu64(columns[2 * i], a[i], a[i]);
        }
        fold(columns)
    }

    /// `self + small * other`, for a `small` below 2^20.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn plus_small_times(self, small: u64, other: Self) -> Self {
        let small = splat(small);
        let high = other
            .0
            .map(|limb| _mm512_slli_epi64::<1>(_mm512_madd52hi_epu64(splat(0), limb, small)));
        let sum = |at: usize| {
            let low = _mm512_madd52lo_epu64(self.0[at], other.0[at], small);
            match at {
                0 => _mm512_madd52lo_epu64(low, high[4], splat(19)),
                _ => _mm512_add_epi64(low, high[at - 1]),
            }
        };
        Wide(std::array::from_fn(sum)).carried()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn squared_times(self, times: u32) -> Self {
        let mut square = self;
        for _ in 0..times {
            square = square.squared().carried();
        }
        square
    }

    /// To the power p - 2: the inverse by Fermat, and zero of zero. 254 squares and 11 products, all in a row.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn inverted(self) -> Self {
        let times = |a: Self, b: Self| a.times(b).carried();
        let x2 = self.squared().carried();
        let x9 = times(x2.squared_times(2), self);
        let x11 = times(x9, x2);
        // To the power 2^n - 1.
        let n5 = times(x11.squared().carried(), x9);
        let n10 = times(n5.squared_times(5), n5);
        let n20 = times(n10.squared_times(10), n10);
        let n40 = times(n20.squared_times(20), n20);
        let n50 = times(n40.squared_times(10), n10);
        let n100 = times(n50.squared_times(50), n50);
        let n200 = times(n100.squared_times(100), n100);
        let n250 = times(n200.squared_times(50), n50);
        // 2^255 - 21 is 2^5 (2^250 - 1) + 11.
        times(n250.squared_times(5), x11)
    }

    /// Where `mask` has a lane's bit, that of `other`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn or(self, other: Self, mask: __mmask8) -> Self {
        Self(blended(self.0, other.0, mask))
    }

    /// To each lane the element of the lane that `index` names there, by its low three bits.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub fn picked(self, index: Lanes) -> Self {
        Self(self.0.map(|limb| _mm512_permutexvar_epi64(index, limb)))
    }
}

/// Limbs below 2^51, of which each has passed its carry on to the next, and the carry of the last.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn carried_in_order(limbs: [Lanes; 5]) -> ([Lanes; 5], Lanes) {
    let mut carry = splat(0);
    let limbs = limbs.map(|limb| {
        let limb = _mm512_add_epi64(limb, carry);
        carry = _mm512_srli_epi64::<BITS>(limb);
        _mm512_and_si512(limb, splat(MASK))
    });
    (limbs, carry)
}

/// Adds columns 5 to 9 nineteen times to 0 to 4.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn fold(columns: [Lanes; 10]) -> Wide {
    let nineteen = splat(19);
    Wide(std::array::from_fn(|at| {
        _mm512_add_epi64(columns[at], _mm512_mullo_epi64(columns[at + 5], nineteen))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::lanes::Ifma;
    use proptest::prelude::*;

    type Limbs = [u64; 5];

    /// The largest limb of an element.
    const MOST: u64 = (1 << 51) + (1 << 17) - 1;

    /// The integer below p that these limbs are, the slow way.
    fn canonical(mut limbs: [u128; 5]) -> [u8; 32] {
        for _ in 0..4 {
            for at in 0..5 {
                let carry = limbs[at] >> 51;
                limbs[at] &= u128::from(MASK);
                limbs[(at + 1) % 5] += carry * if at == 4 { 19 } else { 1 };
            }
        }
        let limbs = limbs.map(|limb| limb as u64);
        let is_p_or_more = limbs[0] >= P[0] && limbs[1..] == P[1..];
        let limbs = if is_p_or_more { [limbs[0] - P[0], 0, 0, 0, 0] } else { limbs };
        join::<BITS>(&limbs.map(|limb| load([limb; WIDTH])))[0]
    }

    fn product(a: Limbs, b: Limbs) -> [u128; 5] {
        let mut columns = [0; 5];
        for i in 0..5 {
            for j in 0..5 {
                let wraps = if i + j > 4 { 19 } else { 1 };
                columns[(i + j) % 5] += u128::from(a[i]) * u128::from(b[j]) * wraps;
            }
        }
        columns
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn computed(a: &[Limbs; WIDTH], b: &[Limbs; WIDTH], small: u64) -> [[[u8; 32]; WIDTH]; 6] {
        let field = |all: &[Limbs; WIDTH]| {
            Field(std::array::from_fn(|at| load(std::array::from_fn(|lane| all[lane][at]))))
        };
        let (a, b) = (field(a), field(b));
        [
            a.times(b).carried().to_bytes(),
            a.squared().carried().to_bytes(),
            a.plus(b).to_bytes(),
            a.minus(b).to_bytes(),
            a.plus_small_times(small, b).to_bytes(),
            a.to_bytes(),
        ]
    }

    fn limb() -> impl Strategy<Value = u64> {
        prop_oneof![0..20u64, (MASK - 20)..=(MASK + 20), (MOST - 20)..=MOST, 0..=MOST,]
    }

    proptest! {
        #[test]
        fn arithmetic_is_as_by_hand(
            limbs in prop::collection::vec(limb(), 2 * 5 * WIDTH),
            small in prop_oneof![Just((1 << 20) - 1), 0..1u64 << 20],
        ) {
            if Ifma::or_skip().is_none() {
                return Ok(());
            }
            let numbers = limbs.as_chunks().0.as_chunks().0;
            let [a, b] = [numbers[0], numbers[1]];
            // SAFETY: there is an `Ifma`, so the processor has the instructions.
            let computed = unsafe { computed(&a, &b, small) };
            for lane in 0..WIDTH {
                let (a, b) = (a[lane], b[lane]);
                let each = |of: &dyn Fn(usize) -> u128| canonical(std::array::from_fn(of));
                let (at_a, at_b) = (|at: usize| u128::from(a[at]), |at: usize| u128::from(b[at]));
                let expected = [
                    canonical(product(a, b)),
                    canonical(product(a, a)),
                    each(&|at| at_a(at) + at_b(at)),
                    each(&|at| at_a(at) + 8 * u128::from(P[at]) - at_b(at)),
                    each(&|at| at_a(at) + u128::from(small) * at_b(at)),
                    each(&at_a),
                ];
                for (computed, expected) in computed.iter().zip(expected) {
                    prop_assert_eq!(computed[lane], expected);
                }
            }
        }
    }

    #[test]
    fn integers_from_p_on_are_reduced_and_bit_255_is_ignored() {
        if Ifma::or_skip().is_none() {
            return;
        }
        for above in 0..19 {
            let mut integer = [0xff; 32];
            integer[0] = 0xed + above;
            integer[31] = 0x7f;
            let mut flagged = integer;
            flagged[31] = 0xff;
            for integer in [integer, flagged] {
                // SAFETY: there is an `Ifma`, so the processor has the instructions.
                let bytes = unsafe { Field::from_bytes(&[integer; WIDTH]).to_bytes() };
                let mut expected = [0; 32];
                expected[0] = above;
                assert_eq!(bytes, [expected; WIDTH]);
            }
        }
    }
}
