//! What handshakes compute and aws-lc is slower at: public-key operations, eight at a time, where the processor has
//! AVX-512 IFMA (elsewhere there are none, and callers ask aws-lc), and the key schedule.
//!
//! Secrets are overwritten in memory that has an owner; what the compiler spills to the stack is not.
#![cfg_attr(
    target_arch = "x86_64",
    expect(
        unsafe_code,
        reason = "functions for one kind of processor are called once that kind is known, and registers are read as arrays"
    )
)]

#[cfg(not(target_arch = "x86_64"))]
mod elsewhere;

#[cfg(target_arch = "x86_64")]
mod ecdsa;
#[cfg(target_arch = "x86_64")]
mod edwards;
#[cfg(target_arch = "x86_64")]
mod field25519;
#[cfg(target_arch = "x86_64")]
mod ladder;
#[cfg(target_arch = "x86_64")]
mod lanes;
#[cfg(target_arch = "x86_64")]
mod montgomery;
#[cfg(target_arch = "x86_64")]
mod p256;

pub mod hkdf;
pub mod lend;
mod signing;
pub mod x25519;

pub use signing::{P256Key, with_nonce};

#[cfg(target_arch = "x86_64")]
pub use ecdsa::{Nonce, nonces};
#[cfg(not(target_arch = "x86_64"))]
pub use elsewhere::{Ifma, Nonce, nonces};
#[cfg(target_arch = "x86_64")]
pub use lanes::Ifma;

#[cfg(not(target_arch = "x86_64"))]
use elsewhere::{ecdsa, edwards, ladder};

/// How many operations cost as much as one.
pub const WIDTH: usize = 8;

/// Makes the tables that the process needs, once; about a millisecond.
pub fn prepare(ifma: Ifma) {
    edwards::prepare(ifma);
    ecdsa::prepare(ifma);
}
