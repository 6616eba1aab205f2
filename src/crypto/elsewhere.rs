//! What stands in for the lanes on processors of another kind: nothing, for there is never an [`Ifma`].

/// The proof that this processor has AVX-512 with IFMA.
#[derive(Clone, Copy, Debug)]
pub enum Ifma {}

impl Ifma {
    pub fn detect() -> Option<Self> {
        None
    }

    #[cfg(test)]
    pub fn or_skip() -> Option<Self> {
        None
    }
}

pub mod edwards {
    use super::super::WIDTH;
    use super::Ifma;

    pub fn prepare(ifma: Ifma) {
        match ifma {}
    }

    pub fn u_coordinates(ifma: Ifma, _: &[[u8; 32]; WIDTH]) -> [[u8; 32]; WIDTH] {
        match ifma {}
    }
}

pub mod ladder {
    use zeroize::Zeroizing;

    use super::super::WIDTH;
    use super::Ifma;

    pub fn multiply(
        ifma: Ifma,
        _: &[[u8; 32]; WIDTH],
        _: &[[u8; 32]; WIDTH],
    ) -> Zeroizing<[[u8; 32]; WIDTH]> {
        match ifma {}
    }
}

/// Nobody can make one.
pub enum Nonce {}

pub fn nonces(ifma: Ifma) -> Option<[Nonce; super::WIDTH]> {
    match ifma {}
}

pub mod ecdsa {
    use super::{Ifma, Nonce};

    pub fn prepare(ifma: Ifma) {
        match ifma {}
    }

    pub enum SigningKey {}

    impl SigningKey {
        pub fn new(ifma: Ifma, _: &[u8; 32]) -> Option<Self> {
            match ifma {}
        }

        pub fn sign(&self, nonce: Nonce, _: &[u8; 32]) -> Option<Signature> {
            match nonce {}
        }
    }

    pub enum Signature {}

    impl Signature {
        pub fn to_der(self) -> Vec<u8> {
            match self {}
        }
    }
}
