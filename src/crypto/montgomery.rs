//! Arithmetic modulo an odd number of 256 bits in Montgomery form, on eight numbers at once.
//!
//! Radix 2^52, five limbs, R = 2^260 (P. Montgomery, "Modular multiplication without trial division", 1985). R is more
//! than 16 times the modulus, which leaves room to add and subtract without reducing: what comes out of a product of
//! numbers below a and b times the modulus is below 1 + a b / 16 times the modulus. Bounds below are in units of the
//! modulus, and those who compute show theirs.

use std::arch::x86_64::{
    __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_cmplt_epi64_mask,
    _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_blend_epi64, _mm512_mask_sub_epi64,
    _mm512_or_si512, _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srai_epi64, _mm512_srli_epi64,
    _mm512_sub_epi64,
};
use std::marker::PhantomData;

use super::lanes::{Lanes, splat};

/// One number, least significant limb first, every limb below 2^52.
pub type Limbs = [u64; 5];

/// An odd number between 2^255 and 2^256.
pub trait Modulus: Copy {
    const LIMBS: Limbs;

    /// -1/m modulo 2^52, by which a reduction makes the lowest limb vanish.
    const FACTOR: u64 = {
        let mut inverse = 1u64;
        let mut bits = 1;
        // Newton: every turn doubles how many low bits are right.
        while bits < 52 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(Self::LIMBS[0].wrapping_mul(inverse)));
            bits *= 2;
        }
        inverse.wrapping_neg() & MASK
    };

    /// What a reduction adds multiples of, in limbs 1 to 4: m, or m + 1 where the factor is 1, which has fewer limbs
    /// that are not 0 and then 0 as its lowest.
    const ADDEND: Limbs = if Self::FACTOR == 1 {
        let mut sum = Self::LIMBS;
        sum[0] += 1;
        carry(sum)
    } else {
        Self::LIMBS
    };

    /// R, which is 1 in Montgomery form.
    const R: Limbs = power_of_two(260, Self::LIMBS);
    const R_SQUARED: Limbs = power_of_two(520, Self::LIMBS);

    /// m - 2 as the sum of odd numbers below 32, each times the power of two that is its place.
    const INVERSION: [u8; 256] = windows(Self::LIMBS);
}

/// The modulus of the coordinates of P-256 (FIPS 186-5, SP 800-186 §3.2.1.3), whose factor is 1.
#[derive(Clone, Copy)]
pub struct P;

impl Modulus for P {
    const LIMBS: Limbs =
        [0xf_ffff_ffff_ffff, 0x0_0fff_ffff_ffff, 0, 0x0_0010_0000_0000, 0x0_ffff_ffff_0000];
}

/// The order of the group of P-256.
#[derive(Clone, Copy)]
pub struct N;

impl Modulus for N {
    const LIMBS: Limbs = [
        0x9_cac2_fc63_2551,
        0xa_da71_79e8_4f3b,
        0xf_ffff_ffbc_e6fa,
        0x0_000f_ffff_ffff,
        0x0_ffff_ffff_0000,
    ];
}

const MASK: u64 = (1 << 52) - 1;

const fn carry(mut limbs: Limbs) -> Limbs {
    let mut at = 0;
    while at < 4 {
        limbs[at + 1] += limbs[at] >> 52;
        limbs[at] &= MASK;
        at += 1;
    }
    limbs
}

/// 2^exponent modulo m, by doubling.
const fn power_of_two(exponent: u32, m: Limbs) -> Limbs {
    let mut power = [1, 0, 0, 0, 0];
    let mut doublings = 0;
    while doublings < exponent {
        let mut less = [0; 5];
        let mut borrow = 0;
        let mut at = 0;
        while at < 5 {
            power[at] *= 2;
            at += 1;
        }
        power = carry(power);
        at = 0;
        while at < 5 {
            let limb = power[at].wrapping_sub(m[at]).wrapping_sub(borrow);
            borrow = limb >> 63;
            less[at] = limb & MASK;
            at += 1;
        }
        if borrow == 0 {
            power = less;
        }
        doublings += 1;
    }
    power
}

const fn windows(m: Limbs) -> [u8; 256] {
    let mut exponent = m;
    exponent[0] -= 2;
    let mut windows = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut window = 0;
        let mut bit = 0;
        while bit < 5 && at + bit < 256 {
            let from = at + bit;
            window |= ((exponent[from / 52] >> (from % 52) & 1) as u8) << bit;
            bit += 1;
        }
        if window & 1 == 1 {
            windows[at] = window;
            at += bit;
        } else {
            at += 1;
        }
    }
    windows
}

