//! Eight multiples at once of the base point of curve25519, on its Edwards form -x² + y² = 1 + d x² y²
//! (RFC 7748 §4.1), whose addition has no exceptions.

use std::arch::x86_64::{
    __mmask8, _mm512_cmpeq_epi64_mask, _mm512_cmpgt_epi64_mask, _mm512_max_epi64, _mm512_sub_epi64,
};
use std::sync::OnceLock;

use zeroize::Zeroizing;

use super::field25519::{Field, Wide};
use super::lanes::{Ifma, Lanes, WIDTH, load, splat};

/// The base point's x and y, and 2 d, in limbs of 51 bits.
const BASE_X: [u64; 5] = [
    0x6_2d60_8f25_d51a,
    0x4_12a4_b4f6_592a,
    0x7_5b71_71a4_b31d,
    0x1_ff60_5271_18fe,
    0x2_1693_6d3c_d6e5,
];
const BASE_Y: [u64; 5] = [
    0x6_6666_6666_6658,
    0x4_cccc_cccc_cccc,
    0x1_9999_9999_9999,
    0x3_3333_3333_3333,
    0x6_6666_6666_6666,
];
const TWICE_D: [u64; 5] = [
    0x6_9b94_26b2_f159,
    0x3_5050_762a_dd7a,
    0x3_cf44_c003_8052,
    0x6_738c_c740_7977,
    0x2_406d_9dc5_6dff,
];

/// Every second of the 64 digits has entries of its own: 30 KiB, and four doublings for the others.
const WINDOWS: usize = 32;
const DIGITS: usize = 2 * WINDOWS;

/// Eight points with x = X / Z, y = Y / Z, x y = T / Z, as the products that they are.
#[derive(Clone, Copy)]
struct Point {
    x: Wide,
    y: Wide,
    z: Wide,
    t: Wide,
}

/// Eight points as they are added: y + x, y - x, 2 d x y.
#[derive(Clone, Copy)]
struct Addend {
    sum: Field,
    difference: Field,
    product: Field,
}

/// For every second digit its multiples: lane i of entry w holds (i + 1) 256^w times the base point.
struct Table(Box<[Addend]>);

static TABLE: OnceLock<Table> = OnceLock::new();

/// Computes what [`u_coordinates`] looks up, once in a process; half a millisecond.
pub fn prepare(ifma: Ifma) {
    table(ifma);
}

fn table(_: Ifma) -> &'static Table {
    // SAFETY: an `Ifma` says that the processor has the instructions.
    TABLE.get_or_init(|| unsafe { Table::new() })
}

/// The u coordinates (RFC 7748 §4.1) of these multiples of the base point; the numbers are clamped.
pub fn u_coordinates(ifma: Ifma, numbers: &[[u8; 32]; WIDTH]) -> [[u8; 32]; WIDTH] {
    let table = table(ifma);
    // SAFETY: as above.
    unsafe { table.u_coordinates(&digits(numbers)) }
}

/// The last step of addition and doubling (Hisil, Wong, Carter, Dawson, "Twisted Edwards Curves Revisited", 2008).
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn finish(e: Field, f: Field, g: Field, h: Field) -> Point {
    Point { x: e.times(f), y: g.times(h), z: f.times(g), t: e.times(h) }
}

impl Point {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn identity() -> Self {
        let (zero, one) = (Field::zero().wide(), Field::one().wide());
        Self { x: zero, y: one, z: one, t: zero }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn plus(self, other: Addend) -> Self {
        let a = self.y.minus(self.x).carried().times(other.difference);
        let b = self.y.plus(self.x).carried().times(other.sum);
        let c = self.t.carried().times(other.product);
        let d = self.z.plus(self.z);
        finish(b.minus(a).carried(), d.minus(c).carried(), d.plus(c).carried(), b.plus(a).carried())
    }

