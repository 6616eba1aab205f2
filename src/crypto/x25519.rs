//! X25519 (RFC 7748 §5, §6.1) with ephemeral key pairs, eight agreements at a time.

use zeroize::Zeroizing;

use super::{Ifma, WIDTH, edwards, ladder};

/// A public key, a private key or a shared secret, little-endian.
pub type Bytes = [u8; 32];

/// One agreement.
pub struct Agreed {
    /// Their public key.
    pub peer: Bytes,
    /// Ours.
    pub public: Bytes,
    /// In a place of its own, so that it is not copied when this is moved.
    pub secret: Box<Zeroizing<Bytes>>,
}

/// Agrees by the batch, and keeps key pairs of ours in stock. Belongs to one thread.
///
/// Up to seven key pairs wait for the next batch. (A copy of the process would use them too, each with peers of its
/// own, which gives no secret away.)
pub struct Engine {
    ifma: Ifma,
    /// Made eight at a time; each serves one agreement, and is overwritten then. Never grows.
    stock: Vec<KeyPair>,
}

struct KeyPair {
    /// Clamped.
    private: Zeroizing<Bytes>,
    public: Bytes,
}

impl Engine {
    pub fn new(ifma: Ifma) -> Self {
        Self { ifma, stock: Vec::with_capacity(2 * WIDTH) }
    }

    /// What a new key pair each agrees on with these public keys, in their order. `None` where that is zero, as it is
    /// with the public keys of small order (RFC 8446 §7.4.2 has them refused), and where there is no randomness to be
    /// had.
    pub fn agree(&mut self, peers: &[Bytes]) -> Vec<Option<Agreed>> {
        let mut all = Vec::with_capacity(peers.len());
        for peers in peers.chunks(WIDTH) {
            all.extend(self.agree_at_once(peers).into_iter().take(peers.len()));
        }
        all
    }

    fn agree_at_once(&mut self, peers: &[Bytes]) -> [Option<Agreed>; WIDTH] {
        if self.stock.len() < peers.len() {
            // What there is serves some if there is no randomness for more.
            let _ = self.make();
        }
        let left = self.stock.len().saturating_sub(peers.len());
        let own = self.stock.get(left..).unwrap_or_default();
        let mut privates = Zeroizing::new([[0; 32]; WIDTH]);
        let mut us = [[0; 32]; WIDTH];
        for ((private, u), (own, peer)) in
            privates.iter_mut().zip(&mut us).zip(own.iter().zip(peers))
        {
            *private = *own.private;
            *u = *peer;
        }
        let secrets = ladder::multiply(self.ifma, &privates, &us);
        let mut agreed: [Option<Agreed>; WIDTH] = Default::default();
        for (agreed, ((own, peer), secret)) in
            agreed.iter_mut().zip(own.iter().zip(peers).zip(secrets.iter()))
        {
            // All of it is looked at, whatever is found.
            if secret.iter().fold(0, |any, byte| any | byte) != 0 {
                let mut place = Box::new(Zeroizing::new([0; 32]));
                **place = *secret;
                *agreed = Some(Agreed { peer: *peer, public: own.public, secret: place });
            }
        }
        self.stock.truncate(left);
        agreed
    }

    /// Eight more; `None` if there is no randomness to be had.
    fn make(&mut self) -> Option<()> {
        let mut privates = Zeroizing::new([[0; 32]; WIDTH]);
        aws_lc_rs::rand::fill(privates.as_flattened_mut()).ok()?;
        privates.iter_mut().for_each(clamp);
        let publics = edwards::u_coordinates(self.ifma, &privates);
        for (private, public) in privates.iter().zip(publics) {
            self.stock.push(KeyPair { private: Zeroizing::new(*private), public });
        }
        Some(())
    }
}