/// Eight numbers modulo M, each known up to multiples of M.
///
/// Every limb is below 2^52, since multiplication does not see more, so that the number is below 2^260.
#[derive(Clone, Copy)]
pub struct Element<M>([Lanes; 5], PhantomData<M>);

/// Eight sums and differences of products whose carries have not been passed on.
///
/// A limb is a signed integer of 64 bits. What comes from [`Element::times`] is between 0 and 2^57 in every limb, which
/// leaves room for 63 of them. The number itself may not be negative, and must be below 2^260, when the carries are
/// passed on.
#[derive(Clone, Copy)]
pub struct Loose<M>([Lanes; 5], PhantomData<M>);

/// The columns of a product, or of the sum of two: at most nine halves of limbs' products, below 2^52, from each.
type Columns = [Lanes; 10];

impl<M: Modulus> Element<M> {
    /// Of limbs below 2^52.
    #[inline]
    pub fn new(limbs: [Lanes; 5]) -> Self {
        Self(limbs, PhantomData)
    }

    /// The same in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn splat(limbs: Limbs) -> Self {
        Self::new(limbs.map(|limb| splat(limb)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn one() -> Self {
        Self::splat(M::R)
    }

    #[inline]
    pub fn limbs(&self) -> &[Lanes; 5] {
        &self.0
    }

    #[inline]
    pub fn loose(&self) -> Loose<M> {
        Loose(self.0, PhantomData)
    }

    /// Into Montgomery form; the result is below 2.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn enter(&self) -> Self {
        self.times(&Self::splat(M::R_SQUARED)).carried()
    }

    /// Out of Montgomery form, fully reduced.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn leave(&self) -> Self {
        // (a + q m) / R with a, q < R is at most m.
        self.times(&Self::splat([1, 0, 0, 0, 0])).carried().reduced_once()
    }

    /// From below 2 to below 1.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn reduced_once(&self) -> Self {
        let less = self.less_modulus();
        less.or_where(less.is_negative(), self)
    }

    /// The lanes in which the number is fully reduced.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn is_reduced(&self) -> __mmask8 {
        self.less_modulus().is_negative()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn less_modulus(&self) -> Self {
        self.loose().minus(&Self::splat(M::LIMBS).loose()).carried()
    }

    /// Of what a negative number became when its carries were passed on, by its highest limb.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn is_negative(&self) -> __mmask8 {
        _mm512_cmplt_epi64_mask(self.0[4], _mm512_setzero_si512())
    }

    /// The lanes in which every limb is 0.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn is_zero(&self) -> __mmask8 {
        let [a, b, c, d, e] = self.0;
        let any = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(_mm512_or_si512(c, d), e));
        _mm512_cmpeq_epi64_mask(any, _mm512_setzero_si512())
    }

    /// `other` in the lanes of the mask.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn or_where(&self, mask: __mmask8, other: &Self) -> Self {
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            *limb = _mm512_mask_blend_epi64(mask, *limb, other);
        }
        Self::new(limbs)
    }

    /// Below 1 + a b / 16. Begins with the low limbs of `self`, so of two factors the one that is known last is best
    /// placed there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn times(&self, other: &Self) -> Loose<M> {
        let mut columns = [_mm512_setzero_si512(); 10];
        self.multiply_into(other, &mut columns);
        reduce(columns)
    }

    /// self times other plus a times b, reduced together: below 1 plus a sixteenth of both products.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn times_plus(&self, other: &Self, a: &Self, b: &Self) -> Loose<M> {
        let mut columns = [_mm512_setzero_si512(); 10];
        self.multiply_into(other, &mut columns);
        a.multiply_into(b, &mut columns);
        reduce(columns)
    }

    /// Below 1 + a^2 / 16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn squared(&self) -> Loose<M> {
        let a = &self.0;
        let mut columns = [_mm512_setzero_si512(); 10];
        for j in 1..5 {
            for i in 0..j {
                columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], a[i], a[j]);
                columns[i + j + 1] = _mm512_madd52hi_epu64(columns[i + j + 1], a[i], a[j]);
            }
        }
        for i in 0..5 {
            let [low, high] = [columns[2 * i], columns[2 * i + 1]];
            columns[2 * i] = _mm512_madd52lo_epu64(_mm512_add_epi64(low, low), a[i], a[i]);
            columns[2 * i + 1] = _mm512_madd52hi_epu64(_mm512_add_epi64(high, high), a[i], a[i]);
        }
        reduce(columns)
    }

    /// Adds at most nine halves of products, of 52 bits each, to a column.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn multiply_into(&self, other: &Self, columns: &mut Columns) {
        for i in 0..5 {
            for j in 0..5 {
                let (a, b) = (self.0[i], other.0[j]);
                columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], a, b);
                columns[i + j + 1] = _mm512_madd52hi_epu64(columns[i + j + 1], a, b);
            }
        }
    }

    /// The powers 1, 3, 5 to 31.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn odd_powers(&self) -> [Self; 16] {
        let square = self.squared().carried();
        let mut powers = [*self; 16];
        for at in 1..16 {
            powers[at] = powers[at - 1].times(&square).carried();
        }
        powers
    }
}

