//! Seals and opens tickets for rustls with the snapshot's ticket keys.

use std::fmt;
use std::sync::Arc;

use rustls::server::ProducesTickets;

use crate::snapshot::Cell;

/// Reads the ticket keys where everything else is read: all workers share them without writing to a
/// shared cache line, and a rotation is one more snapshot.
pub struct Ticketer {
    cell: Arc<Cell>,
}

impl Ticketer {
    pub fn new(cell: Arc<Cell>) -> Self {
        Self { cell }
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.cell.read(|snapshot| snapshot.ticket_keys.lifetime_seconds())
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.cell.read(|snapshot| snapshot.ticket_keys.seal(plain))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.cell.read(|snapshot| snapshot.ticket_keys.open(ticket))
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}
