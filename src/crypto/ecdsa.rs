//! Signs with ECDSA over P-256, with nonces that are made eight at a time.

use std::fmt;

use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::lanes::{Ifma, WIDTH, join, split, store};
use super::montgomery::{Element, Limbs, N, invert_both};
use super::p256::Table;

/// A private key of P-256. Its scalar is overwritten when it is dropped.
pub struct SigningKey {
    /// In Montgomery form.
    scalar: Zeroizing<Limbs>,
}

impl SigningKey {
    /// `None` unless the scalar, big-endian, is between 1 and n - 1 (SEC 1 §3.2.1).
    pub fn new(_: Ifma, scalar_be: &[u8; 32]) -> Option<Self> {
        let scalars = Zeroizing::new([reversed(scalar_be); WIDTH]);
        // SAFETY: there is an `Ifma`, so the processor has the instructions.
        let (valid, scalar) = unsafe { (valid(&scalars), montgomery(&scalars)) };
        (valid == ALL).then_some(Self { scalar })
    }

    /// A signature of what has this digest, which is taken as an integer modulo n. `None` where FIPS 186-5 §6.4.1 wants
    /// another nonce, as it hardly ever does.
    pub fn sign(&self, nonce: Nonce, digest: &[u8; 32]) -> Option<Signature> {
        // SAFETY: the key was made with an `Ifma`, so the processor has the instructions.
        unsafe { self.sign_in_lanes(&nonce, digest) }
    }

    /// s = (e + r d) / k of FIPS 186-5 §6.4.1; `None` where r or s is 0.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn sign_in_lanes(&self, nonce: &Nonce, digest: &[u8; 32]) -> Option<Signature> {
        // All lanes compute the same.
        let e = Element::<N>::new(split::<52>(&[reversed(digest); WIDTH]));
        let [inverse, r] = **nonce.0;
        let r = Element::splat(r);
        // In units of n: the product is below 1.2 and e below 2, so that s is below 1.4.
        let sum = r.times(&Element::splat(*self.scalar)).plus(&e.loose()).carried();
        let s = sum.times(&Element::splat(inverse)).carried().reduced_once();
        ((r.is_zero() | s.is_zero()) == 0).then(|| Signature { r: integer(&r), s: integer(&s) })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").finish_non_exhaustive()
    }
}

/// What signing needs of a secret number k: 1/k in Montgomery form, and r, the x coordinate of k times the base point,
/// modulo n.
///
/// It signs once: a second signature with it would give the private key away, and so would a copy of the process that
/// has it. It lies in a place of its own, so that it is not copied when this is moved, and is overwritten when it is
/// dropped.
pub struct Nonce(Box<Zeroizing<[Limbs; 2]>>);

/// Makes the table of multiples that [`nonces`] needs, once in a process; that takes half a millisecond.
pub fn prepare(ifma: Ifma) {
    Table::get(ifma);
}

/// Eight nonces, in the time of two signatures of aws-lc; `None` if no randomness could be had.
///
/// From secret numbers by rejection sampling (FIPS 186-5 §A.3.2): all from 1 to n - 1 are as likely.
pub fn nonces(ifma: Ifma) -> Option<[Nonce; WIDTH]> {
    let scalars = draw(ifma, |scalars| rand::fill(scalars.as_flattened_mut()).ok())?;
    // SAFETY: there is an `Ifma`, so the processor has the instructions.
    Some(unsafe { make(Table::get(ifma), &scalars) })
}

/// Scalars between 1 and n - 1 from what `fill` draws.
fn draw(_: Ifma, mut fill: impl FnMut(&mut Scalars) -> Option<()>) -> Option<Zeroizing<Scalars>> {
    let mut scalars = Zeroizing::new([[0; 32]; WIDTH]);
    let mut accepted = 0;
    while accepted != ALL {
        // One draw for all, and again for those, hardly ever any, that were out of range.
        let mut drawn = Zeroizing::new([[0; 32]; WIDTH]);
        fill(&mut drawn)?;
        for lane in (0..WIDTH).filter(|lane| accepted >> lane & 1 == 0) {
            scalars[lane] = drawn[lane];
        }
        // SAFETY: there is an `Ifma`, so the processor has the instructions.
        accepted = unsafe { valid(&scalars) };
    }
    Some(scalars)
}

/// Eight integers, little-endian.
type Scalars = [[u8; 32]; WIDTH];

/// All lanes.
const ALL: u8 = 0xff;

/// The lanes whose scalars are between 1 and n - 1.
#[target_feature(enable = "avx512f,avx512ifma")]
fn valid(scalars: &Scalars) -> u8 {
    let scalars = Element::<N>::new(split::<52>(scalars));
    scalars.is_reduced() & !scalars.is_zero()
}