/// The inverses of both, where that of 0 is 0; below 2, as what is given must be.
///
/// By Fermat's theorem, the powers m - 2, of which nothing is secret. Two take less time together than one after the
/// other, since each has to wait for its own results.
#[target_feature(enable = "avx512f,avx512ifma")]
pub fn invert_both<A: Modulus, B: Modulus>(
    a: &Element<A>,
    b: &Element<B>,
) -> (Element<A>, Element<B>) {
    let (a_powers, b_powers) = (a.odd_powers(), b.odd_powers());
    let (mut a, mut b) = (Element::one(), Element::one());
    for at in (0..256).rev() {
        a = a.squared().carried();
        b = b.squared().carried();
        let (a_window, b_window) = (A::INVERSION[at], B::INVERSION[at]);
        if a_window != 0 {
            a = a.times(&a_powers[usize::from(a_window / 2)]).carried();
        }
        if b_window != 0 {
            b = b.times(&b_powers[usize::from(b_window / 2)]).carried();
        }
    }
    (a, b)
}

/// A number times 1/R: five times, a multiple of m is added that makes the lowest limb vanish.
///
/// A column comes to 28 times 2^52 at most, below 2^57: eighteen halves of products that it had, nine more and a carry.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn reduce<M: Modulus>(mut columns: Columns) -> Loose<M> {
    for i in 0..5 {
        let lowest = columns[i];
        let (quotient, carry) = if M::FACTOR == 1 {
            // Lowest limb and quotient are the same 52 bits: times m + 1 less itself, it vanishes.
            (lowest, _mm512_srli_epi64::<52>(lowest))
        } else {
            let quotient = _mm512_madd52lo_epu64(_mm512_setzero_si512(), lowest, splat(M::FACTOR));
            // What is added to the lowest 52 bits makes them 2^52, unless they are 0.
            let carry = _mm512_srli_epi64::<52>(_mm512_add_epi64(lowest, splat(MASK)));
            (quotient, _mm512_madd52hi_epu64(carry, quotient, splat(M::LIMBS[0])))
        };
        for j in 1..5 {
            if M::ADDEND[j] != 0 {
                let limb = splat(M::ADDEND[j]);
                columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], quotient, limb);
                columns[i + j + 1] = _mm512_madd52hi_epu64(columns[i + j + 1], quotient, limb);
            }
        }
        columns[i + 1] = _mm512_add_epi64(columns[i + 1], carry);
    }
    let [.., a, b, c, d, e] = columns;
    Loose([a, b, c, d, e], PhantomData)
}

impl<M: Modulus> Loose<M> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn zero() -> Self {
        Self([_mm512_setzero_si512(); 5], PhantomData)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn plus(mut self, other: &Self) -> Self {
        for (limb, other) in self.0.iter_mut().zip(other.0) {
            *limb = _mm512_add_epi64(*limb, other);
        }
        self
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn minus(mut self, other: &Self) -> Self {
        for (limb, other) in self.0.iter_mut().zip(other.0) {
            *limb = _mm512_sub_epi64(*limb, other);
        }
        self
    }

    /// Times 2^BITS.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn shifted<const BITS: u32>(mut self) -> Self {
        for limb in &mut self.0 {
            *limb = _mm512_slli_epi64::<BITS>(*limb);
        }
        self
    }

