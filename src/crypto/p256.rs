//! Multiples of the base point of P-256, eight at once, in the same time whatever the scalars.
//!
//! A table holds every multiple that a window of a scalar can ask for, so that nothing is doubled: there are 42 mixed
//! additions of Jacobian and affine points.

use std::arch::x86_64::{
    __mmask8, _mm_cvtsi64_si128, _mm512_and_si512, _mm512_mask_blend_epi64, _mm512_mask_xor_epi64,
    _mm512_or_si512, _mm512_permutex2var_epi64, _mm512_setzero_si512, _mm512_sll_epi64,
    _mm512_srl_epi64, _mm512_test_epi64_mask, _mm512_testn_epi64_mask,
};
use std::sync::OnceLock;

use super::lanes::{Ifma, Lanes, WIDTH, splat};
use super::montgomery::{Element, Limbs, Loose, N, P, invert_both};

/// How many windows of six bits a scalar has.
const WINDOWS: usize = 43;

/// How many registers the 32 multiples of a window fill.
const REGISTERS: usize = 4;

/// The base point (SP 800-186 §3.2.1.3).
const BASE_X: Limbs = [
    0x1_3945_d898_c296,
    0x8_12de_b33a_0f4a,
    0x3_a440_f277_037d,
    0x4_247f_8bce_6e56,
    0x6b17_d1f2_e12c,
];
const BASE_Y: Limbs = [
    0x6_4068_37bf_51f5,
    0x5_76b3_15ec_ecbb,
    0xc_0f9e_162b_ce33,
    0x7_f9b8_ee7e_b4a7,
    0x4fe3_42e2_fe1a,
];

/// Eight points (x / z^2, y / z^3), never the point at infinity. x is below 1.01, y below 2.25 and z below 1.25, in
/// units of p.
#[derive(Clone, Copy)]
pub struct Jacobian {
    pub x: Element<P>,
    pub y: Element<P>,
    pub z: Element<P>,
}

/// Eight points with coordinates below 1.
#[derive(Clone, Copy)]
struct Affine {
    x: Element<P>,
    y: Element<P>,
}

impl Affine {
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn jacobian(self) -> Jacobian {
        Jacobian { x: self.x, y: self.y, z: Element::one() }
    }
}

