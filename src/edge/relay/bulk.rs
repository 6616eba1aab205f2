//! How much a direction of a relay reads at once.

use super::super::limits::{BULK_BYTES, BULK_ENDS_BELOW_BYTES, BULK_MOST_BYTES};

/// Whether a direction is in bulk, and what its next read takes at most.
///
/// What the other side does not take is kept until it does, a read's worth for each peer that stops taking; so reads
/// grow only for those that take all of one at once, and shrink when they do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bulk {
    /// 0: not in bulk.
    bytes: usize,
}

impl Bulk {
    pub(super) fn is_on(self) -> bool {
        self.bytes > 0
    }

    /// The most that the next read takes, also one that only looks what is there.
    pub(super) fn room(self) -> usize {
        self.bytes.max(BULK_BYTES)
    }

    /// A small buffer was received, and was filled or not.
    pub(super) fn received_buffer(&mut self, full: bool) {
        self.bytes = if full { BULK_BYTES } else { 0 };
    }

    /// What comes next is to be read from the socket.
    pub(super) fn begin(&mut self) {
        self.bytes = BULK_BYTES;
    }

    /// So many bytes were read into [`Bulk::room`].
    pub(super) fn took(&mut self, bytes: usize) {
        self.bytes = match bytes {
            0..BULK_ENDS_BELOW_BYTES => 0,
            _ if bytes >= self.room() => (self.room() * 2).min(BULK_MOST_BYTES),
            _ => self.room(),
        };
    }

    /// The other side did not take all of it at once.
    pub(super) fn held_up(&mut self) {
        self.bytes = self.bytes.min(BULK_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_while_all_is_taken_and_only_then() {
        let mut bulk = Bulk::default();
        assert_eq!((bulk.is_on(), bulk.room()), (false, BULK_BYTES));
        bulk.received_buffer(false);
        assert!(!bulk.is_on());
        bulk.received_buffer(true);
        assert_eq!((bulk.is_on(), bulk.room()), (true, BULK_BYTES));
        bulk.took(BULK_BYTES);
        assert_eq!(bulk.room(), 2 * BULK_BYTES);
        for _ in 0..9 {
            bulk.took(bulk.room());
        }
        assert_eq!(bulk.room(), BULK_MOST_BYTES);
        bulk.took(BULK_ENDS_BELOW_BYTES);
        assert_eq!(bulk.room(), BULK_MOST_BYTES, "less than there was room for is no end yet");
        bulk.held_up();
        assert_eq!((bulk.is_on(), bulk.room()), (true, BULK_BYTES));
        bulk.took(BULK_ENDS_BELOW_BYTES - 1);
        assert!(!bulk.is_on());
        bulk.held_up();
        assert!(!bulk.is_on());
    }
}