/// The first scalar in Montgomery form.
#[target_feature(enable = "avx512f,avx512ifma")]
fn montgomery(scalars: &Scalars) -> Zeroizing<Limbs> {
    let scalars = Element::<N>::new(split::<52>(scalars)).enter();
    Zeroizing::new(scalars.limbs().map(|limb| store(limb)[0]))
}

/// The nonces of scalars between 1 and n - 1.
#[target_feature(enable = "avx512f,avx512ifma")]
fn make(table: &Table, scalars: &Scalars) -> [Nonce; WIDTH] {
    let mut nonces: [_; WIDTH] =
        std::array::from_fn(|_| Nonce(Box::new(Zeroizing::new([[0; 5]; 2]))));
    let scalars = Element::<N>::new(split::<52>(scalars));
    let point = table.multiply(&scalars);
    let (z_inverse, inverses) = invert_both(&point.z, &scalars.enter());
    // Below p, which is below 2 n.
    let x = point.affine_x(&z_inverse).leave();
    let rs = Element::<N>::new(*x.limbs()).reduced_once();
    for at in 0..5 {
        let (inverses, rs) = (store(inverses.limbs()[at]), store(rs.limbs()[at]));
        for (nonce, (inverse, r)) in nonces.iter_mut().zip(inverses.into_iter().zip(rs)) {
            nonce.0[0][at] = inverse;
            nonce.0[1][at] = r;
        }
    }
    nonces
}

/// Two integers between 1 and n - 1, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
}

impl Signature {
    /// An ECDSA-Sig-Value (RFC 3279 §2.2.3), 72 bytes at most: a SEQUENCE of two INTEGERs.
    pub fn to_der(self) -> Vec<u8> {
        let mut der = Vec::with_capacity(72);
        der.extend([0x30, 0]);
        for integer in [&self.r, &self.s] {
            let zeros = integer.iter().take_while(|byte| **byte == 0).count();
            let digits = &integer[zeros..];
            // A first bit of 1 would make it negative.
            let sign = usize::from(digits.first().is_none_or(|byte| byte & 0x80 != 0));
            der.extend([0x02, (sign + digits.len()) as u8]);
            der.extend(&[0][..sign]);
            der.extend(digits);
        }
        der[1] = (der.len() - 2) as u8;
        der
    }
}

fn reversed(bytes: &[u8; 32]) -> [u8; 32] {
    let mut reversed = *bytes;
    reversed.reverse();
    reversed
}