impl Jacobian {
    /// Adds `other`, or its negative in the lanes of the mask; `other` may be neither the same point nor its negative.
    ///
    /// Eight multiplications, of which two are reduced as one, and three squarings.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn plus(&self, other: &Affine, negative: __mmask8) -> Self {
        let z_squared = self.z.squared().carried(); // below 1.1
        let z_cubed = z_squared.times(&self.z).carried(); // 1.1
        // other.x z^2 - x: above 2 - 1.01, below 2 + 1.1
        let h = z_squared.times(&other.x).minus(&self.x.loose()).plus_moduli::<2>().carried();
        // ± other.y z^3 - y: above 4 - 1.1 - 2.25, below 4 + 1.1
        let r = z_cubed.times(&other.y).negated_where(negative);
        let r = r.minus(&self.y.loose()).plus_moduli::<4>().carried();
        let h_squared = h.squared().carried(); // 1.7
        let h_cubed = h_squared.times(&h).carried(); // 1.4
        let v = h_squared.times(&self.x).carried(); // 1.2
        // r^2 - h^3 - 2 v: above 4 - 1.4 - 2.4, below 4 + 2.7
        let x = r.squared().minus(&h_cubed.loose()).minus(&v.loose().shifted::<1>());
        let x = x.plus_moduli::<4>().reduced();
        // r (v - x) - y h^3: below 1 + (5.07 (2 + 1.11) + 3 * 1.31) / 16
        let v_less_x = v.loose().minus(&x.loose()).plus_moduli::<2>().carried();
        let minus_y = Loose::zero().minus(&self.y.loose()).plus_moduli::<3>().carried();
        let y = h_cubed.times_plus(&minus_y, &v_less_x, &r).carried();
        let z = h.times(&self.z).carried(); // below 1 + 1.25 * 3.1 / 16
        Self { x, y, z }
    }

    /// The curve's a is -3, so that 3 x^2 + a z^4 is three times the product of x + z^2 and x - z^2.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn doubled(&self) -> Self {
        let z_squared = self.z.squared().carried(); // 1.1
        let y_squared = self.y.squared().carried(); // 1.4
        let v = self.x.times(&y_squared).carried(); // 1.1
        let sum = self.x.loose().plus(&z_squared.loose()).carried(); // 2.2
        let difference = self.x.loose().minus(&z_squared.loose()).plus_moduli::<2>().carried(); // 3.1
        let slope = sum.times(&difference); // 1.5
        let slope = slope.plus(&slope.shifted::<1>()).reduced(); // 1.01
        // slope^2 - 8 v: above 9 - 8.8, below 9 + 1.1
        let x = slope.squared().minus(&v.loose().shifted::<3>()).plus_moduli::<9>().reduced();
        // slope (4 v - x) - 8 y^4: above 10 - 8 * 1.2, below 10 + 1.5
        let v_less_x = v.loose().shifted::<2>().minus(&x.loose()).plus_moduli::<2>().carried(); // 6.4
        let y_fourth = y_squared.squared().carried();
        let y = slope.times(&v_less_x).minus(&y_fourth.loose().shifted::<3>());
        let y = y.plus_moduli::<10>().reduced();
        let z = self.y.times(&self.z).shifted::<1>().reduced();
        Self { x, y, z }
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn or_where(&self, mask: __mmask8, other: &Self) -> Self {
        Self {
            x: self.x.or_where(mask, &other.x),
            y: self.y.or_where(mask, &other.y),
            z: self.z.or_where(mask, &other.z),
        }
    }

    /// The x coordinate in Montgomery form, below 2, of a point with this inverse of z.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn affine_x(&self, z_inverse: &Element<P>) -> Element<P> {
        self.x.times(&z_inverse.squared().carried()).carried()
    }
}

/// All points' affine coordinates for one inversion: that of the product of all z, from which each is taken out again.
#[target_feature(enable = "avx512f,avx512ifma")]
fn affine(points: &[Jacobian]) -> Vec<Affine> {
    let mut product = Element::one();
    let mut products = Vec::with_capacity(points.len());
    for point in points {
        products.push(product);
        product = product.times(&point.z).carried();
    }
    let (mut inverse, _) = invert_both(&product, &Element::<N>::one());
    let mut affine = Vec::with_capacity(points.len());
    for (point, product) in points.iter().zip(products).rev() {
        let z_inverse = inverse.times(&product).carried();
        inverse = inverse.times(&point.z).carried();
        let z_squared = z_inverse.squared().carried();
        let y = point.y.times(&z_squared.times(&z_inverse).carried()).carried();
        affine.push(Affine { x: point.affine_x(&z_inverse).reduced_once(), y: y.reduced_once() });
    }
    affine.reverse();
    affine
}

/// 32 points, the first eight in the first registers: the limbs of x and then of y.
struct Window([[Lanes; REGISTERS]; 10]);

/// The base point times 1, 3, 5 to 63, and in window i, but for the first, times 2^(6 i - 1) as well: 108 KiB.
pub struct Table(Vec<Window>);

