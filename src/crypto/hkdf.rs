//! HKDF with SHA-256 (RFC 5869) for TLS 1.3's key schedule, whose inputs are so short that what aws-lc does around
//! SHA-256 costs as much as SHA-256.

use hmac::{Hmac, KeyInit, Mac};
use rustls::crypto::hmac::Tag;
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use sha2::Sha256;

const HASH_BYTES: usize = 32;

/// Whether the processor has instructions for SHA-256. Where not, aws-lc's is the faster one.
pub fn is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Overwrites what it derives other secrets from.
pub static HKDF_SHA256: &dyn Hkdf = &HkdfSha256;

struct HkdfSha256;

/// Keyed once per secret, of which most are expanded several times.
struct Expander(Hmac<Sha256>);

impl Expander {
    fn new(key: &[u8]) -> Self {
        // Keys of every length are keys (RFC 2104 §2).
        Self(Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!()))
    }
}

impl HkdfSha256 {
    /// §2.2: without a salt it is zeros.
    fn extract(salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        let mut extracting = Expander::new(salt.unwrap_or(&[0; HASH_BYTES])).0;
        extracting.update(secret);
        Box::new(Expander::new(extracting.finalize().as_bytes()))
    }
}

impl Hkdf for HkdfSha256 {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        Self::extract(salt, &[0; HASH_BYTES])
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        Self::extract(salt, secret)
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Expander::new(okm.as_ref()))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        let mut signing = Expander::new(key.as_ref()).0;
        signing.update(message);
        Tag::new(signing.finalize().as_bytes())
    }
}

impl HkdfExpander for Expander {
    /// §2.3: block after block, each from the one before, and the last cut short.
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        if output.len() > 255 * HASH_BYTES {
            return Err(OutputLengthError);
        }
        let mut before = None;
        for (number, block) in (1..=u8::MAX).zip(output.chunks_mut(HASH_BYTES)) {
            let expanded = self.block(before.as_ref(), info, number);
            block.copy_from_slice(&expanded.as_ref()[..block.len()]);
            before = Some(expanded);
        }
        Ok(())
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        OkmBlock::new(self.block(None, info, 1).as_ref())
    }

    fn hash_len(&self) -> usize {
        HASH_BYTES
    }
}

impl Expander {
    fn block(&self, before: Option<&Tag>, info: &[&[u8]], number: u8) -> Tag {
        let mut expanding = self.0.clone();
        before.into_iter().for_each(|before| expanding.update(before.as_ref()));
        info.iter().for_each(|piece| expanding.update(piece));
        expanding.update(&[number]);
        Tag::new(expanding.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::hkdf;
    use proptest::prelude::*;

    struct Length(usize);

    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }

    fn expander_block(salt: Option<&[u8]>, secret: &[u8], info: &[&[u8]]) -> Vec<u8> {
        HKDF_SHA256.extract_from_secret(salt, secret).expand_block(info).as_ref().to_vec()
    }

    #[test]
    fn more_than_255_blocks_are_refused() {
        let expander = HKDF_SHA256.extract_from_zero_ikm(None);
        assert!(expander.expand_slice(&[], &mut [0; 255 * HASH_BYTES]).is_ok());
        assert!(expander.expand_slice(&[], &mut [0; 255 * HASH_BYTES + 1]).is_err());
    }

    #[test]
    fn signs_as_aws_lc_does() {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[7; HASH_BYTES]);
        let ours = HKDF_SHA256.hmac_sign(&OkmBlock::new(&[7; HASH_BYTES]), b"message");
        assert_eq!(ours.as_ref(), aws_lc_rs::hmac::sign(&key, b"message").as_ref());
    }

    proptest! {
        #[test]
        fn derives_what_aws_lc_does(
            salt in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
            secret: Vec<u8>,
            info: [Vec<u8>; 3],
            length in 0usize..200,
        ) {
            let info = info.each_ref().map(Vec::as_slice);
            let first = expander_block(salt.as_deref(), &secret, &info);
            let mut ours = vec![0; length];
            let expander = HKDF_SHA256.extract_from_secret(salt.as_deref(), &secret);
            expander.expand_slice(&info, &mut ours).unwrap();
            let mut theirs = vec![0; length];
            let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt.unwrap_or_default());
            let extracted = salt.extract(&secret);
            extracted.expand(&info, Length(length)).unwrap().fill(&mut theirs).unwrap();
            prop_assert!(ours.iter().zip(&first).all(|(ours, first)| ours == first));
            prop_assert_eq!(ours, theirs);
            let zeros = HKDF_SHA256.extract_from_zero_ikm(Some(&secret));
            let [mut ours, mut theirs] = [[0; 32]; 2];
            zeros.expand_slice(&info, &mut ours).unwrap();
            let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &secret).extract(&[0; 32]);
            extracted.expand(&info, hkdf::HKDF_SHA256).unwrap().fill(&mut theirs).unwrap();
            prop_assert_eq!(ours, theirs);
        }
    }
}