    /// For a = -1 (the same, §3.3), with all four of e, f, g and h negated, which their products do not show.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn doubled(self) -> Self {
        let (x, y, z) = (self.x.carried(), self.y.carried(), self.z.carried());
        let a = x.squared();
        let b = y.squared();
        let c = z.squared();
        let h = a.plus(b).carried();
        let sum = self.x.plus(self.y).carried().squared();
        let e = h.minus(sum.carried());
        let g = a.minus(b).carried();
        let f = c.plus(c).carried().plus(g);
        finish(e, f, g, h)
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn addend(self) -> Addend {
        let inverse = self.z.carried().inverted();
        let x = self.x.carried().times(inverse);
        let y = self.y.carried().times(inverse);
        let product = x.carried().times(y.carried()).carried();
        Addend {
            sum: y.plus(x).carried(),
            difference: y.minus(x).carried(),
            product: product.times(Field::splat(TWICE_D)).carried(),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn or(self, other: Self, mask: __mmask8) -> Self {
        Self {
            x: self.x.or(other.x, mask),
            y: self.y.or(other.y, mask),
            z: self.z.or(other.z, mask),
            t: self.t.or(other.t, mask),
        }
    }
}

impl Addend {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn identity() -> Self {
        Self { sum: Field::one(), difference: Field::one(), product: Field::zero() }
    }

    /// Each lane's digit, -8 to 8, of these multiples.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn times(&self, digit: Lanes) -> Self {
        let zero = splat(0);
        let negated = _mm512_sub_epi64(zero, digit);
        let index = _mm512_sub_epi64(_mm512_max_epi64(digit, negated), splat(1));
        let picked = Self {
            sum: self.sum.picked(index),
            difference: self.difference.picked(index),
            product: self.product.picked(index),
        };
        let opposite = Self {
            sum: picked.difference,
            difference: picked.sum,
            product: Field::zero().minus(picked.product),
        };
        picked
            .or(opposite, _mm512_cmpgt_epi64_mask(zero, digit))
            .or(Self::identity(), _mm512_cmpeq_epi64_mask(digit, zero))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn or(self, other: Self, mask: __mmask8) -> Self {
        Self {
            sum: self.sum.or(other.sum, mask),
            difference: self.difference.or(other.difference, mask),
            product: self.product.or(other.product, mask),
        }
    }
}

impl Table {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new() -> Self {
        let (x, y) = (Field::splat(BASE_X), Field::splat(BASE_Y));
        let base = Point { x: x.wide(), y: y.wide(), z: Field::one().wide(), t: x.times(y) };
        let addend = base.addend();
        let mut multiples = base;
        for lane in 1..WIDTH {
            // One more in this lane and all behind it.
            multiples = multiples.or(multiples.plus(addend), 0xff << lane);
        }
        let mut windows = Vec::with_capacity(WINDOWS);
        for _ in 0..WINDOWS {
            windows.push(multiples.addend());
            for _ in 0..8 {
                multiples = multiples.doubled();
            }
        }
        Self(windows.into())
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn u_coordinates(&self, digits: &Digits) -> [[u8; 32]; WIDTH] {
        let mut sum = Point::identity();
        for odd in [1, 0] {
            for (window, multiples) in self.0.iter().enumerate() {
                sum = sum.plus(multiples.times(load(digits[2 * window + odd])));
            }
            if odd == 1 {
                for _ in 0..4 {
                    sum = sum.doubled();
                }
            }
        }
        // (1 + y) / (1 - y). Eight times the order of the base point is above 2^255, so that no clamped multiple
        // is the identity, whose y is 1.
        let inverse = sum.z.minus(sum.y).carried().inverted();
        sum.z.plus(sum.y).carried().times(inverse).carried().to_bytes()
    }
}

type Digits = Zeroizing<[[u64; WIDTH]; DIGITS]>;

/// Each number as 64 digits from -8 to 8, least significant first. A clamped number is below 2^255, so that the last
/// digit has room for the last carry.
fn digits(numbers: &[[u8; 32]; WIDTH]) -> Digits {
    let mut digits = Zeroizing::new([[0; WIDTH]; DIGITS]);
    for (lane, number) in numbers.iter().enumerate() {
        let mut carry = 0;
        for at in 0..DIGITS {
            let nibble = (number[at / 2] >> (4 * (at % 2))) & 15;
            let digit = i64::from(nibble) + carry;
            carry = if at + 1 < DIGITS { (digit + 8) >> 4 } else { 0 };
            digits[at][lane] = (digit - (carry << 4)).cast_unsigned();
        }
    }
    digits
}
