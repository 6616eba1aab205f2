//! Ids of connections for PROXY headers, unique among all workers and restarts.

use std::cell::Cell;

use aws_lc_rs::rand;

use super::proxy_protocol::UNIQUE_ID_BYTES;

/// A worker's ids: half of each is random, drawn at start-up, half counts connections. Readable in the
/// log of the upstream.
pub struct UniqueIds {
    prefix: u64,
    next: Cell<u64>,
}

impl UniqueIds {
    pub fn new() -> Self {
        let mut prefix = [0; 8];
        // Without random bytes there is no handshake either; ids would merely be less unique.
        let _ = rand::fill(&mut prefix);
        Self { prefix: u64::from_ne_bytes(prefix), next: Cell::new(0) }
    }

    /// 32 hexadecimal digits.
    pub fn next(&self) -> [u8; UNIQUE_ID_BYTES] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let number = self.next.replace(self.next.get().wrapping_add(1));
        let both = u128::from(self.prefix) << 64 | u128::from(number);
        std::array::from_fn(|at| {
            let nibble = both >> (4 * (UNIQUE_ID_BYTES - 1 - at)) & 0xf;
            DIGITS.get(nibble as usize).copied().unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_readable_and_all_different() {
        let (one, other) = (UniqueIds::new(), UniqueIds::new());
        let mut ids: Vec<_> = (0..300).flat_map(|_| [one.next(), other.next()]).collect();
        assert!(ids.iter().flatten().all(u8::is_ascii_hexdigit));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 600);
        assert!(one.next().ends_with(b"000000000000012c"), "300 were drawn before");
    }
}