impl Table {
    /// The process's only one, made when it is first asked for, which takes half a millisecond.
    pub fn get(_: Ifma) -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        // SAFETY: there is an `Ifma`, so the processor has the instructions.
        TABLE.get_or_init(|| unsafe { Self::new() })
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    fn new() -> Self {
        let base = Affine {
            x: Element::splat(BASE_X).enter().reduced_once(),
            y: Element::splat(BASE_Y).enter().reduced_once(),
        };
        let mut multiple = base.jacobian();
        let double = affine(&[multiple.doubled()])[0];
        let mut registers = [multiple; REGISTERS];
        for at in 1..REGISTERS * WIDTH {
            // An odd multiple is never twice the base point or its negative.
            multiple = multiple.plus(&double, 0);
            let register = &mut registers[at / WIDTH];
            *register = register.or_where(1 << (at % WIDTH), &multiple);
        }
        let mut points = registers.to_vec();
        for window in 1..WINDOWS {
            for register in &mut registers {
                for _ in 0..if window == 1 { 5 } else { 6 } {
                    *register = register.doubled();
                }
            }
            points.extend(registers);
        }
        let windows = affine(&points);
        Self(windows.chunks_exact(REGISTERS).map(Window::new).collect())
    }

    /// The scalars, from 1 to n - 1, times the base point or its negative, which has the same x.
    ///
    /// Of a scalar and n less the scalar, one is odd, and that is the sum of every power of two from 1 to 2^255, each
    /// added or subtracted: 2^255 is added, and 2^j for a smaller j as bit j + 1 says, 1 for added. Six of them are a
    /// digit (five are the lowest and the highest), odd and so never 0. The highest digit comes first.
    ///
    /// No addition meets a case that its formulas do not cover, the same or opposite points or the one at infinity.
    /// Let S be the sum so far and D the digit to come, as multiples of the base point. S is positive and larger
    /// than |D|, and S + |D| is below 2^256 and so below 2 n: S + D or S - D could only be n, which is odd. Both are
    /// even unless D is the lowest digit. Then S + D is the scalar, which is not n. And if S - D were n, -D would be
    /// the lowest digit of n, which is -15 (bits 1 to 5 of n, of which bit 5 is 0), so that the scalar were n + 30.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub fn multiply(&self, scalars: &Element<N>) -> Jacobian {
        let even = _mm512_testn_epi64_mask(scalars.limbs()[0], splat(1));
        let opposite = Loose::zero().minus(&scalars.loose()).plus_moduli::<1>().carried();
        let [a, b, c, d, e] = *scalars.or_where(even, &opposite).limbs();
        // Bit 256 says that 2^255 is positive.
        let bits = [a, b, c, d, _mm512_or_si512(e, splat(1 << 48)), _mm512_setzero_si512()];
        let (index, _) = digit(&bits, 252, 5);
        let mut sum = self.look_up(WINDOWS - 1, index).jacobian();
        for window in (1..WINDOWS - 1).rev() {
            let (index, negative) = digit(&bits, 6 * window, 6);
            sum = sum.plus(&self.look_up(window, index), negative);
        }
        let (index, negative) = digit(&bits, 1, 5);
        sum.plus(&self.look_up(0, index), negative)
    }

    /// Every lane's own point, by its index below 32, for which all are read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn look_up(&self, window: usize, index: Lanes) -> Affine {
        let upper = _mm512_test_epi64_mask(index, splat(16));
        let [a, b, c, d, e, f, g, h, i, j] = self.0[window].0.each_ref().map(|limb| {
            let lower_half = _mm512_permutex2var_epi64(limb[0], index, limb[1]);
            let upper_half = _mm512_permutex2var_epi64(limb[2], index, limb[3]);
            _mm512_mask_blend_epi64(upper, lower_half, upper_half)
        });
        Affine { x: Element::new([a, b, c, d, e]), y: Element::new([f, g, h, i, j]) }
    }
}

impl Window {
    fn new(points: &[Affine]) -> Self {
        Self(std::array::from_fn(|limb| {
            std::array::from_fn(|register| {
                let point = &points[register];
                if limb < 5 { point.x.limbs()[limb] } else { point.y.limbs()[limb - 5] }
            })
        }))
    }
}