    /// Adds the modulus TIMES times, at most 16, so that what was subtracted leaves no negative number.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn plus_moduli<const TIMES: u64>(mut self) -> Self {
        for (limb, modulus) in self.0.iter_mut().zip(M::LIMBS) {
            *limb = _mm512_add_epi64(*limb, splat(TIMES * modulus));
        }
        self
    }

    /// The negative in the lanes of the mask.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn negated_where(mut self, mask: __mmask8) -> Self {
        for limb in &mut self.0 {
            *limb = _mm512_mask_sub_epi64(*limb, mask, _mm512_setzero_si512(), *limb);
        }
        self
    }

    /// Passes the carries on. A number that was negative is left with a negative highest limb.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn carried(mut self) -> Element<M> {
        for at in 0..4 {
            let carry = _mm512_srai_epi64::<52>(self.0[at]);
            self.0[at + 1] = _mm512_add_epi64(self.0[at + 1], carry);
            self.0[at] = _mm512_and_si512(self.0[at], splat(MASK));
        }
        Element::new(self.0)
    }
}

impl Loose<P> {
    /// Below 1.01, of any number between 0 and 16.
    ///
    /// 2^256 is 2^224 - 2^192 - 2^96 + 1 modulo p, so that what exceeds 256 bits comes back as a few small numbers. How
    /// much that is is known before the carries are, but for 1 in bit 208: 0 may appear as -1, which adds p, and one
    /// too few leaves 2^256 + 2^208.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn reduced(mut self) -> Element<P> {
        let [_, _, _, d, e] = self.0;
        let top = _mm512_add_epi64(e, _mm512_srai_epi64::<52>(d));
        let excess = _mm512_srai_epi64::<48>(top);
        self.0[0] = _mm512_add_epi64(self.0[0], excess);
        self.0[1] = _mm512_sub_epi64(self.0[1], _mm512_slli_epi64::<44>(excess));
        self.0[3] = _mm512_sub_epi64(d, _mm512_slli_epi64::<36>(excess));
        let e = _mm512_sub_epi64(e, _mm512_slli_epi64::<48>(excess));
        self.0[4] = _mm512_add_epi64(e, _mm512_slli_epi64::<16>(excess));
        self.carried()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::lanes::{Ifma, WIDTH, load, store};
    use proptest::prelude::*;

    /// 320 bits, least significant word first.
    type Wide = [u64; 5];

    fn add(a: Wide, b: Wide) -> Wide {
        let mut carry = 0;
        std::array::from_fn(|at| {
            let sum = u128::from(a[at]) + u128::from(b[at]) + carry;
            carry = sum >> 64;
            sum as u64
        })
    }

    /// `None` if b is the larger.
    fn subtract(a: Wide, b: Wide) -> Option<Wide> {
        let mut borrow = false;
        let difference = std::array::from_fn(|at| {
            let (difference, first) = a[at].overflowing_sub(b[at]);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            borrow = first || second;
            difference
        });
        (!borrow).then_some(difference)
    }

    /// Of less than 2^260.
    fn remainder(mut a: Wide, m: Wide) -> Wide {
        while let Some(less) = subtract(a, m) {
            a = less;
        }
        a
    }

    /// Bit by bit.
    fn multiply(a: Wide, b: Wide, m: Wide) -> Wide {
        let (a, b) = (remainder(a, m), remainder(b, m));
        (0..256).rev().fold([0; 5], |product, bit| {
            let product = remainder(add(product, product), m);
            let term = if b[bit / 64] >> (bit % 64) & 1 == 1 { a } else { [0; 5] };
            remainder(add(product, term), m)
        })
    }

    fn words(limbs: Limbs) -> Wide {
        let mut words = [0; 5];
        for (at, limb) in limbs.into_iter().enumerate() {
            let wide = u128::from(limb) << (at * 52 % 64);
            let mut term = [0; 5];
            term[at * 52 / 64] = wide as u64;
            if at < 4 {
                term[at * 52 / 64 + 1] = (wide >> 64) as u64;
            } else {
                term[4] = (wide >> 64) as u64;
            }
            words = add(words, term);
        }
        words
    }

    fn limbs(words: Wide) -> Limbs {
        std::array::from_fn(|at| {
            let (word, shift) = (at * 52 / 64, at * 52 % 64);
            let above = words.get(word + 1).copied().unwrap_or(0);
            ((u128::from(above) << 64 | u128::from(words[word])) >> shift) as u64 & MASK
        })
    }

    fn gather<M: Modulus>(numbers: [Wide; WIDTH]) -> Element<M> {
        let numbers = numbers.map(limbs);
        Element::new(std::array::from_fn(|at| load(numbers.map(|number| number[at]))))
    }

    fn scatter<M>(element: &Element<M>) -> [Wide; WIDTH] {
        let lanes = element.0.map(store);
        std::array::from_fn(|lane| words(lanes.map(|limb| limb[lane])))
    }

