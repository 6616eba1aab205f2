//! Every bound and deadline of the edge that is not configured, and what happens at it.

use std::time::Duration;

/// Accepts waiting in the ring at once, per listener and worker. With one, each connection paid its own
/// turn of the ring; sixteen took a full handshake from 84 to 78 µs (DESIGN measurements).
pub const ACCEPTS_IN_FLIGHT: usize = 16;

/// The longest ClientHello message. Real ones stay below 2 KiB even with an X25519MLKEM768 share. A
/// longer one is refused with `illegal_parameter`.
pub const LONGEST_HELLO_BYTES: usize = 16 * 1024;

/// The most bytes read in search of the end of a ClientHello: the message and the headers of records
/// that hold 11 bytes of it each. Refused as too long.
pub const LONGEST_HELLO_INPUT_BYTES: usize = LONGEST_HELLO_BYTES * 3 / 2;

/// The most bytes of one connection that wait for the rest of their record or handshake message: the
/// largest record (RFC 8446 §5.2) and the largest message that rustls joins. More ends the connection.
pub const LONGEST_PENDING_BYTES: usize = 96 * 1024;

/// What one bulk read takes at most. 64 KiB units halved CPU per KiB against 16 KiB ones (DESIGN
/// measurements).
pub const BULK_BYTES: usize = 64 * 1024;

/// A bulk read of less than this ends the bulk: the next wait is for a small buffer again.
pub const BULK_ENDS_BELOW_BYTES: usize = 16 * 1024;

/// How long the TLS 1.3 ticket waits to leave in the same packet as the first response bytes (about 5 %
/// of a handshake with request, DESIGN measurements). After that it is sent on its own.
pub const TICKET_HELD: Duration = Duration::from_millis(50);

/// Upstream reads that look once more before they answer the client, so that the end of a short
/// response leaves in the same packet as its last bytes. Further responses show a kept-alive connection,
/// where looking again would be a wasted system call each.
pub const EAGER_LOOKS: u32 = 1;

/// From an orderly interruption (idle, drained) to a hard one.
pub const CLOSING: Duration = Duration::from_secs(2);

/// How long a connection that the upstream has finished waits for the client to finish too, from the
/// last byte it sent (nginx's lingering_timeout).
pub const AFTER_UPSTREAM_FINISHED: Duration = Duration::from_secs(5);

/// How long a client that was sent away (alert, 400) may take to read that before it is cut off.
pub const LINGER: Duration = Duration::from_secs(1);
/// How much it may send meanwhile.
pub const LINGER_BYTES: usize = 256 * 1024;

/// How long accepting pauses when descriptors run out, unless a connection ends before that.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The longest request head that the built-in page reads; longer is answered with 431.
pub const PAGE_HEAD_BYTES: usize = 8 * 1024;

/// Distinct TLS settings that a worker keeps a `ServerConfig` for; beyond, it starts over.
pub const CONFIGS: usize = 1024;