/// The window of `width` bits from bit `at` on, as the index of an odd number, and where it is negative.
///
/// Bits b stand for 2 b + 1 - 2^width: positive where the highest is 1, the others being the index, and else the
/// negative of what the inverted bits stand for.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn digit(bits: &[Lanes; 6], at: usize, width: usize) -> (Lanes, __mmask8) {
    let (limb, shift) = (at / 52, at as i64 % 52);
    let window = _mm512_or_si512(
        _mm512_srl_epi64(bits[limb], _mm_cvtsi64_si128(shift)),
        _mm512_sll_epi64(bits[limb + 1], _mm_cvtsi64_si128(52 - shift)),
    );
    let negative = _mm512_testn_epi64_mask(window, splat(1 << (width - 1)));
    let inverted = _mm512_mask_xor_epi64(window, negative, window, splat(u64::MAX));
    (_mm512_and_si512(inverted, splat((1 << (width - 1)) - 1)), negative)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::lanes::{join, split};
    use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
    use proptest::prelude::*;

    type Bytes = [u8; 32];

    /// The order less a small number, little-endian.
    fn order_less(less: u64) -> Bytes {
        let words = [0xf3b9_cac2_fc63_2551 - less, 0xbce6_faad_a717_9e84, u64::MAX, u64::MAX << 32];
        words.map(u64::to_le_bytes).as_flattened().try_into().unwrap()
    }

    fn small(number: u64) -> Bytes {
        let words = [number, 0, 0, 0];
        words.map(u64::to_le_bytes).as_flattened().try_into().unwrap()
    }

    fn halved(mut number: Bytes) -> Bytes {
        for at in 0..32 {
            number[at] = number[at] >> 1 | number.get(at + 1).map_or(0, |next| next << 7);
        }
        number
    }

    /// The points of the scalars, little-endian, or their negatives: x, y and -y, big-endian.
    fn points(ifma: Ifma, scalars: &[Bytes; WIDTH]) -> [[Bytes; 3]; WIDTH] {
        #[target_feature(enable = "avx512f,avx512ifma")]
        fn coordinates(table: &Table, scalars: &[Bytes; WIDTH]) -> [[Bytes; WIDTH]; 3] {
            let point = table.multiply(&Element::new(split::<52>(scalars)));
            let Affine { x, y } = affine(&[point])[0];
            let minus_y = Loose::zero().minus(&y.loose()).plus_moduli::<1>().carried();
            [x, y, minus_y].map(|coordinate| join::<52>(coordinate.leave().limbs()))
        }
        // SAFETY: there is an `Ifma`, so the processor has the instructions.
        let [x, y, minus_y] = unsafe { coordinates(Table::get(ifma), scalars) };
        std::array::from_fn(|lane| {
            [x[lane], y[lane], minus_y[lane]].map(|mut coordinate| {
                coordinate.reverse();
                coordinate
            })
        })
    }

    fn check(ifma: Ifma, scalars: &[Bytes; WIDTH]) {
        for (mut scalar, [x, y, minus_y]) in scalars.iter().copied().zip(points(ifma, scalars)) {
            scalar.reverse();
            let key = PrivateKey::from_private_key(&ECDH_P256, &scalar).unwrap();
            let public = key.compute_public_key().unwrap();
            assert_eq!(public.as_ref()[1..33], x, "{scalar:x?}");
            assert!(public.as_ref()[33..] == y || public.as_ref()[33..] == minus_y);
        }
    }

    /// In every lane, in turn.
    fn check_all(ifma: Ifma, scalars: &[Bytes]) {
        for from in 0..scalars.len() {
            let lane = |lane| scalars[(from + lane * 5) % scalars.len()];
            check(ifma, &std::array::from_fn(lane));
        }
    }

    #[test]
    fn scalars_at_the_edges() {
        let Some(ifma) = Ifma::or_skip() else { return };
        let mut scalars: Vec<_> = (1..=130).flat_map(|at| [small(at), order_less(at)]).collect();
        let mut middle = halved(order_less(1));
        scalars.push(middle);
        middle[0] += 1;
        scalars.push(middle);
        for nibble in 0..15 {
            scalars.push([nibble << 4 | nibble; 32]);
        }
        scalars.remove(scalars.iter().position(|scalar| *scalar == [0; 32]).unwrap());
        for bit in 0..256 {
            let mut power = [0; 32];
            power[bit / 8] = 1 << (bit % 8);
            scalars.push(power);
            // 2^bit - 1, and the bits above that.
            let mut low = [0; 32];
            for at in 0..bit {
                low[at / 8] |= 1 << (at % 8);
            }
            if bit > 0 {
                scalars.push(low);
            }
            if bit > 32 {
                let mut high = low.map(|byte| !byte);
                high[28] &= 0xfe;
                scalars.push(high);
            }
        }
        check_all(ifma, &scalars);
    }

    /// 30 2^252 - n, whose last addition would be of equal points if the lowest digit came first.
    #[test]
    fn a_scalar_that_is_twice_a_digit_modulo_the_order() {
        let Some(ifma) = Ifma::or_skip() else { return };
        let mut borrow = 0i32;
        let mut scalar = order_less(0);
        for (at, byte) in scalar.iter_mut().enumerate() {
            // 30 2^252 is 2^256 + 14 2^252, whose first byte is dropped with the last borrow.
            let difference = if at == 31 { 0xe0 } else { 0 } - i32::from(*byte) + borrow;
            *byte = difference as u8;
            borrow = difference >> 8;
        }
        check(ifma, &[scalar; WIDTH]);
    }

    #[test]
    fn the_table_has_what_it_says() {
        let Some(ifma) = Ifma::or_skip() else { return };
        #[target_feature(enable = "avx512f,avx512ifma")]
        fn entry(table: &Table, window: usize, register: usize) -> [[Bytes; WIDTH]; 2] {
            let limbs = table.0[window].0.map(|limb| limb[register]);
            let [a, b, c, d, e, f, g, h, i, j] = limbs;
            [[a, b, c, d, e], [f, g, h, i, j]]
                .map(|limbs| join::<52>(Element::<P>::new(limbs).leave().limbs()))
        }
        let table = Table::get(ifma);
        assert_eq!(table.0.len(), WINDOWS);
        for window in 0..WINDOWS {
            for at in 0..32u8 {
                let mut scalar = [0; 32];
                let shift = (6 * window).saturating_sub(1);
                let multiple = u16::from(2 * at + 1) << (shift % 8);
                scalar[31 - shift / 8] = multiple as u8;
                match 30usize.checked_sub(shift / 8) {
                    Some(above) => scalar[above] = (multiple >> 8) as u8,
                    // The last window is not used above 31.
                    None if multiple > 0xff => continue,
                    None => {}
                }
                let Ok(key) = PrivateKey::from_private_key(&ECDH_P256, &scalar) else { continue };
                let public = key.compute_public_key().unwrap();
                // SAFETY: there is an `Ifma`, so the processor has the instructions.
                let [x, y] = unsafe { entry(table, window, usize::from(at / 8)) };
                for (mut ours, theirs) in
                    [(x, &public.as_ref()[1..33]), (y, &public.as_ref()[33..])]
                        .map(|(lanes, theirs)| (lanes[usize::from(at % 8)], theirs))
                {
                    ours.reverse();
                    assert_eq!(ours, theirs, "window {window}, multiple {at}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_scalars(mut scalars: [Bytes; WIDTH]) {
            let Some(ifma) = Ifma::or_skip() else { return Ok(()) };
            for scalar in &mut scalars {
                // Below the order, and not 0.
                scalar[28] &= 0xfe;
                scalar[0] |= 1;
            }
            check(ifma, &scalars);
            for scalar in &mut scalars {
                scalar[0] ^= 1;
                scalar[1] |= 1;
            }
            check(ifma, &scalars);
        }
    }
}
