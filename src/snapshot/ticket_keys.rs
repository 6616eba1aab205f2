//! The ticket keys in force: one seals, several open (RFC 5077 §4, with AES-256-GCM-SIV).
//!
//! GCM-SIV (RFC 8452) because every worker draws its nonces at random from one ticket key: under plain
//! GCM a repeated nonce would give the ticket key away, here it only tells that two tickets are equal.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;

/// Says which ticket key sealed a ticket, so that opening tries one and not all.
const NAME_LEN: usize = 8;
const TAG_LEN: usize = 16;
/// A ticket lives no longer than a week (RFC 8446 §4.6.1).
const LONGEST_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// One ticket key. A ticket is `name (8) ‖ nonce (12) ‖ ciphertext ‖ tag (16)`.
pub struct TicketKey {
    name: [u8; NAME_LEN],
    aead: LessSafeKey,
}

impl TicketKey {
    /// A new random ticket key.
    ///
    /// # Errors
    /// If the system's random source fails.
    pub fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let mut name = [0; NAME_LEN];
        let mut secret = [0; 32];
        rand::fill(&mut name)?;
        rand::fill(&mut secret)?;
        Ok(Self { name, aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &secret)?) })
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_LEN + NONCE_LEN + plain.len() + TAG_LEN);
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&nonce);
        let head = ticket.len();
        ticket.extend_from_slice(plain);
        let sealed = ticket.get_mut(head..)?;
        let tag = self
            .aead
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(self.name),
                sealed,
            )
            .ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut plain = sealed.to_vec();
        let len = self
            .aead
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(self.name), &mut plain)
            .ok()?
            .len();
        plain.truncate(len);
        Some(plain)
    }
}

/// The ticket keys of one rotation: the newest seals, it and the one before it open.
pub struct TicketKeys {
    current: std::sync::Arc<TicketKey>,
    previous: Option<std::sync::Arc<TicketKey>>,
    lifetime_seconds: u32,
}

impl TicketKeys {
    /// The first ticket keys, rotated every `rotation`.
    ///
    /// # Errors
    /// If the system's random source fails.
    pub fn first(rotation: Duration) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let current = std::sync::Arc::new(TicketKey::generate()?);
        Ok(Self { current, previous: None, lifetime_seconds: lifetime_seconds(rotation) })
    }

    /// The ticket keys after one rotation: what was sealed by the current one still opens, what was
    /// sealed before it does not.
    ///
    /// # Errors
    /// If the system's random source fails.
    pub fn rotated(&self, rotation: Duration) -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self {
            current: std::sync::Arc::new(TicketKey::generate()?),
            previous: Some(self.current.clone()),
            lifetime_seconds: lifetime_seconds(rotation),
        })
    }

    /// The lifetime that clients are told, in seconds. A client that comes after the ticket key is gone
    /// gets a full handshake.
    pub fn lifetime_seconds(&self) -> u32 {
        self.lifetime_seconds
    }

    /// Seals a session; `None` if the random source fails (the connection then goes on without a ticket).
    pub fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.current.seal(plain)
    }

    /// Opens a ticket, which may be any bytes at all; `None` unless one of our ticket keys sealed it.
    pub fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = [Some(&self.current), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|key| key.name == *name)?;
        key.open(nonce, sealed)
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys")
            .field("lifetime_seconds", &self.lifetime_seconds)
            .finish_non_exhaustive()
    }
}

fn lifetime_seconds(rotation: Duration) -> u32 {
    u32::try_from((rotation * 2).min(LONGEST_LIFETIME).as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROTATION: Duration = Duration::from_secs(60);

    #[test]
    fn a_ticket_opens_for_two_rotations() {
        let first = TicketKeys::first(ROTATION).unwrap();
        let ticket = first.seal(b"session").unwrap();
        let second = first.rotated(ROTATION).unwrap();
        let third = second.rotated(ROTATION).unwrap();
        assert_eq!(first.open(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(second.open(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(third.open(&ticket), None);
    }

    #[test]
    fn a_changed_ticket_does_not_open() {
        let keys = TicketKeys::first(ROTATION).unwrap();
        let ticket = keys.seal(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(keys.open(&changed), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn opening_never_panics(ticket in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(TicketKeys::first(ROTATION).unwrap().open(&ticket), None);
        }
    }
}