/// RFC 7748 §5: a multiple of 8 from 2^254 to 2^255 - 8.
fn clamp(private: &mut Bytes) {
    private[0] &= 248;
    private[31] = (private[31] & 127) | 64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
    use proptest::prelude::*;

    fn engine() -> Option<Engine> {
        Ifma::or_skip().map(Engine::new)
    }

    fn hex(text: &str) -> Bytes {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
    }

    fn clamped(mut number: Bytes) -> Bytes {
        clamp(&mut number);
        number
    }

    /// What these private keys agree on with these public keys, at most eight.
    fn secrets(engine: &mut Engine, numbers: &[Bytes], us: &[Bytes]) -> Vec<Option<Bytes>> {
        let pair =
            |number: &Bytes| KeyPair { private: Zeroizing::new(clamped(*number)), public: [0; 32] };
        engine.stock = numbers.iter().map(pair).collect();
        let agreed = engine.agree(us);
        agreed.iter().map(|agreed| agreed.as_ref().map(|agreed| **agreed.secret)).collect()
    }

    /// One agreement in each lane, the others beside it with other numbers.
    fn in_each_lane(engine: &mut Engine, number: Bytes, u: Bytes) -> Option<Bytes> {
        let alone = secrets(engine, &[number], &[u])[0];
        for lane in 0..WIDTH {
            let (mut numbers, mut us) = ([[0x5a; 32]; WIDTH], [[9; 32]; WIDTH]);
            (numbers[lane], us[lane]) = (number, u);
            assert_eq!(secrets(engine, &numbers, &us)[lane], alone, "lane {lane}");
        }
        alone
    }

    #[test]
    fn agrees_with_the_vectors_of_rfc_7748() {
        let Some(mut engine) = engine() else { return };
        for (number, u, expected) in [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ),
        ] {
            assert_eq!(in_each_lane(&mut engine, hex(number), hex(u)), Some(hex(expected)));
        }
        // Iterated, by §5.2.
        let mut number = [0; 32];
        number[0] = 9;
        let mut u = number;
        for _ in 0..1000 {
            let next = secrets(&mut engine, &[number], &[u])[0].unwrap();
            u = number;
            number = next;
        }
        let expected = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
        assert_eq!(number, hex(expected));
    }

    fn by_aws_lc(number: Bytes, u: Bytes) -> Option<Bytes> {
        let private = PrivateKey::from_private_key(&X25519, &number).unwrap();
        let public = UnparsedPublicKey::new(&X25519, u);
        agreement::agree(&private, public, (), |secret| Ok(secret.try_into().unwrap())).ok()
    }

    proptest! {
        #[test]
        fn agrees_with_aws_lc(numbers: [Bytes; WIDTH], us: [Bytes; WIDTH]) {
            let Some(mut engine) = engine() else { return Ok(()) };
            let secrets = secrets(&mut engine, &numbers, &us);
            for lane in 0..WIDTH {
                prop_assert_eq!(secrets[lane], by_aws_lc(numbers[lane], us[lane]));
            }
        }
    }

    /// Where carries, reductions and small orders are at their edges: p and its neighbours, all bits, the public keys
    /// that agree on zero (RFC 7748 §6.1), with the ignored bit and without.
    #[test]
    fn agrees_with_aws_lc_at_the_edges() {
        let Some(mut engine) = engine() else { return };
        let p = {
            let mut p = [0xff_u8; 32];
            p[0] = 0xed;
            p[31] = 0x7f;
            p
        };
        let mut us = vec![
            [0; 32],
            [0xff; 32],
            hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
            hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        ];
        for near in 0..8 {
            let mut small = [0; 32];
            small[0] = near;
            us.push(small);
            let mut around = p;
            around[0] = around[0].wrapping_add(near).wrapping_sub(4);
            us.push(around);
        }
        for at in 0..32 {
            let mut limb = [0; 32];
            limb[at] = 0xff;
            us.push(limb);
            us.push(limb.map(|byte| !byte));
        }
        for u in us.clone() {
            let mut other = u;
            other[31] ^= 0x80;
            us.push(other);
        }
        for number in [[0; 32], [0xff; 32], [0x77; 32], [0x88; 32]] {
            for us in us.chunks(WIDTH) {
                for (secret, u) in
                    secrets(&mut engine, &[number; WIDTH][..us.len()], us).iter().zip(us)
                {
                    assert_eq!(*secret, by_aws_lc(number, *u), "{u:02x?}");
                }
            }
        }
    }

    #[test]
    fn key_pairs_are_new_each_time_and_have_the_public_key_that_aws_lc_computes() {
        let Some(mut engine) = engine() else { return };
        let mut seen = std::collections::HashSet::new();
        for _ in 0..20 {
            engine.make().expect("randomness");
            for pair in engine.stock.drain(..) {
                let private = PrivateKey::from_private_key(&X25519, &*pair.private).unwrap();
                assert_eq!(private.compute_public_key().unwrap().as_ref(), pair.public);
                assert!(seen.insert(pair.public));
            }
        }
    }

    #[test]
    fn each_is_answered_in_order_however_many_they_are() {
        let Some(mut engine) = engine() else { return };
        let mut seen = std::collections::HashSet::new();
        for count in [0, 1, 7, 8, 9, 3, 5, 30] {
            let theirs: Vec<_> =
                (0..count).map(|_| PrivateKey::generate(&X25519).unwrap()).collect();
            let public = |key: &PrivateKey| -> Bytes {
                key.compute_public_key().unwrap().as_ref().try_into().unwrap()
            };
            let peers: Vec<_> = theirs.iter().map(public).collect();
            let agreed = engine.agree(&peers);
            assert_eq!(agreed.len(), count);
            for (agreed, theirs) in agreed.iter().zip(&theirs) {
                let agreed = agreed.as_ref().expect("no peer of small order");
                assert_eq!(agreed.peer, public(theirs));
                assert!(seen.insert(agreed.public), "a key pair serves once");
                let ours = UnparsedPublicKey::new(&X25519, agreed.public);
                let secret = agreement::agree(theirs, ours, (), |secret| Ok(secret.to_vec()));
                assert_eq!(secret, Ok(agreed.secret.to_vec()));
            }
            assert!(engine.stock.len() < WIDTH && engine.stock.capacity() == 2 * WIDTH);
        }
    }

    /// Digits at their edges: all 8, all 15, the least and the greatest that is clamped.
    #[test]
    fn public_keys_are_right_whatever_the_digits() {
        let Some(engine) = engine() else { return };
        let numbers = [0, 0xff, 0x88, 0x77, 0x78, 0x80, 0x08, 0x7f].map(|byte| clamped([byte; 32]));
        for (number, public) in numbers.iter().zip(edwards::u_coordinates(engine.ifma, &numbers)) {
            let private = PrivateKey::from_private_key(&X25519, number).unwrap();
            assert_eq!(private.compute_public_key().unwrap().as_ref(), public, "{number:02x?}");
        }
    }
}