/// What the first lane has, which is fully reduced, big-endian.
#[target_feature(enable = "avx512f,avx512ifma")]
fn integer(element: &Element<N>) -> [u8; 32] {
    reversed(&join::<52>(element.limbs())[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use aws_lc_rs::{agreement, digest};
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn unhex(hex: &str) -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

    fn sha256(message: &[u8]) -> [u8; 32] {
        digest::digest(&digest::SHA256, message).as_ref().try_into().unwrap()
    }

    /// A big-endian number below 256.
    fn small(number: u8) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[31] = number;
        bytes
    }

    fn nonce(ifma: Ifma, scalar_be: &[u8; 32]) -> Nonce {
        let scalars = [reversed(scalar_be); WIDTH];
        // SAFETY: there is an `Ifma`, so the processor has the instructions.
        let [nonce, ..] = unsafe { make(Table::get(ifma), &scalars) };
        nonce
    }

    fn public_key(scalar: &[u8; 32]) -> Vec<u8> {
        let key = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, scalar).unwrap();
        key.compute_public_key().unwrap().as_ref().to_vec()
    }

    fn verifies(public_key: &[u8], message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
            .verify(message, &signature.to_der())
            .is_ok()
    }

    /// RFC 6979 A.2.5.
    #[test]
    fn known_nonces_give_known_signatures() {
        let Some(ifma) = Ifma::or_skip() else { return };
        let key = unhex("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721");
        let key = SigningKey::new(ifma, &key).unwrap();
        for (message, k, r, s) in [
            (
                "sample",
                "a6e3c57dd01abe90086538398355dd4c3b17aa873382b0f24d6129493d8aad60",
                "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
                "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
            ),
            (
                "test",
                "d16b6ae827f17175e040871a1c7ec3500192c4c92677336ec2537acaee0008e0",
                "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
                "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
            ),
        ] {
            let digest = sha256(message.as_bytes());
            let signature = key.sign(nonce(ifma, &unhex(k)), &digest).unwrap();
            assert_eq!(signature, Signature { r: unhex(r), s: unhex(s) });
        }
    }

    #[test]
    fn a_scalar_out_of_range_is_no_key() {
        let Some(ifma) = Ifma::or_skip() else { return };
        let order = unhex(ORDER);
        let (mut less, mut more) = (order, order);
        less[31] -= 1;
        more[31] += 1;
        for (scalar, valid) in [
            ([0; 32], false),
            (small(1), true),
            (less, true),
            (order, false),
            (more, false),
            ([0xff; 32], false),
        ] {
            assert_eq!(SigningKey::new(ifma, &scalar).is_some(), valid);
        }
    }

    #[test]
    fn another_verifies_thousands() {
        let Some(ifma) = Ifma::or_skip() else { return };
        let mut stock = Vec::new();
        let mut seen = HashSet::new();
        for at in 0..4000u32 {
            let scalar = sha256(&(at / 50).to_be_bytes());
            let (key, public) = (SigningKey::new(ifma, &scalar).unwrap(), public_key(&scalar));
            let message = at.to_be_bytes();
            if stock.is_empty() {
                stock.extend(nonces(ifma).unwrap());
            }
            let signature = key.sign(stock.pop().unwrap(), &sha256(&message)).unwrap();
            assert!(verifies(&public, &message, &signature));
            assert!(seen.insert(signature.r));
        }
    }

    #[test]
    fn a_digest_is_taken_modulo_the_order() {
        let Some(ifma) = Ifma::or_skip() else { return };
        let key = SigningKey::new(ifma, &[0x35; 32]).unwrap();
        let signed = |digest| key.sign(nonce(ifma, &[0x77; 32]), &digest).unwrap();
        let order = unhex(ORDER);
        let mut above = order;
        above[31] += 1;
        assert_eq!(signed(order), signed(small(0)));
        assert_eq!(signed(above), signed(small(1)));
        assert_ne!(signed(small(0)), signed(small(1)));
    }

    #[test]
    fn what_is_out_of_range_is_drawn_again_and_nothing_else() {
        let Some(ifma) = Ifma::or_skip() else { return };
        let little = |big: [u8; 32]| reversed(&big);
        let first = [
            [0; 32],
            [1; 32],
            little(unhex(ORDER)),
            [2; 32],
            [0xff; 32],
            [3; 32],
            [4; 32],
            [5; 32],
        ];
        let mut draws = [first, [[6; 32]; WIDTH], [[7; 32]; WIDTH]].into_iter();
        let scalars = draw(ifma, |drawn| {
            *drawn = draws.next()?;
            Some(())
        });
        let six = [6; 32];
        assert_eq!(*scalars.unwrap(), [six, [1; 32], six, [2; 32], six, [3; 32], [4; 32], [5; 32]]);
        assert!(draw(ifma, |_| None).is_none());
        let mut times = 0;
        let out = draw(ifma, |_| {
            times += 1;
            (times == 1).then_some(())
        });
        assert!(out.is_none(), "zeros, and then no randomness");
    }

    #[test]
    fn a_zero_is_not_given_out() {
        let Some(ifma) = Ifma::or_skip() else { return };
        let key = SigningKey::new(ifma, &small(1)).unwrap();
        // k = d = 1, and e is n less the x coordinate of the base point, so that s is 0.
        let digest = unhex("94e82e0c1ed3bdb90743191a9c5bbf0d45e37d2c792c6ae3ff18917d23ca62bb");
        assert_eq!(key.sign(nonce(ifma, &small(1)), &digest), None);
        let mut without_r = nonce(ifma, &small(2));
        without_r.0[1] = [0; 5];
        assert_eq!(key.sign(without_r, &digest), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let Some(ifma) = Ifma::or_skip() else { return };
        let key = SigningKey::new(ifma, &[0x35; 32]).unwrap();
        assert_eq!(format!("{key:?}"), "SigningKey { .. }");
    }

    #[test]
    fn integers_are_encoded_minimally() {
        let (mut r, mut s) = ([0; 32], [0xff; 32]);
        r[31] = 0x80;
        s[0] = 0x7f;
        let mut expected = vec![0x30, 38, 2, 2, 0, 0x80, 2, 32];
        expected.extend(s);
        assert_eq!(Signature { r, s }.to_der(), expected);
        let longest = Signature { r: [0xff; 32], s: [0xff; 32] }.to_der();
        assert_eq!((longest.len(), longest[1]), (72, 70));
    }

    proptest! {
        #[test]
        fn any_key_signs_any_message(scalar: [u8; 32], message: Vec<u8>) {
            let Some(ifma) = Ifma::or_skip() else { return Ok(()) };
            if let Some(key) = SigningKey::new(ifma, &scalar) {
                for nonce in nonces(ifma).unwrap() {
                    let signature = key.sign(nonce, &sha256(&message)).unwrap();
                    prop_assert!(verifies(&public_key(&scalar), &message, &signature));
                }
            }
        }
    }
}
