//! What only the real upstream can answer, and how a client knows it.
//!
//! The upstream's configuration holds a secret that the server under test is never told. A small response
//! is the secret, the request's nonce and filler; content is a block that follows from the secret, over
//! and over.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Bytes of a small response's body.
pub const SMALL_BYTES: usize = 100;

/// The largest prime below 2^16: a piece that is lost, repeated or swapped shows, because no buffer and no
/// record has a size that divides it.
const BLOCK_BYTES: usize = 65_521;

/// The upstream's answers.
pub struct Answers {
    secret: String,
    block: Vec<u8>,
}

impl Answers {
    pub fn new(secret: &str) -> Self {
        // FNV-1a turns the secret into a seed; nothing here has to resist anybody.
        let seed = secret.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut block = Vec::with_capacity(BLOCK_BYTES + 8);
        let mut state = seed;
        while block.len() < BLOCK_BYTES {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            block.extend(mix(state).to_le_bytes());
        }
        block.truncate(BLOCK_BYTES);
        Self { secret: secret.to_owned(), block }
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What fills a small response up to its size; nginx's configuration has it too.
    pub fn filler(&self) -> String {
        // The nonce and two colons stand before it.
        ".".repeat(SMALL_BYTES.saturating_sub(self.secret.len() + Nonce::LENGTH + 2))
    }

    /// The body of a small response.
    pub fn small(&self, nonce: Nonce) -> String {
        format!("{}:{nonce}:{}", self.secret, self.filler())
    }

    /// The value of `X-Answer` in the head of a download.
    pub fn header(&self, nonce: Nonce) -> String {
        format!("{}:{nonce}", self.secret)
    }

    /// Content from `offset` to the end of its block.
    pub fn content_at(&self, offset: u64) -> &[u8] {
        &self.block[(offset % BLOCK_BYTES as u64) as usize..]
    }

    /// Whether `bytes` are the content at `offset`.
    pub fn is_content(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.content_at(offset);
            let length = expected.len().min(bytes.len());
            if bytes[..length] != expected[..length] {
                return false;
            }
            bytes = &bytes[length..];
            offset += length as u64;
        }
        true
    }

    /// Writes `bytes` of content to a file.
    pub fn write_content(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut offset = 0;
        while offset < bytes {
            let piece = self.content_at(offset);
            let length = (piece.len() as u64).min(bytes - offset);
            file.write_all(&piece[..length as usize])?;
            offset += length;
        }
        file.flush()
    }
}

/// The finalizer of SplitMix64.
fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// What makes a request unlike all others of a run, so that no stored response can answer it.
#[derive(Clone, Copy, Debug)]
pub struct Nonce(u64);

impl Nonce {
    /// Hexadecimal digits.
    const LENGTH: usize = 16;
}

impl std::fmt::Display for Nonce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Draws nonces.
pub struct Nonces(std::cell::Cell<u64>);

impl Nonces {
    pub fn new(seed: u64) -> Self {
        Self(std::cell::Cell::new(seed))
    }

    pub fn next(&self) -> Nonce {
        self.0.set(self.0.get().wrapping_add(1));
        Nonce(mix(self.0.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_response_has_its_size_and_depends_on_nonce_and_secret() {
        let (ours, other) = (Answers::new("secret"), Answers::new("Secret"));
        let nonces = Nonces::new(7);
        let (first, second) = (nonces.next(), nonces.next());
        assert_eq!(ours.small(first).len(), SMALL_BYTES);
        assert_ne!(ours.small(first), ours.small(second));
        assert_ne!(ours.small(first), other.small(first));
    }

    #[test]
    fn content_that_is_swapped_lost_or_anothers_is_not_content() {
        let answers = Answers::new("secret");
        let mut content: Vec<u8> = answers.content_at(0).to_vec();
        content.extend(answers.content_at(0));
        assert!(answers.is_content(0, &content));
        assert!(answers.is_content(1_000, &content[1_000..90_000]));
        assert!(!answers.is_content(1_001, &content[1_000..90_000]));
        assert!(!Answers::new("other").is_content(0, &content[..64]));
        let mut swapped = content.clone();
        swapped[..32_768].rotate_left(16_384);
        assert!(!answers.is_content(0, &swapped));
        content.remove(40_000);
        assert!(!answers.is_content(0, &content));
    }
}