    /// Numbers of up to 260 bits, often at an edge.
    fn number() -> impl Strategy<Value = Wide> {
        let moduli = [words(P::LIMBS), words(N::LIMBS)];
        let mut edges = vec![[0; 5], [1, 0, 0, 0, 0], [2, 0, 0, 0, 0]];
        edges.push([u64::MAX, u64::MAX, u64::MAX, u64::MAX, 0]);
        edges.push([u64::MAX, u64::MAX, u64::MAX, u64::MAX, 0xf]);
        for m in moduli {
            let one = [1, 0, 0, 0, 0];
            edges.extend([m, add(m, one), subtract(m, one).unwrap(), add(m, m)]);
        }
        let random = any::<[u64; 5]>().prop_map(|mut words| {
            words[4] &= 0xf;
            words
        });
        // Limbs of only zeros or ones.
        let limbs =
            any::<[bool; 5]>().prop_map(|ones| words(ones.map(|one| u64::from(one) * MASK)));
        prop_oneof![random, limbs, prop::sample::select(edges)]
    }

    fn numbers() -> impl Strategy<Value = [Wide; WIDTH]> {
        prop::array::uniform8(number())
    }

    /// Whether a is less than so many times m.
    fn below(a: Wide, times: u64, m: Wide) -> bool {
        let bound = (0..times).fold([0; 5], |sum, _| add(sum, m));
        subtract(a, bound).is_none()
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn check<M: Modulus>(a: [Wide; WIDTH], b: [Wide; WIDTH], c: [Wide; WIDTH], d: [Wide; WIDTH]) {
        let m = words(M::LIMBS);
        let r = words(M::R);
        let (w, x, y, z) = (gather::<M>(a), gather::<M>(b), gather::<M>(c), gather::<M>(d));
        let times = scatter(&w.times(&x).carried());
        let two = scatter(&w.enter().times_plus(&x.enter(), &y.enter(), &z.enter()).carried());
        let squared = scatter(&w.squared().carried());
        let entered = scatter(&w.enter());
        let left = scatter(&w.leave());
        let fourfold = scatter(&w.leave().loose().shifted::<2>().carried());
        for lane in 0..WIDTH {
            let (a, b, c, d) = (a[lane], b[lane], c[lane], d[lane]);
            let product = |a, b| multiply(a, b, m);
            // Both times R are the same modulo m.
            assert_eq!(product(times[lane], r), product(a, b));
            assert_eq!(product(squared[lane], r), product(a, a));
            assert_eq!(remainder(entered[lane], m), product(a, r));
            assert_eq!(product(left[lane], r), remainder(a, m));
            assert!(below(entered[lane], 2, m) && below(left[lane], 1, m));
            let sum = remainder(add(product(a, b), product(c, d)), m);
            assert_eq!(remainder(two[lane], m), product(sum, r));
            assert!(below(two[lane], 2, m));
            let double = add(left[lane], left[lane]);
            assert_eq!(fourfold[lane], add(double, double));
        }

        // Sums and differences of fully reduced numbers.
        let (x, y) = (w.leave(), x.leave());
        let (a, b) = (scatter(&x), scatter(&y));
        let sum = x.loose().plus(&y.loose()).carried();
        let difference = x.loose().minus(&y.loose()).plus_moduli::<1>().carried();
        let mask = 0b1010_0110;
        let signed = y.loose().negated_where(mask).plus_moduli::<1>().carried();
        let chosen = scatter(&x.or_where(mask, &y));
        let (sums, differences) = (scatter(&sum), scatter(&difference));
        let (reduced_sums, signed) = (scatter(&sum.reduced_once()), scatter(&signed));
        let reduced_differences = scatter(&difference.reduced_once());
        for lane in 0..WIDTH {
            let (a, b, inside) = (a[lane], b[lane], mask >> lane & 1 == 1);
            assert_eq!(sums[lane], add(a, b));
            assert_eq!(differences[lane], subtract(add(a, m), b).unwrap());
            assert_eq!(reduced_sums[lane], remainder(add(a, b), m));
            assert_eq!(reduced_differences[lane], remainder(subtract(add(a, m), b).unwrap(), m));
            let expected = if inside { subtract(m, b).unwrap() } else { add(m, b) };
            assert_eq!(signed[lane], expected);
            assert_eq!(chosen[lane], if inside { b } else { a });
            assert_eq!(sum.is_reduced() >> lane & 1 == 1, below(sums[lane], 1, m));
            assert_eq!(x.is_zero() >> lane & 1 == 1, a == [0; 5]);
        }
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn check_inverses(a: [Wide; WIDTH], b: [Wide; WIDTH]) {
        let (x, y) = (gather::<P>(a).enter(), gather::<N>(b).enter());
        let (x_inverse, y_inverse) = invert_both(&x, &y);
        let x = scatter(&x.times(&x_inverse).carried().leave());
        let y = scatter(&y.times(&y_inverse).carried().leave());
        for lane in 0..WIDTH {
            let zero = |a, m| remainder(a, m) == [0; 5];
            assert_eq!(x[lane], [u64::from(!zero(a[lane], words(P::LIMBS))), 0, 0, 0, 0]);
            assert_eq!(y[lane], [u64::from(!zero(b[lane], words(N::LIMBS))), 0, 0, 0, 0]);
        }
        assert!(scatter(&x_inverse).iter().all(|inverse| below(*inverse, 2, words(P::LIMBS))));
        assert!(scatter(&y_inverse).iter().all(|inverse| below(*inverse, 2, words(N::LIMBS))));
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn check_reduced(a: [Wide; WIDTH], b: [Wide; WIDTH], c: [Wide; WIDTH]) {
        let p = words(P::LIMBS);
        let (x, y, z) = (gather::<P>(a), gather::<P>(b), gather::<P>(c));
        let alone = scatter(&x.loose().reduced());
        let (y, z) = (y.leave(), z.leave());
        let sum = y.loose().shifted::<3>().minus(&z.loose().shifted::<2>()).plus_moduli::<4>();
        let sum = scatter(&sum.reduced());
        let (b, c) = (scatter(&y), scatter(&z));
        let hundredth = [0, 0, 0, 1 << 57, 0];
        for lane in 0..WIDTH {
            assert_eq!(remainder(alone[lane], p), remainder(a[lane], p));
            let minus = subtract(p, c[lane]).unwrap();
            let times = |number, times: u64| multiply(number, [times, 0, 0, 0, 0], p);
            let expected = remainder(add(times(b[lane], 8), times(minus, 4)), p);
            assert_eq!(remainder(sum[lane], p), expected);
            for reduced in [alone[lane], sum[lane]] {
                assert!(subtract(reduced, add(p, hundredth)).is_none());
            }
        }
    }

    #[test]
    fn constants() {
        for (factor, limbs) in [(P::FACTOR, P::LIMBS), (N::FACTOR, N::LIMBS)] {
            assert_eq!(factor.wrapping_mul(limbs[0]) & MASK, MASK);
        }
        assert_eq!(P::FACTOR, 1);
        assert_eq!(P::ADDEND, [0, 1 << 44, 0, 1 << 36, 0xffff_ffff_0000]);
        let hex =
            |m: Limbs| words(m)[..4].iter().rev().map(|w| format!("{w:016x}")).collect::<String>();
        assert_eq!(
            hex(P::LIMBS),
            "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff"
        );
        assert_eq!(
            hex(N::LIMBS),
            "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
        );
        for (m, r, r_squared) in [(P::LIMBS, P::R, P::R_SQUARED), (N::LIMBS, N::R, N::R_SQUARED)]
            .map(|(m, r, s)| (words(m), words(r), words(s)))
        {
            assert_eq!(remainder([0, 0, 0, 0, 1 << 4], m), r);
            assert_eq!(multiply(r, r, m), r_squared);
        }
    }

    proptest! {
        #[test]
        fn arithmetic_is_as_by_hand(a in numbers(), b in numbers(), c in numbers(), d in numbers()) {
            if Ifma::or_skip().is_some() {
                // SAFETY: there is an `Ifma`, so the processor has the instructions.
                unsafe {
                    check::<P>(a, b, c, d);
                    check::<N>(a, b, c, d);
                }
            }
        }

        #[test]
        fn numbers_times_their_inverses_are_one(a in numbers(), b in numbers()) {
            if Ifma::or_skip().is_some() {
                // SAFETY: there is an `Ifma`, so the processor has the instructions.
                unsafe { check_inverses(a, b) };
            }
        }

        #[test]
        fn what_is_above_256_bits_comes_back(a in numbers(), b in numbers(), c in numbers()) {
            if Ifma::or_skip().is_some() {
                // SAFETY: there is an `Ifma`, so the processor has the instructions.
                unsafe { check_reduced(a, b, c) };
            }
        }
    }
}
