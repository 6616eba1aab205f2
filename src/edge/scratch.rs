//! A worker's scratch memory: what is being received, decrypted, encrypted or sent right now.
//!
//! Borrowed between two waits only. What has to survive a wait (an incomplete record, bytes that the
//! socket did not take) is copied into a vector of its own.

use std::ops::{Deref, DerefMut};

use crate::ring::{PAGE_BYTES, WITHIN_PAGE_BYTES};

use super::limits::{BULK_MOST_BYTES, LONGEST_PENDING_BYTES};

/// The largest record on the wire (RFC 8446 §5.2 allows 256 bytes of expansion, TLS 1.2 2,048) and a
/// close_notify or key update.
const MARGIN_BYTES: usize = 4 * 1024;

/// Bytes as they came, and bytes as they leave; between two TLS connections also what was decrypted.
pub struct Scratch {
    pub input: Area,
    pub plain: Filling,
    pub output: Filling,
}

impl Scratch {
    #[expect(clippy::new_without_default, reason = "public only for the benches")]
    pub fn new() -> Self {
        let input = LONGEST_PENDING_BYTES + BULK_MOST_BYTES;
        Self {
            input: Area::new(input),
            // What is never used costs no memory: the system gives zeroed pages when they are written.
            plain: Filling::new(input),
            // Whatever direction: no more leaves than came, but for 29 bytes or less a record of
            // 16 KiB, and what was held back.
            output: Filling::new(input + input / 64 + MARGIN_BYTES),
        }
    }
}

/// Zeroed memory that begins [`WITHIN_PAGE_BYTES`] into a page.
pub struct Area {
    bytes: Box<[u8]>,
    begin: usize,
}

impl Area {
    fn new(len: usize) -> Self {
        let bytes: Box<[u8]> = vec![0; len + PAGE_BYTES].into();
        let within = bytes.as_ptr() as usize % PAGE_BYTES;
        Self { begin: (PAGE_BYTES + WITHIN_PAGE_BYTES - within) % PAGE_BYTES, bytes }
    }
}

impl Deref for Area {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.begin..).unwrap_or_default()
    }
}

impl DerefMut for Area {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.begin..).unwrap_or_default()
    }
}

/// A fixed area that is filled from the front.
pub struct Filling {
    bytes: Area,
    len: usize,
}

impl Filling {
    fn new(capacity: usize) -> Self {
        Self { bytes: Area::new(capacity), len: 0 }
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn filled(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Appends bytes; `false` if they do not fit.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        self.write(|room| {
            let Some(to) = room.get_mut(..bytes.len()) else { return Err(()) };
            to.copy_from_slice(bytes);
            Ok(bytes.len())
        })
        .is_ok()
    }

    /// Lets `writer` write into the room that is left; it says how much it wrote.
    pub fn write<E>(
        &mut self,
        writer: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let written = writer(self.bytes.get_mut(self.len..).unwrap_or_default())?;
        self.len = (self.len + written).min(self.bytes.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_area_begins_where_it_should_and_is_long_enough() {
        let Scratch { input, plain, output } = Scratch::new();
        for area in [&input, &plain.bytes, &output.bytes] {
            assert_eq!(area.as_ptr() as usize % PAGE_BYTES, WITHIN_PAGE_BYTES);
            assert!(area.len() >= LONGEST_PENDING_BYTES + BULK_MOST_BYTES);
        }
    }
}
