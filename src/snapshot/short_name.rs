//! A name as an index keeps it: within the entry, so that comparing it costs no other cache line.

use std::sync::Arc;

/// Names of this length or less are kept where they are compared. With it an entry of
/// [`super::Certificates`] is 64 bytes, which is a cache line.
const INLINE_BYTES: usize = 37;

/// Whose map entry this is: a name, or a wildcard's parent.
#[derive(Clone, Debug)]
pub enum ShortName {
    Inline { wildcard: bool, len: u8, bytes: [u8; INLINE_BYTES] },
    Elsewhere { wildcard: bool, name: Arc<str> },
}

impl ShortName {
    pub fn new(wildcard: bool, name: &str) -> Self {
        let mut bytes = [0; INLINE_BYTES];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(name.as_bytes());
                Self::Inline { wildcard, len, bytes }
            }
            _ => Self::Elsewhere { wildcard, name: name.into() },
        }
    }

    pub fn is(&self, wildcard: bool, name: &str) -> bool {
        self.wildcard() == wildcard && self.bytes() == name.as_bytes()
    }

    pub fn wildcard(&self) -> bool {
        match self {
            Self::Inline { wildcard, .. } | Self::Elsewhere { wildcard, .. } => *wildcard,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes, .. } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Elsewhere { name, .. } => name.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_length_are_told_apart() {
        for len in 0..=253 {
            let name = "a".repeat(len);
            for wildcard in [false, true] {
                let kept = ShortName::new(wildcard, &name);
                assert_eq!(kept.bytes(), name.as_bytes());
                assert!(kept.is(wildcard, &name) && !kept.is(!wildcard, &name));
                assert!(!kept.is(wildcard, &format!("{name}b")));
            }
        }
    }

    #[test]
    fn with_certified_keys_it_fills_one_cache_line() {
        assert_eq!(size_of::<(ShortName, super::super::CertificateChoice)>(), 64);
    }
}
